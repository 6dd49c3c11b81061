//! One request to a component: the run, its response, and the outcome.
//!
//! Most runs end quickly, and their response is complete at once. Otherwise the guest continues while its body is read:
//! it runs when the body is polled, so if the client disconnects, the sandbox is dropped. While the guest waits for the
//! client to send or receive, its time does not count.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::CONTENT_LENGTH;
use hyper::{HeaderMap, Method};
use tokio::time::{Instant, timeout_at};
use wasmtime_wasi_http::{Error, WasiBody};

use super::record::Record;
use super::said::{self, shown};
use crate::config::format_duration;
use crate::hooks::context::{Failure, FailureCause};
use crate::hooks::engines::{Proxy, ProxyEnd, ProxyRun};
use crate::hooks::grants::Granted;
use crate::hooks::places::OwnedPlace;
use crate::hooks::session::{ClientWait, HOST_TIME_POST_MAX, Services, Session};
use crate::telemetry::trace::{Span, SpanKind, scope};

/// The request of one run.
pub struct Exchange {
    pub request: hyper::Request<UnsyncBoxBody<Bytes, UploadError>>,
    pub is_secure: bool,
    pub request_id: Option<String>,
}

/// Why a request's body ends early, as reported to the component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UploadError {
    TooLarge,
    TooSlow,
    Broken,
}

impl From<UploadError> for Error {
    fn from(error: UploadError) -> Error {
        match error {
            UploadError::TooLarge => Error::HttpRequestBodySize(None),
            UploadError::TooSlow => Error::ConnectionReadTimeout,
            UploadError::Broken => Error::ConnectionTerminated,
        }
    }
}

/// A component's response.
pub(super) type EndpointResponse = hyper::Response<ResponseBody>;

/// The body of a response.
pub enum ResponseBody {
    /// The complete body with its trailers.
    Whole(Bytes, Option<HeaderMap>),
    /// The guest is writing the body.
    Running(Box<Running>),
}

/// A guest that writes a response.
pub struct Running {
    guest: Guest,
    body: WasiBody,
    /// Whether the body's last frame was read.
    is_over: bool,
    /// How many of the bytes announced in the head are left.
    left: Option<u64>,
    /// Waits for the client since the last frame was read.
    waits: Option<ClientWait>,
    session: Arc<Session>,
    ledger: Option<Ledger>,
}

enum Guest {
    Runs(Pin<Box<dyn Future<Output = ProxyEnd> + Send>>),
    /// Kept because its output may not have been read yet.
    Ended(ProxyEnd),
    /// Failed, and the failure was reported.
    Over,
}

impl Exchange {
    pub(super) async fn run(
        self,
        record: &Arc<Record>,
        proxy: &Arc<Proxy>,
        services: &Arc<Services>,
        granted: Arc<Granted>,
        place: OwnedPlace,
    ) -> Result<hyper::Response<ResponseBody>, Failure> {
        let Exchange { request, is_secure, request_id } = self;
        let limits = granted.limits;
        let mut span = Span::begin("endpoint", SpanKind::Internal);
        span.name(|| format!("endpoint {}", record.name));
        span.note("snaphook.endpoint", || record.name.to_string());
        let begin = || Session::of_request(services, granted, request_id.clone(), HOST_TIME_POST_MAX);
        let session = scope::on_thread(span.scope_or_current(), begin);
        let mut ledger = Ledger::new(record, &session, request_id, span, place);
        let answered = Self::start(request, is_secure, limits, proxy, session, &mut ledger).await;
        match answered {
            Ok(Answered::Whole(response)) => Ok(response),
            Ok(Answered::Running(response)) => Ok(response.map(|mut running| {
                running.ledger = Some(ledger);
                ResponseBody::Running(running)
            })),
            Err(failure) => {
                let failure = ledger.session.masked_failure(failure);
                ledger.failure = Some(failure.clone());
                Err(failure)
            }
        }
    }

    async fn start(
        request: hyper::Request<UnsyncBoxBody<Bytes, UploadError>>,
        is_secure: bool,
        limits: crate::config::Limits,
        proxy: &Arc<Proxy>,
        session: Arc<Session>,
        ledger: &mut Ledger,
    ) -> Result<Answered, Failure> {
        let is_head = request.method() == Method::HEAD;
        let request = request.map(|body| Upload { body, session: Arc::clone(&session), waits: None });
        let ProxyStarted { mut guest, mut head } =
            ProxyStarted::new(proxy.start(request, is_secure, limits, Arc::clone(&session)), limits.timeout);
        let ended = tokio::select! {
            biased;
            end = &mut guest => Some(end),
            answer = &mut head => {
                let (head, body) = answer_of(answer.ok())?.into_parts();
                if is_head {
                    return Ok(Answered::Whole(hyper::Response::from_parts(head, ResponseBody::empty())));
                }
                let left = head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
                let running = Running {
                    guest: Guest::Runs(guest),
                    body,
                    is_over: false,
                    left,
                    waits: None,
                    session,
                    ledger: None,
                };
                return Ok(Answered::Running(hyper::Response::from_parts(head, Box::new(running))));
            }
        };
        let Some(mut end) = ended else { return Err(internal("the guest is gone")) };
        if let Some(failure) = end.failure.take() {
            return Err(failure);
        }
        ledger.note(&end);
        let (head, body) = answer_of(head.try_recv().ok())?.into_parts();
        let body = match whole(body) {
            // Only the length of the body matters.
            Err(_) if is_head => ResponseBody::empty(),
            body => body?,
        };
        end.discard();
        Ok(Answered::Whole(hyper::Response::from_parts(head, body)))
    }
}

