//! How far a node has applied the log, between a client's writes and its reads: writes answer it, and a request may ask for
//! at least as much, so that whoever wrote on one node reads it on every other.

use hyper::Method;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};

use super::place::Place;
use super::problem::Result;
use super::query::{self, Query};
use super::reply::Response;
use super::request::{Call, Verb};
use crate::engine::History;

const POSITION: HeaderName = HeaderName::from_static("snaphook-position");
const MIN_POSITION: HeaderName = HeaderName::from_static("snaphook-min-position");

/// Before a request is answered: waits until this node has applied what the client asks for; 503 if that takes long, 410 for
/// what the log does not have. A change may ask as well: it is then decided by what the client has seen. `by_query`: whether
/// the query's parameters are the server's.
pub(super) async fn wait(call: &Call, by_query: bool) -> Result<()> {
    let header = match call.headers().contains_key(&MIN_POSITION) {
        true => call.header(&MIN_POSITION)?.map(|text| Place::parse(MIN_POSITION.as_str(), text)).transpose()?,
        false => None,
    };
    let text = call.head.uri.query().unwrap_or_default();
    // For those who cannot set a header. An escape may hide the name.
    let may_have = by_query && call.verb() == Verb::Get && (text.contains(query::MIN_POSITION) || text.contains('%'));
    let parameter = match may_have {
        true => Query::parse(text)?.take(query::MIN_POSITION)?,
        false => None,
    };
    let parameter = parameter.map(|text| Place::parse(query::MIN_POSITION, &text)).transpose()?;
    for place in [header, parameter].into_iter().flatten() {
        let position = call.find(&place).await?;
        call.engine().history.reached(position).await?;
    }
    Ok(())
}

/// Whether the response says how far this node has applied the log: to a write, and to a read that asks how far it has.
pub(super) fn is_told(method: &Method, headers: &HeaderMap) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH | Method::DELETE)
        || headers.contains_key(&MIN_POSITION)
}

/// After the request was carried out. A write that succeeded is no older than what it was decided by.
pub(super) async fn tell(response: &mut Response, method: &Method, history: &History) {
    let shows_more = matches!(*method, Method::GET | Method::HEAD) || response.status().is_client_error();
    let position = if shows_more { history.visible_in_store().await } else { history.visible() };
    response.headers_mut().insert(POSITION, HeaderValue::from(position));
}
