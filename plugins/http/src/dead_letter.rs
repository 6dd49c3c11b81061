//! A file for the admin with records that the collector has rejected permanently, so that nothing is lost.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::value::RawValue;
use snaphook_driver::json;

/// Maximum size of the file. When it is full, delivery stops until somebody moves it away; later records stay in the
/// buffer.
const BYTES_MAX: u64 = 64 << 20;

/// The file.
pub(crate) struct DeadLetters {
    path: PathBuf,
}

#[derive(Serialize)]
struct DeadLetter<'a> {
    reason: &'a str,
    record: &'a RawValue,
}

#[derive(Serialize)]
struct Damaged<'a> {
    reason: &'a str,
    text: &'a str,
}

impl DeadLetters {
    pub(crate) fn new(folder: &Path) -> DeadLetters {
        DeadLetters { path: folder.join("rejected.ndjson") }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Adds a record durably. `false` if the file is full.
    pub(crate) fn add(&self, reason: &str, record: &str) -> io::Result<bool> {
        let mut line = match json::typed::<&RawValue>(record) {
            Ok(record) => serde_json::to_string(&DeadLetter { reason, record }),
            // The record was damaged on the disk.
            Err(_) => serde_json::to_string(&Damaged { reason, text: record }),
        }?;
        line.push('\n');
        let mut file = OpenOptions::new().create(true).append(true).open(&self.path)?;
        let length = file.metadata()?.len();
        if length > 0 && length + line.len() as u64 > BYTES_MAX {
            return Ok(false);
        }
        if let Err(error) = file.write_all(line.as_bytes()).and_then(|()| file.sync_all()) {
            let _ = file.set_len(length);
            return Err(error);
        }
        Ok(true)
    }
}
