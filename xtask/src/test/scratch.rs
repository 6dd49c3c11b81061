//! The folder for files of tests: in memory, if the system has a suitable file system. On a disk, stores would wait for
//! it at each commit. Tests that kill processes work the same in memory, and tests that measure a server would
//! otherwise measure the disk.

use std::path::{Path, PathBuf};

use rustix::fs::{StatVfsMountFlags, statvfs};

/// A file system in memory that every Linux has.
const MEMORY: &str = "/dev/shm";

/// The required free space.
const FREE_BYTES: u64 = 4 << 30;

/// The prefix of a folder's name, which ends with the id of the process that created it.
const PREFIX: &str = "snaphook-tests-";

/// A folder in memory, removed when this is dropped.
#[derive(Debug)]
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// `None` if there is no such file system, it is too small, or programs in it cannot be executed.
    pub(super) fn new() -> Option<Scratch> {
        let memory = Path::new(MEMORY);
        remove_left(memory);
        if !is_fit(memory) {
            return None;
        }
        let folder = memory.join(format!("{PREFIX}{}", std::process::id()));
        std::fs::create_dir(&folder).ok()?;
        Some(Scratch(folder))
    }

    pub(super) fn folder(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A process that a test left running may still write to the folder; then the next run removes it.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn is_fit(folder: &Path) -> bool {
    statvfs(folder).is_ok_and(|system| {
        !system.f_flag.contains(StatVfsMountFlags::NOEXEC)
            && system.f_bavail.saturating_mul(system.f_frsize) >= FREE_BYTES
    })
}

/// Removes the folders of processes that were killed.
fn remove_left(memory: &Path) {
    for entry in std::fs::read_dir(memory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.parse::<u32>().ok());
        if process.is_some_and(|process| !Path::new("/proc").join(process.to_string()).is_dir()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_killed_processes_go() {
        let memory = tempfile::tempdir().unwrap();
        // No process has this id: it is above Linux's maximum.
        let (left, other) = (memory.path().join(format!("{PREFIX}{}", u32::MAX)), memory.path().join("other"));
        let own = memory.path().join(format!("{PREFIX}{}", std::process::id()));
        [&left, &other, &own].into_iter().for_each(|folder| std::fs::create_dir(folder).unwrap());
        remove_left(memory.path());
        assert!(!left.exists() && other.exists() && own.exists());
    }

    #[test]
    fn a_file_system_that_is_not_there_is_not_fit() {
        assert!(!is_fit(Path::new("/nonexistent")));
    }
}
