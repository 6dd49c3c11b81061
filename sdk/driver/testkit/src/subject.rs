//! The store under test, and how a case is run.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};
use snaphook_driver::{Driver, ErrorStore, EventStore, ModelStore, OpenContext, SecureStore};
use tempfile::TempDir;

/// A driver with its settings and a folder of its own.
pub struct Subject {
    driver: Driver,
    settings: Map<String, Value>,
    folder: Folder,
    volatile: bool,
    /// Path of the module that holds the tests, for cases that start their own process.
    pub(crate) module: &'static str,
}

enum Folder {
    Own(TempDir),
    Given(PathBuf),
}

impl Subject {
    /// `settings` is the driver's table of the configuration, `volatile` whether what was stored is gone once the store
    /// is closed, `module` what `module_path!()` gives in the test.
    pub fn new(driver: Driver, settings: Value, volatile: bool, module: &'static str) -> Self {
        let Value::Object(settings) = settings else { panic!("settings are a table, found `{settings}`") };
        let folder = match std::env::var_os(crate::kill::FOLDER_VARIABLE) {
            Some(folder) => Folder::Given(folder.into()),
            None => Folder::Own(TempDir::new().unwrap()),
        };
        Subject { driver, settings, folder, volatile, module }
    }

    /// The same driver in another folder of its own.
    pub fn another(&self) -> Subject {
        Subject {
            driver: self.driver,
            settings: self.settings.clone(),
            folder: Folder::Own(TempDir::new().unwrap()),
            volatile: self.volatile,
            module: self.module,
        }
    }

    /// The folder that the driver's relative paths are meant from.
    pub fn folder(&self) -> &Path {
        match &self.folder {
            Folder::Own(folder) => folder.path(),
            Folder::Given(folder) => folder,
        }
    }

    fn context(&self) -> OpenContext {
        OpenContext { settings: self.settings.clone(), directory: self.folder().to_owned() }
    }

    pub async fn event(&self) -> Arc<dyn EventStore> {
        (self.driver.event.expect("the driver brings an event store"))(self.context()).await.unwrap()
    }

    /// For a store that may refuse to open.
    pub async fn try_event(&self) -> snaphook_driver::Result<Arc<dyn EventStore>> {
        (self.driver.event.expect("the driver brings an event store"))(self.context()).await
    }

    pub async fn model(&self) -> Arc<dyn ModelStore> {
        (self.driver.model.expect("the driver brings a model store"))(self.context()).await.unwrap()
    }

    pub async fn error(&self) -> Arc<dyn ErrorStore> {
        (self.driver.error.expect("the driver brings an error store"))(self.context()).await.unwrap()
    }

    pub async fn secure(&self) -> Arc<dyn SecureStore> {
        (self.driver.secure.expect("the driver brings a secure store"))(self.context()).await.unwrap()
    }

    /// Whether what is stored is still there when the store is opened again.
    pub fn is_kept(&self) -> bool {
        !self.volatile
    }
}

/// Runs one case to its end.
pub fn run(case: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(case);
}
