//! The second round trip of an append: all changes of a batch, and the commit.

use snaphook_driver::judge::{Judged, LogEnd, REMOVALS_MAX};
use snaphook_driver::{DriverError, Result};
use tokio_postgres::types::Type;

use super::super::claims::{Claims, Taken, digest};
use super::super::row::{self, Rows, signed};
use super::super::tails::{self, Tails};
use crate::connection::Database;
use crate::session::{Parameter, Session, send};
use crate::sql::Sql;

pub(super) struct Write {
    events: Sql,
    streams: Sql,
    take: Sql,
    give_back: Sql,
    end: Sql,
    /// The same, and removes expired claims first.
    end_with_removal: Sql,
    tell: Sql,
    channel: String,
    commit: &'static str,
}

/// The outcome of the transaction.
pub(super) enum Written {
    Whole,
    Nothing(DriverError),
    /// The commit may have happened.
    Unknown(DriverError),
}

impl Write {
    pub(super) fn new(database: &Database, claims: &Claims) -> Write {
        Write {
            events: database.sql(&row::insert(), row::TYPES),
            streams: tails::write(database),
            take: claims.take.clone(),
            give_back: claims.give_back.clone(),
            end: database.sql("UPDATE @.log SET head = $1, time = $2", &[Type::INT8, Type::INT8]),
            end_with_removal: database.sql(
                "WITH gone AS (DELETE FROM @.claims WHERE digest IN (
                     SELECT digest FROM @.claims WHERE expires <= $2 ORDER BY expires, key LIMIT $3) RETURNING 1)
                 UPDATE @.log SET head = $1, time = $2,
                 next_removal = CASE WHEN (SELECT count(*) FROM gone) < $3 THEN $4 ELSE $5 END",
                &[Type::INT8, Type::INT8, Type::INT8, Type::INT8, Type::INT8],
            ),
            tell: database.sql("SELECT pg_notify($1, '')", &[Type::TEXT]),
            channel: database.channel(),
            // A commit that is cancelled while it waits for a standby counts as done.
            commit: if database.pgbouncer() { "SET LOCAL statement_timeout = 0; COMMIT" } else { "COMMIT" },
        }
    }

    /// Prepares the statements before the transaction, so that it needs no round trips for them.
    pub(super) async fn prepare(&self, session: &mut Session) -> Result<()> {
        for sql in [&self.events, &self.streams, &self.end, &self.tell] {
            session.ready(sql).await?;
        }
        Ok(())
    }

    pub(super) async fn run(&self, session: &mut Session, judged: &Judged<'_>) -> Written {
        match self.try_run(session, judged).await {
            Ok(written) => written,
            // It failed before anything was sent.
            Err(error) => Written::Nothing(error),
        }
    }

    async fn try_run(&self, session: &mut Session, judged: &Judged<'_>) -> Result<Written> {
        let mut events = Rows::default();
        for accepted in &judged.accepted {
            events.add(&accepted.append.event, accepted.appended.position, accepted.appended.time)?;
        }
        let tails = Tails::new(&judged.tails());
        let (mut taken, mut given_back) = (Taken::default(), Vec::new());
        for (key, holder) in judged.claims() {
            match holder {
                Some(holder) => taken.add(key, holder),
                None => given_back.push(digest(key)),
            }
        }
        let LogEnd { position, time, .. } = judged.end;
        let (position, limit) = (signed(position), REMOVALS_MAX as i64);
        let (later, at_once) = (next_removal(judged.end, 0), next_removal(judged.end, REMOVALS_MAX));
        let with_removal: [Parameter<'_>; 5] = [&position, &time, &limit, &later, &at_once];
        let (end, end_values) = match judged.removal {
            Some(_) => (&self.end_with_removal, &with_removal[..]),
            None => (&self.end, &with_removal[..2]),
        };

        let (events_ready, streams_ready) = (session.ready(&self.events).await?, session.ready(&self.streams).await?);
        let take_ready = if taken.is_empty() { None } else { Some(session.ready(&self.take).await?) };
        let back_ready = if given_back.is_empty() { None } else { Some(session.ready(&self.give_back).await?) };
        let (end_ready, tell_ready) = (session.ready(end).await?, session.ready(&self.tell).await?);
        session.sending();
        let client = session.client()?;
        let event_values = events.parameters();
        let stream_values = tails.parameters();
        let (take_values, back_values): (_, [Parameter<'_>; 1]) = (taken.parameters(), [&given_back]);
        let tell_values: [Parameter<'_>; 1] = [&self.channel];
        let sent = async {
            let (events, streams, back, taken, end, told, committed) = tokio::join!(
                biased;
                send(client, &events_ready, &event_values),
                send(client, &streams_ready, &stream_values),
                async { if let Some(ready) = &back_ready { send(client, ready, &back_values).await } else { Ok(Vec::new()) } },
                async { if let Some(ready) = &take_ready { send(client, ready, &take_values).await } else { Ok(Vec::new()) } },
                send(client, &end_ready, end_values),
                send(client, &tell_ready, &tell_values),
                client.batch_execute(self.commit),
            );
            let written = [events, streams, back, taken, end, told].into_iter().find_map(Result::err);
            Ok((written, committed))
        };
        let answered = session.within(sent).await;
        let (failed, committed) = match answered {
            Ok(answers) => answers,
            Err(error) => return Ok(Written::Unknown(error)),
        };
        Ok(match (failed, committed) {
            (None, Ok(())) => {
                session.sent(false);
                Written::Whole
            }
            // The server reported a failed statement and handled the rest: the transaction was rolled back.
            (Some(error), committed) if error.as_db_error().is_some() && committed.is_ok() => {
                session.sent(false);
                Written::Nothing(session.fault(error))
            }
            (Some(error), _) | (None, Err(error)) => Written::Unknown(session.fault(error)),
        })
    }
}

fn next_removal(mut end: LogEnd, removed: usize) -> i64 {
    end.removed(removed);
    end.next_removal
}
