//! The peer's records: created, updated and deleted such that doing it again changes nothing.

use std::time::Duration;

use snaphook_driver::{DriverError, ErrorKind, Result, Row};
use snaphook_driver_peer::{Backoff, Method, Peer, Response};

use crate::config::{Call, Calls};
use crate::record::Fields;

/// Attempts at one request that fails for the moment; after them the call fails, and the server tries that again.
const ATTEMPTS: u32 = 4;
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Longest pause that the peer may ask for within a call.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(5);

/// Bytes of a response to a write that are read: enough to find the id in it, or a message.
const RESPONSE_BYTES_MAX: usize = 1 << 20;

/// Bytes of a list.
const LIST_BYTES_MAX: usize = 64 << 20;

/// The peer and how it is spoken to.
pub(crate) struct Remote {
    pub(crate) peer: Peer,
    pub(crate) calls: Calls,
    pub(crate) fields: Fields,
}

/// Why a request did not do what it should.
enum Fault {
    /// Another attempt may succeed, and this one may have.
    Passing(String, Option<Duration>),
    /// The address, the token or the peer is not as it should be.
    Peer(String),
    /// The peer does not take this record.
    Record(String),
}

impl Remote {
    /// Makes the peer's record that of an instance; `is_known`: the peer may have one already.
    pub(crate) async fn put(&self, operation: &'static str, row: &Row, is_known: bool) -> Result<()> {
        let instance = row.instance();
        let data = instance.data.to_value().map_err(|error| {
            DriverError::new(ErrorKind::Corrupt, operation, "the data of an instance cannot be read").because(error)
        })?;
        let record = self.fields.record(instance, &data);
        let (model, id) = (&instance.model, &instance.id);
        // After a failure the record may be there.
        self.retried(operation, model, id, |attempt| self.upsert(model, id, &record, is_known || attempt > 1)).await
    }

    /// Removes the peer's record; not an error if there is none.
    pub(crate) async fn delete(&self, operation: &'static str, model: &str, id: &str) -> Result<()> {
        self.retried(operation, model, id, |_| async {
            let response = self.send(&self.calls.delete, model, id, None).await?;
            match response.status {
                404 | 410 => Ok(()),
                _ => success(&response),
            }
        })
        .await
    }

    /// Ids of the records that this driver left at the peer for a model, as far as one list shows them.
    pub(crate) async fn ours(&self, operation: &'static str, model: &str) -> Result<Vec<String>> {
        let Some(call) = &self.calls.list else { return Ok(Vec::new()) };
        self.retried(operation, model, "", |_| async {
            let sent = self.peer.send(call.method.clone(), &call.path.fill(model, ""), None, LIST_BYTES_MAX).await;
            let response = sent.map_err(|failure| Fault::Passing(failure.to_string(), None))?;
            if matches!(response.status, 404 | 410) {
                return Ok(Vec::new());
            }
            success(&response)?;
            if !response.is_whole {
                return Err(Fault::Peer(format!(
                    "the peer's list is cut short, or has more than {LIST_BYTES_MAX} bytes"
                )));
            }
            let records = self.fields.records(&response.body);
            let records = records.map_err(|reason| Fault::Peer(format!("the peer's list {reason}")))?;
            Ok(records.iter().filter_map(|record| self.fields.id_of_ours(record)).collect())
        })
        .await
    }

    /// Whether the peer answers, and takes the token.
    pub(crate) async fn health(&self) -> Result<()> {
        let unavailable = |message: String| DriverError::new(ErrorKind::Unavailable, "health", message);
        let response = self.peer.send(Method::GET, "", None, 4096).await;
        let response = response.map_err(|failure| unavailable(failure.to_string()))?;
        match response.status {
            401 | 403 | 500.. => Err(unavailable(response.complaint())),
            _ => Ok(()),
        }
    }

    /// Creates or updates, whichever the peer's answer asks for.
    async fn upsert(&self, model: &str, id: &str, record: &str, update_first: bool) -> Result<(), Fault> {
        let mut complaint = String::new();
        for is_update in [update_first, !update_first] {
            let call = if is_update { &self.calls.update } else { &self.calls.create };
            let response = self.send(call, model, id, Some(record)).await?;
            match (is_update, response.status) {
                (true, 404 | 410) | (false, 409) => complaint = response.complaint(),
                (true, _) => return success(&response),
                (false, _) => return success(&response).and_then(|()| self.check_id(id, &response)),
            }
        }
        let what = if update_first { "neither updated nor created" } else { "neither created nor updated" };
        Err(Fault::Peer(format!("a record is {what}: {complaint}")))
    }

    /// A peer that gives a record an id of its own would get another record with each event.
    fn check_id(&self, id: &str, response: &Response) -> Result<(), Fault> {
        let record = snaphook_driver::json::parse_bytes(&response.body).ok();
        match record.and_then(|record| self.fields.id_of(&record)) {
            Some(found) if found != id => Err(Fault::Peer(format!(
                "the peer created `{found}` instead of `{id}`; it must take the ids that it is given"
            ))),
            _ => Ok(()),
        }
    }

    async fn send(&self, call: &Call, model: &str, id: &str, record: Option<&str>) -> Result<Response, Fault> {
        let body = record.map(|record| record.to_owned().into());
        let sent = self.peer.send(call.method.clone(), &call.path.fill(model, id), body, RESPONSE_BYTES_MAX).await;
        sent.map_err(|failure| Fault::Passing(failure.to_string(), None))
    }

    /// Tries a request until it succeeds or has failed too often; the attempts count from 1.
    async fn retried<T, F: Future<Output = Result<T, Fault>>>(
        &self,
        operation: &'static str,
        model: &str,
        id: &str,
        request: impl Fn(u32) -> F,
    ) -> Result<T> {
        let mut backoff = Backoff::new(PAUSE_FIRST, PAUSE_MAX);
        let mut attempt = 1;
        let (kind, message) = loop {
            match request(attempt).await {
                Ok(done) => return Ok(done),
                Err(Fault::Passing(_, asked)) if attempt < ATTEMPTS && asked.unwrap_or_default() <= RETRY_AFTER_MAX => {
                    attempt += 1;
                    tokio::time::sleep(backoff.next_pause().max(asked.unwrap_or_default())).await;
                }
                Err(Fault::Passing(message, _) | Fault::Peer(message)) => break (ErrorKind::Unavailable, message),
                Err(Fault::Record(message)) => break (ErrorKind::Invalid, message),
            }
        };
        let error = DriverError::new(kind, operation, message).with("model", model);
        Err(if id.is_empty() { error } else { error.with("instance", id) })
    }
}

/// What a status means that nothing else is known of.
fn success(response: &Response) -> Result<(), Fault> {
    let is_page = || response.content_type.as_deref().is_some_and(|text| text.starts_with("text/html"));
    match response.status {
        200..300 if is_page() && !response.body.trim_ascii().is_empty() => {
            Err(Fault::Peer("the peer answered with a web page; is `url` the address of its API?".into()))
        }
        200..300 => Ok(()),
        408 | 425 | 429 | 500.. => Err(Fault::Passing(response.complaint(), response.retry_after)),
        400 | 409 | 413 | 422 => Err(Fault::Record(response.complaint())),
        _ => Err(Fault::Peer(response.complaint())),
    }
}
