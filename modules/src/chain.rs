//! The modules of a server in order, and how a request passes through them.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use axum::http::{HeaderMap, Method, Request, Response, StatusCode};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::sync::Mutex;

use crate::connection::Connection;
use crate::exchange::{Content, Exchange, ResponseHead, Side};
use crate::filtered::{SharedHandler, filtered};
use crate::library::RequestHook;
use crate::module::{Called, Module, Verdict};
use crate::task::Guard;

/// The modules of a server, in the order in which they are called.
#[derive(Default)]
pub struct Chain {
    modules: Vec<Arc<Module>>,
}

/// The server's services for modules.
pub trait Server: Send + Sync {
    /// Handles a request to which no module responds.
    fn answer(&self, request: Request<Body>) -> impl Future<Output = Response<Body>> + Send;

    /// An error response, as a problem document.
    fn problem(&self, status: StatusCode, detail: &str) -> Response<Body>;

    /// Reads a complete request body of at most `max-body` bytes into memory that the exchange holds. The error is the
    /// response to send.
    fn read(&self, body: Body, headers: &HeaderMap) -> impl Future<Output = Result<Bytes, Response<Body>>> + Send;

    /// The same for a response body.
    fn collect(&self, body: Body) -> impl Future<Output = Result<Bytes, Response<Body>>> + Send;
}

impl Chain {
    pub fn new(modules: Vec<Arc<Module>>) -> Chain {
        Chain { modules }
    }

    pub fn is_empty(&self) -> bool {
        self.modules.is_empty()
    }

    pub fn modules(&self) -> &[Arc<Module>] {
        &self.modules
    }

    /// A deactivated module that is not optional, so that requests cannot be served.
    pub fn missing(&self) -> Option<&Module> {
        self.modules.iter().find(|module| module.is_missing()).map(|module| &**module)
    }

    /// Whether connections go through filters.
    pub fn has_connections(&self) -> bool {
        self.modules.iter().any(|module| module.wants.connections && !module.is_skipped())
    }

    /// Responds to a request.
    pub async fn serve<S: Server>(
        self: Arc<Self>,
        exchange: Box<Exchange>,
        connection: Arc<Connection>,
        server: S,
        guard: Arc<Guard>,
    ) -> Response<Body> {
        let is_head = exchange.request.method == Method::HEAD;
        let mut way = Way { server, guard, opened: Vec::with_capacity(self.modules.len()), asked_for_error: false };
        let response = match way.opened(&self, exchange, &connection).await {
            Ok(exchange) => way.go(exchange).await,
            Err(response) => response,
        };
        if is_head { without_body(response) } else { response }
    }
}

/// The state of one request.
struct Way<S> {
    server: S,
    guard: Arc<Guard>,
    /// The modules that take part in the request.
    opened: Vec<SharedHandler>,
    asked_for_error: bool,
}

/// The result of calling the modules for a hook.
enum Asked {
    Declined(Box<Exchange>),
    Ok(Box<Exchange>),
    /// An error: the status and the detail of the response.
    Error(Box<Exchange>, StatusCode, String),
    /// A hook did not return and still has the exchange.
    Lost(Response<Body>),
}

impl<S: Server> Way<S> {
    /// Creates the state of the request in each module.
    async fn opened(
        &mut self,
        chain: &Chain,
        mut exchange: Box<Exchange>,
        connection: &Connection,
    ) -> Result<Box<Exchange>, Response<Body>> {
        if let Some(module) = chain.missing() {
            let detail =
                format!("the module `{}` is deactivated after failures; see the server's log", module.standing.name);
            return Err(self.server.problem(StatusCode::SERVICE_UNAVAILABLE, &detail));
        }
        for module in chain.modules.iter().filter(|module| module.wants.requests() && !module.is_skipped()) {
            let opened = module.runner.open(connection.state(module), exchange, &self.guard).await;
            match opened {
                (Some(back), Ok(handler)) => {
                    exchange = back;
                    self.opened.push((Arc::clone(module), Arc::new(Mutex::new(handler))));
                }
                (_, Err(fault)) => {
                    module.standing.strike(&fault);
                    return Err(self.failed(module, fault.status()));
                }
                (None, Ok(_)) => return Err(self.failed(module, 500)),
            }
        }
        Ok(exchange)
    }

