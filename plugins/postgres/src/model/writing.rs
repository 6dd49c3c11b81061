//! Transactions that change the store, one at a time across all nodes.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use snaphook_driver::{DriverError, ErrorKind, Position, Result};
use tokio::time::{Instant, timeout_at};
use tokio_postgres::Error;
use tokio_postgres::types::{ToSql, Type};

use super::open_models::OpenModels;
use super::registry::{Registry, StateRow};
use crate::fault::fault;
use crate::session::{Begin, Parameter, Session};
use crate::sql::Sql;

/// A statement with its parameters.
pub(super) struct BoundStatement<'a> {
    pub(super) sql: Sql,
    pub(super) parameters: Vec<Box<dyn ToSql + Sync + Send + 'a>>,
}

/// A transaction that holds the lock of all writers. Without a commit, nothing of it remains.
pub(super) struct Writing<'a> {
    shared: &'a OpenModels,
    pub(super) session: Session,
    operation: &'static str,
    pub(super) state: StateRow,
    pub(super) registry: Arc<Registry>,
    /// Whether the commit waits for the disk. A crash must not undo changes of definitions that nodes know, or table
    /// numbers would be assigned again.
    is_durable: bool,
}

/// Rows are found by their ids, however many there are.
const JOINS: &str = "; SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off";

impl<'a> Writing<'a> {
    pub(super) async fn begin(shared: &'a OpenModels, operation: &'static str, time: Duration) -> Result<Writing<'a>> {
        let database = &shared.database;
        let mut session = database.session_within(operation, time).await?;
        let left = session.deadline().saturating_duration_since(Instant::now());
        // A change of a model by another node may take long.
        let begin = format!("{}{JOINS}; SET LOCAL lock_timeout = {}", Begin::LAZY.text(left), left.as_millis().max(1));
        let lock = database.qualified("SELECT checkpoint, changes, numbers FROM @.model_state FOR UPDATE");
        session.sending();
        let client = session.client()?;
        let both = async { tokio::join!(client.batch_execute(&begin), client.query_typed(&lock, &[])) };
        let (begun, rows) = within(session.deadline(), operation, both).await?;
        begun.map_err(fault(operation))?;
        let state = StateRow::read(&rows.map_err(fault(operation))?, operation)?;
        session.sent(true);
        let mut writing = Writing { shared, session, operation, state, registry: shared.registry(), is_durable: false };
        if writing.registry.changes != state.changes {
            let registry = Registry::load(database, &mut writing.session, operation).await?;
            writing.registry = shared.publish(registry);
        }
        Ok(writing)
    }

    /// Assigns a number to a new table.
    pub(super) fn number(&mut self) -> u64 {
        self.state.numbers += 1;
        self.state.numbers
    }

    /// Records that the definitions have changed.
    pub(super) fn changed(&mut self) {
        self.state.changes += 1;
        self.is_durable = true;
    }

    pub(super) async fn execute(&mut self, text: &str, types: &[Type], parameters: &[Parameter<'_>]) -> Result<u64> {
        let sql = self.shared.database.sql(text, types);
        self.session.execute(&sql, parameters).await
    }

    pub(super) async fn query(
        &mut self,
        text: &str,
        types: &[Type],
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<tokio_postgres::Row>> {
        let sql = self.shared.database.sql(text, types);
        self.session.query(&sql, parameters).await
    }

    /// A statement without parameters.
    pub(super) async fn batch(&mut self, text: &str) -> Result<()> {
        self.session.batch(&self.shared.database.qualified(text)).await
    }

    pub(super) async fn run(&mut self, command: &BoundStatement<'_>) -> Result<u64> {
        let parameters: Vec<Parameter<'_>> = command.parameters.iter().map(|value| &**value as Parameter<'_>).collect();
        self.session.execute(&command.sql, &parameters).await
    }

    /// Ends the transaction without changes.
    pub(super) async fn leave(mut self) {
        self.session.end().await;
    }

    /// Sends the commands, the state and the commit, without waiting in between.
    pub(super) async fn commit(mut self, commands: &[BoundStatement<'_>], checkpoint: Option<Position>) -> Result<()> {
        if let Some(checkpoint) = checkpoint {
            self.state.checkpoint = checkpoint;
        }
        let save = self.shared.database.sql(
            "UPDATE @.model_state SET checkpoint = $1, changes = $2, numbers = $3",
            &[Type::INT8, Type::INT8, Type::INT8],
        );
        let StateRow { checkpoint, changes, numbers } = self.state;
        let state: [Box<dyn ToSql + Sync + Send>; 3] =
            [Box::new(checkpoint as i64), Box::new(changes), Box::new(numbers as i64)];
        let save = BoundStatement { sql: save, parameters: state.into() };
        let mut ready = Vec::with_capacity(commands.len() + 1);
        for command in commands.iter().chain([&save]) {
            let parameters: Vec<Parameter<'_>> =
                command.parameters.iter().map(|value| &**value as Parameter<'_>).collect();
            ready.push((self.session.ready(&command.sql).await?, parameters));
        }
        self.session.sending();
        let client = self.session.client()?;
        let mut all: Vec<Sent<'_>> = Vec::with_capacity(ready.len() + 1);
        for (statement, parameters) in &ready {
            all.push(Box::pin(async move { crate::session::send(client, statement, parameters).await.map(drop) }));
        }
        let commit = if self.is_durable { "SET LOCAL synchronous_commit = on; COMMIT" } else { "COMMIT" };
        all.push(Box::pin(client.batch_execute(commit)));
        within(self.session.deadline(), self.operation, together(all)).await?.map_err(fault(self.operation))?;
        drop(ready);
        self.session.sent(false);
        Ok(())
    }
}

type Sent<'a> = Pin<Box<dyn Future<Output = Result<(), Error>> + Send + 'a>>;

/// Waits for all, and returns the first error in their order.
async fn together(futures: Vec<Sent<'_>>) -> Result<(), Error> {
    let mut waiting: Vec<Result<Sent<'_>, Result<(), Error>>> = futures.into_iter().map(Ok).collect();
    std::future::poll_fn(|context| {
        let mut pending = false;
        for slot in &mut waiting {
            if let Ok(future) = slot {
                match future.as_mut().poll(context) {
                    Poll::Ready(result) => *slot = Err(result),
                    Poll::Pending => pending = true,
                }
            }
        }
        if pending { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    waiting.into_iter().try_for_each(|slot| slot.err().unwrap_or(Ok(())))
}

/// Waits for work until the deadline.
pub(super) async fn within<T>(deadline: Instant, operation: &'static str, work: impl Future<Output = T>) -> Result<T> {
    timeout_at(deadline, work)
        .await
        .map_err(|_| DriverError::new(ErrorKind::Unavailable, operation, "PostgreSQL did not respond in time"))
}
