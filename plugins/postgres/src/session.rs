//! One connection for one call, with its deadline and its transaction.
//!
//! A connection is returned to its owner only if it is certainly ready for the next statement. If a call fails or is
//! dropped during a statement or a transaction, the connection is closed, which rolls back the transaction, and the
//! server is asked to cancel the statement.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{ClientWrapper, Object};
use snaphook_driver::{DriverError, ErrorKind, Result};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Error, Row, Statement};

use crate::fault::{fault, is_stale};
use crate::link::Link;
use crate::sql::Sql;

/// Timeout of a cancel request.
const CANCEL_TIME: Duration = Duration::from_secs(2);

pub(crate) type Parameter<'a> = &'a (dyn ToSql + Sync);

/// See the module's documentation.
pub(crate) struct Session {
    /// `None` once the connection is returned or closed.
    held: Option<Held>,
    link: Arc<Link>,
    operation: &'static str,
    deadline: Instant,
    state: SessionState,
    /// Whether a statement in progress is cancelled when the session ends.
    cancels: bool,
}

/// A connection, by the owner to which it is returned.
pub(crate) enum Held {
    Pooled(Object),
    Own(ClientWrapper),
}

impl Deref for Held {
    type Target = ClientWrapper;

    fn deref(&self) -> &ClientWrapper {
        match self {
            Held::Pooled(object) => object,
            Held::Own(client) => client,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SessionState {
    Idle,
    /// In a transaction, between statements.
    Open,
    /// A statement is in progress, or the connection failed.
    Busy,
}

/// How to begin a transaction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begin {
    /// Whether its commit waits for the disk.
    pub(crate) durable: bool,
    /// All statements see one snapshot, and nothing is written.
    pub(crate) snapshot: bool,
    /// How long the server waits for the next statement before it ends the transaction. For that time, a node that
    /// hangs can block the others.
    pub(crate) idle: Duration,
}

impl Begin {
    pub(crate) const DURABLE: Begin = Begin { durable: true, snapshot: false, idle: Duration::from_secs(10) };
    pub(crate) const LAZY: Begin = Begin { durable: false, ..Begin::DURABLE };
    pub(crate) const SNAPSHOT: Begin = Begin { snapshot: true, idle: Duration::from_secs(30 * 60), ..Begin::LAZY };

    /// The statements that begin a transaction, for a call that must end within `time`.
    pub(crate) fn text(self, time: Duration) -> String {
        let begin = if self.snapshot { "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY" } else { "BEGIN" };
        let commit = match (self.snapshot, self.durable) {
            (true, _) => "",
            (false, false) => "; SET LOCAL synchronous_commit = off",
            (false, true) => {
                "; SELECT set_config('synchronous_commit', 'on', true) \
                 WHERE current_setting('synchronous_commit') NOT IN ('on', 'remote_apply')"
            }
        };
        format!(
            "{begin}; SET LOCAL statement_timeout = {}; SET LOCAL lock_timeout = {}; \
             SET LOCAL idle_in_transaction_session_timeout = {}{commit}",
            time.as_millis().max(1),
            time.as_millis().clamp(1, 20_000),
            self.idle.as_millis(),
        )
    }
}

/// A statement that can be sent at once.
pub(crate) enum Ready<'s> {
    Prepared(Statement),
    Typed(&'s Sql),
}

impl Session {
    pub(crate) fn new(held: Held, link: &Arc<Link>, operation: &'static str, deadline: Instant) -> Session {
        Session {
            held: Some(held),
            link: Arc::clone(link),
            operation,
            deadline,
            state: SessionState::Idle,
            cancels: true,
        }
    }

    /// A statement in progress when the session ends is not cancelled.
    pub(crate) fn uncancelled(&mut self) {
        self.cancels = false;
    }

    /// Begins the timeout of another operation.
    pub(crate) fn extend(&mut self, operation: &'static str, time: Duration) {
        (self.operation, self.deadline) = (operation, Instant::now() + time);
    }

    /// Whether the connection itself is unusable.
    pub(crate) fn is_broken(&self) -> bool {
        self.held.as_ref().is_none_or(|held| held.is_closed())
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The connection itself, for statements that are sent without waiting for each other. Only between
    /// [`Session::sending`] and [`Session::sent`].
    pub(crate) fn client(&self) -> Result<&ClientWrapper> {
        match &self.held {
            Some(held) => Ok(held),
            None => Err(DriverError::new(ErrorKind::Unavailable, self.operation, "the connection was abandoned")),
        }
    }

    /// Prepares a statement, unless it is already prepared.
    pub(crate) async fn ready<'s>(&mut self, sql: &'s Sql) -> Result<Ready<'s>> {
        if self.link.pgbouncer {
            return Ok(Ready::Typed(sql));
        }
        let before = self.state;
        self.state = SessionState::Busy;
        let client = self.client()?;
        let prepared = timeout_at(self.deadline, client.prepare_typed_cached(&sql.text, &sql.types)).await;
        self.ended(before, prepared).map(Ready::Prepared)
    }

    pub(crate) async fn query(&mut self, sql: &Sql, parameters: &[Parameter<'_>]) -> Result<Vec<Row>> {
        let ready = self.ready(sql).await?;
        let before = self.state;
        self.state = SessionState::Busy;
        let rows = timeout_at(self.deadline, send(self.client()?, &ready, parameters)).await;
        self.ended(before, rows)
    }

    /// The only row of a statement that always has one.
    pub(crate) async fn one(&mut self, sql: &Sql, parameters: &[Parameter<'_>]) -> Result<Row> {
        let rows = self.query(sql, parameters).await?;
        self.only(rows)
    }

    /// The same for rows that were already read.
    pub(crate) fn only(&self, mut rows: Vec<Row>) -> Result<Row> {
        rows.pop().ok_or_else(|| {
            let message = "a row of Snaphook is missing from the database; restore it from a backup";
            DriverError::new(ErrorKind::Corrupt, self.operation, message)
        })
    }

    /// Two statements in one round trip.
    pub(crate) async fn both(
        &mut self,
        (first, first_values): (&Sql, &[Parameter<'_>]),
        (second, second_values): (&Sql, &[Parameter<'_>]),
    ) -> Result<(Vec<Row>, Vec<Row>)> {
        let (first, second) = (self.ready(first).await?, self.ready(second).await?);
        let before = self.state;
        self.state = SessionState::Busy;
        let client = self.client()?;
        let sent = async {
            let (first, second) = tokio::join!(
                biased;
                send(client, &first, first_values),
                send(client, &second, second_values),
            );
            Ok((first?, second?))
        };
        let rows = timeout_at(self.deadline, sent).await;
        self.ended(before, rows)
    }

    /// Two statements as a transaction, in one round trip, so that network delays do not prolong the locks of the first
    /// one. Without a response, the transaction may have been carried out.
    pub(crate) async fn transact(
        &mut self,
        begin: Begin,
        (first, first_values): (&Sql, &[Parameter<'_>]),
        (second, second_values): (&Sql, &[Parameter<'_>]),
    ) -> Result<(Vec<Row>, Vec<Row>)> {
        let (first, second) = (self.ready(first).await?, self.ready(second).await?);
        let begin = begin.text(self.deadline.saturating_duration_since(Instant::now()));
        let before = self.state;
        self.state = SessionState::Busy;
        let client = self.client()?;
        let sent = async {
            let (begun, first, second, committed) = tokio::join!(
                biased;
                client.batch_execute(&begin),
                send(client, &first, first_values),
                send(client, &second, second_values),
                // If the transaction failed, this ends it.
                client.batch_execute("COMMIT"),
            );
            begun?;
            let rows = (first?, second?);
            committed.map(|()| rows)
        };
        let rows = timeout_at(self.deadline, sent).await;
        self.ended(before, rows).map_err(|error| match error.kind() {
            ErrorKind::Unavailable => error.as_kind(ErrorKind::Uncertain),
            _ => error,
        })
    }

    /// Executes a statement; returns how many rows it changed.
    pub(crate) async fn execute(&mut self, sql: &Sql, parameters: &[Parameter<'_>]) -> Result<u64> {
        let ready = self.ready(sql).await?;
        let before = self.state;
        self.state = SessionState::Busy;
        let client = self.client()?;
        let work = async {
            match &ready {
                Ready::Prepared(statement) => client.execute(statement, parameters).await,
                Ready::Typed(sql) => client.execute_typed(&sql.text, &typed(sql, parameters)).await,
            }
        };
        let count = timeout_at(self.deadline, work).await;
        self.ended(before, count)
    }

    /// Executes statements without parameters, and ignores their rows.
    pub(crate) async fn batch(&mut self, text: &str) -> Result<()> {
        let before = self.state;
        self.state = SessionState::Busy;
        let done = timeout_at(self.deadline, self.client()?.batch_execute(text)).await;
        self.ended(before, done)
    }

    pub(crate) async fn begin(&mut self, begin: Begin) -> Result<()> {
        let text = begin.text(self.deadline.saturating_duration_since(Instant::now()));
        let begun = self.batch(&text).await;
        // If a statement after the first one failed, the connection is in a failed transaction.
        self.state = if begun.is_ok() { SessionState::Open } else { SessionState::Busy };
        begun
    }

    /// A commit without a response may have been carried out.
    pub(crate) async fn commit(&mut self) -> Result<()> {
        if let Err(error) = self.batch("COMMIT").await {
            let is_known = error.kind() != ErrorKind::Unavailable;
            return Err(if is_known { error } else { error.as_kind(ErrorKind::Uncertain) });
        }
        self.state = SessionState::Idle;
        Ok(())
    }

    /// Ends a read-only transaction. If that fails, or a statement is still in progress, the connection is closed.
    pub(crate) async fn end(&mut self) {
        if self.state == SessionState::Open {
            let _ = self.rollback().await;
        }
    }

    pub(crate) async fn rollback(&mut self) -> Result<()> {
        self.batch("ROLLBACK").await?;
        self.state = SessionState::Idle;
        Ok(())
    }

    /// The caller sends statements itself. Without a call of [`Session::sent`], the connection is closed.
    pub(crate) fn sending(&mut self) {
        self.state = SessionState::Busy;
    }

    /// All responses have arrived; `is_open`: in a transaction.
    pub(crate) fn sent(&mut self, is_open: bool) {
        self.state = if is_open { SessionState::Open } else { SessionState::Idle };
    }

    /// Waits for responses, until the deadline.
    pub(crate) async fn within<T>(&self, sent: impl Future<Output = Result<T, Error>>) -> Result<T> {
        match timeout_at(self.deadline, sent).await {
            Ok(answer) => answer.map_err(fault(self.operation)),
            Err(_) => Err(self.late()),
        }
    }

    /// Records the result of [`Session::within`]; `is_open`: in a transaction, if it succeeded.
    pub(crate) fn answered<T>(&mut self, answer: Result<T>, is_open: bool) -> Result<T> {
        let value = answer?;
        self.sent(is_open);
        Ok(value)
    }

    pub(crate) fn fault(&self, error: Error) -> DriverError {
        fault(self.operation)(error)
    }

    fn late(&self) -> DriverError {
        DriverError::new(ErrorKind::Unavailable, self.operation, "PostgreSQL did not respond in time")
    }

    /// The connection of [`Held::Own`], if it is still usable.
    pub(crate) fn into_own(mut self) -> Option<ClientWrapper> {
        match self.held.take() {
            Some(Held::Own(client)) if self.state == SessionState::Idle && !client.is_closed() => Some(client),
            held => {
                self.held = held;
                None
            }
        }
    }

    fn ended<T>(
        &mut self,
        before: SessionState,
        result: Result<Result<T, Error>, tokio::time::error::Elapsed>,
    ) -> Result<T> {
        match result {
            Ok(Ok(value)) => {
                self.state = before;
                Ok(value)
            }
            Ok(Err(error)) => {
                // Usable only outside of a transaction, and only if the server itself reported the error.
                let is_usable = error.as_db_error().is_some() && !error.is_closed() && !is_stale(&error);
                if before == SessionState::Idle && is_usable {
                    self.state = before;
                }
                Err(fault(self.operation)(error))
            }
            Err(_) => Err(self.late()),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let Some(held) = self.held.take() else { return };
        if self.state == SessionState::Idle {
            return;
        }
        if self.cancels
            && self.state == SessionState::Busy
            && !held.is_closed()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let (token, link) = (held.cancel_token(), Arc::clone(&self.link));
            runtime.spawn(async move { drop(timeout(CANCEL_TIME, link.tls.cancel(token)).await) });
        }
        if let Held::Pooled(object) = held {
            drop(Object::take(object));
        }
    }
}

/// Sends a statement and reads its rows.
pub(crate) async fn send(
    client: &ClientWrapper,
    ready: &Ready<'_>,
    parameters: &[Parameter<'_>],
) -> Result<Vec<Row>, Error> {
    match ready {
        Ready::Prepared(statement) => client.query(statement, parameters).await,
        Ready::Typed(sql) => client.query_typed(&sql.text, &typed(sql, parameters)).await,
    }
}

fn typed<'a>(sql: &Sql, parameters: &[Parameter<'a>]) -> Vec<(Parameter<'a>, Type)> {
    parameters.iter().copied().zip(sql.types.iter().cloned()).collect()
}
