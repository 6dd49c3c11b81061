//! Writes appends: the events that the SDK's judge accepts, and their claims.
//!
//! A batch is judged as a whole before any of it is written, so conflicting rows need no savepoint.

use std::sync::Arc;

use rusqlite::{CachedStatement, Connection, OptionalExtension as _, params};
use snaphook_driver::judge::{Judged, LogEnd, LogState, Tail, judge};
use snaphook_driver::time::Millis;
use snaphook_driver::{
    Append, Appended, DriverError, ErrorKind, Event, Holder, LogRecord, Position, Result, StreamRef,
};

use super::names::Names;
use super::tails::Tails;
use super::{claims, import};
use crate::fault::fault;
use crate::key::Key;

/// The cached end of the log as of the last commit; during an import, including uncommitted events.
pub(super) struct Log {
    pub(super) end: LogEnd,
    pub(super) names: Arc<Names>,
    pub(super) tails: Tails,
}

/// Prepared once for each batch.
const INSERT: &str = "INSERT INTO events(position, model, instance, kind, model_version, revision, time, id, \
    request_id, actor, cause, hooks, data, trace) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)";

impl Log {
    pub(super) fn judge<'a>(
        &mut self,
        connection: &Connection,
        batch: &'a [Append],
        atomic: bool,
    ) -> Result<Judged<'a>> {
        let mut state = Lookup { connection, names: &self.names, tails: &mut self.tails };
        judge(self.end, batch, atomic, &mut state)
    }

    pub(super) fn import(&mut self, connection: &Connection, records: &[LogRecord]) -> Result<()> {
        let mut insert = connection.prepare_cached(INSERT).map_err(fault("import"))?;
        for record in records {
            let LogRecord::Event(event) = record else {
                import::put(connection, record).map_err(fault("import"))?;
                continue;
            };
            let position = event.position;
            if position <= self.end.position {
                let message = format!("an event at {position} after the one at {}", self.end.position);
                return Err(DriverError::new(ErrorKind::Conflict, "import", message));
            }
            let number = match self.names.number(&event.model) {
                Some(number) => number,
                None => Arc::make_mut(&mut self.names).add(connection, &event.model).map_err(fault("import"))?,
            };
            let instance = event.instance.as_deref().map(Key::new);
            insert_event(&mut insert, event, number, instance.as_ref(), position, event.time)?;
            (self.end.position, self.end.time) = (position, event.time);
        }
        Ok(())
    }
}

/// The log before a batch, in the batch's transaction.
struct Lookup<'l> {
    connection: &'l Connection,
    names: &'l Names,
    tails: &'l mut Tails,
}

impl LogState for Lookup<'_> {
    fn tail(&mut self, stream: StreamRef<'_>) -> Result<Tail> {
        // A model without a number has no events.
        let Some(number) = self.names.number(stream.model) else { return Ok(Tail::NONE) };
        self.tails.find(self.connection, number, stream.instance.map(Key::new))
    }

    fn last_of_instances(&mut self, model: &str, since: Position) -> Result<Position> {
        let Some(number) = self.names.number(model) else { return Ok(0) };
        self.connection
            .prepare_cached(
                "SELECT position FROM events INDEXED BY events_model
                 WHERE model = ?1 AND position > ?2 AND instance IS NOT NULL ORDER BY position DESC LIMIT 1",
            )
            .and_then(|mut statement| {
                let since = i64::try_from(since).unwrap_or(i64::MAX);
                statement.query_row(params![number, since], |row| row.get::<_, i64>(0)).optional()
            })
            .map(|last| last.unwrap_or(0) as Position)
            .map_err(fault("append"))
    }

    fn holder(&mut self, key: &str) -> Result<Option<Holder>> {
        claims::holder(self.connection, key).map_err(fault("append"))
    }
}

/// The end of the log once a batch is committed.
pub(super) struct Written<'a> {
    pub(super) end: LogEnd,
    /// By model number and instance, in order.
    pub(super) tails: Vec<(i64, Option<Key<'a>>, Tail)>,
}

/// Writes the changes of a batch; new models get their numbers.
pub(super) fn write<'a>(connection: &Connection, judged: &Judged<'a>, names: &mut Arc<Names>) -> Result<Written<'a>> {
    let mut tails = Vec::with_capacity(judged.accepted.len());
    let mut insert = connection.prepare_cached(INSERT).map_err(fault("append"))?;
    for row in &judged.accepted {
        let (event, Appended { position, time, .. }) = (&row.append.event, row.appended);
        let number = match names.number(&event.model) {
            Some(number) => number,
            None => Arc::make_mut(names).add(connection, &event.model).map_err(fault("append"))?,
        };
        claims::put(connection, row).map_err(fault("append"))?;
        let instance = event.instance.as_deref().map(Key::new);
        insert_event(&mut insert, event, number, instance.as_ref(), position, time)?;
        tails.push((number, instance, row.tail()));
    }
    let mut end = judged.end;
    if let Some(time) = judged.removal {
        end.removed(claims::remove_expired(connection, time).map_err(fault("append"))?);
    }
    Ok(Written { end, tails })
}

fn insert_event(
    insert: &mut CachedStatement<'_>,
    event: &Event,
    number: i64,
    instance: Option<&Key<'_>>,
    position: Position,
    time: Millis,
) -> Result<()> {
    let json = |error: serde_json::Error| {
        DriverError::new(ErrorKind::Invalid, "append", "the event cannot be written as JSON").because(error)
    };
    let cause = event.cause.as_ref().map(serde_json::to_string).transpose().map_err(json)?;
    let hooks = (!event.hooks.is_empty()).then(|| serde_json::to_string(&event.hooks)).transpose().map_err(json)?;
    insert
        .execute(params![
            position as i64,
            number,
            instance,
            event.kind as i64,
            event.model_version as i64,
            event.revision as i64,
            time,
            Key::new(&event.id),
            event.request_id.as_deref().map(Key::new),
            event.actor.as_ref().map(|actor| actor.to_text()),
            cause,
            hooks,
            event.data.as_deref(),
            event.trace,
        ])
        .map(drop)
        .map_err(fault("append"))
}
