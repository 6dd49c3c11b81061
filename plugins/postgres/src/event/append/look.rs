//! The first round trip of an append: the lock, and everything that the judge needs.

use snaphook_driver::judge::{Known, LogEnd, Needs, Tail};
use snaphook_driver::{Append, Position, Result};
use tokio_postgres::types::Type;

use super::super::claims::{self, Claims, digest};
use super::super::row::signed;
use crate::connection::Database;
use crate::session::{Parameter, Session, send};
use crate::sql::Sql;
use crate::text::{escape, instance};

pub(super) struct Look {
    lock: Sql,
    tails: Sql,
    holders: Sql,
    quiet: Sql,
}

/// The part of the log that concerns a batch.
pub(super) struct Looked<'a> {
    pub(super) end: LogEnd,
    pub(super) identity: String,
    pub(super) importing: bool,
    pub(super) known: Known<'a>,
}

impl Look {
    pub(super) fn new(database: &Database, claims: &Claims) -> Look {
        Look {
            lock: database.sql("SELECT head, time, next_removal, identity, importing FROM @.log FOR UPDATE", &[]),
            // The limits keep the planner from scanning whole tables.
            tails: database.sql(
                "SELECT wanted.number, found.position, found.ended
                 FROM unnest($1, $2) WITH ORDINALITY AS wanted(model, instance, number), LATERAL
                 (SELECT position, ended FROM @.streams
                  WHERE model = wanted.model AND instance = wanted.instance LIMIT 1) found",
                &[Type::TEXT_ARRAY, Type::TEXT_ARRAY],
            ),
            holders: claims.holders.clone(),
            quiet: database.sql(
                "SELECT wanted.number, found.position
                 FROM unnest($1, $2) WITH ORDINALITY AS wanted(model, since, number), LATERAL
                 (SELECT position FROM @.events
                  WHERE model = wanted.model AND (position + 0) > wanted.since AND instance <> ''
                  ORDER BY (position + 0) DESC LIMIT 1) found",
                &[Type::TEXT_ARRAY, Type::INT8_ARRAY],
            ),
        }
    }

    /// Begins a transaction, which stays open.
    pub(super) async fn run<'a>(&self, session: &mut Session, begin: &str, batch: &'a [Append]) -> Result<Looked<'a>> {
        let Needs { streams, keys, quiet } = Needs::of(batch);
        let streams: Vec<_> = streams.into_iter().collect();
        let keys: Vec<_> = keys.into_iter().collect();
        let quiet: Vec<_> = quiet.into_iter().collect();
        let stream_models: Vec<_> = streams.iter().map(|stream| escape(stream.model)).collect();
        let stream_instances: Vec<_> = streams.iter().map(|stream| instance(*stream)).collect();
        let digests: Vec<_> = keys.iter().map(|key| digest(key)).collect();
        let quiet_models: Vec<_> = quiet.iter().map(|(model, _)| escape(model)).collect();
        let quiet_since: Vec<_> = quiet.iter().map(|(_, since)| signed(*since)).collect();
        let tails: [Parameter<'_>; 2] = [&stream_models, &stream_instances];
        let holders: [Parameter<'_>; 1] = [&digests];
        let noisy: [Parameter<'_>; 2] = [&quiet_models, &quiet_since];

        let locking = session.ready(&self.lock).await?;
        // Queries without input are not sent.
        let finding = if streams.is_empty() { None } else { Some(session.ready(&self.tails).await?) };
        let holding = if keys.is_empty() { None } else { Some(session.ready(&self.holders).await?) };
        let hearing = if quiet.is_empty() { None } else { Some(session.ready(&self.quiet).await?) };
        session.sending();
        let client = session.client()?;
        let sent = async {
            // Each statement is sent when it is first polled, in this order.
            let (begun, lock, tails, holders, noisy) = tokio::join!(
                biased;
                client.batch_execute(begin),
                send(client, &locking, &[]),
                async { if let Some(ready) = &finding { send(client, ready, &tails).await } else { Ok(Vec::new()) } },
                async { if let Some(ready) = &holding { send(client, ready, &holders).await } else { Ok(Vec::new()) } },
                async { if let Some(ready) = &hearing { send(client, ready, &noisy).await } else { Ok(Vec::new()) } },
            );
            begun?;
            Ok((lock?, tails?, holders?, noisy?))
        };
        let answered = session.within(sent).await;
        let (lock, tails, holders, noisy) = session.answered(answered, true)?;
        let lock = session.only(lock)?;
        let mut known = Known::default();
        for row in tails {
            let tail = Tail { position: row.get::<_, i64>(1) as Position, ended: row.get(2) };
            known.tails.extend(streams.get(place(row.get(0))).map(|stream| (*stream, tail)));
        }
        let mut found: std::collections::HashMap<String, _> = holders.iter().map(claims::holder).collect();
        known.holders = keys.iter().filter_map(|key| found.remove(*key).map(|holder| (*key, holder))).collect();
        for row in noisy {
            let last = row.get::<_, i64>(1) as Position;
            known.instances.extend(quiet.get(place(row.get(0))).map(|(model, _)| (*model, last)));
        }
        Ok(Looked {
            end: LogEnd { position: lock.get::<_, i64>(0) as Position, time: lock.get(1), next_removal: lock.get(2) },
            identity: lock.get(3),
            importing: lock.get(4),
            known,
        })
    }
}

/// Ordinals count from 1.
fn place(ordinal: i64) -> usize {
    usize::try_from(ordinal - 1).unwrap_or(usize::MAX)
}
