//! Builds `snaphook-zia-bridge`, which runs modules of ZiaModuleAPISpec, and the modules that the tests run in it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use crate::repository::{root, target_directory};
use crate::shell::{Result, is_ci, run};

/// The folder of the bridge's sources and of our own header of the specification.
const BRIDGE: &str = "bridge/zia";

/// Sources of the modules for the tests.
const MODULES: &str = "tests/zia";

/// The file name of the program.
pub(crate) const PROGRAM: &str = "snaphook-zia-bridge";

/// Name of a library for the tests, its source, and additional flags.
const LIBRARIES: [(&str, &str, &[&str]); 11] = [
    ("access_log", "access_log", &[]),
    ("tls", "tls", &["-lssl", "-lcrypto"]),
    ("files", "files", &[]),
    ("editor", "editor", &[]),
    ("faulty", "faulty", &[]),
    // Libraries that the bridge rejects.
    ("old_strings", "access_log", &["-D_GLIBCXX_USE_CXX11_ABI=0"]),
    ("debug_containers", "editor", &["-D_GLIBCXX_DEBUG"]),
    ("hidden", "files", &["-fvisibility=hidden"]),
    ("mangled", "faulty", &["-DMANGLED"]),
    ("missing", "faulty", &["-DMISSING"]),
    ("other_boost", "other_boost", &[]),
];

/// The headers that the modules to run were built with.
#[derive(Debug, Default)]
pub(crate) struct Options {
    /// Folder with `Zia/API.hpp`; `None`: our own.
    pub(crate) headers: Option<PathBuf>,
    /// Folder with `boost/asio.hpp`; `None`: the compiler's.
    pub(crate) boost: Option<PathBuf>,
}

impl Options {
    fn includes(&self) -> Vec<String> {
        let own = root().join(BRIDGE).join("include");
        let headers = self.headers.as_ref().unwrap_or(&own);
        let boost = self.boost.iter().map(|folder| format!("-isystem{}", folder.display()));
        boost.chain([format!("-isystem{}", headers.display())]).collect()
    }
}

/// Builds the bridge into a folder and returns its path.
pub(crate) fn bridge(options: &Options, folder: &Path) -> Result<PathBuf> {
    let sources = sources(&root().join(BRIDGE).join("src"))?;
    let objects = target_directory()?.join("zia/objects");
    let flags: Vec<String> = ["-std=c++17", "-O2", "-g", "-Wall", "-Wextra"]
        .map(str::to_owned)
        .into_iter()
        .chain(options.includes())
        .collect();
    let stamp = objects.join("flags");
    let is_same = std::fs::read_to_string(&stamp).is_ok_and(|before| before == flags.join("\n"));
    let newest = newest(&root().join(BRIDGE))?;
    let object = |source: &Path| objects.join(source.file_stem().unwrap_or_default()).with_extension("o");
    let stale: Vec<&PathBuf> = sources.iter().filter(|source| !is_same || !is_newer(&object(source), newest)).collect();
    make_folder(&objects)?;
    in_parallel(&stale, |source| {
        run(compiler().args(&flags).args(warnings()).arg("-c").arg(source).arg("-o").arg(object(source)))
    })?;
    if !is_same {
        write(&stamp, &flags.join("\n"))?;
    }
    let program = folder.join(PROGRAM);
    // The existing program may have been linked from other objects.
    if !is_newer(&program, self::newest(&objects)?) {
        make_folder(folder)?;
        let new = folder.join(format!("{PROGRAM}.new"));
        run(compiler().args(sources.iter().map(|source| object(source))).args(["-pthread", "-ldl", "-o"]).arg(&new))?;
        std::fs::rename(&new, &program).map_err(|error| format!("cannot write {}: {error}", program.display()))?;
    }
    Ok(program)
}

/// Builds the bridge and the modules for the tests into a folder, and returns it.
pub(crate) fn for_tests() -> Result<PathBuf> {
    let folder = target_directory()?.join("zia");
    bridge(&Options::default(), &folder)?;
    let newest = newest(&root().join(MODULES))?.max(self::newest(&root().join(BRIDGE).join("include"))?);
    let library = |name: &str| folder.join(format!("{name}.so"));
    let stale: Vec<_> = LIBRARIES.iter().filter(|(name, ..)| !is_newer(&library(name), newest)).collect();
    in_parallel(&stale, |(name, source, flags)| {
        // The specification requires C++11.
        let mut command = compiler();
        command.args(["-std=c++11", "-O1", "-fPIC", "-shared", "-Wall", "-Wextra"]).args(warnings());
        command.args(Options::default().includes());
        command.arg(root().join(MODULES).join(source).with_extension("cpp"));
        run(command.arg("-o").arg(library(name)).args(*flags).arg("-pthread"))
    })?;
    println!("the bridge and {} modules in {}", LIBRARIES.len(), folder.display());
    Ok(folder)
}

fn compiler() -> Command {
    Command::new(std::env::var_os("CXX").unwrap_or_else(|| "g++".into()))
}

fn warnings() -> &'static [&'static str] {
    if is_ci() { &["-Werror"] } else { &[] }
}

/// Runs `work` for all items, as many at once as there are cores. Returns the first error.
fn in_parallel<T: Sync>(items: &[T], work: impl Fn(&T) -> Result + Sync) -> Result {
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Ok(())));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from).min(items.len()) {
            scope.spawn(|| {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(message) = work(item) {
                        *failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Err(message);
                    }
                }
            });
        }
    });
    failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The `.cpp` files of a folder, sorted.
fn sources(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = files(folder)?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "cpp"));
    files.sort();
    Ok(files)
}

/// The time of the last change in the folder.
fn newest(folder: &Path) -> Result<SystemTime> {
    Ok(files(folder)?.iter().filter_map(|file| changed(file)).max().unwrap_or(SystemTime::UNIX_EPOCH))
}

/// All files, at any depth.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).map_err(|error| format!("cannot read {}: {error}", folder.display()))?;
    let mut all = Vec::new();
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() { all.extend(files(&path)?) } else { all.push(path) }
    }
    Ok(all)
}

fn is_newer(file: &Path, than: SystemTime) -> bool {
    changed(file).is_some_and(|changed| changed > than)
}

fn changed(file: &Path) -> Option<SystemTime> {
    std::fs::metadata(file).and_then(|metadata| metadata.modified()).ok()
}

fn make_folder(folder: &Path) -> Result {
    std::fs::create_dir_all(folder).map_err(|error| format!("cannot create {}: {error}", folder.display()))
}

fn write(file: &Path, text: &str) -> Result {
    std::fs::write(file, text).map_err(|error| format!("cannot write {}: {error}", file.display()))
}
