//! The libraries for tests: those of the drivers, and libraries that are compiled here from C.

#![allow(dead_code, reason = "each file of tests uses a part of this")]

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{LazyLock, Mutex, OnceLock, PoisonError};

use async_trait::async_trait;
use snaphook_driver::wire::Opened;
use snaphook_driver::{OpenContext, Result, Store};
use snaphook_driver_loader::{Deadlines, Plugin};
use snaphook_driver_testkit::Opener;

/// The drivers that are built here as libraries.
const DRIVERS: [&str; 9] = ["memory", "sqlite", "file", "stdout", "crud", "http", "postgres", "nats", "redis"];

/// Set in processes that a case of the testkit starts: the libraries were already built.
const IN_CHILD: &str = "SNAPHOOK_TESTKIT_FOLDER";

/// A driver loaded as a library, for the suites of the testkit.
pub(crate) struct Library {
    plugin: Plugin,
    /// Whether the same driver also runs the suites linked.
    is_linked_too: bool,
}

#[async_trait]
impl Opener for Library {
    async fn open(&self, store: Store, context: OpenContext) -> Result<Opened> {
        self.plugin.open(0, store, context).await
    }

    fn tries_transport_only(&self) -> bool {
        self.is_linked_too
    }
}

/// The library of the driver with this name in `plugins/`.
pub(crate) fn library(name: &'static str) -> Library {
    Library { plugin: loaded(&driver_file(name)), is_linked_too: true }
}

/// The example in C, which provides secure storage.
pub(crate) fn library_in_c() -> Library {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../c/examples/secure.c");
    Library { plugin: loaded(&compiled("secure", &source, &[])), is_linked_too: false }
}

/// The library file of the driver with this name: from the folder `SNAPHOOK_PLUGINS`, which `cargo xtask plugins`
/// fills, or built here.
pub(crate) fn driver_file(name: &str) -> PathBuf {
    let (prefix, suffix) = (std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    match std::env::var_os("SNAPHOOK_PLUGINS") {
        Some(folder) => Path::new(&folder).join(name).join(format!("{prefix}snaphook_{name}{suffix}")),
        None => built().join(format!("{prefix}snaphook_{name}_library{suffix}")),
    }
}

/// The folder of this build's profile, which contains the libraries.
fn built() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let profile = profile_folder();
        if std::env::var_os(IN_CHILD).is_none() {
            let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
            cargo.args(["build", "--quiet", "--target-dir"]).arg(profile.parent().unwrap());
            cargo.args(if profile.ends_with("release") { &["--release"][..] } else { &[] });
            cargo.args(DRIVERS.map(|name| format!("--package=snaphook-{name}-library")));
            let status = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status().unwrap();
            assert!(status.success(), "the drivers cannot be built as libraries: {status}");
        }
        profile
    })
}

/// A library compiled from a C file in `tests/hostile`, with `flags` such as `-DTWICE`.
pub(crate) fn hostile(name: &str, file: &str, flags: &[&str]) -> PathBuf {
    compiled(name, &Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile").join(file), flags)
}

/// Compiles a library into the target folder, once per process.
fn compiled(name: &str, source: &Path, flags: &[&str]) -> PathBuf {
    static COMPILED: Mutex<Option<HashMap<String, PathBuf>>> = Mutex::new(None);
    let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    let compiled = compiled.get_or_insert_default();
    if let Some(path) = compiled.get(name) {
        return path.clone();
    }
    let folder = profile_folder().join("libraries-in-c");
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join(format!("{name}{}", std::env::consts::DLL_SUFFIX));
    if std::env::var_os(IN_CHILD).is_none() {
        // Another process may have loaded the previous file, so it is replaced, not overwritten.
        let new = folder.join(format!("{name}.{}", std::process::id()));
        let mut cc = Command::new("cc");
        cc.args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", "-fexceptions", "-pthread"]);
        let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../c");
        let status = cc.arg("-I").arg(include).args(flags).arg("-o").arg(&new).arg(source).status().unwrap();
        assert!(status.success(), "{} cannot be compiled: {status}", source.display());
        std::fs::rename(&new, &path).unwrap();
    }
    compiled.insert(name.to_owned(), path.clone());
    path
}

/// The library, loaded once per process.
fn loaded(file: &Path) -> Plugin {
    static LOADED: LazyLock<Mutex<HashMap<PathBuf, Plugin>>> = LazyLock::new(Mutex::default);
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    let plugin = loaded.entry(file.to_owned()).or_insert_with(|| Plugin::load(file, Deadlines::default()).unwrap());
    plugin.clone()
}

/// The folder that contains `deps/` with this test.
fn profile_folder() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let deps = test.parent().unwrap();
    assert_eq!(deps.file_name(), Some(OsStr::new("deps")));
    deps.parent().unwrap().to_owned()
}
