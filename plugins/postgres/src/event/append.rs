//! Appends: two round trips per batch, on a dedicated connection.
//!
//! The first one locks the row of the log and reads everything that the judge needs. Then the SDK's judge decides about
//! the batch. The second one writes it and commits. If the connection breaks during the second one, the outcome is
//! looked up ([`OutcomeSql`]).

mod look;
mod outcome;
mod write;

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::ClientWrapper;
use snaphook_driver::judge::{Judged, judge};
use snaphook_driver::{Append, Appended, Conflict, DriverError, ErrorKind, Position, Result};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until, timeout_at};

use self::look::{Look, Looked};
use self::outcome::OutcomeSql;
use self::write::{Write, Written};
use super::claims::Claims;
use crate::connection::Database;
use crate::heads::Heads;
use crate::session::{Begin, Session};

/// Timeout of the two round trips, including waiting for other nodes.
const ATTEMPT_TIME: Duration = Duration::from_secs(12);

/// Timeout of an append, including finding out an unknown outcome.
const APPEND_TIME: Duration = Duration::from_secs(26);

/// Maximum size of the data in one batch: PostgreSQL accepts less than 1 GiB in one message.
pub(super) const BATCH_BYTES_MAX: u64 = 256 << 20;

/// How long a node that hangs between the two round trips can block the others.
const BEGIN: Begin = Begin { idle: Duration::from_secs(5), ..Begin::DURABLE };

/// The same for a connection that is used only for appends, so that its transactions need not set it. There is no
/// statement timeout: a statement ends with the connection, and a commit that is cancelled while it waits for a standby
/// counts as done.
const SETUP: &str =
    "SET lock_timeout = '10s'; SET idle_in_transaction_session_timeout = '5s'; SET statement_timeout = 0";

/// Appends batches, one at a time.
pub(super) struct Appender {
    database: Arc<Database>,
    heads: Arc<Heads>,
    identity: String,
    look: Look,
    write: Write,
    outcome: OutcomeSql,
    /// Kept for the next append.
    connection: Mutex<Option<ClientWrapper>>,
}

/// Why an attempt failed.
enum Failed {
    /// Nothing of the batch is stored.
    Before(DriverError),
    /// The batch may be stored, with these results.
    Perhaps(DriverError, Vec<Result<Appended, Conflict>>),
}

impl Appender {
    pub(super) fn new(database: &Arc<Database>, claims: &Claims, heads: &Arc<Heads>, identity: &str) -> Appender {
        Appender {
            database: Arc::clone(database),
            heads: Arc::clone(heads),
            identity: identity.to_owned(),
            look: Look::new(database, claims),
            write: Write::new(database, claims),
            outcome: OutcomeSql::new(database),
            connection: Mutex::new(None),
        }
    }

