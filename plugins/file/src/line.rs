//! Lines with a checksum, and reading files of such lines.
//!
//! A line is one JSON object, `{"crc":"1a2b3c4d",…}`, with the CRC-32 of everything after the comma up to the end of
//! the line. Files of lines only grow, with one write per group of related lines.
//!
//! A write that is interrupted by a crash leaves a line without its newline or, after a power failure, zeros instead of
//! bytes: such a tail was never acknowledged and is truncated. Without syncing, a power failure may also leave such
//! zeros before complete lines ([`Tail`]). Any other mismatch means that stored data is damaged: the file is not
//! opened, because truncating it could lose data.

use std::fmt;
use std::path::Path;

use serde::Serialize;
use snaphook_driver::{DriverError, ErrorKind, Result};

/// `{"crc":"1a2b3c4d"`, without the comma.
const HEAD: usize = 17;

/// A run of zeros that only a power failure leaves.
const ZEROS: [u8; 8] = [0; 8];

/// Appends a line. `body` must serialise to an object that is not empty.
pub(crate) fn push(out: &mut Vec<u8>, body: &impl Serialize) -> serde_json::Result<()> {
    let start = out.len();
    out.extend_from_slice(b"{\"crc\":\"00000000\"");
    let written = serde_json::to_writer(&mut *out, body);
    if let Err(error) = written {
        out.truncate(start);
        return Err(error);
    }
    out[start + HEAD] = b',';
    let crc = hex(crc32fast::hash(&out[start + HEAD + 1..]));
    out[start + 8..start + 16].copy_from_slice(&crc);
    out.push(b'\n');
    Ok(())
}

/// Checks a line without its newline.
pub(crate) fn check(line: &[u8]) -> Result<(), Mismatch> {
    let framed = line.starts_with(b"{\"crc\":\"") && line.get(16..HEAD + 1) == Some(b"\",");
    let expected = hex(crc32fast::hash(line.get(HEAD + 1..).unwrap_or_default()));
    let found = line.get(8..16).unwrap_or_default();
    if framed && found == expected { Ok(()) } else { Err(Mismatch { framed, expected, found: found.to_owned() }) }
}

/// A line whose checksum does not match.
#[derive(Debug)]
pub(crate) struct Mismatch {
    framed: bool,
    expected: [u8; 8],
    found: Vec<u8>,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = self.found.escape_ascii();
        match self.framed {
            true => write!(f, "expected checksum {}, found {found}", self.expected.escape_ascii()),
            false => write!(f, "expected a line that begins with its checksum, found none"),
        }
    }
}

/// A complete line of a file.
pub(crate) struct Line<'a> {
    /// The number of the line, starting at 1.
    pub(crate) number: u64,
    /// Offset of its first byte.
    pub(crate) offset: u64,
    /// The line without its newline.
    pub(crate) bytes: &'a [u8],
}

/// The end of a file of lines.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct End {
    /// Number of complete lines.
    pub(crate) lines: u64,
    /// Number of bytes in them.
    pub(crate) bytes: u64,
    /// Bytes after them, from an interrupted write.
    pub(crate) torn: u64,
}

/// The damage that a crash may have left at the end of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tail {
    /// None: the whole file was synced.
    Whole,
    /// A part of the last write; earlier ones were synced.
    LastWrite,
    /// Parts of several writes, depending on the order in which the kernel wrote the pages.
    Writes,
}

