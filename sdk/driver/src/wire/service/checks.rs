//! Repeats the server's checks of calls, because anybody may call over the wire. A request that passes fulfils its
//! method's contract, as far as this can be checked without the store.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::event::EventKind;
use crate::filter::{FILTER_CONDITIONS_MAX, FILTER_DEPTH_MAX};
use crate::group::NOTE_BYTES_MAX;
use crate::limits::{
    self, INSTANCE_ID_BYTES_MAX, LIST_LENGTH_MAX, LISTS_MAX, MODEL_ID_BYTES_MAX, is_digest, is_secret_name,
};
use crate::nodes::NODE_TEXT_BYTES_MAX;
use crate::wire::proto;
use crate::wire::time::WHOLE_TIME;

/// Maximum page size. The server requests a few thousand at most.
const ITEMS_MAX: u64 = 10_000;

const CLAIM_KEY_BYTES_MAX: usize = 64 * 1024;
const CLAIM_VALUE_BYTES_MAX: usize = 256;
const CLAIM_PREFIX_BYTES_MAX: usize = 1024;
const GROUP_BYTES_MAX: usize = 128;

/// Longest identity of a log, and id of a record.
const ID_BYTES_MAX: usize = 128;

/// Longest lease, and longest delay of an event: stores need not support longer ones.
const LEASE_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Most databases use signed integers for positions.
const POSITIONS: RangeInclusive<u64> = 1..=i64::MAX as u64;

/// The fault of a request, as a clause without a full stop.
pub(super) type Check = Result<(), String>;

/// A request whose values can be checked.
pub(super) trait Checked {
    fn check(&self) -> Check;
}

macro_rules! checked {
    ($($request:ident: $self:ident => $check:expr;)*) => {
        $(
            impl Checked for proto::$request {
                fn check(&$self) -> Check {
                    $check
                }
            }
        )*
    };
}

checked! {
    SecureGetRequest: self => secret(&self.name);
    SecurePutRequest: self => secret(&self.name);
    SecureDeleteRequest: self => secret(&self.name);
    // Names have at most 128 bytes, and so have prefixes.
    SecureListRequest: self => length("prefix", &self.prefix, 0..=128);

    EventAppendRequest: self => all(&self.appends, append);
    EventReadRequest: self => {
        items(self.limit)?;
        maybe(&self.filter, filter)?;
        number("wait_ms", self.wait_ms.unwrap_or(0), 0..=milliseconds(WHOLE_TIME))
    };
    EventLastRequest: self => maybe(&self.stream, stream);
    EventReserveRequest: self => all(&self.keys, |reservation| {
        key(&reservation.key)?;
        maybe(&reservation.stream, stream)
    });
    EventForgetClaimsRequest: self => {
        items(self.limit)?;
        length("prefix", &self.prefix, 1..=CLAIM_PREFIX_BYTES_MAX)
    };
    // The successor of a key has one byte more.
    EventNextClaimRequest: self => length("from", &self.from, 0..=CLAIM_KEY_BYTES_MAX + 1);
    EventHolderRequest: self => key(&self.key);
    EventCreateGroupRequest: self => maybe(&self.group, new_group);
    EventDropGroupRequest: self => group(&self.name);
    EventClaimRequest: self => {
        group(&self.group)?;
        items(self.limit)?;
        number("lease_ms", self.lease_ms, 1..=milliseconds(LEASE_MAX))
    };
    EventAckRequest: self => group(&self.group);
    EventReleaseRequest: self => {
        group(&self.group)?;
        maybe(&self.note, |note| length("note", note, 0..=NOTE_BYTES_MAX))?;
        number("delay_ms", self.delay_ms, 0..=milliseconds(LEASE_MAX))
    };
    EventRenewRequest: self => {
        group(&self.group)?;
        maybe(&self.note, |note| length("note", note, 0..=NOTE_BYTES_MAX))?;
        number("lease_ms", self.lease_ms, 1..=milliseconds(LEASE_MAX))
    };
    EventAnnounceRequest: self => {
        maybe(&self.node, node)?;
        number("keep_ms", self.keep_ms, 0..=milliseconds(LEASE_MAX))
    };
    EventIsDoneRequest: self => {
        group(&self.group)?;
        maybe(&self.stream, stream)
    };
    EventLagRequest: self => group(&self.group);
    EventPutBlobRequest: self => digest(&self.sha256);
    EventGetBlobRequest: self => digest(&self.sha256);
    // The service manages the numbers of exports.
    EventExportNextRequest: self => Ok(());
    EventExportCloseRequest: self => Ok(());
    EventImportRequest: self => all(&self.records, record);

    ModelDefineRequest: self => {
        maybe(&self.old, shape)?;
        maybe(&self.new, shape)?;
        number("position", self.position, POSITIONS)
    };
    ModelPrepareRequest: self => maybe(&self.new, shape);
    ModelDiscardRequest: self => model(&self.model);
    ModelDropModelRequest: self => {
        model(&self.model)?;
        number("position", self.position, POSITIONS)
    };
    ModelApplyRequest: self => apply(self);
    ModelGetRequest: self => {
        model(&self.model)?;
        instance(&self.id)
    };
    ModelQueryRequest: self => {
        model(&self.model)?;
        items(self.limit)?;
        all(&self.filter, |part| condition(part, FILTER_DEPTH_MAX))?;
        conditions(&self.filter)?;
        all(&self.sort, |key| if key.meta.is_some() { Ok(()) } else { path("sort", &key.path) })
    };
    ModelCountRequest: self => {
        model(&self.model)?;
        all(&self.filter, |part| condition(part, FILTER_DEPTH_MAX))?;
        conditions(&self.filter)
    };
    ModelResetRequest: self => length("log", &self.log, 1..=ID_BYTES_MAX);

    ErrorRecordRequest: self => maybe(&self.record, |record| {
        length("id", &record.id, 1..=ID_BYTES_MAX)?;
        maybe(&record.event, stored_event)
    });
    ErrorListRequest: self => items(self.query.as_ref().map_or(0, |query| query.limit));
    // `count` ignores the limit and the cursor.
    ErrorCountRequest: self => Ok(());
    ErrorGetRequest: self => length("id", &self.id, 1..=ID_BYTES_MAX);
    ErrorRemoveRequest: self => length("id", &self.id, 1..=ID_BYTES_MAX);
}

