//! An event to append, its conditions, and its result.

use serde::{Deserialize, Serialize};

use crate::event::{Event, Position, Stream};
use crate::time::Millis;

/// The condition on a stream for an append to succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expected {
    /// No condition.
    Any,
    /// The stream has no event, or its last one ended it ([`EventKind::ends_stream`]).
    New,
    /// The last event of the stream is at this position, and did not end it.
    At(Position),
}

/// Another stream that must not have changed: its last event is at `position` (0: it has none).
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
    /// The holder; `None` means the stream of the event.
    pub holder: Option<Stream>,
    /// Replaces a holder that took the key at exactly this position. A later holder is not replaced, so of two appends
    /// that found the same holder only one succeeds.
    pub replaces: Option<Position>,
    /// The time at which the claim expires: for an event whose `time` is not before it, nobody holds the key. The store
    /// removes such claims while it appends, soon after their time. `None`: the claim never expires.
    pub expires: Option<Millis>,
    /// Up to 256 bytes that are stored with the claim and returned with its holder.
    pub value: Option<String>,
}

impl Claim {
    /// A claim of the event's own stream without expiry.
    pub fn new(key: impl Into<String>) -> Claim {
        Claim { key: key.into(), holder: None, replaces: None, expires: None, value: None }
    }
}

/// No instance of this model may have a later event: for an append that was checked against all instances of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quiet {
    pub model: String,
    /// Instance events up to this position are known.
    pub since: Position,
}

/// One event to append, and its conditions.
///
/// Order of effects within one append: `expected`, `requires` and `quiet` are checked, `releases` are released,
/// `claims` are taken, the event is written. The append is atomic.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Append {
    /// `position` is ignored, because the store assigns it. `time` is a proposal: see [`Appended`].
    pub event: Event,
    pub expected: Expected,
    pub requires: Vec<Require>,
    pub quiet: Option<Quiet>,
    /// Taking a key that the same holder has is not a conflict; the claim's position changes to this event.
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

/// The result of appending an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Appended {
    pub position: Position,
    /// The event's time in the log: as proposed, or the time of the previous event if that is later. Times never go
    /// back in a log, whoever writes to it.
    pub time: Millis,
    /// Position of the previous event in the log, 0 for the first one. A reader that knows the log up to there has
    /// missed nothing.
    pub after: Position,
}

/// Why one append of a batch was not performed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Conflict {
    /// `expected` was not met. `last` is the stream's last position (0: no event), `ended` whether that event ended it.
    Stream { last: Position, ended: bool },
    /// A stream in `requires` is at another position.
    Required { stream: Stream, last: Position },
    /// An instance of the model in `quiet` has a later event, the last at this position.
    NotQuiet { last: Position },
    /// A key is held by another stream.
    Claimed { key: String, holder: Holder },
    /// Another append of an atomic batch failed.
    Batch,
}

impl Conflict {
    /// Position of the conflicting event; 0 if it is unknown.
    pub fn position(&self) -> Position {
        match self {
            Conflict::Stream { last, .. } | Conflict::Required { last, .. } | Conflict::NotQuiet { last } => *last,
            Conflict::Claimed { holder, .. } => holder.position,
            Conflict::Batch => 0,
        }
    }
}

/// The holder of a claim, and the position since which it has been held.
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
    /// A holder of a claim without expiry.
    pub fn new(stream: Stream, position: Position) -> Holder {
        Holder { stream, position, expires: None, value: None }
    }

    /// Whether the claim has ended at that time.
    pub fn has_expired(&self, time: Millis) -> bool {
        self.expires.is_some_and(|expires| expires <= time)
    }
}
