//! Creates, updates and deletes the peer's records idempotently.

use std::time::Duration;

use serde_json::Value;
use snaphook_driver::{DriverError, ErrorKind, Instance, Result, Row, json};
use snaphook_driver_peer::{Backoff, Method, Peer, Response, Verdict};
use tokio::sync::watch;

use crate::config::{Call, Calls};
use crate::record::Fields;

/// Attempts of one request that fails temporarily; after these the call fails, and the server retries the call.
const ATTEMPTS: u32 = 4;
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Longest pause that the peer may request within a call.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(5);

/// How many bytes of a response to a write are read: enough to find the id or a message.
const RESPONSE_BYTES_MAX: usize = 1 << 20;

/// Maximum size of a list.
const LIST_BYTES_MAX: usize = 64 << 20;

/// The peer and its conventions.
pub(crate) struct Remote {
    pub(crate) peer: Peer,
    pub(crate) calls: Calls,
    pub(crate) fields: Fields,
    /// Whether the body of an update contains the id.
    pub(crate) id_in_updates: bool,
}

/// Closed when nobody waits for a request any more; the attempt in progress is then the last one.
pub(crate) type Over = watch::Receiver<()>;

/// A write to the peer.
struct Write<'a> {
    operation: &'static str,
    instance: &'a Instance,
    data: &'a Value,
    is_taken: &'a (dyn Fn(&str) -> bool + Sync),
    over: &'a Over,
}

/// Why a request failed.
enum Fault {
    /// A retry may succeed, and this attempt may have succeeded.
    Passing(String, Option<Duration>),
    /// The address, the token or the peer is wrong.
    Peer(String),
    /// The peer rejects this record.
    Record(String),
    /// The peer reports both that the record exists and that it does not. If this persists, it counts as a rejected
    /// record.
    Contradiction(String),
}

impl Remote {
    /// Creates or updates the peer's record of an instance. `is_known` means that the peer may already have one.
    /// `is_taken` returns whether an id belongs to an instance.
    pub(crate) async fn put(
        &self,
        operation: &'static str,
        row: &Row,
        is_known: bool,
        is_taken: impl Fn(&str) -> bool + Sync,
        over: &Over,
    ) -> Result<()> {
        let instance = row.instance();
        let data = instance.data.to_value().map_err(|error| {
            DriverError::new(ErrorKind::Corrupt, operation, "the data of an instance cannot be read").because(error)
        })?;
        let write = Write { operation, instance, data: &data, is_taken: &is_taken, over };
        // After a failure the record may exist.
        let request = |attempt| self.upsert(&write, is_known || attempt > 1);
        self.retried(operation, &instance.model, &instance.id, over, request).await
    }

    /// Removes the peer's record; no error if there is none.
    pub(crate) async fn delete(&self, operation: &'static str, model: &str, id: &str, over: &Over) -> Result<()> {
        self.retried(operation, model, id, over, |_| async {
            let response = self.send(&self.calls.delete, model, id, None).await?;
            match response.verdict() {
                Verdict::Absent => Ok(()),
                _ => success(&response),
            }
        })
        .await
    }

    /// The ids of this driver's records of a model at the peer, as far as one list shows them.
    pub(crate) async fn ours(&self, operation: &'static str, model: &str) -> Result<Vec<String>> {
        let Some(call) = &self.calls.list else { return Ok(Vec::new()) };
        let Some(path) = call.path.fill(model, "") else { return Ok(Vec::new()) };
        let (_waiting, over) = watch::channel(());
        self.retried(operation, model, "", &over, |_| async {
            let sent = self.peer.send(call.method.clone(), &path, None, LIST_BYTES_MAX).await;
            let response = sent.map_err(|failure| Fault::Passing(failure.to_string(), None))?;
            if response.verdict() == Verdict::Absent {
                return Ok(Vec::new());
            }
            success(&response)?;
            if !response.is_whole {
                return Err(Fault::Peer(format!(
                    "the peer's list is incomplete or larger than {LIST_BYTES_MAX} bytes"
                )));
            }
            let records = self.fields.records(&response.body);
            let records = records.map_err(|reason| Fault::Peer(format!("the peer's list {reason}")))?;
            Ok(records.iter().filter_map(|record| self.fields.id_of_ours(record)).collect())
        })
        .await
    }

    /// Whether the peer responds and accepts the token.
    pub(crate) async fn health(&self) -> Result<()> {
        let unavailable = |message: String| DriverError::new(ErrorKind::Unavailable, "health", message);
        let response = self.peer.send(Method::GET, "", None, 4096).await;
        let response = response.map_err(|failure| unavailable(failure.to_string()))?;
        match response.status {
            401 | 403 | 500.. => Err(unavailable(response.complaint())),
            _ => Ok(()),
        }
    }

