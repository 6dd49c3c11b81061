//! The driver's settings.

use serde::Deserialize;
use snaphook_driver::{DriverError, ErrorKind, OpenContext, Result};
use snaphook_driver_peer::Timeout;

pub(crate) const URL_EXPECTED: &str = "the address that records are sent to, such as `https://logs.example.com/errors`";
pub(crate) const BUFFER_EXPECTED: &str = "the path of a folder such as `data/errors-http`";
pub(crate) const BUFFER_BYTES_EXPECTED: &str = "a number of bytes, at least 16777216";
pub(crate) const BATCH_EXPECTED: &str = "a number of records from 1 to 10000";

/// Enough for the largest record with its log.
const BUFFER_BYTES_MIN: u64 = 16 << 20;

/// The settings below `driver = 'http'`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct HttpConfig {
    /// Each batch is one POST to this address.
    pub url: String,
    /// Sent as `Authorization: Bearer`.
    pub token: Option<String>,
    /// The folder of undelivered records. It is created, with its parents, if it does not exist.
    #[serde(default = "buffer")]
    pub buffer: String,
    /// Maximum size of the waiting records in bytes; beyond that, `record` returns `ErrorKind::Full`.
    #[serde(default = "buffer_bytes")]
    pub buffer_bytes: u64,
    /// Maximum number of records per request.
    #[serde(default = "batch")]
    pub batch: usize,
    /// Timeout of one request in seconds.
    #[serde(default)]
    pub timeout: Timeout,
}

fn buffer() -> String {
    "data/errors-http".into()
}

fn buffer_bytes() -> u64 {
    256 << 20
}

fn batch() -> usize {
    100
}

impl HttpConfig {
    /// Reads and checks the settings.
    pub(crate) fn new(context: &OpenContext) -> Result<HttpConfig> {
        let config: HttpConfig = context.settings()?;
        let checks = [
            ("buffer", !config.buffer.is_empty(), BUFFER_EXPECTED),
            ("buffer-bytes", config.buffer_bytes >= BUFFER_BYTES_MIN, BUFFER_BYTES_EXPECTED),
            ("batch", (1..=10_000).contains(&config.batch), BATCH_EXPECTED),
        ];
        match checks.into_iter().find(|(_, is_good, _)| !is_good) {
            Some((name, _, expected)) => {
                Err(DriverError::new(ErrorKind::Config, "open", format!("`{name}` is invalid, expected {expected}")))
            }
            None => Ok(config),
        }
    }
}
