//! The local state in one file: the calls that changed it, one after the other, behind a copy of what was there before.
//!
//! It says what the peer should have, and which of the peer's records may differ from that: after a crash they are sent
//! again. Each entry has its length and a checksum before it. A file ends before the first entry that is damaged; every
//! beginning of it is a state that the log's events lead on from.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use snaphook_driver::{CarryOver, Event, Instance, ModelShape, Position, json};

use snaphook_driver::files::sync_folder;

/// Bytes of calls that are always kept before the file is written anew.
const GROWTH_BYTES_MIN: u64 = 16 << 20;

/// A model and the id of an instance.
pub(crate) type Key = (String, String);

/// One entry.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Entry {
    /// The beginning of a copy of everything.
    Begin {
        log: Option<String>,
        checkpoint: Position,
    },
    Model(ModelShape),
    Row(Instance),
    /// A call that changed something. The peer's records of it may differ until `Clean`.
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
    /// The peer has everything.
    Clean,
}

/// The file, open.
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    length: u64,
    /// Length of the copy at its beginning.
    copied: u64,
}

impl Journal {
    /// Opens the file, makes it if it is not there, and hands out its entries.
    pub(crate) fn open(path: PathBuf, mut take: impl FnMut(Entry)) -> io::Result<Journal> {
        let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path)?;
        let (mut length, mut copied) = (0, 0);
        let mut reader = BufReader::new(&file);
        while length < file.metadata()?.len() {
            let Some((entry, bytes)) = read(&mut reader) else {
                let rest = file.metadata()?.len() - length;
                tracing::warn!(path = %path.display(), rest, "the end of the journal is damaged and is cut off");
                break;
            };
            length += bytes;
            if matches!(entry, Entry::Begin { .. } | Entry::Model(_) | Entry::Row(_)) {
                copied = length;
            }
            take(entry);
        }
        file.set_len(length)?;
        Ok(Journal { path, file, length, copied })
    }

    /// Adds entries, all or none; `durably`: also against a power failure.
    pub(crate) fn append(&mut self, entries: &[Entry], durably: bool) -> io::Result<()> {
        let bytes = entries.iter().map(write).collect::<io::Result<Vec<_>>>()?.concat();
        // Also goes back over what an earlier write left that failed half-way.
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

    /// Whether the calls outweigh what a copy of everything would take.
    pub(crate) fn is_long(&self) -> bool {
        self.length - self.copied > self.copied.max(GROWTH_BYTES_MIN)
    }

    /// Replaces the file by other entries, durably; the old one stays until the new one is whole.
    pub(crate) fn replace(&mut self, entries: impl Iterator<Item = Entry>) -> io::Result<()> {
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

/// Bytes before an entry: two numbers of 16 hexadecimal digits, each with a space behind it.
const HEAD_BYTES: usize = 34;

fn write(entry: &Entry) -> io::Result<Vec<u8>> {
    let text = serde_json::to_string(entry)?;
    Ok(format!("{:016x} {:016x} {text}\n", text.len(), checksum(text.as_bytes())).into_bytes())
}

/// The next entry and its bytes; `None` if it is not whole.
fn read(reader: &mut impl Read) -> Option<(Entry, u64)> {
    let mut head = [0; HEAD_BYTES];
    reader.read_exact(&mut head).ok()?;
    let number = |from: usize| u64::from_str_radix(std::str::from_utf8(&head[from..from + 16]).ok()?, 16).ok();
    let (length, sum) = (number(0)?, number(17)?);
    if (head[16], head[33]) != (b' ', b' ') {
        return None;
    }
    // The length may be damaged too, so no memory is taken on its word.
    let mut text = Vec::new();
    reader.take(length.checked_add(1)?).read_to_end(&mut text).ok()?;
    let is_whole = text.len() as u64 == length + 1 && text.pop() == Some(b'\n') && checksum(&text) == sum;
    let entry = is_whole.then(|| json::typed_bytes(&text).ok()).flatten()?;
    Some((entry, HEAD_BYTES as u64 + length + 1))
}

/// FNV-1a over words of eight bytes: finds what a crash leaves, at little cost.
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
            Entry::Apply { to, .. } | Entry::Begin { checkpoint: to, .. } => found.push(to),
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
            journal.append(&[Entry::Apply { events: Vec::new(), to }], true).unwrap();
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
        journal.replace([Entry::Begin { log: None, checkpoint: 9 }].into_iter()).unwrap();
        journal.append(&[Entry::Apply { events: Vec::new(), to: 10 }], false).unwrap();
        assert_eq!(positions(&path), [9, 10]);
    }
}
