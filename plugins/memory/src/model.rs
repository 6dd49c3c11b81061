//! Instances in sorted maps, one per model.

use std::sync::Mutex;

use async_trait::async_trait;
use snaphook_driver::{
    Budget, Capabilities, CarryOver, Event, Filter, Instance, InstancePage, InstanceQuery, Instances, ModelShape,
    ModelStore, Position, Result, count_rows, moves_checkpoint, prepare_instances, query_rows,
};

use crate::locked;

/// See the crate's documentation.
#[derive(Default)]
pub struct MemoryModelStore {
    instances: Mutex<Instances>,
}

#[async_trait]
impl ModelStore for MemoryModelStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities::LEAST
    }

    async fn health(&self) -> Result<()> {
        Ok(())
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }

    async fn define(
        &self,
        after: Position,
        _old: Option<&ModelShape>,
        new: &ModelShape,
        carry: &CarryOver,
        position: Position,
    ) -> Result<()> {
        let mut instances = locked(&self.instances);
        if moves_checkpoint("define", instances.checkpoint(), after, position)? {
            instances.define(new, carry, position);
        }
        Ok(())
    }

    async fn prepare(&self, new: &ModelShape, carry: &CarryOver) -> Result<u64> {
        Ok(prepare_instances(&self.instances, new, carry).await)
    }

    async fn discard(&self, model: &str, ticket: u64) -> Result<()> {
        locked(&self.instances).discard(model, ticket);
        Ok(())
    }

    async fn drop_model(&self, after: Position, model: &str, position: Position) -> Result<()> {
        let mut instances = locked(&self.instances);
        if moves_checkpoint("drop_model", instances.checkpoint(), after, position)? {
            instances.drop_model(model, position);
        }
        Ok(())
    }

    async fn apply(&self, after: Position, events: &[Event], to: Position) -> Result<()> {
        let mut instances = locked(&self.instances);
        if let Some(changes) = instances.check(after, events, to)? {
            instances.apply(changes);
        }
        Ok(())
    }

    async fn log(&self) -> Result<Option<String>> {
        Ok(locked(&self.instances).log().map(str::to_owned))
    }

    async fn checkpoint(&self) -> Result<Position> {
        Ok(locked(&self.instances).checkpoint())
    }

    async fn definitions(&self) -> Result<Vec<ModelShape>> {
        Ok(locked(&self.instances).definitions().cloned().collect())
    }

    async fn get(&self, model: &str, id: &str) -> Result<Option<Instance>> {
        Ok(locked(&self.instances).row(model, id).map(|row| row.instance().clone()))
    }

    async fn query(&self, model: &str, query: &InstanceQuery, budget: &Budget) -> Result<InstancePage> {
        // The lock is released in the meantime.
        let rows = locked(&self.instances).rows(model).unwrap_or_default();
        query_rows(&rows, model, query, budget).await
    }

    async fn count(&self, model: &str, filter: &Filter, budget: &Budget) -> Result<u64> {
        let rows = locked(&self.instances).rows(model).unwrap_or_default();
        count_rows(&rows, filter, budget).await
    }

    async fn reset(&self, log: &str) -> Result<()> {
        locked(&self.instances).reset(log);
        Ok(())
    }
}
