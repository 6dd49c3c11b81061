//! Undelivered records on disk: one JSON text per line, in numbered files.
//!
//! Records are appended to the newest file. The oldest file is read from the position in `sent`, and removed when all
//! of it is delivered. A record is stored once its line is complete and synced; an incomplete line after a crash was
//! never acknowledged and is truncated. `sent` is not synced: an old value only causes records to be sent twice.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use snaphook_driver::files::{FileLock, file_fault, sync_folder, unusable_file};
use snaphook_driver::{DriverError, ErrorKind, Result};

/// Size after which a new file begins; up to this much delivered data may still use disk space.
const FILE_BYTES: u64 = 4 << 20;

const ENDING: &str = ".jsonl";

/// The folder of the records.
pub(crate) struct Buffer {
    folder: PathBuf,
    bytes_max: u64,
    state: Mutex<BufferState>,
    lock: Mutex<Option<FileLock>>,
}

/// Invariant: there is at least one file, and `sent` is at the beginning of a line of the first.
struct BufferState {
    /// Oldest first.
    files: VecDeque<BufferFile>,
    /// How many bytes of the oldest file are delivered.
    sent: u64,
}

#[derive(Clone, Copy)]
struct BufferFile {
    number: u64,
    /// Size of the complete and synced lines.
    length: u64,
}

/// The oldest waiting records.
pub(crate) struct Batch {
    /// Each record as JSON.
    pub(crate) records: Vec<String>,
    pub(crate) end: BufferPosition,
}

/// A position between two records. Later positions are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BufferPosition {
    file: u64,
    offset: u64,
}

impl Buffer {
    /// Opens or creates the folder, and truncates an incomplete line that a crash left.
    pub(crate) fn open(folder: &Path, bytes_max: u64) -> Result<Buffer> {
        let lock = FileLock::take(&folder.join("lock"), folder)?;
        let state = load(folder).map_err(unusable_file(folder))?;
        Ok(Buffer { folder: folder.to_owned(), bytes_max, state: Mutex::new(state), lock: Mutex::new(Some(lock)) })
    }

    /// Writes records with a single sync; returns the result of each. Only called by one thread.
    pub(crate) fn append(&self, records: &[String]) -> Vec<Result<()>> {
        let mut waiting = self.waiting();
        let fits: Vec<bool> = records
            .iter()
            .map(|record| {
                let length = record.len() as u64 + 1;
                let fits = waiting + length <= self.bytes_max;
                waiting += if fits { length } else { 0 };
                fits
            })
            .collect();
        let lines: String =
            records.iter().zip(&fits).filter(|(_, fits)| **fits).flat_map(|(record, _)| [record, "\n"]).collect();
        let written = match lines.is_empty() {
            true => Ok(()),
            false => self.write(lines.as_bytes()),
        };
        let result = |fits: &bool| match (fits, &written) {
            (false, _) => Err(self.full()),
            (true, Ok(())) => Ok(()),
            // An I/O error cannot be cloned.
            (true, Err(error)) => {
                Err(file_fault("record", &self.folder)(io::Error::new(error.kind(), error.to_string())))
            }
        };
        fits.iter().map(result).collect()
    }

    /// The oldest records, limited in number and in size, but at least one. `None` if nothing waits.
    pub(crate) fn first(&self, count_max: usize, bytes_max: usize) -> io::Result<Option<Batch>> {
        let (oldest, sent) = loop {
            let (oldest, sent, is_newest) = {
                let state = self.state();
                (state.files[0], state.sent, state.files.len() == 1)
            };
            match sent < oldest.length {
                true => break (oldest, sent),
                false if is_newest => return Ok(None),
                // It was still the newest file when its last record was delivered.
                false => self.sent(BufferPosition { file: oldest.number, offset: sent })?,
            }
        };
        let mut file = File::open(self.path(oldest.number))?;
        file.seek(SeekFrom::Start(sent))?;
        let mut reader = BufReader::new(file.take(oldest.length - sent));
        let (mut records, mut bytes, mut offset) = (Vec::new(), 0, sent);
        let mut line = Vec::new();
        while records.len() < count_max && reader.read_until(b'\n', &mut line)? > 0 {
            bytes += line.len();
            if bytes > bytes_max && !records.is_empty() {
                break;
            }
            offset += line.len() as u64;
            line.pop();
            // A damaged record is sent as text, which the collector rejects.
            records.push(String::from_utf8_lossy(&line).into_owned());
            line.clear();
        }
        Ok(Some(Batch { records, end: BufferPosition { file: oldest.number, offset } }))
    }

