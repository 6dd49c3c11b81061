//! One file per secret: 8 bytes of version (big endian), then the sealed bytes.
//!
//! A file is written under a temporary name, synced and renamed, so that every file is always complete. Names of files:
//! [`super::names`].

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind as IoKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use snaphook_driver::files::FileLock;
use snaphook_driver::limits::is_secret_name;
use snaphook_driver::{Capabilities, DriverError, ErrorKind, Result, Sealed, SecureStore};

use crate::fault::closed;
use crate::folder::{LOCK, TEMPORARY, clear};
use crate::names::{from_old_stem, from_stem, stem};
use crate::task::locked;

/// Suffix of the names of files with secrets.
const SUFFIX: &str = ".sealed";

/// Size of the version at the start of a file.
const HEAD: usize = 8;

/// See the crate's documentation.
pub struct FileSecureStore {
    folder: Arc<Folder>,
}

struct Folder {
    path: PathBuf,
    /// Locked by `put` and `delete`, so that a version is checked and written in one step; `None` once closed.
    lock: Mutex<Option<FileLock>>,
}

impl FileSecureStore {
    /// Opens the store in a folder; creates the folder if it does not exist.
    pub fn open(path: &Path) -> Result<Self> {
        let told = |message: &'static str| {
            move |error: std::io::Error| {
                DriverError::new(ErrorKind::Config, "open", message).with("path", path.display()).because(error)
            }
        };
        let lock = FileLock::take(&path.join(LOCK), path)?;
        private_folder(path).map_err(told("the permissions of the folder cannot be restricted to its owner"))?;
        // Incomplete files left by a crash were never acknowledged.
        clear(path, |name| from_stem(name).is_some()).map_err(told("the folder cannot be written"))?;
        let mut old = Vec::new();
        for entry in fs::read_dir(path).map_err(told("the folder cannot be read"))?.flatten() {
            let file = entry.file_name();
            let Some(file) = file.to_str() else { continue };
            old.extend(file.strip_suffix(SUFFIX).and_then(from_old_stem).map(|name| (entry.path(), name)));
        }
        let folder = Folder { path: path.to_owned(), lock: Mutex::new(Some(lock)) };
        for (file, name) in old {
            fs::rename(file, folder.place(&name)).map_err(told("the file of a secret cannot be renamed"))?;
        }
        folder.sync().map_err(told("the folder cannot be written"))?;
        Ok(FileSecureStore { folder: Arc::new(folder) })
    }

    /// Runs file work off the async threads.
    async fn with<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Folder) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let folder = Arc::clone(&self.folder);
        tokio::task::spawn_blocking(move || work(&folder)).await.unwrap_or_else(|error| {
            Err(DriverError::new(ErrorKind::Unexpected, operation, "the background task ended early").because(error))
        })
    }
}

#[async_trait]
impl SecureStore for FileSecureStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities { durable: true, ..Capabilities::LEAST }
    }

    async fn health(&self) -> Result<()> {
        self.with("health", |folder| match fs::metadata(&folder.path) {
            Ok(metadata) if metadata.is_dir() => Ok(()),
            Ok(_) => Err(folder.fault("health", IoKind::NotADirectory.into())),
            Err(error) => Err(folder.fault("health", error)),
        })
        .await
    }

    async fn close(&self) -> Result<()> {
        self.with("close", |folder| {
            locked(&folder.lock).take();
            Ok(())
        })
        .await
    }

    async fn get(&self, name: &str) -> Result<Option<Sealed>> {
        let name = checked("get", name)?;
        self.with("get", move |folder| folder.read("get", &name)).await
    }

    async fn put(&self, name: &str, bytes: &[u8], expected: Option<u64>) -> Result<u64> {
        let (name, bytes) = (checked("put", name)?, bytes.to_owned());
        self.with("put", move |folder| {
            let _writing = folder.writing("put")?;
            let found = folder.read("put", &name)?.map_or(0, |sealed| sealed.version);
            if let Some(expected) = expected.filter(|expected| *expected != found) {
                return Err(DriverError::new(
                    ErrorKind::Conflict,
                    "put",
                    format!("secret `{name}` has version {found}, expected {expected}"),
                ));
            }
            let version = found + 1;
            folder.write(&name, version, &bytes).map_err(|error| folder.fault("put", error))?;
            Ok(version)
        })
        .await
    }

    async fn delete(&self, name: &str) -> Result<bool> {
        let name = checked("delete", name)?;
        self.with("delete", move |folder| {
            let _writing = folder.writing("delete")?;
            match fs::remove_file(folder.place(&name)) {
                Ok(()) => {
                    folder.sync().map_err(|error| folder.fault("delete", error))?;
                    Ok(true)
                }
                Err(error) if error.kind() == IoKind::NotFound => Ok(false),
                Err(error) => Err(folder.fault("delete", error)),
            }
        })
        .await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>> {
        let prefix = prefix.to_owned();
        self.with("list", move |folder| {
            let mut names = Vec::new();
            for entry in fs::read_dir(&folder.path).map_err(|error| folder.fault("list", error))? {
                let entry = entry.map_err(|error| folder.fault("list", error))?;
                let file = entry.file_name();
                let name = file.to_str().and_then(|file| file.strip_suffix(SUFFIX)).and_then(from_stem);
                names.extend(name.filter(|name| name.starts_with(&prefix)));
            }
            names.sort();
            Ok(names)
        })
        .await
    }
}

