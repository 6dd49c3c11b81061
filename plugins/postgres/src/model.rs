//! The model store: one table per model, and the checkpoint up to which the log is applied. Several nodes may share it.
//!
//! Everything here can be rebuilt from the log, so commits do not wait for the disk. Rows and checkpoint change in one
//! transaction: after a crash of the server, the store is at an earlier checkpoint, but consistent.

mod apply;
mod condition;
mod define;
mod entries;
mod garbage;
mod key;
mod lanes;
mod open_models;
mod page;
mod page_position;
mod plan;
#[cfg(test)]
mod plan_tests;
mod prepare;
mod query;
mod reader;
mod registry;
mod row;
mod scan;
mod table;
mod writing;

use std::sync::Arc;

use async_trait::async_trait;
use snaphook_driver::{
    Budget, Capabilities, CarryOver, DriverError, ErrorKind, Event, Filter, Instance, InstancePage, InstanceQuery,
    ModelShape, ModelStore, OpenContext, Position, Result, moves_checkpoint,
};
use tokio_postgres::types::Type;

use crate::connection::{CALL_TIME, Database};
use crate::migrate::migrate;
use open_models::{OpenModels, is_gone};
use query::Read;
use registry::StateRow;
use row::get;
use table::OWN;
use writing::Writing;

/// Timeout of applying a batch, which may have to wait for another node's change of a model.
const APPLY_TIME: std::time::Duration = std::time::Duration::from_secs(120);

/// How many times a read is repeated whose model changed in the meantime.
const RETRIES: usize = 20;

/// See the crate's documentation.
pub struct PostgresModelStore {
    shared: Arc<OpenModels>,
}

impl PostgresModelStore {
    /// Opens the store, and creates its tables if they are missing.
    pub async fn open(context: &OpenContext) -> Result<PostgresModelStore> {
        let database = Database::open(context).await?;
        migrate(&database, &registry::TABLES).await?;
        let shared = OpenModels::new(database);
        garbage::forget_abandoned(&shared).await?;
        garbage::start(&shared);
        Ok(PostgresModelStore { shared })
    }

    async fn state(&self, operation: &'static str) -> Result<StateRow> {
        let sql = self.shared.database.sql("SELECT checkpoint, changes, numbers FROM @.model_state", &[]);
        let mut session = self.shared.database.session(operation).await?;
        StateRow::read(&session.query(&sql, &[]).await?, operation)
    }

    fn read<'a>(&'a self, model: &'a str, budget: &'a Budget) -> Read<'a> {
        Read { shared: &self.shared, model, budget }
    }

    /// Reads one instance; fails with [`is_gone`] if its model's table no longer exists.
    async fn find(&self, model: &str, id: &str) -> Result<Option<Instance>> {
        loop {
            let Some((changes, known)) = self.shared.model(model, "get").await? else { return Ok(None) };
            let own: String = OWN.split(", ").map(|column| format!(", m.{column}")).collect();
            let sql =
                format!("SELECT s.changes{own} FROM @.model_state s LEFT JOIN @.{} m ON m.id = $1", known.table.name());
            let sql = self.shared.database.sql(&sql, &[Type::BYTEA]);
            let row = self.shared.database.session("get").await?.one(&sql, &[&id.as_bytes()]).await?;
            if get::<i64>(&row, 0, "get")? != changes {
                let registry = self.shared.reload("get").await?;
                // The result is valid if only other models have changed.
                if registry.models.get(model).is_none_or(|now| now.table != known.table) {
                    continue;
                }
            }
            return match get::<Option<&[u8]>>(&row, 1, "get")? {
                Some(_) => row::instance(&row, 1, model, "get").map(Some),
                None => Ok(None),
            };
        }
    }
}

