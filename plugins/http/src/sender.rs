//! The background task that delivers records: always the oldest batch, until the collector accepts it.
//!
//! If the collector fails, it is retried with exponential backoff. A rejected record goes to the dead letters; the
//! records of a rejected batch are sent one by one, so that one bad record does not affect the others. Statuses about
//! the address or the token (401, 403, 404, …), redirects and web pages count as failures, because they would occur for
//! every record.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use snaphook_driver_peer::{Backoff, Method, Peer, Verdict};
use tokio::sync::Notify;
use tokio::sync::watch;

use crate::buffer::{Batch, Buffer};
use crate::dead_letter::DeadLetters;

const PAUSE_FIRST: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Longest pause that a collector may request.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// Size of one request, unless a single record is larger.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// How many bytes of a response are read for a message.
const RESPONSE_BYTES_MAX: usize = 4096;

/// Delivers the records of a buffer.
pub(crate) struct Sender {
    pub(crate) buffer: Arc<Buffer>,
    pub(crate) peer: Peer,
    pub(crate) batch: usize,
    /// Notified of new records in the buffer.
    pub(crate) written: Arc<Notify>,
    pub(crate) outage: Arc<Outage>,
}

/// Since when and why delivery fails.
#[derive(Default)]
pub(crate) struct Outage(Mutex<Option<(Instant, String)>>);

impl Outage {
    pub(crate) fn get(&self) -> Option<(Instant, String)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, outage: Option<(Instant, String)>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = outage;
    }
}

/// The outcome of a batch.
enum BatchOutcome {
    Taken,
    /// The records are the cause.
    Rejected(String),
    /// The collector, the address or this machine is the cause.
    Failed(String, Option<Duration>),
}

impl Sender {
    /// Runs until `closing` is set; then it sends the waiting records as long as that works.
    pub(crate) async fn run(self, mut closing: watch::Receiver<bool>) {
        let dead_letters = DeadLetters::new(self.buffer.folder());
        let mut backoff = Backoff::new(PAUSE_FIRST, PAUSE_MAX);
        // Up to this position, records are sent one by one.
        let mut alone_until = None;
        let mut is_rejecting = false;
        loop {
            let buffer = Arc::clone(&self.buffer);
            let count = if alone_until.is_some() { 1 } else { self.batch };
            let batch = match blocking(move || buffer.first(count, BATCH_BYTES_MAX)).await {
                Ok(Some(batch)) => batch,
                Ok(None) if *closing.borrow() => return,
                Ok(None) => {
                    tokio::select! {
                        () = self.written.notified() => {}
                        _ = closing.changed() => {}
                    }
                    continue;
                }
                Err(reason) => {
                    if !self.wait(reason, None, &mut backoff, &mut closing).await {
                        return;
                    }
                    continue;
                }
            };
            let end = batch.end;
            let outcome = match self.send(&batch).await {
                BatchOutcome::Rejected(reason) if batch.records.len() > 1 => {
                    tracing::debug!(reason, "a batch was rejected, its records are sent one by one");
                    alone_until = Some(end);
                    continue;
                }
                BatchOutcome::Rejected(reason) => {
                    if !std::mem::replace(&mut is_rejecting, true) {
                        let file = dead_letters.path().display();
                        tracing::error!(reason, %file, "a record was permanently rejected and is kept in a file");
                    }
                    bury(&dead_letters, reason, batch).await
                }
                outcome => {
                    is_rejecting &= !matches!(outcome, BatchOutcome::Taken);
                    outcome
                }
            };
            let (reason, pause) = match outcome {
                BatchOutcome::Failed(reason, pause) => (reason, pause),
                BatchOutcome::Taken | BatchOutcome::Rejected(_) => {
                    let buffer = Arc::clone(&self.buffer);
                    match blocking(move || buffer.sent(end)).await {
                        Ok(()) => {
                            if self.outage.get().is_some() {
                                tracing::info!("errors are delivered again");
                            }
                            self.outage.set(None);
                            backoff.reset();
                            alone_until = alone_until.filter(|until| end < *until);
                            continue;
                        }
                        Err(reason) => (reason, None),
                    }
                }
            };
            if !self.wait(reason, pause, &mut backoff, &mut closing).await {
                return;
            }
        }
    }

    async fn send(&self, batch: &Batch) -> BatchOutcome {
        let body = format!("[{}]", batch.records.join(","));
        let sent = self.peer.send(Method::POST, "", Some(body.into()), RESPONSE_BYTES_MAX).await;
        let response = match sent {
            Ok(response) => response,
            Err(failure) => return BatchOutcome::Failed(failure.to_string(), None),
        };
        match response.verdict() {
            Verdict::Done => BatchOutcome::Taken,
            Verdict::Refused => BatchOutcome::Rejected(response.complaint()),
            // A gateway's size limit, which single records may not exceed.
            _ if response.status == 413 && batch.records.len() > 1 => BatchOutcome::Rejected(response.complaint()),
            _ => {
                BatchOutcome::Failed(response.complaint(), response.retry_after.map(|pause| pause.min(RETRY_AFTER_MAX)))
            }
        }
    }

    /// Waits before the next attempt. `false` if there is none because the store is being closed.
    async fn wait(
        &self,
        reason: String,
        asked: Option<Duration>,
        backoff: &mut Backoff,
        closing: &mut watch::Receiver<bool>,
    ) -> bool {
        if *closing.borrow() {
            return false;
        }
        let since = match self.outage.get() {
            Some((since, _)) => since,
            None => {
                tracing::warn!(reason, "errors cannot be delivered and wait in the buffer");
                Instant::now()
            }
        };
        self.outage.set(Some((since, reason)));
        let pause = backoff.next_pause().max(asked.unwrap_or_default());
        // One more attempt when the store is closed: the collector may be available again.
        let _ = tokio::time::timeout(pause, closing.changed()).await;
        true
    }
}

/// Puts the records of a batch into the dead letters.
async fn bury(dead_letters: &DeadLetters, reason: String, batch: Batch) -> BatchOutcome {
    let path = dead_letters.path().to_owned();
    let folder = path.parent().map(std::path::Path::to_owned).unwrap_or_default();
    let added = blocking(move || {
        let dead_letters = DeadLetters::new(&folder);
        for record in &batch.records {
            if !dead_letters.add(&reason, record)? {
                return Ok(BatchOutcome::Failed(format!("{reason}; `{}` is full, move it away", path.display()), None));
            }
        }
        Ok(BatchOutcome::Rejected(reason))
    });
    added.await.unwrap_or_else(|reason| BatchOutcome::Failed(reason, None))
}

/// Runs work on files off the async threads. The error is a text.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> Result<T, String> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| format!("the buffer cannot be used: {error}")),
        Err(error) => Err(format!("the buffer cannot be used: {error}")),
    }
}
