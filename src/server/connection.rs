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
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};
use tower_service::Service as _;

use super::app::App;
use super::draining::{self, Connections, Ending};
use super::io::{GuardedStream, MeteredStream, Transport};
use super::listener::{Listener, Socket, is_of_peer};
use super::modules;
use super::modules::connection::Origins;
use super::peer::{ConnectionOrigin, Peer, PeerRef, TICK};
use super::places::Places;
use super::prompt::Prompt;
use super::tls::Tls;

/// Time from the first to the last byte of a request's head; also the idle time of a connection.
pub(super) const HEADER_READ_MAX: Duration = Duration::from_secs(60);

/// Time from the connection to the end of its TLS handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// Maximum number of header lines of one request.
pub(super) const HEADERS_MAX: usize = 100;

/// Maximum bytes of a request's head, and of the buffered part of an unread body.
pub(super) const BUFFER_BYTES_MAX: usize = 64 * 1024;

/// Concurrent requests on one HTTP/2 connection.
const STREAMS_MAX: u32 = 256;

/// Pause after accepting failed because of a lack of descriptors or memory.
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
    let connections = Connections::new();
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
        let (builder, tls, ending) = (builder.clone(), tls.clone(), connections.open());
        let served = {
            let peer = peer.clone();
            async move {
                let app = &app;
                let _open = app.metrics.open_connection();
                let chain = Arc::clone(&app.modules.chain());
                let origins = Origins::of(address, tls.is_some());
                let given_out = chain.has_connections().then(|| modules::request::memory_of(&peer));
                let serve = move |stream: GuardedStream<Socket>, origins: Origins| async move {
                    if let Some(stream) = secure(stream, tls.as_deref(), app).await {
                        connection(stream, peer, origins, builder, Arc::clone(app), router, ending).await;
                    }
                };
                match given_out {
                    // Boxed, because most connections do not need it.
                    Some(given_out) => {
                        Box::pin(modules::connection::serve(stream, chain, origins, given_out, serve)).await;
                    }
                    None => {
                        drop(chain);
                        serve(stream, origins).await;
                    }
                }
            }
        };
        tokio::spawn(async move {
            tokio::select! {
                // First: arrived data is read before the connection counts as idle.
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
            // The peer disconnected before it was accepted: continue with the next one.
            Err(error) if is_of_peer(&error) => {}
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // Streams and waits end now; other requests have their full time.
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
    tokio::join!(draining::finish(connections), in_bridge);
    Ok(())
}

/// The next connection, once it has a permit; others wait in the system's queue. `accepted`: an accepted connection
/// without a permit, kept if this future is dropped.
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

/// The stream of requests. `None`: the handshake failed, or the server stopped before its end.
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

/// A request in progress: until its response begins, or until its client cancels it, as HTTP/2 allows.
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
    mut ending: Ending,
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
                        // Boxed, because requests without modules do not need it.
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
    let connection = pin!(connection);
    let mut connection = Prompt::new(connection);
    let mut end = pin!(ending.come(&peer.0));
    let mut is_last = false;
    let started = Instant::now();
    let mut ticks = interval_at(started + TICK, TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let served = loop {
        tokio::select! {
            biased;
            served = &mut connection => break served,
            () = &mut end, if !is_last => {
                is_last = true;
                connection.get_mut().as_mut().graceful_shutdown();
            }
            _ = ticks.tick() => {
                if peer.0.tick() {
                    tracing::debug!("a connection is cut off: its peer does not accept a response");
                    return;
                }
                // hyper's own timer starts once it knows the HTTP version; until then this one applies.
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
