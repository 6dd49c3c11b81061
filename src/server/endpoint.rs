//! One operation of the API as an axum handler, with the middleware around each: request id, memory, metrics, catching
//! panics, and problem documents.

use std::any::Any;
use std::borrow::Cow;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{FromRequestParts as _, RawPathParams, Request, State};
use axum::response::Response as Sent;
use axum::routing::{MethodFilter, MethodRouter, on};
use futures::FutureExt;
use hyper::header::ALLOW;
use hyper::http::request::Parts;
use hyper::{Method, StatusCode, Uri, Version};

use super::app::App;
use super::body::RequestBody;
use super::draining::mark_last;
use super::metrics::RouteMetrics;
use super::needs::Needs;
use super::openapi::{Described, Operation};
use super::peer::{ConnectionOrigin, Peer, PeerRef, RequestMemory};
use super::problem::{Problem, ProblemType, Result};
use super::reply::{Reply, Response, hand_over};
use super::request::{Call, Verb};
use super::request_id::X_REQUEST_ID;
use super::request_log::RequestLine;
use super::{audit, custom, identify, problem_document, seen, sites, traced};
use crate::memory::allocator;
use crate::telemetry::trace::scope;

/// Size of a head that does not count toward memory: two hundred of these equal one large document.
const HEAD_FREE_BYTES: usize = 4 * 1024;

/// The kind of a path, which applies to all its methods.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    /// Its changes read many instances, or compile code.
    Large,
    /// Status endpoints, which must respond even when the server is full.
    Vital,
    /// A component handles the request and defines its parameters.
    Custom,
}

/// Returns the description of an operation.
type Describe = fn() -> Operation;

/// A path of the API with its operations.
pub(super) struct Path {
    template: &'static str,
    route: Arc<Route>,
    methods: MethodRouter<Arc<App>>,
    allow: Vec<&'static str>,
    described: Vec<Described>,
}

struct Route {
    /// The template, as in metrics, where ids must not create series.
    template: Cow<'static, str>,
    kind: Kind,
    metrics: Arc<RouteMetrics>,
}

impl Path {
    pub(super) fn new(template: &'static str) -> Path {
        Path::of(template, Kind::Plain)
    }

    /// One whose changes take much memory.
    pub(super) fn large(template: &'static str) -> Path {
        Path::of(template, Kind::Large)
    }

    /// A path that is served even when memory is short.
    pub(super) fn vital(template: &'static str) -> Path {
        Path::of(template, Kind::Vital)
    }

    fn of(template: &'static str, kind: Kind) -> Path {
        let route = Arc::new(Route { template: template.into(), kind, metrics: Arc::default() });
        Path { template, route, methods: MethodRouter::new(), allow: Vec::new(), described: Vec::new() }
    }

    pub(super) fn get<F: Run>(self, needs: Needs, describe: Describe, run: F) -> Path {
        let mut path = self.on(MethodFilter::GET, "GET", needs, describe, run);
        path.allow.push("HEAD");
        path
    }

    pub(super) fn post<F: Run>(self, needs: Needs, describe: Describe, run: F) -> Path {
        self.on(MethodFilter::POST, "POST", needs, describe, run)
    }

    pub(super) fn put<F: Run>(self, needs: Needs, describe: Describe, run: F) -> Path {
        self.on(MethodFilter::PUT, "PUT", needs, describe, run)
    }

    pub(super) fn patch<F: Run>(self, needs: Needs, describe: Describe, run: F) -> Path {
        self.on(MethodFilter::PATCH, "PATCH", needs, describe, run)
    }

    pub(super) fn delete<F: Run>(self, needs: Needs, describe: Describe, run: F) -> Path {
        self.on(MethodFilter::DELETE, "DELETE", needs, describe, run)
    }

