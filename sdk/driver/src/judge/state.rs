//! What the judge knows of a log.

use crate::append::Holder;
use crate::error::Result;
use crate::event::{Position, StreamRef};
use crate::time::Millis;

/// Answers the judge's questions about the log before the batch. What the rows of the batch change the judge keeps track
/// of itself, so nothing may be written while it runs.
pub trait LogState {
    /// The last event of a stream.
    fn tail(&mut self, stream: StreamRef<'_>) -> Result<Tail>;

    /// Position of the last event of the model's instances. One at or before `since` need not be found: then any position
    /// up to `since` does.
    fn last_of_instances(&mut self, model: &str, since: Position) -> Result<Position>;

    /// Who holds a key. One whose claim has expired may be returned or not.
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

/// Who holds a key, with texts that somebody else owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HolderRef<'a> {
    pub stream: StreamRef<'a>,
    pub position: Position,
    pub expires: Option<Millis>,
    pub value: Option<&'a str>,
}

impl HolderRef<'_> {
    /// A holder of its own.
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

/// Time between two removals of claims that have expired, in the time of the log.
pub const REMOVAL_MILLIS: Millis = 60_000;

/// Claims that one batch removes, so that it does not wait for many.
pub const REMOVALS_MAX: usize = 256;

/// Where a log ends, and when it is tidied next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogEnd {
    /// Of the last event; 0 if there is none.
    pub position: Position,
    /// Of the last event.
    pub time: Millis,
    /// The first batch that ends at or after it removes claims that have expired. It has to be stored where several nodes judge.
    pub next_removal: Millis,
}

impl LogEnd {
    /// The end of a log without events.
    pub const EMPTY: LogEnd = LogEnd { position: 0, time: Millis::MIN, next_removal: Millis::MIN };

    /// Takes note of how many claims a removal took away: if there may be more, the next batch goes on.
    pub fn removed(&mut self, count: usize) {
        let pause = if count < REMOVALS_MAX { REMOVAL_MILLIS } else { 0 };
        self.next_removal = self.time.saturating_add(pause);
    }
}
