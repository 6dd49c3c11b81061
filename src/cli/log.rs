//! Logging: plain lines to stderr.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use super::{Failure, Result};

/// Starts logging; `filter` is a level or `target=level,…`.
pub(super) fn init(filter: &str) -> Result<()> {
    let filter = EnvFilter::try_new(filter).map_err(|error| {
        Failure::new(format!("`--log` is `{filter}`, expected a level or `target=level,…`: {error}"))
    })?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .try_init()
        .map_err(|error| Failure::new(format!("logging cannot start: {error}")))
}
