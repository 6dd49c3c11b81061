//! Common code of drivers that store files: durable folders, one process per store, and the meaning of file errors.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{DriverError, ErrorKind, Result};

/// Durably creates a folder and its parents, accessible only to their owner (0700). Existing folders keep their mode.
pub fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.as_os_str().is_empty() || folder.is_dir() {
        return Ok(());
    }
    // `a/.` cannot be created, but `a` can.
    let folder: &Path = &folder.components().collect::<PathBuf>();
    let parent = folder.parent().unwrap_or(Path::new(""));
    make_folder(parent)?;
    match private_folder().create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists || !folder.is_dir() => return Err(error),
        _ => {}
    }
    sync_folder(parent)
}

fn private_folder() -> DirBuilder {
    #[cfg_attr(not(unix), expect(unused_mut, reason = "the mode is set on Unix only"))]
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
}

/// Makes creations, renames and removals in a folder durable.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// A closure for `map_err` that names the trait's method and the file.
pub fn file_fault(operation: &'static str, path: &Path) -> impl Fn(io::Error) -> DriverError {
    move |error| {
        let (kind, message) = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                (ErrorKind::Full, "the disk is full; free some space")
            }
            io::ErrorKind::UnexpectedEof => (ErrorKind::Corrupt, "the file is shorter than it was"),
            _ => (ErrorKind::Unavailable, "the file cannot be used"),
        };
        DriverError::new(kind, operation, message).with("path", path.display()).because(error)
    }
}

/// The same for opening a store, where an unusable file is a configuration error.
pub fn unusable_file(path: &Path) -> impl Fn(io::Error) -> DriverError {
    move |error| match file_fault("open", path)(error) {
        error if error.kind() == ErrorKind::Unavailable => error.as_kind(ErrorKind::Config),
        error => error,
    }
}

/// Locks a store against other processes, and against other stores of this process. The kernel releases the lock when
/// its holder ends, even after a crash.
#[derive(Debug)]
pub struct FileLock {
    file: File,
}

impl FileLock {
    /// Creates the lock file, with its parent folders, and takes the lock. `store` is the path for messages.
    pub fn take(path: &Path, store: &Path) -> Result<FileLock> {
        if let Some(folder) = path.parent() {
            make_folder(folder).map_err(|error| {
                DriverError::new(ErrorKind::Config, "open", "the folder cannot be created")
                    .with("path", folder.display())
                    .because(error)
            })?;
        }
        let unwritable = |error: io::Error| {
            DriverError::new(ErrorKind::Config, "open", "the folder of the store cannot be written")
                .with("file", path.display())
                .because(error)
        };
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true);
        // Users without access to the data need not know that it is in use.
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(path).map_err(unwritable)?;
        match file.try_lock() {
            Ok(()) => Ok(FileLock { file }),
            Err(TryLockError::WouldBlock) => Err(DriverError::new(
                ErrorKind::Config,
                "open",
                "the store is in use by another process or by another store of this process; give each its own path",
            )
            .with("path", store.display())),
            Err(TryLockError::Error(error)) => Err(unwritable(error)),
        }
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // Closing the file is not enough: a program that is being started from another thread inherits all files of
        // this process for a moment, and thereby the lock.
        let _ = self.file.unlock();
    }
}
