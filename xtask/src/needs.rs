//! What the tests need besides cargo: found, or installed where that can be done, or named as missing.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::shell::{Result, find_program, read, run, rustc};

/// A way to build Rust for WebAssembly.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum WasmToolchain {
    /// The toolchain that runs this has the target's standard library.
    Installed { target: &'static str },
    /// Another rustc with the sources of its standard library, which is then built along.
    FromSource { rustc: PathBuf, linker: PathBuf },
}

impl WasmToolchain {
    /// What makes a plain `cargo build --target wasm32-…` use it: pages of the documentation build as their readers do.
    pub(crate) fn environment(&self) -> String {
        match self {
            WasmToolchain::Installed { .. } => String::new(),
            WasmToolchain::FromSource { rustc, linker } => format!(
                "RUSTC={}\nRUSTC_BOOTSTRAP=1\nCARGO_UNSTABLE_BUILD_STD=std,panic_abort\n\
                 CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER={}\n",
                rustc.display(),
                linker.display()
            ),
        }
    }
}

/// The packages of `sdk/js`: what its tests and bundling need. Installed as its lock file says.
pub(crate) fn javascript_packages() -> Result {
    for program in ["node", "npm"] {
        if find_program(program).is_none() {
            install_debian(&["nodejs", "npm"]).map_err(|reason| format!("no {program} ({reason}); install Node.js"))?;
        }
    }
    let directory = crate::repository::root().join("sdk/js");
    run(Command::new("npm").args(["ci", "--no-audit", "--no-fund", "--loglevel=error"]).current_dir(directory))
}

/// Targets that a guest can be built for, best first.
const TARGETS: [&str; 2] = ["wasm32-unknown-unknown", "wasm32-wasip2"];

/// Debian's rustc that comes with the sources of its standard library.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_SOURCES: &str = "/usr/lib/rustlib/src/rust/library/std/Cargo.toml";
const DEBIAN_PACKAGES: [&str; 2] = ["rustc-web", "rust-web-src"];

/// Finds it, installs it on a Debian where this runs as root, or says what to do.
pub(crate) fn wasm_toolchain() -> Result<WasmToolchain> {
    let sysroot = PathBuf::from(read(rustc().args(["--print", "sysroot"]))?);
    if let Some(target) = TARGETS.into_iter().find(|target| sysroot.join("lib/rustlib").join(target).is_dir()) {
        return Ok(WasmToolchain::Installed { target });
    }
    if !has_debian_toolchain() {
        install_debian(&DEBIAN_PACKAGES).map_err(|reason| {
            format!("no Rust toolchain for WebAssembly ({reason}); `rustup target add {}` installs one", TARGETS[0])
        })?;
    }
    if !has_debian_toolchain() {
        return Err(format!("{DEBIAN_PACKAGES:?} are installed, but {DEBIAN_SOURCES} is not there"));
    }
    Ok(WasmToolchain::FromSource { rustc: DEBIAN_RUSTC.into(), linker: linker(&sysroot)? })
}

fn has_debian_toolchain() -> bool {
    Path::new(DEBIAN_RUSTC).is_file() && Path::new(DEBIAN_SOURCES).is_file()
}

/// The linker that comes with the Rust toolchain, or one of LLVM's.
fn linker(sysroot: &Path) -> Result<PathBuf> {
    let host = read(rustc().arg("-vV"))?;
    let host = host.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default().to_owned();
    let own = sysroot.join("lib/rustlib").join(host).join("bin/rust-lld");
    if own.is_file() {
        return Ok(own);
    }
    if let Some(found) = find_program("wasm-ld") {
        return Ok(found);
    }
    install_debian(&["lld"]).map_err(|reason| format!("no linker for WebAssembly ({reason}); install lld"))?;
    find_program("wasm-ld").ok_or_else(|| "lld is installed, but there is no `wasm-ld`".to_owned())
}

/// Installs Debian packages; an error says why that cannot be done here.
fn install_debian(packages: &[&str]) -> Result {
    if find_program("apt-get").is_none() {
        return Err("not a Debian system".into());
    }
    if read(Command::new("id").arg("-u"))? != "0" {
        return Err(format!("installing {} needs root", packages.join(" and ")));
    }
    println!("installing {} ...", packages.join(" "));
    let apt = |args: &[&str]| {
        run(Command::new("apt-get").env("DEBIAN_FRONTEND", "noninteractive").arg("-qq").args(args).args(packages))
    };
    // The list of packages may be absent or old: it is only fetched if the install does not work without.
    if apt(&["install", "-y", "--no-install-recommends"]).is_ok() {
        return Ok(());
    }
    run(Command::new("apt-get").args(["-qq", "update"]))?;
    apt(&["install", "-y", "--no-install-recommends"])
}
