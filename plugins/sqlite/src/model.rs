//! The model store: one table per model, and the checkpoint up to which the log has been applied.

mod apply;
mod condition;
mod definitions;
mod garbage;
mod meta;
mod migrate;
mod names;
mod open_models;
mod order;
mod pace;
#[cfg(test)]
mod plan_tests;
mod prepare;
mod query;
mod replay;
mod rows;
mod shadow;
mod statement;
mod table;

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use async_trait::async_trait;
use rusqlite::OptionalExtension as _;
use snaphook_driver::files::FileLock;
use snaphook_driver::{
    Budget, Capabilities, CarryOver, DriverError, Event, Filter, Instance, InstancePage, InstanceQuery, ModelShape,
    ModelStore, Position, Result,
};

use crate::checkpoint::Checkpointer;
use crate::database::{Format, Readers, Turn, locked, off_thread, open_writer};
use crate::fault::fault;
use crate::lanes::Lanes;
use crate::lock::lock;
use definitions::save;
use open_models::{ModelWriter, OpenModels, Publish, StateRow, Tables};
use rows::Steps;
use table::Table;

/// `_models` contains the shapes and their [`Names`](names::Names), both as JSON; `_state.names` is the number that was
/// last assigned to a name.
///
/// Everything here can be rebuilt from the log, so commits are not synced. But they are ordered: after a power failure
/// the file is at some earlier checkpoint, never inconsistent.
const FORMAT: Format = Format {
    name: "model store",
    id: 0x534e_484d, // "SNHM"
    version: 5,
    schema: "
        CREATE TABLE _state(
            one INTEGER PRIMARY KEY CHECK (one = 1), checkpoint INTEGER NOT NULL, names INTEGER NOT NULL);
        INSERT INTO _state VALUES (1, 0, 0);
        CREATE TABLE _models(id TEXT PRIMARY KEY, names TEXT NOT NULL, shape TEXT NOT NULL, pending TEXT) WITHOUT ROWID;",
    synchronous: "NORMAL",
    cache_kib: 16 * 1024,
    log_pages: 4096,
    settles: true,
    derived: true,
};

/// The identity of the log; no row if it is unknown. Created when a file without it is opened.
const LOG: &str = "CREATE TABLE IF NOT EXISTS _log(one INTEGER PRIMARY KEY CHECK (one = 1), identity TEXT NOT NULL)";

/// Maximum steps on the caller's thread for a read that is expected to be short: about a millisecond.
const INLINE_STEPS: u64 = 10_000;

/// See the crate's documentation.
pub struct SqliteModelStore {
    shared: Arc<OpenModels>,
    lock: Mutex<Option<FileLock>>,
}

impl SqliteModelStore {
    /// Opens the store at `path`, or creates it.
    pub fn open(path: &Path) -> Result<Self> {
        let lock = lock(path)?;
        let mut connection = open_writer(path, &FORMAT)?;
        let checkpointer = Checkpointer::start(path, &mut connection, &FORMAT)?;
        connection.execute_batch(LOG).map_err(fault("open"))?;
        let state = StateRow::load(&connection).map_err(fault("open"))?;
        let tables: Tables = definitions::all(&connection, "open")?
            .into_iter()
            .map(|(shape, names)| (shape.model.clone(), Arc::new(Table::restore(&shape, names))))
            .collect();
        let garbage = garbage::find(&connection, &tables).map_err(fault("open"))?;
        let writer = ModelWriter { connection, checkpointer, state, shadows: HashMap::new(), replaying: false };
        let shared = OpenModels {
            writer: Mutex::new(Some(writer)),
            readers: Readers::new(path),
            lanes: Lanes::default(),
            tables: RwLock::new(Arc::new(tables)),
            changes: AtomicU64::new(0),
            writes: AtomicU64::new(0),
        };
        let shared = Arc::new(shared);
        garbage::clear(&shared, garbage);
        Ok(SqliteModelStore { shared, lock: Mutex::new(Some(lock)) })
    }
}

