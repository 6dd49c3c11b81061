//! One process per store: a lock file that the kernel frees when its holder ends, however it ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use snaphook_driver::{DriverError, ErrorKind, Result};

/// Held as long as the store is open.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file is not enough: a program that is being started from another thread has all files of this
        // process for a moment, and with this one the lock.
        let _ = self.file.unlock();
    }
}

impl Lock {
    /// Makes the parent folders and takes the lock of the store at `path`.
    pub(crate) fn take(path: &Path) -> Result<Lock> {
        if let Some(folder) = path.parent() {
            make_folder(folder).map_err(|error| {
                DriverError::new(ErrorKind::Config, "open", "the folder cannot be made")
                    .with("folder", folder.display())
                    .because(error)
            })?;
        }
        let lock_path = beside(path, "-lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(|error| unwritable(&lock_path, error))?;
        match file.try_lock() {
            Ok(()) => Ok(Lock { file }),
            Err(TryLockError::WouldBlock) => Err(DriverError::new(
                ErrorKind::Config,
                "open",
                "the store is in use, by another process or by another store of this one; give each its own `path`",
            )
            .with("path", path.display())),
            Err(TryLockError::Error(error)) => Err(unwritable(&lock_path, error)),
        }
    }
}

/// A file that belongs to the store at `path`.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Makes a folder and those above it, such that a power failure does not take them back.
fn make_folder(folder: &Path) -> std::io::Result<()> {
    if folder.as_os_str().is_empty() || folder.is_dir() {
        return Ok(());
    }
    let above = folder.parent().unwrap_or(Path::new(""));
    make_folder(above)?;
    match std::fs::create_dir(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists || !folder.is_dir() => return Err(error),
        _ => {}
    }
    if cfg!(unix) {
        File::open(if above.as_os_str().is_empty() { Path::new(".") } else { above })?.sync_all()?;
    }
    Ok(())
}

fn unwritable(path: &Path, error: std::io::Error) -> DriverError {
    DriverError::new(ErrorKind::Config, "open", "the folder of the store cannot be written")
        .with("file", path.display())
        .because(error)
}
