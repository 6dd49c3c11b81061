//! One database file: opening it with the right settings, and the connections to it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use snaphook_driver::{Budget, DriverError, ErrorKind, Result};

use crate::fault::fault;
use crate::functions;
use crate::lock::beside;
use crate::meter::{Meter, STEPS_PER_LOOK, Stop};

/// Identifies the files of one store.
pub(crate) struct Format {
    /// The contents of the file, for messages.
    pub(crate) name: &'static str,
    /// SQLite's `application_id`.
    pub(crate) id: i32,
    /// SQLite's `user_version`; increased when the tables change.
    pub(crate) version: i32,
    /// Creates the tables.
    pub(crate) schema: &'static str,
    /// `FULL` if commits must be durable, otherwise `NORMAL`: consistent after a power failure, at an older state.
    pub(crate) synchronous: &'static str,
    /// Largest page cache of the writing connection, in KiB.
    pub(crate) cache_kib: u32,
    /// Pages (4 KiB) in the write-ahead log after which they are copied into the file. With more, frequently changed
    /// pages are copied less often; with fewer, readers find pages faster.
    pub(crate) log_pages: u32,
    /// Whether the write-ahead log is copied into the file whenever nothing is written for a moment, to make reads
    /// faster.
    pub(crate) settles: bool,
    /// Whether the file can be rebuilt from the log. If so, a file of an older version is replaced by an empty one.
    pub(crate) derived: bool,
}

/// How many bytes of a file its writer maps instead of copying. This only uses address space until pages are touched.
const WRITER_MMAP_BYTES_MAX: i64 = 1 << 30;

/// The same for each reading connection. Each has its own mapping, whose pages all count as the process's memory, so
/// this is only large enough to make small stores fast.
const READER_MMAP_BYTES_MAX: i64 = 4 << 20;

/// A write-ahead log that grew beyond this (because of a long read) is truncated when it restarts.
const WAL_BYTES_MAX: i64 = 256 << 20;

/// How long to wait for a lock of another process: less than the engine waits for an append, so that the engine gets
/// the actual error.
const BUSY_MAX: Duration = Duration::from_secs(3);

/// How many prepared statements one connection caches. Each model needs a few.
const STATEMENTS_MAX: usize = 512;

/// Opens the file for writing, and creates or checks its contents.
pub(crate) fn open_writer(path: &Path, format: &Format) -> Result<Connection> {
    let told = |error: DriverError| error.with("path", path.display());
    // Writes are not metered, because their size was already limited.
    let open_it = || open(path, format.cache_kib, WRITER_MMAP_BYTES_MAX, &Arc::default()).map_err(told);
    let mut connection = open_it()?;
    if let Some(version) = older_version(&connection, format).map_err(told)? {
        drop(connection);
        remove(path).map_err(|error| {
            told(DriverError::new(ErrorKind::Config, "open", "the file has an older format and cannot be removed"))
                .because(error)
        })?;
        tracing::info!(
            path = %path.display(),
            "the {} has format {version}, this Snaphook writes {}; it is rebuilt from the event log",
            format.name,
            format.version
        );
        connection = open_it()?;
    }
    prepare_writer(&connection, format).map_err(fault("open")).map_err(told)?;
    Ok(connection)
}

/// Removes a database with SQLite's additional files.
pub(crate) fn remove(path: &Path) -> std::io::Result<()> {
    // The database last: the other files are meaningless without it, but not vice versa.
    for path in [beside(path, "-wal"), beside(path, "-shm"), path.to_owned()] {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn open(path: &Path, cache_kib: u32, mmap_bytes: i64, meter: &Arc<Meter>) -> Result<Connection> {
    // Each connection is protected by our own mutex, so SQLite needs none.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = || -> rusqlite::Result<Connection> {
        let connection = Connection::open_with_flags(path, flags)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        // Otherwise SQLite would prepare a statement again whenever a bound of a range changes.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        connection.busy_timeout(BUSY_MAX)?;
        connection.execute_batch(&format!(
            "PRAGMA cache_size = -{cache_kib}; PRAGMA mmap_size = {mmap_bytes}; PRAGMA temp_store = MEMORY;"
        ))?;
        functions::register(&connection, meter)?;
        Ok(connection)
    };
    open().map_err(fault("open"))
}

/// Opens the file read-only, for work that keeps its connection.
pub(crate) fn open_reader(path: &Path) -> Result<Connection> {
    let connection = open(path, READER_CACHE_KIB, READER_MMAP_BYTES_MAX, &Arc::default())?;
    connection.pragma_update(None, "query_only", true).map_err(fault("open"))?;
    Ok(connection)
}

/// The version of the file if it is older and the file can be replaced. An error if the file cannot be used.
fn older_version(connection: &Connection, format: &Format) -> Result<Option<i32>> {
    let number = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let (id, version) =
        (number("application_id").map_err(fault("open"))?, number("user_version").map_err(fault("open"))?);
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0)).map_err(fault("open"))?;
    if id == 0 && version == 0 && tables == 0 {
        return Ok(None);
    }
    if id != format.id {
        return Err(DriverError::new(
            ErrorKind::Config,
            "open",
            format!("the file is not a Snaphook {}, set another `path`", format.name),
        ));
    }
    if version < format.version && format.derived {
        return Ok(Some(version));
    }
    if version != format.version {
        return Err(DriverError::new(
            ErrorKind::Config,
            "open",
            format!(
                "the file has format {version}, this Snaphook supports {}; use the Snaphook that wrote it, or a newer one",
                format.version
            ),
        ));
    }
    Ok(None)
}

