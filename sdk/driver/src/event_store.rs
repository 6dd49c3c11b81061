//! The event log: the truth that everything else is derived from.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::capabilities::Capabilities;
use crate::error::Result;
use crate::event::{Event, EventKind, Position, Stream};
use crate::export::{LogExport, LogRecord};
use crate::nodes::Node;
use crate::time::Millis;

/// What must be true of a stream for an append to it to succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expected {
    /// Anything.
    Any,
    /// The stream has no event, or its last one ended it ([`EventKind::ends_stream`]).
    New,
    /// The last event of the stream is at this position, and did not end it.
    At(Position),
}

/// Another stream that must not have moved: its last event is at `position` (0: it has none).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Require {
    pub stream: Stream,
    pub position: Position,
}

/// A unique key that a stream takes together with an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Any text up to 64 KiB; equal bytes are equal keys.
    pub key: String,
    /// Who holds it; `None`: the stream of the event.
    pub holder: Option<Stream>,
    /// A holder since exactly this position gives way. One that came later does not, so of two who found the same
    /// holder and want its place, one gets it.
    pub replaces: Option<Position>,
    /// From this time on the claim counts as given back: for an event whose `time` is not before it, nobody holds the
    /// key. The store removes such claims while it appends, soon after their time. `None`: the claim lasts.
    pub expires: Option<Millis>,
    /// Up to 256 bytes that are kept with the claim and returned with its holder.
    pub value: Option<String>,
}

impl Claim {
    /// A claim of the event's own stream that lasts.
    pub fn new(key: impl Into<String>) -> Claim {
        Claim { key: key.into(), holder: None, replaces: None, expires: None, value: None }
    }
}

/// No event of an instance of this model may have come since: what an append that is about all instances of a model was
/// checked against must still be so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quiet {
    pub model: String,
    /// Instance events up to this position are known.
    pub since: Position,
}

/// One event to append, and what must hold for it.
///
/// Order of effects within one append: `expected`, `requires` and `quiet` are checked, `releases` are given back,
/// `claims` are taken, the event is written. It happens as a whole or not at all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Append {
    /// `position` is ignored; the store assigns it. `time` is a proposal: see [`Appended`].
    pub event: Event,
    pub expected: Expected,
    pub requires: Vec<Require>,
    pub quiet: Option<Quiet>,
    /// Taking a key that the same holder has is no conflict; the position moves to this event.
    pub claims: Vec<Claim>,
    /// Releasing a key that nobody holds is not an error.
    pub releases: Vec<String>,
}

impl Append {
    /// An append of an event to its stream, without any other condition.
    pub fn new(event: Event, expected: Expected) -> Append {
        Append { event, expected, requires: Vec::new(), quiet: None, claims: Vec::new(), releases: Vec::new() }
    }
}

/// What the store made of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Appended {
    pub position: Position,
    /// The event's time in the log: as proposed, or that of the event before it where that is later. Times never go back
    /// in a log, whoever writes to it.
    pub time: Millis,
    /// Position of the event before it in the log, 0 for the first one. Who knows the log up to there has missed nothing.
    pub after: Position,
}

/// Why one append of a batch was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Conflict {
    /// `expected` did not hold. `last` is the stream's last position (0: no event), `ended` whether that ended it.
    Stream { last: Position, ended: bool },
    /// A stream in `requires` is elsewhere.
    Required { stream: Stream, last: Position },
    /// An instance of the model in `quiet` has a later event, the last at this position.
    NotQuiet { last: Position },
    /// A key is held by another stream.
    Claimed { key: String, holder: Holder },
    /// Another append of an atomic batch failed.
    Batch,
}

/// Who holds a claim, since which event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    pub stream: Stream,
    pub position: Position,
    /// As in the [`Claim`].
    pub expires: Option<Millis>,
    /// As in the [`Claim`].
    pub value: Option<String>,
}

impl Holder {
    /// A holder by a claim that lasts.
    pub fn new(stream: Stream, position: Position) -> Holder {
        Holder { stream, position, expires: None, value: None }
    }

    /// Whether the claim has ended at that time.
    pub fn has_expired(&self, time: Millis) -> bool {
        self.expires.is_some_and(|expires| expires <= time)
    }
}

/// Which events to read. Empty matches all; fields add up with "and".
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventFilter {
    pub model: Option<String>,
    /// Only with `model`.
    pub instance: Option<String>,
    /// Only events of model definitions, not of instances.
    pub definitions_only: bool,
    /// Empty: every kind.
    pub kinds: Vec<EventKind>,
}

impl EventFilter {
    /// Whether an event passes; for drivers that filter in memory, and for live listeners.
    pub fn matches(&self, event: &Event) -> bool {
        self.model.as_ref().is_none_or(|model| *model == event.model)
            && self.instance.as_ref().is_none_or(|instance| Some(instance) == event.instance.as_ref())
            && (!self.definitions_only || event.instance.is_none())
            && (self.kinds.is_empty() || self.kinds.contains(&event.kind))
    }
}

