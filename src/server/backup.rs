//! `POST /backup`: everything that cannot be rebuilt, as one file. Secrets in it are encrypted.

use bytes::Bytes;
use futures::stream;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE};

use super::problem::Result;
use super::reply::{Reply, ReplyBody, Response};
use super::request::Call;

/// A POST although it changes nothing, so that a page of another site cannot start one.
pub(super) async fn backup(call: &Call) -> Result<Response> {
    call.no_query()?;
    let pieces = call.engine().operations.backup().await?;
    let pieces = stream::unfold(pieces, |mut pieces| async move {
        pieces.recv().await.map(|piece| (Bytes::from_owner(piece), pieces))
    });
    Ok(Reply::ok()
        .fixed(CONTENT_TYPE, "application/octet-stream")
        .fixed(CACHE_CONTROL, "no-store")
        .body(ReplyBody::Stream(Box::pin(pieces))))
}