enum Answered {
    Whole(hyper::Response<ResponseBody>),
    Running(hyper::Response<Box<Running>>),
}

type Head = tokio::sync::oneshot::Receiver<
    Result<hyper::Response<WasiBody>, wasmtime_wasi_http::p2::bindings::http::types::ErrorCode>,
>;

/// A guest with an upper limit on its total time, including waits.
struct ProxyStarted {
    guest: Pin<Box<dyn Future<Output = ProxyEnd> + Send>>,
    head: Head,
}

impl ProxyStarted {
    fn new(mut run: ProxyRun, timeout: Duration) -> ProxyStarted {
        let (_, nobody) = tokio::sync::oneshot::channel();
        let head = std::mem::replace(&mut run.head, nobody);
        let most = timeout + HOST_TIME_POST_MAX;
        let guest = Box::pin(async move {
            match timeout_at(Instant::now() + most, run).await {
                Ok(end) => end,
                Err(_) => ProxyEnd::failed(
                    Failure {
                        cause: FailureCause::Timeout,
                        message: format!(
                            "the endpoint and its client took longer than {} together",
                            format_duration(most)
                        ),
                        limit: Some(format!("timeout {}", format_duration(most))),
                    },
                    Duration::ZERO,
                ),
            }
        });
        ProxyStarted { guest, head }
    }
}

/// The response that a guest set; `None` if the guest dropped it.
fn answer_of(
    answer: Option<Result<hyper::Response<WasiBody>, wasmtime_wasi_http::p2::bindings::http::types::ErrorCode>>,
) -> Result<hyper::Response<WasiBody>, Failure> {
    match answer {
        Some(Ok(response)) => Ok(response),
        Some(Err(code)) => Err(exception(format!("the endpoint set an error instead of a response: {code:?}"))),
        None => Err(exception("the endpoint ended without setting a response".to_owned())),
    }
}

/// The complete body of a guest that has ended.
fn whole(mut body: WasiBody) -> Result<ResponseBody, Failure> {
    let (mut bytes, mut more) = (Bytes::new(), BytesMut::new());
    loop {
        match body.frame().now_or_never() {
            Some(None) => break,
            Some(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) if bytes.is_empty() => bytes = data,
                Ok(data) => more.extend_from_slice(&data),
                Err(frame) => return Ok(ResponseBody::Whole(joined(bytes, more), frame.into_trailers().ok())),
            },
            Some(Some(Err(error))) => return Err(unfinished(Some(&error))),
            None => return Err(unfinished(None)),
        }
    }
    Ok(ResponseBody::Whole(joined(bytes, more), None))
}

fn joined(first: Bytes, more: BytesMut) -> Bytes {
    if more.is_empty() { first } else { [first, more.freeze()].concat().into() }
}

fn unfinished(error: Option<&Error>) -> Failure {
    exception(match error {
        Some(error) => format!("the endpoint broke off in the middle of its response: {error}"),
        None => "the endpoint ended in the middle of its response".to_owned(),
    })
}

fn exception(message: String) -> Failure {
    Failure { cause: FailureCause::Exception, message, limit: None }
}

fn internal(message: &str) -> Failure {
    Failure { cause: FailureCause::Internal, message: message.to_owned(), limit: None }
}

