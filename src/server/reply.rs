//! Responses: a whole or streamed body whose memory counts until it is sent, and a builder for common headers.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::Stream;
use hyper::StatusCode;
use hyper::body::{Frame, SizeHint};
use hyper::header::{CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, LOCATION, X_CONTENT_TYPE_OPTIONS};
use serde::Serialize;

use super::etag::EntityTag;
use super::peer::{RequestMemory, Ticket};
use super::problem::{Problem, ProblemType, Result};

pub(super) type Response = hyper::Response<ReplyBody>;

/// A large body is sent in pieces of this size.
const PIECE_BYTES: usize = 64 * 1024;

/// Memory for sending a file: a piece being read, one being written, and the compressor. The output of a component
/// takes less.
const FRAMES_BYTES: usize = 512 * 1024;

/// On a connection with one response at a time, smaller ones are not counted, because a socket's buffers take as much
/// anyway.
const UNCOUNTED_BYTES: usize = 4 * 1024;

/// The body of a response.
pub(super) enum ReplyBody {
    /// A whole body; empty once it was sent.
    Whole(Vec<u8>),
    Stream(Pin<Box<dyn Stream<Item = Bytes> + Send>>),
    /// A whole body shared with others: its creator counts its memory.
    Shared(Bytes),
    /// The content of a file or a component. A failure aborts the response, so that nobody mistakes it for complete.
    Frames(FramesBody),
    /// A whole body whose memory counts until its last byte is dropped. `sent`: the bytes sent in pieces so far.
    Sending {
        rest: Bytes,
        sent: Option<Arc<Sent>>,
    },
    /// The same, and its peer must keep reading.
    SendingFrames {
        body: FramesBody,
        ticket: Ticket,
        _memory: RequestMemory,
    },
    /// A shared body whose peer must keep reading.
    SendingShared {
        rest: Bytes,
        ticket: Ticket,
        _memory: RequestMemory,
    },
    /// A stream whose peer must keep reading.
    Streaming {
        stream: Pin<Box<dyn Stream<Item = Bytes> + Send>>,
        ticket: Ticket,
        _memory: RequestMemory,
    },
}

/// Streamed content.
pub(super) type FramesBody = Pin<Box<dyn hyper::body::Body<Data = Bytes, Error = io::Error> + Send>>;

/// The bytes of a response and their memory.
pub(super) struct Sent {
    bytes: Vec<u8>,
    ticket: Ticket,
    _memory: RequestMemory,
}

impl AsRef<[u8]> for Sent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Owns the bytes on behalf of pieces of them.
struct Owner(Arc<Sent>);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.0.bytes
    }
}

impl Default for ReplyBody {
    fn default() -> Self {
        ReplyBody::Whole(Vec::new())
    }
}

impl ReplyBody {
    /// Bytes currently in memory.
    fn size(&self) -> usize {
        match self {
            ReplyBody::Whole(bytes) => bytes.capacity(),
            ReplyBody::Frames(_) => FRAMES_BYTES,
            _ => 0,
        }
    }
}

/// Transfers the memory of the request to the response, resized to its need. `may_fail`: nothing was changed, so an
/// error would be correct. `alone`: its connection has no other response at the same time.
pub(super) fn hand_over(
    mut response: Response,
    mut memory: RequestMemory,
    may_fail: bool,
    alone: bool,
) -> Result<Response> {
    let bytes = response.body().size();
    if alone && bytes <= UNCOUNTED_BYTES && matches!(response.body(), ReplyBody::Whole(_)) {
        return Ok(response);
    }
    if may_fail {
        memory.resize(bytes)?;
    } else {
        memory.resize_anyway(bytes);
    }
    let body = response.body_mut();
    *body = match std::mem::take(body) {
        ReplyBody::Whole(bytes) if bytes.is_empty() => ReplyBody::Whole(bytes),
        ReplyBody::Whole(bytes) => {
            let sent = Sent { bytes, ticket: Ticket::new(memory.share()), _memory: memory };
            if sent.bytes.len() <= PIECE_BYTES {
                ReplyBody::Sending { rest: Bytes::from_owner(sent), sent: None }
            } else {
                let sent = Arc::new(sent);
                ReplyBody::Sending { rest: Bytes::from_owner(Owner(Arc::clone(&sent))), sent: Some(sent) }
            }
        }
        ReplyBody::Stream(stream) => {
            ReplyBody::Streaming { stream, ticket: Ticket::new(memory.share()), _memory: memory }
        }
        ReplyBody::Shared(rest) => {
            ReplyBody::SendingShared { rest, ticket: Ticket::new(memory.share()), _memory: memory }
        }
        ReplyBody::Frames(body) => {
            ReplyBody::SendingFrames { body, ticket: Ticket::new(memory.share()), _memory: memory }
        }
        body => body,
    };
    Ok(response)
}

