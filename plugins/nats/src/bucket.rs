//! A key-value store with compare-and-set: the last message of a subject is the value of its key.
//!
//! The streams have the format of NATS's key-value buckets, so its tools can show them. All reads go to the leader,
//! because replicas may return older values.

use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::stream::RawMessageErrorKind;
use async_nats::jetstream::stream::Stream;
use bytes::Bytes;
use futures::TryStreamExt as _;
use snaphook_driver::{DriverError, ErrorKind, Result};
use tokio::time::Instant;

use crate::connection::{Link, READ_TRIES, Unstored};
use crate::fault::unavailable;
use crate::streams::{self, Kind};

/// Timeout of a write, including retries.
pub(crate) const WRITE_TIME: Duration = Duration::from_secs(15);

const PAUSE: Duration = Duration::from_millis(50);

/// The expected sequence of the subject's last message (0: there is none).
const EXPECTED: &str = "Nats-Expected-Last-Subject-Sequence";

/// Marks a message that removes its key.
const OPERATION: &str = "KV-Operation";

/// More keys than any bucket has.
const KEYS_MAX: usize = 1 << 20;

/// A bucket of the connection.
pub(crate) struct Bucket {
    link: Arc<Link>,
    stream: Stream<()>,
    subject: String,
}

/// The last message of a key.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Value {
    /// `None`: it was removed.
    pub(crate) bytes: Option<Bytes>,
    /// The revision that a replacing write must name.
    pub(crate) revision: u64,
}

/// The outcome of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// The value has this revision.
    At(u64),
    /// There is another value. After a lost response it may be the value that this write stored.
    Conflict,
}

impl Bucket {
    /// Opens the bucket of that name, or creates it.
    pub(crate) async fn open(link: &Arc<Link>, name: &str, kind: Kind) -> Result<Bucket> {
        let bucket = format!("{}_{name}", link.config.name);
        let subject = format!("$KV.{bucket}");
        let config = streams::config(link, &format!("KV_{bucket}"), &format!("{subject}.>"), kind);
        Ok(Bucket { link: Arc::clone(link), stream: streams::ensure(link, &config).await?, subject })
    }

    /// Reads the last value of a key; revision 0 if it never had one.
    pub(crate) async fn get(&self, operation: &'static str, key: &str) -> Result<Value> {
        let subject = format!("{}.{key}", self.subject);
        let mut tries = 0;
        loop {
            tries += 1;
            match self.stream.get_last_raw_message_by_subject(&subject).await {
                Ok(message) => {
                    let is_there = message.headers.get(OPERATION).is_none();
                    return Ok(Value { bytes: is_there.then_some(message.payload), revision: message.sequence });
                }
                Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => {
                    return Ok(Value { bytes: None, revision: 0 });
                }
                Err(error) if tries == READ_TRIES => return Err(unavailable(operation, "the bucket")(error)),
                // After a lost connection, the response never arrives.
                Err(_) => self.link.connected(operation).await?,
            }
        }
    }

    /// Writes a value, or removes it (`None`), if the last one has this revision. After an error of kind `Uncertain`,
    /// the write may have happened or may still happen.
    pub(crate) async fn set(
        &self,
        operation: &'static str,
        key: &str,
        bytes: Option<Bytes>,
        revision: u64,
    ) -> Result<Written> {
        self.write(operation, key, bytes, Some(revision)).await
    }

    /// Writes a value unconditionally.
    pub(crate) async fn put(&self, operation: &'static str, key: &str, bytes: Bytes) -> Result<()> {
        self.write(operation, key, Some(bytes), None).await.map(drop)
    }

    async fn write(
        &self,
        operation: &'static str,
        key: &str,
        bytes: Option<Bytes>,
        revision: Option<u64>,
    ) -> Result<Written> {
        self.link.connected(operation).await?;
        let mut headers = HeaderMap::new();
        if let Some(revision) = revision {
            headers.insert(EXPECTED, revision.to_string());
        }
        if bytes.is_none() {
            headers.insert(OPERATION, "DEL");
        }
        let (subject, payload) = (format!("{}.{key}", self.subject), bytes.unwrap_or_default());
        let deadline = Instant::now() + WRITE_TIME;
        let mut is_unknown = false;
        loop {
            let error = match self.link.publish(subject.clone(), headers.clone(), payload.clone()).await {
                Ok(sequence) => return Ok(Written::At(sequence)),
                Err(Unstored::Refused(refusal)) if refusal.is_conflict() => return Ok(Written::Conflict),
                Err(Unstored::Unknown) => {
                    is_unknown = true;
                    Unstored::Unknown.into_error(operation)
                }
                Err(fault) => fault.into_error(operation),
            };
            if error.kind() == ErrorKind::Full && !is_unknown {
                return Err(error);
            }
            if Instant::now() >= deadline {
                return Err(if is_unknown { error.as_kind(ErrorKind::Uncertain) } else { error });
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// All keys that have or had a value.
    pub(crate) async fn keys(&self, operation: &'static str) -> Result<Vec<String>> {
        let filter = format!("{}.>", self.subject);
        let fault = unavailable(operation, "the bucket");
        let mut found = self.stream.info_with_subjects(&filter).await.map_err(fault)?;
        let mut keys = Vec::new();
        while let Some((subject, _)) = found.try_next().await.map_err(unavailable(operation, "the bucket"))? {
            if let Some(key) = subject.strip_prefix(&self.subject).and_then(|key| key.strip_prefix('.')) {
                keys.push(key.to_owned());
            }
            if keys.len() > KEYS_MAX {
                return Err(DriverError::new(
                    ErrorKind::Unexpected,
                    operation,
                    "the bucket has more than a million keys",
                ));
            }
        }
        Ok(keys)
    }
}
