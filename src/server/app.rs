//! The state shared by all requests.

use std::sync::Arc;

use snaphook_identity::{Identity, RateLimit, Tokens};
use tokio::sync::watch;

use super::denials::Denials;
use super::etag::LogMark;
use super::metrics::RequestMetrics;
use super::modules::Modules;
use super::openapi::OpenApi;
use super::request_id::RequestIds;
use super::sse::FrameCache;
use super::static_files::StaticFiles;
use super::zia::Bridge as ZiaBridge;
use crate::config::ConfigHandle;
use crate::engine::Engine;

/// One server.
pub(super) struct App {
    pub(super) engine: Arc<Engine>,
    pub(super) identity: Identity,
    pub(super) tokens: Arc<Tokens>,
    pub(super) rate: RateLimit,
    pub(super) denials: Denials,
    /// Without a trailing `/`: empty if the API is mounted at the root.
    pub(super) mount_path: String,
    pub(super) config: Arc<ConfigHandle>,
    pub(super) metrics: RequestMetrics,
    pub(super) request_ids: RequestIds,
    pub(super) frames: FrameCache,
    /// The modules that requests pass first.
    pub(super) modules: Arc<Modules>,
    pub(super) openapi: OpenApi,
    /// Served where the API has no path.
    pub(super) files: Option<StaticFiles>,
    /// In entity tags.
    pub(super) log: LogMark,
    /// Where modules with `kind = 'zia'` run.
    pub(super) zia: Option<Arc<ZiaBridge>>,
    /// Becomes `true` when the server stops, which ends endless work.
    pub(super) stopping: watch::Receiver<bool>,
}

impl App {
    /// The current `server.max-body`.
    pub(super) fn max_body_bytes(&self) -> usize {
        self.config.load().server.max_body_bytes
    }
}
