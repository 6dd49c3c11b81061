//! The driver's settings.

use std::path::PathBuf;

use serde::Deserialize;
use snaphook_driver::{DriverError, ErrorKind, OpenContext, Result};

/// The expected value of `path`.
pub(crate) const PATH_EXPECTED: &str = "the path of a folder such as `data/secrets` or `data/events`";

/// The settings below `driver = 'file'`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileConfig {
    /// The folder for the files. It is created, with its parents, if it does not exist.
    pub path: String,
}

impl FileConfig {
    /// The folder of the store to open.
    pub(crate) fn folder(context: &OpenContext) -> Result<PathBuf> {
        let config: FileConfig = context.settings()?;
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
