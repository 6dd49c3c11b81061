//! Stores values that are too large for one message in parts: one numbered message per part.
//!
//! The first part contains the total size and is written last, so a value with a first part is complete. The
//! [`Reference`] contains the digest, so a value that is read equals the one that was stored.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::stream::RawMessageErrorKind;
use async_nats::jetstream::stream::Stream;
use bytes::{Bytes, BytesMut};
use futures::stream::FuturesUnordered;
use futures::{StreamExt as _, TryStreamExt as _};
use sha2::{Digest as _, Sha256};
use snaphook_driver::files::file_fault;
use snaphook_driver::{DriverError, ErrorKind, Result, new_log_identity};
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::Instant;

use crate::connection::{Link, PART_BYTES, READ_TRIES, Unstored};
use crate::fault::{corrupt, unavailable};
use crate::streams;

/// Largest value: larger than any batch, page or blob.
pub(crate) const VALUE_BYTES_MAX: usize = 128 << 20;

/// How many parts are in transit at once.
const AT_ONCE: usize = 8;

/// Timeout for one part of a file, including retries.
const PART_TIME: Duration = Duration::from_secs(30);

const PAUSE: Duration = Duration::from_millis(100);

/// The location of a value.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Reference {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(uint64, tag = "2")]
    pub(crate) size: u64,
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) sha256: Vec<u8>,
}

/// A stream of parts.
pub(crate) struct Parts {
    link: Arc<Link>,
    stream: Stream<()>,
    subject: String,
}

impl Parts {
    /// Opens the stream of that name, or creates it.
    pub(crate) async fn open(link: &Arc<Link>, name: &str, kind: streams::Kind) -> Result<Parts> {
        let subject = format!("{}.{name}", link.config.name);
        let stream = format!("{}_{name}", link.config.name);
        let config = streams::config(link, &stream, &format!("{subject}.>"), kind);
        Ok(Parts { link: Arc::clone(link), stream: streams::ensure(link, &config).await?, subject })
    }

    /// Stores a value durably. After an error, nobody can have a reference to it.
    pub(crate) async fn put(&self, operation: &'static str, bytes: Bytes, deadline: Instant) -> Result<Reference> {
        if bytes.len() > VALUE_BYTES_MAX {
            return Err(DriverError::new(
                ErrorKind::Invalid,
                operation,
                format!("one call has {} bytes, at most {VALUE_BYTES_MAX} are allowed", bytes.len()),
            ));
        }
        let id = new_log_identity();
        let reference = Reference { id, size: bytes.len() as u64, sha256: Sha256::digest(&bytes).to_vec() };
        let count = count(reference.size);
        let put = |index: usize| {
            let part = bytes.slice(index * PART_BYTES..bytes.len().min((index + 1) * PART_BYTES));
            self.put_part(operation, self.subject_of(&reference.id, index), part, deadline)
        };
        let sent = async {
            futures::stream::iter(1..count).map(put).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
            put(0).await
        };
        match sent.await {
            Ok(()) => Ok(reference),
            Err(error) => {
                self.remove(&reference.id).await;
                Err(error)
            }
        }
    }

    /// Reads a value, which must exist because its reference was created after it.
    pub(crate) async fn get(&self, operation: &'static str, reference: &Reference) -> Result<Bytes> {
        if reference.size > VALUE_BYTES_MAX as u64 {
            return Err(
                corrupt(operation, "a value is larger than any that this driver writes").with("bytes", reference.size)
            );
        }
        let parts = futures::stream::iter(0..count(reference.size))
            .map(|index| self.get_part(operation, self.subject_of(&reference.id, index)))
            .buffered(AT_ONCE);
        let bytes = parts
            .try_fold(BytesMut::new(), async |mut bytes, part| {
                bytes.extend_from_slice(&part);
                Ok(bytes)
            })
            .await?
            .freeze();
        if bytes.len() as u64 != reference.size || Sha256::digest(&bytes)[..] != reference.sha256[..] {
            return Err(
                corrupt(operation, "the parts of a value do not match its size or checksum").with("id", &reference.id)
            );
        }
        Ok(bytes)
    }

