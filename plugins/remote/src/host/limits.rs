//! How much of requests and responses a host holds at once.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use http_body_util::Full;
use hyper::body::{Frame, SizeHint};
use snaphook_driver::{DriverError, ErrorKind};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::transport::BODY_BYTES_MAX;

/// Bytes of all bodies that are under way together.
const HELD_BYTES_MAX: usize = 4 * BODY_BYTES_MAX;

/// Requests at once, also those that wait for events.
const REQUESTS_MAX: usize = 256;

/// A request counts as so many bytes at least.
const LEAST_BYTES: usize = HELD_BYTES_MAX / REQUESTS_MAX;

const UNIT: usize = 1024;

/// How many connections a host has, and how long it waits for the other side of each.
#[derive(Clone, Copy, Debug)]
pub struct HostLimits {
    /// Connections at once; further ones wait in the system's queue.
    pub connections: usize,
    /// A TLS handshake that takes longer is given up.
    pub handshake_time: Duration,
    /// From the first byte of a request's head to its last; also how long a connection may be idle.
    pub head_time: Duration,
    /// A body that has not come whole after this long is given up.
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

/// A part of it, free again when this is dropped.
pub(super) struct Lease {
    _permit: OwnedSemaphorePermit,
}

impl Default for BodyBudget {
    fn default() -> Self {
        BodyBudget(Arc::new(Semaphore::new(HELD_BYTES_MAX / UNIT)))
    }
}

impl BodyBudget {
    /// The body of a request, and its lease. Waits until there is room.
    pub(super) async fn read(
        &self,
        operation: &str,
        body: Body,
        time: Duration,
    ) -> Result<(Lease, Vec<u8>), DriverError> {
        let fault = |kind, message: String| DriverError::new(kind, operation.to_owned(), message);
        // Known where the head says it, and where there is no body.
        let length = body.size_hint().exact().and_then(|length| usize::try_from(length).ok());
        let length = length.ok_or_else(|| {
            fault(ErrorKind::Invalid, "the request has no `Content-Length`, which is required".into())
        })?;
        if length > BODY_BYTES_MAX {
            let message = format!("the request has {length} bytes, at most {BODY_BYTES_MAX} are allowed");
            return Err(fault(ErrorKind::Invalid, message));
        }
        let lease = self.lease(length).await;
        let lease = lease.ok_or_else(|| fault(ErrorKind::Unavailable, "the host is closing".into()))?;
        let bytes = tokio::time::timeout(time, axum::body::to_bytes(body, BODY_BYTES_MAX)).await;
        let late = |_| fault(ErrorKind::Invalid, format!("the request did not come within {time:?}"));
        let broken = |error| fault(ErrorKind::Invalid, format!("the request broke off: {error}"));
        Ok((lease, bytes.map_err(late)?.map_err(broken)?.into()))
    }

    /// A response as a body that holds its lease until it is written or dropped. The request's is given back first: two
    /// that wait for each other's would wait for ever.
    pub(super) async fn respond(&self, request: Lease, response: Vec<u8>) -> Body {
        drop(request);
        let lease = self.lease(response.len()).await;
        Body::new(LeasedBody { body: Full::new(response.into()), _lease: lease })
    }

    async fn lease(&self, bytes: usize) -> Option<Lease> {
        let units = bytes.clamp(LEAST_BYTES, HELD_BYTES_MAX).div_ceil(UNIT) as u32;
        Arc::clone(&self.0).acquire_many_owned(units).await.ok().map(|permit| Lease { _permit: permit })
    }
}

struct LeasedBody {
    body: Full<Bytes>,
    _lease: Option<Lease>,
}

impl HttpBody for LeasedBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
