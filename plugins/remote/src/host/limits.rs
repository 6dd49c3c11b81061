//! Limits the memory for requests and responses of a host.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use snaphook_driver::{DriverError, ErrorKind};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::transport::BODY_BYTES_MAX;

/// Maximum total size of all bodies in progress.
const HELD_BYTES_MAX: usize = 4 * BODY_BYTES_MAX;

/// Maximum number of concurrent requests, including those that wait for events.
const REQUESTS_MAX: usize = 256;

/// A request counts as at least this many bytes.
const LEAST_BYTES: usize = HELD_BYTES_MAX / REQUESTS_MAX;

const UNIT: usize = 1024;

/// How many connections a host accepts, and how long it waits for its clients.
#[derive(Clone, Copy, Debug)]
pub struct HostLimits {
    /// Concurrent connections; further ones wait in the system's queue.
    pub connections: usize,
    /// Timeout of a TLS handshake.
    pub handshake_time: Duration,
    /// From the first byte of a request's head to its last; also how long a connection may be idle.
    pub head_time: Duration,
    /// Timeout of receiving a complete body.
    pub body_time: Duration,
    /// A connection on which nothing can be written for this long is closed.
    pub write_time: Duration,
}

impl Default for HostLimits {
    fn default() -> Self {
        HostLimits {
            connections: 1024,
            handshake_time: Duration::from_secs(10),
            head_time: Duration::from_secs(60),
            body_time: Duration::from_secs(30),
            write_time: Duration::from_secs(30),
        }
    }
}

/// The memory for bodies.
pub(super) struct BodyBudget(Arc<Semaphore>);

/// A part of the budget, released when this is dropped.
pub(super) struct Lease {
    permit: OwnedSemaphorePermit,
}

impl Default for BodyBudget {
    fn default() -> Self {
        BodyBudget(Arc::new(Semaphore::new(HELD_BYTES_MAX / UNIT)))
    }
}

impl BodyBudget {
    /// Reads the body of a request and returns it with its lease. Waits until there is enough memory.
    pub(super) async fn read(
        &self,
        operation: &str,
        body: Body,
        time: Duration,
    ) -> Result<(Lease, Vec<u8>), DriverError> {
        let fault = |kind, message: String| DriverError::new(kind, operation.to_owned(), message);
        // The length is known if the head contains it, or if there is no body.
        let length = body.size_hint().exact().and_then(|length| usize::try_from(length).ok());
        let length = length.ok_or_else(|| {
            fault(ErrorKind::Invalid, "the request has no `Content-Length`, which is required".into())
        })?;
        if length > BODY_BYTES_MAX {
            let message = format!("the request has {length} bytes, at most {BODY_BYTES_MAX} are allowed");
            return Err(fault(ErrorKind::Invalid, message));
        }
        let lease = self.lease(length).await;
        let lease = lease.ok_or_else(|| fault(ErrorKind::Unavailable, "the host no longer accepts requests".into()))?;
        let bytes = tokio::time::timeout(time, axum::body::to_bytes(body, BODY_BYTES_MAX)).await;
        // Nothing was done, and the request itself is not at fault.
        let late = |_| fault(ErrorKind::Unavailable, format!("the request did not arrive within {time:?}"));
        let broken = |error| fault(ErrorKind::Unavailable, format!("the request was interrupted: {error}"));
        Ok((lease, bytes.map_err(late)?.map_err(broken)?.into()))
    }

    /// Converts a response to a body. If it needs more memory than its request's lease, that memory must be free now:
    /// many responses that wait while they are already in memory would defeat the budget. The response of a change is
    /// small and is always sent.
    pub(super) fn respond(
        &self,
        operation: &str,
        mut lease: Lease,
        response: Vec<u8>,
        is_change: bool,
    ) -> Result<Body, DriverError> {
        let more = units(response.len()).saturating_sub(lease.permit.num_permits());
        match Arc::clone(&self.0).try_acquire_many_owned(more as u32) {
            Ok(permit) => lease.permit.merge(permit),
            Err(_) if is_change => {}
            Err(_) => {
                let message = "the host has no memory free for the response; try again";
                return Err(DriverError::new(ErrorKind::Overloaded, operation.to_owned(), message));
            }
        }
        Ok(Body::from(Bytes::from_owner(Leased { bytes: response, _lease: lease })))
    }

    async fn lease(&self, bytes: usize) -> Option<Lease> {
        Arc::clone(&self.0).acquire_many_owned(units(bytes) as u32).await.ok().map(|permit| Lease { permit })
    }
}

fn units(bytes: usize) -> usize {
    bytes.clamp(LEAST_BYTES, HELD_BYTES_MAX).div_ceil(UNIT)
}

/// The bytes of a response, which keep its lease until they are written or dropped.
struct Leased {
    bytes: Vec<u8>,
    _lease: Lease,
}

impl AsRef<[u8]> for Leased {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}
