//! The file of a backup.
//!
//! ```text
//! file   = "snaphook backup\n" block*
//! block  = kind (1 byte: H, D, E) · progress (u32, of 10,000) · raw length (u32) · stored length (u32)
//!          · SHA-256 of the block's number (u64), the 13 bytes before, and what follows (32 bytes) · stored bytes (zstd)
//! H      = the first block: `Header` as JSON
//! D      = records: head length (u32) · body length (u32) · head (JSON) · body
//! E      = the last block: `End` as JSON; nothing follows it
//! ```
//!
//! Numbers are little-endian. Each block has its digest, so damage is located; its number detects reordered blocks; the
//! last block has the totals, so a truncated file is detected.

use std::fmt;
use std::io::{BufReader, Read};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use snaphook_driver::time::{self, Millis};
use snaphook_driver::{ErrorRecord, LogRecord, Position};

use super::record::{Counts, Record};

const MAGIC: &[u8; 16] = b"snaphook backup\n";
/// Increased when older programs cannot read newer files.
const FORMAT: u32 = 1;
/// Bytes of a block before its content.
const HEAD_BYTES: usize = 13 + 32;
/// Raw bytes at which a block ends; one record always fits.
const BLOCK_BYTES: usize = 1 << 20;
/// Larger than any record: the largest is the code of a hook.
const BLOCK_BYTES_MAX: u32 = 512 << 20;
const COMPRESSION_LEVEL: i32 = 3;
/// The maximum of [`Scanner::progress`].
pub(super) const PROGRESS_MAX: u32 = 10_000;

/// The description of a backup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    pub format: u32,
    /// The program that wrote it.
    pub snaphook: String,
    #[serde(with = "time")]
    pub made: Millis,
    /// Identity of the log; a restored log gets a new one.
    pub log: String,
    /// Position of its last event.
    pub head: Position,
}

impl Header {
    pub(super) fn new(log: &str, head: Position) -> Header {
        let snaphook = env!("CARGO_PKG_VERSION").to_owned();
        Header { format: FORMAT, snaphook, made: time::now(), log: log.to_owned(), head }
    }
}

/// The last block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct End {
    pub(super) counts: Counts,
    /// SHA-256 of all records in the blocks.
    pub(super) records: String,
}

/// Counts records and computes their digest, independent of blocks.
#[derive(Clone, Default)]
pub(super) struct Tally {
    counts: Counts,
    digest: Sha256,
}

impl Tally {
    pub(super) fn count(&mut self, record: &Record) {
        self.counts.add(record);
    }

    /// The same record in its file format.
    pub(super) fn digest(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
    }

    pub(super) fn end(self) -> End {
        End { counts: self.counts, records: format!("{:x}", self.digest.finalize()) }
    }
}

/// The head of a record; its bytes, if it has any, follow it.
#[derive(Deserialize)]
#[expect(clippy::large_enum_variant, reason = "one record at a time is held")]
enum Head {
    Log(LogRecord),
    Error(ErrorRecord),
    Secret { name: String },
}

