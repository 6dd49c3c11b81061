//! The embedded default: events, models and errors in SQLite files.
//!
//! Each store has its own file and one writing connection; readers have a separate pool and never wait for the writer
//! (WAL). Source of truth: the events file with the claims and blobs (fsync after every commit). Derived or less
//! durable: the models file (it can be rebuilt from the log) and the groups file next to the events (if it is lost,
//! post hooks run again). A store is opened by one process at a time; a lock file ensures that.

mod checkpoint;
mod config;
mod database;
mod error;
mod event;
mod fault;
mod flush;
mod functions;
mod key;
mod lanes;
mod lock;
mod log_room;
mod meter;
mod model;
mod value;

use snaphook_driver::{Driver, OpenContext, OpenFuture, Setting, SettingKind};
use std::sync::Arc;

pub use config::SqliteConfig;
pub use error::SqliteErrorStore;
pub use event::SqliteEventStore;
pub use model::SqliteModelStore;

/// A node's own copy of a log, for drivers whose log is elsewhere.
pub mod replica {
    pub use crate::event::change::{ChangeOutcome, LogChange, LogEntry};
    pub use crate::event::replica::Replica;
}

/// The driver `sqlite`.
pub const DRIVER: Driver = Driver {
    name: "sqlite",
    settings: &[Setting::required("path", SettingKind::Text, config::PATH_EXPECTED)],
    connection: &[],
    secure: None,
    event: Some(|context: OpenContext| -> OpenFuture<dyn snaphook_driver::EventStore> {
        Box::pin(async move {
            Ok(Arc::new(SqliteEventStore::open_as(&SqliteConfig::path(&context)?, context.resumes_import)?) as _)
        })
    }),
    model: Some(|context: OpenContext| -> OpenFuture<dyn snaphook_driver::ModelStore> {
        Box::pin(async move { Ok(Arc::new(SqliteModelStore::open(&SqliteConfig::path(&context)?)?) as _) })
    }),
    error: Some(|context: OpenContext| -> OpenFuture<dyn snaphook_driver::ErrorStore> {
        Box::pin(async move { Ok(Arc::new(SqliteErrorStore::open(&SqliteConfig::path(&context)?)?) as _) })
    }),
};
