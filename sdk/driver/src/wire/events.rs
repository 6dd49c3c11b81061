//! Events, appends, claims, groups and the records of an export, as messages.

use std::sync::Arc;
use std::time::Duration;

use super::message::{Malformed, json, required};
use super::proto;
use crate::actor::Actor;
use crate::append::{Append, Appended, Claim, Conflict, Expected, Holder, Quiet, Require};
use crate::event::{Cause, Event, EventKind, Provenance, Stream};
use crate::event_query::{EventFilter, EventPage, EventQuery};
use crate::export::{LogRecord, PendingEvent};
use crate::group::{Delivery, Group};

/// A duration in whole milliseconds, saturating.
pub(super) fn to_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn each<A, B: TryFrom<A, Error = Malformed>>(items: Vec<A>) -> Result<Vec<B>, Malformed> {
    items.into_iter().map(B::try_from).collect()
}

impl From<&Event> for proto::Event {
    fn from(event: &Event) -> Self {
        proto::Event {
            position: event.position,
            id: event.id.clone(),
            r#type: event.kind.as_str().to_owned(),
            model: event.model.clone(),
            model_version: event.model_version,
            instance: event.instance.clone(),
            revision: event.revision,
            data_json: event.data.as_ref().map(|data| data.as_str().to_owned()),
            actor: event.actor.as_ref().map(|actor| actor.to_text()),
            cause: event.cause.as_ref().map(|cause| proto::Cause {
                position: cause.position,
                hook: cause.hook.clone(),
                depth: cause.depth,
            }),
            hooks: event
                .hooks
                .iter()
                .map(|hook| proto::Provenance {
                    name: hook.name.clone(),
                    engine: hook.engine.clone(),
                    artifact: hook.artifact.clone(),
                    ms: hook.ms,
                })
                .collect(),
            request_id: event.request_id.clone(),
            trace: event.trace.clone(),
            time: event.time,
        }
    }
}

impl TryFrom<proto::Event> for Event {
    type Error = Malformed;

    fn try_from(event: proto::Event) -> Result<Self, Malformed> {
        Ok(Event {
            position: event.position,
            id: event.id,
            kind: kind(&event.r#type)?,
            model: event.model,
            model_version: event.model_version,
            instance: event.instance,
            revision: event.revision,
            data: event.data_json.map(|data| json("event.data_json", data)).transpose()?,
            actor: event.actor.map(|text| Arc::new(Actor::from_text(&text))),
            cause: event.cause.map(|cause| Cause { position: cause.position, hook: cause.hook, depth: cause.depth }),
            hooks: event
                .hooks
                .into_iter()
                .map(|hook| Provenance { name: hook.name, engine: hook.engine, artifact: hook.artifact, ms: hook.ms })
                .collect(),
            request_id: event.request_id,
            trace: event.trace,
            time: event.time,
        })
    }
}

fn kind(name: &str) -> Result<EventKind, Malformed> {
    EventKind::from_name(name).ok_or_else(|| Malformed::new(format!("`{name}` is not an event type")))
}

impl From<&Stream> for proto::Stream {
    fn from(stream: &Stream) -> Self {
        proto::Stream { model: stream.model.clone(), instance: stream.instance.clone() }
    }
}

impl From<proto::Stream> for Stream {
    fn from(stream: proto::Stream) -> Self {
        Stream { model: stream.model, instance: stream.instance }
    }
}

/// A required stream.
pub(super) fn stream(stream: Option<proto::Stream>) -> Result<Stream, Malformed> {
    required("stream", stream).map(Stream::from)
}

impl From<&Append> for proto::Append {
    fn from(append: &Append) -> Self {
        use proto::expected::Condition;
        let condition = match append.expected {
            Expected::Any => None,
            Expected::New => Some(Condition::New(proto::Empty {})),
            Expected::At(position) => Some(Condition::At(position)),
        };
        let requires = append.requires.iter();
        proto::Append {
            event: Some((&append.event).into()),
            expected: condition.map(|condition| proto::Expected { condition: Some(condition) }),
            requires: requires
                .map(|require| proto::Require { stream: Some((&require.stream).into()), position: require.position })
                .collect(),
            quiet: append.quiet.as_ref().map(|quiet| proto::Quiet { model: quiet.model.clone(), since: quiet.since }),
            claims: append.claims.iter().map(proto::Claim::from).collect(),
            releases: append.releases.clone(),
        }
    }
}

impl TryFrom<proto::Append> for Append {
    type Error = Malformed;

