//! Why a backup was not made, or not restored.

use std::fmt;

use snaphook_driver::DriverError;

use super::archive::Damage;

/// What went wrong, and in which store.
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
