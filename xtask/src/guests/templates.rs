//! The Rust templates of `snaphook module new`, as a new author gets them. Each becomes a component, which the tests
//! run.

use std::path::Path;

use super::package;
use super::rust::{compile, componentize};
use crate::needs::WasmToolchain;
use crate::repository::{root, target_directory};
use crate::shell::Result;

/// Folders of `sdk/templates`. Each becomes `<name>_rust.wasm`.
const TEMPLATES: [&str; 2] = ["endpoint-rust", "module-rust"];

/// Writes the components into `folder`.
pub(super) fn build(folder: &Path, toolchain: &WasmToolchain) -> Result {
    let build_directory = target_directory()?.join("guests-build");
    for template in TEMPLATES {
        let directory = target_directory()?.join("guests-templates").join(template);
        write(&root().join("sdk/templates").join(template), &directory, template)?;
        let module = root().join("wit/module/since_v0_1_0/module.wit");
        for (contract, name) in [(package(), "snaphook-hook.wit"), (module, "snaphook-module.wit")] {
            copy(&contract, &directory.join("wit/deps").join(name), |text| text)?;
        }
        let triple = compile(&directory, &build_directory, toolchain, false)?;
        let name = template.replace('-', "_");
        let built = build_directory.join(triple).join("release").join(format!("{name}.wasm"));
        let bytes = std::fs::read(&built).map_err(|error| format!("cannot read {}: {error}", built.display()))?;
        let component = componentize(&bytes).map_err(|error| format!("{}: {error}", built.display()))?;
        let path = folder.join(format!("{name}.wasm"));
        std::fs::write(&path, &component).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        println!("{name}: {} KiB", component.len().div_ceil(1024));
    }
    Ok(())
}

/// Copies a template's files and fills them in as `snaphook module new` does.
fn write(from: &Path, to: &Path, name: &str) -> Result {
    let failed = |error: std::io::Error| format!("cannot read {}: {error}", from.display());
    for entry in std::fs::read_dir(from).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let Some(file) = path.file_name() else { continue };
        if path.is_dir() {
            write(&path, &to.join(file), name)?;
        } else {
            copy(&path, &to.join(file), |text| text.replace("{{name}}", name).replace("{{crate}}", name))?;
        }
    }
    Ok(())
}

/// Unchanged files keep their modification time, so that they are not rebuilt.
fn copy(from: &Path, to: &Path, fill: impl Fn(String) -> String) -> Result {
    let text = std::fs::read_to_string(from).map_err(|error| format!("cannot read {}: {error}", from.display()))?;
    let text = fill(text);
    if std::fs::read_to_string(to).is_ok_and(|before| before == text) {
        return Ok(());
    }
    let made = to.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| std::fs::write(to, text));
    made.map_err(|error| format!("cannot write {}: {error}", to.display()))
}