    /// Stores a file of any size.
    pub(crate) async fn put_file(&self, operation: &'static str, path: &Path) -> Result<Reference> {
        let id = new_log_identity();
        let put = self.put_file_as(&id, operation, path).await;
        if put.is_err() {
            self.remove(&id).await;
        }
        put
    }

    async fn put_file_as(&self, id: &str, operation: &'static str, path: &Path) -> Result<Reference> {
        let fault = file_fault(operation, path);
        let mut file = File::open(path).await.map_err(&fault)?;
        let size = file.metadata().await.map_err(&fault)?.len();
        let mut reference = Reference { id: id.to_owned(), size, sha256: Vec::new() };
        let (mut digest, mut index, mut left) = (Sha256::new(), 0, size);
        let mut sending = FuturesUnordered::new();
        while left > 0 {
            let mut part = vec![0; left.min(PART_BYTES as u64) as usize];
            file.read_exact(&mut part).await.map_err(&fault)?;
            digest.update(&part);
            left -= part.len() as u64;
            let deadline = Instant::now() + PART_TIME;
            sending.push(self.put_part(operation, self.subject_of(&reference.id, index), part.into(), deadline));
            index += 1;
            if sending.len() == AT_ONCE {
                sending.next().await.unwrap_or(Ok(()))?;
            }
        }
        sending.try_collect::<()>().await?;
        reference.sha256 = digest.finalize().to_vec();
        Ok(reference)
    }

    /// Writes a stored file to disk.
    pub(crate) async fn get_file(&self, operation: &'static str, reference: &Reference, path: &Path) -> Result<()> {
        let fault = file_fault(operation, path);
        let mut file = File::create(path).await.map_err(&fault)?;
        let mut digest = Sha256::new();
        let mut parts = std::pin::pin!(
            futures::stream::iter(0..reference.size.div_ceil(PART_BYTES as u64) as usize)
                .map(|index| self.get_part(operation, self.subject_of(&reference.id, index)))
                .buffered(AT_ONCE)
        );
        while let Some(part) = parts.try_next().await? {
            digest.update(&part);
            file.write_all(&part).await.map_err(&fault)?;
        }
        // It will replace another file.
        file.sync_all().await.map_err(&fault)?;
        match digest.finalize()[..] == reference.sha256[..] {
            true => Ok(()),
            false => Err(corrupt(operation, "the parts of a file do not match its checksum")),
        }
    }

    /// Removes a value without references. If that fails, it stays, which does no harm.
    pub(crate) async fn remove(&self, id: &str) {
        let removed = self.stream.purge().filter(format!("{}.{id}.*", self.subject)).await;
        if let Err(error) = removed {
            tracing::debug!(%error, id, "nats: the parts of an unused value were not removed");
        }
    }

    async fn put_part(&self, operation: &'static str, subject: String, part: Bytes, deadline: Instant) -> Result<()> {
        loop {
            match self.link.publish(subject.clone(), HeaderMap::new(), part.clone()).await {
                Ok(_) => return Ok(()),
                Err(fault) if Instant::now() >= deadline => return Err(fault.into_error(operation)),
                // Storing the same part twice does no harm.
                Err(Unstored::Refused(refusal)) => {
                    let error = refusal.into_error(operation);
                    if error.kind() == ErrorKind::Full {
                        return Err(error);
                    }
                    tokio::time::sleep(PAUSE).await;
                }
                Err(Unstored::Nobody | Unstored::Unknown) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    async fn get_part(&self, operation: &'static str, subject: String) -> Result<Bytes> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.stream.get_last_raw_message_by_subject(&subject).await {
                Ok(message) => return Ok(message.payload),
                Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => {
                    return Err(corrupt(operation, "a part of a value is missing").with("subject", subject));
                }
                Err(error) if tries == READ_TRIES => return Err(unavailable(operation, "a part of a value")(error)),
                // After a lost connection, the response never arrives.
                Err(_) => self.link.connected(operation).await?,
            }
        }
    }

    fn subject_of(&self, id: &str, index: usize) -> String {
        format!("{}.{id}.{index}", self.subject)
    }
}

/// The number of parts of a value of that size; an empty value has one.
fn count(size: u64) -> usize {
    (size as usize).div_ceil(PART_BYTES).max(1)
}
