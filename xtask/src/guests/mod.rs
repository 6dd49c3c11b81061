//! Builds the WebAssembly guests of the repository into `target/guests`: the hooks of `hooks/` and `tests/guests`, in
//! several languages.
//!
//! The tests find them in the folder that `SNAPHOOK_GUESTS` names, or else in the target folder.

mod c;
mod javy;
mod python;
mod rust;
mod templates;
mod wasip2;

use std::path::{Path, PathBuf};

use crate::needs::{self, WasmToolchain};
use crate::repository::{root, target_directory};
use crate::shell::Result;

/// The guest that `cargo xtask bench` binds: it reads the data and accepts everything.
pub(crate) const BENCH_GUEST: &str = "check";

/// The custom endpoint that `cargo xtask bench` calls.
pub(crate) const BENCH_ENDPOINT: &str = "endpoint";

/// The sandboxed module that `cargo xtask bench` configures.
pub(crate) const BENCH_MODULE: &str = "decline";

/// [`BENCH_GUEST`] as a Javy module.
pub(crate) const BENCH_JAVY_GUEST: &str = "javy_check";

/// `cargo xtask guests`.
pub(crate) fn run(args: &[String]) -> Result {
    if let Some(arg) = args.first() {
        return Err(format!("`guests` takes no argument, found `{arg}`"));
    }
    let folder = build(&needs::wasm_toolchain()?)?;
    let missing = build_others(&folder)?;
    missing.iter().for_each(|what| println!("skipped: {what}"));
    Ok(())
}

/// Builds the guests in Rust and returns the folder that contains `<crate name>.wasm`.
pub(crate) fn build(toolchain: &WasmToolchain) -> Result<PathBuf> {
    let folder = target_directory()?.join("guests");
    std::fs::create_dir_all(&folder).map_err(|error| format!("cannot create {}: {error}", folder.display()))?;
    rust::build(&folder, toolchain)?;
    templates::build(&folder, toolchain)?;
    println!("guests are in {}", folder.display());
    Ok(folder)
}

/// Builds the guests in other languages. Returns those that could not be built because their tools are missing.
pub(crate) fn build_others(folder: &Path) -> Result<Vec<String>> {
    let mut missing = Vec::new();
    match needs::clang() {
        Ok(clang) => {
            c::build(folder, &clang)?;
            // Javy's engine contains C, and Rust's standard library for WASI uses the C library, so both need the same
            // tools.
            match needs::debian_rust() {
                Ok(toolchain) => {
                    javy::build(folder, &clang, &toolchain)?;
                    wasip2::build(folder, &clang, &toolchain.0)?;
                }
                Err(reason) => missing.push(format!("Javy modules and guests in Rust for WASI: {reason}")),
            }
        }
        Err(reason) => missing.push(format!("guests in C and in Rust for WASI, Javy modules: {reason}")),
    }
    match needs::componentize_py() {
        Ok(tool) => python::build(folder, &tool)?,
        Err(reason) => missing.push(format!("guests in Python: {reason}")),
    }
    Ok(missing)
}

/// Builds only the Javy modules.
pub(crate) fn build_javy(folder: &Path) -> Result {
    javy::build(folder, &needs::clang()?, &needs::debian_rust()?)
}

/// Creates a folder with the programs that build hooks in other languages, under the names that authors know: the
/// documentation uses them.
pub(crate) fn tools() -> Result<PathBuf> {
    let folder = target_directory()?.join("tools");
    std::fs::create_dir_all(&folder).map_err(|error| format!("cannot create {}: {error}", folder.display()))?;
    if let Ok(clang) = needs::clang() {
        script(&folder, "clang", &format!("exec '{}' \"$@\"", clang.clang.display()))?;
        if needs::debian_rust().is_ok() {
            script(&folder, "javy", &javy::script()?)?;
        }
    }
    if let Ok(tool) = needs::componentize_py() {
        script(&folder, "componentize-py", &format!("exec '{}' \"$@\"", tool.display()))?;
    }
    Ok(folder)
}

fn script(folder: &Path, name: &str, line: &str) -> Result {
    let path = folder.join(name);
    let failed = |error: std::io::Error| format!("cannot write {}: {error}", path.display());
    std::fs::write(&path, format!("#!/bin/sh\n{line}\n")).map_err(failed)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).map_err(failed)?;
    }
    Ok(())
}

/// Whether `output` is missing or older than one of its inputs.
fn is_stale(output: &Path, inputs: &[PathBuf]) -> bool {
    let time = |path: &Path| std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    match time(output) {
        Some(made) => inputs.iter().any(|input| time(input).is_none_or(|changed| changed > made)),
        None => true,
    }
}

/// The released WIT package.
fn package() -> PathBuf {
    root().join("wit/since_v0_1_0/hook.wit")
}
