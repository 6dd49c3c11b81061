//! Sockets: accepting, TLS, serving, stopping. Their number is limited, and idle ones are closed soon.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::limits::HostLimits;
use super::stalling::StallingStream;

const HEADERS_MAX: usize = 64;
const BUFFER_BYTES_MAX: usize = 64 * 1024;

/// After the stop, requests in progress get this long.
pub(super) const GRACE: Duration = Duration::from_secs(5);

/// How long to wait after accepting failed for lack of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `stop` is done. Requests that are still in progress after [`GRACE`] are cut off.
pub(super) async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    limits: HostLimits,
    router: Router,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let permits = Arc::new(Semaphore::new(limits.connections));
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = async {
                // The semaphore is never closed.
                let permit = Arc::clone(&permits).acquire_owned().await.ok();
                (listener.accept().await, permit)
            } => accepted,
            // Remove ended connections.
            Some(_) = connections.join_next() => continue,
            () = &mut stop => break,
        };
        match accepted {
            (Ok((stream, _)), permit) => {
                let connection = connection(stream, tls.clone(), limits, router.clone(), graceful.watcher());
                connections.spawn(async move {
                    connection.await;
                    drop(permit);
                });
            }
            (Err(error), _) => {
                tracing::debug!("cannot accept a connection: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let _ = tokio::time::timeout(GRACE, graceful.shutdown()).await;
    connections.shutdown().await;
    Ok(())
}

async fn connection(stream: TcpStream, tls: Option<TlsAcceptor>, limits: HostLimits, router: Router, watcher: Watcher) {
    // Without this, each response may wait for an acknowledgement; if it fails, responses are only slower.
    let _ = stream.set_nodelay(true);
    let stream = StallingStream::new(stream, limits.write_time);
    let Some(tls) = tls else { return serve_stream(stream, limits, router, watcher).await };
    match tokio::time::timeout(limits.handshake_time, tls.accept(stream)).await {
        Ok(Ok(stream)) => serve_stream(stream, limits, router, watcher).await,
        Ok(Err(error)) => tracing::debug!("a TLS handshake failed: {error}"),
        Err(_) => tracing::debug!("a TLS handshake timed out"),
    }
}

async fn serve_stream(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    limits: HostLimits,
    router: Router,
    watcher: Watcher,
) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_time)
        .max_headers(HEADERS_MAX)
        .max_buf_size(BUFFER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // A broken connection only concerns the client.
    let _ = watcher.watch(connection).await;
}
