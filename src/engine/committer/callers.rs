//! The callers that wait for the outcome of an append, and their results.

use snaphook_driver::time::Millis;
use snaphook_driver::{Append, Appended, Conflict, Position};
use tokio::sync::oneshot;

use crate::engine::error::{Error, ErrorKind, Result};
use crate::telemetry::trace::Span;

/// The result for the caller of an append.
pub(in crate::engine) type AppendResult = Result<std::result::Result<Committed, Conflict>>;

/// A durable event.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) struct Committed {
    pub(in crate::engine) position: Position,
    pub(in crate::engine) time: Millis,
}

impl From<Appended> for Committed {
    fn from(appended: Appended) -> Self {
        Committed { position: appended.position, time: appended.time }
    }
}

/// Appends in the queue.
pub(in crate::engine) struct Whole {
    /// At least one.
    pub(in crate::engine) appends: Vec<Append>,
    pub(in crate::engine) answer: oneshot::Sender<WholeAnswer>,
    /// One for each append: told when the post hooks of its event ended.
    pub(in crate::engine) settled: Vec<Option<oneshot::Sender<()>>>,
    /// Ends when the answer is known.
    pub(in crate::engine) span: Span,
}

/// The outcome of appends that are written atomically: all are durable, or the one with this index had a conflict.
pub(in crate::engine) type WholeAnswer = Result<std::result::Result<Vec<Committed>, (usize, Conflict)>>;

/// The caller of one append.
pub(super) struct Caller {
    pub(super) answer: oneshot::Sender<AppendResult>,
    pub(super) settled: Option<oneshot::Sender<()>>,
    /// Ends with it.
    pub(super) span: Span,
}

/// The callers of the appends in one call of the store.
pub(super) enum Callers {
    /// One caller for each append.
    Each(Vec<Caller>),
    /// One for all, which are written together or not at all.
    All { answer: oneshot::Sender<WholeAnswer>, settled: Vec<Option<oneshot::Sender<()>>>, _span: Span },
}

impl Callers {
    /// Takes out the channels that wait for the end of post hooks, one for each append.
    pub(super) fn settled(&mut self) -> Vec<Option<oneshot::Sender<()>>> {
        match self {
            Callers::Each(callers) => callers.iter_mut().map(|caller| caller.settled.take()).collect(),
            Callers::All { settled, .. } => std::mem::take(settled),
        }
    }

    /// Nothing was written.
    pub(super) fn fail(self, detail: &str) {
        let error = || Error::new(ErrorKind::Storage, detail);
        match self {
            Callers::Each(callers) => callers.into_iter().for_each(|caller| drop(caller.answer.send(Err(error())))),
            Callers::All { answer, .. } => drop(answer.send(Err(error()))),
        }
    }

    /// Responds with the log's content for each append. `missing`: the message for appends that are not in the log.
    pub(super) fn learned(self, committed: &[Option<Committed>], missing: &str) {
        match self {
            Callers::Each(callers) => {
                for (caller, committed) in callers.into_iter().zip(committed) {
                    let answer = committed.map(Ok).ok_or_else(|| Error::new(ErrorKind::Storage, missing));
                    let _ = caller.answer.send(answer);
                }
            }
            Callers::All { answer, .. } => {
                let found: Vec<Committed> = committed.iter().flatten().copied().collect();
                let _ = answer.send(match found.len() {
                    0 => Err(Error::new(ErrorKind::Storage, missing)),
                    all if all == committed.len() => Ok(Ok(found)),
                    some => Err(partly_stored(some, committed.len())),
                });
            }
        }
    }
}

/// For callers whose driver violated its contract.
fn partly_stored(stored: usize, of: usize) -> Error {
    let detail = format!(
        "the event store wrote {stored} of {of} events that belong together: its driver violates its contract; read \
         the data before you try again"
    );
    tracing::error!("{detail}");
    Error::new(ErrorKind::Storage, detail)
}
