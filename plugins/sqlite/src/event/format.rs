//! The tables of the log's file, and of a node's copy of a shared log.

use rusqlite::{Connection, OptionalExtension as _};
use snaphook_driver::judge::LogEnd;
use snaphook_driver::new_log_identity;
use snaphook_driver::time::Millis;

use crate::database::Format;

/// Events, claims and blobs. The index `events_stream` serves a stream's last event and its history, `events_model`
/// serves a model's events in order, and `events_definitions` the start of the server.
///
/// `log` has one row with the log's identity, which is created when a file without it is opened.
///
/// `models` maps a model's id to a small number. `instance` and `id` contain 16 bytes for a UUID, otherwise text;
/// columns that are long or rarely read come last.
pub(super) const FORMAT: Format = Format {
    name: "event log",
    id: 0x534e_4845, // "SNHE"
    version: 1,
    schema: EVENTS,
    synchronous: "FULL",
    cache_kib: 16 * 1024,
    log_pages: 16384,
    settles: false,
    derived: false,
};

const EVENTS: &str = "
    CREATE TABLE models(number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
    CREATE TABLE events(
        position INTEGER PRIMARY KEY,
        model INTEGER NOT NULL,
        instance,
        kind INTEGER NOT NULL,
        model_version INTEGER NOT NULL,
        revision INTEGER NOT NULL,
        time INTEGER NOT NULL,
        id NOT NULL,
        request_id, actor TEXT, cause TEXT, hooks TEXT, data TEXT, trace TEXT);
    CREATE INDEX events_stream ON events(model, instance);
    CREATE INDEX events_model ON events(model);
    CREATE INDEX events_definitions ON events(position) WHERE instance IS NULL;
    CREATE TABLE claims(
        key TEXT PRIMARY KEY, model TEXT NOT NULL, instance TEXT, position INTEGER NOT NULL,
        expires INTEGER, value TEXT) WITHOUT ROWID;
    CREATE INDEX claims_expires ON claims(expires) WHERE expires IS NOT NULL;
    CREATE TABLE blobs(sha256 TEXT PRIMARY KEY, bytes BLOB NOT NULL);";

pub(super) const LOG: &str =
    "CREATE TABLE IF NOT EXISTS log(one INTEGER PRIMARY KEY CHECK (one = 1), identity TEXT NOT NULL)";

/// The file's position: the sequence number of the last change, its writer and counter, and when expired claims are
/// removed next.
const REPLICA: &str = "
    CREATE TABLE replica(one INTEGER PRIMARY KEY CHECK (one = 1), id TEXT NOT NULL, sequence INTEGER NOT NULL,
        writer TEXT NOT NULL, counter INTEGER NOT NULL, next_removal INTEGER NOT NULL);
    CREATE TABLE writers(name TEXT PRIMARY KEY, counter INTEGER NOT NULL) WITHOUT ROWID;";

/// Tables of the log as in a file of the driver `sqlite`, the log's identity, and the file's position.
pub(super) fn replica() -> &'static Format {
    static FORMAT: std::sync::OnceLock<Format> = std::sync::OnceLock::new();
    static SCHEMA: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    FORMAT.get_or_init(|| Format {
        name: "copy of a shared event log",
        id: 0x534e_484e, // "SNHN"
        version: 1,
        schema: SCHEMA.get_or_init(|| format!("{EVENTS}{};{}", LOG, REPLICA)),
        // The shared log contains everything; after a power failure the file may be older, but it is consistent.
        synchronous: "NORMAL",
        cache_kib: 16 * 1024,
        log_pages: 16384,
        settles: false,
        derived: true,
    })
}

/// Reads the log's identity; a new log gets one now.
pub(super) fn identity(connection: &Connection) -> rusqlite::Result<String> {
    connection.execute_batch(LOG)?;
    connection.execute("INSERT INTO log(one, identity) VALUES (1, ?1) ON CONFLICT DO NOTHING", [new_log_identity()])?;
    connection.query_row("SELECT identity FROM log", [], |row| row.get(0))
}

/// When expired claims are removed next; at once if the file does not contain it.
pub(super) fn next_removal(connection: &Connection) -> rusqlite::Result<Millis> {
    let is_replica: bool =
        connection
            .query_row("SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = 'replica')", [], |row| row.get(0))?;
    if !is_replica {
        return Ok(LogEnd::EMPTY.next_removal);
    }
    let kept = connection.query_row("SELECT next_removal FROM replica", [], |row| row.get(0)).optional()?;
    Ok(kept.unwrap_or(LogEnd::EMPTY.next_removal))
}

/// Adds the columns to files that were created before claims could expire; older programs ignore them.
pub(super) fn add_expiry(connection: &Connection) -> rusqlite::Result<()> {
    let found: bool =
        connection.query_row("SELECT count(*) FROM pragma_table_info('claims') WHERE name = 'expires'", [], |row| {
            row.get(0)
        })?;
    if found {
        return Ok(());
    }
    connection.execute_batch(
        "BEGIN IMMEDIATE;
         ALTER TABLE claims ADD COLUMN expires INTEGER;
         ALTER TABLE claims ADD COLUMN value TEXT;
         CREATE INDEX claims_expires ON claims(expires) WHERE expires IS NOT NULL;
         COMMIT;",
    )
}

/// Adds the column to files that were created before events had a trace context; older programs ignore it.
pub(super) fn add_trace(connection: &Connection) -> rusqlite::Result<()> {
    let found: bool =
        connection
            .query_row("SELECT count(*) FROM pragma_table_info('events') WHERE name = 'trace'", [], |row| row.get(0))?;
    match found {
        true => Ok(()),
        false => connection.execute_batch("ALTER TABLE events ADD COLUMN trace TEXT"),
    }
}
