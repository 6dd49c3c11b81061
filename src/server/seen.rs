//! Read-your-writes across nodes: responses to writes contain a position, and a request may require that the node has
//! applied the log up to it.

use hyper::Method;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};

use super::log_position::LogPosition;
use super::problem::Result;
use super::query::{self, Query};
use super::reply::Response;
use super::request::{Call, Verb};
use crate::engine::History;

const POSITION: HeaderName = HeaderName::from_static("snaphook-position");
const MIN_POSITION: HeaderName = HeaderName::from_static("snaphook-min-position");

/// Before a request is processed: waits until this node has applied the required position; 503 if that takes long, 410
/// if the log does not have it. A change may have one as well: it is then based on what the client has seen.
/// `by_query`: whether the query's parameters are the server's.
pub(super) async fn wait(call: &Call, by_query: bool) -> Result<()> {
    let header = match call.headers().contains_key(&MIN_POSITION) {
        true => call.header(&MIN_POSITION)?.map(|text| LogPosition::parse(MIN_POSITION.as_str(), text)).transpose()?,
        false => None,
    };
    let text = call.head.uri.query().unwrap_or_default();
    // For clients that cannot set headers. The name may be percent-encoded.
    let may_have = by_query && call.verb() == Verb::Get && (text.contains(query::MIN_POSITION) || text.contains('%'));
    let parameter = match may_have {
        true => Query::parse(text)?.take(query::MIN_POSITION)?,
        false => None,
    };
    let parameter = parameter.map(|text| LogPosition::parse(query::MIN_POSITION, &text)).transpose()?;
    for place in [header, parameter].into_iter().flatten() {
        let position = call.find(&place).await?;
        call.engine().history.reached(position).await?;
    }
    Ok(())
}

/// Whether the response contains the applied position: for writes, and for reads with a required position.
pub(super) fn is_told(method: &Method, headers: &HeaderMap) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH | Method::DELETE)
        || headers.contains_key(&MIN_POSITION)
}

/// After the request was processed. A successful write is at least as new as the state that it was based on.
pub(super) async fn tell(response: &mut Response, method: &Method, history: &History) {
    let shows_more = matches!(*method, Method::GET | Method::HEAD) || response.status().is_client_error();
    let position = if shows_more { history.visible_in_store().await } else { history.visible() };
    response.headers_mut().insert(POSITION, HeaderValue::from(position));
}
