//! The REST API: HTTP/1.1 and HTTP/2 on one address, in the clear or over TLS, events over SSE, metrics.
//!
//! A request's way: [`connection`] (sockets, timeouts, shutdown) → axum's router, made of one table ([`routes`]) →
//! [`endpoint`] (what holds for every operation; panics end there) → one file per resource → the engine. Whatever goes wrong
//! becomes a [`problem::Problem`], and only there a status. Only this layer knows HTTP.

mod accept;
mod app;
mod audit;
mod backup;
mod batch;
mod body;
mod connection;
mod cors;
mod custom;
mod descriptors;
mod endpoint;
mod errors;
mod etag;
mod event;
mod events;
mod forwarded;
mod health;
mod hooks;
mod id;
mod identify;
mod import;
mod instances;
mod io;
mod jobs;
mod json;
mod list;
mod listener;
mod metrics;
mod models;
mod mounting;
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
mod redirect;
mod reply;
mod request;
mod request_id;
mod routes;
mod secrets;
mod seen;
mod sites;
mod sse;
mod static_files;
mod tls;
mod tokens;
#[cfg(unix)]
mod unix_socket;

use std::future::Future;
use std::io as std_io;
use std::sync::Arc;

use snaphook_identity::{Identity, Oidc, RateLimit, Tokens};
use tokio::sync::watch;

use self::app::App;
pub use self::listener::{BoundSockets, Listeners, bind};
pub use self::mounting::check as check_endpoints;
pub use self::static_files::check as check_static_files;
pub use self::tls::{Tls, check as check_tls};
use crate::config::{AuthConfig, AuthMode, ConfigHandle};
use crate::engine::Engine;

/// Serves until `shutdown` is ready; then takes no new connection, lets requests that run finish within
/// [`connection::SHUTDOWN_GRACE`], and returns. The engine is left open.
pub async fn run(
    listeners: Listeners,
    tls: Option<Arc<Tls>>,
    engine: Arc<Engine>,
    tokens: Arc<Tokens>,
    config: &Arc<ConfigHandle>,
    shutdown: impl Future<Output = ()>,
) -> std_io::Result<()> {
    if let Some(module) = config.load().server.modules.first() {
        let message =
            format!("this version cannot run modules yet, such as `{}`; remove `[[server.modules]]`", module.name);
        return Err(std_io::Error::other(message));
    }
    let port = listeners.address(&config.load()).port();
    let connections_max = descriptors::raise_limit().min(config.load().server.connections_max);
    let (stop, stopping) = watch::channel(false);
    let identity = identity(&config.load().auth, &tokens).map_err(std_io::Error::other)?;
    let table = routes::table();
    let app = Arc::new(App {
        log: etag::LogMark::of(engine.history.log()),
        engine,
        identity,
        tokens,
        denials: audit::Denials::default(),
        rate: RateLimit::new(config.load().server.requests_per_second),
        mount_path: config.load().server.mount_path.trim_end_matches('/').to_owned(),
        config: Arc::clone(config),
        metrics: metrics::RequestMetrics::new(table.iter().map(|path| (path.template(), path.metrics()))),
        request_ids: request_id::RequestIds::new(),
        frames: sse::FrameCache::default(),
        files: config.load().server.static_files.as_ref().map(static_files::StaticFiles::new),
        stopping,
    });
    let mut router = routes::router(table, &app.mount_path).with_state(Arc::clone(&app));
    if let Some(allowed) = &config.load().server.cors {
        router = router.layer(cors::layer(allowed));
    }
    let endpoints = tokio::spawn(Arc::clone(app.engine.endpoints()).follow(Arc::clone(config)));
    let follow = tls.as_ref().map(|tls| {
        let following = Arc::clone(tls).follow(Arc::clone(config), Arc::clone(&app.engine));
        tokio::spawn(following)
    });
    if let (Some(redirect), Some(tls), Some(port)) = (listeners.redirect, &tls, port) {
        tokio::spawn(redirect::serve(redirect, Arc::clone(tls), port, app.stopping.clone()));
    }
    let served = connection::serve(listeners.mount, tls, app, router, connections_max, stop, shutdown).await;
    endpoints.abort();
    if let Some(follow) = follow {
        follow.abort();
    }
    served
}

/// How callers are told apart, as `[auth]` says. An error names the setting that cannot work.
fn identity(auth: &AuthConfig, tokens: &Arc<Tokens>) -> Result<Identity, String> {
    match auth.mode {
        AuthMode::Open => Ok(Identity::open()),
        AuthMode::Tokens => {
            let oidc = auth.oidc.as_ref().map(Oidc::new).transpose()?.map(Arc::new);
            Ok(Identity::with_tokens(Arc::clone(tokens), oidc, Arc::default()))
        }
    }
}
