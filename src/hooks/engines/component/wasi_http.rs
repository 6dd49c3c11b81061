//! `wasi:http/outgoing-handler` for post hooks: the HTTP libraries of many languages use it. The rules of the
//! capability `http` apply: every request goes to the session, like those of `snaphook:hook/http`.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime::component::Linker;
use wasmtime_wasi_http::p2::add_only_http_to_linker_async;
use wasmtime_wasi_http::{
    Error, RequestOptions, Result, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView,
};

use crate::hooks::access::{AccessCode, AccessError};
use crate::hooks::capabilities::http::{BODY_BYTES_MAX, Connection, HEADERS_BYTES_MAX, Pace};
use crate::hooks::engines::clock::Clock;
use crate::hooks::engines::limits::Broken;
use crate::hooks::engines::wasm::SandboxState;
use crate::hooks::session::{HostError, HttpRequest, HttpResponse, Redirect, Session};

/// How many requests of one call may be in progress or have a response body that is not yet read or dropped; the host
/// keeps these in memory. Further requests wait, for no longer than the guest's time limit.
const REQUESTS_MAX: usize = 8;

/// The timeout for each part of a request for which the guest sets none.
const TIMEOUT: Duration = Duration::from_secs(600);

/// Largest chunk of a body that a guest can write at once. The host buffers two of them.
const CHUNK_BYTES: usize = 64 << 10;

/// Additional state of a component's sandbox.
pub(super) struct Extra {
    context: WasiHttpCtx,
    sender: Sender,
    /// For a server module.
    module: ForModule,
}

/// The data that a server module can request, and the state that it leaves for the next hook of the request.
#[derive(Default)]
pub(super) struct ForModule {
    pub(super) settings: Arc<str>,
    pub(super) note: Vec<u8>,
}

impl Default for Extra {
    fn default() -> Self {
        let sender = Sender { call: None, requests: Arc::new(Semaphore::new(REQUESTS_MAX)) };
        let mut context = WasiHttpCtx::new();
        // A guest can keep as many heads in the host's memory as it has handles.
        context.set_field_size_limit(HEADERS_BYTES_MAX);
        Extra { context, sender, module: ForModule::default() }
    }
}

impl Extra {
    pub(super) fn of_module(module: ForModule) -> Extra {
        Extra { module, ..Extra::default() }
    }

    pub(super) fn for_module(&mut self) -> &mut ForModule {
        &mut self.module
    }

    /// Ends the call; returns whether nothing of it is still running.
    pub(super) fn end(&mut self) -> bool {
        self.sender.call = None;
        // Every request in progress and every buffered body holds a reference.
        Arc::strong_count(&self.sender.requests) == 1
    }
}

pub(super) fn link(linker: &mut Linker<SandboxState<Extra>>) -> wasmtime::Result<()> {
    add_only_http_to_linker_async(linker)
}

impl WasiHttpView for SandboxState<Extra> {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        self.extra.sender.call = self.session_if_any().zip(self.clock());
        let (Extra { context, sender, module: _ }, table) = self.extra_and_table();
        WasiHttpCtxView { ctx: context, table, hooks: sender }
    }
}

struct Sender {
    call: Option<(Arc<Session>, Arc<Clock>)>,
    requests: Arc<Semaphore>,
}

/// The work that remains after a response's head is returned: none, because the response is already complete.
type Rest = Box<dyn Future<Output = Result<()>> + Send>;

type SendResult = Result<(hyper::Response<WasiBody>, Rest)>;

impl WasiHttpHooks for Sender {
    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK_BYTES
    }

    fn send_request(
        &mut self,
        request: hyper::Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Rest,
    ) -> Box<dyn Future<Output = SendResult> + Send> {
        let Some((session, clock)) = &self.call else {
            return Box::new(std::future::ready(Err(Error::HttpRequestDenied)));
        };
        let (background, clock, requests) = (session.background(), Arc::clone(clock), Arc::clone(&self.requests));
        Box::new(async move {
            // The semaphore is never closed.
            let Ok(permit) = requests.acquire_owned().await else { return Err(Error::ConnectionTerminated) };
            let response = send(background.session(), &clock, request, options.unwrap_or_default(), permit).await?;
            Ok((response, Box::new(std::future::ready(Ok(()))) as Rest))
        })
    }
}