/// The same to be written.
#[derive(Serialize)]
#[serde(rename = "Head")]
enum HeadRef<'a> {
    Log(&'a LogRecord),
    Error(&'a ErrorRecord),
    Secret { name: &'a str },
}

/// Appends a record.
pub(super) fn write_record(out: &mut Vec<u8>, record: &Record) -> serde_json::Result<()> {
    let (head, body): (_, &[u8]) = match record {
        // Without its bytes, which are no part of its JSON.
        Record::Log(blob @ LogRecord::Blob { bytes, .. }) => (HeadRef::Log(blob), bytes),
        Record::Log(record) => (HeadRef::Log(record), &[]),
        Record::Error(record) => (HeadRef::Error(record), &[]),
        Record::Secret { name, bytes } => (HeadRef::Secret { name }, bytes),
    };
    let start = out.len();
    out.extend_from_slice(&[0; 8]);
    serde_json::to_writer(&mut *out, &head)?;
    let length = out.len() - start - 8;
    out[start..start + 4].copy_from_slice(&(length as u32).to_le_bytes());
    out[start + 4..start + 8].copy_from_slice(&(body.len() as u32).to_le_bytes());
    out.extend_from_slice(body);
    Ok(())
}

/// The first record of a block's bytes, and its size; the error describes the damage.
pub(super) fn read_record(bytes: &[u8]) -> Result<(Record, usize), String> {
    let cut = || "a record is cut short".to_owned();
    let length = |at: usize| -> Result<usize, String> {
        let bytes = bytes.get(at..at + 4).and_then(|bytes| bytes.first_chunk()).ok_or_else(cut)?;
        Ok(u32::from_le_bytes(*bytes) as usize)
    };
    let (head_end, end) = {
        let head_end = 8 + length(0)?;
        (head_end, head_end + length(4)?)
    };
    let (head, body) = (bytes.get(8..head_end).ok_or_else(cut)?, bytes.get(head_end..end).ok_or_else(cut)?);
    let head = snaphook_driver::json::typed_bytes(head).map_err(|error| format!("a record cannot be read: {error}"))?;
    let record = match head {
        Head::Log(LogRecord::Blob { sha256, .. }) => Record::Log(LogRecord::Blob { sha256, bytes: body.to_vec() }),
        Head::Secret { name } => Record::Secret { name, bytes: body.to_vec() },
        Head::Log(record) => Record::Log(record),
        Head::Error(record) => Record::Error(record),
    };
    Ok((record, end))
}

/// Creates the blocks of a file, one after the other.
#[derive(Default)]
pub(super) struct BlockWriter {
    number: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Header,
    Data,
    End,
}

impl Kind {
    const fn byte(self) -> u8 {
        match self {
            Kind::Header => b'H',
            Kind::Data => b'D',
            Kind::End => b'E',
        }
    }

    fn of(byte: u8) -> Option<Kind> {
        [Kind::Header, Kind::Data, Kind::End].into_iter().find(|kind| kind.byte() == byte)
    }
}

/// Whether this many raw bytes fill a block.
pub(super) const fn is_block(bytes: usize) -> bool {
    bytes >= BLOCK_BYTES
}

impl BlockWriter {
    /// The next block; the first one has the beginning of the file before it.
    pub(super) fn block(&mut self, kind: Kind, progress: u32, raw: &[u8]) -> std::io::Result<Vec<u8>> {
        let stored = zstd::bulk::compress(raw, COMPRESSION_LEVEL)?;
        let mut head = Vec::with_capacity(HEAD_BYTES);
        head.push(kind.byte());
        for number in [progress, raw.len() as u32, stored.len() as u32] {
            head.extend_from_slice(&number.to_le_bytes());
        }
        let digest = digest(self.number, &head, &stored);
        let mut out = if self.number == 0 { MAGIC.to_vec() } else { Vec::new() };
        out.extend_from_slice(&head);
        out.extend_from_slice(&digest);
        out.extend_from_slice(&stored);
        self.number += 1;
        Ok(out)
    }
}

fn digest(number: u64, head: &[u8], stored: &[u8]) -> [u8; 32] {
    let mut digest = Sha256::new();
    digest.update(number.to_le_bytes());
    digest.update(head);
    digest.update(stored);
    digest.finalize().into()
}

/// Damage of a file, with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    offset: u64,
    what: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the backup cannot be used, at byte {}: {}", self.offset, self.what)
    }
}

impl std::error::Error for Damage {}

/// Reads a file block by block; nothing is returned before its digest was compared.
pub(super) struct Reader<R> {
    input: BufReader<R>,
    offset: u64,
    number: u64,
    ended: bool,
}

pub(super) struct Block {
    pub(super) kind: Kind,
    pub(super) raw: Vec<u8>,
    /// Where it begins.
    pub(super) offset: u64,
}

