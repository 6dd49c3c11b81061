//! Sealed values in a sorted map.

use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;
use snaphook_driver::{Capabilities, DriverError, ErrorKind, Result, Sealed, SecureStore};

use crate::locked;

/// See the crate's documentation.
#[derive(Default)]
pub struct MemorySecureStore {
    secrets: Mutex<BTreeMap<String, Sealed>>,
}

#[async_trait]
impl SecureStore for MemorySecureStore {
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
        Ok(locked(&self.secrets).get(name).cloned())
    }

    async fn put(&self, name: &str, bytes: &[u8], expected: Option<u64>) -> Result<u64> {
        let mut secrets = locked(&self.secrets);
        let found = secrets.get(name).map_or(0, |sealed| sealed.version);
        if let Some(expected) = expected.filter(|expected| *expected != found) {
            return Err(DriverError::new(
                ErrorKind::Conflict,
                "put",
                format!("secret `{name}` has version {found}, expected {expected}"),
            ));
        }
        secrets.insert(name.to_owned(), Sealed { bytes: bytes.to_owned(), version: found + 1 });
        Ok(found + 1)
    }

    async fn delete(&self, name: &str) -> Result<bool> {
        Ok(locked(&self.secrets).remove(name).is_some())
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>> {
        Ok(locked(&self.secrets).keys().filter(|name| name.starts_with(prefix)).cloned().collect())
    }
}
