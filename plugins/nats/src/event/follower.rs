//! Follows the stream of the log and judges its messages in order.
//!
//! Messages arrive through a consumer that is recreated from this node's position after any anomaly: an error, missing
//! heartbeats, or a gap. Before that, the stream itself is checked: it must still contain the same log, and must not be
//! shorter than what this node has judged.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, ReplayPolicy, pull};
use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _};
use snaphook_driver::time::Millis;
use snaphook_driver::{DriverError, ErrorKind, Result};
use snaphook_sqlite::replica::LogEntry;
use tokio::task::JoinHandle;

use super::log::{Log, Stop, locked, read_frame};
use super::message::{Content, Operation};
use crate::fault::unavailable;

/// How many messages are requested at once.
const AHEAD: usize = 256;

/// How many messages and bytes are judged in one step.
const STEP_MESSAGES: usize = 256;
const STEP_BYTES: usize = 8 << 20;

/// The interval of the server's heartbeats.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// How long one request for messages is valid.
const EXPIRES: Duration = Duration::from_secs(30);

/// After this time without requests, the server forgets a consumer.
const FORGET: Duration = Duration::from_secs(60);

/// How long a stream may seem shorter than before, during a change of leaders.
const LEADERS_CHANGE: Duration = Duration::from_secs(15);

const PAUSE_FIRST: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// A task that follows the log until it is dropped or closed.
pub(crate) struct Follower {
    task: std::sync::Mutex<Option<JoinHandle<()>>>,
}

/// Why following ended.
enum End {
    /// It must be restarted.
    Again(DriverError),
    /// It must not be restarted.
    Stop(Stop),
}

impl From<Stop> for End {
    fn from(stop: Stop) -> Self {
        End::Stop(stop)
    }
}

impl From<DriverError> for End {
    fn from(error: DriverError) -> Self {
        // An error of the node's own file may be temporary.
        match error.kind() {
            ErrorKind::Corrupt => {
                End::Stop(Stop::new(ErrorKind::Corrupt, format!("{error}; see the messages about the log or the file")))
            }
            _ => End::Again(error),
        }
    }
}

impl Follower {
    pub(crate) fn start(log: &Arc<Log>) -> Follower {
        Follower { task: std::sync::Mutex::new(Some(tokio::spawn(run(Arc::clone(log))))) }
    }

    /// Stops the task and waits for its end.
    pub(crate) async fn close(&self) {
        let task = locked(&self.task).take();
        if let Some(task) = task {
            task.abort();
            // Its end is all that matters.
            let _ = task.await;
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        if let Some(task) = locked(&self.task).take() {
            task.abort();
        }
    }
}

async fn run(log: Arc<Log>) {
    let mut pause = PAUSE_FIRST;
    loop {
        let before = log.replica.sequence();
        match follow(&log).await {
            End::Stop(stop) => return log.stop(stop),
            End::Again(error) => {
                tracing::debug!(%error, "nats: subscribing to the log again");
                log.set_trouble(Some(error.to_string()));
            }
        }
        pause = if log.replica.sequence() > before { PAUSE_FIRST } else { (pause * 2).min(PAUSE_MAX) };
        tokio::time::sleep(pause).await;
    }
}

/// Follows until there is an anomaly.
async fn follow(log: &Arc<Log>) -> End {
    match follow_from(log).await {
        Ok(()) => End::Again(DriverError::new(ErrorKind::Unavailable, "follow", "messages are missing or late")),
        Err(end) => end,
    }
}

async fn follow_from(log: &Arc<Log>) -> Result<(), End> {
    check_stream(log).await?;
    let next = log.replica.sequence() + 1;
    let config = pull::Config {
        deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: next },
        ack_policy: AckPolicy::None,
        replay_policy: ReplayPolicy::Instant,
        inactive_threshold: FORGET,
        memory_storage: true,
        num_replicas: 1,
        ..pull::Config::default()
    };
    let consumer = log.stream.create_consumer(config).await.map_err(unavailable("follow", "the stream of the log"))?;
    let messages = consumer.stream().max_messages_per_batch(AHEAD).heartbeat(HEARTBEAT).expires(EXPIRES).messages();
    let mut messages = messages.await.map_err(unavailable("follow", "the stream of the log"))?;
    log.set_trouble(None);
    let mut kicks = 0;
    loop {
        let first = tokio::select! {
            message = messages.next() => message,
            () = log.kick.notified() => {
                // The first signal may be outdated; a message that is late twice is not in transit.
                kicks += 1;
                if kicks > 1 { return Ok(()) }
                continue;
            }
        };
        let Some(first) = first else { return Ok(()) };
        let first = first.map_err(unavailable("follow", "the stream of the log"))?;
        kicks = 0;
        let (mut step, mut bytes) = (vec![first], 0);
        while step.len() < STEP_MESSAGES && bytes < STEP_BYTES {
            match messages.next().now_or_never() {
                Some(Some(Ok(message))) => {
                    bytes += message.payload.len();
                    step.push(message);
                }
                // The next call reports the error again.
                _ => break,
            }
        }
        let mut rest = &step[..];
        while !rest.is_empty() {
            match judge(log, rest).await? {
                Some(count) => rest = &rest[count..],
                None => return Ok(()),
            }
        }
    }
}

