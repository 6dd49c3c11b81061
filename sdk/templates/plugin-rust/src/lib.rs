//! A plugin with the driver `{{name}}`, which for a start stores secrets in memory.
//!
//! `cargo build --release` builds the library; copy it from `target/release/` into the plugins folder of a server, and name the
//! driver in its configuration:
//!
//! ```toml
//! [driver-secure-storage]
//! driver = '{{name}}'
//! ```
//!
//! The traits in `snaphook/driver/src/` document what each method must do; `cargo test` checks it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use snaphook_driver::{
    Capabilities, Driver, DriverError, ErrorKind, OpenContext, OpenFuture, Result, Sealed, SecureStore,
};

/// The drivers of the plugin.
pub const DRIVER: Driver = Driver {
    name: "{{name}}",
    // The keys of the driver's table in the configuration, such as
    // `Setting::required("path", SettingKind::Text, "the path of a folder")`.
    settings: &[],
    connection: &[],
    secure: Some(|_context: OpenContext| -> OpenFuture<dyn SecureStore> {
        Box::pin(async move { Ok(Arc::new(Secrets::default()) as _) })
    }),
    event: None,
    model: None,
    error: None,
};

snaphook_driver_plugin::export_plugin!("{{name}}", DRIVER);

/// The secrets. The server encrypts values before it stores them here.
#[derive(Default)]
struct Secrets(Mutex<BTreeMap<String, Sealed>>);

impl Secrets {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Sealed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl SecureStore for Secrets {
    /// The capabilities of the store. Add `durable: true` once its data survives the process.
    fn capabilities(&self) -> Capabilities {
        Capabilities::LEAST
    }

    async fn health(&self) -> Result<()> {
        Ok(())
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }

    async fn get(&self, name: &str) -> Result<Option<Sealed>> {
        Ok(self.all().get(name).cloned())
    }

    async fn put(&self, name: &str, bytes: &[u8], expected: Option<u64>) -> Result<u64> {
        let mut secrets = self.all();
        let found = secrets.get(name).map_or(0, |sealed| sealed.version);
        if let Some(expected) = expected.filter(|expected| *expected != found) {
            let message = format!("secret `{name}` has version {found}, expected {expected}");
            return Err(DriverError::new(ErrorKind::Conflict, "put", message));
        }
        secrets.insert(name.to_owned(), Sealed { bytes: bytes.to_owned(), version: found + 1 });
        Ok(found + 1)
    }

    async fn delete(&self, name: &str) -> Result<bool> {
        Ok(self.all().remove(name).is_some())
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>> {
        Ok(self.all().keys().filter(|name| name.starts_with(prefix)).cloned().collect())
    }
}
