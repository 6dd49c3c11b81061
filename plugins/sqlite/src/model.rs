//! The model store: one table per model, and the checkpoint up to which the log is in them.

mod condition;
mod garbage;
mod migrate;
mod names;
mod order;
mod pace;
#[cfg(test)]
mod plan_tests;
mod query;
mod replay;
mod rows;
mod shadow;
mod table;

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use async_trait::async_trait;
use rusqlite::{CachedStatement, Connection, OptionalExtension as _, ToSql, params};
use snaphook_driver::{
    Budget, CarryOver, Condition, DriverError, ErrorKind, Event, EventKind, Instance, InstancePage, InstanceQuery,
    Json, ModelShape, ModelStore, Position, Result, json,
};

use crate::checkpoint::Checkpointer;
use crate::database::{Format, Readers, Turn, locked, off_thread, open_writer};
use crate::fault::fault;
use crate::lanes::Lanes;
use crate::lock::Lock;
use names::{Counter, Names};
use replay::Pending;
use rows::Steps;
use shadow::Shadow;
use table::Table;

/// `_models` holds the shapes and their [`Names`], both as JSON; `_state.names` is the last number of a name that was
/// given out.
///
/// The log can give everything here back, so commits are not synced. But they are in order: after a power failure
/// the file is at some earlier checkpoint, never torn.
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

/// The identity of the log; no row if it is not known. Made when a file without it is opened.
const LOG: &str = "CREATE TABLE IF NOT EXISTS _log(one INTEGER PRIMARY KEY CHECK (one = 1), identity TEXT NOT NULL)";

/// Steps of a read that is expected to be short, on the caller's thread: about a millisecond.
const INLINE_STEPS: u64 = 10_000;

/// See the crate's documentation.
pub struct SqliteModelStore {
    shared: Arc<Shared>,
    lock: Mutex<Option<Lock>>,
}

struct Shared {
    /// `None` once closed.
    writer: Mutex<Option<Writer>>,
    readers: Readers,
    /// Where reads that may take long wait for their turn.
    lanes: Lanes,
    /// As committed; replaced as a whole when a definition changes.
    tables: RwLock<Arc<Tables>>,
    /// Counts the changes of `tables`: whoever reads between two equal counts has read a model's table while it was that.
    changes: AtomicU64,
    /// Counts the batches of events, so that work beside them can be slow while there are any.
    writes: AtomicU64,
}

type Tables = HashMap<String, Arc<Table>>;

/// A change of the tables that is due when its transaction is committed.
type Publish = Box<dyn FnOnce(&mut Tables)>;

struct Writer {
    connection: Connection,
    checkpointer: Checkpointer,
    state: State,
    /// Tables that are prepared, by model.
    shadows: HashMap<String, Shadow>,
    /// Whether definitions are put off; see [`replay`].
    replaying: bool,
}

/// What `_state` holds.
#[derive(Clone, Copy)]
struct State {
    checkpoint: Position,
    names: Counter,
}

impl State {
    fn load(connection: &Connection) -> rusqlite::Result<State> {
        connection.query_row("SELECT checkpoint, names FROM _state", [], |row| {
            let (checkpoint, names): (i64, i64) = (row.get(0)?, row.get(1)?);
            Ok(State { checkpoint: checkpoint as Position, names: Counter(names as u64) })
        })
    }
}

