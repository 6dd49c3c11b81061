//! Encodes events as rows, and decodes them.

use std::borrow::Cow;
use std::sync::Arc;

use snaphook_driver::{Actor, DriverError, ErrorKind, Event, EventKind, Json, Position, Result, StreamRef};
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::fault::corrupt;
use crate::session::Parameter;
use crate::text::{escape, instance, instance_of, unescape};

/// The columns of an event, in the order that [`decode`] expects.
pub(super) const COLUMNS: &str = "position, time, model_version, revision, kind, model, instance, id, request_id, actor, cause, hooks, data, \
     trace";

/// The same columns of a table with an alias.
pub(super) fn columns_of(alias: &str) -> String {
    COLUMNS.split(", ").map(|column| format!("{alias}.{column}")).collect::<Vec<_>>().join(", ")
}

/// The statement that inserts [`Rows`].
pub(super) fn insert() -> String {
    format!(
        "INSERT INTO @.events({COLUMNS}) SELECT * FROM \
         unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) AS row({COLUMNS})"
    )
}

/// The types of the parameters of [`insert`].
pub(super) const TYPES: &[Type] = &[
    Type::INT8_ARRAY,
    Type::INT8_ARRAY,
    Type::INT8_ARRAY,
    Type::INT8_ARRAY,
    Type::INT2_ARRAY,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
];

/// Events to insert, by column.
#[derive(Default)]
pub(super) struct Rows<'a> {
    position: Vec<i64>,
    time: Vec<i64>,
    model_version: Vec<i64>,
    revision: Vec<i64>,
    kind: Vec<i16>,
    model: Vec<Cow<'a, str>>,
    instance: Vec<Cow<'a, str>>,
    id: Vec<Cow<'a, str>>,
    request_id: Vec<Option<Cow<'a, str>>>,
    actor: Vec<Option<String>>,
    cause: Vec<Option<String>>,
    hooks: Vec<Option<String>>,
    data: Vec<Option<&'a str>>,
    trace: Vec<Option<Cow<'a, str>>>,
}

impl<'a> Rows<'a> {
    pub(super) fn add(&mut self, event: &'a Event, position: Position, time: i64) -> Result<()> {
        let json = |error: serde_json::Error| {
            DriverError::new(ErrorKind::Invalid, "append", "the event cannot be written as JSON").because(error)
        };
        let stream = StreamRef::of(event);
        let cause = event.cause.as_ref().map(serde_json::to_string).transpose().map_err(json)?;
        let hooks = (!event.hooks.is_empty()).then(|| serde_json::to_string(&event.hooks)).transpose().map_err(json)?;
        self.position.push(signed(position));
        self.time.push(time);
        self.model_version.push(event.model_version as i64);
        self.revision.push(event.revision as i64);
        self.kind.push(event.kind as i16);
        self.model.push(escape(stream.model));
        self.instance.push(instance(stream));
        self.id.push(escape(&event.id));
        self.request_id.push(event.request_id.as_deref().map(escape));
        self.actor.push(event.actor.as_ref().map(|actor| actor.to_text()));
        self.cause.push(cause);
        self.hooks.push(hooks);
        self.data.push(event.data.as_deref());
        self.trace.push(event.trace.as_deref().map(escape));
        Ok(())
    }

    pub(super) fn parameters(&self) -> [Parameter<'_>; 14] {
        [
            &self.position,
            &self.time,
            &self.model_version,
            &self.revision,
            &self.kind,
            &self.model,
            &self.instance,
            &self.id,
            &self.request_id,
            &self.actor,
            &self.cause,
            &self.hooks,
            &self.data,
            &self.trace,
        ]
    }
}

/// Decodes the event in a row, whose columns are [`COLUMNS`], starting at `first`.
pub(super) fn decode(operation: &'static str, row: &Row, first: usize) -> Result<Event> {
    let position = row.get::<_, i64>(first) as Position;
    let broken =
        |what: &str| corrupt(operation, format!("an event's {what} cannot be read back")).with("position", position);
    let text = |column: usize| row.get::<_, Option<String>>(first + column).map(unescape);
    let kind: i16 = row.get(first + 4);
    let kind = usize::try_from(kind).ok().and_then(|kind| EventKind::ALL.get(kind)).ok_or_else(|| {
        let message = format!("event kind {kind} is unknown: a newer version wrote it; update this node");
        corrupt(operation, message).with("position", position)
    })?;
    let mut event = Event {
        position,
        id: text(7).unwrap_or_default(),
        kind: *kind,
        model: text(5).unwrap_or_default(),
        model_version: row.get::<_, i64>(first + 2) as u64,
        instance: instance_of(row.get(first + 6)),
        revision: row.get::<_, i64>(first + 3) as u64,
        data: row.get::<_, Option<&str>>(first + 12).map(Json::trusted),
        actor: text(9).map(|text| Arc::new(Actor::from_text(&text))),
        cause: None,
        hooks: Vec::new(),
        request_id: text(8),
        trace: text(13),
        time: row.get(first + 1),
    };
    if let Some(cause) = row.get::<_, Option<&str>>(first + 10) {
        event.cause = Some(snaphook_driver::json::typed(cause).map_err(|error| broken("cause").because(error))?);
    }
    if let Some(hooks) = row.get::<_, Option<&str>>(first + 11) {
        event.hooks = snaphook_driver::json::typed(hooks).map_err(|error| broken("hooks").because(error))?;
    }
    Ok(event)
}

/// PostgreSQL's integers are signed; no position exceeds their maximum.
pub(super) fn signed(position: Position) -> i64 {
    i64::try_from(position).unwrap_or(i64::MAX)
}
