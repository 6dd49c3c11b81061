//! `GET /openapi.json`: the document of the requested models that the caller may read.

use std::sync::Arc;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, VARY};
use snaphook_identity::glob;

use super::document::OpenApiDocument;
use crate::server::problem::{Problem, Result};
use crate::server::reply::{Reply, ReplyBody, Response};
use crate::server::request::Call;
use crate::server::{id, identify, precondition};

/// Bytes of the parameter `model`: it is compared with the name of each model.
const SELECTION_BYTES_MAX: usize = 1000;

/// `GET /openapi.json`
pub(in crate::server) async fn get(call: &Call) -> Result<Response> {
    let selection = Selection::of(call)?;
    let mut models = call.engine().definitions.all();
    models.retain(|model| identify::may_read(call, &model.record.id) && selection.has(&model.record.id));
    let fingerprint = call.app.openapi.fingerprint(&models);
    let tag = fingerprint.tag();
    let reply = |status| {
        // Its content depends on the caller, and may change at any moment.
        let reply = Reply::new(status).header(ETAG, &tag).fixed(CACHE_CONTROL, "private, no-cache");
        reply.fixed(VARY, "authorization")
    };
    if precondition::has_tag(call.headers(), &tag) {
        return Ok(reply(StatusCode::NOT_MODIFIED).empty());
    }
    let document = call.app.openapi.document(call.engine(), fingerprint, models).await?;
    let text = Bytes::from_owner(SentDocument(document));
    Ok(reply(StatusCode::OK).fixed(CONTENT_TYPE, "application/json").body(ReplyBody::Shared(text)))
}

/// Keeps a document while its bytes are sent.
struct SentDocument(Arc<OpenApiDocument>);

impl AsRef<[u8]> for SentDocument {
    fn as_ref(&self) -> &[u8] {
        &self.0.text
    }
}

/// The models selected by a client.
pub(in crate::server) struct Selection {
    globs: Option<Vec<String>>,
    after: Option<String>,
}

impl Selection {
    /// Reads `model`, a comma-separated list of globs, and `after`; no other parameters are allowed.
    pub(in crate::server) fn of(call: &Call) -> Result<Selection> {
        let mut query = call.query()?;
        let globs = query.text("model")?;
        let after = query.text("after")?;
        query.finish()?;
        after.as_deref().map(id::model).transpose()?;
        if let Some(bytes) = globs.as_ref().map(String::len).filter(|bytes| *bytes > SELECTION_BYTES_MAX) {
            let detail = format!("`model` has {bytes} bytes, at most {SELECTION_BYTES_MAX} are allowed");
            return Err(Problem::bad_request(detail));
        }
        Ok(Selection { globs: globs.map(|globs| globs.split(',').map(str::to_owned).collect()), after })
    }

    fn has(&self, model: &str) -> bool {
        self.globs.as_ref().is_none_or(|globs| glob::any_matches(globs, model))
            && self.after.as_deref().is_none_or(|after| model > after)
    }
}
