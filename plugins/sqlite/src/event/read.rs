//! Reads events: by position, by model, by stream.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _, Row, params, params_from_iter, types::Value};
use snaphook_driver::{
    Actor, DriverError, ErrorKind, Event, EventFilter, EventPage, EventQuery, Json, PAGE_BYTES_MAX, Position, Result,
    SCAN_MAX, Stream,
};

use super::kind::kind_of;
use super::names::Names;
use super::open_log::OpenLog;
use crate::fault::{corrupt, fault};
use crate::key::{Id, Key};

/// Columns of an event in the order that [`decode`] expects.
const COLUMNS: &str = "position, model, instance, kind, model_version, revision, time, id, \
                       request_id, actor, cause, hooks, data, trace";

/// How many positions one statement scans if the filter may skip most of them, so that no statement runs for long.
const STEP: u64 = 50_000;

/// How many events the first part of a page scans; each further part scans twice as many as the one before.
const PART: u64 = 1000;

/// One page; see [`snaphook_driver::EventStore::read`].
pub(super) fn page(shared: &OpenLog, query: &EventQuery) -> Result<EventPage> {
    // Taken before the read, which sees everything that is committed by now.
    let head = shared.head();
    let mut page = EventPage { events: Vec::new(), head, reached: head.max(query.after) };
    let Some(plan) = Plan::new(&query.filter, &shared.names()) else { return Ok(page) };
    let limit = query.limit as usize;
    let (mut after, mut bytes, mut part, mut passed) = (query.after, 0, PART, 0);
    while after < head {
        if passed >= u64::from(SCAN_MAX) {
            page.reached = after;
            break;
        }
        let left = limit - page.events.len();
        let (upto, stopped) = shared.readers.with(|connection| {
            let upto = plan.end_of_part(connection, after, head, part)?;
            let stopped = plan.run(connection, &shared.names(), after, upto, left, &mut |event: Event| {
                bytes += event.data.as_ref().map_or(0, |data| data.len());
                let fits = bytes <= PAGE_BYTES_MAX || page.events.is_empty();
                if fits {
                    page.events.push(event);
                }
                fits
            })?;
            Ok((upto, stopped.is_none()))
        })?;
        if stopped || page.events.len() >= limit {
            page.reached = page.events.last().map_or(upto, |event| event.position);
            break;
        }
        after = upto;
        passed += part;
        part *= 2;
    }
    Ok(page)
}

/// Passes matching events after `after`, up to `until`, to `each` in order, until `limit` is reached or it returns
/// `false`.
pub(super) fn scan(
    shared: &OpenLog,
    filter: &EventFilter,
    after: Position,
    until: Position,
    limit: usize,
    mut each: impl FnMut(Event) -> bool,
) -> Result<()> {
    if limit == 0 || after >= until {
        return Ok(());
    }
    let Some(plan) = Plan::new(filter, &shared.names()) else { return Ok(()) };
    let (mut after, mut left) = (after, limit);
    while after < until && left > 0 {
        let upto = if plan.sparse { until.min(after.saturating_add(STEP)) } else { until };
        let found =
            shared.readers.with(|connection| plan.run(connection, &shared.names(), after, upto, left, &mut each))?;
        let Some(found) = found else { return Ok(()) };
        left -= found;
        after = upto;
    }
    Ok(())
}

/// How many events match after `after`, up to `until`.
pub(super) fn count(shared: &OpenLog, filter: &EventFilter, after: Position, until: Position) -> Result<u64> {
    if after >= until {
        return Ok(0);
    }
    let Some(plan) = Plan::new(filter, &shared.names()) else { return Ok(0) };
    shared.readers.with(|connection| plan.count(connection, after, until).map_err(fault("read")))
}

