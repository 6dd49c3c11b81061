//! The table of routes, and what holds for every request: its id, its metrics, the end of panics.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use futures::FutureExt;
use futures::future::BoxFuture;
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONTENT_LENGTH, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, Version};

use super::app::App;
use super::metrics::Route;
use super::peer::{PeerRef, RequestMemory};
use super::problem::{Problem, ProblemType, Result};
use super::query::{decode, shorten};
use super::reply::{Body, Response, hand_over};
use super::request::{Call, Verb};
use super::request_id::X_REQUEST_ID;
use super::{
    backup, batch, errors, event, events, health, hooks, import, instances, jobs, models, nodes, plugins,
    problem_document, rebuild, secrets, seen, sites,
};
use crate::memory::allocator;

/// More segments than any route has.
const SEGMENTS_MAX: usize = 8;

/// Bytes of a head that are not counted: two hundred of them are what one large document is.
const HEAD_FREE_BYTES: usize = 4 * 1024;

/// Answers one request. Never panics. A client that goes away drops it where it stands: the engine sees to it that nothing
/// is left half done.
pub(super) async fn answer(app: Arc<App>, peer: PeerRef, request: Request<Incoming>) -> Response {
    let started = Instant::now();
    let (head, body) = request.into_parts();
    let method = head.method.clone();
    let request_id = app.request_ids.of(&head.headers);
    let is_told = seen::is_told(&method, &head.headers);
    let memory = RequestMemory::of(peer);
    let call = Call { app: Arc::clone(&app), head, request_id: request_id.clone(), memory };

    let outcome = AssertUnwindSafe(handle(call, body)).catch_unwind().await;
    let (route, mut response) = outcome.unwrap_or_else(|panic| {
        tracing::error!("a handler panicked: {}", message(&*panic));
        let problem = Problem::new(ProblemType::Internal, "a fault of the server, its log says more");
        (Route::Unknown, problem_document::response(&problem, &app.mount_path, &request_id))
    });
    if method == Method::HEAD {
        let length = response.body().size_hint().exact();
        *response.body_mut() = Body::default();
        if let Some(length) = length {
            response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
    }
    response.headers_mut().insert(X_REQUEST_ID, request_id);
    if is_told {
        seen::tell(&mut response, &method, &app.engine.history).await;
    }
    app.metrics.record(route, &method, response.status(), started.elapsed());
    response
}

async fn handle(call: Call, body: Incoming) -> (Route, Response) {
    let (route, outcome) = dispatch(&call, body).await;
    // What says how the server is must come through when it is full.
    let may_fail = call.verb() == Verb::Get && !matches!(route, Route::Healthz | Route::Readyz | Route::Metrics);
    let Call { app, head, request_id, memory, .. } = call;
    let alone = head.version < Version::HTTP_2;
    let peer = memory.share().clone();
    let sent = outcome.and_then(|response| hand_over(response, memory, may_fail, alone));
    let response = sent.or_else(|problem| {
        hand_over(
            problem_document::response(&problem, &app.mount_path, &request_id),
            RequestMemory::of(peer),
            false,
            alone,
        )
    });
    // What must not be refused is not.
    (
        route,
        response.unwrap_or_else(|problem: Problem| problem_document::response(&problem, &app.mount_path, &request_id)),
    )
}

/// Tells the allocator when large work ends, also with its client.
struct LargeWork;

impl Drop for LargeWork {
    fn drop(&mut self) {
        allocator::large_work_done();
    }
}

/// Whether it is a change that looks at many instances, or compiles.
fn changes_much(route: Route, verb: Verb) -> bool {
    verb != Verb::Get
        && matches!(route, Route::Models | Route::Model | Route::HooksPhase | Route::Import | Route::Rebuild)
}

/// The bytes of a head, as it came.
fn head_bytes(head: &Parts) -> usize {
    let lines: usize = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    lines + head.uri.path().len() + head.uri.query().map_or(0, str::len)
}

async fn dispatch(call: &Call, body: Incoming) -> (Route, Result<Response>) {
    let head_bytes = head_bytes(&call.head);
    if head_bytes > HEAD_FREE_BYTES
        && let Err(problem) = call.hold(head_bytes)
    {
        return (Route::Unknown, Err(problem));
    }
    if let Err(problem) = sites::refuse_others(call) {
        return (Route::Unknown, Err(problem));
    }
    if let Err(problem) = seen::wait(call).await {
        return (Route::Unknown, Err(problem));
    }
    let path = call.head.uri.path();
    let Some(path) = path.strip_prefix(call.app.mount_path.as_str()).and_then(|path| path.strip_prefix('/')) else {
        return (Route::Unknown, Err(unknown(call)));
    };
    // Escapes are decoded per segment: `%2F` is part of an id, not a border.
    let decoded: Vec<_>;
    let mut segments = [""; SEGMENTS_MAX];
    let mut length = 0;
    if path.contains('%') {
        match path.split('/').map(|segment| decode(segment, false)).collect::<Result<Vec<_>>>() {
            Ok(all) => decoded = all,
            Err(problem) => return (Route::Unknown, Err(problem)),
        }
        if decoded.len() <= SEGMENTS_MAX {
            length = decoded.len();
            segments.iter_mut().zip(&decoded).for_each(|(slot, segment)| *slot = segment);
        }
    } else {
        for segment in path.split('/') {
            if length == SEGMENTS_MAX {
                return (Route::Unknown, Err(unknown(call)));
            }
            segments[length] = segment;
            length += 1;
        }
    }
    if segments[..length].contains(&"") {
        return (Route::Unknown, Err(unknown(call)));
    }
    let (route, answer) = route(call, &segments[..length], body);
    let _large = changes_much(route, call.verb()).then(|| LargeWork);
    (route, answer.await)
}

/// One line per route.
#[rustfmt::skip]
fn route<'a>(call: &'a Call, segments: &[&'a str], body: Incoming) -> (Route, BoxFuture<'a, Result<Response>>) {
    match *segments {
        ["models"] => (Route::Models, Box::pin(models::collection(call, body))),
        ["models", model] => (Route::Model, Box::pin(models::one(call, model, body))),
        ["models", model, "hooks"] => (Route::Hooks, Box::pin(hooks::all(call, model))),
        ["models", model, "hooks", phase] => (Route::HooksPhase, Box::pin(hooks::phase(call, model, phase, body))),
        ["models", model, "hooks", phase, "log"] => (Route::HooksLog, Box::pin(hooks::log(call, model, phase))),
        ["models", model, "hooks", phase, "stats"] => (Route::HooksStats, Box::pin(hooks::stats(call, model, phase))),
        ["hooks", "runs"] => (Route::HooksRuns, Box::pin(hooks::runs(call))),
        ["models", model, "instances"] => (Route::Instances, Box::pin(instances::collection(call, model, body))),
        ["models", model, "instances", id] => (Route::Instance, Box::pin(instances::one(call, model, id, body))),
        ["models", model, "instances", id, "events"] => (Route::InstanceEvents, Box::pin(events::history(call, model, id))),
        ["models", model, "import"] => (Route::Import, Box::pin(import::import(call, model, body))),
        ["batch"] => (Route::Batch, Box::pin(batch::batch(call, body))),
        ["events"] => (Route::Events, Box::pin(events::list(call))),
        ["events", "stream"] => (Route::EventsStream, Box::pin(events::stream(call))),
        ["events", position] => (Route::Event, Box::pin(event::one(call, position))),
        ["events", position, "skip"] => (Route::EventSkip, Box::pin(event::skip(call, position, body))),
        ["errors"] => (Route::Errors, Box::pin(errors::collection(call))),
        ["errors", "retry"] => (Route::ErrorsRetry, Box::pin(errors::retry_all(call))),
        ["errors", id] => (Route::Error, Box::pin(errors::one(call, id))),
        ["errors", id, "retry"] => (Route::ErrorRetry, Box::pin(errors::retry(call, id))),
        ["jobs", id] => (Route::Job, Box::pin(jobs::one(call, id))),
        ["secrets"] => (Route::Secrets, Box::pin(secrets::collection(call))),
        ["secrets", name] => (Route::Secret, Box::pin(secrets::one(call, name, body))),
        ["backup"] => (Route::Backup, Box::pin(backup::backup(call))),
        ["nodes"] => (Route::Nodes, Box::pin(nodes::list(call))),
        ["plugins"] => (Route::Plugins, Box::pin(plugins::list(call))),
        ["rebuild"] => (Route::Rebuild, Box::pin(rebuild::rebuild(call))),
        ["healthz"] => (Route::Healthz, Box::pin(health::healthz(call))),
        ["readyz"] => (Route::Readyz, Box::pin(health::readyz(call))),
        ["metrics"] => (Route::Metrics, Box::pin(health::metrics(call))),
        _ => (Route::Unknown, Box::pin(async move { Err(unknown(call)) })),
    }
}

fn unknown(call: &Call) -> Problem {
    Problem::not_found(format!("no route `{}`", shorten(call.head.uri.path())))
}

fn message(panic: &(dyn Any + Send)) -> &str {
    panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("?")
}
