//! The event store: the log, its claims, blobs and consumer groups, in tables that several nodes share.

mod append;
mod blobs;
mod claims;
mod deliveries;
mod export;
mod groups;
mod import;
mod nodes;
mod plan;
#[cfg(test)]
mod plan_tests;
mod read;
mod row;
mod tables;
mod tails;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use snaphook_driver::{
    Append, Appended, Capabilities, Conflict, Delivery, DriverError, ErrorKind, Event, EventPage, EventQuery,
    EventStore, Group, Holder, LogExport, LogRecord, Node, OpenContext, Position, Result, Stream, new_log_identity,
};
use tokio_postgres::types::Type;

use crate::config::Durability;
use crate::connection::Database;
use crate::migrate::migrate;
use crate::session::{Begin, Session};
use append::Appender;
use blobs::Blobs;
use claims::Claims;
use deliveries::Deliveries;
use export::Export;
use groups::Groups;
use import::Import;
use nodes::Nodes;
use read::Reader;

/// See the crate's documentation.
pub struct PostgresEventStore {
    database: Arc<Database>,
    identity: String,
    appender: Appender,
    reader: Reader,
    claims: Claims,
    groups: Groups,
    deliveries: Deliveries,
    import: Import,
    blobs: Blobs,
    nodes: Nodes,
    /// Whether the last append failed.
    failed: AtomicBool,
    closed: AtomicBool,
}

impl PostgresEventStore {
    /// Opens the log in the schema of the connection, and creates its tables if they are missing.
    pub async fn open(context: &OpenContext) -> Result<Self> {
        let database = Database::open(context).await?;
        migrate(&database, &tables::TABLES).await?;
        let mut session = database.session("open").await?;
        session.begin(Begin::DURABLE).await?;
        check_durability(&database, &mut session).await?;
        let make = database.sql(
            "INSERT INTO @.log(one, identity, head, time, next_removal, importing)
             VALUES (true, $1, 0, $2, $2, false) ON CONFLICT DO NOTHING",
            &[Type::TEXT, Type::INT8],
        );
        session.execute(&make, &[&new_log_identity(), &i64::MIN]).await?;
        let find = database.sql("SELECT identity, importing, nextval('@.tokens') FROM @.log", &[]);
        let row = session.one(&find, &[]).await?;
        let (identity, is_part, owner): (String, bool, i64) = (row.get(0), row.get(1), row.get(2));
        session.commit().await?;
        if is_part && !context.resumes_import {
            return Err(import::part_of_a_log("open").with("schema", database.schema()));
        }
        let claims = Claims::new(&database);
        Ok(PostgresEventStore {
            appender: Appender::new(&database, &claims, database.heads(), &identity),
            reader: Reader::new(&database),
            groups: Groups::new(&database),
            deliveries: Deliveries::new(&database, owner),
            import: Import::new(&database, &claims),
            blobs: Blobs::new(&database),
            nodes: Nodes::new(&database),
            failed: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            claims,
            identity,
            database,
        })
    }

    fn check_open(&self, operation: &'static str) -> Result<()> {
        match self.closed.load(Ordering::Acquire) {
            false => Ok(()),
            true => Err(DriverError::new(ErrorKind::Unavailable, operation, "the store is closed")),
        }
    }
}

/// Checks that a commit is on disk when it is acknowledged.
async fn check_durability(database: &Database, session: &mut Session) -> Result<()> {
    if database.durability() == Durability::Lazy {
        return Ok(());
    }
    let sql = database.sql("SELECT current_setting('fsync') = 'on', current_setting('full_page_writes') = 'on'", &[]);
    let row = session.one(&sql, &[]).await?;
    if !row.get::<_, bool>(0) {
        let message = "the server runs with `fsync = off`, so events may be lost when it crashes; turn it on, or set \
                       `durability = 'lazy'` for data that may be lost";
        return Err(DriverError::new(ErrorKind::Config, "open", message));
    }
    if !row.get::<_, bool>(1) {
        tracing::warn!(
            "PostgreSQL runs with `full_page_writes = off`, which is safe only on file systems that write pages as a whole"
        );
    }
    Ok(())
}