    pub(super) fn template(&self) -> &'static str {
        self.template
    }

    pub(super) fn metrics(&self) -> Arc<RouteMetrics> {
        Arc::clone(&self.route.metrics)
    }

    /// Its operations, for the OpenAPI document.
    pub(super) fn described(&self) -> &[Described] {
        &self.described
    }

    /// Its operations, and the response to every other method.
    pub(super) fn into_methods(self) -> MethodRouter<Arc<App>> {
        let allow = self.allow.join(", ");
        let route = self.route;
        self.methods.fallback(move |State(app): State<Arc<App>>, request: Request| {
            let allow = allow.clone();
            let run = |call: Call, _| async move {
                let outcome = match call.head.method {
                    Method::OPTIONS => Ok(Reply::new(StatusCode::NO_CONTENT).header(ALLOW, &allow).empty()),
                    _ => Err(Problem::method_not_allowed(allow)),
                };
                (call, outcome)
            };
            answer(app, Some(route), Needs::Anyone, request, run)
        })
    }

    fn on<F: Run>(
        mut self,
        filter: MethodFilter,
        method: &'static str,
        needs: Needs,
        describe: Describe,
        run: F,
    ) -> Path {
        self.allow.push(method);
        self.described.push(Described { template: self.template, method, needs, describe });
        let route = Arc::clone(&self.route);
        let handler =
            move |State(app): State<Arc<App>>, request: Request| answer(app, Some(route), needs, request, run);
        self.methods = self.methods.merge(on(filter, handler));
        self
    }
}

/// The handler of an operation. It returns the call, because the response needs its memory permit.
pub(super) trait Run: Clone + Send + Sync + 'static {
    fn run(self, call: Call, body: RequestBody) -> impl Future<Output = (Call, Result<Response>)> + Send;
}

impl<F, A> Run for F
where
    F: FnOnce(Call, RequestBody) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = (Call, Result<Response>)> + Send,
{
    fn run(self, call: Call, body: RequestBody) -> impl Future<Output = (Call, Result<Response>)> + Send {
        self(call, body)
    }
}

/// Handles paths that are not in the API: with a component, or else with `run`.
pub(super) fn fallback<F: Run>(run: F) -> MethodRouter<Arc<App>> {
    axum::routing::any(move |State(app): State<Arc<App>>, request: Request| async move {
        let Some(endpoint) = custom::find(&app, request.uri().path()) else {
            return answer(app, None, Needs::Anyone, request, run).await;
        };
        let metrics = app.metrics.of_endpoint(endpoint.path());
        let route = Arc::new(Route { template: endpoint.path().to_owned().into(), kind: Kind::Custom, metrics });
        let needs = custom::needs(&endpoint);
        answer(app, Some(route), needs, request, move |call: Call, body| custom::run(endpoint, call, body)).await
    })
}

