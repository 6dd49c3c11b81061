//! The local state in one file: a copy of an earlier state, followed by the calls that have changed it since.
//!
//! It determines which records the peer should have, and which of the peer's records may differ: after a crash these
//! are sent again. Each entry is preceded by its length and a checksum. The file ends before the first damaged entry;
//! every prefix of it is a state from which the log's events can be applied.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use snaphook_driver::{CarryOver, Event, Instance, ModelShape, Position, json};

use snaphook_driver::files::sync_folder;

/// The file is not rewritten before the calls have at least this size.
const GROWTH_BYTES_MIN: u64 = 16 << 20;

/// A model and the id of an instance.
pub(crate) type Key = (String, String);

/// One entry.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum JournalEntry {
    /// The start of a copy of the whole state.
    Begin {
        log: Option<String>,
        checkpoint: Position,
    },
    Model(ModelShape),
    Row(Instance),
    /// A call that changed something. The affected records of the peer may differ until `Clean`.
    Define {
        new: ModelShape,
        carry: CarryOver,
        position: Position,
    },
    DropModel {
        model: String,
        position: Position,
    },
    Apply {
        events: Vec<Event>,
        to: Position,
    },
    /// These records of the peer may differ until `Clean`.
    Touch(Vec<Key>),
    /// The peer is up to date.
    Clean,
}

/// The open file.
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    length: u64,
    /// Length of the copy at the start.
    copied: u64,
}

impl Journal {
    /// Opens the file, or creates it, and passes its entries to `take`.
    pub(crate) fn open(path: PathBuf, mut take: impl FnMut(JournalEntry)) -> io::Result<Journal> {
        let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path)?;
        let (mut length, mut copied) = (0, 0);
        let mut reader = BufReader::new(&file);
        while length < file.metadata()?.len() {
            let Some((entry, bytes)) = read(&mut reader) else {
                let rest = file.metadata()?.len() - length;
                tracing::warn!(path = %path.display(), rest, "the end of the journal is damaged and is discarded");
                break;
            };
            length += bytes;
            if matches!(entry, JournalEntry::Begin { .. } | JournalEntry::Model(_) | JournalEntry::Row(_)) {
                copied = length;
            }
            take(entry);
        }
        file.set_len(length)?;
        Ok(Journal { path, file, length, copied })
    }

    /// Appends entries, all or none; with `durably` they also survive a power failure.
    pub(crate) fn append(&mut self, entries: &[JournalEntry], durably: bool) -> io::Result<()> {
        let bytes = entries.iter().map(write).collect::<io::Result<Vec<_>>>()?.concat();
        // This also removes the partial result of a failed write.
        self.file.set_len(self.length)?;
        self.file.seek(SeekFrom::Start(self.length))?;
        self.file.write_all(&bytes)?;
        if durably {
            self.file.sync_data()?;
        }
        self.length += bytes.len() as u64;
        Ok(())
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Whether the calls are larger than a copy of the whole state.
    pub(crate) fn is_long(&self) -> bool {
        self.length - self.copied > self.copied.max(GROWTH_BYTES_MIN)
    }

    /// Replaces the file with other entries, durably. The old file stays until the new one is complete.
    pub(crate) fn replace(&mut self, entries: impl Iterator<Item = JournalEntry>) -> io::Result<()> {
        let temporary = self.path.with_extension("new");
        let mut file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(&temporary)?;
        let mut length = 0;
        {
            let mut writer = BufWriter::new(&mut file);
            for entry in entries {
                let bytes = write(&entry)?;
                writer.write_all(&bytes)?;
                length += bytes.len() as u64;
            }
            writer.flush()?;
        }
        file.sync_all()?;
        fs::rename(&temporary, &self.path)?;
        (self.file, self.length, self.copied) = (file, length, length);
        sync_folder(self.path.parent().unwrap_or(Path::new("")))
    }
}

/// Size of the head of an entry: two numbers of 16 hexadecimal digits, each followed by a space.
const HEAD_BYTES: usize = 34;

fn write(entry: &JournalEntry) -> io::Result<Vec<u8>> {
    let text = serde_json::to_string(entry)?;
    Ok(format!("{:016x} {:016x} {text}\n", text.len(), checksum(text.as_bytes())).into_bytes())
}

/// The next entry and its size; `None` if it is incomplete.
fn read(reader: &mut impl Read) -> Option<(JournalEntry, u64)> {
    let mut head = [0; HEAD_BYTES];
    reader.read_exact(&mut head).ok()?;
    let number = |from: usize| u64::from_str_radix(std::str::from_utf8(&head[from..from + 16]).ok()?, 16).ok();
    let (length, sum) = (number(0)?, number(17)?);
    if (head[16], head[33]) != (b' ', b' ') {
        return None;
    }
    // The length may be damaged too, so no memory is allocated for it in advance.
    let mut text = Vec::new();
    reader.take(length.checked_add(1)?).read_to_end(&mut text).ok()?;
    let is_whole = text.len() as u64 == length + 1 && text.pop() == Some(b'\n') && checksum(&text) == sum;
    let entry = is_whole.then(|| json::typed_bytes(&text).ok()).flatten()?;
    Some((entry, HEAD_BYTES as u64 + length + 1))
}

/// FNV-1a over words of eight bytes: detects damage from a crash at little cost.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.chunks(8).fold(0xcbf2_9ce4_8422_2325 ^ bytes.len() as u64, |hash, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        (hash ^ u64::from_le_bytes(word)).wrapping_mul(0x0100_0000_01b3).rotate_left(23)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn positions(path: &Path) -> Vec<Position> {
        let mut found = Vec::new();
        let take = |entry| match entry {
            JournalEntry::Apply { to, .. } | JournalEntry::Begin { checkpoint: to, .. } => found.push(to),
            other => panic!("{other:?}"),
        };
        Journal::open(path.to_owned(), take).unwrap();
        found
    }

    #[test]
    fn damage_ends_the_file_where_it_is() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("journal");
        let mut journal = Journal::open(path.clone(), |_| panic!("it is new")).unwrap();
        for to in 1..4 {
            journal.append(&[JournalEntry::Apply { events: Vec::new(), to }], true).unwrap();
        }
        let whole = fs::read(&path).unwrap();
        let entry = whole.len() / 3;
        for at in 0..=whole.len() {
            fs::write(&path, &whole[..at]).unwrap();
            assert_eq!(positions(&path).len(), at / entry, "cut at {at}");
            assert_eq!(fs::metadata(&path).unwrap().len() as usize, at / entry * entry);
            let mut damaged = whole.clone();
            if let Some(byte) = damaged.get_mut(at) {
                *byte ^= 1;
                fs::write(&path, &damaged).unwrap();
                assert_eq!(positions(&path).len(), at / entry, "damaged at {at}");
            }
        }
        fs::write(&path, &whole).unwrap();
        journal.replace([JournalEntry::Begin { log: None, checkpoint: 9 }].into_iter()).unwrap();
        journal.append(&[JournalEntry::Apply { events: Vec::new(), to: 10 }], false).unwrap();
        assert_eq!(positions(&path), [9, 10]);
    }
}
