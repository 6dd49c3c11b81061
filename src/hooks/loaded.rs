//! The libraries that are loaded into the server's process, by file name.
//!
//! Native code is never unloaded: the code of a file that was replaced, or that was only checked, stays in the process.
//! It runs no more calls, but it is there, so it is reported with its file.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Maps a file name to the artifacts that were loaded from it, oldest first.
#[derive(Default)]
pub(super) struct Loaded(Mutex<BTreeMap<String, Vec<String>>>);

impl Loaded {
    /// Records that the version `artifact` of `file` was loaded.
    pub(super) fn note(&self, file: &str, artifact: &str) {
        let mut files = self.files();
        let artifacts = files.entry(file.to_owned()).or_default();
        if !artifacts.iter().any(|known| known == artifact) {
            artifacts.push(artifact.to_owned());
        }
    }

    /// The artifacts loaded from `file`, other than `artifact`.
    pub(super) fn beside(&self, file: &str, artifact: &str) -> Vec<String> {
        let files = self.files();
        let all = files.get(file).into_iter().flatten();
        all.filter(|known| *known != artifact).cloned().collect()
    }

    /// Each file, and how many versions of it were loaded.
    pub(super) fn counts(&self) -> Vec<(String, usize)> {
        self.files().iter().map(|(file, artifacts)| (file.clone(), artifacts.len())).collect()
    }

    fn files(&self) -> MutexGuard<'_, BTreeMap<String, Vec<String>>> {
        // Code that holds this lock never leaves the state inconsistent.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_content_of_a_file_is_there_once() {
        let loaded = Loaded::default();
        assert!(loaded.beside("a.so", "1").is_empty());
        for artifact in ["1", "2", "1", "3"] {
            loaded.note("a.so", artifact);
        }
        loaded.note("b.so", "4");
        assert_eq!(loaded.beside("a.so", "2"), ["1", "3"]);
        assert!(loaded.beside("b.so", "4").is_empty());
        assert_eq!(loaded.counts(), [("a.so".into(), 3), ("b.so".into(), 1)]);
    }
}
