//! Sends records to the peer: several at once, but only one request per record at a time.
//!
//! A request may still be carried out after its caller has stopped waiting, and must not overtake a request of a later
//! state. So requests are separate tasks: they finish even if the call is dropped, a failing call waits for the
//! requests in progress, and the next call begins when there are none.

use std::sync::{Arc, Mutex};

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use snaphook_driver::{DriverError, ErrorKind, Instances, Result, Row};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use crate::journal::Key;
use crate::remote::{Over, Remote};
use crate::state::locked;

/// How many records are sent at once.
const TOGETHER: u32 = 16;

/// One record to send.
pub(crate) struct Delivery {
    pub(crate) key: Key,
    /// `None`: the record is deleted.
    pub(crate) row: Option<Arc<Row>>,
    /// The peer may have a record.
    pub(crate) is_known: bool,
}

/// Sends records.
pub(crate) struct Courier {
    pub(crate) remote: Arc<Remote>,
    instances: Arc<Mutex<Instances>>,
    /// One permit per request.
    permits: Arc<Semaphore>,
}

impl Courier {
    /// `instances` is the intended state of the peer.
    pub(crate) fn new(remote: Remote, instances: Arc<Mutex<Instances>>) -> Courier {
        Courier { remote: Arc::new(remote), instances, permits: Arc::new(Semaphore::new(TOGETHER as usize)) }
    }

    /// Sends records. `done` handles each record that is sent or rejected. After a failure of the peer, or an error of
    /// `done`, nothing more is sent. When this returns, no request is in progress.
    pub(crate) async fn deliver(
        &self,
        operation: &'static str,
        deliveries: Vec<Delivery>,
        mut done: impl FnMut(Key, Result<()>) -> Result<()> + Send,
    ) -> Result<()> {
        self.idle().await;
        let (waiting, over) = watch::channel(());
        let mut waiting = Some(waiting);
        let (mut failure, mut under_way) = (None, FuturesUnordered::new());
        let mut deliveries = deliveries.into_iter();
        loop {
            while failure.is_none() && under_way.len() < TOGETHER as usize {
                let Some(delivery) = deliveries.next() else { break };
                under_way.push(self.begin(operation, delivery, over.clone()).await);
            }
            let Some(ended) = under_way.next().await else { return failure.map_or(Ok(()), Err) };
            let (key, sent) = ended.map_err(|error| match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => DriverError::new(ErrorKind::Unavailable, operation, "the process is shutting down"),
            })?;
            let sent = match sent {
                Err(error) if error.kind() != ErrorKind::Invalid => Err(error),
                sent => done(key, sent),
            };
            if let Err(error) = sent {
                failure.get_or_insert(error);
                drop(waiting.take());
            }
        }
    }

    /// Waits for the requests of a dropped call.
    pub(crate) async fn idle(&self) {
        // The semaphore is never closed.
        let _ = self.permits.acquire_many(TOGETHER).await;
    }

    async fn begin(&self, operation: &'static str, delivery: Delivery, over: Over) -> JoinHandle<(Key, Result<()>)> {
        let (remote, instances) = (Arc::clone(&self.remote), Arc::clone(&self.instances));
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        tokio::spawn(async move {
            let Delivery { key, row, is_known } = delivery;
            let is_taken = |id: &str| locked(&instances).row(&key.0, id).is_some();
            let sent = match &row {
                Some(row) => remote.put(operation, row, is_known, is_taken, &over).await,
                None => remote.delete(operation, &key.0, &key.1, &over).await,
            };
            drop(permit);
            (key, sent)
        })
    }
}
