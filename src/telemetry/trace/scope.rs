//! On behalf of what the current task works: a request's id, and its place in a trace. The log and new spans read it here.
//!
//! A task that neither logs as JSON nor is traced has none, and then this costs a look at a task-local.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::context::TraceContext;
use super::recording::Recording;

tokio::task_local! {
    static CURRENT: Option<Arc<Scope>>;
}

/// What a task works for.
#[derive(Debug, Default)]
pub struct Scope {
    pub(super) request_id: Option<Arc<str>>,
    pub(super) trace: Option<TraceContext>,
    /// Of a trace whose spans are kept.
    pub(super) recording: Option<Recording>,
}

impl Scope {
    pub fn request_id(&self) -> Option<&str> {
        self.request_id.as_deref()
    }

    /// The parent of what happens here.
    pub fn trace(&self) -> Option<&TraceContext> {
        self.trace.as_ref()
    }
}

/// Whether lines of the log say which request they belong to.
static ARE_IDS_LOGGED: AtomicBool = AtomicBool::new(false);

/// From now on they do.
pub fn log_ids() {
    ARE_IDS_LOGGED.store(true, Ordering::Relaxed);
}

pub fn are_ids_logged() -> bool {
    ARE_IDS_LOGGED.load(Ordering::Relaxed)
}

impl Scope {
    /// Of a request that is not traced.
    pub fn of_request(request_id: Arc<str>) -> Scope {
        Scope { request_id: Some(request_id), ..Scope::default() }
    }
}

/// That of the current task.
pub fn current() -> Option<Arc<Scope>> {
    CURRENT.try_with(Option::clone).ok().flatten()
}

/// Looks at that of the current task.
pub fn look<T>(look: impl FnOnce(&Scope) -> T) -> Option<T> {
    CURRENT.try_with(|scope| scope.as_deref().map(look)).ok().flatten()
}

/// Runs work for `scope`. What the work spawns has none unless it is given one.
pub fn within<F: Future>(scope: Option<Arc<Scope>>, work: F) -> impl Future<Output = F::Output> {
    CURRENT.scope(scope, work)
}

/// Runs work on a thread for `scope`.
pub fn on_thread<T>(scope: Option<Arc<Scope>>, work: impl FnOnce() -> T) -> T {
    CURRENT.sync_scope(scope, work)
}

/// Where an event that is written now belongs, as it is kept with the event: what follows from it may happen elsewhere, much
/// later.
pub fn trace_of_event() -> Option<String> {
    look(|scope| scope.trace.as_ref().map(TraceContext::to_text)).flatten()
}