/// Passes the lines of a file to `each` in order. `each` returns whether the line completes its write, or what is wrong
/// with the line.
///
/// `tail` determines what may be incomplete.
pub(crate) fn walk<'a>(
    path: &Path,
    bytes: &'a [u8],
    tail: Tail,
    mut each: impl FnMut(Line<'a>) -> Result<bool, String>,
) -> Result<End> {
    let mut end = End::default();
    let (mut number, mut offset) = (0, 0);
    while let Some(length) = memchr::memchr(b'\n', &bytes[offset..]) {
        let line = &bytes[offset..offset + length];
        number += 1;
        if let Err(mismatch) = check(line) {
            let behind = &bytes[offset + length + 1..];
            let is_torn = match tail {
                Tail::Whole => false,
                Tail::LastWrite => has_zeros(line) && !has_whole_line(behind),
                Tail::Writes => has_zeros(line),
            };
            if is_torn {
                return Ok(End { torn: bytes.len() as u64 - end.bytes, ..end });
            }
            return Err(damaged(path, number, offset, mismatch));
        }
        let is_last = each(Line { number, offset: offset as u64, bytes: line })
            .map_err(|fault| damaged(path, number, offset, fault))?;
        offset += length + 1;
        if is_last {
            (end.lines, end.bytes) = (number, offset as u64);
        }
    }
    // If only the newline is damaged, the line and everything before it was written.
    let lost_newline = bytes[offset..].split_last().is_some_and(|(_, line)| check(line).is_ok());
    if lost_newline || (tail == Tail::Whole && end.bytes < bytes.len() as u64) {
        return Err(damaged(path, number + 1, offset, "expected a complete line that ends with a newline"));
    }
    end.torn = bytes.len() as u64 - end.bytes;
    Ok(end)
}

/// An error that says where a file is damaged.
pub(crate) fn damaged(path: &Path, line: u64, offset: impl fmt::Display, fault: impl fmt::Display) -> DriverError {
    DriverError::new(ErrorKind::Corrupt, "open", format!("the file is damaged: {fault}"))
        .with("file", path.display())
        .with("line", line)
        .with("offset", offset)
}

fn has_zeros(line: &[u8]) -> bool {
    line.windows(ZEROS.len()).any(|window| window == ZEROS)
}

fn has_whole_line(bytes: &[u8]) -> bool {
    bytes.split(|byte| *byte == b'\n').any(|line| check(line).is_ok())
}

fn hex(crc: u32) -> [u8; 8] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    std::array::from_fn(|at| DIGITS[(crc >> (28 - 4 * at) & 15) as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct TestLine {
        n: u64,
        last: bool,
    }

    fn file(lines: &[bool]) -> Vec<u8> {
        let mut out = Vec::new();
        for (n, last) in (0..).zip(lines) {
            push(&mut out, &TestLine { n, last: *last }).unwrap();
        }
        out
    }

    fn walk_it(bytes: &[u8], tail: Tail) -> Result<End> {
        walk(Path::new("f"), bytes, tail, |line| Ok(line.bytes.ends_with(b"true}")))
    }

    #[test]
    fn a_line_is_json_with_its_checksum() {
        let line = file(&[true]);
        assert_eq!(line.escape_ascii().to_string(), r#"{\"crc\":\"911bd317\",\"n\":0,\"last\":true}\n"#);
    }

    #[test]
    fn a_torn_tail_ends_with_the_last_whole_write() {
        let bytes = file(&[true, false, true, false, false, true]);
        let third = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(2).unwrap().0 + 1;
        for cut in third..bytes.len() {
            let end = walk_it(&bytes[..cut], Tail::LastWrite).unwrap();
            assert_eq!((end.lines, end.bytes, end.torn), (3, third as u64, (cut - third) as u64));
            assert_eq!(walk_it(&bytes[..cut], Tail::Whole).is_err(), cut > third);
        }
        assert_eq!(walk_it(&bytes, Tail::LastWrite).unwrap().lines, 6);
        let with_zeros = [&bytes[..third], &[0; 100], b"\n", &[0; 20]].concat();
        assert_eq!(walk_it(&with_zeros, Tail::LastWrite).unwrap().torn, 121);
        // Zeros before a complete line: several unsynced writes may leave them, but a single last write does not.
        let hole = [&with_zeros, &b"\n"[..], &bytes[..third]].concat();
        assert!(walk_it(&hole, Tail::LastWrite).is_err());
        assert_eq!(walk_it(&hole, Tail::Writes).unwrap().bytes, third as u64);
    }

    #[test]
    fn each_flipped_bit_is_noticed() {
        let bytes = file(&[true, false, true]);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(walk_it(&flipped, Tail::LastWrite).is_err(), "bit {bit}");
        }
    }
}
