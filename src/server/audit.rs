//! The audit log: denials and changes by admins, with the caller's address. Its lines are lines of the server's log
//! with the target `audit`.

use std::net::{IpAddr, Ipv4Addr};

use hyper::StatusCode;
use hyper::header::HeaderValue;

use super::identify;
use super::needs::Needs;
use super::problem::{Problem, ProblemType, Result};
use super::query::shorten;
use super::reply::Response;
use super::request::{Call, Verb};

/// A change by an admin. It is logged when the request ends, even if its client has disconnected.
pub(super) struct AdminChange {
    request: Request,
    status: Option<StatusCode>,
}

impl AdminChange {
    /// `None`: the operation is not for admins only, or changes nothing.
    pub(super) fn of(call: &Call, needs: Needs) -> Option<AdminChange> {
        let is_change = needs == Needs::Admin && call.verb() != Verb::Get;
        is_change.then(|| AdminChange { request: Request::of(call), status: None })
    }

    pub(super) fn end(mut self, outcome: &Result<Response>) {
        self.status = Some(match outcome {
            Ok(response) => response.status(),
            Err(problem) => problem.status(),
        });
    }
}

impl Drop for AdminChange {
    fn drop(&mut self) {
        let Request { what, actor, address, request_id } = &self.request;
        let status = self.status.map_or("none, the client left".to_owned(), |status| status.as_u16().to_string());
        tracing::info!(target: "audit", actor, address, ?request_id, status, "an admin called: {what}");
    }
}

/// Logs a denial.
pub(super) fn note_denial(call: &Call, outcome: &Result<Response>) {
    if let Err(problem) = outcome
        && matches!(problem.kind, ProblemType::Unauthorized | ProblemType::Forbidden)
    {
        denied(call, problem);
    }
}

#[cold]
fn denied(call: &Call, problem: &Problem) {
    // All clients of a Unix socket count as one.
    let counted = identify::address(call).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let Some(left_out) = call.app.denials.note(counted) else { return };
    let Request { what, actor, address, request_id } = Request::of(call);
    let status = problem.status().as_u16();
    let reason = problem.detail();
    tracing::info!(target: "audit", actor, address, ?request_id, status, left_out, "denied: {what}: {reason}");
}

/// The logged parts of a request, without line breaks: an issuer may use any text as a subject.
struct Request {
    what: String,
    actor: String,
    address: String,
    request_id: HeaderValue,
}

impl Request {
    fn of(call: &Call) -> Request {
        let target = call.head.uri.path_and_query().map_or(call.head.uri.path(), |target| target.as_str());
        let actor = call
            .caller
            .as_ref()
            .map(|caller| format!("{}:{}", caller.actor.kind, shorten(&caller.actor.id).escape_debug()));
        Request {
            what: format!("{} {}", call.head.method, shorten(target)),
            actor: actor.unwrap_or_else(|| "unknown".to_owned()),
            address: identify::address(call).map_or("unix".to_owned(), |address| address.to_string()),
            request_id: call.request_id.clone(),
        }
    }
}
