//! The REST API: HTTP/1.1 and HTTP/2 on one address, in the clear or over TLS, events over SSE, metrics.
//!
//! A request's way: [`connection`] (sockets, timeouts, shutdown) → axum's router, made of one table ([`routes`]) →
//! [`endpoint`] (what holds for every operation; panics end there) → one file per resource → the engine. Whatever goes wrong
//! becomes a [`problem::Problem`], and only there a status. Only this layer knows HTTP.

mod about;
mod accept;
mod app;
mod audit;
mod backup;
mod batch;
mod body;
mod connection;
mod cors;
mod custom;
mod denials;
mod describe;
mod descriptors;
mod docs;
mod draining;
mod endpoint;
mod errors;
mod etag;
mod event;
mod events;
mod expand;
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
mod log_position;
mod metrics;
mod models;
mod modules;
mod mounting;
mod needs;
mod nodes;
mod openapi;
mod peer;
mod places;
mod plugins;
mod precondition;
mod prefer;
mod problem;
mod problem_document;
mod projection;
mod prompt;
mod query;
mod readable;
mod rebuild;
mod redirect;
#[cfg(test)]
mod reference_tests;
mod reply;
mod request;
mod request_id;
mod request_log;
mod routes;
mod secrets;
mod seen;
mod sites;
mod sse;
mod static_files;
mod tls;
mod tokens;
mod traced;
#[cfg(unix)]
mod unix_socket;
#[cfg(target_os = "linux")]
mod zia;
#[cfg(not(target_os = "linux"))]
#[path = "zia/elsewhere.rs"]
mod zia;

use std::future::Future;
use std::io as std_io;
use std::sync::Arc;

use snaphook_identity::{Identity, Oidc, RateLimit, Tokens};
use tokio::sync::watch;

use self::app::App;
pub use self::listener::{BoundSockets, Listeners, bind};
pub use self::modules::Modules;
pub use self::mounting::check as check_endpoints;
pub use self::static_files::check as check_static_files;
pub use self::tls::{Tls, check as check_tls};
pub use self::zia::Bridge as ZiaBridge;
use crate::config::{AuthConfig, AuthMode, Config, ConfigError, ConfigErrors, ConfigHandle};
use crate::engine::Engine;

/// The processing of connections before a request is read.
pub struct Front {
    pub tls: Option<Arc<Tls>>,
    pub zia: Option<Arc<ZiaBridge>>,
}

/// Serves until `shutdown` is ready; then accepts no new connections, lets running requests finish within
/// [`draining::SHUTDOWN_GRACE`], and returns. The engine stays open.
pub async fn run(
    listeners: Listeners,
    Front { tls, zia }: Front,
    modules: Arc<Modules>,
    engine: Arc<Engine>,
    tokens: Arc<Tokens>,
    config: &Arc<ConfigHandle>,
    shutdown: impl Future<Output = ()>,
) -> std_io::Result<()> {
    let port = listeners.address(&config.load()).port();
    let connections_max = descriptors::raise_limit().min(config.load().server.connections_max);
    let (stop, stopping) = watch::channel(false);
    let identity = identity(&config.load().auth, &tokens).map_err(std_io::Error::other)?;
    let table = routes::table();
    let mount_path = config.load().server.mount_path.trim_end_matches('/').to_owned();
    let openapi = openapi::OpenApi::new(routes::described(&table), config.current(), &mount_path);
    let app = Arc::new(App {
        log: etag::LogMark::of(engine.history.log()),
        engine,
        identity,
        tokens,
        denials: denials::Denials::default(),
        rate: RateLimit::new(config.load().server.requests_per_second),
        mount_path,
        config: Arc::clone(config),
        metrics: metrics::RequestMetrics::new(table.iter().map(|path| (path.template(), path.metrics()))),
        request_ids: request_id::RequestIds::new(),
        frames: sse::FrameCache::default(),
        modules: Arc::clone(&modules),
        openapi,
        files: config.load().server.static_files.as_ref().map(static_files::StaticFiles::new),
        zia,
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
    let (zia_over, zia_stop) = watch::channel(false);
    let keeping =
        app.zia.clone().map(|zia| tokio::spawn(zia.keep(Arc::clone(config), Arc::clone(&app.engine), zia_stop)));
    let following = modules.follow(Arc::clone(config), Arc::clone(&app.engine));
    let follow_modules = tokio::spawn(following);
    if let (Some(redirect), Some(tls), Some(port)) = (listeners.redirect, &tls, port) {
        tokio::spawn(redirect::serve(redirect, Arc::clone(tls), port, app.stopping.clone()));
    }
    let served = connection::serve(listeners.mount, tls, app, router, connections_max, stop, shutdown).await;
    endpoints.abort();
    if let Some(follow) = follow {
        follow.abort();
    }
    zia_over.send_replace(true);
    if let Some(keeping) = keeping {
        // It never panics, and has its own deadlines.
        let _ = keeping.await;
    }
    follow_modules.abort();
    served
}

/// Sets up authentication according to `[auth]`. An error names the invalid setting.
fn identity(auth: &AuthConfig, tokens: &Arc<Tokens>) -> Result<Identity, String> {
    match auth.mode {
        AuthMode::Open => Ok(Identity::open()),
        AuthMode::Tokens => {
            let oidc = auth.oidc.as_ref().map(Oidc::new).transpose()?.map(Arc::new);
            Ok(Identity::with_tokens(Arc::clone(tokens), oidc, Arc::default()))
        }
    }
}

/// Checks, before anything is started, that modules with `kind = 'zia'` can run.
pub fn check_zia(config: &Config) -> Result<(), ConfigErrors> {
    let Some(first) = config.server.modules.iter().find(|module| module.kind.is_zia()) else { return Ok(()) };
    let fault = |message| ConfigErrors::new(config.name(), vec![ConfigError::new(first.line, message)]);
    zia::find(&config.server.zia_bridge).map(|_| ()).map_err(fault)
}
