//! `/events/{position}`: one event, and the skip of one that cannot be applied.

use hyper::StatusCode;
use serde::Serialize;
use snaphook_driver::Position;

use super::body::{self, RequestBody};
use super::problem::{Problem, Result};
use super::query::shorten;
use super::reply::{Reply, Response};
use super::request::Call;
use crate::engine::input;

/// `GET /events/{position}`
pub(super) async fn get(call: &Call) -> Result<Response> {
    let position = position(call.param("position"))?;
    call.no_query()?;
    let inspected = call.engine().operations.inspect(position).await?;
    if !call.engine().history.visibility(&call.right()).of_event(&inspected.event).await? {
        // A position without an event.
        let head = call.engine().history.head();
        let detail = format!("there is no event at position {position}, the log ends at {head}");
        return Err(Problem::not_found(detail));
    }
    Reply::ok().serialize(&inspected)
}

/// `POST /events/{position}/skip`
pub(super) async fn skip(call: &Call, body: RequestBody) -> Result<Response> {
    #[derive(Serialize)]
    struct Skipped {
        /// The position of the event that records the skip.
        position: Position,
    }
    let of = position(call.param("position"))?;
    call.no_query()?;
    let bytes = body::json(call, body).await?;
    let reason = input::body(&bytes)?.members(&["reason"])?.need("reason", "why the event is skipped")?.string()?;
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