impl SqliteModelStore {
    /// Opens the store at `path`, or makes it.
    pub fn open(path: &Path) -> Result<Self> {
        let lock = Lock::take(path)?;
        let mut connection = open_writer(path, &FORMAT)?;
        let checkpointer = Checkpointer::start(path, &mut connection, &FORMAT)?;
        connection.execute_batch(LOG).map_err(fault("open"))?;
        let state = State::load(&connection).map_err(fault("open"))?;
        let tables: Tables = definitions(&connection, "open")?
            .into_iter()
            .map(|(shape, names)| (shape.model.clone(), Arc::new(Table::restore(&shape, names))))
            .collect();
        let garbage = garbage::find(&connection, &tables).map_err(fault("open"))?;
        let writer = Writer { connection, checkpointer, state, shadows: HashMap::new(), replaying: false };
        let shared = Shared {
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
            writer.map_or(Ok(()), Writer::close)
        })
        .await;
        locked(&self.lock).take();
        closed
    }

    async fn define(
        &self,
        _old: Option<&ModelShape>,
        new: &ModelShape,
        carry: &CarryOver,
        position: Position,
    ) -> Result<()> {
        let tables = self.shared.tables();
        let mut garbage = Vec::new();
        self.shared.writing("define", position, |writer| {
            // What is there decides, not what the caller remembers: they differ only after a crash.
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
        if let Some(writer) = locked(&self.shared.writer).as_mut()
            && let Some(shadow) = writer.shadows.remove(&new.model)
            && self.shared.table(&new.model).is_none_or(|table| table.name != shadow.to.name)
        {
            garbage.push(shadow.to.name.clone());
        }
        garbage::clear(&self.shared, garbage);
        Ok(())
    }

    async fn prepare(&self, new: &ModelShape, carry: &CarryOver) -> Result<u64> {
        /// Tells the work that its caller is gone.
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
        let built = off_thread("prepare", move || shadow::build(&shared, &new, &carry, &abandoned)).await;
        caller.waits = false;
        built
    }

    async fn discard(&self, model: &str, ticket: u64) -> Result<()> {
        if ticket != 0 {
            let (shared, model) = (Arc::clone(&self.shared), model.to_owned());
            off_thread("discard", move || {
                shadow::discard(&shared, &model, Some(ticket));
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

    async fn end_replay(&self) -> Result<()> {
        self.shared.set_replaying(false);
        let due = self.shared.readers.with(replay::due)?;
        for model in due {
            let tables = self.shared.tables();
            self.shared.transaction("end_replay", |writer| replay::settle(writer, &tables, &model))?;
        }
        Ok(())
    }

    async fn drop_model(&self, model: &str, position: Position) -> Result<()> {
        let tables = self.shared.tables();
        let mut garbage = Vec::new();
        self.shared.writing("drop_model", position, |writer| {
            let Some(table) = tables.get(model) else { return Ok(None) };
            garbage.push(table.name.clone());
            writer.connection.execute("DELETE FROM _models WHERE id = ?1", [model]).map_err(fault("drop_model"))?;
            let model = model.to_owned();
            Ok(Some(Box::new(move |tables: &mut Tables| {
                tables.remove(&model);
            })))
        })?;
        shadow::discard(&self.shared, model, None);
        garbage::clear(&self.shared, garbage);
        Ok(())
    }

    async fn apply(&self, events: &[Event], position: Position) -> Result<()> {
        let tables = self.shared.tables();
        // Relaxed: it is only compared with itself.
        self.shared.writes.fetch_add(1, Ordering::Relaxed);
        self.shared.writing("apply", position, |writer| {
            let checkpoint = writer.state.checkpoint;
            let instances =
                || events.iter().filter(move |event| event.position > checkpoint && event.kind.is_instance());
            writer.apply(instances(), &tables)?;
            if !writer.shadows.is_empty() {
                self.shared.follow(writer, instances());
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
        let definitions = self.shared.readers.with(|connection| definitions(connection, "definitions"))?;
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

    async fn count(&self, model: &str, filter: &[Condition], budget: &Budget) -> Result<u64> {
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
                // Also those that are prepared, or about to be removed.
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

impl Shared {
    fn tables(&self) -> Arc<Tables> {
        Arc::clone(&self.tables.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn table(&self, model: &str) -> Option<Arc<Table>> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner).get(model).cloned()
    }

    /// Runs work that moves the checkpoint to `position`, in one transaction with it, unless it is there already.
    fn writing(
        &self,
        operation: &'static str,
        position: Position,
        work: impl FnOnce(&mut Writer) -> Result<Option<Publish>>,
    ) -> Result<()> {
        self.transaction(operation, |writer| {
            if position <= writer.state.checkpoint {
                return Ok(None);
            }
            let publish = work(writer)?;
            writer.state.checkpoint = position;
            writer
                .connection
                .prepare_cached("UPDATE _state SET checkpoint = ?1, names = ?2")
                .and_then(|mut statement| statement.execute([position as i64, writer.state.names.0 as i64]))
                .map_err(fault(operation))?;
            Ok(publish)
        })
    }

    /// Runs work in a transaction. What it returns changes the tables to match.
    fn transaction(
        &self,
        operation: &'static str,
        work: impl FnOnce(&mut Writer) -> Result<Option<Publish>>,
    ) -> Result<()> {
        let mut writer = locked(&self.writer);
        let Some(writer) = writer.as_mut() else {
            return Err(DriverError::new(ErrorKind::Unavailable, operation, "the store is closed"));
        };
        if !writer.connection.is_autocommit() {
            // An earlier caller panicked in the middle of its work.
            writer.execute("ROLLBACK").map_err(fault(operation))?;
            writer.state = State::load(&writer.connection).map_err(fault(operation))?;
        }
        let state = writer.state;
        let run = |writer: &mut Writer| -> Result<()> {
            writer.execute("BEGIN IMMEDIATE").map_err(fault(operation))?;
            let Some(publish) = work(writer)? else {
                return writer.execute("COMMIT").map_err(fault(operation));
            };
            // Over the commit, so that a reader whose statement no longer fits finds the new tables; see `reading`.
            let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
            writer.execute("COMMIT").map_err(fault(operation))?;
            publish(Arc::make_mut(&mut tables));
            self.changes.fetch_add(1, Ordering::Release);
            Ok(())
        };
        let result = run(writer);
        if result.is_err() {
            // SQLite may have rolled back by itself; then this fails, and there is nothing to do.
            let _ = writer.execute("ROLLBACK");
            writer.state = state;
        }
        writer.checkpointer.after_commit(&writer.connection);
        result
    }

    /// Runs one turn of a read of one model; see [`Readers::turn`].
    fn turn<T>(
        &self,
        operation: &'static str,
        model: &str,
        none: impl Fn() -> T,
        budget: &Budget,
        steps: Option<u64>,
        read: impl Fn(&Connection, &Table) -> Result<T>,
    ) -> Result<Turn<T>> {
        self.retried(
            model,
            || Turn::Done(none()),
            |table| self.readers.turn(operation, budget, steps, |connection| read(connection, table)),
        )
    }

    /// Runs a read of one model; `none` if the model is not there. If a model was redefined between the choice of the table
    /// and the end of the read, which then may have met a table that is being emptied, the read is done again.
    fn retried<T>(&self, model: &str, none: impl Fn() -> T, read: impl Fn(&Table) -> Result<T>) -> Result<T> {
        loop {
            let changes = self.changes.load(Ordering::Acquire);
            let Some(table) = self.table(model) else { return Ok(none()) };
            let result = read(&table);
            if self.changes.load(Ordering::Acquire) == changes {
                return result;
            }
            match self.table(model) {
                None => return Ok(none()),
                // Another model was redefined.
                Some(same) if Arc::ptr_eq(&same, &table) => return result,
                Some(_) => {}
            }
        }
    }

    /// Brings what events did over to the tables that are prepared.
    fn follow<'a>(self: &Arc<Self>, writer: &mut Writer, events: impl Iterator<Item = &'a Event>) {
        for event in events {
            let Some(shadow) = writer.shadows.get_mut(&event.model) else { continue };
            if !shadow.follow(&writer.connection, event)
                && let Some(shadow) = writer.shadows.remove(&event.model)
            {
                garbage::clear(self, vec![shadow.to.name.clone()]);
            }
        }
    }

    fn set_replaying(&self, replaying: bool) {
        if let Some(writer) = locked(&self.writer).as_mut() {
            writer.replaying = replaying;
        }
    }
}

impl Writer {
    fn execute(&self, sql: &str) -> rusqlite::Result<()> {
        self.connection.prepare_cached(sql)?.execute([]).map(drop)
    }

    fn apply<'a>(&self, events: impl Iterator<Item = &'a Event>, tables: &Tables) -> Result<()> {
        // Most events of a batch are of one model: its statements are taken from the cache once.
        let mut ready: Option<Ready<'_>> = None;
        for event in events {
            let invalid = |message: String| {
                DriverError::new(ErrorKind::Invalid, "apply", message).with("position", event.position)
            };
            let mut statements = match ready.take() {
                Some(same) if same.model == event.model => same,
                _ => match tables.get(&event.model) {
                    Some(table) => {
                        Ready { connection: &self.connection, model: &event.model, table, prepared: [None, None, None] }
                    }
                    None => {
                        return Err(invalid(format!("an instance event of `{}`, which is not defined", event.model)));
                    }
                },
            };
            statements.apply(event, invalid)?;
            ready = Some(statements);
        }
        Ok(())
    }

    fn close(self) -> Result<()> {
        drop(self.checkpointer);
        self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).map_err(fault("close"))?;
        self.connection.close().map_err(|(_, error)| fault("close")(error))
    }
}

/// The statements that write one model's rows, prepared when they are needed.
struct Ready<'a> {
    connection: &'a Connection,
    model: &'a str,
    table: &'a Table,
    prepared: [Option<CachedStatement<'a>>; 3],
}

/// Places in [`Ready`] and [`Table::writes`].
const CREATE: usize = 0;
const UPDATE: usize = 1;
const DELETE: usize = 2;

impl Ready<'_> {
    fn apply(&mut self, event: &Event, invalid: impl Fn(String) -> DriverError) -> Result<()> {
        let Some(instance) = &event.instance else {
            return Err(invalid(format!("`{}` without an instance", event.kind)));
        };
        if event.kind == EventKind::InstanceDeleted {
            return self.run(DELETE, params![instance]).map(drop);
        }
        let data = event.data.as_ref().map(Json::as_str);
        let data = data.ok_or_else(|| invalid(format!("`{}` without data", event.kind)))?;
        let (version, revision, position) = (event.model_version as i64, event.revision as i64, event.position as i64);
        let row = params![instance, version, revision, position, event.time, data];
        if event.kind == EventKind::InstanceCreated || self.run(UPDATE, row)? == 0 {
            self.run(CREATE, row)?;
        }
        Ok(())
    }

    fn run(&mut self, which: usize, parameters: &[&dyn ToSql]) -> Result<usize> {
        let statement = match &mut self.prepared[which] {
            Some(statement) => statement,
            empty => empty.insert(self.connection.prepare_cached(&self.table.writes[which]).map_err(fault("apply"))?),
        };
        statement.execute(parameters).map_err(fault("apply"))
    }
}

/// The change that puts a table in its model's place.
fn publish(table: Table) -> Publish {
    Box::new(move |tables: &mut Tables| {
        tables.insert(table.model.clone(), Arc::new(table));
    })
}

/// Writes down a model's definition.
fn save(connection: &Connection, shape: &ModelShape, names: &Names, pending: Option<&Pending>) -> Result<()> {
    let json = |error: serde_json::Error| {
        DriverError::new(ErrorKind::Invalid, "define", "the shape cannot be written as JSON").because(error)
    };
    let pending = pending.map(serde_json::to_string).transpose().map_err(json)?;
    let (text, names) = (serde_json::to_string(shape).map_err(json)?, serde_json::to_string(names).map_err(json)?);
    connection
        .execute(
            "INSERT INTO _models(id, names, shape, pending) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO UPDATE SET names = ?2, shape = ?3, pending = ?4",
            params![shape.model, names, text, pending],
        )
        .map(drop)
        .map_err(fault("define"))
}

fn definitions(connection: &Connection, operation: &'static str) -> Result<Vec<(ModelShape, Names)>> {
    let read = || -> rusqlite::Result<Vec<(String, String, String)>> {
        connection
            .prepare("SELECT id, shape, names FROM _models ORDER BY id")?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
            .collect()
    };
    read()
        .map_err(fault(operation))?
        .into_iter()
        .map(|(id, shape, names)| {
            let parsed = json::typed(&shape).and_then(|shape| Ok((shape, json::typed(&names)?)));
            parsed.map_err(|error| {
                DriverError::new(ErrorKind::Corrupt, operation, "a model's shape cannot be read back")
                    .with("model", id)
                    .because(error)
            })
        })
        .collect()
}
