//! `GET /openapi.json`: the API as an OpenAPI 3.1 document, with the models that the caller may read.
//!
//! The operations say of themselves what they are ([`super::describe`]). A document is built on the threads for long work,
//! one at a time, and kept for those who ask for the same models at the same versions.

mod document;
mod general;
mod model;
mod operation;
mod render;

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, VARY};
use snaphook_identity::glob;

use self::document::{Document, Fingerprint, bytes_expected};
pub(super) use self::general::Described;
use self::general::General;
pub(super) use self::operation::{Operation, Tag};
use self::render::Security;
use super::problem::{Problem, ProblemType, Result};
use super::reply::{Body, Reply, Response};
use super::request::Call;
use super::{id, identify, precondition};
use crate::catalog::Model;
use crate::config::Config;
use crate::memory::{Lease, MemoryBudget};

/// Documents that are kept. One may have a few MiB.
const KEPT_MAX: usize = 8;
/// Bytes of all that are kept.
const KEPT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of the parameter `model`: it is compared with the name of each model.
const SELECTION_BYTES_MAX: usize = 1000;
/// How long a client waits for its turn.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// What makes the documents of one server.
pub(super) struct OpenApi {
    shared: Arc<Shared>,
    /// Last used last.
    kept: Mutex<Vec<Arc<Document>>>,
    /// One document is built at a time.
    building: tokio::sync::Mutex<()>,
}

struct Shared {
    table: Vec<Described>,
    security: Security,
    config: Arc<Config>,
    mount_path: String,
    general: OnceLock<General>,
}

impl Shared {
    /// Made when somebody asks: most servers are never asked.
    fn general(&self) -> &General {
        self.general.get_or_init(|| General::of(&self.table, &self.config.auth, &self.mount_path))
    }
}

impl OpenApi {
    pub(super) fn new(table: Vec<Described>, config: Arc<Config>, mount_path: &str) -> OpenApi {
        let security = Security::of(&config.auth);
        let mount_path = mount_path.to_owned();
        let shared = Arc::new(Shared { table, security, config, mount_path, general: OnceLock::new() });
        OpenApi { shared, kept: Mutex::default(), building: tokio::sync::Mutex::default() }
    }

    fn kept(&self, fingerprint: Fingerprint) -> Option<Arc<Document>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.iter().position(|document| document.fingerprint == fingerprint)?;
        let document = kept.remove(at);
        kept.push(Arc::clone(&document));
        Some(document)
    }

    fn keep(&self, document: &Arc<Document>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push(Arc::clone(document));
        while kept.len() > 1
            && (kept.len() > KEPT_MAX
                || kept.iter().map(|document| document.text.len()).sum::<usize>() > KEPT_BYTES_MAX)
        {
            kept.remove(0);
        }
    }

    async fn document(&self, call: &Call, fingerprint: Fingerprint, models: Vec<Arc<Model>>) -> Result<Arc<Document>> {
        if let Some(document) = self.kept(fingerprint) {
            return Ok(document);
        }
        let turn = tokio::time::timeout(WAIT_MAX, self.building.lock()).await;
        let _turn = turn.map_err(|_| {
            Problem::new(ProblemType::Overloaded, "many other documents are to be built; try again in a moment")
        })?;
        if let Some(document) = self.kept(fingerprint) {
            return Ok(document);
        }
        let memory = lease(call.engine().memory(), bytes_expected(&models))?;
        let shared = Arc::clone(&self.shared);
        let built = call.engine().definitions.in_turn(move |effort| {
            let Shared { table, security, .. } = &*shared;
            Document::build(shared.general(), table, *security, &models, memory, effort)
        });
        let document = built.await?.map_err(|_| {
            Problem::new(ProblemType::Overloaded, "the document was not built in time; try again in a moment")
        })?;
        let document = Arc::new(document);
        self.keep(&document);
        Ok(document)
    }
}

/// Memory that no single connection stands for: others get the document, too.
fn lease(budget: &Arc<MemoryBudget>, bytes: usize) -> Result<Lease<Arc<crate::memory::Share>>> {
    let lease = Lease::of(Arc::new(budget.whole()));
    lease.grow(bytes)?;
    Ok(lease)
}

/// `GET /openapi.json`
pub(super) async fn get(call: &Call) -> Result<Response> {
    let selection = Selection::of(call)?;
    let mut models = call.engine().definitions.all();
    models.retain(|model| identify::may_read(call, &model.record.id) && selection.has(&model.record.id));
    let openapi = &call.app.openapi;
    let fingerprint = Fingerprint::of(openapi.shared.general(), &models);
    let tag = fingerprint.tag();
    let reply = |status| {
        // What is in it depends on who asks, and on what somebody else may change any moment.
        let reply = Reply::new(status).header(ETAG, &tag).fixed(CACHE_CONTROL, "private, no-cache");
        reply.fixed(VARY, "authorization")
    };
    if precondition::has_tag(call.headers(), &tag) {
        return Ok(reply(StatusCode::NOT_MODIFIED).empty());
    }
    let document = openapi.document(call, fingerprint, models).await?;
    let text = Bytes::from_owner(Kept(document));
    Ok(reply(StatusCode::OK).fixed(CONTENT_TYPE, "application/json").body(Body::Shared(text)))
}

/// A document for as long as bytes of it are sent.
struct Kept(Arc<Document>);

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.0.text
    }
}

/// Which models a client wants to see.
pub(super) struct Selection {
    globs: Option<Vec<String>>,
    after: Option<String>,
}

impl Selection {
    /// `model`, which is globs with commas between them, and `after`: all that the query may have.
    pub(super) fn of(call: &Call) -> Result<Selection> {
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
