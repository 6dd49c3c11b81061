//! One process per store: a lock file that the kernel frees when its holder ends, however it ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

use snaphook_driver::{DriverError, ErrorKind, Result};

use crate::folder::make_folder;

/// Name of the lock file in a store's folder.
pub(crate) const LOCK: &str = "lock";

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
        make_folder(folder).map_err(|error| {
            DriverError::new(ErrorKind::Config, "open", "the folder cannot be made")
                .with("path", folder.display())
                .because(error)
        })?;
        let path = folder.join(LOCK);
        let unwritable = |error: std::io::Error| {
            DriverError::new(ErrorKind::Config, "open", "the folder of the store cannot be written")
                .with("file", path.display())
                .because(error)
        };
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(unwritable)?;
        match file.try_lock() {
            Ok(()) => Ok(Lock { file }),
            Err(TryLockError::WouldBlock) => Err(DriverError::new(
                ErrorKind::Config,
                "open",
                "the store is in use, by another process or by another store of this one; give each its own `path`",
            )
            .with("path", folder.display())),
            Err(TryLockError::Error(error)) => Err(unwritable(error)),
        }
    }
}