impl<R: Read> Reader<R> {
    pub(super) fn new(input: R) -> Result<Self, Damage> {
        let mut reader = Reader { input: BufReader::new(input), offset: 0, number: 0, ended: false };
        let mut magic = [0; MAGIC.len()];
        let found = reader.fill(&mut magic)?;
        if found < magic.len() || magic != *MAGIC {
            return Err(Damage { offset: 0, what: "this is not a backup of snaphook".to_owned() });
        }
        Ok(reader)
    }

    /// The current offset.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The next block; `None` after the last.
    pub(super) fn next(&mut self) -> Result<Option<Block>, Damage> {
        let offset = self.offset;
        let damage = |what: String| Damage { offset, what };
        let mut head = [0; HEAD_BYTES];
        let found = self.fill(&mut head)?;
        if self.ended {
            return match found {
                0 => Ok(None),
                _ => Err(damage("something follows the end of the backup".to_owned())),
            };
        }
        let cut = || damage("the file was cut short".to_owned());
        if found < head.len() {
            return Err(cut());
        }
        let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let (raw_length, stored_length) = (number(5), number(9));
        let kind = Kind::of(head[0]).ok_or_else(|| damage("a block is damaged: its kind is unknown".to_owned()))?;
        if raw_length > BLOCK_BYTES_MAX || stored_length > BLOCK_BYTES_MAX {
            return Err(damage("a block is damaged: its length is impossible".to_owned()));
        }
        // Read incrementally: a wrong length must not allocate that much memory.
        let mut stored = Vec::new();
        let read = (&mut self.input).take(u64::from(stored_length)).read_to_end(&mut stored);
        let read = read.map_err(|error| damage(format!("the file cannot be read: {error}")))?;
        self.offset += read as u64;
        if read < stored_length as usize {
            return Err(cut());
        }
        if digest(self.number, &head[..13], &stored) != head[13..] {
            return Err(damage(format!("block {} is damaged: its digest is wrong", self.number + 1)));
        }
        let raw = zstd::bulk::decompress(&stored, raw_length as usize)
            .map_err(|error| damage(format!("block {} cannot be unpacked: {error}", self.number + 1)))?;
        if raw.len() != raw_length as usize || (kind == Kind::Header) != (self.number == 0) {
            return Err(damage(format!("block {} does not match its header", self.number + 1)));
        }
        self.ended = kind == Kind::End;
        self.number += 1;
        Ok(Some(Block { kind, raw, offset }))
    }

    /// Returns the number of bytes read, up to the size of the buffer.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, Damage> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.input.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(Damage { offset: self.offset, what: format!("the file cannot be read: {error}") });
                }
            }
        }
        self.offset += filled as u64;
        Ok(filled)
    }
}

/// Reads a file record by record; compares all digests and counts on the way, the last at the end.
pub(super) struct Records<R> {
    reader: Reader<R>,
    header: Header,
    raw: Vec<u8>,
    /// Where the block of `raw` begins, and how much of it was returned.
    block: u64,
    taken: usize,
    tally: Tally,
    end: Option<End>,
}

impl<R: Read> Records<R> {
    pub(super) fn open(input: R) -> Result<Self, Damage> {
        let mut reader = Reader::new(input)?;
        let cut = |offset| Damage { offset, what: "the file was cut short".to_owned() };
        let first = reader.next()?.ok_or_else(|| cut(0))?;
        let header = read_header(&first.raw).map_err(|what| Damage { offset: first.offset, what })?;
        Ok(Records { reader, header, raw: Vec::new(), block: 0, taken: 0, tally: Tally::default(), end: None })
    }

    /// Bytes of the file that were read.
    pub(super) fn offset(&self) -> u64 {
        self.reader.offset()
    }

