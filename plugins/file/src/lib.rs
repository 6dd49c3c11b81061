//! Secrets as files: one per name, readable by the owner alone. What is in them was encrypted before it came here.

mod config;
mod names;
mod secure;

use std::sync::Arc;

use snaphook_driver::{Driver, OpenContext, OpenFuture, SecureStore, Setting, SettingKind};

pub use config::FileConfig;
pub use secure::FileSecureStore;

/// The driver `file`.
pub const DRIVER: Driver = Driver {
    name: "file",
    settings: &[Setting::required("path", SettingKind::Text, config::PATH_EXPECTED)],
    secure: Some(|context: OpenContext| -> OpenFuture<dyn SecureStore> {
        Box::pin(async move { Ok(Arc::new(FileSecureStore::open(&FileConfig::folder(&context)?)?) as _) })
    }),
    event: None,
    model: None,
    error: None,
};
