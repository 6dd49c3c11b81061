//! One process per store.

use std::path::{Path, PathBuf};

use snaphook_driver::Result;
use snaphook_driver::files::FileLock;

/// Takes the lock of the store at `path`.
pub(crate) fn lock(path: &Path) -> Result<FileLock> {
    FileLock::take(&beside(path, "-lock"), path)
}

/// A file that belongs to the store at `path`.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
