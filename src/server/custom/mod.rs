//! `[[server.endpoints]]`: requests that components serve, under paths that the API does not use.
//!
//! The common middleware applies here too (endpoint.rs). A component gets the request without the server's own headers,
//! and with headers about the caller (head.rs); its body has the same limits as all bodies (upload.rs).

mod head;
mod upload;

use std::sync::Arc;

use futures::stream;
use http_body_util::{BodyExt, Empty};
use hyper::body::Body as _;
use hyper::header::CONTENT_LENGTH;
use hyper::{Method, StatusCode};

use self::upload::Fault;
use super::app::App;
use super::body::{self, RequestBody};
use super::identify;
use super::needs::Needs;
use super::problem::{Problem, ProblemType, Result};
use super::reply::{ReplyBody, Response};
use super::request::Call;
use crate::config::EndpointRole;
use crate::hooks::context::{Failure, FailureCause};
use crate::hooks::host::{Endpoint, Exchange, ResponseBody};

/// The endpoint for a request whose path the API does not use.
pub(super) fn find(app: &App, path: &str) -> Option<Arc<Endpoint>> {
    app.engine.endpoints().at(path.strip_prefix(&*app.mount_path)?)
}

/// The minimum role for an endpoint.
pub(super) fn needs(endpoint: &Endpoint) -> Needs {
    match endpoint.role() {
        EndpointRole::Anyone => Needs::Anyone,
        EndpointRole::Reader => Needs::Reader,
        EndpointRole::Writer => Needs::Writer,
        EndpointRole::Admin => Needs::Admin,
    }
}

/// Runs the component.
pub(super) async fn run(endpoint: Arc<Endpoint>, call: Call, body: RequestBody) -> (Call, Result<Response>) {
    let outcome = answer(&endpoint, &call, body).await;
    (call, outcome)
}

async fn answer(endpoint: &Endpoint, call: &Call, body: RequestBody) -> Result<Response> {
    if endpoint.role() == EndpointRole::Anyone {
        identify::check_rate(call)?;
    }
    let max = call.app.max_body_bytes();
    if body.size_hint().lower() > max as u64 {
        return Err(body::refuse_too_large(call, body, max).await);
    }
    let fault = Fault::default();
    let content = match body.is_end_stream() {
        true => Empty::new().map_err(|never| match never {}).boxed_unsync(),
        false => upload::content(body, max, fault.clone()),
    };
    let (request, is_secure) = head::request(endpoint, call, content)?;
    let request_id = call.request_id.to_str().ok().map(str::to_owned);
    let endpoints = call.engine().endpoints();
    let answered = endpoints.answer(endpoint, Exchange { request, is_secure, request_id }).await;
    // The component's response to an incomplete body does not matter.
    if let Some(problem) = fault.take() {
        return Err(problem);
    }
    let response = answered.map_err(|failure| failed(endpoint, &failure))?;
    respond(endpoint, &call.head.method, response)
}

/// The problem of a failure for the client; the log has the details.
fn failed(endpoint: &Endpoint, failure: &Failure) -> Problem {
    let name = endpoint.name();
    match failure.cause {
        FailureCause::Overloaded => Problem::new(
            ProblemType::Overloaded,
            format!("the endpoint `{name}` has too many requests at once; try again"),
        ),
        cause => Problem::new(
            ProblemType::EndpointFailed,
            format!("the endpoint `{name}` failed ({}); see the server's log", cause.as_str()),
        ),
    }
}

fn respond(endpoint: &Endpoint, method: &Method, response: hyper::Response<ResponseBody>) -> Result<Response> {
    let (mut head, body) = response.into_parts();
    if !(200..600).contains(&head.status.as_u16()) {
        tracing::error!(endpoint = endpoint.name(), "set the status {}, expected 200 to 599", head.status.as_u16());
        let detail = format!("the endpoint `{}` set a status that is not allowed for a response", endpoint.name());
        return Err(Problem::new(ProblemType::EndpointFailed, detail));
    }
    head::clean(&mut head.headers);
    let body = match body {
        // axum keeps the length and drops the body; a length set by the component stays.
        ResponseBody::Whole(bytes, _) if *method == Method::HEAD && !bytes.is_empty() => ReplyBody::Whole(bytes.into()),
        _ if *method == Method::HEAD => ReplyBody::Stream(Box::pin(stream::empty())),
        _ if matches!(head.status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED) => {
            if head.status != StatusCode::NOT_MODIFIED {
                head.headers.remove(CONTENT_LENGTH);
            }
            ReplyBody::default()
        }
        ResponseBody::Whole(bytes, None) => {
            head.headers.remove(CONTENT_LENGTH);
            ReplyBody::Whole(bytes.into())
        }
        more => ReplyBody::Frames(Box::pin(more.map_frame(head::clean_trailers))),
    };
    Ok(Response::from_parts(head, body))
}
