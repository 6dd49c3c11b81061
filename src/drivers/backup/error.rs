//! Errors of backups and restores.

use std::fmt;

use snaphook_driver::DriverError;

use super::archive::Damage;

/// The error, and its store.
#[derive(Debug)]
pub enum BackupError {
    Store(&'static str, DriverError),
    Damage(Damage),
    File(std::io::Error),
    /// The reader disconnected or stopped reading.
    Unread,
    /// Requests used all memory for too long.
    Memory,
    /// The restored stores differ from the file.
    Different(String),
    /// The stores are not in the state that a restore or a copy needs.
    Refused(String),
    /// The target log is not empty.
    NotEmpty(DriverError),
}

impl fmt::Display for BackupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BackupError::Store(store, error) => write!(f, "{store} storage: {error}"),
            BackupError::Damage(damage) => damage.fmt(f),
            BackupError::File(error) => write!(f, "the file cannot be read or written: {error}"),
            BackupError::Unread => f.write_str("the reader of the backup has disconnected"),
            BackupError::Memory => f.write_str("requests used all of `server.limits.memory` for a minute"),
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
