//! A guarded secure store.

use std::time::Duration;

use async_trait::async_trait;
use snaphook_driver::wire::Method;
use snaphook_driver::{Capabilities, Result, Sealed, SecureStore};

use super::Guarded;

#[async_trait]
impl SecureStore for Guarded<dyn SecureStore> {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn health(&self) -> Result<()> {
        self.guard.call(Method::SecureHealth, Duration::ZERO, self.inner.health()).await
    }

    async fn close(&self) -> Result<()> {
        self.guard.call(Method::SecureClose, Duration::ZERO, self.inner.close()).await
    }

    async fn get(&self, name: &str) -> Result<Option<Sealed>> {
        self.guard.read(Method::SecureGet, || self.inner.get(name)).await
    }

    async fn put(&self, name: &str, bytes: &[u8], expected: Option<u64>) -> Result<u64> {
        self.guard.call(Method::SecurePut, Duration::ZERO, self.inner.put(name, bytes, expected)).await
    }

    async fn delete(&self, name: &str) -> Result<bool> {
        self.guard.call(Method::SecureDelete, Duration::ZERO, self.inner.delete(name)).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>> {
        self.guard.read(Method::SecureList, || self.inner.list(prefix)).await
    }
}
