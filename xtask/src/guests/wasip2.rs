//! Guests in Rust for `wasm32-wasip2`, the target that authors with rustup have. The linker creates the component, and
//! the standard library works, so a panic prints its reason.

use std::path::Path;
use std::process::Command;

use crate::needs::{self, Clang};
use crate::repository::{root, target_directory};
use crate::shell::{Result, cargo, run};

const TARGET: &str = "wasm32-wasip2";

/// Workspace, package, and the name of the result.
const GUESTS: [(&str, &str, &str); 2] =
    [("hooks/examples", "order", "order_wasip2"), ("tests/guests", "suite-sdk", "suite_sdk_wasip2")];

/// `rustc`: a compiler with the sources of its standard library, used if the toolchain has none for the target.
pub(super) fn build(folder: &Path, clang: &Clang, rustc: &Path) -> Result {
    let builds = target_directory()?.join("guests-build");
    let is_installed = needs::has_target(TARGET)?;
    for (workspace, package, name) in GUESTS {
        let mut command = cargo();
        command.args(["build", "--release", "--locked", "--target", TARGET, "--package", package]);
        command.current_dir(root().join(workspace)).env("CARGO_TARGET_DIR", &builds);
        command.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
        if !is_installed {
            from_source(&mut command, clang, rustc)?;
        }
        run(&mut command)?;
        let built = builds.join(TARGET).join("release").join(format!("{}.wasm", package.replace('-', "_")));
        let path = folder.join(format!("{name}.wasm"));
        std::fs::copy(&built, &path).map_err(|error| format!("cannot copy {}: {error}", built.display()))?;
        println!("{name}: built");
    }
    Ok(())
}

/// Also builds the standard library, with Debian's C library.
fn from_source(command: &mut Command, clang: &Clang, rustc: &Path) -> Result {
    let (linker, wasm_ld) = needs::component_linker()?;
    let flags = [
        "-C link-self-contained=no".to_owned(),
        "-C link-arg=-L/usr/lib/wasm32-wasi".to_owned(),
        format!("-C link-arg=-L{}/lib/wasi", clang.resources.display()),
        "-C link-arg=-lclang_rt.builtins-wasm32".to_owned(),
        "-C link-arg=-lc".to_owned(),
        format!("-C link-arg=--wasm-ld-path={}", wasm_ld.display()),
    ];
    command
        .arg("-Zbuild-std=std,panic_abort")
        .env("RUSTC", rustc)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_WASM32_WASIP2_LINKER", linker)
        .env("CARGO_TARGET_WASM32_WASIP2_RUSTFLAGS", flags.join(" "));
    Ok(())
}
