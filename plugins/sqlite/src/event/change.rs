//! Changes of a log that several nodes share, and their outcomes.

use snaphook_driver::{Append, Appended, Conflict, Holder, LogRecord, Result, Stream};

/// A change with its sequence number in the shared log.
#[derive(Clone, Copy, Debug)]
pub struct LogEntry<'a> {
    /// Its sequence number; the entries of a call are in increasing order and follow those applied before.
    pub sequence: u64,
    /// The writer. For each writer, only changes with an increasing counter have an effect.
    pub writer: &'a str,
    pub counter: u64,
    pub change: LogChange<'a>,
}

/// A change of a log.
#[derive(Clone, Copy, Debug)]
pub enum LogChange<'a> {
    /// No change; but all earlier changes of its writer that have not arrived yet become void.
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

/// The outcome of a change.
#[derive(Clone, Debug, PartialEq)]
pub enum ChangeOutcome {
    /// It, or a later change of its writer, was applied before: it has no effect.
    Repeated,
    Done,
    Appended(Vec<Result<Appended, Conflict>>),
    Reserved(Vec<(usize, Holder)>),
    Forgotten(u64),
    /// Why the log rejects the import.
    Refused(String),
}