fn prepare_writer(connection: &Connection, format: &Format) -> rusqlite::Result<()> {
    connection.execute_batch(&format!(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = {}; PRAGMA journal_size_limit = {WAL_BYTES_MAX}; \
         PRAGMA foreign_keys = OFF;",
        format.synchronous
    ))?;
    let id: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    if id == 0 {
        connection.execute_batch(&format!(
            "BEGIN IMMEDIATE; {} PRAGMA application_id = {}; PRAGMA user_version = {}; COMMIT;",
            format.schema, format.id, format.version
        ))?;
    }
    Ok(())
}

/// A pool of read connections. Taking one is cheap; a new one is only opened when all are in use.
pub(crate) struct Readers {
    path: PathBuf,
    pool: Mutex<Pool>,
    /// Notifies the thread that closes the pool when no reads are left.
    unused: Condvar,
}

#[derive(Default)]
struct Pool {
    idle: Vec<Metered>,
    in_use: usize,
    closed: bool,
}

/// A connection and the meter that its reads are charged to.
struct Metered {
    connection: Connection,
    meter: Arc<Meter>,
}

/// The outcome of a turn of a read.
pub(crate) enum Turn<T> {
    Done(T),
    /// The read exceeded its turn.
    Over,
}

/// How long closing a store waits for reads in progress. After that they continue; the last of them removes the log.
const CLOSE_WAIT_MAX: Duration = Duration::from_secs(5);

/// How many idle connections are kept; more are rarely in use at once.
const READERS_IDLE_MAX: usize = 8;

/// Page cache of one read connection in KiB. Other pages are probably in the system's cache.
const READER_CACHE_KIB: u32 = 2048;

impl Readers {
    pub(crate) fn new(path: &Path) -> Self {
        Readers { path: path.to_owned(), pool: Mutex::default(), unused: Condvar::new() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `work` with a connection on the caller's thread. For reads whose cost does not depend on clients.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        let mut reader = self.take()?;
        work(&reader.connection()?.connection)
    }

    /// Runs one turn of `work`, charged to the budget, on the caller's thread.
    pub(crate) fn turn<T>(
        &self,
        operation: &'static str,
        budget: &Budget,
        steps: Option<u64>,
        work: impl FnOnce(&Connection) -> Result<T>,
    ) -> Result<Turn<T>> {
        budget.check().map_err(|limit| limit.into_error(operation))?;
        let mut reader = self.take()?;
        let Metered { connection, meter } = reader.connection()?;
        meter.begin(budget, steps);
        let result = work(connection);
        match (meter.end(), result) {
            (Some(Stop::Exceeded(limit)), _) => Err(limit.into_error(operation)),
            (Some(Stop::Turn), _) => Ok(Turn::Over),
            (None, result) => result.map(Turn::Done),
        }
    }

    /// Closes idle connections and waits for those in use. Blocks.
    pub(crate) fn close(&self) {
        let mut pool = locked(&self.pool);
        pool.closed = true;
        pool.idle.clear();
        let waited = self.unused.wait_timeout_while(pool, CLOSE_WAIT_MAX, |pool| pool.in_use > 0);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    fn take(&self) -> Result<Reader<'_>> {
        let mut pool = locked(&self.pool);
        if pool.closed {
            return Err(DriverError::new(ErrorKind::Unavailable, "read", "the store is closed"));
        }
        pool.in_use += 1;
        Ok(Reader { readers: self, connection: pool.idle.pop() })
    }

    fn open(&self) -> Result<Metered> {
        let meter: Arc<Meter> = Arc::default();
        let mut connection = open(&self.path, READER_CACHE_KIB, READER_MMAP_BYTES_MAX, &meter)?;
        let charged = Arc::clone(&meter);
        let look = move || charged.charge(u64::from(STEPS_PER_LOOK)).is_err();
        connection
            .pragma_update(None, "query_only", true)
            .and_then(|()| connection.progress_handler(STEPS_PER_LOOK as i32, Some(look)))
            .map_err(fault("open"))?;
        Ok(Metered { connection, meter })
    }
}

/// A permit to read, released however the work ends.
struct Reader<'a> {
    readers: &'a Readers,
    connection: Option<Metered>,
}

impl Reader<'_> {
    fn connection(&mut self) -> Result<&Metered> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.readers.open()?,
        };
        Ok(self.connection.insert(connection))
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        let mut pool = locked(&self.readers.pool);
        let kept = !pool.closed && pool.idle.len() < READERS_IDLE_MAX;
        match self.connection.take() {
            Some(connection) if kept => pool.idle.push(connection),
            // Close the connection before the permit is released, so that a waiting `close` finds it closed.
            connection => drop(connection),
        }
        pool.in_use -= 1;
        if pool.closed && pool.in_use == 0 {
            self.readers.unused.notify_all();
        }
    }
}

/// A panic of an earlier holder never leaves the state inconsistent: SQLite rolls back uncommitted changes.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs work that may take long off the async threads, or on this thread if there is no runtime.
pub(crate) async fn off_thread<T: Send + 'static>(
    operation: &'static str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    if tokio::runtime::Handle::try_current().is_err() {
        return work();
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => {
            Err(DriverError::new(ErrorKind::Unexpected, operation, "the background task ended early").because(error))
        }
    }
}
