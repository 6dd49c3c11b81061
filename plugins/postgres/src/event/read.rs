//! Reads events: by position, by model, by stream.

use std::sync::Arc;
use std::time::Duration;

use snaphook_driver::{Event, EventPage, EventQuery, PAGE_BYTES_MAX, Position, Result, SCAN_MAX, Stream, StreamRef};
use tokio::time::{Instant, timeout_at};
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::plan::Plan;
use super::row::{COLUMNS, columns_of, decode, signed};
use crate::connection::Database;
use crate::listener::subscribe;
use crate::session::{Parameter, Session};
use crate::sql::Sql;
use crate::text::{escape, instance};

/// How many events the first part of a page scans if a filter may exclude most of them; each further part scans twice
/// as many as the one before.
const PART: u64 = 1000;

pub(super) struct Reader {
    database: Arc<Database>,
    head: Sql,
    pub(super) last_but: Sql,
}

/// The statements that read a part of a page.
pub(super) struct PartOf {
    pub(super) sql: Sql,
    end: Sql,
}

impl Reader {
    pub(super) fn new(database: &Arc<Database>) -> Reader {
        Reader {
            database: Arc::clone(database),
            head: database.sql("SELECT head FROM @.log", &[]),
            last_but: database.sql(
                &format!(
                    "SELECT {COLUMNS} FROM @.events WHERE model = $1 AND instance = $2 AND (position * 1) <= $3
                     ORDER BY (position * 1) DESC LIMIT 1 OFFSET $4"
                ),
                &[Type::TEXT, Type::TEXT, Type::INT8, Type::INT8],
            ),
        }
    }

    /// See [`snaphook_driver::EventStore::head`].
    pub(super) async fn head(&self, operation: &'static str) -> Result<Position> {
        let head = self.database.session(operation).await?.one(&self.head, &[]).await?.get::<_, i64>(0) as Position;
        self.database.heads().publish(head);
        Ok(head)
    }

    /// See [`snaphook_driver::EventStore::last_but`].
    pub(super) async fn last_but(
        &self,
        operation: &'static str,
        stream: &Stream,
        at_most: Position,
        skip: u64,
    ) -> Result<Option<Event>> {
        let stream = StreamRef::from(stream);
        let (model, instance) = (escape(stream.model), instance(stream));
        let mut session = self.database.session(operation).await?;
        let rows = session.query(&self.last_but, &[&model, &instance, &signed(at_most), &signed(skip)]).await?;
        rows.first().map(|row| decode(operation, row, 0)).transpose()
    }

    /// See [`snaphook_driver::EventStore::read`].
    pub(super) async fn read(&self, query: &EventQuery, wait: Option<Duration>) -> Result<EventPage> {
        let Some(wait) = wait else { return self.page(query).await };
        let deadline = Instant::now() + wait;
        // Before the first read, so that no event is missed.
        let mut heads = subscribe(&self.database);
        let mut query = query.clone();
        loop {
            heads.borrow_and_update();
            let page = self.page(&query).await?;
            if !page.events.is_empty() {
                return Ok(page);
            }
            // Nothing matched up to there, so it is not scanned again.
            query.after = query.after.max(page.reached);
            if page.next().is_some() {
                continue;
            }
            if !matches!(timeout_at(deadline, heads.changed()).await, Ok(Ok(()))) {
                return Ok(page);
            }
        }
    }

    async fn page(&self, query: &EventQuery) -> Result<EventPage> {
        let mut session = self.database.session("read").await?;
        let limit = i64::from(query.limit);
        let Some(plan) = Plan::new(&query.filter, FIRST) else {
            let head = session.one(&self.head, &[]).await?.get::<_, i64>(0) as Position;
            return Ok(EventPage { events: Vec::new(), head, reached: head.max(query.after) });
        };
        let part = PartOf::new(&self.database, &plan);
        if !plan.is_sparse {
            // The events are read after the head, and may be newer than it.
            let after = signed(query.after);
            let values: Values<'_> = (&after, &i64::MAX, &limit, &(PAGE_BYTES_MAX as i64));
            let parameters = parameters(values, &plan);
            let (head, rows) = session.both((&self.head, &[]), (&part.sql, &parameters)).await?;
            let head = session.only(head)?.get::<_, i64>(0) as Position;
            let (events, is_whole) = events(&rows)?;
            let last = events.last().map_or(0, |event| event.position);
            let is_full = !is_whole || events.len() as i64 >= limit;
            let head = head.max(last);
            self.database.heads().publish(head);
            let reached = if is_full { last } else { head.max(query.after) };
            return Ok(EventPage { events, head, reached });
        }
        let head = session.one(&self.head, &[]).await?.get::<_, i64>(0) as Position;
        self.database.heads().publish(head);
        self.sparse_page(&mut session, query, &plan, &part, head).await
    }

