//! Folders of dropped models.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use snaphook_driver::Result;
use snaphook_driver::files::make_folder;

use super::folders::{INSTANCES, number_of};
use crate::fault::fault;
use crate::folder::names_in;

/// How many files are removed before checking for more important work.
const FILES_AT_ONCE: usize = 256;

/// Folders that belong to no model. Removing many files takes long, so it is done in the background.
#[derive(Debug, Default)]
pub(super) struct Garbage(Vec<PathBuf>);

impl Garbage {
    /// Finds the folders that belong to no model.
    pub(super) fn find(store: &Path, wanted: &[&str]) -> Result<Garbage> {
        let folder = store.join(INSTANCES);
        let names = make_folder(&folder).and_then(|()| names_in(&folder)).map_err(fault("open", &folder))?;
        // Only consider folders with names that this driver assigns.
        let is_garbage = |name: &&String| number_of(name) > 0 && !wanted.contains(&name.as_str());
        Ok(Garbage(names.iter().filter(is_garbage).map(|name| folder.join(name)).collect()))
    }

    /// Greater than the number of any of these folders.
    pub(super) fn next_folder(&self) -> u64 {
        let names = self.0.iter().filter_map(|path| path.file_name()?.to_str());
        names.map(|name| number_of(name) + 1).max().unwrap_or(1)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn add(&mut self, folders: impl IntoIterator<Item = PathBuf>) {
        self.0.extend(folders);
    }

    /// Removes some files. If this fails, the folder is only removed after the store is opened again.
    pub(super) fn remove_some(&mut self) -> io::Result<()> {
        let Some(folder) = self.0.last() else { return Ok(()) };
        let mut entries = match fs::read_dir(folder) {
            Ok(entries) => entries.take(FILES_AT_ONCE).peekable(),
            Err(error) => {
                self.0.pop();
                return if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) };
            }
        };
        let removed = match entries.peek() {
            Some(_) => entries.try_for_each(|entry| fs::remove_file(entry?.path())),
            None => fs::remove_dir(folder),
        };
        removed.inspect_err(|_| drop(self.0.pop()))
    }
}