    /// Creates or updates, depending on the peer's response.
    async fn upsert(&self, write: &Write<'_>, update_first: bool) -> Result<(), Fault> {
        let Instance { model, id, .. } = write.instance;
        let mut complaint = String::new();
        for is_update in [update_first, !update_first] {
            let call = if is_update { &self.calls.update } else { &self.calls.create };
            let record = self.fields.record(write.instance, write.data, !is_update || self.id_in_updates);
            let response = self.send(call, model, id, Some(record)).await?;
            match response.verdict() {
                Verdict::Absent if is_update => complaint = response.complaint(),
                Verdict::Done if is_update && is_empty_list(&response) => complaint = response.complaint(),
                Verdict::Refused if !is_update && response.status == 409 => complaint = response.complaint(),
                Verdict::Done if !is_update => return self.check_id(write, &response).await,
                _ => return success(&response),
            }
        }
        let what = if update_first { "neither updated nor created" } else { "neither created nor updated" };
        Err(Fault::Contradiction(format!("a record can be {what}: {complaint}")))
    }

    /// If the peer assigned its own id, each event would create another record. So the new record is deleted again,
    /// unless it belongs to another instance.
    async fn check_id(&self, write: &Write<'_>, response: &Response) -> Result<(), Fault> {
        let Instance { model, id, .. } = write.instance;
        let record = json::parse_bytes(&response.body).ok();
        let Some(found) = record.and_then(|record| self.fields.id_of(&record)).filter(|found| found != id) else {
            return Ok(());
        };
        let became = match (write.is_taken)(&found) {
            true => "which is the record of another instance".to_owned(),
            false => match self.delete(write.operation, model, &found, write.over).await {
                Ok(()) => "which was deleted again".to_owned(),
                Err(error) => format!("which could not be deleted again ({})", error.message()),
            },
        };
        Err(Fault::Record(format!(
            "the peer created the record `{}` instead of `{id}`, {became}; the peer must keep the given id: set `id` \
             to the name of its field, or put `{{id}}` into `paths.create`",
            response.quoted(&found)
        )))
    }

    async fn send(&self, call: &Call, model: &str, id: &str, record: Option<String>) -> Result<Response, Fault> {
        let path = call.path.fill(model, id);
        let path = path.ok_or_else(|| Fault::Record("the id cannot be part of an address".into()))?;
        let sent = self.peer.send(call.method.clone(), &path, record.map(Into::into), RESPONSE_BYTES_MAX).await;
        sent.map_err(|failure| Fault::Passing(failure.to_string(), None))
    }

    /// Retries a request until it succeeds, has failed too often, or nobody waits for it; attempts are counted from 1.
    async fn retried<T, F: Future<Output = Result<T, Fault>>>(
        &self,
        operation: &'static str,
        model: &str,
        id: &str,
        over: &Over,
        request: impl Fn(u32) -> F,
    ) -> Result<T> {
        let (mut backoff, mut over) = (Backoff::new(PAUSE_FIRST, PAUSE_MAX), over.clone());
        let mut attempt = 1;
        let (kind, message) = loop {
            let fault = match request(attempt).await {
                Ok(done) => return Ok(done),
                Err(fault) => fault,
            };
            let (message, asked) = match fault {
                Fault::Peer(message) => break (ErrorKind::Unavailable, message),
                Fault::Record(message) => break (ErrorKind::Invalid, message),
                Fault::Contradiction(message) if attempt == ATTEMPTS => break (ErrorKind::Invalid, message),
                Fault::Contradiction(message) => (message, None),
                Fault::Passing(message, asked) => (message, asked),
            };
            let asked = asked.unwrap_or_default();
            if attempt == ATTEMPTS || asked > RETRY_AFTER_MAX {
                break (ErrorKind::Unavailable, message);
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.next_pause().max(asked)) => attempt += 1,
                _ = over.changed() => break (ErrorKind::Unavailable, message),
            }
        };
        let error = DriverError::new(kind, operation, message).with("model", model);
        Err(if id.is_empty() { error } else { error.with("instance", id) })
    }
}

/// The meaning of a response in the general case.
fn success(response: &Response) -> Result<(), Fault> {
    match response.verdict() {
        Verdict::Done => Ok(()),
        Verdict::Passing => Err(Fault::Passing(response.complaint(), response.retry_after)),
        Verdict::Absent | Verdict::Refused => Err(Fault::Record(response.complaint())),
        Verdict::Unusable => Err(Fault::Peer(response.complaint())),
    }
}

/// Peers that respond with the changed records use an empty list to report that there was none.
fn is_empty_list(response: &Response) -> bool {
    let body = response.body.trim_ascii();
    body.starts_with(b"[") && json::parse_bytes(body).is_ok_and(|value| value.as_array().is_some_and(Vec::is_empty))
}
