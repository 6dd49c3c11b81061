//! Rust: cargo for a WebAssembly target; where that gives a core module, a component is made of it here. Or for this machine, as
//! a native library.

use std::path::{Path, PathBuf};

use super::built::{Built, component, native};
use super::tool::Tool;
use crate::cli::failure::{Failure, Result};

/// Targets that a hook can be built for, best first.
const TARGETS: [&str; 2] = ["wasm32-wasip2", "wasm32-unknown-unknown"];

pub(super) fn build(directory: &Path) -> Result<Built> {
    let target = target(directory)?;
    let messages = Tool::find("cargo", directory)?
        .args(["build", "--release", "--message-format=json-render-diagnostics", "--target", target])
        .read()?;
    component(read(&messages, "wasm")?)
}

/// A library for this machine.
pub(super) fn build_native(directory: &Path) -> Result<Built> {
    let args = ["build", "--release", "--message-format=json-render-diagnostics"];
    let messages = Tool::find("cargo", directory)?.args(args).read()?;
    Ok(native(read(&messages, std::env::consts::DLL_EXTENSION)?))
}

/// The library that cargo made.
fn read(messages: &[u8], extension: &str) -> Result<Vec<u8>> {
    let path = artifact(messages, extension).ok_or_else(|| {
        Failure::new(format!(
            "`cargo` built no `.{extension}` file; `Cargo.toml` must have `[lib] crate-type = [\"cdylib\"]`"
        ))
    })?;
    std::fs::read(&path).map_err(|error| Failure::new(format!("`{}` cannot be read: {error}", path.display())))
}

/// One that the toolchain has the standard library of, or is told to build along.
fn target(directory: &Path) -> Result<&'static str> {
    if std::env::var_os("CARGO_UNSTABLE_BUILD_STD").is_some() {
        return Ok(TARGETS[1]);
    }
    let sysroot = Tool::find("rustc", directory)?.args(["--print", "sysroot"]).read()?;
    let libraries = PathBuf::from(String::from_utf8_lossy(&sysroot).trim()).join("lib/rustlib");
    TARGETS.into_iter().find(|target| libraries.join(target).is_dir()).ok_or_else(|| {
        Failure::NotReady(format!(
            "the Rust toolchain has no target for WebAssembly; `rustup target add {}` installs one",
            TARGETS[0]
        ))
    })
}

/// The last library of that kind that cargo made: that of the package itself.
fn artifact(messages: &[u8], wanted: &str) -> Option<PathBuf> {
    let messages =
        messages.split(|byte| *byte == b'\n').filter_map(|line| snaphook_driver::json::parse_bytes(line).ok());
    let files = messages.filter_map(|message| message.get("filenames")?.as_array().cloned()).flatten();
    let paths = files.filter_map(|file| file.as_str().map(PathBuf::from));
    paths.rev().find(|file| file.extension().is_some_and(|extension| extension == wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_library_is_the_packages_own() {
        let messages = b"{\"reason\":\"compiler-artifact\",\"filenames\":[\"/t/libserde.rlib\"]}\nnoise\n\
            {\"filenames\":[\"/t/dep.wasm\"]}\n{\"filenames\":[\"/t/hook.wasm\",\"/t/hook.d\"]}\n{\"reason\":\"build-finished\"}\n";
        assert_eq!(artifact(messages, "wasm"), Some(PathBuf::from("/t/hook.wasm")));
        assert_eq!(artifact(b"", "wasm"), None);
    }
}