/// The last event of a stream; see [`snaphook_driver::EventStore::last`].
pub(super) fn last(shared: &OpenLog, stream: &Stream, at_most: Position) -> Result<Option<Event>> {
    let Some(number) = shared.names().number(&stream.model) else { return Ok(None) };
    let condition = if stream.instance.is_some() { "instance = ?3" } else { "instance IS NULL AND ?3 IS NULL" };
    let sql = format!(
        "SELECT {COLUMNS} FROM events INDEXED BY events_stream
         WHERE model = ?1 AND {condition} AND position <= ?2 ORDER BY position DESC LIMIT 1"
    );
    let instance = stream.instance.as_deref().map(Key::new);
    shared.readers.with(|connection| {
        let find = || {
            connection
                .prepare_cached(&sql)?
                .query_row(params![number, bounded(at_most), instance], |row| Ok(decode(row, &shared.names())))
                .optional()
        };
        find().map_err(fault("last"))?.transpose()
    })
}

/// Passes every event after a position to `each` in order, until it returns `false`; in the caller's transaction.
pub(super) fn each_after(
    connection: &Connection,
    names: &Names,
    after: Position,
    mut each: impl FnMut(Event) -> bool,
) -> Result<()> {
    let sql = format!("SELECT {COLUMNS} FROM events WHERE position > ?1 ORDER BY position");
    let mut statement = connection.prepare_cached(&sql).map_err(fault("read"))?;
    let mut rows = statement.query([bounded(after)]).map_err(fault("read"))?;
    while let Some(row) = rows.next().map_err(fault("read"))? {
        if !each(decode(row, names)?) {
            break;
        }
    }
    Ok(())
}

/// See [`snaphook_driver::EventStore::last_but`]. For skipped events, only the index is read.
pub(super) fn last_but(shared: &OpenLog, stream: &Stream, at_most: Position, skip: u64) -> Result<Option<Event>> {
    let Some(number) = shared.names().number(&stream.model) else { return Ok(None) };
    let condition = if stream.instance.is_some() { "instance = ?3" } else { "instance IS NULL AND ?3 IS NULL" };
    let sql = format!(
        "SELECT {COLUMNS} FROM events WHERE position = (SELECT position FROM events INDEXED BY events_stream
         WHERE model = ?1 AND {condition} AND position <= ?2 ORDER BY position DESC LIMIT 1 OFFSET ?4)"
    );
    let instance = stream.instance.as_deref().map(Key::new);
    shared.readers.with(|connection| {
        let find = || {
            connection
                .prepare_cached(&sql)?
                .query_row(params![number, bounded(at_most), instance, bounded(skip)], |row| {
                    Ok(decode(row, &shared.names()))
                })
                .optional()
        };
        find().map_err(fault("last_but"))?.transpose()
    })
}

/// One event by its position.
pub(super) fn at(shared: &OpenLog, position: Position) -> Result<Option<Event>> {
    shared.readers.with(|connection| {
        let find = || {
            connection
                .prepare_cached(&format!("SELECT {COLUMNS} FROM events WHERE position = ?1"))?
                .query_row([bounded(position)], |row| Ok(decode(row, &shared.names())))
                .optional()
        };
        find().map_err(fault("read"))?.transpose()
    })
}

/// A filter as a statement: the index that serves it, and the remaining conditions.
struct Plan {
    index: &'static str,
    /// The conditions that the index serves, if there is one.
    conditions: String,
    /// The conditions that are checked for each event.
    rest: String,
    parameters: Vec<Value>,
    /// Whether many events may be skipped to find one.
    sparse: bool,
}

