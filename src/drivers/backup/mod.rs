//! Backups: everything that nothing else can give back, in one file that does not depend on the drivers.
//!
//! [`export`] reads the stores while a server works on them, [`archive`] is the file, [`restore`] fills empty stores,
//! [`transfer`] does it without a file. The
//! model store is not part of it (the log gives it back), nor is the private key of the secrets, which stay encrypted.

mod archive;
mod export;
mod restore;
mod transfer;

#[cfg(test)]
mod tests;

use std::fmt;

use serde::{Deserialize, Serialize};
use snaphook_driver::{DriverError, ErrorRecord, LogRecord};

pub use archive::{Damage, Header, Scanner, verify};
pub use export::{Piece, export, export_stored};
pub use restore::{Restored, restore};
pub use transfer::{ComparedModel, Transfer, Transferred};

/// How many records of each kind there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    pub events: u64,
    pub claims: u64,
    pub blobs: u64,
    pub groups: u64,
    pub errors: u64,
    pub secrets: u64,
}

/// One record of a backup, in the order of the file: the log's, the recorded errors by id, the secrets by name.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "one record at a time is held")]
pub(crate) enum Record {
    Log(LogRecord),
    Error(ErrorRecord),
    /// As the secure store has it, encrypted.
    Secret {
        name: String,
        bytes: Vec<u8>,
    },
}

impl Counts {
    fn add(&mut self, record: &Record) {
        let count = match record {
            Record::Log(LogRecord::Event(_)) => &mut self.events,
            Record::Log(LogRecord::Claim { .. }) => &mut self.claims,
            Record::Log(LogRecord::Blob { .. }) => &mut self.blobs,
            Record::Log(LogRecord::Group { .. }) => &mut self.groups,
            // Belongs to the group before it.
            Record::Log(LogRecord::Pending { .. }) => return,
            Record::Error(_) => &mut self.errors,
            Record::Secret { .. } => &mut self.secrets,
        };
        *count += 1;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { events, blobs, groups, errors, secrets, .. } = self;
        write!(
            f,
            "{events} events, the progress of {groups} consumer groups, {blobs} artifacts of hooks, {errors} recorded errors, \
             {secrets} secrets"
        )
    }
}

/// Why a backup was not made, or not restored.
#[derive(Debug)]
pub enum BackupError {
    Store(&'static str, DriverError),
    Damage(Damage),
    File(std::io::Error),
    /// Whoever was to read it went away or stopped reading.
    Unread,
    /// Requests held all memory for too long.
    Memory,
    /// What the restored stores hold is not what the file says.
    Different(String),
    /// The stores are not as a restore or a copy needs them.
    Refused(String),
    /// The log that records were to go into holds data.
    NotEmpty(DriverError),
}

impl fmt::Display for BackupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BackupError::Store(store, error) => write!(f, "{store} storage: {error}"),
            BackupError::Damage(damage) => damage.fmt(f),
            BackupError::File(error) => write!(f, "the file cannot be read or written: {error}"),
            BackupError::Unread => f.write_str("nobody reads the backup any more"),
            BackupError::Memory => f.write_str("requests held all of `server.limits.memory` for a minute"),
            BackupError::NotEmpty(error) => {
                write!(f, "{error}; records go into empty stores only: move the data away, or name other places")
            }
            BackupError::Different(message) | BackupError::Refused(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for BackupError {}

impl From<Damage> for BackupError {
    fn from(damage: Damage) -> Self {
        BackupError::Damage(damage)
    }
}