/// Checks that the stream still contains the log that this node knows.
async fn check_stream(log: &Log) -> Result<(), End> {
    let sequence = log.replica.sequence();
    let mut last = log.last_sequence("follow").await?;
    let first_look = Instant::now();
    // A former or future leader may not know everything that was acknowledged.
    while last < sequence {
        if first_look.elapsed() > LEADERS_CHANGE {
            return Err(shorter(last, sequence).into());
        }
        tokio::time::sleep(PAUSE_MAX).await;
        last = log.last_sequence("follow").await?;
    }
    if let (Some(known), true) = (log.replica.identity(), last > 0) {
        let found = log.identity_in_stream("follow").await?;
        if found != known {
            let message =
                format!("the stream now contains the log `{found}`, but this node has processed the log `{known}`");
            return Err(Stop::new(ErrorKind::Corrupt, message).into());
        }
    }
    if !log.has_last("follow").await? {
        return Err(parted(sequence).into());
    }
    Ok(())
}

/// The error for a stream that lost messages that this node has judged, and has others in their place.
pub(crate) fn parted(sequence: u64) -> Stop {
    Stop::new(
        ErrorKind::Corrupt,
        format!(
            "message {sequence} of the stream is not the one that this node has processed: acknowledged messages are \
             lost. To continue with the content of the stream, stop all nodes and remove their files in `path`"
        ),
    )
}

/// The error for a stream that lost messages that this node has judged.
pub(crate) fn shorter(last: u64, sequence: u64) -> Stop {
    Stop::new(
        ErrorKind::Corrupt,
        format!(
            "the stream ends with message {last}, but this node has processed message {sequence}: acknowledged \
             messages are lost, the stream is another one, or a server that is behind still acts as the leader, for \
             example because its disk is full; check the logs of the servers first. To continue with the content of \
             the stream, stop all nodes and remove their files in `path`"
        ),
    )
}

/// Judges as many of these messages as fit into one step and returns their number; `None` if an earlier message is
/// missing.
async fn judge(log: &Arc<Log>, messages: &[Message]) -> Result<Option<usize>, End> {
    let mut last = log.replica.sequence();
    let mut changes = Vec::with_capacity(messages.len());
    let (mut is_whole, mut count, mut bytes) = (true, 0, 0);
    for message in messages {
        if bytes >= STEP_BYTES {
            break;
        }
        let info = message.info().map_err(|error| {
            DriverError::new(
                ErrorKind::Unavailable,
                "follow",
                format!("the position of a message in the stream is unknown: {error}"),
            )
        })?;
        let sequence = info.stream_sequence;
        if sequence <= last {
            count += 1;
            continue;
        }
        if sequence != last + 1 {
            is_whole = false;
            break;
        }
        last = sequence;
        let frame = match read_frame(&message.payload) {
            Ok(frame) => frame,
            Err(stop) if changes.is_empty() => return Err(stop.into()),
            // The messages before it are judged first.
            Err(_) => break,
        };
        let content = content(log, &frame.writer, frame.counter, frame.content).await?;
        bytes += content.len();
        count += 1;
        let mut operation = Operation::decode(&content).map_err(|error| {
            Stop::new(ErrorKind::Corrupt, format!("message {sequence} of the log cannot be read: {error}"))
        })?;
        operation.bound_times((info.published.unix_timestamp_nanos() / 1_000_000) as Millis);
        changes.push((sequence, frame.writer, frame.counter, operation));
    }
    let done = is_whole.then_some(count);
    if changes.is_empty() {
        return Ok(done);
    }
    let own = Arc::clone(log);
    let judged = tokio::task::spawn_blocking(move || -> Result<()> {
        let entries: Vec<LogEntry<'_>> = changes
            .iter()
            .map(|(sequence, writer, counter, operation)| LogEntry {
                sequence: *sequence,
                writer,
                counter: *counter,
                change: operation.change(),
            })
            .collect();
        let outcomes = own.replica.apply(&entries)?;
        for ((_, writer, counter, _), outcome) in changes.iter().zip(outcomes) {
            own.answer(writer, *counter, outcome);
        }
        Ok(())
    });
    judged.await.map_err(|error| {
        DriverError::new(ErrorKind::Unavailable, "follow", "the background task ended early").because(error)
    })??;
    log.judged.send_replace(log.replica.sequence());
    Ok(done)
}

/// Reads the content of a message. This node still has the contents of its own messages.
async fn content(log: &Log, writer: &str, counter: u64, content: Option<Content>) -> Result<Bytes, End> {
    match content {
        Some(Content::Here(content)) => Ok(content),
        Some(Content::Parts(parts)) => match log.own_content(writer, counter) {
            Some(content) => Ok(content),
            None => Ok(log.parts.get("follow", &parts).await?),
        },
        None => Err(Stop::new(ErrorKind::Corrupt, "a message of the log has no content").into()),
    }
}