/// One page to read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventQuery {
    /// Only events with a greater position.
    pub after: Position,
    /// At most that many events, from 1; fewer if their data would be more than [`crate::PAGE_BYTES_MAX`].
    pub limit: u32,
    pub filter: EventFilter,
}

/// Events in order of position.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventPage {
    pub events: Vec<Event>,
    /// Position of the last event of the whole log (whatever the filter) when the page was read; 0 if it is empty.
    pub head: Position,
    /// Every matching event after the one asked for, up to this position, is in the page: a reader that goes on from here
    /// misses nothing, ever. Less than `head` where the page ends earlier: at its limit, for its size, or because the
    /// filter passed over [`SCAN_MAX`] events. Then more may follow, even if the page has no events.
    pub reached: Position,
}

impl EventPage {
    /// After which position to go on; `None` if the page reaches the end of the log.
    pub fn next(&self) -> Option<Position> {
        (self.reached < self.head).then_some(self.reached)
    }
}

/// Events that one page passes over, at least roughly, to find those that match. What a filter does not match costs as
/// much as what it does, and it is the client who chooses the filter.
pub const SCAN_MAX: u32 = 50_000;

/// A consumer group: a named reader of the log whose progress the store keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    pub name: String,
    pub filter: EventFilter,
}

/// One event handed to one member of a group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Delivery {
    pub event: Event,
    /// How often this event was claimed in this group, from 1.
    pub attempt: u32,
    /// Proof of ownership; `ack` and `release` with an old token do nothing.
    pub token: u64,
    /// What those who had the event before noted of it last; kept like the rest of a group's progress.
    pub note: Option<String>,
}

/// Bytes of a note that a store must be able to keep with an event of a group.
pub const NOTE_BYTES_MAX: usize = 64 * 1024;

/// A store of events.
///
/// All methods may be called at once from many tasks. `append` is called by one dedicated thread per node and may
/// block it; the other methods must not block for longer than a point read takes.
#[async_trait]
pub trait EventStore: Send + Sync {
    /// Constant over the life of the store.
    fn capabilities(&self) -> Capabilities;

    /// Tells this log from every other: a UUID in lower case, made with the log ([`crate::new_log_identity`]) and kept
    /// with it. Positions mean something within one log only, so whoever remembers a position remembers this too. A
    /// log that is restored from a backup is another log with the same events, and has another identity.
    fn identity(&self) -> &str;

    /// Whether the store can answer now. After an append failed this is `Ok` only when appends can succeed again, and
    /// then [`EventStore::head`] is right even if that append had ended with [`ErrorKind::Uncertain`](crate::ErrorKind).
    async fn health(&self) -> Result<()>;

    /// Ends background work. Called once, last; everything that was answered is durable.
    async fn close(&self) -> Result<()>;

    /// Appends in the order given; what was appended is durable when this returns. The answer has one row per
    /// append: where it stands in the log, or its conflict; each row succeeds or fails for itself, and a row sees the effects
    /// of the rows before it. With `atomic` all rows succeed, or none (the others answer [`Conflict::Batch`]).
    ///
    /// An `Err` means that nothing of the batch is stored, unless it is of kind
    /// [`ErrorKind::Uncertain`](crate::ErrorKind). A driver with a network between must find out before it answers, by the
    /// events' ids.
    async fn append(&self, batch: &[Append], atomic: bool) -> Result<Vec<Result<Appended, Conflict>>>;

    /// Events after a position, oldest first. With `wait`, an empty page is answered only after that time; the call
    /// returns earlier as soon as a matching event is there. Without `wait`, a page without events may still have a
    /// [`EventPage::next`].
    async fn read(&self, query: &EventQuery, wait: Option<Duration>) -> Result<EventPage>;

    /// The last event of a stream at or before `at_most`; `None` if there is none.
    async fn last(&self, stream: &Stream, at_most: Position) -> Result<Option<Event>>;

    /// The event of a stream that has `skip` later ones at or before `at_most`; `None` if there are not so many. Costs as
    /// little as the store allows: a long stream is not read from its start.
    async fn last_but(&self, stream: &Stream, at_most: Position, skip: u64) -> Result<Option<Event>> {
        let Some(mut event) = self.last(stream, at_most).await? else { return Ok(None) };
        for _ in 0..skip {
            match self.last(stream, event.position - 1).await? {
                Some(earlier) => event = earlier,
                None => return Ok(None),
            }
        }
        Ok(Some(event))
    }

    /// Position of the last event of the log; 0 if it is empty.
    async fn head(&self) -> Result<Position>;

