//! A cache of documents, for requests with the same models at the same versions. New ones are built on the worker
//! threads, one at a time.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::document::{Fingerprint, OpenApiDocument, bytes_expected};
use super::general::{Described, General};
use super::render::Security;
use crate::catalog::Model;
use crate::config::Config;
use crate::engine::Engine;
use crate::memory::{Lease, MemoryBudget, Share};
use crate::server::problem::{Problem, ProblemType, Result};

/// Maximum number of cached documents. One may have a few MiB.
const KEPT_MAX: usize = 8;
/// Bytes of all cached documents.
const KEPT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How long a client waits for its turn.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// The builder of a server's documents.
pub(in crate::server) struct OpenApi {
    shared: Arc<DocumentInputs>,
    /// Last used last.
    kept: Mutex<Vec<Arc<OpenApiDocument>>>,
    /// One document is built at a time.
    building: tokio::sync::Mutex<()>,
}

struct DocumentInputs {
    table: Vec<Described>,
    security: Security,
    config: Arc<Config>,
    mount_path: String,
    general: OnceLock<General>,
}

impl DocumentInputs {
    /// Created on demand, because most servers never need it.
    fn general(&self) -> &General {
        self.general.get_or_init(|| General::of(&self.table, &self.config.auth, &self.mount_path))
    }
}

impl OpenApi {
    pub(in crate::server) fn new(table: Vec<Described>, config: Arc<Config>, mount_path: &str) -> OpenApi {
        let security = Security::of(&config.auth);
        let mount_path = mount_path.to_owned();
        let shared = Arc::new(DocumentInputs { table, security, config, mount_path, general: OnceLock::new() });
        OpenApi { shared, kept: Mutex::default(), building: tokio::sync::Mutex::default() }
    }

    /// The fingerprint of the document of these models.
    pub(super) fn fingerprint(&self, models: &[Arc<Model>]) -> Fingerprint {
        Fingerprint::of(self.shared.general(), models)
    }

    fn kept(&self, fingerprint: Fingerprint) -> Option<Arc<OpenApiDocument>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.iter().position(|document| document.fingerprint == fingerprint)?;
        let document = kept.remove(at);
        kept.push(Arc::clone(&document));
        Some(document)
    }

    fn keep(&self, document: &Arc<OpenApiDocument>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push(Arc::clone(document));
        while kept.len() > 1
            && (kept.len() > KEPT_MAX
                || kept.iter().map(|document| document.text.len()).sum::<usize>() > KEPT_BYTES_MAX)
        {
            kept.remove(0);
        }
    }

    /// The document of these models, which are sorted by id.
    pub(super) async fn document(
        &self,
        engine: &Engine,
        fingerprint: Fingerprint,
        models: Vec<Arc<Model>>,
    ) -> Result<Arc<OpenApiDocument>> {
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
        let memory = lease(engine.memory(), bytes_expected(&models))?;
        let shared = Arc::clone(&self.shared);
        let built = engine.definitions.in_turn(move |effort| {
            let DocumentInputs { table, security, .. } = &*shared;
            OpenApiDocument::build(shared.general(), table, *security, &models, memory, effort)
        });
        let document = built.await?.map_err(|_| {
            Problem::new(ProblemType::Overloaded, "the document was not built in time; try again in a moment")
        })?;
        let document = Arc::new(document);
        self.keep(&document);
        Ok(document)
    }
}

/// Not charged to a single connection, because others get the document, too.
fn lease(budget: &Arc<MemoryBudget>, bytes: usize) -> Result<Lease<Arc<Share>>> {
    let lease = Lease::of(Arc::new(budget.whole()));
    lease.grow(bytes)?;
    Ok(lease)
}
