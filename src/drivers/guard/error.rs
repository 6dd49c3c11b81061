//! A guarded error store.

use std::time::Duration;

use async_trait::async_trait;
use snaphook_driver::wire::Method;
use snaphook_driver::{Capabilities, ErrorPage, ErrorQuery, ErrorRecord, ErrorStore, Result};

use super::Guarded;

#[async_trait]
impl ErrorStore for Guarded<dyn ErrorStore> {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn health(&self) -> Result<()> {
        self.guard.call(Method::ErrorHealth, Duration::ZERO, self.inner.health()).await
    }

    async fn close(&self) -> Result<()> {
        self.guard.call(Method::ErrorClose, Duration::ZERO, self.inner.close()).await
    }

    async fn record(&self, record: &ErrorRecord) -> Result<()> {
        self.guard.call(Method::ErrorRecord, Duration::ZERO, self.inner.record(record)).await
    }

    async fn list(&self, query: &ErrorQuery) -> Result<ErrorPage> {
        let page = self.guard.read(Method::ErrorList, || self.inner.list(query)).await?;
        if page.records.len() > query.limit as usize {
            let what = format!("a page of {} records, {} were requested", page.records.len(), query.limit);
            return Err(self.guard.wrong(Method::ErrorList, what));
        }
        Ok(page)
    }

    async fn count(&self, query: &ErrorQuery) -> Result<u64> {
        self.guard.read(Method::ErrorCount, || self.inner.count(query)).await
    }

    async fn get(&self, id: &str) -> Result<Option<ErrorRecord>> {
        self.guard.read(Method::ErrorGet, || self.inner.get(id)).await
    }

    async fn remove(&self, id: &str) -> Result<bool> {
        self.guard.call(Method::ErrorRemove, Duration::ZERO, self.inner.remove(id)).await
    }
}
