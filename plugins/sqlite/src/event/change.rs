//! Changes of a log that several nodes share, and what comes of them.

use snaphook_driver::{Append, Appended, Conflict, Holder, LogRecord, Result, Stream};

/// A change at its place in the shared log.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Its place; the entries of a call rise, and follow what was applied before.
    pub sequence: u64,
    /// Who wrote it. Of each writer only changes with a rising counter have an effect.
    pub writer: &'a str,
    pub counter: u64,
    pub change: Change<'a>,
}

/// What happens to a log.
#[derive(Clone, Copy, Debug)]
pub enum Change<'a> {
    /// Whatever its writer sent before and is not there yet comes too late.
    Nothing,
    /// Gives the log its identity, if it has none.
    Begin {
        identity: &'a str,
    },
    Append {
        batch: &'a [Append],
        atomic: bool,
    },
    Reserve {
        keys: &'a [(String, Stream)],
    },
    Forget {
        prefix: &'a str,
        limit: u32,
    },
    Blob {
        sha256: &'a str,
        bytes: &'a [u8],
    },
    Import {
        records: &'a [LogRecord],
    },
    FinishImport,
}

/// What came of a change.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It was there before, or a later one of its writer was: it has no effect.
    Repeated,
    Done,
    Appended(Vec<Result<Appended, Conflict>>),
    Reserved(Vec<(usize, Holder)>),
    Forgotten(u64),
    /// Why the log does not take the import.
    Refused(String),
}
