//! Sockets: accepting, serving one connection, stopping.

use std::future::Future;
use std::io;
use std::net::IpAddr;
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
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};
use tower_service::Service as _;

use super::app::App;
use super::io::{GuardedStream, MeteredStream, Transport};
use super::listener::{Listener, Socket};
use super::metrics::OpenConnection;
use super::peer::{ConnectionOrigin, Peer, TICK};
use super::prompt::Prompt;
use super::tls::Tls;

/// How long requests may go on after the server was told to stop.
pub(super) const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);

/// From the first byte of a request's head to its last; also how long a connection may be idle.
const HEADER_READ_MAX: Duration = Duration::from_secs(60);

/// From a connection to the end of its TLS handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// Header lines of one request.
const HEADERS_MAX: usize = 100;

/// Bytes of a request's head, and of what is buffered of a body that nobody reads.
const BUFFER_BYTES_MAX: usize = 64 * 1024;

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
    let places = Arc::new(Semaphore::new(connections_max));
    let graceful = GracefulShutdown::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &places) => accepted,
            // It lives as long as the app.
            _ = reloads.changed() => {
                let config = app.config.load();
                budget.set_limit(config.server.memory_bytes);
                app.rate.set(config.server.requests_per_second);
                continue;
            }
            () = &mut shutdown => break,
        };
        match accepted {
            Ok((socket, address, place)) => {
                let stream = GuardedStream::new(socket);
                let (builder, tls, app, router) = (builder.clone(), tls.clone(), Arc::clone(&app), router.clone());
                let watcher = graceful.watcher();
                tokio::spawn(async move {
                    let _open = OpenConnection::new(&app);
                    if let Some(stream) = secure(stream, tls.as_deref(), &app).await {
                        connection(stream, address, builder, app, router, watcher).await;
                    }
                    drop(place);
                });
            }
            // The peer was gone before we came: the next one may be well.
            Err(error) if is_of_peer(&error) => {}
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    // Streams end now; other requests have their time.
    stop.send_replace(true);
    let connections = graceful.count();
    if timeout(SHUTDOWN_GRACE, graceful.shutdown()).await.is_err() {
        tracing::warn!("some of {connections} connections were still busy after {SHUTDOWN_GRACE:?} and are cut off");
    }
    Ok(())
}

/// The next connection. Beyond the bound they wait in the system's queue.
async fn accept(
    listener: &Listener,
    places: &Arc<Semaphore>,
) -> io::Result<(Socket, Option<IpAddr>, Option<OwnedSemaphorePermit>)> {
    // It is never closed.
    let place = Arc::clone(places).acquire_owned().await.ok();
    let (socket, address) = listener.accept().await?;
    Ok((socket, address, place))
}

pub(super) fn is_of_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
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
    let mut stopping = app.stopping.clone();
    let handshake = tokio::select! {
        handshake = timeout(HANDSHAKE_MAX, tls.acceptor().accept(stream)) => handshake,
        _ = stopping.wait_for(|stopping| *stopping) => return None,
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

async fn connection(
    stream: Transport<GuardedStream<Socket>>,
    address: Option<IpAddr>,
    builder: auto::Builder<TokioExecutor>,
    app: Arc<App>,
    router: Router,
    watcher: Watcher,
) {
    let origin = ConnectionOrigin { address, is_secure: matches!(stream, Transport::Tls(_)) };
    let peer = Peer::of_connection(app.engine.memory(), origin);
    let service = service_fn({
        let peer = peer.clone();
        move |mut request: Request<Incoming>| {
            peer.0.begin_request();
            request.extensions_mut().insert(peer.clone());
            let (mut router, peer) = (router.clone(), peer.clone());
            async move {
                // It is always ready.
                let response = router.call(request).await;
                peer.0.end_request();
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