fn all<T>(items: &[T], check: impl Fn(&T) -> Check) -> Check {
    items.iter().try_for_each(check)
}

/// Missing values are detected when the request is parsed.
fn maybe<T>(value: &Option<T>, check: impl Fn(&T) -> Check) -> Check {
    value.as_ref().map_or(Ok(()), check)
}

fn number(what: &str, found: u64, expected: RangeInclusive<u64>) -> Check {
    match expected.contains(&found) {
        true => Ok(()),
        false => Err(format!("`{what}` is {found}, expected {} to {}", expected.start(), expected.end())),
    }
}

fn length(what: &str, text: &str, expected: RangeInclusive<usize>) -> Check {
    match expected.contains(&text.len()) {
        true => Ok(()),
        false => {
            let (least, most) = (expected.start(), expected.end());
            Err(format!("`{what}` has {} bytes, expected {least} to {most}", text.len()))
        }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    duration.as_millis() as u64
}

/// A value in a printable form.
fn shown(text: &str) -> String {
    text.chars().take(80).collect::<String>().escape_debug().to_string()
}

fn items(limit: u32) -> Check {
    number("limit", limit.into(), 1..=ITEMS_MAX)
}

fn secret(name: &str) -> Check {
    match is_secret_name(name) {
        true => Ok(()),
        false => Err(format!(
            "`{}` is not a valid secret name, expected `^[A-Za-z0-9][A-Za-z0-9._-]{{0,127}}$`",
            shown(name)
        )),
    }
}

fn node(node: &proto::Node) -> Check {
    length("id", &node.id, 1..=NODE_TEXT_BYTES_MAX)?;
    length("address", &node.address, 0..=NODE_TEXT_BYTES_MAX)?;
    length("version", &node.version, 0..=NODE_TEXT_BYTES_MAX)
}

fn digest(sha256: &str) -> Check {
    match is_digest(sha256) {
        true => Ok(()),
        false => Err(format!("`{}` is not a SHA-256, expected 64 hexadecimal digits in lower case", shown(sha256))),
    }
}

fn model(id: &str) -> Check {
    length("model", id, 1..=MODEL_ID_BYTES_MAX)
}

fn instance(id: &str) -> Check {
    length("instance", id, 1..=INSTANCE_ID_BYTES_MAX)
}

fn key(key: &str) -> Check {
    length("key", key, 0..=CLAIM_KEY_BYTES_MAX)
}

fn group(name: &str) -> Check {
    length("group", name, 0..=GROUP_BYTES_MAX)
}

fn stream(stream: &proto::Stream) -> Check {
    model(&stream.model)?;
    maybe(&stream.instance, |id| instance(id))
}

fn event(event: &proto::Event) -> Check {
    stored_event(event)?;
    match (&event.instance, &event.data_json) {
        (Some(_), Some(data)) => limits::check_data(data).map_err(|exceeded| exceeded.to_string()),
        _ => Ok(()),
    }
}

/// An event in the log may have been written under larger limits.
fn stored_event(event: &proto::Event) -> Check {
    model(&event.model)?;
    maybe(&event.instance, |id| instance(id))?;
    let Some(kind) = EventKind::from_name(&event.r#type) else {
        return Err(format!("`{}` is not an event type", shown(&event.r#type)));
    };
    if kind.is_instance() != event.instance.is_some() {
        let belongs = if kind.is_instance() { "an instance" } else { "a model's definition" };
        return Err(format!("`{kind}` belongs to {belongs}, but the event belongs to another stream"));
    }
    Ok(())
}

fn append(append: &proto::Append) -> Check {
    maybe(&append.event, event)?;
    all(&append.requires, |require| maybe(&require.stream, stream))?;
    maybe(&append.quiet, |quiet| model(&quiet.model))?;
    all(&append.releases, |released| key(released))?;
    all(&append.claims, |claim| {
        key(&claim.key)?;
        maybe(&claim.holder, stream)?;
        maybe(&claim.value, |value| length("value", value, 0..=CLAIM_VALUE_BYTES_MAX))
    })
}

fn filter(filter: &proto::EventFilter) -> Check {
    maybe(&filter.model, |id| model(id))?;
    maybe(&filter.instance, |id| instance(id))?;
    match (&filter.model, &filter.instance) {
        (None, Some(_)) => Err("`instance` is in a filter without `model`".into()),
        _ => Ok(()),
    }
}

fn new_group(new: &proto::Group) -> Check {
    group(&new.name)?;
    maybe(&new.filter, filter)
}

/// A log may have been written under other limits, so the store checks the content of its events.
fn record(record: &proto::LogRecord) -> Check {
    use proto::log_record::Record;
    match &record.record {
        Some(Record::Event(event)) => number("position", event.position, POSITIONS),
        Some(Record::Claim(claim)) => key(&claim.key),
        Some(Record::Blob(blob)) => digest(&blob.sha256),
        Some(Record::Group(record)) => maybe(&record.group, new_group),
        Some(Record::Pending(pending)) => group(&pending.group),
        None => Ok(()),
    }
}

fn path(what: &str, path: &[String]) -> Check {
    if path.is_empty() { Err(format!("a path in `{what}` has no names, expected at least one")) } else { Ok(()) }
}

/// `depth` is the remaining number of nested levels.
fn condition(condition: &proto::Condition, depth: usize) -> Check {
    use proto::condition::Operator::{And, Not, Or};
    let deeper = |parts: &[proto::Condition]| {
        let depth = depth
            .checked_sub(1)
            .ok_or_else(|| format!("conditions of `filter` are nested more than {FILTER_DEPTH_MAX} levels deep"))?;
        all(parts, |part| self::condition(part, depth))
    };
    match &condition.operator {
        Some(And(parts) | Or(parts)) => deeper(&parts.conditions),
        Some(Not(part)) => deeper(std::slice::from_ref(&**part)),
        _ => Ok(()),
    }
}

fn conditions(filter: &[proto::Condition]) -> Check {
    fn count(part: &proto::Condition) -> usize {
        use proto::condition::Operator::{And, Not, Or};
        match &part.operator {
            Some(And(parts) | Or(parts)) => parts.conditions.iter().map(count).sum(),
            Some(Not(part)) => count(part),
            _ => 1,
        }
    }
    let found: usize = filter.iter().map(count).sum();
    number("conditions of `filter`", found as u64, 0..=FILTER_CONDITIONS_MAX as u64)
}

fn shape(shape: &proto::ModelShape) -> Check {
    model(&shape.model)?;
    for (what, lists) in [("indexes", shape.indexes.len()), ("unique", shape.unique.len())] {
        number(what, lists as u64, 0..=LISTS_MAX as u64)?;
    }
    all(&shape.indexes, |index| {
        number("keys of an index", index.keys.len() as u64, 1..=LIST_LENGTH_MAX as u64)?;
        all(&index.keys, |key| path("indexes", &key.path))
    })?;
    all(&shape.unique, |list| number("names in `unique`", list.names.len() as u64, 1..=LIST_LENGTH_MAX as u64))
}

fn apply(request: &proto::ModelApplyRequest) -> Check {
    number("to", request.to, POSITIONS)?;
    let mut before = 0;
    for applied in &request.events {
        event(applied)?;
        if applied.position <= before || applied.position > request.to {
            let (found, to) = (applied.position, request.to);
            return Err(format!("an event at {found} cannot follow one at {before} in a step to {to}"));
        }
        before = applied.position;
    }
    Ok(())
}
