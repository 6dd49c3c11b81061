//! Builds the WebAssembly guests of the repository into `target/guests`: the hooks of `hooks/` and `tests/guests`, each in
//! its language.
//!
//! The tests find them through `SNAPHOOK_GUESTS`, or in the target folder without it.

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

/// The guest that lets everything pass after one look at the data: what `cargo xtask bench` binds.
pub(crate) const BENCH_GUEST: &str = "check";

/// The custom endpoint that it asks.
pub(crate) const BENCH_ENDPOINT: &str = "endpoint";

/// The sandboxed module that it puts in front of requests.
pub(crate) const BENCH_MODULE: &str = "decline";

/// The same as a Javy module.
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

/// Builds those in Rust and gives the folder that holds `<crate name>.wasm`.
pub(crate) fn build(toolchain: &WasmToolchain) -> Result<PathBuf> {
    let folder = target_directory()?.join("guests");
    std::fs::create_dir_all(&folder).map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
    rust::build(&folder, toolchain)?;
    templates::build(&folder, toolchain)?;
    println!("guests are in {}", folder.display());
    Ok(folder)
}

/// Builds those in other languages. Gives what could not be built, since its tools are not there.
pub(crate) fn build_others(folder: &Path) -> Result<Vec<String>> {
    let mut missing = Vec::new();
    match needs::clang() {
        Ok(clang) => {
            c::build(folder, &clang)?;
            // Javy's engine is C inside, and Rust's standard library for WASI stands on that of C, so they need the same.
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

/// Builds Javy's modules alone.
pub(crate) fn build_javy(folder: &Path) -> Result {
    javy::build(folder, &needs::clang()?, &needs::debian_rust()?)
}

/// A folder with the programs that hooks in other languages are built with, under the names that their authors know:
/// pages of the documentation use them.
pub(crate) fn tools() -> Result<PathBuf> {
    let folder = target_directory()?.join("tools");
    std::fs::create_dir_all(&folder).map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
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

/// Whether `output` is older than one of the files that it is made of, or is not there.
fn is_stale(output: &Path, inputs: &[PathBuf]) -> bool {
    let time = |path: &Path| std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    match time(output) {
        Some(made) => inputs.iter().any(|input| time(input).is_none_or(|changed| changed > made)),
        None => true,
    }
}

/// The WIT package as it is released.
fn package() -> PathBuf {
    root().join("wit/since_v0_1_0/hook.wit")
}
