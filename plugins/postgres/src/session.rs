//! One connection for one call: its deadline, its transaction, and what becomes of it afterwards.
//!
//! A connection goes back to its owner only if it is known to wait for the next statement. If a call fails or is dropped in
//! the middle of a statement or a transaction, the connection is closed, which takes the transaction back; the server is
//! asked to give up what it was at.

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

/// How long asking the server to give up may take.
const CANCEL_TIME: Duration = Duration::from_secs(2);

pub(crate) type Parameter<'a> = &'a (dyn ToSql + Sync);

/// See the head of the file.
pub(crate) struct Session {
    /// `None` once it is given back or closed.
    held: Option<Held>,
    link: Arc<Link>,
    operation: &'static str,
    deadline: Instant,
    state: SessionState,
    /// Whether the server is asked to give up what is under way when the session ends.
    cancels: bool,
}

/// Who gets the connection afterwards.
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
    /// A statement is under way, or the connection failed.
    Busy,
}

/// How a transaction is begun.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begin {
    /// Whether its commit waits for the disk.
    pub(crate) durable: bool,
    /// One moment for all its statements, and nothing is written.
    pub(crate) snapshot: bool,
    /// How long it may wait for the next statement before the server ends it: this is how long a node that stands still
    /// holds up the others.
    pub(crate) idle: Duration,
}

impl Begin {
    pub(crate) const DURABLE: Begin = Begin { durable: true, snapshot: false, idle: Duration::from_secs(10) };
    pub(crate) const LAZY: Begin = Begin { durable: false, ..Begin::DURABLE };
    pub(crate) const SNAPSHOT: Begin = Begin { snapshot: true, idle: Duration::from_secs(30 * 60), ..Begin::LAZY };

    /// The statements, for a call that must end within that time.
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

    /// What is under way when the session ends goes on to its end.
    pub(crate) fn uncancelled(&mut self) {
        self.cancels = false;
    }

    /// From now on it may take so long.
    pub(crate) fn extend(&mut self, operation: &'static str, time: Duration) {
        (self.operation, self.deadline) = (operation, Instant::now() + time);
    }

    /// Whether the connection itself is of no more use.
    pub(crate) fn is_broken(&self) -> bool {
        self.held.as_ref().is_none_or(|held| held.is_closed())
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The connection itself, for statements that are sent without waiting for each other; between
    /// [`Session::sending`] and [`Session::sent`].
    pub(crate) fn client(&self) -> Result<&ClientWrapper> {
        match &self.held {
            Some(held) => Ok(held),
            None => Err(DriverError::new(ErrorKind::Unavailable, self.operation, "the connection was given up")),
        }
    }

    /// Prepares a statement, or finds that it was.
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

    /// The only row; every statement that this is used for has one.
    pub(crate) async fn one(&mut self, sql: &Sql, parameters: &[Parameter<'_>]) -> Result<Row> {
        let rows = self.query(sql, parameters).await?;
        self.only(rows)
    }

    /// The same of rows that are there.
    pub(crate) fn only(&self, mut rows: Vec<Row>) -> Result<Row> {
        rows.pop().ok_or_else(|| {
            let message = "something removed a row of Snaphook from the database; restore it from a backup";
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

    /// Two statements as a transaction of their own, in one round trip: what the first one locks is not held while anything
    /// travels. If it is not answered it may have been carried out.
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
                // Of a transaction that failed it is the end.
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

    /// How many rows a statement changed.
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

    /// Statements without parameters and without rows that matter.
    pub(crate) async fn batch(&mut self, text: &str) -> Result<()> {
        let before = self.state;
        self.state = SessionState::Busy;
        let done = timeout_at(self.deadline, self.client()?.batch_execute(text)).await;
        self.ended(before, done)
    }

    pub(crate) async fn begin(&mut self, begin: Begin) -> Result<()> {
        let text = begin.text(self.deadline.saturating_duration_since(Instant::now()));
        let begun = self.batch(&text).await;
        // If it failed after the first of its statements, the connection is in a transaction that failed.
        self.state = if begun.is_ok() { SessionState::Open } else { SessionState::Busy };
        begun
    }

    /// A commit that is not answered may have been carried out.
    pub(crate) async fn commit(&mut self) -> Result<()> {
        if let Err(error) = self.batch("COMMIT").await {
            let is_known = error.kind() != ErrorKind::Unavailable;
            return Err(if is_known { error } else { error.as_kind(ErrorKind::Uncertain) });
        }
        self.state = SessionState::Idle;
        Ok(())
    }

    /// Ends a transaction that only read. If that fails, or a statement is still under way, the connection is closed.
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

    /// The caller sends statements by itself; if it never says [`Session::sent`], the connection is closed.
    pub(crate) fn sending(&mut self) {
        self.state = SessionState::Busy;
    }

    /// All statements were answered; `is_open`: in a transaction.
    pub(crate) fn sent(&mut self, is_open: bool) {
        self.state = if is_open { SessionState::Open } else { SessionState::Idle };
    }

    /// Waits for what was sent, until the deadline.
    pub(crate) async fn within<T>(&self, sent: impl Future<Output = Result<T, Error>>) -> Result<T> {
        match timeout_at(self.deadline, sent).await {
            Ok(answer) => answer.map_err(fault(self.operation)),
            Err(_) => Err(self.late()),
        }
    }

    /// Takes what [`Session::within`] gave; `is_open`: in a transaction, if it succeeded.
    pub(crate) fn answered<T>(&mut self, answer: Result<T>, is_open: bool) -> Result<T> {
        let value = answer?;
        self.sent(is_open);
        Ok(value)
    }

    pub(crate) fn fault(&self, error: Error) -> DriverError {
        fault(self.operation)(error)
    }

    fn late(&self) -> DriverError {
        DriverError::new(ErrorKind::Unavailable, self.operation, "PostgreSQL did not answer in time")
    }

    /// The connection of [`Held::Own`], if it can be used again.
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
                // Not in a transaction, and not if the connection fails in other ways than by what the server says.
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
