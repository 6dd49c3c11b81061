//! The judge's view of a log.

use crate::append::Holder;
use crate::error::Result;
use crate::event::{Position, StreamRef};
use crate::time::Millis;

/// The log before the batch. The judge keeps track of the changes of the batch itself, so nothing may be written while
/// it runs.
pub trait LogState {
    /// The last event of a stream.
    fn tail(&mut self, stream: StreamRef<'_>) -> Result<Tail>;

    /// Position of the last event of the model's instances. If it is at or before `since`, any position up to `since`
    /// may be returned.
    fn last_of_instances(&mut self, model: &str, since: Position) -> Result<Position>;

    /// The holder of a key. The holder of an expired claim may be returned or not.
    fn holder(&mut self, key: &str) -> Result<Option<Holder>>;
}

/// The last event of a stream; position 0 if there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tail {
    pub position: Position,
    /// Whether it ended the stream.
    pub ended: bool,
}

impl Tail {
    /// A stream without events.
    pub const NONE: Tail = Tail { position: 0, ended: false };
}

/// The holder of a key, with borrowed texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HolderRef<'a> {
    pub stream: StreamRef<'a>,
    pub position: Position,
    pub expires: Option<Millis>,
    pub value: Option<&'a str>,
}

impl HolderRef<'_> {
    /// An owned holder.
    pub fn to_holder(self) -> Holder {
        Holder {
            stream: self.stream.to_stream(),
            position: self.position,
            expires: self.expires,
            value: self.value.map(str::to_owned),
        }
    }
}

impl<'a> From<&'a Holder> for HolderRef<'a> {
    fn from(holder: &'a Holder) -> Self {
        HolderRef {
            stream: StreamRef::from(&holder.stream),
            position: holder.position,
            expires: holder.expires,
            value: holder.value.as_deref(),
        }
    }
}

/// Time between two removals of expired claims, in the time of the log.
pub const REMOVAL_MILLIS: Millis = 60_000;

/// Maximum number of claims removed per batch, so that a batch does not wait for many.
pub const REMOVALS_MAX: usize = 256;

/// The end of a log, and the time of its next removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogEnd {
    /// Position of the last event; 0 if there is none.
    pub position: Position,
    /// Time of the last event.
    pub time: Millis,
    /// The first batch whose end is at or after this time removes expired claims. Stores in which several nodes judge
    /// must store this time.
    pub next_removal: Millis,
}

impl LogEnd {
    /// The end of a log without events.
    pub const EMPTY: LogEnd = LogEnd { position: 0, time: Millis::MIN, next_removal: Millis::MIN };

    /// Records how many claims a removal removed: if there may be more, the next batch continues.
    pub fn removed(&mut self, count: usize) {
        let pause = if count < REMOVALS_MAX { REMOVAL_MILLIS } else { 0 };
        self.next_removal = self.time.saturating_add(pause);
    }
}