    /// See [`snaphook_driver::EventStore::append`].
    pub(super) async fn append(&self, batch: &[Append], atomic: bool) -> Result<Vec<Result<Appended, Conflict>>> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        check_size(batch)?;
        let deadline = Instant::now() + APPEND_TIME;
        let mut connection = self.connection.lock().await;
        let kept = connection.take().filter(|client| !client.is_closed());
        let was_kept = kept.is_some();
        let mut session = self.session(kept).await?;
        let mut result = self.attempt(&mut session, batch, atomic).await;
        if was_kept && session.is_broken() && matches!(result, Err(Failed::Before(_))) {
            // The server has probably been restarted since the last append.
            session = self.session(None).await?;
            result = self.attempt(&mut session, batch, atomic).await;
        }
        match result {
            Ok(answers) => {
                *connection = session.into_own();
                Ok(answers)
            }
            Err(Failed::Before(error)) => {
                *connection = session.into_own();
                Err(error)
            }
            Err(Failed::Perhaps(error, answers)) => {
                // Closed first, so that nobody waits for its lock.
                drop(session);
                self.find_out(batch, answers, error, deadline).await
            }
        }
    }

    /// Writes the log's row unchanged. If that succeeds, appends work again, and no earlier append is in progress.
    pub(super) async fn probe(&self) -> Result<Position> {
        self.outcome.probe(&self.database).await
    }

    pub(super) async fn close(&self) {
        self.connection.lock().await.take();
    }

    async fn session(&self, kept: Option<ClientWrapper>) -> Result<Session> {
        let mut session = match kept {
            Some(client) => self.database.session_of(client, "append", ATTEMPT_TIME),
            None => {
                let mut session = self.database.own_session("append", ATTEMPT_TIME).await?;
                if !self.database.pgbouncer() {
                    session.batch(SETUP).await?;
                }
                session
            }
        };
        // Cancelling a commit would have the same effect as a statement timeout, see `SETUP`.
        session.uncancelled();
        Ok(session)
    }

    async fn attempt(
        &self,
        session: &mut Session,
        batch: &[Append],
        atomic: bool,
    ) -> Result<Vec<Result<Appended, Conflict>>, Failed> {
        let (judged, head) = self.judge(session, batch, atomic).await.map_err(Failed::Before)?;
        if judged.accepted.is_empty() {
            session.end().await;
            self.heads.publish(head);
            return Ok(judged.answers);
        }
        match self.write.run(session, &judged).await {
            Written::Whole => {
                self.heads.publish(judged.end.position);
                Ok(judged.answers)
            }
            Written::Nothing(error) => Err(Failed::Before(error)),
            Written::Unknown(error) => Err(Failed::Perhaps(error, judged.answers)),
        }
    }

    /// The first round trip. The log is locked afterwards.
    async fn judge<'a>(
        &self,
        session: &mut Session,
        batch: &'a [Append],
        atomic: bool,
    ) -> Result<(Judged<'a>, Position)> {
        self.write.prepare(session).await?;
        let begin = match self.database.pgbouncer() {
            true => BEGIN.text(session.deadline().saturating_duration_since(Instant::now())),
            false => "BEGIN".to_owned(),
        };
        let Looked { end, identity, importing, mut known } = self.look.run(session, &begin, batch).await?;
        if identity != self.identity {
            let message = "the schema contains a different log than when it was opened; restart Snaphook";
            return Err(DriverError::new(ErrorKind::Config, "append", message));
        }
        if importing {
            return Err(super::import::part_of_a_log("append"));
        }
        Ok((judge(end, batch, atomic, &mut known)?, end.position))
    }

    /// Finds out the outcome of a batch whose commit was not acknowledged.
    async fn find_out(
        &self,
        batch: &[Append],
        answers: Vec<Result<Appended, Conflict>>,
        error: DriverError,
        deadline: Instant,
    ) -> Result<Vec<Result<Appended, Conflict>>> {
        let first = answers.iter().zip(batch).find_map(|(answer, append)| {
            answer.as_ref().ok().map(|appended| (appended.position, append.event.id.as_str()))
        });
        let Some((position, id)) = first else { return Err(error) };
        let mut pause = Duration::from_millis(20);
        loop {
            match timeout_at(deadline, self.outcome.find(&self.database, position, id, &self.identity)).await {
                Ok(Ok(true)) => {
                    let last = answers.iter().rev().find_map(|answer| answer.as_ref().ok());
                    last.iter().for_each(|last| self.heads.publish(last.position));
                    return Ok(answers);
                }
                // The lock was granted, so the batch's transaction has ended, and the log does not contain the batch.
                Ok(Ok(false)) => return Err(error.as_kind(ErrorKind::Unavailable)),
                Ok(Err(later)) if Instant::now() + pause >= deadline => return Err(uncertain(error, Some(later))),
                Ok(Err(_)) => sleep_until(Instant::now() + pause).await,
                Err(_) => return Err(uncertain(error, None)),
            }
            pause = (2 * pause).min(Duration::from_secs(1));
        }
    }
}

fn uncertain(error: DriverError, later: Option<DriverError>) -> DriverError {
    let message = format!("a commit was not acknowledged, and its outcome cannot be determined: {}", error.message());
    let uncertain = DriverError::new(ErrorKind::Uncertain, "append", message);
    match later {
        Some(later) => uncertain.because(later),
        None => uncertain,
    }
}

fn check_size(batch: &[Append]) -> Result<()> {
    let bytes: u64 = batch.iter().filter_map(|append| append.event.data.as_ref()).map(|data| data.len() as u64).sum();
    if bytes <= BATCH_BYTES_MAX {
        return Ok(());
    }
    let message =
        format!("the batch has {bytes} bytes of data, at most {BATCH_BYTES_MAX} are allowed in one transaction");
    Err(DriverError::new(ErrorKind::Invalid, "append", message))
}