impl ResponseBody {
    fn empty() -> ResponseBody {
        ResponseBody::Whole(Bytes::new(), None)
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut *self {
            ResponseBody::Whole(bytes, trailers) => Poll::Ready(match bytes.is_empty() {
                false => Some(Ok(Frame::data(std::mem::take(bytes)))),
                true => trailers.take().map(|trailers| Ok(Frame::trailers(trailers))),
            }),
            ResponseBody::Running(running) => running.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            ResponseBody::Whole(bytes, trailers) => bytes.is_empty() && trailers.is_none(),
            ResponseBody::Running(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ResponseBody::Whole(bytes, _) => SizeHint::with_exact(bytes.len() as u64),
            ResponseBody::Running(_) => SizeHint::default(),
        }
    }
}

impl Running {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.waits = None;
        if let Guest::Runs(guest) = &mut self.guest
            && let Poll::Ready(end) = guest.as_mut().poll(cx)
        {
            if let Some(ledger) = &mut self.ledger {
                ledger.note(&end);
            }
            self.guest = Guest::Ended(end);
        }
        match &mut self.guest {
            Guest::Ended(ProxyEnd { failure, .. }) if failure.is_some() => {
                let failure = failure.take();
                return self.break_off(failure);
            }
            Guest::Over => return Poll::Ready(None),
            Guest::Runs(_) | Guest::Ended(_) => {}
        }
        let has_ended = matches!(self.guest, Guest::Ended(_));
        if self.is_over {
            return if has_ended { Poll::Ready(None) } else { Poll::Pending };
        }
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                match frame.data_ref() {
                    Some(data) => self.left = self.left.map(|left| left.saturating_sub(data.len() as u64)),
                    None => self.is_over = true,
                }
                self.waits = Some(self.session.wait_for_client());
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => self.break_off(Some(unfinished(Some(&error)))),
            // A killed guest leaves a body that looks complete, so wait for the guest's end.
            Poll::Ready(None) => {
                self.is_over = true;
                if has_ended { Poll::Ready(None) } else { Poll::Pending }
            }
            Poll::Pending if has_ended => self.break_off(Some(unfinished(None))),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Breaks off, so that the client sees that the body is incomplete.
    fn break_off(&mut self, failure: Option<Failure>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.guest = Guest::Over;
        if let Some(ledger) = &mut self.ledger {
            ledger.failure = failure.map(|failure| self.session.masked_failure(failure));
        }
        self.ledger = None;
        Poll::Ready(Some(Err(io::Error::other("the endpoint failed in the middle of its response"))))
    }
}

/// If the client has received the whole response, the guest may finish; if the client disconnected, the guest is
/// stopped.
impl Drop for Running {
    fn drop(&mut self) {
        let has_all = self.is_over || self.left == Some(0);
        match std::mem::replace(&mut self.guest, Guest::Over) {
            Guest::Runs(guest) if has_all => {
                let ledger = self.ledger.take();
                if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                    runtime.spawn(async move {
                        let mut end = guest.await;
                        if let Some(mut ledger) = ledger {
                            ledger.note(&end);
                            ledger.failure = end.failure.take().map(|failure| ledger.session.masked_failure(failure));
                        }
                    });
                }
            }
            Guest::Ended(mut end) => end.discard(),
            Guest::Runs(_) | Guest::Over => {}
        }
    }
}

/// The body of a request; waiting for it does not count as the guest's time.
struct Upload {
    body: UnsyncBoxBody<Bytes, UploadError>,
    session: Arc<Session>,
    waits: Option<ClientWait>,
}

impl Body for Upload {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        match frame.is_pending() {
            true if self.waits.is_none() => self.waits = Some(self.session.wait_for_client()),
            true => {}
            false => self.waits = None,
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Records the outcome of a run when it is dropped, including runs whose client disconnected.
struct Ledger {
    record: Arc<Record>,
    session: Arc<Session>,
    request_id: Option<String>,
    failure: Option<Failure>,
    cpu: Duration,
    memory_bytes: u64,
    started: Instant,
    span: Span,
    _place: OwnedPlace,
}

impl Ledger {
    fn new(
        record: &Arc<Record>,
        session: &Arc<Session>,
        request_id: Option<String>,
        span: Span,
        place: OwnedPlace,
    ) -> Ledger {
        Ledger {
            record: Arc::clone(record),
            session: Arc::clone(session),
            request_id,
            failure: None,
            cpu: Duration::ZERO,
            memory_bytes: 0,
            started: Instant::now(),
            span,
            _place: place,
        }
    }

    fn note(&mut self, end: &ProxyEnd) {
        self.cpu = end.cpu;
        self.memory_bytes = end.memory_bytes;
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        let Ledger { record, request_id, failure, span, .. } = self;
        let (endpoint, request_id) = (&*record.name, request_id.as_deref().unwrap_or_default());
        record.count(failure.as_ref().map(|failure| failure.cause));
        said::tell(&self.session, request_id);
        match failure {
            Some(failure) => {
                span.fail(|| failure.message.clone());
                // The messages of limits mention hooks; adapt them.
                let message = shown(&failure.message.replace("the hook", "the endpoint"));
                tracing::error!(endpoint, request_id, "failed ({}): {message}", failure.cause.as_str());
            }
            None => tracing::debug!(
                endpoint,
                request_id,
                wall_us = self.started.elapsed().as_micros() as u64,
                cpu_us = self.cpu.as_micros() as u64,
                memory_bytes = self.memory_bytes,
                "endpoint ran"
            ),
        }
    }
}
