//! The libraries of the plugins folder: found, compared with the pinned digests, inspected in a child process, loaded.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use sha2::{Digest as _, Sha256};
use snaphook_driver::wire::PluginDescription;
use snaphook_driver_loader::{Deadlines, Plugin, inspect_in_child};

use crate::config::{PluginsConfig, read_regular};

/// The hidden command that inspects one library and ends.
pub const INSPECT_COMMAND: &str = "plugin-inspect";

/// Time limit for loading a library.
const INSPECTION: Duration = Duration::from_secs(10);

/// Maximum size of a library, which is read whole for its digest.
const LIBRARY_BYTES_MAX: usize = 1 << 30;

/// Suffixes of libraries on any system: a library that cannot be loaded here is an error.
const SUFFIXES: [&str; 3] = ["so", "dylib", "dll"];

/// An accepted library of the folder.
pub(super) struct PluginFile {
    path: PathBuf,
    sha256: String,
    pub(super) description: PluginDescription,
    /// Loaded at most once per process, and never unloaded.
    loaded: Mutex<Option<Plugin>>,
}

/// A plugin in lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PluginInfo {
    /// Its name within the plugins folder.
    pub file: String,
    pub sha256: String,
    pub name: String,
    pub version: String,
    /// Version of the interface.
    pub abi: u32,
    pub drivers: Vec<DriverInfo>,
}

/// A driver of a plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DriverInfo {
    pub name: String,
    pub stores: Vec<&'static str>,
}

/// Inspects every library of the folder. One sentence for each unusable one.
pub(super) fn inspect_all(config: &PluginsConfig) -> Result<Vec<PluginFile>, Vec<String>> {
    let mut files = Vec::new();
    let mut faults = Vec::new();
    let paths = libraries(&config.directory).map_err(|error| {
        vec![format!("the plugins folder `{}` cannot be read: {error}", config.directory.display())]
    })?;
    for path in paths {
        match inspect(path, config) {
            Ok(file) => files.push(file),
            Err(fault) => faults.push(fault),
        }
    }
    if faults.is_empty() { Ok(files) } else { Err(faults) }
}

impl PluginFile {
    /// Its name, for messages.
    pub(super) fn name(&self) -> String {
        name_of(&self.path)
    }

    pub(super) fn info(&self) -> PluginInfo {
        let PluginDescription { name, version, drivers } = &self.description;
        PluginInfo {
            file: self.name(),
            sha256: self.sha256.clone(),
            name: name.clone(),
            version: version.clone(),
            abi: snaphook_driver_loader::ABI_VERSION,
            drivers: drivers
                .iter()
                .map(|driver| DriverInfo {
                    name: driver.name.clone(),
                    stores: driver.stores.iter().map(|store| store.as_str()).collect(),
                })
                .collect(),
        }
    }

    /// Loads the library in this process.
    pub(super) fn load(&self) -> Result<Plugin, String> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(plugin) = &*loaded {
            return Ok(plugin.clone());
        }
        let start = Instant::now();
        if digest(&self.path)? != self.sha256 {
            return Err(format!("plugin `{}` has changed since it was inspected", self.path.display()));
        }
        let plugin = Plugin::load(&self.path, Deadlines::default()).map_err(|error| error.to_string())?;
        let PluginInfo { file, sha256, name, version, abi, drivers } = self.info();
        let drivers: Vec<_> =
            drivers.iter().map(|driver| format!("`{}` ({})", driver.name, driver.stores.join(", "))).collect();
        tracing::info!(
            "plugin {file}: {name} {version}, interface {abi}, drivers {}, not sandboxed, sha256 {sha256}, {:.1} ms",
            drivers.join(", "),
            start.elapsed().as_secs_f64() * 1e3
        );
        *loaded = Some(plugin.clone());
        Ok(plugin)
    }
}

/// Files directly in the folder with the suffix of a library, by name. Empty without a folder.
fn libraries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let is_library = |path: &Path| {
        let suffix = path.extension().and_then(|suffix| suffix.to_str());
        suffix.is_some_and(|suffix| SUFFIXES.contains(&suffix)) && !path.is_dir()
    };
    let mut libraries = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if is_library(&path) {
            libraries.push(path);
        }
    }
    libraries.sort();
    Ok(libraries)
}

fn inspect(path: PathBuf, config: &PluginsConfig) -> Result<PluginFile, String> {
    let sha256 = digest(&path)?;
    if !config.sha256.is_empty() && !config.sha256.contains(&sha256) {
        return Err(format!(
            "plugin `{}`: its digest {sha256} is not in `plugins.sha256`, which names what may be loaded",
            path.display()
        ));
    }
    let program = std::env::current_exe()
        .map_err(|error| format!("plugin `{}`: this program cannot be started again: {error}", path.display()))?;
    let description = in_runtime(inspect_in_child(&program, &[OsString::from(INSPECT_COMMAND)], &path, INSPECTION))?
        .map_err(|error| error.to_string())?;
    Ok(PluginFile { path, sha256, description, loaded: Mutex::new(None) })
}

/// Blocks on async work, in any context.
fn in_runtime<T: Send>(work: impl Future<Output = T> + Send) -> Result<T, String> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map(|runtime| runtime.block_on(work)).map_err(|error| format!("no runtime: {error}"))
        });
        thread.join().unwrap_or_else(|_| Err("the inspection of plugins panicked".to_owned()))
    })
}

fn digest(path: &Path) -> Result<String, String> {
    let bytes = read_regular(path, LIBRARY_BYTES_MAX)
        .map_err(|error| format!("plugin `{}` cannot be read: {error}", path.display()))?;
    Ok(Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect())
}

fn name_of(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}
