//! The lines of the log, as JSON.
//!
//! A line contains one of these: the description of its segment, an event with the claims that it takes and releases,
//! claims that were reserved without an event, or claims that were forgotten. So the lines alone determine the events
//! and the holders of keys.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use snaphook_driver::judge::{Accepted, HolderRef};
use snaphook_driver::time::{self, Millis};
use snaphook_driver::{Actor, Cause, Event, EventKind, Holder, Json, Position, Provenance, Stream, StreamRef, json};

use crate::text::{join, present, split};

/// A line to write.
#[derive(Serialize)]
pub(super) struct LineOut<'a> {
    /// Number of the line in its segment, starting at 1.
    pub(super) line: u64,
    /// How many lines of the same write follow. Either all of them are valid or none.
    pub(super) left: usize,
    #[serde(flatten)]
    pub(super) body: LineBody<'a>,
}

/// The contents of a line.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum LineBody<'a> {
    Segment {
        segment: Segment<'a>,
    },
    Event {
        event: EventOut<'a>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        claims: Vec<Held<'a>>,
        #[serde(skip_serializing_if = "<[String]>::is_empty")]
        releases: &'a [String],
    },
    Held {
        held: Vec<Held<'a>>,
    },
    Forgotten {
        forgotten: &'a [String],
    },
}

impl<'a> LineBody<'a> {
    /// The line of a row of a batch.
    pub(super) fn of(row: &Accepted<'a>) -> Self {
        let stream = row.stream();
        let claims = row.claims().map(|(key, holder)| Held::by_event(key, holder, Some(stream))).collect();
        let event = EventOut::new(&row.append.event, row.appended.position, row.appended.time);
        LineBody::Event { event, claims, releases: &row.append.releases }
    }
}

/// The first line of a segment.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Segment<'a> {
    /// The log that it belongs to.
    #[serde(borrow)]
    pub(super) log: Cow<'a, str>,
    /// Position of the last event before it.
    pub(super) after: Position,
}

/// An event to write.
#[derive(Serialize)]
pub(super) struct EventOut<'a> {
    position: Position,
    #[serde(with = "time")]
    time: Millis,
    #[serde(rename = "type")]
    kind: EventKind,
    model: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<&'a str>,
    revision: u64,
    model_version: u64,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    actor: Option<&'a Actor>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'a Cause>,
    #[serde(skip_serializing_if = "<[Provenance]>::is_empty")]
    hooks: &'a [Provenance],
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_text: Option<&'a str>,
}

impl<'a> EventOut<'a> {
    pub(super) fn new(event: &'a Event, position: Position, time: Millis) -> Self {
        let (data, data_text) = split(event.data.as_ref());
        EventOut {
            position,
            time,
            kind: event.kind,
            model: &event.model,
            instance: event.instance.as_deref(),
            revision: event.revision,
            model_version: event.model_version,
            id: &event.id,
            actor: event.actor.as_deref(),
            cause: event.cause.as_ref(),
            hooks: &event.hooks,
            request_id: event.request_id.as_deref(),
            trace: event.trace.as_deref(),
            data,
            data_text,
        }
    }
}

/// A claim in a line. Without a model, its holder is the stream of the line's event; without a position, it is held
/// since that event.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Held<'a> {
    pub(super) key: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    model: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    instance: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    position: Option<Position>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<Millis>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<Cow<'a, str>>,
}

impl<'a> Held<'a> {
    /// A claim with all fields.
    pub(super) fn of(key: &'a str, holder: &'a Holder) -> Self {
        Held { position: Some(holder.position), ..Held::by_event(key, holder.into(), None) }
    }

    /// A claim taken by an event, whose stream is not repeated.
    fn by_event(key: &'a str, holder: HolderRef<'a>, stream: Option<StreamRef<'_>>) -> Self {
        let other = stream != Some(holder.stream);
        Held {
            key: key.into(),
            model: other.then(|| holder.stream.model.into()),
            instance: holder.stream.instance.filter(|_| other).map(Cow::from),
            position: None,
            expires: holder.expires,
            value: holder.value.map(Cow::from),
        }
    }

    /// The key and its holder; `event` is the line's event.
    pub(super) fn into_holder(self, event: Option<(&Stream, Position)>) -> Option<(String, Holder)> {
        let stream = match self.model {
            Some(model) => Stream { model: model.into_owned(), instance: self.instance.map(Cow::into_owned) },
            None => event?.0.clone(),
        };
        let position = self.position.or(event.map(|(_, position)| position))?;
        let value = self.value.map(Cow::into_owned);
        Some((self.key.into_owned(), Holder { stream, position, expires: self.expires, value }))
    }
}

/// The parts of a line that the index needs.
#[derive(Deserialize)]
pub(super) struct Scanned<'a> {
    pub(super) line: u64,
    pub(super) left: usize,
    #[serde(borrow, default)]
    pub(super) segment: Option<Segment<'a>>,
    #[serde(borrow, default)]
    pub(super) event: Option<Head<'a>>,
    #[serde(borrow, default)]
    pub(super) claims: Vec<Held<'a>>,
    #[serde(default)]
    pub(super) releases: Vec<String>,
    #[serde(borrow, default)]
    pub(super) held: Vec<Held<'a>>,
    #[serde(default)]
    pub(super) forgotten: Vec<String>,
}

/// The parts of an event that the index needs.
#[derive(Deserialize)]
pub(super) struct Head<'a> {
    pub(super) position: Position,
    #[serde(borrow)]
    pub(super) time: Cow<'a, str>,
    #[serde(rename = "type")]
    pub(super) kind: EventKind,
    #[serde(borrow)]
    pub(super) model: Cow<'a, str>,
    pub(super) instance: Option<String>,
}

#[derive(Deserialize)]
struct LineIn {
    event: EventIn,
}

#[derive(Deserialize)]
struct EventIn {
    position: Position,
    #[serde(with = "time")]
    time: Millis,
    #[serde(rename = "type")]
    kind: EventKind,
    model: String,
    instance: Option<String>,
    revision: u64,
    model_version: u64,
    id: String,
    actor: Option<Actor>,
    cause: Option<Cause>,
    #[serde(default)]
    hooks: Vec<Provenance>,
    request_id: Option<String>,
    trace: Option<String>,
    #[serde(default, deserialize_with = "present")]
    data: Option<Json>,
    data_text: Option<String>,
}

/// The event of a line.
pub(super) fn read_event(line: &[u8]) -> serde_json::Result<Event> {
    let event = json::typed_bytes::<LineIn>(line)?.event;
    Ok(Event {
        position: event.position,
        id: event.id,
        kind: event.kind,
        model: event.model,
        model_version: event.model_version,
        instance: event.instance,
        revision: event.revision,
        data: join(event.data, event.data_text),
        actor: event.actor.map(Arc::new),
        cause: event.cause,
        hooks: event.hooks,
        request_id: event.request_id,
        trace: event.trace,
        time: event.time,
    })
}