impl Folder {
    fn place(&self, name: &str) -> PathBuf {
        self.path.join(format!("{}{SUFFIX}", stem(name)))
    }

    fn writing(&self, operation: &'static str) -> Result<MutexGuard<'_, Option<FileLock>>> {
        Some(locked(&self.lock)).filter(|lock| lock.is_some()).ok_or_else(|| closed(operation))
    }

    fn read(&self, operation: &'static str, name: &str) -> Result<Option<Sealed>> {
        let mut bytes = Vec::new();
        match File::open(self.place(name)).and_then(|mut file| file.read_to_end(&mut bytes)) {
            Ok(_) => {}
            Err(error) if error.kind() == IoKind::NotFound => return Ok(None),
            Err(error) => return Err(self.fault(operation, error)),
        }
        let Some((head, sealed)) = bytes.split_first_chunk::<HEAD>() else {
            return Err(DriverError::new(ErrorKind::Corrupt, operation, "the file of a secret is truncated")
                .with("path", self.place(name).display()));
        };
        Ok(Some(Sealed { bytes: sealed.to_owned(), version: u64::from_be_bytes(*head) }))
    }

    fn write(&self, name: &str, version: u64, bytes: &[u8]) -> std::io::Result<()> {
        let temporary = self.path.join(format!("{}{TEMPORARY}", stem(name)));
        let write = || -> std::io::Result<()> {
            let mut file = private_file(&temporary)?;
            file.write_all(&version.to_be_bytes())?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&temporary, self.place(name))?;
            self.sync()
        };
        write().inspect_err(|_| {
            // If the file cannot be removed, the next start removes it.
            let _ = fs::remove_file(&temporary);
        })
    }

    /// Makes renames and removals durable.
    fn sync(&self) -> std::io::Result<()> {
        if cfg!(unix) { File::open(&self.path)?.sync_all() } else { Ok(()) }
    }

    fn fault(&self, operation: &'static str, error: std::io::Error) -> DriverError {
        let (kind, message) = match error.kind() {
            IoKind::StorageFull | IoKind::QuotaExceeded => (ErrorKind::Full, "the disk is full; free some space"),
            _ => (ErrorKind::Unavailable, "the folder of secrets cannot be used"),
        };
        DriverError::new(kind, operation, message).with("path", self.path.display()).because(error)
    }
}

/// Checks the name of a secret, which becomes part of a file name.
fn checked(operation: &'static str, name: &str) -> Result<String> {
    if is_secret_name(name) {
        return Ok(name.to_owned());
    }
    let message = format!("expected a name of letters, digits, `.`, `_` and `-`, found `{}`", name.escape_debug());
    Err(DriverError::new(ErrorKind::Invalid, operation, message))
}

#[cfg(unix)]
fn private_folder(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
}

#[cfg(not(unix))]
fn private_folder(_path: &Path) -> std::io::Result<()> {
    Ok(())
}

/// Creates a file that only its owner may read.
fn private_file(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    options.open(path)
}
