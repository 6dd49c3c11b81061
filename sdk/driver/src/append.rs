//! An event to append, what must hold for it, and what became of it.

use serde::{Deserialize, Serialize};

use crate::event::{Event, Position, Stream};
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

impl Conflict {
    /// Position of the event that was in the way; 0 if it is not known.
    pub fn position(&self) -> Position {
        match self {
            Conflict::Stream { last, .. } | Conflict::Required { last, .. } | Conflict::NotQuiet { last } => *last,
            Conflict::Claimed { holder, .. } => holder.position,
            Conflict::Batch => 0,
        }
    }
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
