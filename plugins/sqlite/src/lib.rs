//! The embedded default: events, models and errors in SQLite files.
//!
//! Each store has its file and one writing connection; readers have a pool of their own and never wait for the
//! writer (WAL). Ground state: the events file (fsync at every commit) with the claims and blobs in it. Derived or
//! less durable: the models file (the log can give it back) and the groups file next to the events (its loss
//! means that post hooks run again). A store is opened by one process at a time; a lock file sees to that.

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
mod meter;
mod model;
mod value;

use snaphook_driver::{Driver, OpenContext, OpenFuture, Setting, SettingKind};
use std::sync::Arc;

pub use config::SqliteConfig;
pub use error::SqliteErrorStore;
pub use event::SqliteEventStore;
pub use model::SqliteModelStore;

/// For drivers whose log is elsewhere: a node's own copy of it.
pub mod replica {
    pub use crate::event::change::{Change, Entry, Outcome};
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
