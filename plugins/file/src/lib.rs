//! All four stores as readable files: for small installations, and to inspect the stored data.
//!
//! Each store has a folder. Source of truth: the log as lines of JSON (fsync after every batch), and the recorded
//! errors and secrets as one file each, synced before they are acknowledged. Derived: the instances as one file each,
//! which can be rebuilt from the log. A folder of events, models or errors is opened by one process at a time; a lock
//! file ensures that. Everything except secrets and blobs has a checksum, so damage is detected instead of served.

mod config;
mod error;
mod event;
mod fault;
mod folder;
mod line;
mod marker;
mod model;
mod names;
mod secure;
mod task;
mod text;

use std::sync::Arc;

use snaphook_driver::{
    Driver, ErrorStore, EventStore, ModelStore, OpenContext, OpenFuture, SecureStore, Setting, SettingKind,
};

pub use config::FileConfig;
pub use error::FileErrorStore;
pub use event::FileEventStore;
pub use model::FileModelStore;
pub use secure::FileSecureStore;

/// The driver `file`.
pub const DRIVER: Driver = Driver {
    name: "file",
    settings: &[Setting::required("path", SettingKind::Text, config::PATH_EXPECTED)],
    connection: &[],
    secure: Some(|context: OpenContext| -> OpenFuture<dyn SecureStore> {
        Box::pin(async move { Ok(Arc::new(FileSecureStore::open(&FileConfig::folder(&context)?)?) as _) })
    }),
    event: Some(|context: OpenContext| -> OpenFuture<dyn EventStore> {
        Box::pin(async move {
            Ok(Arc::new(FileEventStore::open_as(&FileConfig::folder(&context)?, context.resumes_import)?) as _)
        })
    }),
    model: Some(|context: OpenContext| -> OpenFuture<dyn ModelStore> {
        Box::pin(async move { Ok(Arc::new(FileModelStore::open(&FileConfig::folder(&context)?)?) as _) })
    }),
    error: Some(|context: OpenContext| -> OpenFuture<dyn ErrorStore> {
        Box::pin(async move { Ok(Arc::new(FileErrorStore::open(&FileConfig::folder(&context)?)?) as _) })
    }),
};