#[async_trait]
impl ModelStore for PostgresModelStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities { durable: true, shared: true, ..Capabilities::LEAST }
    }

    async fn health(&self) -> Result<()> {
        self.state("health").await.map(drop)
    }

    async fn close(&self) -> Result<()> {
        let registry = self.shared.registry();
        for (model, known) in &registry.models {
            if known.prepared.as_ref().is_some_and(|prepared| prepared.owner == self.shared.owner) {
                prepare::discard(&self.shared, model, None).await?;
            }
        }
        self.shared.stop().await;
        Ok(())
    }

    async fn define(
        &self,
        after: Position,
        old: Option<&ModelShape>,
        new: &ModelShape,
        carry: &CarryOver,
        position: Position,
    ) -> Result<()> {
        define::define(&self.shared, after, old, new, carry, position).await
    }

    async fn prepare(&self, new: &ModelShape, carry: &CarryOver) -> Result<u64> {
        prepare::prepare(&self.shared, new, carry).await
    }

    async fn discard(&self, model: &str, ticket: u64) -> Result<()> {
        if ticket != 0 {
            prepare::discard(&self.shared, model, Some(ticket)).await?;
        }
        Ok(())
    }

    async fn drop_model(&self, after: Position, model: &str, position: Position) -> Result<()> {
        let mut writing = Writing::begin(&self.shared, "drop_model", CALL_TIME).await?;
        if !moves_checkpoint("drop_model", writing.state.checkpoint, after, position)? {
            writing.leave().await;
            return Ok(());
        }
        if writing.registry.models.contains_key(model) {
            entries::forget(&mut writing, model, false).await?;
            entries::forget(&mut writing, model, true).await?;
            writing.changed();
        }
        writing.commit(&[], Some(position)).await?;
        garbage::start(&self.shared);
        Ok(())
    }

    async fn apply(&self, after: Position, events: &[Event], to: Position) -> Result<()> {
        let writing = Writing::begin(&self.shared, "apply", APPLY_TIME).await?;
        if !moves_checkpoint("apply", writing.state.checkpoint, after, to)? {
            writing.leave().await;
            return Ok(());
        }
        let commands = apply::commands(&self.shared.database, &writing.registry, events, writing.state.checkpoint)?;
        let prepares = writing.registry.models.values().any(|known| known.prepared.is_some());
        writing.commit(&commands, Some(to)).await?;
        if prepares {
            garbage::look(&self.shared);
        }
        Ok(())
    }

    async fn log(&self) -> Result<Option<String>> {
        let sql = self.shared.database.sql("SELECT log FROM @.model_state", &[]);
        let row = self.shared.database.session("log").await?.one(&sql, &[]).await?;
        get(&row, 0, "log")
    }

    async fn checkpoint(&self) -> Result<Position> {
        Ok(self.state("checkpoint").await?.checkpoint)
    }

    async fn definitions(&self) -> Result<Vec<ModelShape>> {
        let registry = self.shared.reload("definitions").await?;
        let mut shapes: Vec<ModelShape> = registry.models.values().map(|model| model.shape.clone()).collect();
        shapes.sort_by(|left, right| left.model.cmp(&right.model));
        Ok(shapes)
    }

    async fn get(&self, model: &str, id: &str) -> Result<Option<Instance>> {
        let mut retries = 0;
        loop {
            match self.find(model, id).await {
                Err(error) if retries < RETRIES && is_gone(&error) => {
                    retries += 1;
                    self.shared.reload("get").await?;
                }
                found => return found,
            }
        }
    }

    async fn query(&self, model: &str, query: &InstanceQuery, budget: &Budget) -> Result<InstancePage> {
        self.read(model, budget).page(query).await
    }

    async fn count(&self, model: &str, filter: &Filter, budget: &Budget) -> Result<u64> {
        self.read(model, budget).count(filter).await
    }

    async fn reset(&self, log: &str) -> Result<()> {
        if log.contains('\0') {
            return Err(DriverError::new(ErrorKind::Invalid, "reset", "the identity of a log must not contain U+0000"));
        }
        let mut writing = Writing::begin(&self.shared, "reset", CALL_TIME).await?;
        writing.batch("DELETE FROM @.model_tables").await?;
        writing.execute("UPDATE @.model_state SET log = $1", &[Type::TEXT], &[&log]).await?;
        writing.changed();
        writing.commit(&[], Some(0)).await?;
        garbage::start(&self.shared);
        Ok(())
    }
}