/// An exceeded limit stops the guest; an error of this function can be handled by the guest.
async fn send(
    session: &Session,
    clock: &Clock,
    request: hyper::Request<WasiBody>,
    options: RequestOptions,
    permit: OwnedSemaphorePermit,
) -> Result<hyper::Response<WasiBody>> {
    let (head, body) = request.into_parts();
    let collected = match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(body) => body,
        Err(error) if error.is::<LengthLimitError>() => return Err(Error::HttpRequestBodySize(None)),
        Err(error) => return Err(Error::InternalError(Some(format!("the body cannot be sent: {error}")))),
    };
    if collected.trailers().is_some_and(|trailers| !trailers.is_empty()) {
        let message = "this server sends no trailers with a request; send them as headers";
        return Err(Error::InternalError(Some(message.to_owned())));
    }
    let body = collected.to_bytes().to_vec();
    let header_bytes = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum::<usize>();
    if header_bytes > HEADERS_BYTES_MAX {
        return Err(Error::HttpRequestHeaderSectionSize(u32::try_from(header_bytes).ok()));
    }
    let headers = head.headers.iter().filter(|(name, _)| *name != hyper::header::HOST);
    let headers =
        headers.map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
    let request = HttpRequest {
        method: head.method.to_string(),
        url: head.uri.to_string(),
        headers: headers.collect(),
        body,
        // The maximum for any request; the guest's own timeouts are set below.
        timeout: Some(Duration::MAX),
        // Users of wasi:http follow redirects themselves.
        redirect: Redirect::Manual,
    };
    let connection = Arc::new(Connection::within(options.connect_timeout.unwrap_or(TIMEOUT)));
    let pace = Pace {
        excerpt: None,
        connection: Arc::clone(&connection),
        first_byte: Some(options.first_byte_timeout.unwrap_or(TIMEOUT)),
        between_bytes: Some(options.between_bytes_timeout.unwrap_or(TIMEOUT)),
        hides_path: false,
    };
    match session.http_send_paced(request, pace).await {
        Ok(response) => answer(response, permit),
        Err(HostError::Access(error)) => Err(error_for(error, &connection)),
        Err(error) => {
            clock.break_off(Broken::from(error));
            std::future::pending().await
        }
    }
}

fn answer(response: HttpResponse, permit: OwnedSemaphorePermit) -> Result<hyper::Response<WasiBody>> {
    let mut builder = hyper::Response::builder().status(response.status);
    for (name, value) in &response.headers {
        builder = builder.header(name, value);
    }
    let body = CountedBody { body: Full::new(response.body.into()), _permit: permit };
    let response = builder.body(body.boxed_unsync());
    response.map_err(|error| Error::InternalError(Some(format!("the response cannot be read: {error}"))))
}

/// A body in the host's memory; it counts until it is dropped.
struct CountedBody {
    body: Full<Bytes>,
    _permit: OwnedSemaphorePermit,
}

