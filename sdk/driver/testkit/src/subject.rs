//! The store under test, and how a case is run.

use std::future::Future;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Map, Value};
use snaphook_driver::wire::Opened;
use snaphook_driver::{ErrorStore, EventStore, ModelStore, OpenContext, Result, SecureStore, Store};
use tempfile::TempDir;

use crate::Opener;

/// Environment variable of a process that will be killed: the folder of its store.
pub(crate) const FOLDER_VARIABLE: &str = "SNAPHOOK_TESTKIT_FOLDER";

/// A driver with its settings and its own folder.
pub struct Subject {
    opener: Arc<dyn Opener>,
    settings: Map<String, Value>,
    folder: Folder,
    /// Path of the module that contains the tests, for cases that start their own process; `None` in a program that is
    /// not a test binary.
    pub(crate) module: Option<&'static str>,
    case: &'static str,
}

/// The number of cases that were skipped in this process.
static SKIPPED: AtomicUsize = AtomicUsize::new(0);

/// Why cases are skipped.
pub(crate) const NOT_DURABLE: &str = "the store keeps nothing once it is closed (capability `durable`)";
pub(crate) const NOT_READABLE: &str = "the store only forwards (capability `readable`)";

enum Folder {
    Own(TempDir),
    Given(PathBuf),
}

impl Subject {
    /// `settings` is the driver's table in the configuration, `module` the result of `module_path!()` in the test, and
    /// `case` the name of the case.
    pub fn new(
        opener: impl Opener + 'static,
        settings: Value,
        module: Option<&'static str>,
        case: &'static str,
    ) -> Self {
        let Value::Object(settings) = settings else { panic!("settings are a table, found `{settings}`") };
        let folder = match std::env::var_os(FOLDER_VARIABLE) {
            Some(folder) => Folder::Given(folder.into()),
            None => own_folder(&opener),
        };
        Subject { opener: Arc::new(opener), settings, folder, module, case }
    }

    /// The same driver with another folder.
    pub fn another(&self) -> Subject {
        Subject {
            opener: Arc::clone(&self.opener),
            settings: self.settings.clone(),
            folder: own_folder(&*self.opener),
            module: self.module,
            case: self.case,
        }
    }

    /// The folder that the driver's relative paths refer to.
    pub fn folder(&self) -> &Path {
        match &self.folder {
            Folder::Own(folder) => folder.path(),
            Folder::Given(folder) => folder,
        }
    }

    fn context(&self) -> OpenContext {
        OpenContext::new(self.settings.clone(), self.folder())
    }

    async fn open(&self, store: Store) -> Result<Opened> {
        self.opener.open(store, self.context()).await
    }

    pub async fn event(&self) -> Arc<dyn EventStore> {
        self.try_event().await.unwrap()
    }

    /// An event store whose import was interrupted.
    pub async fn resumed_event(&self) -> Arc<dyn EventStore> {
        let context = OpenContext { resumes_import: true, ..self.context() };
        match self.opener.open(Store::Event, context).await.unwrap() {
            Opened::Event(store) => store,
            other => panic!("{} storage was opened instead of event storage", other.store()),
        }
    }

    /// Opens an event store that may fail to open.
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

    /// As [`Opener::tries_transport_only`].
    pub fn tries_transport_only(&self) -> bool {
        self.opener.tries_transport_only()
    }

    /// How often to repeat a test of the store itself rather than of its transport.
    pub fn share(&self, count: usize) -> usize {
        if self.tries_transport_only() { count.div_ceil(10) } else { count }
    }

    /// Reports that the case, or the rest of it, does not apply to this store: prints one line even if the output of
    /// tests is captured.
    pub fn skip(&self, why: &str) {
        SKIPPED.fetch_add(1, Ordering::Relaxed);
        let module = self.module.map_or(String::new(), |module| format!("{module}::"));
        // If the standard error of a test binary is closed, the line is lost.
        let _ = writeln!(std::io::stderr(), "skipped: {module}{}: {why}", self.case);
    }
}

/// How many cases were skipped in this process.
pub fn skipped() -> usize {
    SKIPPED.load(Ordering::Relaxed)
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
