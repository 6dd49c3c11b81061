//! How a driver names itself and is opened.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::{DriverError, ErrorKind, Result};
use crate::json;
use crate::{ErrorStore, EventStore, ModelStore, SecureStore};

/// A driver: its name in the configuration and the stores that it brings.
///
/// Each driver crate exports one constant of this type; the server looks drivers up by name in one table.
#[derive(Clone, Copy)]
pub struct Driver {
    /// The word after `driver =` in the configuration.
    pub name: &'static str,
    /// The keys of its tables besides `driver`; the server refuses others before anything is opened.
    pub settings: &'static [Setting],
    pub secure: Option<OpenFn<dyn SecureStore>>,
    pub event: Option<OpenFn<dyn EventStore>>,
    pub model: Option<OpenFn<dyn ModelStore>>,
    pub error: Option<OpenFn<dyn ErrorStore>>,
}

/// A key of a driver's tables: text that must be there and not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    pub name: &'static str,
    /// What it holds, as it stands after "expected", such as `the path of a folder`.
    pub expected: &'static str,
}

/// Opens one store. Called once per store at start; creates what is missing (folders, files, tables).
pub type OpenFn<T> = fn(OpenContext) -> OpenFuture<T>;

/// The store, opened.
pub type OpenFuture<T> = Pin<Box<dyn Future<Output = Result<Arc<T>>> + Send>>;

/// What a driver is opened with.
#[derive(Clone, Debug)]
pub struct OpenContext {
    /// The driver's table of the configuration without `driver`; `secret:` and `env:` references are resolved.
    pub settings: Map<String, Value>,
    /// Relative paths in the settings are meant from here.
    pub directory: PathBuf,
}

impl OpenContext {
    /// The settings as the driver's own type. Give that type `#[serde(deny_unknown_fields)]`, so that a key which
    /// nobody reads is an error.
    pub fn settings<T: DeserializeOwned>(&self) -> Result<T> {
        json::from_tree(Value::Object(self.settings.clone()))
            .map_err(|error| DriverError::new(ErrorKind::Config, "open", error.to_string()))
    }

    /// A path of the settings, made absolute.
    pub fn path(&self, path: &str) -> PathBuf {
        self.directory.join(path)
    }
}