    fn try_from(append: proto::Append) -> Result<Self, Malformed> {
        use proto::expected::Condition;
        let require =
            |require: proto::Require| Ok(Require { stream: stream(require.stream)?, position: require.position });
        Ok(Append {
            event: required("event", append.event)?.try_into()?,
            // An unknown condition must not be ignored.
            expected: match append.expected {
                None => Expected::Any,
                Some(expected) => match required("expected.condition", expected.condition)? {
                    Condition::New(_) => Expected::New,
                    Condition::At(position) => Expected::At(position),
                },
            },
            requires: append.requires.into_iter().map(require).collect::<Result<_, _>>()?,
            quiet: append.quiet.map(|quiet| Quiet { model: quiet.model, since: quiet.since }),
            claims: append.claims.into_iter().map(Claim::from).collect(),
            releases: append.releases,
        })
    }
}

impl From<&Claim> for proto::Claim {
    fn from(claim: &Claim) -> Self {
        proto::Claim {
            key: claim.key.clone(),
            holder: claim.holder.as_ref().map(Into::into),
            replaces: claim.replaces,
            expires: claim.expires,
            value: claim.value.clone(),
        }
    }
}

impl From<proto::Claim> for Claim {
    fn from(claim: proto::Claim) -> Self {
        Claim {
            key: claim.key,
            holder: claim.holder.map(Into::into),
            replaces: claim.replaces,
            expires: claim.expires,
            value: claim.value,
        }
    }
}

impl From<&Holder> for proto::Holder {
    fn from(holder: &Holder) -> Self {
        proto::Holder {
            stream: Some((&holder.stream).into()),
            position: holder.position,
            expires: holder.expires,
            value: holder.value.clone(),
        }
    }
}

impl TryFrom<proto::Holder> for Holder {
    type Error = Malformed;

    fn try_from(holder: proto::Holder) -> Result<Self, Malformed> {
        Ok(Holder {
            stream: stream(holder.stream)?,
            position: holder.position,
            expires: holder.expires,
            value: holder.value,
        })
    }
}

impl From<&Result<Appended, Conflict>> for proto::AppendOutcome {
    fn from(outcome: &Result<Appended, Conflict>) -> Self {
        use proto::append_outcome::Outcome;
        proto::AppendOutcome {
            outcome: Some(match outcome {
                Ok(Appended { position, time, after }) => {
                    Outcome::Appended(proto::Appended { position: *position, time: *time, after: *after })
                }
                Err(conflict) => Outcome::Conflict(conflict.into()),
            }),
        }
    }
}

impl From<&Conflict> for proto::Conflict {
    fn from(conflict: &Conflict) -> Self {
        use proto::conflict::Reason;
        proto::Conflict {
            reason: Some(match conflict {
                Conflict::Stream { last, ended } => {
                    Reason::Stream(proto::StreamConflict { last: *last, ended: *ended })
                }
                Conflict::Required { stream, last } => {
                    Reason::Required(proto::RequiredConflict { stream: Some(stream.into()), last: *last })
                }
                Conflict::NotQuiet { last } => Reason::NotQuiet(*last),
                Conflict::Claimed { key, holder } => {
                    Reason::Claimed(proto::ClaimedConflict { key: key.clone(), holder: Some(holder.into()) })
                }
                Conflict::Batch => Reason::Batch(proto::Empty {}),
            }),
        }
    }
}

/// The outcome of one append.
pub(super) fn outcome(outcome: proto::AppendOutcome) -> Result<Result<Appended, Conflict>, Malformed> {
    use proto::append_outcome::Outcome;
    use proto::conflict::Reason;
    let conflict = match required("outcome", outcome.outcome)? {
        Outcome::Appended(proto::Appended { position, time, after }) if after < position => {
            return Ok(Ok(Appended { position, time, after }));
        }
        Outcome::Appended(proto::Appended { position, after, .. }) => {
            return Err(Malformed::new(format!("an event at {position} cannot follow one at {after}")));
        }
        Outcome::Conflict(conflict) => conflict,
    };
    Ok(Err(match required("reason", conflict.reason)? {
        Reason::Stream(proto::StreamConflict { last, ended }) => Conflict::Stream { last, ended },
        Reason::Required(required) => Conflict::Required { stream: stream(required.stream)?, last: required.last },
        Reason::NotQuiet(last) => Conflict::NotQuiet { last },
        Reason::Claimed(claimed) => {
            Conflict::Claimed { key: claimed.key, holder: required("holder", claimed.holder)?.try_into()? }
        }
        Reason::Batch(_) => Conflict::Batch,
    }))
}

impl From<&EventFilter> for proto::EventFilter {
    fn from(filter: &EventFilter) -> Self {
        proto::EventFilter {
            model: filter.model.clone(),
            instance: filter.instance.clone(),
            definitions_only: filter.definitions_only,
            types: filter.kinds.iter().map(|kind| kind.as_str().to_owned()).collect(),
        }
    }
}

impl TryFrom<proto::EventFilter> for EventFilter {
    type Error = Malformed;

