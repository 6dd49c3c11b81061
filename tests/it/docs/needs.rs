//! The needs that a page may list in its first line, and the environment in which its shell finds them.

use std::path::{Path, PathBuf};

use super::repository;

/// Folders with programs for the tests, in the format of `PATH`.
const TOOLS: &str = "SNAPHOOK_TOOLS";
/// Lines of `NAME=value`: the variables that cargo needs here to build for WebAssembly.
const WASM: &str = "SNAPHOOK_WASM_ENVIRONMENT";

/// The environment of a page with these needs, or an error that names what is missing.
pub(crate) fn environment(needs: &[String]) -> Result<Vec<(String, String)>, String> {
    let mut environment = Vec::new();
    for need in needs {
        match need.as_str() {
            "node" => ["node", "npm"].into_iter().try_for_each(program)?,
            "wasm32" => environment.extend(wasm()?),
            "v8" => environment.push(v8()?),
            // The test starts it.
            "server" => {}
            other => program(other)?,
        }
    }
    Ok(environment)
}

/// `PATH` with the tests' own programs first.
pub(crate) fn path(first: &Path) -> std::ffi::OsString {
    let folders = std::iter::once(first.to_owned()).chain(folders());
    std::env::join_paths(folders).expect("no folder with a colon")
}

fn folders() -> Vec<PathBuf> {
    let listed = |name| std::env::var_os(name).map(|list| std::env::split_paths(&list).collect()).unwrap_or_default();
    let (mut tools, path): (Vec<PathBuf>, Vec<PathBuf>) = (listed(TOOLS), listed("PATH"));
    tools.extend(path);
    tools
}

fn program(name: &str) -> Result<(), String> {
    match folders().iter().any(|folder| folder.join(name).is_file()) {
        true => Ok(()),
        false => Err(format!("no `{name}` on the PATH")),
    }
}

/// A toolchain with a WebAssembly target, or the one that `cargo xtask test` found.
fn wasm() -> Result<Vec<(String, String)>, String> {
    if let Ok(lines) = std::env::var(WASM) {
        let pair = |line: &str| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        return Ok(lines.lines().filter_map(pair).collect());
    }
    let output = std::process::Command::new("rustc").args(["--print", "sysroot"]).output();
    let sysroot = output.map_err(|error| format!("no rustc: {error}"))?.stdout;
    let targets = PathBuf::from(String::from_utf8_lossy(&sysroot).trim()).join("lib/rustlib");
    match ["wasm32-wasip2", "wasm32-unknown-unknown"].iter().any(|target| targets.join(target).is_dir()) {
        true => Ok(Vec::new()),
        false => Err("no Rust target for WebAssembly; `cargo xtask test` finds or installs one".to_owned()),
    }
}

/// V8, and the checkout that contains it.
fn v8() -> Result<(String, String), String> {
    match repository().join("plugins/v8/libmini_racer.so").is_file() {
        true => Ok(("CHECKOUT".to_owned(), repository().display().to_string())),
        false => Err("no V8; `cargo xtask v8` fetches it".to_owned()),
    }
}
