//! `cargo xtask runner`: builds the module that runs JavaScript hooks,
//! src/hooks/engines/quickjs/runner/runner.wasm.zst.
//!
//! The crate in that folder is built for WebAssembly, with QuickJS in C, which rquickjs contains. Then a test of the
//! engine loads the scripts into the module and writes the snapshot, with the code that loads hooks in the server.
//!
//! The same toolchain builds the same bytes on any machine. It is Debian's, whose paths are the same everywhere; the
//! module contains no other paths.

use std::path::PathBuf;

use crate::needs;
use crate::repository::{root, target_directory};
use crate::shell::{Result, cargo, run as run_command};

const FOLDER: &str = "src/hooks/engines/quickjs/runner";
const TARGET: &str = "wasm32-unknown-unknown";

/// The file that cargo builds from the crate.
const FILE: &str = "snaphook_quickjs_runner.wasm";

/// Compiler flags for C: features that every WebAssembly engine has, and no exported symbols. Warnings about foreign
/// code are off.
const C_FLAGS: &str = "-fvisibility=hidden -mbulk-memory -mnontrapping-fptoint -msign-ext -mmutable-globals -w";

/// Compiler flags for Rust: a panic is a trap, without messages and locations, which nobody would see.
const RUST_FLAGS: [&str; 3] = ["-Zunstable-options", "-Cpanic=immediate-abort", "-Zlocation-detail=none"];

/// Variables that the tests read (artifact_tests.rs): the module without the scripts, and whether to write the
/// artifact.
pub(crate) const CODE: &str = "SNAPHOOK_RUNNER_CODE";
const WRITE: &str = "SNAPHOOK_RUNNER_WRITE";
const TESTS: &str = "hooks::engines::quickjs::artifact";

/// `cargo xtask runner`.
pub(crate) fn run(args: &[String]) -> Result {
    if let Some(arg) = args.first() {
        return Err(format!("`runner` takes no argument, found `{arg}`"));
    }
    let code = build()?;
    // The whole workspace: for a single package cargo would select other features and build dependencies again.
    let tests = ["test", "--workspace", "--lib", "--", TESTS];
    run_command(cargo().args(tests).env(CODE, code).env(WRITE, "1").current_dir(root()))?;
    println!("{FOLDER}/runner.wasm.zst is written; rebuild everything that uses it");
    Ok(())
}

/// Builds the module without the scripts and returns its path.
pub(crate) fn build() -> Result<PathBuf> {
    let (rustc, _) = needs::debian_rust()?;
    let c = needs::wasm_c()?;
    let archiver = needs::clang()?.archiver;
    let out = target_directory()?.join("runner");
    // The library that C code calls for operations that WebAssembly lacks.
    let runtime = format!("-Clink-arg={}", c.runtime.display());
    let rust_flags = [&RUST_FLAGS[..], &[&runtime]].concat().join("\u{1f}");
    let mut command = cargo();
    command
        .args(["build", "--release", "--locked", "-Zbuild-std=core,alloc", "--target", TARGET])
        .current_dir(root().join(FOLDER))
        .env("CARGO_TARGET_DIR", &out)
        .env("RUSTC", rustc)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", rust_flags)
        .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", c.linker)
        .env("CC_wasm32_unknown_unknown", &c.clang)
        .env("AR_wasm32_unknown_unknown", archiver)
        .env("CFLAGS_wasm32_unknown_unknown", C_FLAGS);
    run_command(&mut command)?;
    Ok(out.join(TARGET).join("release").join(FILE))
}
