//! Sockets: accepting, serving one connection, stopping.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};
use tower_service::Service as _;

use super::app::App;
use super::io::GuardedStream;
use super::peer::{Peer, TICK};
use super::prompt::Prompt;

/// How long requests may go on after the server was told to stop.
pub(super) const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);

/// From the first byte of a request's head to its last; also how long a connection may be idle.
const HEADER_READ_MAX: Duration = Duration::from_secs(60);

/// Header lines of one request.
const HEADERS_MAX: usize = 100;

/// Bytes of a request's head, and of what is buffered of a body that nobody reads.
const BUFFER_BYTES_MAX: usize = 64 * 1024;

/// Requests at once on one HTTP/2 connection.
const STREAMS_MAX: u32 = 256;

/// How long to wait after accepting failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

pub(super) async fn serve(
    listener: TcpListener,
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
                budget.set_limit(app.config.load().server.memory_bytes);
                continue;
            }
            () = &mut shutdown => break,
        };
        match accepted {
            Ok((stream, place)) => {
                let connection =
                    connection(stream, builder.clone(), Arc::clone(&app), router.clone(), graceful.watcher());
                tokio::spawn(async move {
                    connection.await;
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
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, Option<OwnedSemaphorePermit>)> {
    // It is never closed.
    let place = Arc::clone(places).acquire_owned().await.ok();
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}

fn is_of_peer(error: &io::Error) -> bool {
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

async fn connection(
    stream: TcpStream,
    builder: auto::Builder<TokioExecutor>,
    app: Arc<App>,
    router: Router,
    watcher: Watcher,
) {
    // Answers are small and complete: waiting to fill a packet only costs time.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let peer =
        Peer::of_connection(app.engine.memory(), stream.peer_addr().ok().map(|address| address.ip().to_canonical()));
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
    let connection = builder.serve_connection(GuardedStream::new(stream, peer.clone()), service).into_owned();
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
