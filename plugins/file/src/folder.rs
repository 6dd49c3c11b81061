//! Creates folders and files in such a way that a crash leaves either the old or the new state.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use snaphook_driver::files::sync_folder;

/// Suffix of the names of files that are being written. After a crash such files are ignored.
pub(crate) const TEMPORARY: &str = ".new";

/// Name of the lock file in a store's folder.
pub(crate) const LOCK: &str = "lock";

/// Writes a whole file durably: to a temporary file first, which is then renamed.
pub(crate) fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = temporary(path);
    let write = || -> io::Result<()> {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        sync_folder(path.parent().unwrap_or(Path::new("")))
    };
    write().inspect_err(|_| drop(fs::remove_file(&temporary)))
}

/// Removes a file that may not exist; `false` if it did not.
pub(crate) fn remove_if_there(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Names of the files in a folder that are text, sorted.
pub(crate) fn names_in(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        names.extend(entry?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

/// Removes incomplete files, left by a crash, whose names `is_ours` accepts. The folder may contain files of others.
pub(crate) fn clear(folder: &Path, is_ours: impl Fn(&str) -> bool) -> io::Result<()> {
    for name in names_in(folder)?.into_iter().filter(|name| name.strip_suffix(TEMPORARY).is_some_and(&is_ours)) {
        remove_if_there(&folder.join(name))?;
    }
    Ok(())
}

/// The temporary path of a file before it is renamed.
pub(crate) fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(TEMPORARY);
    name.into()
}