    fn try_from(filter: proto::EventFilter) -> Result<Self, Malformed> {
        Ok(EventFilter {
            model: filter.model,
            instance: filter.instance,
            definitions_only: filter.definitions_only,
            kinds: filter.types.iter().map(|name| kind(name)).collect::<Result<_, _>>()?,
        })
    }
}

/// Without a filter, all events match.
fn filter(filter: Option<proto::EventFilter>) -> Result<EventFilter, Malformed> {
    filter.map_or_else(|| Ok(EventFilter::default()), EventFilter::try_from)
}

/// A query with its waiting time.
pub(super) fn read_request(query: &EventQuery, wait: Option<Duration>) -> proto::EventReadRequest {
    proto::EventReadRequest {
        after: query.after,
        limit: query.limit,
        filter: Some((&query.filter).into()),
        wait_ms: wait.map(to_ms),
    }
}

pub(super) fn read_query(request: proto::EventReadRequest) -> Result<(EventQuery, Option<Duration>), Malformed> {
    let query = EventQuery { after: request.after, limit: request.limit, filter: filter(request.filter)? };
    Ok((query, request.wait_ms.map(Duration::from_millis)))
}

impl From<&EventPage> for proto::EventReadResponse {
    fn from(page: &EventPage) -> Self {
        proto::EventReadResponse {
            events: page.events.iter().map(proto::Event::from).collect(),
            head: page.head,
            reached: page.reached,
        }
    }
}

impl TryFrom<proto::EventReadResponse> for EventPage {
    type Error = Malformed;

    fn try_from(page: proto::EventReadResponse) -> Result<Self, Malformed> {
        Ok(EventPage { events: each(page.events)?, head: page.head, reached: page.reached })
    }
}

impl From<&Group> for proto::Group {
    fn from(group: &Group) -> Self {
        proto::Group { name: group.name.clone(), filter: Some((&group.filter).into()) }
    }
}

impl TryFrom<proto::Group> for Group {
    type Error = Malformed;

    fn try_from(group: proto::Group) -> Result<Self, Malformed> {
        Ok(Group { name: group.name, filter: filter(group.filter)? })
    }
}

impl From<&Delivery> for proto::Delivery {
    fn from(delivery: &Delivery) -> Self {
        proto::Delivery {
            event: Some((&delivery.event).into()),
            attempt: delivery.attempt,
            token: delivery.token,
            note: delivery.note.clone(),
        }
    }
}

impl TryFrom<proto::Delivery> for Delivery {
    type Error = Malformed;

    fn try_from(delivery: proto::Delivery) -> Result<Self, Malformed> {
        Ok(Delivery {
            event: required("event", delivery.event)?.try_into()?,
            attempt: delivery.attempt,
            token: delivery.token,
            note: delivery.note,
        })
    }
}

impl From<&LogRecord> for proto::LogRecord {
    fn from(record: &LogRecord) -> Self {
        use proto::log_record::Record;
        proto::LogRecord {
            record: Some(match record {
                LogRecord::Event(event) => Record::Event(event.into()),
                LogRecord::Claim { key, holder } => {
                    Record::Claim(proto::ClaimRecord { key: key.clone(), holder: Some(holder.into()) })
                }
                LogRecord::Blob { sha256, bytes } => {
                    Record::Blob(proto::BlobRecord { sha256: sha256.clone(), bytes: bytes.clone() })
                }
                LogRecord::Group { group, cursor } => {
                    Record::Group(proto::GroupRecord { group: Some(group.into()), cursor: *cursor })
                }
                LogRecord::Pending { group, events } => Record::Pending(proto::PendingRecord {
                    group: group.clone(),
                    events: events
                        .iter()
                        .map(|event| proto::PendingEvent {
                            position: event.position,
                            attempt: event.attempt,
                            due: event.due,
                            note: event.note.clone(),
                        })
                        .collect(),
                }),
            }),
        }
    }
}

impl TryFrom<proto::LogRecord> for LogRecord {
    type Error = Malformed;

    fn try_from(record: proto::LogRecord) -> Result<Self, Malformed> {
        use proto::log_record::Record;
        let pending = |event: proto::PendingEvent| PendingEvent {
            position: event.position,
            attempt: event.attempt,
            due: event.due,
            note: event.note,
        };
        Ok(match required("record", record.record)? {
            Record::Event(event) => LogRecord::Event(event.try_into()?),
            Record::Claim(claim) => {
                LogRecord::Claim { key: claim.key, holder: required("holder", claim.holder)?.try_into()? }
            }
            Record::Blob(blob) => LogRecord::Blob { sha256: blob.sha256, bytes: blob.bytes },
            Record::Group(group) => {
                LogRecord::Group { group: required("group", group.group)?.try_into()?, cursor: group.cursor }
            }
            Record::Pending(record) => {
                LogRecord::Pending { group: record.group, events: record.events.into_iter().map(pending).collect() }
            }
        })
    }
}