    /// Marks everything before a position as delivered.
    pub(crate) fn sent(&self, place: BufferPosition) -> io::Result<()> {
        let done = {
            let mut state = self.state();
            state.sent = place.offset;
            // The newest file is still being written.
            let is_done = state.files.len() > 1 && state.sent >= state.files[0].length;
            is_done.then(|| {
                state.sent = 0;
                state.files.pop_front()
            })
        };
        let next = match done.flatten() {
            Some(file) => {
                fs::remove_file(self.path(file.number))?;
                let state = self.state();
                BufferPosition { file: state.files[0].number, offset: state.sent }
            }
            None => place,
        };
        let temporary = self.folder.join("sent.new");
        fs::write(&temporary, format!("{} {}\n", next.file, next.offset))?;
        fs::rename(&temporary, self.folder.join("sent"))
    }

    /// Releases the lock, so that others may open the folder. Nothing may be written or sent after this.
    pub(crate) fn close(&self) {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Size of the waiting records in bytes.
    pub(crate) fn waiting(&self) -> u64 {
        let state = self.state();
        state.files.iter().map(|file| file.length).sum::<u64>() - state.sent
    }

    pub(crate) fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    fn write(&self, lines: &[u8]) -> io::Result<()> {
        let BufferFile { number, length } = *self.state().files.back().unwrap_or(&FIRST);
        let (number, length) = if length >= FILE_BYTES { (number + 1, 0) } else { (number, length) };
        let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(self.path(number))?;
        // This also truncates the partial result of a failed write.
        file.set_len(length)?;
        file.seek(SeekFrom::Start(length))?;
        let write = |file: &mut File| file.write_all(lines).and_then(|()| file.sync_data());
        if let Err(error) = write(&mut file) {
            let _ = file.set_len(length);
            return Err(error);
        }
        if length == 0 {
            sync_folder(&self.folder)?;
        }
        let mut state = self.state();
        let length = length + lines.len() as u64;
        match state.files.back_mut() {
            Some(last) if last.number == number => last.length = length,
            _ => state.files.push_back(BufferFile { number, length }),
        }
        Ok(())
    }

    fn full(&self) -> DriverError {
        let message = "the buffer is full of records that the peer has not accepted";
        DriverError::new(ErrorKind::Full, "record", message)
            .with("buffer", self.folder.display())
            .with("buffer-bytes", self.bytes_max)
    }

    fn path(&self, number: u64) -> PathBuf {
        self.folder.join(file_name(number))
    }

    fn state(&self) -> MutexGuard<'_, BufferState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The file of an empty buffer, which may not exist yet.
const FIRST: BufferFile = BufferFile { number: 1, length: 0 };

fn file_name(number: u64) -> String {
    format!("{number:012}{ENDING}")
}

fn load(folder: &Path) -> io::Result<BufferState> {
    let mut numbers: Vec<u64> = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(ENDING)).and_then(|number| number.parse().ok());
        numbers.extend(number.filter(|number| name.to_str() == Some(&file_name(*number))));
    }
    numbers.sort_unstable();
    let mut files = VecDeque::new();
    for number in numbers {
        let path = folder.join(file_name(number));
        let length = whole_lines(&path)?;
        OpenOptions::new().write(true).open(&path)?.set_len(length)?;
        files.push_back(BufferFile { number, length });
    }
    if files.is_empty() {
        files.push_back(FIRST);
    }
    let sent = sent(folder, &mut files)?;
    Ok(BufferState { files, sent })
}