impl hyper::body::Body for ReplyBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut *self {
            ReplyBody::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            ReplyBody::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes).into())))),
            ReplyBody::Sending { rest, .. } if rest.is_empty() => Poll::Ready(None),
            ReplyBody::Sending { rest, sent } => {
                if let Some(sent) = sent {
                    sent.ticket.renew();
                }
                Poll::Ready(Some(Ok(Frame::data(rest.split_to(rest.len().min(PIECE_BYTES))))))
            }
            ReplyBody::Shared(rest) | ReplyBody::SendingShared { rest, .. } if rest.is_empty() => Poll::Ready(None),
            ReplyBody::Shared(rest) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(rest))))),
            ReplyBody::SendingShared { rest, ticket, .. } => {
                ticket.renew();
                Poll::Ready(Some(Ok(Frame::data(rest.split_to(rest.len().min(PIECE_BYTES))))))
            }
            ReplyBody::Stream(stream) => {
                stream.as_mut().poll_next(cx).map(|next| next.map(|bytes| Ok(Frame::data(bytes))))
            }
            ReplyBody::Frames(body) => body.as_mut().poll_frame(cx),
            ReplyBody::SendingFrames { body, ticket, .. } => {
                let next = body.as_mut().poll_frame(cx);
                if next.is_ready() {
                    ticket.renew();
                }
                next
            }
            ReplyBody::Streaming { stream, ticket, .. } => {
                let next = stream.as_mut().poll_next(cx);
                if next.is_ready() {
                    ticket.renew();
                }
                next.map(|next| next.map(|bytes| Ok(Frame::data(bytes))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            ReplyBody::Whole(bytes) => bytes.is_empty(),
            ReplyBody::Sending { rest, .. } | ReplyBody::Shared(rest) | ReplyBody::SendingShared { rest, .. } => {
                rest.is_empty()
            }
            _ => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ReplyBody::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            ReplyBody::Sending { rest, .. } | ReplyBody::Shared(rest) | ReplyBody::SendingShared { rest, .. } => {
                SizeHint::with_exact(rest.len() as u64)
            }
            // The headers have a file's size: for HEAD its body is empty.
            ReplyBody::Frames(_) | ReplyBody::SendingFrames { .. } => SizeHint::default(),
            ReplyBody::Stream(_) | ReplyBody::Streaming { .. } => SizeHint::default(),
        }
    }
}

/// Builds a response.
pub(super) struct Reply {
    status: StatusCode,
    headers: HeaderMap,
}

impl Reply {
    pub(super) fn new(status: StatusCode) -> Self {
        let mut headers = HeaderMap::with_capacity(6);
        // A browser that guesses another type from the content could execute data as a page.
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        Reply { status, headers }
    }

    pub(super) fn ok() -> Self {
        Reply::new(StatusCode::OK)
    }

    /// Invalid header values are omitted; all values built here are ids, numbers and constants.
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

    /// A response with JSON text.
    pub(super) fn json(self, text: Vec<u8>) -> Response {
        self.fixed(CONTENT_TYPE, "application/json").bytes(text)
    }

    /// A response with a value as JSON.
    pub(super) fn serialize(self, value: &impl Serialize) -> Result<Response> {
        let text = serde_json::to_vec(value)
            .map_err(|error| Problem::new(ProblemType::Internal, format!("the response cannot be written: {error}")))?;
        Ok(self.json(text))
    }

    pub(super) fn bytes(self, bytes: impl Into<Vec<u8>>) -> Response {
        self.body(ReplyBody::Whole(bytes.into()))
    }

    pub(super) fn empty(self) -> Response {
        self.body(ReplyBody::default())
    }

    pub(super) fn body(self, body: ReplyBody) -> Response {
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}
