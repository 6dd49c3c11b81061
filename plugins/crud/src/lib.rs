//! Instances as records of another server: any REST API that creates, updates and deletes.
//!
//! The peer is what other programs read. Snaphook itself reads a copy: **all instances are in memory**, and a journal on disk
//! brings them back at the next start, with the checkpoint and the definitions. So the number of instances is bounded by
//! memory, and changes that others make at the peer are neither seen nor kept. A write returns when the peer has it.
//!
//! Everything is sent such that sending it again changes nothing: a record that is there already is updated instead of
//! created, one that is not is created instead of updated, and one that is gone is deleted. Of the events of one call, an
//! instance's last state is sent; different instances are sent at once.

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
