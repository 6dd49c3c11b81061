//! Sockets: accepting, serving one connection, stopping.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};
use tower_service::Service as _;

use super::app::App;
use super::draining;
use super::io::{GuardedStream, MeteredStream, Transport};
use super::listener::{Listener, Socket, is_of_peer};
use super::modules;
use super::modules::connection::Origins;
use super::peer::{ConnectionOrigin, Peer, PeerRef, TICK};
use super::places::Places;
use super::prompt::Prompt;
use super::tls::Tls;

/// From the first byte of a request's head to its last; also how long a connection may be idle.
pub(super) const HEADER_READ_MAX: Duration = Duration::from_secs(60);

/// From a connection to the end of its TLS handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// Header lines of one request.
pub(super) const HEADERS_MAX: usize = 100;

/// Bytes of a request's head, and of what is buffered of a body that nobody reads.
pub(super) const BUFFER_BYTES_MAX: usize = 64 * 1024;

/// Requests at once on one HTTP/2 connection.
const STREAMS_MAX: u32 = 256;

/// How long to wait after accepting failed for want of descriptors or memory.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

pub(super) async fn serve(
    listener: Listener,
    tls: Option<Arc<Tls>>,
    app: Arc<App>,
    router: Router,
    connections_max: usize,
    stop: watch::Sender<bool>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let builder = builder();
    let budget = Arc::clone(app.engine.memory());
    let mut reloads = app.config.subscribe();
    let places = Places::new(connections_max);
    let mut accepted = None;
    let graceful = GracefulShutdown::new();
    let begin = |socket, address: Option<SocketAddr>, permit: Option<OwnedSemaphorePermit>| {
        let origin = ConnectionOrigin { address: address.map(|from| from.ip()), is_secure: tls.is_some() };
        let peer = Peer::of_connection(app.engine.memory(), origin);
        let place = permit.map(|permit| places.take(permit, peer.clone()));
        let (app, router) = (Arc::clone(&app), router.clone());
        let socket = match (&app.zia, socket) {
            (Some(zia), Socket::Tcp(stream)) => {
                let (zia, begun) = (Arc::clone(zia), zia.begin_connection());
                tokio::spawn(async move {
                    let _open = app.metrics.open_connection();
                    zia.serve(stream, &peer, app, router).await;
                    drop((place, begun));
                });
                return;
            }
            (_, socket) => socket,
        };
        let stream = GuardedStream::new(socket);
        let (builder, tls, watcher) = (builder.clone(), tls.clone(), graceful.watcher());
        let served = {
            let peer = peer.clone();
            async move {
                let app = &app;
                let _open = app.metrics.open_connection();
                let chain = Arc::clone(&app.modules.chain());
                let origins = Origins::of(address, tls.is_some());
                let serve = move |stream: GuardedStream<Socket>, origins: Origins| async move {
                    if let Some(stream) = secure(stream, tls.as_deref(), app).await {
                        connection(stream, peer, origins, builder, Arc::clone(app), router, watcher).await;
                    }
                };
                match chain.has_connections() {
                    // In memory of its own, which other connections do not need.
                    true => Box::pin(modules::connection::serve(stream, chain, origins, serve)).await,
                    false => {
                        drop(chain);
                        serve(stream, origins).await;
                    }
                }
            }
        };
        tokio::spawn(async move {
            tokio::select! {
                // First: what has arrived is taken before the connection counts as idle.
                biased;
                () = served => {}
                () = peer.0.closed() => tracing::debug!("an idle connection makes room for another"),
            }
            drop(place);
        });
    };
    let mut shutdown = pin!(shutdown);
    loop {
        let next = tokio::select! {
            next = next(&listener, &mut accepted, &places) => next,
            // It lives as long as the app.
            _ = reloads.changed() => {
                let config = app.config.load();
                budget.set_limit(config.server.memory_bytes);
                app.rate.set(config.server.requests_per_second);
                continue;
            }
            () = &mut shutdown => break,
        };
        match next {
            Ok((socket, address, permit)) => begin(socket, address, Some(permit)),
            // The peer was gone before we came: the next one may be well.
            Err(error) if is_of_peer(&error) => {}
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // Streams end now, and so do waits; other requests have their time.
    stop.send_replace(true);
    app.engine.answer_at_once();
    if let Some((socket, address)) = accepted {
        begin(socket, address, None);
    }
    draining::close(listener, |socket, address| begin(socket, address, None)).await;
    let in_bridge = async {
        if let Some(zia) = &app.zia {
            let _ = timeout(draining::SHUTDOWN_GRACE, zia.drained()).await;
        }
    };
    tokio::join!(draining::finish(graceful), in_bridge);
    Ok(())
}

/// The next connection, once there is a place for it; others wait in the system's queue. `accepted`: one that still waits,
/// kept when this function is given up.
async fn next(
    listener: &Listener,
    accepted: &mut Option<(Socket, Option<SocketAddr>)>,
    places: &Places,
) -> io::Result<(Socket, Option<SocketAddr>, OwnedSemaphorePermit)> {
    loop {
        if accepted.is_some() {
            let permit = places.free().await;
            if let Some((socket, address)) = accepted.take() {
                return Ok((socket, address, permit));
            }
        }
        *accepted = Some(listener.accept().await?);
    }
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_MAX)
        .max_headers(HEADERS_MAX)
        .max_buf_size(BUFFER_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(BUFFER_BYTES_MAX as u32)
        .keep_alive_interval(HEADER_READ_MAX)
        .keep_alive_timeout(HEADER_READ_MAX);
    builder
}

/// The stream that requests come from. `None`: there was no handshake, or the server stops before its end.
async fn secure(
    stream: GuardedStream<Socket>,
    tls: Option<&Tls>,
    app: &App,
) -> Option<Transport<GuardedStream<Socket>>> {
    let Some(tls) = tls else { return Some(Transport::Plain(stream)) };
    let handshake = tokio::select! {
        handshake = timeout(HANDSHAKE_MAX, tls.acceptor().accept(stream)) => handshake,
        () = draining::last_request(app.stopping.clone()) => return None,
    };
    match handshake {
        Ok(Ok(stream)) => Some(Transport::Tls(Box::new(stream))),
        Ok(Err(error)) => {
            tracing::debug!("a TLS handshake failed: {error}");
            None
        }
        Err(_) => {
            tracing::debug!("a TLS handshake took longer than {HANDSHAKE_MAX:?} and is cut off");
            None
        }
    }
}

/// A request that is worked on: until its response begins, or until its client takes it back, as HTTP/2 lets it.
struct Asked(PeerRef);

impl Asked {
    fn of(peer: &PeerRef) -> Asked {
        peer.0.begin_request();
        Asked(peer.clone())
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.0.0.end_request();
    }
}

async fn connection(
    stream: Transport<GuardedStream<Socket>>,
    peer: PeerRef,
    origins: Origins,
    builder: auto::Builder<TokioExecutor>,
    app: Arc<App>,
    router: Router,
    watcher: Watcher,
) {
    let origins = Arc::new(origins);
    let service = service_fn({
        let peer = peer.clone();
        move |mut request: Request<Incoming>| {
            let asked = Asked::of(&peer);
            request.extensions_mut().insert(peer.clone());
            let mut router = router.clone();
            let chain = app.modules.chain();
            let through = match chain.is_empty() {
                true => None,
                false => Some((Arc::clone(&chain), Arc::clone(&app), Arc::clone(&origins))),
            };
            async move {
                let response = match through {
                    // It is always ready.
                    None => router.call(request).await,
                    Some((chain, app, origins)) => {
                        let connection = origins.connection();
                        let (at, served) = (asked.0.clone(), modules::request::serve);
                        // In memory of its own, which requests without modules do not need.
                        Ok(Box::pin(served(app, router, chain, connection, at, request)).await)
                    }
                };
                drop(asked);
                response
            }
        }
    });
    let stream = TokioIo::new(MeteredStream::new(stream, peer.clone()));
    let connection = builder.serve_connection(stream, service).into_owned();
    let connection = pin!(watcher.watch(connection));
    let mut connection = Prompt::new(connection);
    let started = Instant::now();
    let mut ticks = interval_at(started + TICK, TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let served = loop {
        tokio::select! {
            biased;
            served = &mut connection => break served,
            _ = ticks.tick() => {
                if peer.0.tick() {
                    tracing::debug!("a connection is cut off: its peer does not take a response");
                    return;
                }
                // hyper's own clock starts once it knows which version the peer speaks; a peer that does not say is ours.
                if peer.0.requests().0 == 0 && started.elapsed() >= HEADER_READ_MAX {
                    return;
                }
            }
        }
    };
    if let Err(error) = served {
        tracing::debug!("a connection ended early: {error}");
    }
}
