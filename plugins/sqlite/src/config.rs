//! The driver's settings.

use std::path::PathBuf;

use serde::Deserialize;
use snaphook_driver::{DriverError, ErrorKind, OpenContext, Result};

/// The expected value of `path`.
pub(crate) const PATH_EXPECTED: &str = "the path of a database file such as `data/events.db`";

/// The settings below `driver = 'sqlite'`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SqliteConfig {
    /// The database file. Parent folders are created; files with the same name and the suffixes `-wal`, `-shm`, `-lock`
    /// and (for events) `-groups` belong to it.
    pub path: String,
}

impl SqliteConfig {
    /// The database file of the store to open.
    pub fn path(context: &OpenContext) -> Result<PathBuf> {
        let config: SqliteConfig = context.settings()?;
        if config.path.is_empty() {
            return Err(DriverError::new(
                ErrorKind::Config,
                "open",
                format!("`path` is empty, expected {PATH_EXPECTED}"),
            ));
        }
        Ok(context.path(&config.path))
    }
}