    async fn go(&mut self, mut exchange: Box<Exchange>) -> Response<Body> {
        let wants = |want: fn(&Module) -> bool| self.opened.iter().any(|(module, _)| want(module));
        if wants(|module| module.wants.whole_request)
            && let Content::Stream(_) = exchange.request_body
        {
            let body = std::mem::replace(&mut exchange.request_body, Content::Whole(Bytes::new()));
            let Content::Stream(body) = body else { return self.server.problem(StatusCode::INTERNAL_SERVER_ERROR, "") };
            match self.server.read(body, &exchange.request.headers).await {
                Ok(body) => exchange.request_body = Content::Whole(body),
                Err(response) => return self.error(exchange, response).await,
            }
        }
        let mut pieces = Vec::new();
        let exchange = match self.ask(RequestHook::BeforeRequest, exchange, Some(&mut pieces)).await {
            Asked::Declined(exchange) | Asked::Ok(exchange) => exchange,
            Asked::Error(exchange, status, detail) => return self.refused(exchange, status, &detail).await,
            Asked::Lost(response) => return response,
        };
        match self.ask(RequestHook::Request, exchange, None).await {
            Asked::Ok(exchange) => self.respond(exchange).await,
            Asked::Error(exchange, status, detail) => self.refused(exchange, status, &detail).await,
            Asked::Lost(response) => response,
            Asked::Declined(mut exchange) => {
                let is_asked_for = wants_later(&self.opened);
                let request = request(&mut exchange, pieces, is_asked_for, &self.guard);
                let response = self.server.answer(request).await;
                let is_error = response.status().is_client_error() || response.status().is_server_error();
                if is_error { self.error(exchange, response).await } else { self.given(exchange, response).await }
            }
        }
    }