/// Size up to the end of the last complete line.
fn whole_lines(path: &Path) -> io::Result<u64> {
    let mut file = File::open(path)?;
    let mut end = file.metadata()?.len();
    let mut chunk = vec![0; 64 << 10];
    while end > 0 {
        let start = end.saturating_sub(chunk.len() as u64);
        let part = &mut chunk[..(end - start) as usize];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(part)?;
        if let Some(at) = part.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// Reads how much is delivered, and removes completely delivered files. An invalid value counts as nothing delivered.
fn sent(folder: &Path, files: &mut VecDeque<BufferFile>) -> io::Result<u64> {
    let text = match fs::read_to_string(folder.join("sent")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound && error.kind() != io::ErrorKind::InvalidData => {
            return Err(error);
        }
        text => text.unwrap_or_default(),
    };
    let place = text.strip_suffix('\n').and_then(|text| text.split_once(' '));
    let Some((Ok(number), Ok(offset))) = place.map(|(file, offset)| (file.parse::<u64>(), offset.parse::<u64>()))
    else {
        return Ok(0);
    };
    while files.len() > 1 && files[0].number < number {
        fs::remove_file(folder.join(file_name(files[0].number)))?;
        files.pop_front();
    }
    let oldest = files[0];
    if oldest.number != number || offset == 0 || offset > oldest.length {
        return Ok(0);
    }
    let mut before = [0];
    let mut file = File::open(folder.join(file_name(number)))?;
    file.seek(SeekFrom::Start(offset - 1))?;
    file.read_exact(&mut before)?;
    Ok(if before == *b"\n" { offset } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(buffer: &Buffer, count: usize) -> Vec<String> {
        let batch = buffer.first(count, 100).unwrap();
        batch.map_or_else(Vec::new, |batch| {
            buffer.sent(batch.end).unwrap();
            batch.records
        })
    }

    #[test]
    fn records_come_out_in_order_across_files_and_restarts() {
        let folder = tempfile::TempDir::new().unwrap();
        let text = |number: usize| format!("{number}{}", "x".repeat(FILE_BYTES as usize / 3));
        let large = Buffer::open(folder.path(), u64::MAX).unwrap();
        for number in 0..3 {
            assert!(large.append(&["x".repeat(FILE_BYTES as usize + number)])[0].is_ok());
            assert_eq!(take(&large, 1)[0].len(), FILE_BYTES as usize + number, "a file that was all there was");
        }
        drop(large);
        let mut taken = 0;
        for round in 0..4 {
            let buffer = Buffer::open(folder.path(), u64::MAX).unwrap();
            for number in round * 5..round * 5 + 5 {
                assert!(buffer.append(&[text(number)])[0].is_ok());
            }
            for _ in 0..4 {
                assert_eq!(take(&buffer, 1), [text(taken)]);
                taken += 1;
            }
        }
        let buffer = Buffer::open(folder.path(), u64::MAX).unwrap();
        while taken < 20 {
            assert_eq!(take(&buffer, 1), [text(taken)]);
            taken += 1;
        }
        assert!(take(&buffer, 1).is_empty());
        assert_eq!(buffer.waiting(), 0);
        assert!(fs::read_dir(folder.path()).unwrap().count() <= 3, "files that are delivered are removed");
    }

    #[test]
    fn what_does_not_fit_is_refused_and_what_is_sent_makes_room() {
        let folder = tempfile::TempDir::new().unwrap();
        let buffer = Buffer::open(folder.path(), 10).unwrap();
        let results = buffer.append(&["1234".into(), "123456".into(), "1234".into()]);
        assert!(results[0].is_ok() && results[2].is_ok());
        assert_eq!(results[1].as_ref().unwrap_err().kind(), ErrorKind::Full);
        assert_eq!(buffer.append(&[String::new()])[0].as_ref().unwrap_err().kind(), ErrorKind::Full);
        assert_eq!(take(&buffer, 10), ["1234", "1234"]);
        assert!(buffer.append(&["123456789".into()])[0].is_ok());
        assert_eq!(Buffer::open(folder.path(), 10).err().unwrap().kind(), ErrorKind::Config, "it is in use");
    }

    #[test]
    fn what_a_crash_left_is_cut_off_or_sent_again() {
        let folder = tempfile::TempDir::new().unwrap();
        let first = folder.path().join(file_name(1));
        for (content, sent, expected) in [
            ("a\nb\nhalf", "", "ab"),
            ("half", "", ""),
            ("", "1 7\n", ""),
            ("a\nb\n", "1 2\n", "b"),
            ("a\nb\n", "1 3\n", "ab"),
            ("a\nb\n", "1 4\n", ""),
            ("a\nb\n", "1 400\n", "ab"),
            ("a\nb\n", "1 2", "ab"),
            ("a\nb\n", "\0\0", "ab"),
        ] {
            fs::write(&first, content).unwrap();
            fs::write(folder.path().join("sent"), sent).unwrap();
            let buffer = Buffer::open(folder.path(), 100).unwrap();
            assert!(buffer.append(&["z".into()])[0].is_ok());
            assert_eq!(take(&buffer, 10).concat(), format!("{expected}z"), "{content:?} {sent:?}");
        }
    }
}
