//! The REST API: HTTP/1.1 and HTTP/2 on one plain socket, events over SSE, metrics.
//!
//! A request's way: [`connection`] (sockets, timeouts, shutdown) → [`router`] (one table of routes; panics end there) →
//! one file per resource → the engine. Whatever goes wrong becomes a [`problem::Problem`], and only there a status.
//! Only this layer knows HTTP.

mod accept;
mod app;
mod backup;
mod batch;
mod body;
mod connection;
mod descriptors;
mod errors;
mod etag;
mod event;
mod events;
mod health;
mod hooks;
mod id;
mod import;
mod instances;
mod io;
mod jobs;
mod json;
mod list;
mod metrics;
mod models;
mod nodes;
mod peer;
mod place;
mod plugins;
mod precondition;
mod prefer;
mod problem;
mod problem_document;
mod projection;
mod prompt;
mod query;
mod rebuild;
mod reply;
mod request;
mod request_id;
mod router;
mod secrets;
mod seen;
mod sites;
mod sse;

use std::future::Future;
use std::io as std_io;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::watch;

use self::app::App;
use crate::config::ConfigHandle;
use crate::engine::Engine;

/// Serves until `shutdown` is ready; then takes no new connection, lets requests that run finish within
/// [`connection::SHUTDOWN_GRACE`], and returns. The engine is left open.
pub async fn run(
    listener: TcpListener,
    engine: Arc<Engine>,
    config: &Arc<ConfigHandle>,
    shutdown: impl Future<Output = ()>,
) -> std_io::Result<()> {
    let connections_max = descriptors::raise_limit();
    let (stop, stopping) = watch::channel(false);
    let app = Arc::new(App {
        log: etag::LogMark::of(engine.history.log()),
        engine,
        mount_path: config.load().server.mount_path.trim_end_matches('/').to_owned(),
        config: Arc::clone(config),
        metrics: metrics::RequestMetrics::default(),
        request_ids: request_id::RequestIds::new(),
        frames: sse::FrameCache::default(),
        stopping,
    });
    connection::serve(listener, app, connections_max, stop, shutdown).await
}
