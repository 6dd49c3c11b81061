//! One node's view of the shared log: its stream, the node's copy, and the waiting callers.
//!
//! The [`follower`](super::follower) applies messages, the [`lanes`](super::lanes) send them; this is their shared
//! state.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::jetstream::stream::Stream;
use bytes::Bytes;
use prost::Message as _;
use snaphook_driver::{DriverError, ErrorKind, Result};
use snaphook_sqlite::replica::{ChangeOutcome, Replica};
use tokio::sync::{Notify, oneshot, watch};

use super::message::{Content, FORMAT, Frame, Operation};
use crate::connection::Link;
use crate::fault::{corrupt, unavailable};
use crate::parts::Parts;

pub(crate) struct Log {
    pub(crate) link: Arc<Link>,
    pub(crate) stream: Stream<()>,
    /// The subject of the log's messages.
    pub(crate) subject: String,
    pub(crate) parts: Parts,
    pub(crate) replica: Replica,
    /// The sequence of the last judged message.
    pub(crate) judged: watch::Sender<u64>,
    /// Why this node has permanently stopped judging.
    stopped: Mutex<Option<Stop>>,
    /// Why this node currently cannot judge.
    trouble: Mutex<Option<String>>,
    /// Callers that wait for their changes, by writer and counter.
    waiting: Mutex<HashMap<(String, u64), WaitingMessage>>,
    /// Signals that the stream has, or should have, a message that this node has not seen.
    pub(crate) kick: Notify,
}

struct WaitingMessage {
    answer: oneshot::Sender<ChangeOutcome>,
    content: Bytes,
}

/// Why a node stops.
#[derive(Clone, Debug)]
pub(crate) struct Stop {
    kind: ErrorKind,
    message: String,
}

impl Stop {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Stop {
        Stop { kind, message: message.into() }
    }

    pub(crate) fn error(&self, operation: &'static str) -> DriverError {
        DriverError::new(self.kind, operation, self.message.clone()).temporary(false)
    }
}

impl Log {
    pub(crate) fn new(link: Arc<Link>, stream: Stream<()>, subject: String, parts: Parts, replica: Replica) -> Log {
        let judged = watch::Sender::new(replica.sequence());
        Log {
            link,
            stream,
            subject,
            parts,
            replica,
            judged,
            stopped: Mutex::default(),
            trouble: Mutex::default(),
            waiting: Mutex::default(),
            kick: Notify::new(),
        }
    }

    /// An error if this node has stopped.
    pub(crate) fn check(&self, operation: &'static str) -> Result<()> {
        match &*locked(&self.stopped) {
            Some(stop) => Err(stop.error(operation)),
            None => Ok(()),
        }
    }

    pub(crate) fn stop(&self, stop: Stop) {
        if stop.kind != ErrorKind::Unexpected {
            tracing::error!("nats: this node no longer follows the log: {}", stop.message);
        }
        *locked(&self.stopped) = Some(stop);
        // Dropping the waiters notifies them that there will be no outcome.
        locked(&self.waiting).clear();
        self.judged.send_modify(|_| {});
    }

    /// Why this node currently cannot judge, if so.
    pub(crate) fn trouble(&self) -> Option<String> {
        locked(&self.trouble).clone()
    }

    pub(crate) fn set_trouble(&self, trouble: Option<String>) {
        *locked(&self.trouble) = trouble;
    }

    /// Returns the outcome of a change once it is judged.
    pub(crate) fn wait_for(&self, writer: &str, counter: u64, content: Bytes) -> oneshot::Receiver<ChangeOutcome> {
        let (answer, receiver) = oneshot::channel();
        locked(&self.waiting).insert((writer.to_owned(), counter), WaitingMessage { answer, content });
        receiver
    }

    pub(crate) fn give_up(&self, writer: &str, counter: u64) {
        locked(&self.waiting).remove(&(writer.to_owned(), counter));
    }

    pub(crate) fn answer(&self, writer: &str, counter: u64, outcome: ChangeOutcome) {
        if outcome == ChangeOutcome::Repeated {
            return;
        }
        if let Some(waiting) = locked(&self.waiting).remove(&(writer.to_owned(), counter)) {
            // Ignored: the receiver is gone if the caller gave up.
            let _ = waiting.answer.send(outcome);
        }
    }

