//! Sends a node's changes to the log: one at a time on each lane, repeated until they are seen.
//!
//! A lane is a writer of the log with a counter. Only messages with an increasing counter have an effect, so a message
//! that was sent twice counts once, and a message that appears after a later one of its lane is ignored by all nodes.
//! If a response is lost, the outcome is therefore known as soon as any later message of the lane is seen.

use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use prost::Message as _;
use snaphook_driver::{DriverError, ErrorKind, Result, judge, new_log_identity};
use snaphook_sqlite::replica::{ChangeOutcome, LogChange};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use super::log::Log;
use super::message::{Content, FORMAT, Frame, INLINE_BYTES, encode};
use crate::connection::Unstored;

/// Timeout of a change, including retries. Less than any caller waits for it.
const CALL_TIME: Duration = Duration::from_secs(20);

/// After this time without a response, a message is sent again.
const SEEN_TIME: Duration = Duration::from_millis(1500);

/// Pause between two attempts to send a message that nobody accepted.
const PAUSE: Duration = Duration::from_millis(100);

pub(crate) struct Lane {
    log: Arc<Log>,
    node: String,
    writer: String,
    state: Mutex<LaneState>,
    runtime: Handle,
}

struct LaneState {
    counter: u64,
    /// Whether the outcome of the last message is unknown.
    is_unsettled: bool,
}

/// What is known about a message.
enum Sent {
    /// Certainly not stored.
    No(DriverError),
    /// It may be in the stream, or arrive there later.
    Maybe,
}

impl Lane {
    pub(crate) fn new(log: &Arc<Log>, node: &str) -> Lane {
        Lane {
            log: Arc::clone(log),
            node: node.to_owned(),
            writer: new_log_identity(),
            state: Mutex::new(LaneState { counter: 0, is_unsettled: false }),
            runtime: Handle::current(),
        }
    }

    /// Makes a change, which continues even if the caller stops waiting.
    pub(crate) async fn change(
        self: &Arc<Self>,
        operation: &'static str,
        change: LogChange<'_>,
    ) -> Result<ChangeOutcome> {
        let (lane, content) = (Arc::clone(self), encode(change));
        let sent = self.runtime.spawn(async move { lane.send(operation, content).await });
        sent.await.unwrap_or_else(|error| {
            Err(DriverError::new(ErrorKind::Uncertain, operation, "the background task ended early").because(error))
        })
    }

    /// Finds out the outcome of a message if it is unknown.
    pub(crate) async fn settle(self: &Arc<Self>, operation: &'static str) -> Result<()> {
        // A concurrent sender settles it too.
        let is_settled = self.state.try_lock().is_ok_and(|state| !state.is_unsettled);
        if is_settled { Ok(()) } else { self.change(operation, LogChange::Nothing).await.map(drop) }
    }

    async fn send(&self, operation: &'static str, content: Bytes) -> Result<ChangeOutcome> {
        let deadline = Instant::now() + CALL_TIME;
        self.log.check(operation)?;
        self.log.link.connected(operation).await?;
        let kept = if content.len() <= INLINE_BYTES {
            Content::Here(content.clone())
        } else {
            Content::Parts(self.log.parts.put(operation, content.clone(), deadline).await?)
        };
        let Ok(mut state) = timeout_at(deadline, self.state.lock()).await else {
            return Err(DriverError::new(
                ErrorKind::Unavailable,
                operation,
                "earlier writes have not been acknowledged in time",
            ));
        };
        // The deadline does not include the time that others took.
        let deadline = Instant::now() + CALL_TIME;
        state.counter += 1;
        let counter = state.counter;
        let frame = Frame {
            format: FORMAT,
            rules: judge::VERSION,
            node: self.node.clone(),
            writer: self.writer.clone(),
            counter,
            content: Some(kept),
        };
        let answer = self.log.wait_for(&self.writer, counter, content);
        let result = self.until_seen(operation, frame.encode_to_vec().into(), answer, deadline).await;
        self.log.give_up(&self.writer, counter);
        match result {
            Ok(outcome) => {
                state.is_unsettled = false;
                Ok(outcome)
            }
            Err(Sent::No(error)) => Err(error),
            Err(Sent::Maybe) => {
                state.is_unsettled = true;
                let why = self.log.trouble().map(|why| format!(": {why}")).unwrap_or_default();
                let message = format!("the message was sent, but did not appear in the log in time{why}");
                Err(DriverError::new(ErrorKind::Uncertain, operation, message))
            }
        }
    }

    async fn until_seen(
        &self,
        operation: &'static str,
        message: Bytes,
        mut answer: oneshot::Receiver<ChangeOutcome>,
        deadline: Instant,
    ) -> Result<ChangeOutcome, Sent> {
        let log = &self.log;
        let (mut is_stored, mut sent) = (false, None);
        loop {
            if !is_stored {
                let published = log.link.publish(log.subject.clone(), HeaderMap::new(), message.clone());
                let published = tokio::select! {
                    // It may be judged before it is acknowledged.
                    outcome = &mut answer => return outcome.map_err(|_| Sent::Maybe),
                    published = published => published,
                };
                match published {
                    Ok(_) => is_stored = true,
                    Err(Unstored::Unknown) => sent = Some(Sent::Maybe),
                    Err(fault) => {
                        let error = fault.into_error(operation);
                        let is_full = error.kind() == ErrorKind::Full;
                        sent = sent.filter(|sent| matches!(sent, Sent::Maybe)).or(Some(Sent::No(error)));
                        if is_full && matches!(sent, Some(Sent::No(_))) {
                            return Err(sent.unwrap_or(Sent::Maybe));
                        }
                    }
                }
            }
            let pause = if is_stored || matches!(sent, Some(Sent::Maybe)) { SEEN_TIME } else { PAUSE };
            match timeout(pause, &mut answer).await {
                Ok(outcome) => return outcome.map_err(|_| Sent::Maybe),
                Err(_) if Instant::now() >= deadline => {
                    return Err(if is_stored { Sent::Maybe } else { sent.unwrap_or(Sent::Maybe) });
                }
                Err(_) => log.kick.notify_one(),
            }
        }
    }
}
