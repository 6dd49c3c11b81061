//! `/secrets`: values that hooks may be granted. They go in and never come out.

use hyper::StatusCode;
use hyper::body::Incoming;
use serde::Serialize;

use super::problem::{Problem, Result};
use super::reply::{Reply, Response};
use super::request::{Call, Verb};
use super::{body, id};

/// `GET /secrets`
pub(super) async fn collection(call: &Call) -> Result<Response> {
    #[derive(Serialize)]
    struct Page {
        items: Vec<String>,
        next: Option<String>,
    }
    if call.verb() != Verb::Get {
        return Err(Problem::method_not_allowed("GET, HEAD"));
    }
    call.no_query()?;
    Reply::ok().serialize(&Page { items: call.engine().operations.secrets().await?, next: None })
}

/// `PUT` and `DELETE /secrets/{name}`
pub(super) async fn one(call: &Call, name: &str, body: Incoming) -> Result<Response> {
    id::secret(name)?;
    match call.verb() {
        // The body is the value, byte by byte, whatever its type is said to be.
        Verb::Put => {
            call.no_query()?;
            let value = body::read(call, body).await?;
            call.engine().operations.put_secret(name, &value).await?;
        }
        Verb::Delete => {
            call.no_query()?;
            call.engine().operations.delete_secret(name).await?;
        }
        _ => return Err(Problem::method_not_allowed("PUT, DELETE")),
    }
    Ok(Reply::new(StatusCode::NO_CONTENT).empty())
}
