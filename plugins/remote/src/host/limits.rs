//! How much of requests a host holds at once.

use std::sync::Arc;

use axum::body::{Body, HttpBody as _};
use snaphook_driver::{DriverError, ErrorKind};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::transport::BODY_BYTES_MAX;

/// Bytes of all requests that are under way together.
const HELD_BYTES_MAX: usize = 4 * BODY_BYTES_MAX;

/// Requests at once, also those that wait for events.
const REQUESTS_MAX: usize = 1024;

/// A request counts as so many bytes at least.
const LEAST_BYTES: usize = HELD_BYTES_MAX / REQUESTS_MAX;

const UNIT: usize = 1024;

/// Memory for the bodies of requests.
pub(super) struct Room(Arc<Semaphore>);

impl Default for Room {
    fn default() -> Self {
        Room(Arc::new(Semaphore::new(HELD_BYTES_MAX / UNIT)))
    }
}

impl Room {
    /// The body of a request, and the room that it takes. Waits until there is room.
    pub(super) async fn read(
        &self,
        operation: &str,
        body: Body,
    ) -> Result<(OwnedSemaphorePermit, Vec<u8>), DriverError> {
        let fault = |kind, message: String| DriverError::new(kind, operation.to_owned(), message);
        // Known where the head says it, and where there is no body.
        let length = body.size_hint().exact().and_then(|length| usize::try_from(length).ok());
        let length =
            length.ok_or_else(|| fault(ErrorKind::Invalid, "the request's length is not known ahead".into()))?;
        if length > BODY_BYTES_MAX {
            let message = format!("the request has {length} bytes, at most {BODY_BYTES_MAX} are allowed");
            return Err(fault(ErrorKind::Invalid, message));
        }
        let units = length.max(LEAST_BYTES).div_ceil(UNIT) as u32;
        let held = Arc::clone(&self.0).acquire_many_owned(units).await;
        let held = held.map_err(|_| fault(ErrorKind::Unavailable, "the host is closing".into()))?;
        let bytes = axum::body::to_bytes(body, BODY_BYTES_MAX).await;
        let bytes = bytes.map_err(|error| fault(ErrorKind::Invalid, format!("the request broke off: {error}")))?;
        Ok((held, bytes.into()))
    }
}
