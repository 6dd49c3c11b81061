//! A guarded model store.

use std::time::Duration;

use async_trait::async_trait;
use snaphook_driver::wire::Method;
use snaphook_driver::{
    Budget, Capabilities, CarryOver, DriverError, Event, Filter, Instance, InstancePage, InstanceQuery, ModelShape,
    ModelStore, Position, Result,
};

use super::Guarded;

#[async_trait]
impl ModelStore for Guarded<dyn ModelStore> {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn health(&self) -> Result<()> {
        self.guard.call(Method::ModelHealth, Duration::ZERO, self.inner.health()).await
    }

    async fn close(&self) -> Result<()> {
        self.guard.call(Method::ModelClose, Duration::ZERO, self.inner.close()).await
    }

    async fn define(
        &self,
        after: Position,
        old: Option<&ModelShape>,
        new: &ModelShape,
        carry: &CarryOver,
        position: Position,
    ) -> Result<()> {
        let define = self.inner.define(after, old, new, carry, position);
        self.guard.call(Method::ModelDefine, Duration::ZERO, define).await
    }

    async fn prepare(&self, new: &ModelShape, carry: &CarryOver) -> Result<u64> {
        self.guard.call(Method::ModelPrepare, Duration::ZERO, self.inner.prepare(new, carry)).await
    }

    async fn discard(&self, model: &str, ticket: u64) -> Result<()> {
        self.guard.call(Method::ModelDiscard, Duration::ZERO, self.inner.discard(model, ticket)).await
    }

    async fn begin_replay(&self) -> Result<()> {
        self.guard.call(Method::ModelBeginReplay, Duration::ZERO, self.inner.begin_replay()).await
    }

    async fn end_replay(&self) -> Result<Vec<(String, DriverError)>> {
        self.guard.call(Method::ModelEndReplay, Duration::ZERO, self.inner.end_replay()).await
    }

    async fn drop_model(&self, after: Position, model: &str, position: Position) -> Result<()> {
        let drop_model = self.inner.drop_model(after, model, position);
        self.guard.call(Method::ModelDropModel, Duration::ZERO, drop_model).await
    }

    async fn apply(&self, after: Position, events: &[Event], to: Position) -> Result<()> {
        self.guard.call(Method::ModelApply, Duration::ZERO, self.inner.apply(after, events, to)).await
    }

    async fn log(&self) -> Result<Option<String>> {
        self.guard.read(Method::ModelLog, || self.inner.log()).await
    }

    async fn checkpoint(&self) -> Result<Position> {
        self.guard.read(Method::ModelCheckpoint, || self.inner.checkpoint()).await
    }

    async fn definitions(&self) -> Result<Vec<ModelShape>> {
        self.guard.read(Method::ModelDefinitions, || self.inner.definitions()).await
    }

    async fn get(&self, model: &str, id: &str) -> Result<Option<Instance>> {
        let instance = self.guard.read(Method::ModelGet, || self.inner.get(model, id)).await?;
        if let Some(found) = instance.as_ref().filter(|found| found.id != id || found.model != model) {
            let what = format!("`{}/{}` instead of `{model}/{id}`", found.model, found.id);
            return Err(self.guard.wrong(Method::ModelGet, what));
        }
        Ok(instance)
    }

    // Not retried, because both attempts share one budget.
    async fn query(&self, model: &str, query: &InstanceQuery, budget: &Budget) -> Result<InstancePage> {
        let own = budget.wait_left().saturating_add(budget.limits().time);
        let page = self.guard.call(Method::ModelQuery, own, self.inner.query(model, query, budget)).await?;
        if page.items.len() > query.limit as usize {
            let what = format!("a page of {} instances, {} were requested", page.items.len(), query.limit);
            return Err(self.guard.wrong(Method::ModelQuery, what));
        }
        Ok(page)
    }

    async fn count(&self, model: &str, filter: &Filter, budget: &Budget) -> Result<u64> {
        let own = budget.wait_left().saturating_add(budget.limits().time);
        self.guard.call(Method::ModelCount, own, self.inner.count(model, filter, budget)).await
    }

    async fn reset(&self, log: &str) -> Result<()> {
        self.guard.call(Method::ModelReset, Duration::ZERO, self.inner.reset(log)).await
    }
}