    /// Takes keys for streams before the event that makes them count: a change of a model may need more of them than one
    /// append should carry. Returns, for each key that another stream holds, its index and who holds it; that one is not
    /// taken, all others are, since the head of the log. Taking a key that the same stream has is no conflict.
    ///
    /// Called from other threads than `append` and with a few hundred keys at a time, so that no append waits for long.
    /// Durable no later than the next append that succeeds.
    async fn reserve(&self, keys: &[(String, Stream)]) -> Result<Vec<(usize, Holder)>>;

    /// Gives back up to `limit` claims whose keys begin with `prefix` (1 to 1024 bytes), whoever holds them. Returns how
    /// many; fewer than `limit` only if none is left. No more durable than [`EventStore::reserve`].
    async fn forget_claims(&self, prefix: &str, limit: u32) -> Result<u64>;

    /// The first key that is held and is not before `from`, in the order of bytes.
    async fn next_claim(&self, from: &str) -> Result<Option<String>>;

    /// Who holds a claim. One that has expired may still be returned, until the store has removed it.
    async fn holder(&self, key: &str) -> Result<Option<Holder>>;

    /// Makes a group that starts after `start`. A group of that name that exists keeps its progress and gets the
    /// new filter.
    async fn create_group(&self, group: &Group, start: Position) -> Result<()>;

    /// Forgets a group and its progress. Not an error if there is none.
    async fn drop_group(&self, name: &str) -> Result<()>;

    /// Names of all groups, sorted.
    async fn groups(&self) -> Result<Vec<String>>;

    /// Takes up to `limit` events for this caller, for the time `lease`. Never hands out an event while an earlier
    /// one of the same stream in this group is not acknowledged; never one that another caller holds with a lease
    /// that runs; skips those released with a delay that has not passed, and what follows them in their streams.
    /// An event whose lease ended is handed out again, `attempt` counted up. Progress survives restarts; an
    /// acknowledgement may be forgotten in a power failure, then the event is delivered again.
    async fn claim(&self, group: &str, limit: u32, lease: Duration) -> Result<Vec<Delivery>>;

    /// The events were dealt with and are never delivered again in this group.
    async fn ack(&self, group: &str, done: &[(Position, u64)]) -> Result<()>;

    /// Gives an event back; it is delivered again after `delay`, with this note if there is one, else with the one it had.
    async fn release(
        &self,
        group: &str,
        position: Position,
        token: u64,
        delay: Duration,
        note: Option<&str>,
    ) -> Result<()>;

    /// Prolongs a lease that runs, and keeps a note if there is one; `false` if it is no longer this caller's.
    async fn renew(
        &self,
        group: &str,
        position: Position,
        token: u64,
        lease: Duration,
        note: Option<&str>,
    ) -> Result<bool>;

    /// Whether an event of a stream, which matches the group's filter, was acknowledged.
    async fn is_done(&self, group: &str, stream: &Stream, position: Position) -> Result<bool>;

    /// How many events of the group are not acknowledged yet, and the position up to which all are.
    async fn lag(&self, group: &str) -> Result<(u64, Position)>;

    /// Keeps bytes by their SHA-256 (lowercase hex), durable when it returns. Again: no effect.
    async fn put_blob(&self, sha256: &str, bytes: &[u8]) -> Result<()>;

    /// The bytes; `None` if they are not there.
    async fn get_blob(&self, sha256: &str) -> Result<Option<Vec<u8>>>;

    /// Takes note of what a node says of itself, for the time `keep`; with a time of zero the node is forgotten. Need not
    /// survive a restart of the store: nodes say it again every few seconds.
    async fn announce(&self, node: &Node, keep: Duration) -> Result<()>;

    /// The nodes that announced themselves and whose time has not passed, by id.
    async fn nodes(&self) -> Result<Vec<Node>>;

    /// A copy of everything as it is at one moment, events, claims, blobs and the progress of groups, while others go
    /// on reading and writing. It is what a crash at that moment would leave: whatever was acknowledged in a group is
    /// acknowledged in the copy, and the events that were written before the acknowledgement are in it.
    async fn export(&self) -> Result<Box<dyn LogExport>>;

    /// Puts records into a log, in the order of an export ([`LogRecord`]), over as many calls as the caller likes.
    /// Durable when it returns. `ErrorKind::Conflict` if the log held anything before the first call. Positions, times
    /// and holders are kept; the log keeps its own identity. Until [`EventStore::finish_import`] nothing but the
    /// methods of export and import is called, and a store that is opened again then refuses to: part of a log is no log. With
    /// [`OpenContext::resumes_import`](crate::OpenContext::resumes_import) it opens, and the import goes on: with the events after
    /// those that an export shows, then with all other records again.
    async fn import(&self, records: &[LogRecord]) -> Result<()>;

    /// Ends an import: from here on the log is like any other. No effect if there was none.
    async fn finish_import(&self) -> Result<()>;
}
