//! Builds the guests that use `snaphook-hook` a second time: as native libraries for this machine, next to the
//! components in `target/guests`. Also runs their unit tests, with the SDK's mock host.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::repository::{root, target_directory};
use crate::shell::{Result, cargo, run as run_command};

/// Workspaces, and their packages that are built both ways.
const LIBRARIES: [(&str, &str); 3] =
    [("hooks/examples", "order"), ("hooks/examples", "work"), ("tests/guests", "suite-sdk")];

/// `cargo xtask native`.
pub(crate) fn run(args: &[String]) -> Result {
    match args.first() {
        Some(arg) => Err(format!("`native` takes no argument, found `{arg}`")),
        None => build().map(|_| ()),
    }
}

/// Builds all of them and returns the folder of the libraries.
pub(crate) fn build() -> Result<PathBuf> {
    let target = target_directory()?;
    let (libraries, builds) = (target.join("guests"), target.join("guests-native"));
    std::fs::create_dir_all(&libraries).map_err(|error| format!("cannot create {}: {error}", libraries.display()))?;
    for (workspace, package) in LIBRARIES {
        // The components' profile aborts on panics, which a library in the server's process must not do.
        for task in [&["test"][..], &["build", "--release", "--config", "profile.release.panic='unwind'"]] {
            let mut command = cargo();
            command.args(task).args(["--locked", "--package", package]).current_dir(root().join(workspace));
            run_command(command.env("CARGO_TARGET_DIR", &builds))?;
        }
        let (prefix, suffix) = (std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
        let name = package.replace('-', "_");
        let built = builds.join("release").join(format!("{prefix}{name}{suffix}"));
        let path = libraries.join(format!("{name}{suffix}"));
        std::fs::copy(&built, &path).map_err(|error| format!("cannot copy {}: {error}", built.display()))?;
    }
    example_in_c(&libraries)?;
    println!("{} native libraries in {}", LIBRARIES.len() + 1, libraries.display());
    Ok(libraries)
}

/// The library of `sdk/c/examples` that `cargo xtask bench` binds.
pub(crate) const BENCH_LIBRARY: &str = "check.so";

/// Compiles that library into a folder.
pub(crate) fn example_in_c(folder: &Path) -> Result {
    let sdk = root().join("sdk/c");
    let mut command = Command::new("cc");
    command.args(["-shared", "-fPIC", "-fexceptions", "-O2", "-I"]).arg(&sdk);
    run_command(command.arg("-o").arg(folder.join(BENCH_LIBRARY)).arg(sdk.join("examples/check.c")))
}
