//! The description of a driver, and how it is opened.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::{DriverError, ErrorKind, Result};
use crate::json;
use crate::{ErrorStore, EventStore, ModelStore, SecureStore};

/// A driver: its name in the configuration and its stores.
///
/// Each driver crate exports one constant of this type; the server looks drivers up by name in one table.
#[derive(Clone, Copy)]
pub struct Driver {
    /// The value of `driver` in the configuration.
    pub name: &'static str,
    /// The keys of its tables besides `driver`; the server rejects others before anything is opened.
    pub settings: &'static [Setting],
    /// The keys of a `[connections.NAME]` table for this driver, besides `driver`; empty if the driver has no
    /// connections.
    pub connection: &'static [Setting],
    pub secure: Option<OpenFn<dyn SecureStore>>,
    pub event: Option<OpenFn<dyn EventStore>>,
    pub model: Option<OpenFn<dyn ModelStore>>,
    pub error: Option<OpenFn<dyn ErrorStore>>,
}

impl Driver {
    /// The driver's stores, in the order in which they are opened.
    pub fn stores(&self) -> impl Iterator<Item = Store> {
        let brought = [self.secure.is_some(), self.event.is_some(), self.model.is_some(), self.error.is_some()];
        Store::ALL.into_iter().zip(brought).filter_map(|(store, is_brought)| is_brought.then_some(store))
    }
}

/// The four kinds of store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Store {
    Secure,
    Event,
    Model,
    Error,
}

impl Store {
    /// In the order in which they are opened.
    pub const ALL: [Store; 4] = [Store::Secure, Store::Event, Store::Model, Store::Error];

    /// Its name in messages, in URLs of remote drivers and, within `driver-…-storage`, in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Store::Secure => "secure",
            Store::Event => "event",
            Store::Model => "model",
            Store::Error => "error",
        }
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A key of a driver's tables. The server checks it before anything is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    pub name: Cow<'static, str>,
    pub kind: SettingKind,
    /// A description of the value that fits after "expected", such as `the path of a folder`.
    pub expected: Cow<'static, str>,
    /// Whether it may be absent.
    pub optional: bool,
    /// The default, as JSON.
    pub default: Option<Cow<'static, str>>,
}

/// The type of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettingKind {
    /// Text that is not empty.
    Text,
    Number,
    Bool,
    /// A list of texts.
    List,
    /// A table of texts.
    Table,
    /// Text that is never shown.
    Secret,
    /// The name of one of the driver's own connections; the driver gets a [`Connection`](crate::Connection). A table
    /// with a connection must not have the connection's settings; a table without an optional connection needs the
    /// required ones.
    Connection,
}

impl Setting {
    /// A required setting.
    pub const fn required(name: &'static str, kind: SettingKind, expected: &'static str) -> Setting {
        Setting::new(name, kind, expected, false, None)
    }

    /// An optional setting.
    pub const fn optional(name: &'static str, kind: SettingKind, expected: &'static str) -> Setting {
        Setting::new(name, kind, expected, true, None)
    }

    /// A setting with a default, as JSON.
    pub const fn with_default(
        name: &'static str,
        kind: SettingKind,
        expected: &'static str,
        default: &'static str,
    ) -> Setting {
        Setting::new(name, kind, expected, true, Some(Cow::Borrowed(default)))
    }

    const fn new(
        name: &'static str,
        kind: SettingKind,
        expected: &'static str,
        optional: bool,
        default: Option<Cow<'static, str>>,
    ) -> Setting {
        Setting { name: Cow::Borrowed(name), kind, expected: Cow::Borrowed(expected), optional, default }
    }
}

/// Opens one store. Called once per store at start; creates what is missing (folders, files, tables).
pub type OpenFn<T> = fn(OpenContext) -> OpenFuture<T>;

/// The opened store.
pub type OpenFuture<T> = Pin<Box<dyn Future<Output = Result<Arc<T>>> + Send>>;

/// The context for opening a driver.
#[derive(Clone, Debug)]
pub struct OpenContext {
    /// The driver's table of the configuration without `driver`; `secret:` and `env:` references are resolved.
    pub settings: Map<String, Value>,
    /// Relative paths in the settings are relative to this folder.
    pub directory: PathBuf,
    /// The id of the node that opens the store: constant while the node exists, and different for each node that shares
    /// a store; empty if the node shares no store.
    pub node: String,
    /// Whether an interrupted import into the event store may continue. Without this, opening a store with a part of a
    /// log fails.
    pub resumes_import: bool,
}

impl OpenContext {
    /// A context for a node that shares no store.
    pub fn new(settings: Map<String, Value>, directory: impl Into<PathBuf>) -> OpenContext {
        OpenContext { settings, directory: directory.into(), node: String::new(), resumes_import: false }
    }

    /// The settings as the driver's own type. Give that type `#[serde(deny_unknown_fields)]`, so that an unused key is
    /// an error.
    pub fn settings<T: DeserializeOwned>(&self) -> Result<T> {
        json::from_tree(Value::Object(self.settings.clone()))
            .map_err(|error| DriverError::new(ErrorKind::Config, "open", error.to_string()))
    }

    /// A path of the settings, made absolute.
    pub fn path(&self, path: &str) -> PathBuf {
        self.directory.join(path)
    }
}
