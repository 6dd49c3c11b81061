//! Events: the immutable facts of the log.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::actor::{self, Actor};
use crate::json::Json;
use crate::time::{self, Millis};

/// Position of an event in the total order of one log. Starts at 1, strictly increases and may have gaps; 0 means
/// before all events.
pub type Position = u64;

/// Creates the identity of a new log: a UUID, in lower case. A store writes it with the log and never changes it.
pub fn new_log_identity() -> String {
    uuid::Uuid::now_v7().to_string()
}

/// The type of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EventKind {
    #[serde(rename = "model.created")]
    ModelCreated,
    #[serde(rename = "model.updated")]
    ModelUpdated,
    #[serde(rename = "model.deleted")]
    ModelDeleted,
    #[serde(rename = "hook.updated")]
    HookUpdated,
    #[serde(rename = "hook.deleted")]
    HookDeleted,
    #[serde(rename = "instance.created")]
    InstanceCreated,
    #[serde(rename = "instance.updated")]
    InstanceUpdated,
    #[serde(rename = "instance.deleted")]
    InstanceDeleted,
    /// An event of the model (`{"position", "reason"}` in the data) is never applied. Belongs to the model's
    /// definition.
    #[serde(rename = "model.event-skipped")]
    ModelEventSkipped,
    /// A change of the model is imminent: nodes that share the log delay writes to its instances until the next event
    /// of its definition, for a limited time (`{"within_ms"}` in the data). Belongs to the model's definition.
    #[serde(rename = "model.changing")]
    ModelChanging,
}

impl EventKind {
    /// Every kind. New ones are added at the end, because stores may store a kind as its index here.
    pub const ALL: [EventKind; 10] = [
        EventKind::ModelCreated,
        EventKind::ModelUpdated,
        EventKind::ModelDeleted,
        EventKind::HookUpdated,
        EventKind::HookDeleted,
        EventKind::InstanceCreated,
        EventKind::InstanceUpdated,
        EventKind::InstanceDeleted,
        EventKind::ModelEventSkipped,
        EventKind::ModelChanging,
    ];

    /// The name on the wire, such as `instance.created`.
    pub const fn as_str(self) -> &'static str {
        match self {
            EventKind::ModelCreated => "model.created",
            EventKind::ModelUpdated => "model.updated",
            EventKind::ModelDeleted => "model.deleted",
            EventKind::HookUpdated => "hook.updated",
            EventKind::HookDeleted => "hook.deleted",
            EventKind::InstanceCreated => "instance.created",
            EventKind::InstanceUpdated => "instance.updated",
            EventKind::InstanceDeleted => "instance.deleted",
            EventKind::ModelEventSkipped => "model.event-skipped",
            EventKind::ModelChanging => "model.changing",
        }
    }

    /// The kind with that name.
    pub fn from_name(name: &str) -> Option<EventKind> {
        EventKind::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// Whether the event belongs to an instance rather than to a model's definition.
    pub const fn is_instance(self) -> bool {
        matches!(self, EventKind::InstanceCreated | EventKind::InstanceUpdated | EventKind::InstanceDeleted)
    }

    /// Whether the event ends its stream, so that the next one may be a creation again.
    pub const fn ends_stream(self) -> bool {
        matches!(self, EventKind::InstanceDeleted | EventKind::ModelDeleted)
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The events of one instance, or of one model's definition (`instance` is `None`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Stream {
    pub model: String,
    pub instance: Option<String>,
}

impl Stream {
    /// The stream of a model's definition.
    pub fn of_model(model: impl Into<String>) -> Self {
        Stream { model: model.into(), instance: None }
    }

    /// The stream of one instance.
    pub fn of_instance(model: impl Into<String>, instance: impl Into<String>) -> Self {
        Stream { model: model.into(), instance: Some(instance.into()) }
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.instance {
            Some(instance) => write!(f, "{}/{instance}", self.model),
            None => f.write_str(&self.model),
        }
    }
}

/// A borrowed [`Stream`], with the same order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamRef<'a> {
    pub model: &'a str,
    pub instance: Option<&'a str>,
}

impl<'a> StreamRef<'a> {
    /// The stream that an event belongs to.
    pub fn of(event: &'a Event) -> Self {
        StreamRef { model: &event.model, instance: event.instance.as_deref() }
    }

    /// An owned stream.
    pub fn to_stream(self) -> Stream {
        Stream { model: self.model.to_owned(), instance: self.instance.map(str::to_owned) }
    }
}

impl<'a> From<&'a Stream> for StreamRef<'a> {
    fn from(stream: &'a Stream) -> Self {
        StreamRef { model: &stream.model, instance: stream.instance.as_deref() }
    }
}

/// Why an event was written by a hook rather than by a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// Position of the event whose post hook wrote this one.
    pub position: Position,
    /// `model.phase` and the hook's name, such as `invoice.postCreate/mail`.
    pub hook: String,
    /// Length of the chain of causes that ends here, starting at 1.
    pub depth: u32,
}

/// The code that accepted an event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// The hook's name.
    pub name: String,
    /// Engine that ran it.
    pub engine: String,
    /// `sha256:…` of the code.
    pub artifact: String,
    /// Wall time of the run, in milliseconds.
    pub ms: f64,
}

/// One immutable fact.
///
/// For an instance event, `data` is the complete data after the change (absent for a deletion). For a model or hook
/// event, it is the change of the definition, in a format that only the server reads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Assigned by the event store; 0 before that.
    pub position: Position,
    /// UUIDv7, globally unique; a transport that may send an append twice uses the id to detect duplicates.
    pub id: String,
    #[serde(rename = "type")]
    pub kind: EventKind,
    pub model: String,
    pub model_version: u64,
    pub instance: Option<String>,
    /// Revision of the instance, or version of the model, after the event.
    pub revision: u64,
    pub data: Option<Json>,
    #[serde(default, with = "actor::shared")]
    pub actor: Option<Arc<Actor>>,
    pub cause: Option<Cause>,
    #[serde(default)]
    pub hooks: Vec<Provenance>,
    pub request_id: Option<String>,
    /// The event's trace context, for subsequent spans: `traceparent`, followed by a space and `tracestate` if there is
    /// one. At most 600 bytes of visible ASCII characters and spaces; stores keep it unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
    #[serde(with = "time")]
    pub time: Millis,
}

impl Event {
    /// The stream that the event belongs to.
    pub fn stream(&self) -> Stream {
        Stream { model: self.model.clone(), instance: self.instance.clone() }
    }

    /// Total bytes of the event's large texts: the data, and the claims of the actor.
    pub fn text_bytes(&self) -> usize {
        let claims = self.actor.as_ref().and_then(|actor| actor.claims.as_ref());
        [self.data.as_ref(), claims].into_iter().flatten().map(|text| text.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_and_claims_are_texts_that_may_be_large() {
        let read = |members: &str| -> Event {
            let text = format!(
                r#"{{"position":1,"id":"e","type":"instance.created","model":"m","model_version":1,"instance":"i",
                "revision":1,"time":"1970-01-01T00:00:00.000Z"{members}}}"#
            );
            crate::json::typed(&text).unwrap()
        };
        let claims = r#","actor":{"id":"u","kind":"oidc","claims":{"a":1}}"#;
        for (members, bytes) in [("", 0), (r#","data":{}"#, 2), (claims, 7), (&format!(r#"{claims},"data":[1]"#), 10)] {
            assert_eq!(read(members).text_bytes(), bytes, "{members}");
        }
    }
}