impl Plan {
    /// `None` if nothing can match.
    fn new(filter: &EventFilter, names: &Names) -> Option<Plan> {
        let mut plan = Plan {
            index: "NOT INDEXED",
            conditions: String::new(),
            rest: String::new(),
            parameters: Vec::new(),
            sparse: false,
        };
        let no_instances = !filter.kinds.is_empty() && !filter.kinds.iter().any(|kind| kind.is_instance());
        let definitions_only = filter.definitions_only || no_instances;
        if definitions_only {
            if filter.instance.is_some() {
                return None;
            }
            plan.index = "INDEXED BY events_definitions";
            plan.conditions.push_str(" AND instance IS NULL");
        }
        if let Some(model) = &filter.model {
            let number = names.number(model)?;
            plan.parameters.push(Value::Integer(number));
            plan.conditions.push_str(" AND model = ?4");
            plan.index = "INDEXED BY events_model";
            if let Some(instance) = &filter.instance {
                plan.parameters.push(match Key::new(instance) {
                    Key::Uuid(bytes) => Value::Blob(bytes.to_vec()),
                    Key::Text(text) => Value::Text(text.to_owned()),
                });
                plan.conditions.push_str(" AND instance = ?5");
            }
            if filter.instance.is_some() || definitions_only {
                plan.index = "INDEXED BY events_stream";
            }
        } else if let Some(instance) = &filter.instance {
            plan.parameters.push(match Key::new(instance) {
                Key::Uuid(bytes) => Value::Blob(bytes.to_vec()),
                Key::Text(text) => Value::Text(text.to_owned()),
            });
            plan.rest.push_str(" AND instance = ?4");
            plan.sparse = true;
        }
        if !filter.kinds.is_empty() {
            let kinds: Vec<String> = filter.kinds.iter().map(|kind| (*kind as i64).to_string()).collect();
            // The plus sign prevents SQLite from using an index.
            plan.rest.push_str(&format!(" AND +kind IN ({})", kinds.join(", ")));
            plan.sparse = true;
        }
        Some(plan)
    }

    /// The position up to which there are at most `count` events to scan after `after`.
    fn end_of_part(&self, connection: &Connection, after: Position, head: Position, count: u64) -> Result<Position> {
        // There are no more events than positions.
        if !self.sparse || head - after <= count {
            return Ok(head);
        }
        if self.index == "NOT INDEXED" {
            return Ok(after + count);
        }
        let sql = format!(
            "SELECT position FROM events {} WHERE position > ?1 AND position <= ?2{} ORDER BY position LIMIT 1 OFFSET ?3",
            self.index, self.conditions
        );
        let bounds = [bounded(after), bounded(head), bounded(count - 1)].map(Value::Integer);
        let find = || {
            connection
                .prepare_cached(&sql)?
                .query_row(params_from_iter(bounds.iter().chain(&self.parameters)), |row| row.get::<_, i64>(0))
                .optional()
        };
        Ok(find().map_err(fault("read"))?.map_or(head, |position| position as Position))
    }

    /// The number of events passed; `None` if `each` stopped it.
    fn run(
        &self,
        connection: &Connection,
        names: &Names,
        after: Position,
        until: Position,
        limit: usize,
        each: &mut impl FnMut(Event) -> bool,
    ) -> Result<Option<usize>> {
        let sql = format!(
            "SELECT {COLUMNS} FROM events {} WHERE position > ?1 AND position <= ?2{}{} ORDER BY position LIMIT ?3",
            self.index, self.conditions, self.rest
        );
        let mut statement = connection.prepare_cached(&sql).map_err(fault("read"))?;
        let limit = Value::Integer(i64::try_from(limit).unwrap_or(i64::MAX));
        let bounds = [Value::Integer(bounded(after)), Value::Integer(bounded(until)), limit];
        let parameters = bounds.iter().chain(&self.parameters);
        let mut rows = statement.query(params_from_iter(parameters)).map_err(fault("read"))?;
        let mut found = 0;
        while let Some(row) = rows.next().map_err(fault("read"))? {
            found += 1;
            if !each(decode(row, names)?) {
                return Ok(None);
            }
        }
        Ok(Some(found))
    }

