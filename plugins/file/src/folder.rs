//! Folders and whole files: made such that a crash leaves the old state or the new one.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use snaphook_driver::files::sync_folder;

/// End of the names of files that are being written. What a crash leaves of them means nothing.
pub(crate) const TEMPORARY: &str = ".new";

/// Name of the lock file in a store's folder.
pub(crate) const LOCK: &str = "lock";

/// Writes a file as a whole, durably: beside its place first, then renamed over it.
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

/// Removes a file that may not be there; `false` if it was not.
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

/// Removes what a crash left half written of the files whose names `is_ours` knows. Others may keep theirs in the folder.
pub(crate) fn clear(folder: &Path, is_ours: impl Fn(&str) -> bool) -> io::Result<()> {
    for name in names_in(folder)?.into_iter().filter(|name| name.strip_suffix(TEMPORARY).is_some_and(&is_ours)) {
        remove_if_there(&folder.join(name))?;
    }
    Ok(())
}

/// Where a file is written before it is renamed.
pub(crate) fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(TEMPORARY);
    name.into()
}
