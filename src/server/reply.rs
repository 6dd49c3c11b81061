//! Answers: a body that is either whole or a stream, and a builder for the headers that they share.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::Stream;
use hyper::StatusCode;
use hyper::body::{Frame, SizeHint};
use hyper::header::{CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, LOCATION};
use serde::Serialize;

use super::etag::EntityTag;
use super::problem::{Problem, ProblemType, Result};

pub(super) type Response = hyper::Response<Body>;

/// What goes over the wire after the head.
pub(super) enum Body {
    /// Empty once it was sent.
    Whole(Bytes),
    Stream(Pin<Box<dyn Stream<Item = Bytes> + Send>>),
}

impl Default for Body {
    fn default() -> Self {
        Body::Whole(Bytes::new())
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Body::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Body::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Body::Stream(stream) => stream.as_mut().poll_next(cx).map(|next| next.map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Body::Whole(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Body::Stream(_) => SizeHint::default(),
        }
    }
}

/// Builds an answer.
pub(super) struct Reply {
    status: StatusCode,
    headers: HeaderMap,
}

impl Reply {
    pub(super) fn new(status: StatusCode) -> Self {
        Reply { status, headers: HeaderMap::with_capacity(6) }
    }

    pub(super) fn ok() -> Self {
        Reply::new(StatusCode::OK)
    }

    /// A value that cannot stand in a header is left out: all that are built here are ids, numbers and constants.
    pub(super) fn header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }

    pub(super) fn fixed(mut self, name: HeaderName, value: &'static str) -> Self {
        self.headers.insert(name, HeaderValue::from_static(value));
        self
    }

    pub(super) fn etag(mut self, entity: EntityTag) -> Self {
        let mut tag = Vec::with_capacity(32);
        entity.write(&mut tag);
        if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(tag)) {
            self.headers.insert(ETAG, value);
        }
        self
    }

    pub(super) fn location(self, location: &str) -> Self {
        self.header(LOCATION, location)
    }

    /// JSON text that is written already.
    pub(super) fn json(self, text: Vec<u8>) -> Response {
        self.fixed(CONTENT_TYPE, "application/json").bytes(text)
    }

    /// Writes a value as JSON.
    pub(super) fn serialize(self, value: &impl Serialize) -> Result<Response> {
        let text = serde_json::to_vec(value)
            .map_err(|error| Problem::new(ProblemType::Internal, format!("the answer cannot be written: {error}")))?;
        Ok(self.json(text))
    }

    pub(super) fn bytes(self, bytes: impl Into<Bytes>) -> Response {
        self.body(Body::Whole(bytes.into()))
    }

    pub(super) fn empty(self) -> Response {
        self.body(Body::default())
    }

    pub(super) fn body(self, body: Body) -> Response {
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}
