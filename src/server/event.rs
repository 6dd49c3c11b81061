//! `/events/{position}`: one event, and the skip of one that cannot be applied.

use hyper::StatusCode;
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use snaphook_driver::Position;

use super::body;
use super::problem::{Problem, Result};
use super::query::shorten;
use super::reply::{Reply, Response};
use super::request::{Call, Verb};
use crate::engine::input;

/// `GET /events/{position}`
pub(super) async fn one(call: &Call, text: &str) -> Result<Response> {
    let position = position(text)?;
    match call.verb() {
        Verb::Get => {
            call.no_query()?;
            Reply::ok().serialize(&call.engine().operations.inspect(position).await?)
        }
        _ => Err(Problem::method_not_allowed("GET, HEAD")),
    }
}

/// `POST /events/{position}/skip`
pub(super) async fn skip(call: &Call, text: &str, incoming: Incoming) -> Result<Response> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Skip {
        reason: String,
    }
    #[derive(Serialize)]
    struct Skipped {
        /// Of the event that skips the other.
        position: Position,
    }
    let of = position(text)?;
    if call.verb() != Verb::Post {
        return Err(Problem::method_not_allowed("POST"));
    }
    call.no_query()?;
    let bytes = body::json(call, incoming).await?;
    let Skip { reason } = input::body(&bytes)?;
    let position = call.engine().operations.skip_event(of, &reason, &call.origin()).await?;
    Reply::new(StatusCode::ACCEPTED).serialize(&Skipped { position })
}

fn position(text: &str) -> Result<Position> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let position = text.parse().ok().filter(|position| is_number && *position > 0);
    position.ok_or_else(|| {
        Problem::bad_request(format!("`{}` is not the position of an event, expected a number from 1", shorten(text)))
    })
}
