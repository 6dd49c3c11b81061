//! One process per folder: a lock file that the kernel frees when its holder ends, however it ends.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::Path;

use snaphook_driver::{DriverError, ErrorKind, Result};

use crate::fault::unusable;

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
    /// Makes the folder of a store and takes its lock.
    pub(crate) fn take(folder: &Path) -> Result<Lock> {
        make_folder(folder).map_err(unusable(folder))?;
        let path = folder.join("lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(unusable(&path))?;
        match file.try_lock() {
            Ok(()) => Ok(Lock { file }),
            Err(TryLockError::WouldBlock) => Err(DriverError::new(
                ErrorKind::Config,
                "open",
                "the folder is in use, by another process or by another store of this one; give each its own",
            )
            .with("path", folder.display())),
            Err(TryLockError::Error(error)) => Err(unusable(&path)(error)),
        }
    }
}

/// Makes what was created, renamed and removed in a folder last.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// Makes a folder and those above it, such that a power failure does not take them back.
fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.as_os_str().is_empty() || folder.is_dir() {
        return Ok(());
    }
    let above = folder.parent().unwrap_or(Path::new(""));
    make_folder(above)?;
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists || !folder.is_dir() => return Err(error),
        _ => {}
    }
    sync_folder(if above.as_os_str().is_empty() { Path::new(".") } else { above })
}