impl Body for CountedBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        frame.map_err(|never| match never {})
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn error_for(error: AccessError, connection: &Connection) -> Error {
    match error.code {
        // The message with the missing grant is in the hook's log.
        AccessCode::Denied => Error::HttpRequestDenied,
        AccessCode::Timeout if connection.timed_out() => Error::ConnectionTimeout,
        AccessCode::Timeout => Error::ConnectionReadTimeout,
        AccessCode::TooLarge => Error::HttpResponseBodySize(None),
        _ => Error::InternalError(Some(error.message)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use wasmtime_wasi::runtime::AbortOnDropJoinHandle;

    use super::*;
    use crate::config::Phase;
    use crate::hooks::testing::Bench;

    /// A server that answers each request with this, or never if it is empty.
    async fn server(answer: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut request = [0; 4096];
                    let _ = stream.read(&mut request).await;
                    let _ = stream.write_all(answer.as_bytes()).await;
                    if answer.is_empty() {
                        std::future::pending::<()>().await;
                    }
                });
            }
        });
        format!("http://{address}")
    }

    type Sent = AbortOnDropJoinHandle<Result<hyper::Response<WasiBody>>>;

    fn extra(phase: Phase, grants: &str) -> (Extra, Arc<Session>) {
        let session = Bench::new().session("item", phase, "test", grants);
        let mut extra = Extra::default();
        let clock = Arc::new(Clock::start(Duration::from_secs(60), Some(Arc::clone(&session))));
        extra.sender.call = Some((Arc::clone(&session), clock));
        (extra, session)
    }

    impl Extra {
        fn start(&mut self, url: &str) -> Sent {
            self.send(hyper::Request::get(url).body(empty()).unwrap(), [Duration::from_secs(5); 3])
        }

        /// `times`: for the connection, for the first byte, between bytes. Goes on beside the test, as it does beside a guest.
        fn send(&mut self, request: hyper::Request<WasiBody>, times: [Duration; 3]) -> Sent {
            let [connect_timeout, first_byte_timeout, between_bytes_timeout] = times.map(Some);
            let options = RequestOptions { connect_timeout, first_byte_timeout, between_bytes_timeout };
            let sent = self.sender.send_request(request, Some(options), Box::new(std::future::ready(Ok(()))));
            wasmtime_wasi::runtime::spawn(async move { Ok(Pin::from(sent).await?.0) })
        }

        async fn fetch(&mut self, url: &str) -> Result<hyper::Response<WasiBody>> {
            answered(self.start(url)).await
        }
    }

    async fn answered(sent: Sent) -> Result<hyper::Response<WasiBody>> {
        tokio::time::timeout(Duration::from_secs(20), sent).await.unwrap()
    }

    fn empty() -> WasiBody {
        body_of(0)
    }

    fn body_of(bytes: usize) -> WasiBody {
        Full::new(vec![0; bytes].into()).map_err(|never| match never {}).boxed_unsync()
    }

    const HELLO: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";

    #[tokio::test]
    async fn only_what_the_grants_open() {
        let url = server(HELLO).await;
        let (mut extra, _) = extra(Phase::PostCreate, &format!("http = ['{url}/*']"));
        let response = extra.fetch(&format!("{url}/a")).await.unwrap();
        assert_eq!(response.status(), 200);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(&body[..], b"hello");

        for (phase, grants) in [
            (Phase::PostCreate, String::new()),
            // An address that is not public, through a wildcard.
            (Phase::PostCreate, "http = ['http://*:*/*']".to_owned()),
            (Phase::PreCreate, format!("http = ['{url}/*']")),
        ] {
            let (mut extra, session) = self::extra(phase, &grants);
            let error = extra.fetch(&url).await.err();
            assert!(matches!(error, Some(Error::HttpRequestDenied)), "{phase} {grants}: {error:?}");
            let (log, asked) = session.finish();
            assert!(log[0].message.contains("asked for http"), "{log:?}");
            assert!(!asked[0].granted);
        }
    }

    #[tokio::test]
    async fn what_cannot_be_sent_has_the_requests_own_code() {
        let url = server(HELLO).await;
        let (mut extra, _) = extra(Phase::PostCreate, &format!("http = ['{url}/*']"));
        let long = Duration::from_secs(20);
        let large = hyper::Request::post(&url).body(body_of(BODY_BYTES_MAX + 1)).unwrap();
        let error = answered(extra.send(large, [long; 3])).await.err();
        assert!(matches!(error, Some(Error::HttpRequestBodySize(_))), "{error:?}");
        let header = hyper::Request::post(&url).header("x", "x".repeat(HEADERS_BYTES_MAX)).body(empty()).unwrap();
        let error = answered(extra.send(header, [long; 3])).await.err();
        assert!(matches!(error, Some(Error::HttpRequestHeaderSectionSize(Some(_)))), "{error:?}");
        let mut trailers = hyper::HeaderMap::new();
        trailers.insert("x", hyper::header::HeaderValue::from_static("y"));
        let trailing = body_of(5).with_trailers(std::future::ready(Some(Ok(trailers)))).boxed_unsync();
        let error = answered(extra.send(hyper::Request::post(&url).body(trailing).unwrap(), [long; 3])).await.err();
        assert!(
            matches!(&error, Some(Error::InternalError(Some(message))) if message.contains("trailers")),
            "{error:?}"
        );
    }

    /// A port where a connection is never made: the queue of those that wait to be accepted is full.
    async fn full() -> (String, Vec<tokio::net::TcpStream>, TcpListener) {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut waiting = Vec::new();
        while let Ok(stream) =
            tokio::time::timeout(Duration::from_millis(500), tokio::net::TcpStream::connect(address)).await
        {
            waiting.push(stream.unwrap());
        }
        (format!("http://{address}"), waiting, listener)
    }

    #[tokio::test]
    async fn each_timeout_bounds_its_own_part() {
        let silent = server("").await;
        let (full, _waiting, _listener) = full().await;
        // It takes the connection and says nothing, so TLS does not begin.
        let mute = silent.replace("http:", "https:");
        let slow = {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            tokio::spawn(async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    tokio::spawn(async move {
                        let _ = stream.read(&mut [0; 4096]).await;
                        tokio::time::sleep(Duration::from_millis(1_500)).await;
                        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n").await;
                        for byte in b"hello" {
                            tokio::time::sleep(Duration::from_millis(300)).await;
                            let _ = stream.write_all(&[*byte]).await;
                        }
                    });
                }
            });
            format!("http://{address}")
        };
        let grants = format!("http = ['{silent}/*', '{slow}/*', '{full}/*', '{mute}/*']");
        let (mut extra, _) = extra(Phase::PostCreate, &grants);
        let (short, long) = (Duration::from_millis(50), Duration::from_secs(60));
        let get = |url: &str| hyper::Request::get(url).body(empty()).unwrap();
        for url in [&full, &mute] {
            let error = answered(extra.send(get(url), [short, long, long])).await.err();
            assert!(matches!(error, Some(Error::ConnectionTimeout)), "{url} {error:?}");
        }
        for (url, first_byte, between) in [(&silent, short, long), (&slow, long, short)] {
            let error = answered(extra.send(get(url), [long, first_byte, between])).await.err();
            assert!(matches!(error, Some(Error::ConnectionReadTimeout)), "{url} {error:?}");
        }
        // The first byte may take longer than the connection, and all of it longer than what bounds each part.
        let second = Duration::from_secs(1);
        assert!(answered(extra.send(get(&slow), [second, second * 3 / 2 + second, second])).await.is_ok());
        // To make a connection takes nothing from the time for the first byte.
        let error = answered(extra.send(get(&full), [second, short, long])).await.err();
        assert!(matches!(error, Some(Error::ConnectionTimeout)), "{error:?}");
    }

    #[tokio::test]
    async fn a_post_without_a_body_says_so() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (mut extra, _) = extra(Phase::PostCreate, &format!("http = ['POST {url}/*']"));
        let long = Duration::from_secs(20);
        let _request = extra.send(hyper::Request::post(&url).body(empty()).unwrap(), [long; 3]);
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        assert!(head.contains("content-length: 0\r\n"), "{head}");
    }

    #[tokio::test]
    async fn a_redirect_is_the_guests_to_follow() {
        let url = server("HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n").await;
        let (mut extra, _) = extra(Phase::PostCreate, &format!("http = ['{url}/*']"));
        assert_eq!(extra.fetch(&url).await.unwrap().status(), 302);
        let error = extra.fetch("http://127.0.0.1:1/").await.err();
        assert!(matches!(error, Some(Error::HttpRequestDenied)), "{error:?}");
    }

    #[tokio::test]
    async fn bodies_that_are_kept_count() {
        let url = server(HELLO).await;
        let (mut extra, _) = extra(Phase::PostCreate, &format!("http = ['{url}/*']"));
        let mut kept = Vec::new();
        for _ in 0..REQUESTS_MAX {
            kept.push(extra.fetch(&url).await.unwrap());
        }
        let next = extra.start(&url);
        assert_eq!(extra.sender.requests.available_permits(), 0, "a ninth body may be in the host's memory");
        assert!(!extra.end(), "a sandbox with bodies must not serve another call");
        kept.pop();
        let next = answered(next).await;
        drop((kept, next));
        assert!(extra.end());
    }

    #[tokio::test]
    async fn a_broken_limit_ends_the_guest_while_it_waits() {
        let url = server(HELLO).await;
        let (mut extra, session) = extra(Phase::PostCreate, &format!("http = ['{url}/*']"));
        while session.count_call().is_ok() {}
        let (_, clock) = extra.sender.call.clone().unwrap();
        let _request = extra.start(&url);
        let waiting = crate::hooks::engines::clock::bounded(clock, std::future::pending::<()>());
        let Broken(failure) = tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap().unwrap_err();
        assert_eq!(failure.cause, crate::hooks::context::FailureCause::HostCalls, "{failure:?}");
    }

    #[tokio::test]
    async fn a_guest_that_goes_on_beside_its_request_uses_its_own_time() {
        let url = server("").await;
        let (mut extra, session) = extra(Phase::PostCreate, &format!("http = ['{url}/*']"));
        let request = extra.start(&url);
        let deadline = Instant::now() + Duration::from_secs(20);
        while session.host_time().is_zero() {
            assert!(Instant::now() < deadline, "the request does not start");
            tokio::task::yield_now().await;
        }
        let (start, before) = (Instant::now(), session.host_time());
        while session.host_time() < before + Duration::from_millis(50) {
            tokio::task::yield_now().await;
        }
        session.guest_ran(start.elapsed());
        let host = session.host_time().saturating_sub(before);
        assert!(host < Duration::from_millis(25), "the guest ran, but {host:?} count as time in the host");
        drop(request);
    }
}
