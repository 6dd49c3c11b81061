//! A connection that the bridge serves: passes it to the bridge, and responds to the request that the bridge sends.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustix::net::{RecvFlags, Shutdown, recv};
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tower_service::Service as _;

use super::message::Order;
use super::supervisor::{Bridge, CONNECTIONS};
use super::threads::Thread;
use crate::server::app::App;
use crate::server::connection::{BUFFER_BYTES_MAX, HEADER_READ_MAX, HEADERS_MAX};
use crate::server::draining;
use crate::server::modules;
use crate::server::modules::connection::Origins;
use crate::server::modules::request::{Unguarded, is_vital};
use crate::server::peer::{ConnectionOrigin, Peer, PeerRef, TICK};
use crate::server::problem::{Problem, ProblemType};
use crate::server::problem_document;

/// The first byte of a TLS connection; no request begins with it.
const TLS_HANDSHAKE: u8 = 22;

/// How many bytes of a head to wait for; the bridge reads a longer one.
const HEAD_BYTES: usize = 8 * 1024;

/// How long a connection waits for a thread of the bridge, or for a bridge.
const BRIDGE_WAIT_MAX: Duration = Duration::from_secs(5);

/// How many headers modules may add.
const HEADERS_OF_MODULES: usize = 100;

/// Time limit for a response of the server itself, including the rest that the client sends.
const REFUSAL_MAX: Duration = Duration::from_secs(5);

impl Bridge {
    /// Serves an accepted connection until the bridge has finished with it.
    pub(in crate::server) async fn serve(&self, stream: TcpStream, place: &PeerRef, app: Arc<App>, router: Router) {
        let Some(first) = first_byte(&stream, place, &app).await else { return };
        // From here on it is not idle.
        place.0.begin_request();
        let Ok(peer) = stream.peer_addr() else { return };
        let is_secure = first == TLS_HANDSHAKE;
        let is_proxy = app.config.load().server.trusted_proxies.trusts(Some(peer.ip()));
        match self.hand_over(&stream, peer, is_secure, (!is_proxy).then(|| peer.ip())).await {
            Ok((api, _thread)) => {
                drop(stream);
                if let Err(error) = answer(api, peer, is_secure, app, router).await {
                    tracing::debug!("a connection of the bridge ended early: {error}");
                }
            }
            // A client that waits for TLS could not read a response.
            Err(_) if is_secure => {}
            Err(reason) => {
                if let Ok(Err(error)) = timeout(REFUSAL_MAX, refuse(stream, peer, reason, app, router)).await {
                    tracing::debug!("a connection ended before it was rejected: {error}");
                }
            }
        }
    }

    /// A permit to be held while a connection is open.
    pub(in crate::server) fn begin_connection(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.open).try_acquire_owned().ok()
    }

    /// Waits until all connections have ended.
    pub(in crate::server) async fn drained(&self) {
        // It is never closed.
        let _ = self.open.acquire_many(CONNECTIONS).await;
    }

    /// Passes a connection to the bridge. Returns the server's end of the socket pair and the permit for a thread, or why
    /// that failed. `client`: the address that the connection counts for.
    async fn hand_over(
        &self,
        stream: &TcpStream,
        peer: SocketAddr,
        is_secure: bool,
        client: Option<IpAddr>,
    ) -> Result<(StdUnixStream, Thread), String> {
        if let Some(refusal) = self.refusal() {
            return Err(refusal);
        }
        let busy = || "the modules of the server are busy".to_owned();
        let thread = timeout(BRIDGE_WAIT_MAX, self.threads.take(client)).await.map_err(|_| busy())?;
        let mut control = self.control.subscribe();
        let control = timeout(BRIDGE_WAIT_MAX, control.wait_for(Option::is_some)).await;
        let control = control.ok().and_then(Result::ok).and_then(|control| control.clone());
        let control = control.ok_or("the modules of the server are not running")?;
        let failed = |error: io::Error| format!("the modules of the server cannot be reached: {error}");
        let (own, other) = StdUnixStream::pair().map_err(failed)?;
        own.set_nonblocking(true).map_err(failed)?;
        let order = Order::connection(peer, is_secure);
        control.send_with(&order, &[stream.as_fd(), other.as_fd()]).await.map_err(failed)?;
        Ok((own, thread))
    }
}

/// Waits, without consuming bytes, until the client has sent a head or the start of a handshake, so that slow clients use
/// no thread of the bridge. Returns the first byte; `None` if none came in time, or the server stops or needs the permit
/// first.
async fn first_byte(stream: &TcpStream, place: &PeerRef, app: &App) -> Option<u8> {
    tokio::select! {
        // Biased: bytes that have arrived come before the connection counts as idle.
        biased;
        looked = timeout(HEADER_READ_MAX, peeked(stream)) => looked.ok()?.ok()?,
        () = draining::last_request(app.stopping.clone()) => None,
        () = place.0.closed() => None,
    }
}