    /// Calls the hook of each module in order until one returns something other than DECLINED. Modules that request the
    /// chunks of the body are added to `pieces`.
    async fn ask(
        &self,
        hook: RequestHook,
        exchange: Box<Exchange>,
        mut pieces: Option<&mut Vec<SharedHandler>>,
    ) -> Asked {
        let mut exchange = exchange;
        for (module, handler) in self.opened.iter().filter(|(module, _)| module.wants.hook(hook)) {
            exchange.open = Some(match hook {
                RequestHook::BeforeRequest => Side::Request,
                _ => Side::Response,
            });
            exchange.may_filter = pieces.is_some();
            exchange.wants_pieces = false;
            let had_response = exchange.response.is_some();
            if hook == RequestHook::Request {
                exchange.begin_response();
            }
            let (back, called): Called<Verdict> = handler.lock().await.call(hook, exchange, &self.guard).await;
            let Some(back) = back else {
                let status = called.err().map_or(500, |fault| {
                    module.standing.strike(&fault);
                    fault.status()
                });
                return Asked::Lost(self.failed(module, status));
            };
            exchange = back;
            if exchange.wants_pieces
                && let Some(pieces) = &mut pieces
            {
                pieces.push((Arc::clone(module), Arc::clone(handler)));
            }
            // A response that a module prepared without returning OK is dropped.
            if !had_response && called != Ok(Verdict::Ok) {
                exchange.response = None;
                exchange.response_body = Content::Whole(Bytes::new());
            }
            match called {
                Ok(Verdict::Declined) => {}
                Ok(Verdict::Ok) => return Asked::Ok(exchange),
                Ok(Verdict::Status(status)) => {
                    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                    let detail = format!("rejected by the module `{}`", module.standing.name);
                    return Asked::Error(exchange, status, detail);
                }
                Err(fault) => {
                    module.standing.strike(&fault);
                    let status = StatusCode::from_u16(fault.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                    return Asked::Error(exchange, status, failure(module));
                }
            }
        }
        Asked::Declined(exchange)
    }

    /// The server's response to an error of a module.
    async fn refused(&mut self, exchange: Box<Exchange>, status: StatusCode, detail: &str) -> Response<Body> {
        let response = self.server.problem(status, detail);
        self.error(exchange, response).await
    }

    /// Lets the hooks `request_error` and then `response` change the response to an error.
    async fn error(&mut self, mut exchange: Box<Exchange>, response: Response<Body>) -> Response<Body> {
        let status = response.status();
        put(&mut exchange, response);
        self.asked_for_error = true;
        match self.ask(RequestHook::RequestError(status.as_u16()), exchange, None).await {
            Asked::Declined(exchange) | Asked::Ok(exchange) => self.respond(exchange).await,
            Asked::Error(mut exchange, status, detail) => {
                let response = self.server.problem(status, &detail);
                put(&mut exchange, response);
                self.respond(exchange).await
            }
            Asked::Lost(response) => response,
        }
    }

    /// Sends a response of the API or of a file, after the hook `response`.
    async fn given(&mut self, mut exchange: Box<Exchange>, response: Response<Body>) -> Response<Body> {
        put(&mut exchange, response);
        self.respond(exchange).await
    }

    /// Lets the hook `response` change the response, and returns it.
    async fn respond(&mut self, mut exchange: Box<Exchange>) -> Response<Body> {
        let wants_whole = self.opened.iter().any(|(module, _)| module.wants.whole_response && module.wants.response);
        // An event stream never ends.
        if wants_whole && exchange.request.method != Method::HEAD && !is_endless(&exchange) {
            let body = std::mem::replace(&mut exchange.response_body, Content::Whole(Bytes::new()));
            match body {
                Content::Whole(_) => exchange.response_body = body,
                Content::Stream(body) => match self.server.collect(body).await {
                    Ok(body) => exchange.replace_body(Side::Response, body),
                    Err(response) => put(&mut exchange, response),
                },
            }
        }
        let mut pieces = Vec::new();
        match self.ask(RequestHook::Response, exchange, Some(&mut pieces)).await {
            Asked::Declined(exchange) | Asked::Ok(exchange) => self.sent(exchange, pieces),
            Asked::Error(exchange, status, detail) if !self.asked_for_error => {
                let mut exchange = exchange;
                let response = self.server.problem(status, &detail);
                put(&mut exchange, response);
                self.asked_for_error = true;
                match self.ask(RequestHook::RequestError(status.as_u16()), exchange, None).await {
                    Asked::Declined(exchange) | Asked::Ok(exchange) => self.sent(exchange, Vec::new()),
                    Asked::Error(_, status, detail) => self.server.problem(status, &detail),
                    Asked::Lost(response) => response,
                }
            }
            Asked::Error(_, status, detail) => self.server.problem(status, &detail),
            Asked::Lost(response) => response,
        }
    }

    /// The final response. The modules' states are dropped with its body.
    fn sent(&mut self, exchange: Box<Exchange>, pieces: Vec<SharedHandler>) -> Response<Body> {
        let Exchange { response: Some(head), response_body, memory, .. } = *exchange else {
            return self.server.problem(StatusCode::INTERNAL_SERVER_ERROR, "a module returned no response");
        };
        let ResponseHead { status, mut headers, reason } = head;
        let has_body = status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED;
        let body = match response_body {
            _ if !has_body => Body::empty(),
            Content::Whole(bytes) if bytes.is_empty() => Body::empty(),
            Content::Whole(bytes) => memory.send(bytes),
            Content::Stream(body) => body,
        };
        if !has_body || !pieces.is_empty() {
            headers.remove(CONTENT_LENGTH);
        }
        let body = match pieces.is_empty() || !has_body {
            true => body,
            false => filtered(body, Side::Response, pieces, self.guard.memory()),
        };
        let body = kept_until_sent(body, std::mem::take(&mut self.opened));
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        if let Some(reason) = reason.and_then(|reason| hyper::ext::ReasonPhrase::try_from(reason).ok()) {
            response.extensions_mut().insert(reason);
        }
        response
    }

    fn failed(&self, module: &Module, status: u16) -> Response<Body> {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        self.server.problem(status, &failure(module))
    }
}

fn failure(module: &Module) -> String {
    format!("the module `{}` failed; see the server's log", module.standing.name)
}

/// A body, and the handlers to drop after it.
struct BodyWithHandlers {
    body: Body,
    _opened: Vec<SharedHandler>,
}

impl HttpBody for BodyWithHandlers {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn kept_until_sent(body: Body, opened: Vec<SharedHandler>) -> Body {
    if body.is_end_stream() || opened.is_empty() { body } else { Body::new(BodyWithHandlers { body, _opened: opened }) }
}

/// Whether a module has a later hook, which also needs the request.
fn wants_later(opened: &[SharedHandler]) -> bool {
    opened.iter().any(|(module, _)| module.wants.request_error || module.wants.response)
}

/// Moves the request for the server out of the exchange. `is_asked_for`: the exchange keeps a copy of the headers.
fn request(exchange: &mut Exchange, pieces: Vec<SharedHandler>, is_asked_for: bool, guard: &Guard) -> Request<Body> {
    let extensions = std::mem::take(&mut exchange.request.extensions);
    let headers = std::mem::take(&mut exchange.request.headers);
    let mut head = exchange.request.clone();
    if is_asked_for {
        exchange.request.headers.clone_from(&headers);
    }
    head.headers = headers;
    head.extensions = extensions;
    let body = std::mem::replace(&mut exchange.request_body, Content::Whole(Bytes::new()));
    let body = match body {
        Content::Whole(bytes) => Body::from(bytes),
        Content::Stream(body) => body,
    };
    if pieces.is_empty() {
        return Request::from_parts(head, body);
    }
    head.headers.remove(CONTENT_LENGTH);
    head.headers.remove(TRANSFER_ENCODING);
    Request::from_parts(head, filtered(body, Side::Request, pieces, guard.memory()))
}

/// Puts a response into an exchange.
fn put(exchange: &mut Exchange, response: Response<Body>) {
    let (mut head, body) = response.into_parts();
    let reason = head.extensions.remove::<hyper::ext::ReasonPhrase>();
    let reason = reason.map(|reason| Bytes::copy_from_slice(reason.as_bytes()));
    exchange.response = Some(ResponseHead { status: head.status, headers: head.headers, reason });
    exchange.response_body = Content::Stream(body);
}

fn is_endless(exchange: &Exchange) -> bool {
    let content_type = exchange.response.as_ref().and_then(|head| head.headers.get(CONTENT_TYPE));
    content_type.is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"))
}

/// The response to HEAD: it has the length of the body, but not the body.
fn without_body(response: Response<Body>) -> Response<Body> {
    let (mut head, body) = response.into_parts();
    let length = body.size_hint().exact();
    if let Some(length) = length.filter(|length| *length > 0)
        && !head.headers.contains_key(CONTENT_LENGTH)
    {
        head.headers.insert(CONTENT_LENGTH, length.into());
    }
    Response::from_parts(head, Body::empty())
}