#[async_trait]
impl EventStore for PostgresEventStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            atomic_batch: true,
            durable: true,
            shared: true,
            ordered_claims: true,
            batch_bytes_max: append::BATCH_BYTES_MAX,
            ..Capabilities::LEAST
        }
    }

    fn identity(&self) -> &str {
        &self.identity
    }

    async fn health(&self) -> Result<()> {
        if !self.failed.load(Ordering::Acquire) {
            return self.reader.head("health").await.map(drop);
        }
        let head = self.appender.probe().await?;
        self.database.heads().publish(head);
        self.failed.store(false, Ordering::Release);
        Ok(())
    }

    async fn close(&self) -> Result<()> {
        if self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        self.appender.close().await;
        self.deliveries.give_back().await
    }

    async fn append(&self, batch: &[Append], atomic: bool) -> Result<Vec<Result<Appended, Conflict>>> {
        self.check_open("append")?;
        // Stays set if the call is dropped.
        self.failed.store(true, Ordering::Release);
        let answers = self.appender.append(batch, atomic).await;
        self.failed.store(answers.is_err(), Ordering::Release);
        answers
    }

    async fn read(&self, query: &EventQuery, wait: Option<Duration>) -> Result<EventPage> {
        self.reader.read(query, wait).await
    }

    async fn last(&self, stream: &Stream, at_most: Position) -> Result<Option<Event>> {
        self.reader.last_but("last", stream, at_most, 0).await
    }

    async fn last_but(&self, stream: &Stream, at_most: Position, skip: u64) -> Result<Option<Event>> {
        self.reader.last_but("last_but", stream, at_most, skip).await
    }

    async fn head(&self) -> Result<Position> {
        self.reader.head("head").await
    }

    async fn reserve(&self, keys: &[(String, Stream)]) -> Result<Vec<(usize, Holder)>> {
        self.claims.reserve(&self.database, keys).await
    }

    async fn forget_claims(&self, prefix: &str, limit: u32) -> Result<u64> {
        self.claims.forget(&self.database, prefix, limit).await
    }

    async fn next_claim(&self, from: &str) -> Result<Option<String>> {
        self.claims.next(&self.database, from).await
    }

    async fn holder(&self, key: &str) -> Result<Option<Holder>> {
        self.claims.holder(&self.database, key).await
    }

    async fn create_group(&self, group: &Group, start: Position) -> Result<()> {
        self.groups.create(group, start).await
    }

    async fn drop_group(&self, name: &str) -> Result<()> {
        self.groups.remove(name).await
    }

    async fn groups(&self) -> Result<Vec<String>> {
        self.groups.names().await
    }

    async fn announce(&self, node: &Node, keep: Duration) -> Result<()> {
        self.nodes.announce(node, keep).await
    }

    async fn nodes(&self) -> Result<Vec<Node>> {
        self.nodes.all().await
    }

    async fn claim(&self, group: &str, limit: u32, lease: Duration) -> Result<Vec<Delivery>> {
        self.check_open("claim")?;
        self.deliveries.claim(group, limit, lease).await
    }

    async fn ack(&self, group: &str, done: &[(Position, u64)]) -> Result<()> {
        self.deliveries.ack(group, done).await
    }

    async fn release(
        &self,
        group: &str,
        position: Position,
        token: u64,
        delay: Duration,
        note: Option<&str>,
    ) -> Result<()> {
        self.deliveries.release(group, position, token, delay, note).await
    }

    async fn renew(
        &self,
        group: &str,
        position: Position,
        token: u64,
        lease: Duration,
        note: Option<&str>,
    ) -> Result<bool> {
        self.deliveries.renew(group, position, token, lease, note).await
    }

    async fn is_done(&self, group: &str, stream: &Stream, position: Position) -> Result<bool> {
        self.groups.is_done(group, stream, position).await
    }

    async fn lag(&self, group: &str) -> Result<(u64, Position)> {
        self.groups.lag(group).await
    }

    async fn put_blob(&self, sha256: &str, bytes: &[u8]) -> Result<()> {
        self.blobs.put(sha256, bytes).await
    }

    async fn get_blob(&self, sha256: &str) -> Result<Option<Vec<u8>>> {
        self.blobs.get(sha256).await
    }

    async fn export(&self) -> Result<Box<dyn LogExport>> {
        Ok(Box::new(Export::begin(&self.database).await?))
    }

    async fn import(&self, records: &[LogRecord]) -> Result<()> {
        self.import.import(records).await
    }

    async fn finish_import(&self) -> Result<()> {
        self.import.finish().await
    }
}
