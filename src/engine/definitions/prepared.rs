//! A version that the model store has prepared; discarded unless it comes into use.

use std::sync::Arc;

use snaphook_driver::{CarryOver, ModelShape, ModelStore};
use tokio::runtime::Handle;

use crate::engine::error::Result;

/// Held until the version is in use, or discarded.
pub(super) struct PreparedChange {
    store: Arc<dyn ModelStore>,
    model: String,
    ticket: u64,
    runtime: Handle,
}

impl PreparedChange {
    pub(super) async fn new(store: &Arc<dyn ModelStore>, shape: &ModelShape, carry: &CarryOver) -> Result<Self> {
        let ticket = store.prepare(shape, carry).await?;
        let store = Arc::clone(store);
        Ok(PreparedChange { store, model: shape.model.clone(), ticket, runtime: Handle::current() })
    }
}

impl Drop for PreparedChange {
    fn drop(&mut self) {
        let (store, model, ticket) = (Arc::clone(&self.store), std::mem::take(&mut self.model), self.ticket);
        self.runtime.spawn(async move {
            if let Err(error) = store.discard(&model, ticket).await {
                tracing::warn!(model, "what was prepared for a change cannot be removed yet: {error}");
            }
        });
    }
}
