//! The model store: one table per model, and the checkpoint up to which the log is in them.

mod condition;
mod migrate;
mod query;
mod table;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use async_trait::async_trait;
use rusqlite::{CachedStatement, Connection, OptionalExtension as _, ToSql, params};
use snaphook_driver::{
    CarryOver, Condition, DriverError, ErrorKind, Event, EventKind, Instance, InstancePage, InstanceQuery, Json,
    ModelShape, ModelStore, Position, Result,
};

use crate::checkpoint::Checkpointer;
use crate::database::{Format, Readers, locked, off_thread, open_writer};
use crate::fault::fault;
use crate::lock::Lock;
use table::Table;

/// Names of bookkeeping tables start with `_`, which no model id does. `_models` holds the shapes as JSON.
///
/// The log can give everything here back, so commits are not synced. But they are in order: after a power failure
/// the file is at some earlier checkpoint, never torn.
const FORMAT: Format = Format {
    name: "model store",
    id: 0x534e_484d, // "SNHM"
    version: 1,
    schema: "
        CREATE TABLE _state(one INTEGER PRIMARY KEY CHECK (one = 1), checkpoint INTEGER NOT NULL);
        INSERT INTO _state VALUES (1, 0);
        CREATE TABLE _models(id TEXT PRIMARY KEY, shape TEXT NOT NULL) WITHOUT ROWID;",
    synchronous: "NORMAL",
    cache_kib: 16 * 1024,
    log_pages: 4096,
    settles: true,
};

/// The identity of the log; no row if it is not known. Made when a file without it is opened.
const LOG: &str = "CREATE TABLE IF NOT EXISTS _log(one INTEGER PRIMARY KEY CHECK (one = 1), identity TEXT NOT NULL)";

/// See the crate's documentation.
pub struct SqliteModelStore {
    shared: Arc<Shared>,
    lock: Mutex<Option<Lock>>,
}

struct Shared {
    /// `None` once closed.
    writer: Mutex<Option<Writer>>,
    readers: Readers,
    /// As committed; replaced as a whole when a definition changes.
    tables: RwLock<Arc<Tables>>,
}

type Tables = HashMap<String, Arc<Table>>;

struct Writer {
    connection: Connection,
    checkpointer: Checkpointer,
    checkpoint: Position,
}

impl SqliteModelStore {
    /// Opens the store at `path`, or makes it.
    pub fn open(path: &Path) -> Result<Self> {
        let lock = Lock::take(path)?;
        let mut connection = open_writer(path, &FORMAT)?;
        let checkpointer = Checkpointer::start(path, &mut connection, &FORMAT)?;
        connection.execute_batch(LOG).map_err(fault("open"))?;
        let checkpoint: i64 =
            connection.query_row("SELECT checkpoint FROM _state", [], |row| row.get(0)).map_err(fault("open"))?;
        let tables: Tables = definitions(&connection, "open")?
            .iter()
            .map(|shape| (shape.model.clone(), Arc::new(Table::new(shape))))
            .collect();
        let writer = Writer { connection, checkpointer, checkpoint: checkpoint as Position };
        let shared = Shared {
            writer: Mutex::new(Some(writer)),
            readers: Readers::new(path),
            tables: RwLock::new(Arc::new(tables)),
        };
        Ok(SqliteModelStore { shared: Arc::new(shared), lock: Mutex::new(Some(lock)) })
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
        let table = Table::new(new);
        let mut publish = |tables: &mut Tables| {
            tables.insert(new.model.clone(), Arc::new(Table::new(new)));
        };
        self.shared.writing("define", position, Some(&mut publish), |writer| {
            // What is there decides, not what the caller remembers: they differ only after a crash.
            migrate::migrate(
                &writer.connection,
                tables.get(&new.model).map(|table| &**table),
                &table,
                carry,
                new.version,
            )?;
            let shape = serde_json::to_string(new).map_err(|error| {
                DriverError::new(ErrorKind::Invalid, "define", "the shape cannot be written as JSON").because(error)
            })?;
            writer
                .connection
                .execute(
                    "INSERT INTO _models(id, shape) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET shape = ?2",
                    params![new.model, shape],
                )
                .map_err(fault("define"))?;
            Ok(())
        })
    }

    async fn drop_model(&self, model: &str, position: Position) -> Result<()> {
        let tables = self.shared.tables();
        let mut publish = |tables: &mut Tables| {
            tables.remove(model);
        };
        self.shared.writing("drop_model", position, Some(&mut publish), |writer| {
            if let Some(table) = tables.get(model) {
                let drop = || {
                    writer.connection.execute_batch(&format!("DROP TABLE {}", table.name))?;
                    writer.connection.execute("DELETE FROM _models WHERE id = ?1", [model])
                };
                drop().map_err(fault("drop_model"))?;
            }
            Ok(())
        })
    }