    fn count(&self, connection: &Connection, after: Position, until: Position) -> rusqlite::Result<u64> {
        let sql = format!(
            "SELECT count(*) FROM events {} WHERE position > ?1 AND position <= ?2 AND ?3 IS NULL{}{}",
            self.index, self.conditions, self.rest
        );
        let bounds = [Value::Integer(bounded(after)), Value::Integer(bounded(until)), Value::Null];
        let parameters = bounds.iter().chain(&self.parameters);
        let count: i64 = connection.prepare_cached(&sql)?.query_row(params_from_iter(parameters), |row| row.get(0))?;
        Ok(count as u64)
    }
}

/// SQLite's integers are signed; no position exceeds them.
fn bounded(position: Position) -> i64 {
    i64::try_from(position).unwrap_or(i64::MAX)
}

fn decode(row: &Row<'_>, names: &Names) -> Result<Event> {
    #[expect(clippy::type_complexity, reason = "the columns of one row, used in the next lines")]
    let read = || -> rusqlite::Result<(Event, i64, i64, Option<String>, Option<String>)> {
        let event = Event {
            position: row.get::<_, i64>(0)? as Position,
            id: row.get::<_, Id>(7)?.0,
            kind: snaphook_driver::EventKind::ModelCreated,
            model: String::new(),
            model_version: row.get::<_, i64>(4)? as u64,
            instance: row.get::<_, Option<Id>>(2)?.map(|id| id.0),
            revision: row.get::<_, i64>(5)? as u64,
            data: row.get_ref(12)?.as_str_or_null()?.map(Json::trusted),
            actor: row.get_ref(9)?.as_str_or_null()?.map(|text| Arc::new(Actor::from_text(text))),
            cause: None,
            hooks: Vec::new(),
            request_id: row.get::<_, Option<Id>>(8)?.map(|id| id.0),
            trace: row.get(13)?,
            time: row.get(6)?,
        };
        Ok((event, row.get(1)?, row.get(3)?, row.get(10)?, row.get(11)?))
    };
    let (mut event, model, kind, cause, hooks) = read().map_err(fault("read"))?;
    let position = event.position;
    let broken =
        |what: &str| corrupt("read", format!("an event's {what} cannot be read back")).with("position", position);
    let parse = |what: &'static str, error: serde_json::Error| -> DriverError {
        DriverError::new(ErrorKind::Corrupt, "read", format!("an event's {what} cannot be read back"))
            .with("position", position)
            .because(error)
    };
    event.model = names.name(model).ok_or_else(|| broken("model"))?.to_string();
    event.kind = kind_of(kind).ok_or_else(|| broken("kind"))?;
    if let Some(cause) = cause {
        event.cause = Some(snaphook_driver::json::typed(&cause).map_err(|error| parse("cause", error))?);
    }
    if let Some(hooks) = hooks {
        event.hooks = snaphook_driver::json::typed(&hooks).map_err(|error| parse("hooks", error))?;
    }
    Ok(event)
}

#[cfg(test)]
mod tests {
    use super::super::SqliteEventStore;
    use super::*;

    #[test]
    fn a_read_does_not_hold_up_the_first_event_of_a_model() {
        let folder = tempfile::TempDir::new().unwrap();
        let store = SqliteEventStore::open(&folder.path().join("events.db")).unwrap();
        let shared = &store.shared;
        let append = |model: &str| {
            let batch = [snaphook_driver_testkit::sample::create(model, "i", "{}")];
            let append = |writer: &mut super::super::writer::LogWriter| writer.append(&batch, false, &shared.names);
            shared.writing("append", append).unwrap()[0].as_ref().unwrap().position
        };
        let first = append("a");
        let mut seen = Vec::new();
        scan(shared, &EventFilter::default(), 0, first, 10, |event| {
            seen.push((event.model, append("b")));
            true
        })
        .unwrap();
        assert_eq!(seen, [("a".to_owned(), first + 1)]);
        assert_eq!(at(shared, first + 1).unwrap().unwrap().model, "b");
    }
}