    /// Reads in parts, so that no more than about [`SCAN_MAX`] events are scanned.
    async fn sparse_page(
        &self,
        session: &mut Session,
        query: &EventQuery,
        plan: &Plan,
        part: &PartOf,
        head: Position,
    ) -> Result<EventPage> {
        let mut page = EventPage { events: Vec::new(), head, reached: head.max(query.after) };
        let (mut after, mut bytes, mut size, mut passed) = (query.after, 0, PART, 0);
        while after < head {
            if passed >= u64::from(SCAN_MAX) {
                page.reached = after;
                break;
            }
            let upto = part.end(session, plan, after, head, size).await?;
            let left = i64::from(query.limit) - page.events.len() as i64;
            let (from, to, room) = (signed(after), signed(upto), (PAGE_BYTES_MAX - bytes) as i64);
            let values: Values<'_> = (&from, &to, &left, &room);
            let rows = session.query(&part.sql, &parameters(values, plan)).await?;
            let (found, is_whole) = events(&rows)?;
            let more: usize = found.iter().filter_map(|event| event.data.as_ref()).map(|data| data.len()).sum();
            if bytes + more > PAGE_BYTES_MAX && !page.events.is_empty() {
                // The first event of a part is read whatever its size; it is left for the next page.
                page.reached = after;
                break;
            }
            bytes += more;
            page.events.extend(found);
            if !is_whole || page.events.len() as i64 >= i64::from(query.limit) || bytes >= PAGE_BYTES_MAX {
                page.reached = page.events.last().map_or(after, |event| event.position);
                break;
            }
            after = upto;
            passed += size;
            size *= 2;
        }
        Ok(page)
    }
}

/// How many parameters a [`PartOf`] has before those of its plan: after, up to, limit, bytes.
const FIRST: usize = 4;

type Values<'a> = (&'a i64, &'a i64, &'a i64, &'a i64);

fn parameters<'a>((after, upto, limit, bytes): Values<'a>, plan: &'a Plan) -> Vec<Parameter<'a>> {
    let values: [Parameter<'a>; FIRST] = [after, upto, limit, bytes];
    values.into_iter().chain(plan.parameters(true)).collect()
}

impl PartOf {
    pub(super) fn new(database: &Database, plan: &Plan) -> PartOf {
        let Plan { place, conditions, rest, .. } = plan;
        let columns = columns_of("e");
        // Lengths are known without reading the values from TOAST storage.
        let text = format!(
            "SELECT {COLUMNS}, found FROM (
                 SELECT p.*, count(*) OVER () AS found, row_number() OVER w AS nth,
                        sum(coalesce(octet_length(data), 0)) OVER w AS total
                 FROM (SELECT {columns}, {place} AS place FROM @.events e
                       WHERE {place} > $1 AND {place} <= $2{conditions}{rest} ORDER BY {place} LIMIT $3) p
                 WINDOW w AS (ORDER BY place ROWS UNBOUNDED PRECEDING)) q
             WHERE total <= $4 OR nth = 1 ORDER BY place"
        );
        let end = format!(
            "SELECT e.position FROM @.events e WHERE {place} > $1 AND {place} <= $2 AND $4 > 0{conditions}
             ORDER BY {place} LIMIT 1 OFFSET $3"
        );
        let types = |with_rest| [&[Type::INT8; FIRST][..], &plan.types(with_rest)].concat();
        PartOf { sql: database.sql(&text, &types(true)), end: database.sql(&end, &types(false)) }
    }

    /// The position up to which there are at most `count` events to scan after `after`.
    async fn end(
        &self,
        session: &mut Session,
        plan: &Plan,
        after: Position,
        head: Position,
        count: u64,
    ) -> Result<Position> {
        // There are no more events than positions.
        if head - after <= count {
            return Ok(head);
        }
        if plan.is_plain() {
            return Ok(after + count);
        }
        let (after, upto, skip) = (signed(after), signed(head), signed(count - 1));
        let values: [Parameter<'_>; FIRST] = [&after, &upto, &skip, &1_i64];
        let parameters: Vec<_> = values.into_iter().chain(plan.parameters(false)).collect();
        let rows = session.query(&self.end, &parameters).await?;
        Ok(rows.first().map_or(head, |row| row.get::<_, i64>(0) as Position))
    }
}

/// The events of a part, and whether these are all that were found.
fn events(rows: &[Row]) -> Result<(Vec<Event>, bool)> {
    let found = rows.first().map_or(0, |row| row.get::<_, i64>(COLUMNS_COUNT));
    let events = rows.iter().map(|row| decode("read", row, 0)).collect::<Result<Vec<_>>>()?;
    let is_whole = events.len() as i64 == found;
    Ok((events, is_whole))
}

/// The index of the column after those of the event.
const COLUMNS_COUNT: usize = 14;
