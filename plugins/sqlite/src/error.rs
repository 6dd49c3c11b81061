//! The error store: failed runs as JSON, with the columns by which they are listed.

use std::path::Path;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension as _, params};
use snaphook_driver::files::FileLock;
use snaphook_driver::{
    Capabilities, DriverError, ErrorKind, ErrorPage, ErrorQuery, ErrorRecord, ErrorStore, PAGE_BYTES_MAX, Result,
};

use crate::database::{Format, locked, off_thread, open_writer};
use crate::fault::fault;
use crate::lock::lock;

const FORMAT: Format = Format {
    name: "error store",
    id: 0x534e_4852, // "SNHR"
    version: 1,
    schema: "
        CREATE TABLE errors(
            id TEXT PRIMARY KEY, model TEXT NOT NULL, hook TEXT NOT NULL, record TEXT NOT NULL);
        CREATE INDEX errors_model ON errors(model, hook, id);",
    synchronous: "FULL",
    cache_kib: 2 * 1024,
    log_pages: 1024,
    settles: false,
    derived: false,
};

/// See the crate's documentation.
pub struct SqliteErrorStore {
    /// A single connection, because failures are rare. `None` once closed.
    connection: Arc<Mutex<Option<Connection>>>,
    lock: Mutex<Option<FileLock>>,
}

impl SqliteErrorStore {
    /// Opens the store at `path`, or creates it.
    pub fn open(path: &Path) -> Result<Self> {
        let lock = lock(path)?;
        let connection = open_writer(path, &FORMAT)?;
        Ok(SqliteErrorStore { connection: Arc::new(Mutex::new(Some(connection))), lock: Mutex::new(Some(lock)) })
    }

    async fn with<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let connection = Arc::clone(&self.connection);
        off_thread(operation, move || match locked(&connection).as_ref() {
            Some(connection) => work(connection).map_err(fault(operation)),
            None => Err(DriverError::new(ErrorKind::Unavailable, operation, "the store is closed")),
        })
        .await
    }
}

#[async_trait]
impl ErrorStore for SqliteErrorStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities { readable: true, durable: true, ..Capabilities::LEAST }
    }

    async fn health(&self) -> Result<()> {
        self.with("health", |connection| connection.query_row("SELECT count(*) FROM sqlite_master", [], |_| Ok(())))
            .await
    }

    async fn close(&self) -> Result<()> {
        let connection = Arc::clone(&self.connection);
        let closed = off_thread("close", move || match locked(&connection).take() {
            Some(connection) => connection.close().map_err(|(_, error)| fault("close")(error)),
            None => Ok(()),
        })
        .await;
        locked(&self.lock).take();
        closed
    }

    async fn record(&self, record: &ErrorRecord) -> Result<()> {
        let text = serde_json::to_string(record).map_err(|error| {
            DriverError::new(ErrorKind::Invalid, "record", "the record cannot be written as JSON").because(error)
        })?;
        let (id, model, hook) = (record.id.clone(), record.model.clone(), record.hook.clone());
        self.with("record", move |connection| {
            connection
                .prepare_cached(
                    "INSERT INTO errors(id, model, hook, record) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT DO UPDATE SET model = ?2, hook = ?3, record = ?4",
                )?
                .execute(params![id, model, hook, text])?;
            Ok(())
        })
        .await
    }

    async fn list(&self, query: &ErrorQuery) -> Result<ErrorPage> {
        let query = query.clone();
        self.with("list", move |connection| {
            let model = if query.model.is_some() { "model = ?1" } else { "?1 IS NULL" };
            let hook = if query.hook.is_some() { "hook = ?2" } else { "?2 IS NULL" };
            // One more than requested, to know whether there are more.
            let sql =
                format!("SELECT record FROM errors WHERE {model} AND {hook} AND id > ?3 ORDER BY id LIMIT ?4 + 1");
            let mut statement = connection.prepare_cached(&sql)?;
            let after = query.after.unwrap_or_default();
            let mut rows = statement.query(params![query.model, query.hook, after, query.limit])?;
            let mut page = ErrorPage::default();
            let mut bytes = 0;
            while let Some(row) = rows.next()? {
                let text = row.get_ref(0)?.as_str()?;
                bytes += text.len();
                page.full =
                    page.records.len() >= query.limit as usize || bytes > PAGE_BYTES_MAX && !page.records.is_empty();
                if page.full {
                    break;
                }
                match parse("list", text) {
                    Ok(record) => page.records.push(record),
                    Err(error) => return Ok(Err(error)),
                }
            }
            Ok(Ok(page))
        })
        .await?
    }

    async fn count(&self, query: &ErrorQuery) -> Result<u64> {
        let query = query.clone();
        let count: i64 = self
            .with("count", move |connection| {
                let model = if query.model.is_some() { "model = ?1" } else { "?1 IS NULL" };
                let hook = if query.hook.is_some() { "hook = ?2" } else { "?2 IS NULL" };
                connection
                    .prepare_cached(&format!("SELECT count(*) FROM errors WHERE {model} AND {hook}"))?
                    .query_row(params![query.model, query.hook], |row| row.get(0))
            })
            .await?;
        Ok(count as u64)
    }

    async fn get(&self, id: &str) -> Result<Option<ErrorRecord>> {
        let id = id.to_owned();
        let text = self
            .with("get", move |connection| {
                connection
                    .prepare_cached("SELECT record FROM errors WHERE id = ?1")?
                    .query_row([id], |row| row.get::<_, String>(0))
                    .optional()
            })
            .await?;
        text.map(|text| parse("get", &text)).transpose()
    }

    async fn remove(&self, id: &str) -> Result<bool> {
        let id = id.to_owned();
        let removed = self
            .with("remove", move |connection| {
                connection.prepare_cached("DELETE FROM errors WHERE id = ?1")?.execute([id])
            })
            .await?;
        Ok(removed > 0)
    }
}

fn parse(operation: &'static str, text: &str) -> Result<ErrorRecord> {
    snaphook_driver::json::typed(text)
        .map_err(|error| DriverError::new(ErrorKind::Corrupt, operation, "a record cannot be read back").because(error))
}
