//! Serves one request through the modules.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::{HeaderMap, StatusCode, Uri, Version};
use snaphook_modules::task::{self, Lost};
use snaphook_modules::{Chain, Connection, Exchange, Hold, Lease, Memory, Server};
use tower_service::Service as _;

use crate::server::app::App;
use crate::server::body;
use crate::server::draining::mark_last;
use crate::server::peer::{PeerRef, RequestMemory, Ticket};
use crate::server::problem::Problem;
use crate::server::problem_document;
use crate::server::reply;
use crate::server::request_id::X_REQUEST_ID;
use crate::server::request_log::RequestLine;
use crate::server::traced;
use crate::telemetry::trace::scope;

/// Paths for monitoring. They work even if a required module is missing.
const VITAL: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// Marks a request that is served although a required module is missing: it may report on modules, but on nothing that
/// they may protect.
#[derive(Clone, Copy)]
pub(in crate::server) struct Unguarded;

/// Serves a request through the modules.
pub(in crate::server) async fn serve(
    app: Arc<App>,
    mut router: Router,
    chain: Arc<Chain>,
    connection: Arc<Connection>,
    peer: PeerRef,
    request: Request<Incoming>,
) -> Response {
    let started = Instant::now();
    let mut request = request.map(Body::new);
    let version = request.version();
    let request_id = app.request_ids.of(request.headers());
    // So that the API uses the same id.
    request.headers_mut().insert(X_REQUEST_ID, request_id.clone());
    if is_vital(&app, request.uri()) && chain.missing().is_some() {
        request.extensions_mut().insert(Unguarded);
        return match router.call(request).await {
            Ok(response) => response,
        };
    }
    let (head, body) = request.into_parts();
    let method = head.method.clone();
    let is_probe = is_vital(&app, &head.uri);
    let (mut span, scope) = traced::begin(&head, &request_id, is_probe, peer.0.origin().address, &app.config);
    traced::describe(&mut span, None, &method, None);
    let is_reached = Arc::new(AtomicBool::new(false));
    let line = RequestLine::begin(&method, head.uri.path(), &request_id, scope.as_ref(), started);
    // The API writes its own.
    let line = line.map(|line| line.unless(&is_reached));
    let memory: Box<dyn Hold> = Box::new(Held(RequestMemory::of(peer.clone())));
    let exchange = Exchange::new(head, body, connection.origin.clone(), memory, app.max_body_bytes());
    let given_out = memory_of(&peer);
    let server = ForModules {
        app: Arc::clone(&app),
        router,
        request_id: request_id.clone(),
        memory: RequestMemory::of(peer),
        is_reached: Arc::clone(&is_reached),
    };
    let work = move |guard| scope::within(scope, chain.serve(exchange, connection, server, guard));
    let served = task::run(Some(given_out), work).await;
    let mut response = served.unwrap_or_else(|lost| {
        let (status, detail) = match lost {
            Lost::Late => (StatusCode::GATEWAY_TIMEOUT, "a module did not return in time; see the server's log"),
            Lost::Panicked(message) => {
                tracing::error!("serving a request through modules panicked: {message}");
                (StatusCode::INTERNAL_SERVER_ERROR, "internal error, see the server's log")
            }
        };
        problem_document::of_status(status, detail, &request_id).map(Body::new)
    });
    traced::end(span, &request_id, response.status());
    response.headers_mut().entry(X_REQUEST_ID).or_insert(request_id);
    if version < Version::HTTP_2 {
        mark_last(response.headers_mut(), &app.stopping);
    }
    if !is_reached.load(Ordering::Relaxed) {
        app.metrics.modules().record(&method, response.status(), started.elapsed());
    }
    if let Some(line) = line {
        line.answered(response.status());
    }
    response
}

/// Whether the path works without missing modules.
pub(in crate::server) fn is_vital(app: &App, uri: &Uri) -> bool {
    let path = uri.path().strip_prefix(&app.mount_path).unwrap_or_default();
    VITAL.contains(&path)
}

/// Counts the output bytes of filters, for a connection.
pub(in crate::server) fn memory_of(peer: &PeerRef) -> Arc<dyn Memory> {
    struct OfPeer(PeerRef);
    struct Part(RequestMemory);

    impl Memory for OfPeer {
        fn lease(&self) -> Box<dyn Lease> {
            Box::new(Part(RequestMemory::of(self.0.clone())))
        }
    }

    impl Lease for Part {
        fn grow(&self, bytes: usize) -> bool {
            self.0.grow(bytes).is_ok()
        }
    }

    Arc::new(OfPeer(peer.clone()))
}

/// The memory of an exchange.
struct Held(RequestMemory);

impl Hold for Held {
    fn hold(&self, bytes: usize) -> bool {
        self.0.grow(bytes).is_ok()
    }

    /// Like every response: its peer must keep reading.
    fn send(self: Box<Self>, rest: Bytes) -> Body {
        let mut memory = self.0;
        memory.resize_anyway(rest.len());
        Body::new(reply::ReplyBody::SendingShared { rest, ticket: Ticket::new(memory.share()), _memory: memory })
    }
}

struct ForModules {
    app: Arc<App>,
    router: Router,
    request_id: HeaderValue,
    /// Memory of bodies that were read whole.
    memory: RequestMemory,
    /// Whether the request reached the API, which counts its requests itself.
    is_reached: Arc<AtomicBool>,
}

impl ForModules {
    fn document(&self, problem: &Problem) -> Response {
        problem_document::response(problem, &self.request_id).map(Body::new)
    }
}

impl Server for ForModules {
    async fn answer(&self, request: Request) -> Response {
        self.is_reached.store(true, Ordering::Relaxed);
        match self.router.clone().call(request).await {
            Ok(response) => response,
        }
    }

    fn problem(&self, status: StatusCode, detail: &str) -> Response {
        problem_document::of_status(status, detail, &self.request_id).map(Body::new)
    }

    async fn read(&self, body: Body, headers: &HeaderMap) -> Result<Bytes, Response> {
        let max = self.app.max_body_bytes();
        body::read_whole(&self.memory, headers, body, max).await.map_err(|problem| self.document(&problem))
    }

    async fn collect(&self, body: Body) -> Result<Bytes, Response> {
        let max = self.app.max_body_bytes();
        let mut body = Limited::new(body, max);
        let mut whole = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| {
                let detail = format!("a module needs the whole response, which does not fit into {max} bytes: {error}");
                self.problem(StatusCode::INTERNAL_SERVER_ERROR, &detail)
            })?;
            if let Ok(piece) = frame.into_data() {
                self.memory.grow(piece.len()).map_err(|shortage| self.document(&shortage.into()))?;
                whole.extend_from_slice(&piece);
            }
        }
        Ok(whole.freeze())
    }
}
