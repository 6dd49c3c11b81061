//! Keeps the file of the write-ahead log longer than the log.
//!
//! A commit that makes the file longer also waits until the file system has written the new length, which takes nearly
//! as long again as writing the data. So the writer appends zeros to the file before it is full, and a thread syncs
//! them. For SQLite, the log ends at the first frame with a wrong checksum, and zeros have a wrong checksum.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::lock::beside;

/// Size in bytes of the log's header, and of each page with its frame.
const HEADER_BYTES: u64 = 32;
const FRAME_BYTES: u64 = 24 + 4096;

/// Number of zeros that are written at once; the commit after which this happens takes about 50 µs longer.
const STEP_BYTES: usize = 256 << 10;

/// The file is lengthened when at most this many bytes are left: enough for the commits during a sync.
const LEFT_BYTES: u64 = 256 << 10;

/// The writer's view of the log's file.
pub(crate) struct LogRoom {
    path: PathBuf,
    /// `None` before the first use, and after a failure; then each commit lengthens the log itself.
    file: Option<Arc<File>>,
    has_failed: bool,
    length: u64,
    /// Pages in the log after the last commit.
    pages: u32,
}

impl LogRoom {
    /// For the log of the database at `database`.
    pub(crate) fn of(database: &Path) -> LogRoom {
        LogRoom { path: beside(database, "-wal"), file: None, has_failed: false, length: 0, pages: 0 }
    }

    /// Called by the writer between two commits, with the number of pages in the log. Returns the file if it was
    /// lengthened and should be synced. Nobody else may write to the log in the meantime.
    pub(crate) fn keep(&mut self, pages: u32) -> Option<Arc<File>> {
        // When the log restarts, SQLite may have truncated the file.
        let is_new = pages < self.pages;
        self.pages = pages;
        let used = HEADER_BYTES + u64::from(pages) * FRAME_BYTES;
        if self.has_failed || !is_new && used + LEFT_BYTES <= self.length {
            return None;
        }
        match self.lengthen(used) {
            Ok(file) => file,
            // A full disk, for example: the next commit reports it if it matters.
            Err(_) => {
                self.has_failed = true;
                self.file = None;
                None
            }
        }
    }

    fn lengthen(&mut self, used: u64) -> std::io::Result<Option<Arc<File>>> {
        let file = match &self.file {
            Some(file) => Arc::clone(file),
            None => Arc::clone(self.file.insert(Arc::new(OpenOptions::new().write(true).open(&self.path)?))),
        };
        self.length = file.metadata()?.len();
        if used + LEFT_BYTES <= self.length {
            return Ok(None);
        }
        write_zeros(&file, self.length.max(used))?;
        self.length = self.length.max(used) + STEP_BYTES as u64;
        Ok(Some(file))
    }
}

/// Writes [`STEP_BYTES`] zeros.
fn write_zeros(file: &File, at: u64) -> std::io::Result<()> {
    const PIECE_BYTES: usize = 32 << 10;
    static ZEROS: [u8; PIECE_BYTES] = [0; PIECE_BYTES];
    (at..).step_by(PIECE_BYTES).take(STEP_BYTES / PIECE_BYTES).try_for_each(|at| write_at(file, &ZEROS, at))
}

#[cfg(unix)]
fn write_at(file: &File, bytes: &[u8], at: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, at)
}

#[cfg(not(unix))]
fn write_at(mut file: &File, bytes: &[u8], at: u64) -> std::io::Result<()> {
    use std::io::{Seek as _, SeekFrom, Write as _};

    file.seek(SeekFrom::Start(at))?;
    file.write_all(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_file_is_always_longer_than_the_log_and_keeps_its_content() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("x.db");
        let path = beside(&database, "-wal");
        let length = || fs::metadata(&path).unwrap().len();
        let frames = |pages: u64| vec![7; usize::try_from(HEADER_BYTES + pages * FRAME_BYTES).unwrap()];
        fs::write(&path, frames(3)).unwrap();
        let mut room = LogRoom::of(&database);
        assert!(room.keep(3).is_some());
        assert_eq!(length(), frames(3).len() as u64 + STEP_BYTES as u64);
        assert_eq!(fs::read(&path).unwrap()[..frames(3).len()], frames(3));
        assert!(fs::read(&path).unwrap()[frames(3).len()..].iter().all(|byte| *byte == 0));
        // If enough bytes are left, nothing changes.
        assert!(room.keep(3).is_none());
        // A commit that exceeded the lengthened file.
        fs::write(&path, frames(300)).unwrap();
        assert!(room.keep(300).is_some());
        assert_eq!(fs::read(&path).unwrap()[..frames(300).len()], frames(300));
        assert_eq!(length(), frames(300).len() as u64 + STEP_BYTES as u64);
        // The log restarts in the same file, then in a truncated one.
        assert!(room.keep(1).is_none());
        assert!(room.keep(2).is_none());
        fs::write(&path, frames(1)).unwrap();
        assert!(room.keep(1).is_some());
        assert_eq!(fs::read(&path).unwrap()[..frames(1).len()], frames(1));
    }

    #[test]
    fn without_a_file_the_log_grows_by_itself() {
        let folder = tempfile::tempdir().unwrap();
        let mut room = LogRoom::of(&folder.path().join("x.db"));
        assert!(room.keep(1).is_none());
        assert!(!folder.path().join("x.db-wal").exists());
    }
}
