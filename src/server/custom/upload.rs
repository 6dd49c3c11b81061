//! The body of a request for a component, with the limits of size and time of all bodies.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;

use crate::hooks::host::UploadError;
use crate::server::body::{self, Pace, RequestBody};
use crate::server::problem::{Problem, ProblemType};

/// The problem with the body, regardless of the component's response.
#[derive(Clone, Default)]
pub(super) struct Fault(Arc<Mutex<Option<Problem>>>);

impl Fault {
    pub(super) fn take(&self) -> Option<Problem> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn set(&self, problem: Problem) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(problem);
    }
}

/// The pieces of a body of at most `max` bytes. Trailers end it and are dropped.
pub(super) fn content(body: RequestBody, max: usize, fault: Fault) -> UnsyncBoxBody<Bytes, UploadError> {
    let state = Some((body, Pace::default(), max));
    let frames = stream::unfold(state, move |state| {
        let fault = fault.clone();
        async move {
            let (mut body, mut pace, left) = state?;
            match pace.next(&mut body).await {
                Ok(None) => None,
                Ok(Some(piece)) if piece.len() > left => {
                    fault.set(body::too_large(max));
                    // So that a client that keeps sending gets the response.
                    tokio::spawn(body::drain(body));
                    Some((Err(UploadError::TooLarge), None))
                }
                Ok(Some(piece)) => {
                    let left = left - piece.len();
                    Some((Ok(Frame::data(piece)), Some((body, pace, left))))
                }
                Err(problem) => {
                    let error = match problem.kind {
                        ProblemType::BadRequest if pace.is_late() => UploadError::TooSlow,
                        _ => UploadError::Broken,
                    };
                    fault.set(problem);
                    Some((Err(error), None))
                }
            }
        }
    });
    StreamBody::new(frames).boxed_unsync()
}
