//! Guests in Rust: every library crate of a workspace under `hooks/` and `tests/guests` becomes a component.

use std::path::{Path, PathBuf};

use serde_json::Value;
use wit_component::ComponentEncoder;

use crate::needs::WasmToolchain;
use crate::repository::{files, root, target_directory};
use crate::shell::{Result, cargo, read, run as run_command};

/// Folders of guests: examples, and guests only for tests.
const FOLDERS: [&str; 2] = ["hooks/", "tests/guests/"];

/// Built by javy.rs.
const JAVY: &str = "tests/guests/javy/";

/// Writes `<crate name>.wasm` for each into `folder`.
pub(super) fn build(folder: &Path, toolchain: &WasmToolchain) -> Result {
    let build_directory = target_directory()?.join("guests-build");
    for workspace in workspaces(&root())? {
        let triple = compile(&workspace.root, &build_directory, toolchain, true)?;
        for library in &workspace.libraries {
            let built = build_directory.join(triple).join("release").join(format!("{library}.wasm"));
            let bytes = std::fs::read(&built).map_err(|error| format!("cannot read {}: {error}", built.display()))?;
            let component = componentize(&bytes).map_err(|error| format!("{}: {error}", built.display()))?;
            let path = folder.join(format!("{library}.wasm"));
            std::fs::write(&path, &component).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
            println!("{library}: {} KiB", component.len().div_ceil(1024));
        }
    }
    Ok(())
}

struct Workspace {
    root: PathBuf,
    /// File names without `.wasm`.
    libraries: Vec<String>,
}

/// The guests' workspaces. Each has its own lock file, because it is built for another target.
fn workspaces(root: &Path) -> Result<Vec<Workspace>> {
    let mut workspaces: Vec<Workspace> = Vec::new();
    let is_guest = |path: &str| {
        FOLDERS.iter().any(|folder| path.starts_with(folder))
            && path.ends_with("/Cargo.toml")
            && !path.starts_with(JAVY)
    };
    for manifest in files(root)?.iter().filter(|path| is_guest(path)) {
        let directory = root.join(manifest).parent().unwrap_or(root).to_owned();
        if workspaces.iter().any(|workspace| directory.starts_with(&workspace.root)) {
            continue;
        }
        let metadata = read(cargo().args(["metadata", "--format-version=1", "--no-deps"]).current_dir(&directory))?;
        let metadata: Value = serde_json::from_str(&metadata).map_err(|error| format!("{manifest}: {error}"))?;
        workspaces.push(Workspace {
            root: metadata["workspace_root"].as_str().map(PathBuf::from).unwrap_or(directory),
            libraries: library_names(&metadata),
        });
    }
    Ok(workspaces)
}

/// Names of the `cdylib` targets in the output of `cargo metadata`, in the form of cargo's file names.
fn library_names(metadata: &Value) -> Vec<String> {
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let targets = packages.flat_map(|package| package["targets"].as_array().into_iter().flatten());
    targets
        .filter(|target| {
            target["crate_types"].as_array().is_some_and(|types| types.iter().any(|kind| kind == "cdylib"))
        })
        .filter_map(|target| target["name"].as_str())
        .map(|name| name.replace('-', "_"))
        .collect()
}

/// Builds one workspace and returns the name of its target's folder. `is_locked`: it has a lock file.
pub(super) fn compile(
    workspace: &Path,
    target: &Path,
    toolchain: &WasmToolchain,
    is_locked: bool,
) -> Result<&'static str> {
    let mut command = cargo();
    command.args(["build", "--release"]).args(is_locked.then_some("--locked")).current_dir(workspace);
    // Compiler flags for this machine do not apply to guests.
    command.env("CARGO_TARGET_DIR", target).env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    let triple = match toolchain {
        WasmToolchain::Installed { target } => target,
        WasmToolchain::FromSource { rustc, linker } => {
            command
                .env("RUSTC", rustc)
                // Building the standard library requires the unstable flag below.
                .env("RUSTC_BOOTSTRAP", "1")
                .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker)
                .arg("-Zbuild-std=std,panic_abort");
            "wasm32-unknown-unknown"
        }
    };
    run_command(command.args(["--target", triple]))?;
    Ok(triple)
}

/// Converts a core module with a WIT world to a component; returns a component unchanged.
pub(super) fn componentize(module: &[u8]) -> Result<Vec<u8>> {
    // Both start with `\0asm`; the layer in the upper half of the version tells them apart.
    if module.get(6..8) == Some(&[1, 0]) {
        return Ok(module.to_vec());
    }
    ComponentEncoder::default()
        .validate(true)
        .module(module)
        .and_then(|encoder| encoder.encode())
        .map_err(|error| format!("cannot make a component of the guest: {error:#}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cdylib_names_are_those_of_the_files() {
        let metadata = serde_json::json!({"packages": [
            {"targets": [{"name": "guest-one", "crate_types": ["cdylib"]}, {"name": "tool", "crate_types": ["bin"]}]},
            {"targets": [{"name": "two", "crate_types": ["lib", "cdylib"]}]},
        ]});
        assert_eq!(library_names(&metadata), ["guest_one", "two"]);
    }

    #[test]
    fn a_component_is_left_alone() {
        let component = b"\0asm\x0d\0\x01\0rest";
        assert_eq!(componentize(component).unwrap(), component);
    }

    #[test]
    fn noise_is_refused() {
        assert!(componentize(b"not wasm at all").unwrap_err().contains("cannot make a component"));
    }
}
