//! The store under test, and how a case is run.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};
use snaphook_driver::wire::Opened;
use snaphook_driver::{ErrorStore, EventStore, ModelStore, OpenContext, Result, SecureStore, Store};
use tempfile::TempDir;

use crate::Opener;

/// A driver with its settings and a folder of its own.
pub struct Subject {
    opener: Arc<dyn Opener>,
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
    pub fn new(opener: impl Opener + 'static, settings: Value, volatile: bool, module: &'static str) -> Self {
        let Value::Object(settings) = settings else { panic!("settings are a table, found `{settings}`") };
        let folder = match std::env::var_os(crate::kill::FOLDER_VARIABLE) {
            Some(folder) => Folder::Given(folder.into()),
            None => own_folder(&opener),
        };
        Subject { opener: Arc::new(opener), settings, folder, volatile, module }
    }

    /// The same driver in another folder of its own.
    pub fn another(&self) -> Subject {
        Subject {
            opener: Arc::clone(&self.opener),
            settings: self.settings.clone(),
            folder: own_folder(&*self.opener),
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

    async fn open(&self, store: Store) -> Result<Opened> {
        self.opener.open(store, OpenContext::new(self.settings.clone(), self.folder())).await
    }

    pub async fn event(&self) -> Arc<dyn EventStore> {
        self.try_event().await.unwrap()
    }

    /// For a store that may refuse to open.
    pub async fn try_event(&self) -> Result<Arc<dyn EventStore>> {
        match self.open(Store::Event).await? {
            Opened::Event(store) => Ok(store),
            other => panic!("{} storage was opened instead of event storage", other.store()),
        }
    }

    pub async fn model(&self) -> Arc<dyn ModelStore> {
        match self.open(Store::Model).await.unwrap() {
            Opened::Model(store) => store,
            other => panic!("{} storage was opened instead of model storage", other.store()),
        }
    }

    pub async fn error(&self) -> Arc<dyn ErrorStore> {
        match self.open(Store::Error).await.unwrap() {
            Opened::Error(store) => store,
            other => panic!("{} storage was opened instead of error storage", other.store()),
        }
    }

    pub async fn secure(&self) -> Arc<dyn SecureStore> {
        match self.open(Store::Secure).await.unwrap() {
            Opened::Secure(store) => store,
            other => panic!("{} storage was opened instead of secure storage", other.store()),
        }
    }

    /// As [`Opener::is_linked`].
    pub fn is_linked(&self) -> bool {
        self.opener.is_linked()
    }

    /// Whether what is stored is still there when the store is opened again.
    pub fn is_kept(&self) -> bool {
        !self.volatile
    }
}

fn own_folder(opener: &dyn Opener) -> Folder {
    let folder = TempDir::new().unwrap();
    opener.prepare(folder.path());
    Folder::Own(folder)
}

/// Runs one case to its end.
pub fn run(case: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(case);
}