#[async_trait]
impl ModelStore for SqliteModelStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities { durable: true, ..Capabilities::LEAST }
    }

    async fn health(&self) -> Result<()> {
        self.shared
            .readers
            .with(|connection| connection.query_row("SELECT 1 FROM _state", [], |_| Ok(())).map_err(fault("health")))
    }

    async fn close(&self) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let closed = off_thread("close", move || {
            let writer = locked(&shared.writer).take();
            shared.readers.close();
            writer.map_or(Ok(()), ModelWriter::close)
        })
        .await;
        locked(&self.lock).take();
        closed
    }

    async fn define(
        &self,
        after: Position,
        known: Option<&ModelShape>,
        new: &ModelShape,
        carry: &CarryOver,
        position: Position,
    ) -> Result<()> {
        let tables = self.shared.tables();
        let mut garbage = Vec::new();
        self.shared.writing("define", after, position, |writer| {
            // The stored state decides, not the state that the caller passes: they only differ after a crash.
            let old = tables.get(&new.model).map(|table| &**table);
            let connection = &writer.connection;
            let names = &mut writer.state.names;
            if writer.replaying {
                return Ok(replay::define(connection, old, new, carry, names)?.map(publish));
            }
            let prepared = writer.shadows.get(&new.model).filter(|shadow| shadow.is_for(new, carry));
            let table = match (old, prepared) {
                (None, _) => {
                    let table = Table::follow(None, new, names);
                    migrate::create(connection, &table)?;
                    table
                }
                (Some(old), Some(shadow)) => {
                    garbage.push(old.name.clone());
                    Table::clone(&shadow.to)
                }
                (Some(old), None) if migrate::is_in_place(old, new, carry) => Table::follow(Some(old), new, names),
                (Some(old), None) => {
                    let table = Table::follow(None, new, names);
                    migrate::refill(connection, old, &table, &mut Steps::one(carry, new.version))?;
                    garbage.push(old.name.clone());
                    table
                }
            };
            save(connection, new, table.names(), None)?;
            Ok(Some(publish(table)))
        })?;
        // Otherwise the prepared table is used or has become unusable.
        let is_record = carry.is_empty() && known.is_some_and(|known| known.is_like(new));
        if !is_record
            && let Some(writer) = locked(&self.shared.writer).as_mut()
            && let Some(shadow) = writer.shadows.remove(&new.model)
            && self.shared.table(&new.model).is_none_or(|table| table.name != shadow.to.name)
        {
            garbage.push(shadow.to.name.clone());
        }
        garbage::clear(&self.shared, garbage);
        Ok(())
    }

    async fn prepare(&self, new: &ModelShape, carry: &CarryOver) -> Result<u64> {
        /// Signals the work when its caller is gone.
        struct Caller {
            abandoned: Arc<AtomicBool>,
            waits: bool,
        }
        impl Drop for Caller {
            fn drop(&mut self) {
                self.abandoned.store(self.waits, Ordering::Relaxed);
            }
        }
        let abandoned = Arc::new(AtomicBool::new(false));
        let mut caller = Caller { abandoned: Arc::clone(&abandoned), waits: true };
        let (shared, new, carry) = (Arc::clone(&self.shared), new.clone(), carry.clone());
        let built = off_thread("prepare", move || prepare::build(&shared, &new, &carry, &abandoned)).await;
        caller.waits = false;
        built
    }

    async fn discard(&self, model: &str, ticket: u64) -> Result<()> {
        if ticket != 0 {
            let (shared, model) = (Arc::clone(&self.shared), model.to_owned());
            off_thread("discard", move || {
                prepare::discard(&shared, &model, Some(ticket));
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    async fn begin_replay(&self) -> Result<()> {
        self.shared.set_replaying(true);
        Ok(())
    }

    async fn end_replay(&self) -> Result<Vec<(String, DriverError)>> {
        self.shared.set_replaying(false);
        let mut failed = Vec::new();
        for model in self.shared.readers.with(replay::due)? {
            let tables = self.shared.tables();
            let settled = self.shared.transaction("end_replay", |writer| replay::settle(writer, &tables, &model));
            failed.extend(settled.err().map(|error| (model, error)));
        }
        Ok(failed)
    }

    async fn drop_model(&self, after: Position, model: &str, position: Position) -> Result<()> {
        let tables = self.shared.tables();
        let mut garbage = Vec::new();
        self.shared.writing("drop_model", after, position, |writer| {
            let Some(table) = tables.get(model) else { return Ok(None) };
            garbage.push(table.name.clone());
            writer.connection.execute("DELETE FROM _models WHERE id = ?1", [model]).map_err(fault("drop_model"))?;
            let model = model.to_owned();
            Ok(Some(Box::new(move |tables: &mut Tables| {
                tables.remove(&model);
            })))
        })?;
        prepare::discard(&self.shared, model, None);
        garbage::clear(&self.shared, garbage);
        Ok(())
    }

    async fn apply(&self, after: Position, events: &[Event], to: Position) -> Result<()> {
        let tables = self.shared.tables();
        // Relaxed: it is only compared with itself.
        self.shared.writes.fetch_add(1, Ordering::Relaxed);
        self.shared.writing("apply", after, to, |writer| {
            let checkpoint = writer.state.checkpoint;
            let instances =
                || events.iter().filter(move |event| event.position > checkpoint && event.kind.is_instance());
            writer.apply(instances(), &tables)?;
            if !writer.shadows.is_empty() {
                prepare::follow(&self.shared, writer, instances());
            }
            Ok(None)
        })
    }

    async fn log(&self) -> Result<Option<String>> {
        self.shared.readers.with(|connection| {
            connection.query_row("SELECT identity FROM _log", [], |row| row.get(0)).optional().map_err(fault("log"))
        })
    }

    async fn checkpoint(&self) -> Result<Position> {
        self.shared.readers.with(|connection| {
            let checkpoint: i64 = connection
                .query_row("SELECT checkpoint FROM _state", [], |row| row.get(0))
                .map_err(fault("checkpoint"))?;
            Ok(checkpoint as Position)
        })
    }

    async fn definitions(&self) -> Result<Vec<ModelShape>> {
        let definitions = self.shared.readers.with(|connection| definitions::all(connection, "definitions"))?;
        Ok(definitions.into_iter().map(|(shape, _)| shape).collect())
    }

    async fn get(&self, model: &str, id: &str) -> Result<Option<Instance>> {
        self.shared.retried(
            model,
            || None,
            |table| {
                self.shared.readers.with(|connection| {
                    connection
                        .prepare_cached(&table.get)
                        .and_then(|mut statement| statement.query_row([id], |row| query::decode(row, model)).optional())
                        .map_err(fault("get"))
                })
            },
        )
    }

    async fn query(&self, model: &str, query: &InstanceQuery, budget: &Budget) -> Result<InstancePage> {
        let none = || InstancePage { items: Vec::new(), next: None };
        let Some(table) = self.shared.table(model) else { return Ok(none()) };
        if query::is_short(&table, query) {
            let page = self.shared.turn("query", model, none, budget, Some(INLINE_STEPS), |connection, table| {
                query::page(connection, table, query)
            })?;
            if let Turn::Done(page) = page {
                return Ok(page);
            }
        }
        let (shared, model, query) = (Arc::clone(&self.shared), model.to_owned(), query.clone());
        let work = move |budget: &Budget, steps| {
            shared
                .turn("query", &model, none, budget, steps, |connection, table| query::page(connection, table, &query))
        };
        self.shared.lanes.run("query", budget, work).await
    }

    async fn count(&self, model: &str, filter: &Filter, budget: &Budget) -> Result<u64> {
        let (shared, model, filter) = (Arc::clone(&self.shared), model.to_owned(), filter.to_owned());
        let work = move |budget: &Budget, steps| {
            shared.turn(
                "count",
                &model,
                || 0,
                budget,
                steps,
                |connection, table| query::count(connection, table, &filter),
            )
        };
        self.shared.lanes.run("count", budget, work).await
    }

    async fn reset(&self, log: &str) -> Result<()> {
        self.shared.transaction("reset", |writer| {
            let clear = || -> rusqlite::Result<()> {
                // Including prepared tables and those that will be removed.
                for table in garbage::all(&writer.connection)? {
                    writer.connection.execute_batch(&format!("DROP TABLE {table}"))?;
                }
                writer.connection.execute_batch("DELETE FROM _models; UPDATE _state SET checkpoint = 0")?;
                writer.connection.execute(
                    "INSERT INTO _log(one, identity) VALUES (1, ?1) ON CONFLICT DO UPDATE SET identity = ?1",
                    [log],
                )?;
                Ok(())
            };
            clear().map_err(fault("reset"))?;
            writer.state.checkpoint = 0;
            writer.shadows.clear();
            Ok(Some(Box::new(Tables::clear)))
        })
    }
}

/// The change that makes a table its model's current one.
fn publish(table: Table) -> Publish {
    Box::new(move |tables: &mut Tables| {
        tables.insert(table.model.clone(), Arc::new(table));
    })
}
