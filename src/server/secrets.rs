//! `/secrets`: values for hooks with a grant. The API never returns them.

use hyper::StatusCode;
use serde::Serialize;

use super::body::{self, RequestBody};
use super::id;
use super::problem::Result;
use super::reply::{Reply, Response};
use super::request::Call;

/// `GET /secrets`
pub(super) async fn list(call: &Call) -> Result<Response> {
    #[derive(Serialize)]
    struct SecretPage {
        items: Vec<String>,
        next: Option<String>,
    }
    call.no_query()?;
    Reply::ok().serialize(&SecretPage { items: call.engine().operations.secrets().await?, next: None })
}

/// `PUT /secrets/{name}`: the body is the value, byte by byte, regardless of its media type.
pub(super) async fn put(call: &Call, body: RequestBody) -> Result<Response> {
    let name = name(call)?;
    call.no_query()?;
    let value = body::read(call, body).await?;
    call.engine().operations.put_secret(name, &value).await?;
    Ok(Reply::new(StatusCode::NO_CONTENT).empty())
}

/// `DELETE /secrets/{name}`
pub(super) async fn delete(call: &Call) -> Result<Response> {
    let name = name(call)?;
    call.no_query()?;
    call.engine().operations.delete_secret(name).await?;
    Ok(Reply::new(StatusCode::NO_CONTENT).empty())
}

fn name(call: &Call) -> Result<&str> {
    let name = call.param("name");
    id::secret(name)?;
    Ok(name)
}