    /// The content of a change that this node has sent.
    pub(crate) fn own_content(&self, writer: &str, counter: u64) -> Option<Bytes> {
        locked(&self.waiting).get(&(writer.to_owned(), counter)).map(|waiting| waiting.content.clone())
    }

    /// The sequence of the stream's last message, according to its leader.
    pub(crate) async fn last_sequence(&self, operation: &'static str) -> Result<u64> {
        let info = self.stream.get_info().await.map_err(unavailable(operation, "the stream of the log"))?;
        Ok(info.state.last_sequence)
    }

    /// See [`has_last_of`].
    pub(crate) async fn has_last(&self, operation: &'static str) -> Result<bool> {
        has_last_of(&self.stream, &self.replica, operation).await
    }

    /// The identity of the log in the stream.
    pub(crate) async fn identity_in_stream(&self, operation: &'static str) -> Result<String> {
        identity_of(&self.stream, operation).await
    }

    /// Returns once everything up to that sequence is judged; an error if the node stops, or if nothing happens for
    /// `patience`.
    pub(crate) async fn judged_up_to(&self, operation: &'static str, sequence: u64, patience: Duration) -> Result<()> {
        let mut judged = self.judged.subscribe();
        loop {
            self.check(operation)?;
            if *judged.borrow_and_update() >= sequence {
                return Ok(());
            }
            // The sender lives as long as this.
            if tokio::time::timeout(patience, judged.changed()).await.is_err() {
                let why = self.trouble().unwrap_or_else(|| "no message arrives".to_owned());
                let message =
                    format!("the log is processed up to message {} of {sequence}: {why}", self.replica.sequence());
                return Err(DriverError::new(ErrorKind::Unavailable, operation, message));
            }
        }
    }
}

/// Whether a stream still has the last message that was judged into a copy. A stream that lost it and has grown again
/// has a different message there.
pub(crate) async fn has_last_of(stream: &Stream<()>, replica: &Replica, operation: &'static str) -> Result<bool> {
    let sequence = replica.sequence();
    if sequence == 0 {
        return Ok(true);
    }
    let message =
        stream.get_raw_message(sequence).await.map_err(unavailable(operation, "the last processed message"))?;
    let frame = read_frame(&message.payload).map_err(|stop| stop.error(operation))?;
    Ok((frame.writer, frame.counter) == replica.last_change()?)
}

/// The identity of the log in a stream, from its first message.
pub(crate) async fn identity_of(stream: &Stream<()>, operation: &'static str) -> Result<String> {
    let fault = unavailable(operation, "the first message of the log");
    let first = stream.get_raw_message(1).await.map_err(fault)?;
    let frame = read_frame(&first.payload).map_err(|stop| stop.error(operation))?;
    let content = match frame.content {
        Some(Content::Here(content)) => content,
        _ => Bytes::new(),
    };
    match Operation::decode(&content) {
        Ok(Operation::Begin(identity)) => Ok(identity),
        _ => Err(corrupt(operation, "the stream does not begin with a Snaphook log; set another `name`")),
    }
}

/// Reads a message, or returns why this node must stop.
pub(crate) fn read_frame(payload: &[u8]) -> Result<Frame, Stop> {
    let rules = snaphook_driver::judge::VERSION;
    let frame = Frame::decode(payload)
        .map_err(|error| Stop::new(ErrorKind::Corrupt, format!("a message of the log cannot be read: {error}")))?;
    if frame.format > FORMAT || frame.rules > rules {
        return Err(Stop::new(
            ErrorKind::Unavailable,
            format!(
                "a node wrote with rules {}.{}, this Snaphook supports {FORMAT}.{rules}; update this node to the \
                 version of the node `{}`",
                frame.format,
                frame.rules,
                frame.node.escape_debug()
            ),
        ));
    }
    if frame.format != FORMAT || frame.rules != rules {
        // There is no earlier version.
        let message = format!("a message of the log has rules {}.{}, which never existed", frame.format, frame.rules);
        return Err(Stop::new(ErrorKind::Corrupt, message));
    }
    Ok(frame)
}

/// A panic of an earlier holder never leaves the state inconsistent.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