/// Handles one request. Never panics. If the client disconnects, the future is dropped at any point; the engine ensures
/// that nothing is left half done.
async fn answer<F: Run>(app: Arc<App>, route: Option<Arc<Route>>, needs: Needs, request: Request, run: F) -> Sent {
    let started = Instant::now();
    let _in_flight = app.metrics.begin_request();
    let (mut head, body) = request.into_parts();
    let (method, version) = (head.method.clone(), head.version);
    let request_id = app.request_ids.of(&head.headers);
    let is_told = seen::is_told(&method, &head.headers);
    let peer = head.extensions.remove::<PeerRef>().unwrap_or_else(|| {
        Peer::of_connection(app.engine.memory(), ConnectionOrigin { address: None, is_secure: false })
    });
    let params = RawPathParams::from_request_parts(&mut head, &()).await.ok();
    let kind = route.as_ref().map_or(Kind::Plain, |route| route.kind);
    let (mut span, scope) =
        traced::begin(&head, &request_id, kind == Kind::Vital, peer.0.origin().address, &app.config);
    traced::describe(&mut span, route.as_ref().map(|route| &*route.template), &method, params.as_ref());
    let line = RequestLine::begin(&method, head.uri.path(), &request_id, scope.as_ref(), started);
    let memory = RequestMemory::of(peer);
    let mut call = Call { app: Arc::clone(&app), head, params, caller: None, request_id: request_id.clone(), memory };

    let outcome = AssertUnwindSafe(async {
        let (call, outcome) = match admit(&mut call, needs, kind).await {
            Ok(()) => {
                let _large = (kind == Kind::Large && call.verb() != Verb::Get).then_some(LargeWork);
                let change = audit::AdminChange::of(&call, needs);
                let (call, outcome) = run.run(call, body).await;
                if let Some(change) = change {
                    change.end(&outcome);
                }
                (call, outcome)
            }
            Err(problem) => (call, Err(problem)),
        };
        audit::note_denial(&call, &outcome);
        send(call, outcome, kind)
    });
    let answered = async {
        outcome.catch_unwind().await.unwrap_or_else(|panic| {
            tracing::error!("a handler panicked: {}", message(&*panic));
            let problem = Problem::new(ProblemType::Internal, "internal error, see the server's log");
            problem_document::response(&problem, &request_id)
        })
    };
    let mut response = scope::within(scope, answered).await;
    traced::end(span, &request_id, response.status());
    response.headers_mut().insert(X_REQUEST_ID, request_id);
    if version < Version::HTTP_2 {
        mark_last(response.headers_mut(), &app.stopping);
    }
    if is_told {
        seen::tell(&mut response, &method, &app.engine.history).await;
    }
    let metrics = route.as_ref().map_or(app.metrics.unknown(), |route| &route.metrics);
    metrics.record(&method, response.status(), started.elapsed());
    if let Some(line) = line {
        line.answered(response.status());
    }
    // axum would set the length of a body that is not sent to 0.
    if response.status() == StatusCode::NOT_MODIFIED {
        return response.map(|_| RequestBody::from_stream(futures::stream::empty::<std::io::Result<Vec<u8>>>()));
    }
    response.map(RequestBody::new)
}

/// `OPTIONS *` asks what the server can do as a whole (RFC 9110, section 9.3.7).
pub(super) fn is_of_server(uri: &Uri) -> bool {
    uri.path() == "*"
}

/// The checks before every operation.
async fn admit(call: &mut Call, needs: Needs, kind: Kind) -> Result<()> {
    if call.params.is_none() && !is_of_server(&call.head.uri) {
        return Err(Problem::bad_request("the path does not decode to UTF-8"));
    }
    let head_bytes = head_bytes(&call.head);
    if head_bytes > HEAD_FREE_BYTES {
        call.hold(head_bytes)?;
    }
    sites::refuse_others(call)?;
    identify::admit(call, needs).await?;
    seen::wait(call, kind != Kind::Custom).await
}

/// Sends the response with its memory permit, or a problem document.
fn send(call: Call, outcome: Result<Response>, kind: Kind) -> Response {
    let may_fail = call.verb() == Verb::Get && kind != Kind::Vital;
    let Call { head, request_id, memory, .. } = call;
    let alone = head.version < Version::HTTP_2;
    let peer = memory.share().clone();
    let document = |problem: &Problem| problem_document::response(problem, &request_id);
    let sent = outcome.and_then(|response| hand_over(response, memory, may_fail, alone));
    sent.or_else(|problem| hand_over(document(&problem), RequestMemory::of(peer), false, alone))
        // What must not be refused is not.
        .unwrap_or_else(|problem: Problem| document(&problem))
}

/// The size of a received head in bytes.
fn head_bytes(head: &Parts) -> usize {
    let lines: usize = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    lines + head.uri.path().len() + head.uri.query().map_or(0, str::len)
}

/// Notifies the allocator when large work ends, even if its client disconnects.
struct LargeWork;

impl Drop for LargeWork {
    fn drop(&mut self) {
        allocator::large_work_done();
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("?")
}
