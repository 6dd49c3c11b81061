//! Instances as records of another server: any REST API that can create, update and delete.
//!
//! The peer is for other programs. Snaphook itself reads a copy: **all instances are in memory**, and a journal on disk
//! restores them at the next start, with the checkpoint and the definitions. So memory limits the number of instances,
//! and changes by others at the peer are neither seen nor preserved. A write returns when the peer has stored it.
//!
//! All requests are idempotent: a record that already exists is updated instead of created, one that does not exist is
//! created instead of updated, and deleting a missing record succeeds. Of the events of one call, only the last state
//! of each instance is sent; different instances are sent concurrently.

mod config;
mod delivery;
mod journal;
mod model;
mod record;
mod remote;
mod state;
mod template;

use std::sync::Arc;

use snaphook_driver::{Driver, ModelStore, OpenContext, OpenFuture, Setting, SettingKind};
use snaphook_driver_peer::{TIMEOUT, TOKEN};

pub use config::{CrudConfig, FieldsConfig, MethodsConfig, PathsConfig};
pub use model::CrudModelStore;

/// The driver `crud`.
pub const DRIVER: Driver = Driver {
    name: "crud",
    settings: &[
        Setting::required("url", SettingKind::Text, config::URL_EXPECTED),
        TOKEN,
        Setting::optional("headers", SettingKind::Table, config::HEADERS_EXPECTED),
        Setting::optional("paths", SettingKind::Table, config::PATHS_EXPECTED),
        Setting::optional("methods", SettingKind::Table, config::METHODS_EXPECTED),
        Setting::with_default("id", SettingKind::Text, config::ID_EXPECTED, "\"id\""),
        Setting::with_default("id-in-updates", SettingKind::Bool, config::ID_IN_UPDATES_EXPECTED, "true"),
        Setting::optional("fields", SettingKind::Table, config::FIELDS_EXPECTED),
        Setting::with_default("state", SettingKind::Text, config::STATE_EXPECTED, "\"data/crud\""),
        TIMEOUT,
    ],
    connection: &[],
    secure: None,
    event: None,
    model: Some(|context: OpenContext| -> OpenFuture<dyn ModelStore> {
        Box::pin(async move { Ok(Arc::new(CrudModelStore::open(&context)?) as _) })
    }),
    error: None,
};
