//! Deliveries of a group's events: leases, acknowledgements, delays.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use snaphook_driver::{Delivery, PAGE_BYTES_MAX, Position, Result};
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::groups::{FOLLOWING, filter, unknown};
use super::plan::Plan;
use super::row::{columns_of, decode, signed};
use crate::connection::Database;
use crate::session::{Begin, Parameter, Session};
use crate::sql::Sql;
use crate::text::{escape, unescape};

/// How many events the first step of a claim scans; each further step scans four times as many, up to the maximum.
const LOOK: i64 = 256;
const LOOK_MAX: i64 = 16_384;

/// Maximum number of positions in one step if the filter may exclude most events.
const SPAN: i64 = 50_000;

pub(super) struct Deliveries {
    database: Arc<Database>,
    /// Identifies the leases of this opened store.
    owner: i64,
    is_due: Sql,
    lock: Sql,
    take: Sql,
    take_new: Sql,
    advance: Sql,
    ack: Sql,
    release: Sql,
    renew: Sql,
    give_back: Sql,
}

impl Deliveries {
    pub(super) fn new(database: &Arc<Database>, owner: i64) -> Deliveries {
        let sql = |text: &str, types: &[Type]| database.sql(text, types);
        let event = columns_of("e");
        Deliveries {
            database: Arc::clone(database),
            owner,
            is_due: sql(
                "SELECT g.cursor < (SELECT head FROM @.log) OR EXISTS (SELECT 1 FROM @.pending p
                     WHERE p.group_number = g.number AND p.due <= statement_timestamp())
                 FROM @.groups g WHERE g.name = $1",
                &[Type::TEXT],
            ),
            lock: sql(
                "SELECT number, cursor, filter, (SELECT head FROM @.log) FROM @.groups WHERE name = $1 FOR UPDATE",
                &[Type::TEXT],
            ),
            // The events that were due first, as far as their data fits.
            take: sql(
                &format!(
                    "WITH chosen AS (SELECT position FROM (
                         SELECT p.position, row_number() OVER w AS nth,
                                sum(coalesce(octet_length(e.data), 0)) OVER w AS total
                         FROM (SELECT position, due FROM @.pending WHERE group_number = $1
                               AND due <= statement_timestamp() ORDER BY due, position LIMIT $2) p
                         JOIN @.events e ON e.position = p.position
                         WINDOW w AS (ORDER BY p.due, p.position ROWS UNBOUNDED PRECEDING)) q
                         WHERE nth = 1 OR total <= $3)
                     UPDATE @.pending p SET attempt = attempt + 1, token = nextval('@.tokens'), owner = $4,
                         due = statement_timestamp() + $5 * interval '1 microsecond'
                     FROM chosen JOIN @.events e ON e.position = chosen.position
                     WHERE p.group_number = $1 AND p.position = chosen.position
                     RETURNING p.attempt, p.token, p.note, {event}"
                ),
                &[Type::INT8, Type::INT8, Type::INT8, Type::INT8, Type::FLOAT8],
            ),
            take_new: sql(
                &format!(
                    "WITH taken AS (
                         INSERT INTO @.pending(group_number, position, due, token, owner, attempt, model, instance)
                         SELECT $1, e.position, statement_timestamp() + $4 * interval '1 microsecond',
                                nextval('@.tokens'), $3, 1, e.model, e.instance
                         FROM @.events e WHERE e.position = ANY($2) RETURNING attempt, token, note, position)
                     SELECT taken.attempt, taken.token, taken.note, {event}
                     FROM taken JOIN @.events e ON e.position = taken.position"
                ),
                &[Type::INT8, Type::INT8_ARRAY, Type::INT8, Type::FLOAT8],
            ),
            advance: sql(
                "UPDATE @.groups SET cursor = $2 WHERE number = $1 AND cursor < $2",
                &[Type::INT8, Type::INT8],
            ),
            ack: sql(
                &format!(
                    "WITH g AS (SELECT number, cursor, kinds FROM @.groups WHERE name = $1),
                     done AS (DELETE FROM @.pending p USING g, unnest($2, $3) AS ack(position, token)
                         WHERE p.group_number = g.number AND p.position = ack.position
                           AND p.token = ack.token AND ack.token <> 0
                         RETURNING p.model, p.instance, p.position),
                     next AS (SELECT g.number, done.model, done.instance, {FOLLOWING} AS position FROM done, g)
                     INSERT INTO @.pending(group_number, position, due, token, owner, attempt, model, instance)
                     SELECT number, position, statement_timestamp(), 0, 0, 0, model, instance FROM next
                     WHERE position IS NOT NULL"
                ),
                &[Type::TEXT, Type::INT8_ARRAY, Type::INT8_ARRAY],
            ),
            release: sql(
                "UPDATE @.pending SET token = 0, owner = 0, note = coalesce($4, note),
                     due = statement_timestamp() + $5 * interval '1 microsecond'
                 WHERE group_number = (SELECT number FROM @.groups WHERE name = $1)
                   AND position = $2 AND token = $3 AND token <> 0 RETURNING position",
                &[Type::TEXT, Type::INT8, Type::INT8, Type::TEXT, Type::FLOAT8],
            ),
            renew: sql(
                "UPDATE @.pending SET note = coalesce($4, note),
                     due = statement_timestamp() + $5 * interval '1 microsecond'
                 WHERE group_number = (SELECT number FROM @.groups WHERE name = $1)
                   AND position = $2 AND token = $3 AND token <> 0 AND due > statement_timestamp()
                 RETURNING position",
                &[Type::TEXT, Type::INT8, Type::INT8, Type::TEXT, Type::FLOAT8],
            ),
            give_back: sql(
                "UPDATE @.pending SET token = 0, owner = 0, due = statement_timestamp() WHERE owner = $1",
                &[Type::INT8],
            ),
        }
    }

    /// See [`snaphook_driver::EventStore::claim`].
    pub(super) async fn claim(&self, name: &str, limit: u32, lease: Duration) -> Result<Vec<Delivery>> {
        let name_kept = escape(name);
        let mut session = self.database.session("claim").await?;
        // Most claims find nothing, and need no lock.
        let rows = session.query(&self.is_due, &[&name_kept]).await?;
        if !rows.first().ok_or_else(|| unknown("claim", name))?.get::<_, bool>(0) {
            return Ok(Vec::new());
        }
        let mut step = ClaimRequest { name: &name_kept, limit: i64::from(limit), lease: micros(lease), look: LOOK };
        let mut deliveries = Claimed::default();
        loop {
            match self.step(&mut session, &step, &deliveries).await {
                Ok((more, is_last)) => {
                    deliveries.take(more);
                    if is_last || !deliveries.is_open(step.limit) {
                        break;
                    }
                }
                // Events of earlier steps are already claimed: return them.
                Err(_) if !deliveries.all.is_empty() => break,
                Err(error) => return Err(error),
            }
            step.look = (4 * step.look).min(LOOK_MAX);
        }
        deliveries.all.sort_unstable_by_key(|delivery| delivery.event.position);
        Ok(deliveries.all)
    }

    /// One transaction of a claim: due events, and new events from one scan. Also returns whether this was the last
    /// step.
    async fn step(&self, session: &mut Session, step: &ClaimRequest<'_>, before: &Claimed) -> Result<(Claimed, bool)> {
        // Durable, together with earlier acknowledgements. After a crash of the server that its node does not notice, a
        // running hook still has its event, and no earlier event of the stream is delivered again.
        session.begin(Begin::DURABLE).await?;
        let rows = session.query(&self.lock, &[&step.name]).await?;
        let row = rows.first().ok_or_else(|| unknown("claim", step.name))?;
        let (number, cursor, head): (i64, i64, i64) = (row.get(0), row.get(1), row.get(3));
        let left = step.limit - before.all.len() as i64;
        let due = [&number as Parameter<'_>, &left, &before.room(), &self.owner, &step.lease];
        let mut claimed = Claimed::of(&session.query(&self.take, &due).await?)?;
        let left = left - claimed.all.len() as i64;
        let room = before.room() - claimed.bytes;
        let mut reached = cursor.max(head);
        if left > 0 && room > 0 && cursor < head {
            let is_first = before.all.is_empty() && claimed.all.is_empty();
            let want = Want { left, room, is_first, look: step.look };
            let found = self.look(session, number, row.get(2), (cursor, head), want).await?;
            reached = found.reached;
            let new = [&number as Parameter<'_>, &found.positions, &self.owner, &step.lease];
            claimed.take(Claimed::of(&session.query(&self.take_new, &new).await?)?);
            session.execute(&self.advance, &[&number, &reached]).await?;
        }
        session.commit().await?;
        Ok((claimed, reached >= head))
    }

    /// Scans the next events of the log for those that may be delivered.
    async fn look(
        &self,
        session: &mut Session,
        number: i64,
        filter_kept: &str,
        (cursor, head): (i64, i64),
        want: Want,
    ) -> Result<Found> {
        let Want { mut left, mut room, mut is_first, look } = want;
        let nothing = Found { positions: Vec::new(), reached: head };
        let Some(plan) = Plan::new(&filter("claim", filter_kept)?, 4) else { return Ok(nothing) };
        let Plan { place, conditions, rest, .. } = &plan;
        let text = format!(
            "SELECT e.position, e.model, e.instance, e.bytes, p.position IS NOT NULL FROM (
                 SELECT position, model, instance, coalesce(octet_length(data), 0)::int8 AS bytes, {place} AS place
                 FROM @.events e WHERE {place} > $1 AND {place} <= $2{conditions}{rest} ORDER BY {place} LIMIT $3) e
             LEFT JOIN @.pending p ON p.group_number = $4 AND p.model = e.model AND p.instance = e.instance
             ORDER BY e.place"
        );
        let types = [&[Type::INT8; 4][..], &plan.types(true)].concat();
        let upto = if plan.is_sparse { head.min(cursor + SPAN) } else { head };
        let values: [Parameter<'_>; 4] = [&cursor, &upto, &look, &number];
        let values: Vec<_> = values.into_iter().chain(plan.parameters(true)).collect();
        let rows = session.query(&self.database.sql(&text, &types), &values).await?;
        let mut streams: HashSet<(&str, &str)> = HashSet::new();
        let mut found = Found { positions: Vec::new(), reached: cursor };
        for row in &rows {
            let (position, bytes): (i64, i64) = (row.get(0), row.get(3));
            // An event is skipped while an earlier event of its stream is pending.
            if !row.get::<_, bool>(4) && !streams.contains(&(row.get(1), row.get(2))) {
                if left == 0 || (bytes > room && !is_first) {
                    return Ok(found);
                }
                streams.insert((row.get(1), row.get(2)));
                found.positions.push(position);
                (left, room, is_first) = (left - 1, room - bytes, false);
            }
            found.reached = position;
        }
        if (rows.len() as i64) < look {
            found.reached = upto;
        }
        Ok(found)
    }

    /// See [`snaphook_driver::EventStore::ack`].
    pub(super) async fn ack(&self, name: &str, done: &[(Position, u64)]) -> Result<()> {
        let (positions, tokens): (Vec<i64>, Vec<i64>) =
            done.iter().map(|(position, token)| (signed(*position), token.cast_signed())).unzip();
        let name_kept = escape(name);
        let mut session = self.database.session("ack").await?;
        let values: [Parameter<'_>; 3] = [&name_kept, &positions, &tokens];
        let (group, _) = session.transact(Begin::LAZY, (&self.lock, &[&name_kept]), (&self.ack, &values)).await?;
        group.first().map(drop).ok_or_else(|| unknown("ack", name))
    }

    /// See [`snaphook_driver::EventStore::release`].
    pub(super) async fn release(
        &self,
        name: &str,
        position: Position,
        token: u64,
        delay: Duration,
        note: Option<&str>,
    ) -> Result<()> {
        self.change("release", &self.release, name, position, token, delay, note).await.map(drop)
    }

    /// See [`snaphook_driver::EventStore::renew`].
    pub(super) async fn renew(
        &self,
        name: &str,
        position: Position,
        token: u64,
        lease: Duration,
        note: Option<&str>,
    ) -> Result<bool> {
        self.change("renew", &self.renew, name, position, token, lease, note).await
    }

    #[expect(clippy::too_many_arguments, reason = "those of the trait's methods that are alike")]
    async fn change(
        &self,
        operation: &'static str,
        sql: &Sql,
        name: &str,
        position: Position,
        token: u64,
        time: Duration,
        note: Option<&str>,
    ) -> Result<bool> {
        let name_kept = escape(name);
        let note = note.map(escape);
        let mut session = self.database.session(operation).await?;
        let (position, token, time) = (signed(position), token.cast_signed(), micros(time));
        let values: [Parameter<'_>; 5] = [&name_kept, &position, &token, &note, &time];
        let (group, changed) = session.transact(Begin::LAZY, (&self.lock, &[&name_kept]), (sql, &values)).await?;
        group.first().ok_or_else(|| unknown(operation, name))?;
        Ok(!changed.is_empty())
    }

    /// Releases all leases of this opened store.
    pub(super) async fn give_back(&self) -> Result<()> {
        let mut session = self.database.session("close").await?;
        session.begin(Begin::LAZY).await?;
        session.execute(&self.give_back, &[&self.owner]).await?;
        session.commit().await
    }
}

/// The parameters of a claim.
struct ClaimRequest<'a> {
    name: &'a str,
    limit: i64,
    lease: f64,
    look: i64,
}

/// The limits of a scan: how many events it may find, with how many bytes except for the first one, and how many events
/// it may read.
struct Want {
    left: i64,
    room: i64,
    is_first: bool,
    look: i64,
}

/// Events that may be delivered, and the position up to which the log was scanned.
struct Found {
    positions: Vec<i64>,
    reached: i64,
}

/// The claimed events.
#[derive(Default)]
struct Claimed {
    all: Vec<Delivery>,
    bytes: i64,
}

impl Claimed {
    fn of(rows: &[Row]) -> Result<Claimed> {
        let mut claimed = Claimed::default();
        for row in rows {
            let event = decode("claim", row, 3)?;
            claimed.bytes += event.data.as_ref().map_or(0, |data| data.len() as i64);
            let attempt = u32::try_from(row.get::<_, i64>(0)).unwrap_or(u32::MAX);
            let note = row.get::<_, Option<String>>(2).map(unescape);
            claimed.all.push(Delivery { event, attempt, token: row.get::<_, i64>(1).cast_unsigned(), note });
        }
        Ok(claimed)
    }

    fn take(&mut self, more: Claimed) {
        self.bytes += more.bytes;
        self.all.extend(more.all);
    }

    fn room(&self) -> i64 {
        (PAGE_BYTES_MAX as i64 - self.bytes).max(0)
    }

    fn is_open(&self, limit: i64) -> bool {
        (self.all.len() as i64) < limit && self.room() > 0
    }
}

/// In microseconds for the database, limited to about a century.
fn micros(time: Duration) -> f64 {
    time.as_secs_f64().min(3.2e9) * 1e6
}
