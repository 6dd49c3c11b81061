//! Secrets in a bucket. A value contains its version, because NATS counts revisions over all keys; names are encoded,
//! because NATS does not allow arbitrary keys.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use prost::Message as _;
use snaphook_driver::{Capabilities, DriverError, ErrorKind, OpenContext, Result, Sealed, SecureStore};
use tokio::time::Instant;

use crate::bucket::{Bucket, Value, WRITE_TIME, Written};
use crate::config::StoreConfig;
use crate::connection::Link;
use crate::fault::corrupt;
use crate::parts::{Parts, Reference};
use crate::streams::Kind;

/// Values up to this size are stored in their message.
const INLINE_BYTES: usize = 128 * 1024;

/// After this many lost races a call gives up; each one means that another writer succeeded.
const LOST_MAX: usize = 1000;

/// See the crate's documentation.
pub(crate) struct NatsSecureStore {
    link: Arc<Link>,
    bucket: Bucket,
    parts: Parts,
}

/// A secret, or the marker of a deleted one.
#[derive(Clone, PartialEq, prost::Message)]
struct Record {
    #[prost(uint64, tag = "1")]
    version: u64,
    /// Identifies a write, so that it can be recognized after a lost response.
    #[prost(string, tag = "2")]
    write: String,
    #[prost(bytes = "vec", optional, tag = "3")]
    bytes: Option<Vec<u8>>,
    #[prost(message, optional, tag = "4")]
    parts: Option<Reference>,
}

impl NatsSecureStore {
    pub(crate) async fn open(context: &OpenContext) -> Result<NatsSecureStore> {
        let link = Link::of(&StoreConfig::of(context)?).await?;
        let bucket = Bucket::open(&link, "secrets", Kind::Bucket).await?;
        let parts = Parts::open(&link, "secret_parts", Kind::Parts).await?;
        Ok(NatsSecureStore { link, bucket, parts })
    }

    /// Reads the secret of that name and the revision of its key.
    async fn record(&self, operation: &'static str, name: &str) -> Result<(Option<Record>, u64)> {
        let Value { bytes, revision } = self.bucket.get(operation, &key(name)).await?;
        let Some(bytes) = bytes else { return Ok((None, revision)) };
        match Record::decode(bytes) {
            Ok(record) => Ok((Some(record), revision)),
            Err(error) => Err(corrupt(operation, "a secret cannot be read back").with("name", name).because(error)),
        }
    }

    /// Removes the parts of a deleted record.
    async fn forget(&self, record: Option<Record>) {
        if let Some(Reference { id, .. }) = record.and_then(|record| record.parts) {
            self.parts.remove(&id).await;
        }
    }

    /// Creates a record and stores its parts.
    async fn new_record(&self, bytes: &[u8]) -> Result<Record> {
        let write = snaphook_driver::new_log_identity();
        if bytes.len() <= INLINE_BYTES {
            return Ok(Record { version: 0, write, bytes: Some(bytes.to_vec()), parts: None });
        }
        self.link.connected("put").await?;
        let deadline = Instant::now() + WRITE_TIME;
        let parts = self.parts.put("put", Bytes::copy_from_slice(bytes), deadline).await?;
        Ok(Record { version: 0, write, bytes: None, parts: Some(parts) })
    }
}

#[async_trait]
impl SecureStore for NatsSecureStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities { durable: true, shared: true, ..Capabilities::LEAST }
    }

    async fn health(&self) -> Result<()> {
        self.link.connected("health").await?;
        self.bucket.get("health", "health").await.map(drop)
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }

    async fn get(&self, name: &str) -> Result<Option<Sealed>> {
        // Parts may disappear while they are read because the secret is replaced: then the new secret is read.
        let mut lost = None;
        for _ in 0..3 {
            let (Some(record), revision) = self.record("get", name).await? else { return Ok(None) };
            let version = record.version;
            let bytes = match (record.bytes, &record.parts) {
                (Some(bytes), _) => bytes,
                (None, Some(parts)) => match self.parts.get("get", parts).await {
                    Ok(bytes) => bytes.to_vec(),
                    Err(error) if error.kind() == ErrorKind::Corrupt && lost != Some(revision) => {
                        lost = Some(revision);
                        continue;
                    }
                    Err(error) => return Err(error.with("name", name)),
                },
                (None, None) => return Err(corrupt("get", "a secret has no value").with("name", name)),
            };
            return Ok(Some(Sealed { bytes, version }));
        }
        Err(DriverError::new(ErrorKind::Unavailable, "get", "the secret is replaced faster than it can be read"))
    }

    async fn put(&self, name: &str, bytes: &[u8], expected: Option<u64>) -> Result<u64> {
        let mut record = self.new_record(bytes).await?;
        let mut replaced: Option<Record> = None;
        for _ in 0..LOST_MAX {
            let (current, revision) = self.record("put", name).await?;
            if let Some(current) = current.as_ref().filter(|current| current.write == record.write) {
                // An earlier attempt whose response was lost.
                self.forget(replaced).await;
                return Ok(current.version);
            }
            let version = current.as_ref().map_or(0, |current| current.version);
            if let Some(expected) = expected.filter(|expected| *expected != version) {
                self.forget(Some(record)).await;
                return Err(DriverError::new(
                    ErrorKind::Conflict,
                    "put",
                    format!("the secret has version {version}, expected {expected}"),
                )
                .with("name", name));
            }
            record.version = version + 1;
            replaced = current;
            match self.bucket.set("put", &key(name), Some(record.encode_to_vec().into()), revision).await? {
                Written::At(_) => {
                    self.forget(replaced).await;
                    return Ok(record.version);
                }
                Written::Conflict => {}
            }
        }
        self.forget(Some(record)).await;
        Err(DriverError::new(ErrorKind::Unavailable, "put", "other nodes keep changing the same secret; try again")
            .with("name", name))
    }

    async fn delete(&self, name: &str) -> Result<bool> {
        for _ in 0..LOST_MAX {
            let (current, revision) = self.record("delete", name).await?;
            let Some(current) = current else { return Ok(false) };
            if let Written::At(_) = self.bucket.set("delete", &key(name), None, revision).await? {
                self.forget(Some(current)).await;
                return Ok(true);
            }
            let (after, _) = self.record("delete", name).await?;
            if after.is_none() {
                // Removed by this call with a lost response, or by another call at the same time.
                return Ok(true);
            }
        }
        Err(DriverError::new(ErrorKind::Unavailable, "delete", "other nodes keep changing the same secret; try again")
            .with("name", name))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for key in self.bucket.keys("list").await? {
            let Some(name) = name_of(&key).filter(|name| name.starts_with(prefix)) else { continue };
            // Keys of deleted secrets remain.
            if self.record("list", &name).await?.0.is_some() {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }
}

/// The key of a name: `s` and its bytes as hexadecimal digits.
fn key(name: &str) -> String {
    name.bytes().fold("s".to_owned(), |mut key, byte| {
        key.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('0'));
        key.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or('0'));
        key
    })
}

fn name_of(key: &str) -> Option<String> {
    let digits = key.strip_prefix('s')?;
    let byte = |index: usize| u8::from_str_radix(digits.get(index..index + 2)?, 16).ok();
    let bytes: Option<Vec<u8>> = (0..digits.len()).step_by(2).map(byte).collect();
    String::from_utf8(bytes?).ok()
}
