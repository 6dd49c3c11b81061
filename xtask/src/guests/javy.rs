//! Javy modules: Javy's engine is built from its crate, and sources are built with it by the crate of `javy build`.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::is_stale;
use crate::needs::Clang;
use crate::repository::{root, target_directory};
use crate::shell::{Result, cargo, run};

const TARGET: &str = "wasm32-wasip1";

/// Files in the folder for builds of guests: the initialized engine, and the program that builds modules with it.
const PLUGIN: &str = "javy.wasm";
const BUILDER: &str = "release/javy-build";

/// Source, and the name of the result.
const GUESTS: [(&str, &str); 3] = [
    ("tests/guests/javy/suite.js", "suite_javy"),
    ("hooks/examples/javy/check.js", super::BENCH_JAVY_GUEST),
    ("hooks/examples/javy/work.js", "javy_work"),
];

pub(super) fn build(folder: &Path, clang: &Clang, toolchain: &(PathBuf, PathBuf)) -> Result {
    let root = root();
    let builder = builder()?;
    let plugin = target()?.join(PLUGIN);
    let built = built(clang, toolchain)?;
    if is_stale(&plugin, &[built.clone(), builder.clone()]) {
        run(Command::new(&builder).arg("init").arg(&built).arg(&plugin))?;
    }
    for (source, name) in GUESTS {
        let (source, output) = (root.join(source), folder.join(format!("{name}.wasm")));
        if is_stale(&output, &[source.clone(), plugin.clone()]) {
            run(Command::new(&builder).arg("build").arg(&plugin).arg(&source).arg(&output))?;
            println!("{name}: built");
        }
    }
    Ok(())
}

/// A shell command for `javy build SOURCE -o MODULE`.
pub(super) fn script() -> Result<String> {
    let target = target()?;
    let (builder, plugin) = (target.join(BUILDER), target.join(PLUGIN));
    Ok(format!("exec '{}' build '{}' \"$2\" \"$4\"", builder.display(), plugin.display()))
}

/// The folder for everything that is built here except the modules.
fn target() -> Result<PathBuf> {
    Ok(target_directory()?.join("guests-build"))
}

/// Builds the program that replaces `javy init-plugin` and `javy build`.
fn builder() -> Result<PathBuf> {
    let target = target()?;
    let mut command = cargo();
    command.args(["build", "--release", "--locked"]).current_dir(root().join("tests/guests/javy/build"));
    run(command.env("CARGO_TARGET_DIR", &target))?;
    Ok(target.join(BUILDER))
}

/// Compiles Javy's engine, which is not initialized yet.
fn built(clang: &Clang, (rustc, linker): &(PathBuf, PathBuf)) -> Result<PathBuf> {
    let target = target()?;
    let resources = clang.resources.display();
    let headers = "--target=wasm32-wasi -nostdlibinc -isystem /usr/include/wasm32-wasi";
    let mut command = cargo();
    command
        .args(["build", "--release", "--locked", "-Zbuild-std=std,panic_abort", "--target", TARGET])
        .current_dir(root().join("tests/guests/javy"))
        .env("CARGO_TARGET_DIR", &target)
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env("RUSTC", rustc)
        .env("RUSTC_BOOTSTRAP", "1")
        // Its QuickJS is written in C and compiled by clang with Debian's C library, instead of a WASI SDK, which would
        // be downloaded.
        .env("RQUICKJS_SYS_NO_WASI_SDK", "1")
        .env("CC_wasm32_wasip1", &clang.clang)
        .env("AR_wasm32_wasip1", &clang.archiver)
        .env("CFLAGS_wasm32_wasip1", format!("{headers} -D_WASI_EMULATED_SIGNAL -D_WASI_EMULATED_PROCESS_CLOCKS"))
        .env("BINDGEN_EXTRA_CLANG_ARGS", format!("{headers} -isystem {resources}/include -fvisibility=default"))
        .env("CARGO_TARGET_WASM32_WASIP1_LINKER", linker)
        .env(
            "CARGO_TARGET_WASM32_WASIP1_RUSTFLAGS",
            format!(
                "-C target-feature=+simd128 -C link-self-contained=no -C link-arg=-L/usr/lib/wasm32-wasi \
                 -C link-arg=-L{resources}/lib/wasi -C link-arg=-lclang_rt.builtins-wasm32 -C link-arg=-lc"
            ),
        );
    run(&mut command)?;
    Ok(target.join(TARGET).join("release/javy_plugin.wasm"))
}