    /// `None` after the last record; then the end of the file was compared as well.
    pub(super) fn next(&mut self) -> Result<Option<Record>, Damage> {
        while self.taken == self.raw.len() {
            let Some(Block { kind, raw, offset }) = self.reader.next()? else { return self.compare().map(|()| None) };
            let damage = |what: String| Damage { offset, what };
            match kind {
                Kind::Data => (self.raw, self.block, self.taken) = (raw, offset, 0),
                Kind::End => {
                    let end = snaphook_driver::json::typed_bytes(&raw);
                    self.end = Some(end.map_err(|error| damage(format!("the last block cannot be read: {error}")))?);
                }
                Kind::Header => return Err(damage("a second header".to_owned())),
            }
        }
        let rest = &self.raw[self.taken..];
        let (record, length) = read_record(rest).map_err(|what| Damage { offset: self.block, what })?;
        self.tally.count(&record);
        self.tally.digest(&rest[..length]);
        self.taken += length;
        Ok(Some(record))
    }

    fn compare(&self) -> Result<(), Damage> {
        if self.end.as_ref() == Some(&self.tally.clone().end()) {
            return Ok(());
        }
        let what = "the records do not match the end of the file".to_owned();
        Err(Damage { offset: self.offset(), what })
    }

    /// The description of the file; after the last record.
    pub(super) fn end(self) -> Result<(Header, End), Damage> {
        let offset = self.reader.offset();
        let end = self.end.ok_or_else(|| Damage { offset, what: "the end is missing".to_owned() })?;
        Ok((self.header, end))
    }
}

/// Checks a whole file, down to its last record. `progress` gets the bytes that were read.
pub fn verify(input: impl Read, mut progress: impl FnMut(u64)) -> Result<(Header, Counts), Damage> {
    let mut records = Records::open(input)?;
    while records.next()?.is_some() {
        progress(records.offset());
    }
    let (header, end) = records.end()?;
    Ok((header, end.counts))
}

fn read_header(raw: &[u8]) -> Result<Header, String> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
        snaphook: String,
    }
    let Format { format, snaphook } =
        snaphook_driver::json::typed_bytes(raw).map_err(|error| format!("the header cannot be read: {error}"))?;
    if format != FORMAT {
        return Err(format!(
            "the backup has format {format} (of snaphook {snaphook}), this snaphook supports {FORMAT}; use the version \
             that wrote it, or a newer one"
        ));
    }
    snaphook_driver::json::typed_bytes(raw).map_err(|error| format!("the header cannot be read: {error}"))
}

/// Determines the progress of a backup while its bytes arrive, without decompressing them.
#[derive(Default)]
pub struct Scanner {
    /// Bytes until the next block begins.
    skip: usize,
    head: Vec<u8>,
    started: bool,
    progress: u32,
}

impl Scanner {
    pub fn push(&mut self, mut bytes: &[u8]) {
        if !self.started {
            self.started = true;
            self.skip = MAGIC.len();
        }
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            bytes = &bytes[skipped..];
            self.skip -= skipped;
            let taken = (HEAD_BYTES - self.head.len()).min(bytes.len());
            self.head.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if self.head.len() == HEAD_BYTES {
                let number = |at: usize| {
                    u32::from_le_bytes([self.head[at], self.head[at + 1], self.head[at + 2], self.head[at + 3]])
                };
                self.progress = number(1).min(PROGRESS_MAX);
                self.skip = number(9) as usize;
                self.head.clear();
            }
        }
    }

    /// From 0 to 1.
    pub fn progress(&self) -> f64 {
        f64::from(self.progress) / f64::from(PROGRESS_MAX)
    }
}

/// The blocks of a complete file; the beginning of the file belongs to the first.
#[cfg(test)]
pub(super) fn blocks_of(file: &[u8]) -> Vec<&[u8]> {
    let (mut blocks, mut start, mut at) = (Vec::new(), 0, MAGIC.len());
    while at < file.len() {
        let stored: [u8; 4] = file[at + 9..at + 13].try_into().expect("four bytes");
        at += HEAD_BYTES + u32::from_le_bytes(stored) as usize;
        blocks.push(&file[start..at]);
        start = at;
    }
    blocks
}

/// Every record of a complete file.
#[cfg(test)]
pub(super) fn records_of(file: &[u8]) -> Vec<Record> {
    let mut records = Records::open(file).expect("a backup");
    std::iter::from_fn(|| records.next().expect("whole")).collect()
}
