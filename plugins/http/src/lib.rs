//! Failed runs sent to a log collector: one POST per batch, a JSON array of records.
//!
//! When `record` returns, the record is durable in a buffer on disk; a background task sends the buffered records in
//! order, and retries while the collector does not accept them. After a crash or a lost response, a batch may be sent
//! twice: the collector can detect this by a record's `id`. Records cannot be read back.

mod buffer;
mod config;
mod dead_letter;
mod error;
mod sender;
mod writer;

use std::sync::Arc;

use snaphook_driver::{Driver, ErrorStore, OpenContext, OpenFuture, Setting, SettingKind};
use snaphook_driver_peer::{TIMEOUT, TOKEN};

pub use config::HttpConfig;
pub use error::HttpErrorStore;

/// The driver `http`.
pub const DRIVER: Driver = Driver {
    name: "http",
    settings: &[
        Setting::required("url", SettingKind::Text, config::URL_EXPECTED),
        TOKEN,
        Setting::with_default("buffer", SettingKind::Text, config::BUFFER_EXPECTED, "\"data/errors-http\""),
        Setting::with_default("buffer-bytes", SettingKind::Number, config::BUFFER_BYTES_EXPECTED, "268435456"),
        Setting::with_default("batch", SettingKind::Number, config::BATCH_EXPECTED, "100"),
        TIMEOUT,
    ],
    connection: &[],
    secure: None,
    event: None,
    model: None,
    error: Some(|context: OpenContext| -> OpenFuture<dyn ErrorStore> {
        Box::pin(async move { Ok(Arc::new(HttpErrorStore::open(&context)?) as _) })
    }),
};