    async fn apply(&self, events: &[Event], position: Position) -> Result<()> {
        let tables = self.shared.tables();
        self.shared.writing("apply", position, None, |writer| {
            let checkpoint = writer.checkpoint;
            let instances = events.iter().filter(|event| event.position > checkpoint && event.kind.is_instance());
            writer.apply(instances, &tables)
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
        self.shared.readers.with(|connection| definitions(connection, "definitions"))
    }

    async fn get(&self, model: &str, id: &str) -> Result<Option<Instance>> {
        self.shared.reading(model, None, |connection, table| {
            connection
                .prepare_cached(&table.get)
                .and_then(|mut statement| statement.query_row([id], |row| query::decode(row, model)).optional())
                .map_err(fault("get"))
        })
    }

    async fn query(&self, model: &str, query: &InstanceQuery) -> Result<InstancePage> {
        let none = InstancePage { items: Vec::new(), next: None };
        let Some(table) = self.shared.table(model) else { return Ok(none) };
        if query::is_short(&table, query) {
            return self.shared.reading(model, none, |connection, table| query::page(connection, table, query));
        }
        let (shared, model, query) = (Arc::clone(&self.shared), model.to_owned(), query.clone());
        off_thread("query", move || {
            shared.reading(&model, none, |connection, table| query::page(connection, table, &query))
        })
        .await
    }

    async fn count(&self, model: &str, filter: &[Condition]) -> Result<u64> {
        let (shared, model, filter) = (Arc::clone(&self.shared), model.to_owned(), filter.to_owned());
        off_thread("count", move || {
            shared.reading(&model, 0, |connection, table| {
                query::count(connection, table, &filter).map_err(fault("count"))
            })
        })
        .await
    }

    async fn reset(&self, log: &str) -> Result<()> {
        let tables = self.shared.tables();
        self.shared.transaction("reset", Some(&mut Tables::clear), |writer| {
            let clear = || -> rusqlite::Result<()> {
                for table in tables.values() {
                    writer.connection.execute_batch(&format!("DROP TABLE {}", table.name))?;
                }
                writer.connection.execute_batch("DELETE FROM _models; UPDATE _state SET checkpoint = 0")?;
                writer.connection.execute(
                    "INSERT INTO _log(one, identity) VALUES (1, ?1) ON CONFLICT DO UPDATE SET identity = ?1",
                    [log],
                )?;
                Ok(())
            };
            clear().map_err(fault("reset"))?;
            writer.checkpoint = 0;
            Ok(true)
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
        publish: Option<&mut dyn FnMut(&mut Tables)>,
        work: impl FnOnce(&mut Writer) -> Result<()>,
    ) -> Result<()> {
        self.transaction(operation, publish, |writer| {
            if position <= writer.checkpoint {
                return Ok(false);
            }
            work(writer)?;
            writer
                .connection
                .prepare_cached("UPDATE _state SET checkpoint = ?1")
                .and_then(|mut statement| statement.execute([position as i64]))
                .map_err(fault(operation))?;
            writer.checkpoint = position;
            Ok(true)
        })
    }

    /// Runs work in a transaction. If it says that it changed something, `publish` changes the tables to match.
    fn transaction(
        &self,
        operation: &'static str,
        publish: Option<&mut dyn FnMut(&mut Tables)>,
        work: impl FnOnce(&mut Writer) -> Result<bool>,
    ) -> Result<()> {
        let mut writer = locked(&self.writer);
        let Some(writer) = writer.as_mut() else {
            return Err(DriverError::new(ErrorKind::Unavailable, operation, "the store is closed"));
        };
        let checkpoint = writer.checkpoint;
        let run = |writer: &mut Writer| -> Result<()> {
            writer.execute("BEGIN IMMEDIATE").map_err(fault(operation))?;
            let changed = work(writer)?;
            let Some(publish) = publish.filter(|_| changed) else {
                return writer.execute("COMMIT").map_err(fault(operation));
            };
            // Over the commit, so that a reader whose statement no longer fits finds the new tables; see `reading`.
            let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
            writer.execute("COMMIT").map_err(fault(operation))?;
            publish(Arc::make_mut(&mut tables));
            Ok(())
        };
        let result = run(writer);
        if result.is_err() {
            // SQLite may have rolled back by itself; then this fails, and there is nothing to do.
            let _ = writer.execute("ROLLBACK");
            writer.checkpoint = checkpoint;
        }
        writer.checkpointer.after_commit(&writer.connection);
        result
    }

    /// Runs a read of one model; `none` if the model is not there. If the model was redefined between the choice of
    /// the table and the read, which then met columns that are gone, the read is done again.
    fn reading<T>(&self, model: &str, none: T, read: impl Fn(&Connection, &Table) -> Result<T>) -> Result<T> {
        let Some(mut table) = self.table(model) else { return Ok(none) };
        loop {
            let result = self.readers.with(|connection| read(connection, &table));
            if result.is_ok() {
                return result;
            }
            match self.table(model) {
                None => return Ok(none),
                Some(same) if Arc::ptr_eq(&same, &table) => return result,
                Some(changed) => table = changed,
            }
        }
    }
}

impl Writer {
    fn execute(&self, sql: &str) -> rusqlite::Result<()> {
        self.connection.prepare_cached(sql)?.execute([]).map(drop)
    }

    fn apply<'a>(&'a mut self, events: impl Iterator<Item = &'a Event>, tables: &'a Tables) -> Result<()> {
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

fn definitions(connection: &Connection, operation: &'static str) -> Result<Vec<ModelShape>> {
    let read = || -> rusqlite::Result<Vec<(String, String)>> {
        connection
            .prepare("SELECT id, shape FROM _models ORDER BY id")?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect()
    };
    read()
        .map_err(fault(operation))?
        .into_iter()
        .map(|(id, shape)| {
            serde_json::from_str(&shape).map_err(|error| {
                DriverError::new(ErrorKind::Corrupt, operation, "a model's shape cannot be read back")
                    .with("model", id)
                    .because(error)
            })
        })
        .collect()
}