/// `None`: the client has closed its side without sending anything.
async fn peeked(stream: &TcpStream) -> io::Result<Option<u8>> {
    loop {
        let is_over = stream.ready(Interest::READABLE).await?.is_read_closed();
        let look = || {
            // On the stack, so that waiting connections use no memory for it.
            let mut head = [0; HEAD_BYTES];
            let (length, _) = recv(stream, &mut head[..], RecvFlags::PEEK)?;
            match is_over || length == 0 || is_enough(&head[..length]) {
                true => Ok(head[..length].first().copied()),
                // Wait for more, or for the end.
                false => Err(io::ErrorKind::WouldBlock.into()),
            }
        };
        match stream.try_io(Interest::READABLE, look) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            looked => return looked,
        }
    }
}

/// Whether the bridge need not wait for the client: the head is complete or long, or it is no request.
fn is_enough(head: &[u8]) -> bool {
    let ends = |end: &[u8]| head.windows(end.len()).any(|window| window == end);
    head.first() == Some(&TLS_HANDSHAKE) || head.len() >= HEAD_BYTES || ends(b"\n\r\n") || ends(b"\n\n")
}

/// Responds to the request, if one comes, and waits until the bridge closes its end, after it has sent the response to the
/// client.
async fn answer(
    api: StdUnixStream,
    peer: SocketAddr,
    is_secure: bool,
    app: Arc<App>,
    router: Router,
) -> io::Result<()> {
    let mut other = UnixStream::from_std(api.try_clone()?)?;
    let origins = Origins::of(Some(peer), is_secure);
    let peer = new_peer(&app, peer, is_secure);
    let service = service_fn({
        let peer = peer.clone();
        move |request: Request<Incoming>| {
            peer.0.begin_request();
            let peer = peer.clone();
            let response = ask_api(Arc::clone(&app), router.clone(), &origins, peer.clone(), request);
            async move {
                let response = response.await;
                peer.0.end_request();
                response
            }
        }
    });
    // No read timeout: the bridge enforces its own deadlines.
    let connection = http1::Builder::new()
        .keep_alive(false)
        .half_close(true)
        .max_headers(HEADERS_MAX + HEADERS_OF_MODULES)
        .max_buf_size(2 * BUFFER_BYTES_MAX)
        .serve_connection(TokioIo::new(UnixStream::from_std(api)?), service);
    let mut connection = pin!(connection);
    let mut ticks = interval_at(Instant::now() + TICK, TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let served = loop {
        tokio::select! {
            biased;
            served = &mut connection => break served.map_err(io::Error::other),
            _ = ticks.tick() => {
                if peer.0.tick() {
                    break Err(io::Error::other("the client does not accept the response"));
                }
            }
        }
    };
    // Dropping hyper's descriptor does not end the connection, because this one is still open.
    rustix::net::shutdown(&other, if served.is_ok() { Shutdown::Write } else { Shutdown::Both })?;
    let mut rest = [0; 1024];
    while other.read(&mut rest).await? > 0 {}
    served
}

fn new_peer(app: &App, address: SocketAddr, is_secure: bool) -> PeerRef {
    let origin = ConnectionOrigin { address: Some(address.ip().to_canonical()), is_secure };
    Peer::of_connection(app.engine.memory(), origin)
}

/// Passes the request through the modules of other kinds, if any, to the API.
fn ask_api(
    app: Arc<App>,
    mut router: Router,
    origins: &Origins,
    peer: PeerRef,
    mut request: Request<Incoming>,
) -> impl Future<Output = Result<Response, Infallible>> + use<> {
    request.extensions_mut().insert(peer.clone());
    let (chain, connection) = (Arc::clone(&app.modules.chain()), origins.connection());
    async move {
        match chain.is_empty() {
            // A router is always ready.
            true => router.call(request).await,
            false => Ok(Box::pin(modules::request::serve(app, router, chain, connection, peer, request)).await),
        }
    }
}

/// Responds without the bridge: to requests for the server's health and metrics, and with 503 to all others.
async fn refuse(
    mut stream: TcpStream,
    address: SocketAddr,
    reason: String,
    app: Arc<App>,
    router: Router,
) -> io::Result<()> {
    let (peer, origins) = (new_peer(&app, address, false), Origins::of(Some(address), false));
    let service = service_fn(|mut request: Request<Incoming>| {
        request.extensions_mut().insert(Unguarded);
        let refused = (!is_vital(&app, request.uri())).then(|| {
            let problem = Problem::new(ProblemType::Unavailable, reason.as_str());
            problem_document::response(&problem, &app.request_ids.of(request.headers())).map(Body::new)
        });
        let response = ask_api(Arc::clone(&app), router.clone(), &origins, peer.clone(), request);
        async move {
            match refused {
                Some(refused) => Ok(refused),
                None => response.await,
            }
        }
    });
    http1::Builder::new()
        .keep_alive(false)
        .half_close(true)
        .max_headers(HEADERS_MAX)
        .max_buf_size(BUFFER_BYTES_MAX)
        .serve_connection(TokioIo::new(&mut stream), service)
        .await
        .map_err(io::Error::other)?;
    // Closing a connection with unread bytes would reset it, and the response would be lost.
    let mut rest = [0; 4096];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads() {
        for (text, expected) in [
            (&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], true),
            (b"GET / HTTP/1.1\n\nbody", true),
            (b"\x16", true),
            (&[b'a'; HEAD_BYTES], true),
            (b"GET / HTTP/1.1\r\nHost: a\r\n\r", false),
            (b"G", false),
            (b"", false),
        ] {
            assert_eq!(is_enough(text), expected, "{text:?}");
        }
    }
}
