//! One connection that the bridge serves: handed over, and the request that comes back from it.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustix::net::{RecvFlags, Shutdown, recv};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tower_service::Service as _;

use super::message::Order;
use super::supervisor::Bridge;
use crate::server::app::App;
use crate::server::connection::{BUFFER_BYTES_MAX, HEADER_READ_MAX, HEADERS_MAX};
use crate::server::modules;
use crate::server::modules::connection::Origins;
use crate::server::peer::{ConnectionOrigin, Peer, TICK};

/// The first byte of a TLS connection; no request begins with it.
const TLS_HANDSHAKE: u8 = 22;

/// Of a head that are waited for; a longer one is read by the bridge.
const HEAD_BYTES: usize = 8 * 1024;

/// How long a connection waits for a thread of the bridge, or for a bridge.
const BRIDGE_WAIT_MAX: Duration = Duration::from_secs(5);

/// What the modules may add to the head.
const HEADERS_OF_MODULES: usize = 100;

/// For a response that the server gives itself.
const REFUSAL_MAX: Duration = Duration::from_secs(2);

impl Bridge {
    /// From the accepted connection until the bridge is done with it.
    pub(in crate::server) async fn serve(&self, stream: TcpStream, app: Arc<App>, router: Router) {
        let Some(first) = first_byte(&stream, &app).await else { return };
        let Ok(peer) = stream.peer_addr() else { return };
        let is_secure = first == TLS_HANDSHAKE;
        match self.hand_over(&stream, peer, is_secure).await {
            Ok((api, _thread)) => {
                drop(stream);
                if let Err(error) = answer(api, peer, is_secure, app, router).await {
                    tracing::debug!("a connection of the bridge ended early: {error}");
                }
            }
            // Whoever waits for TLS understands nothing that could be said.
            Err(_) if is_secure => {}
            Err(reason) => {
                let _ = timeout(REFUSAL_MAX, refuse(stream, &reason)).await;
            }
        }
    }

    /// When every connection has ended.
    pub(in crate::server) async fn drained(&self) {
        let all = u32::try_from(self.threads_max).unwrap_or(u32::MAX);
        // It is never closed.
        let _ = self.threads.acquire_many(all).await;
    }

    /// Gives the server's end of the way to the API. An error is why there is none.
    async fn hand_over(
        &self,
        stream: &TcpStream,
        peer: SocketAddr,
        is_secure: bool,
    ) -> Result<(StdUnixStream, OwnedSemaphorePermit), String> {
        if let Some(refusal) = self.refusal() {
            return Err(refusal);
        }
        let busy = || "the modules of the server are busy".to_owned();
        let thread = timeout(BRIDGE_WAIT_MAX, Arc::clone(&self.threads).acquire_owned());
        let thread = thread.await.map_err(|_| busy())?.map_err(|_| busy())?;
        let mut control = self.control.subscribe();
        let control = timeout(BRIDGE_WAIT_MAX, control.wait_for(Option::is_some)).await;
        let control = control.ok().and_then(Result::ok).and_then(|control| control.clone());
        let control = control.ok_or("the modules of the server do not run")?;
        let failed = |error: io::Error| format!("the modules of the server cannot be reached: {error}");
        let (own, other) = StdUnixStream::pair().map_err(failed)?;
        own.set_nonblocking(true).map_err(failed)?;
        let order = Order::connection(peer, is_secure);
        control.send_with(&order, &[stream.as_fd(), other.as_fd()]).await.map_err(failed)?;
        Ok((own, thread))
    }
}

/// Waits, without taking a byte, until the client has sent a head or the start of a handshake: who sends slowly holds no thread
/// of the bridge. Gives the first byte; `None`: there is none in time, or the server stops first.
async fn first_byte(stream: &TcpStream, app: &App) -> Option<u8> {
    let mut stopping = app.stopping.clone();
    let mut head = vec![0; HEAD_BYTES];
    let mut seen = 0;
    let look = || {
        let (length, _) = recv(stream, head.as_mut_slice(), RecvFlags::PEEK)?;
        let has_more = length > seen;
        seen = length;
        match is_enough(&head[..length]) || !has_more {
            true => Ok(head[..length].first().copied()),
            // Woken again when there is more, or the client has closed its side.
            false => Err(io::ErrorKind::WouldBlock.into()),
        }
    };
    let looked = tokio::select! {
        looked = timeout(HEADER_READ_MAX, stream.async_io(Interest::READABLE, look)) => looked,
        _ = stopping.wait_for(|stopping| *stopping) => return None,
    };
    looked.ok()?.ok()?
}

/// Whether the bridge can go on with it without waiting for the client: a whole head, much of one, or no request.
fn is_enough(head: &[u8]) -> bool {
    let ends = |end: &[u8]| head.windows(end.len()).any(|window| window == end);
    head.first() == Some(&TLS_HANDSHAKE) || head.len() >= HEAD_BYTES || ends(b"\n\r\n") || ends(b"\n\n")
}

/// Answers the request, if one comes, and waits until the bridge closes its end: it still sends the response to the client.
async fn answer(
    api: StdUnixStream,
    peer: SocketAddr,
    is_secure: bool,
    app: Arc<App>,
    router: Router,
) -> io::Result<()> {
    let mut other = UnixStream::from_std(api.try_clone()?)?;
    let origins = Origins::of(Some(peer), is_secure);
    let origin = ConnectionOrigin { address: Some(peer.ip().to_canonical()), is_secure };
    let peer = Peer::of_connection(app.engine.memory(), origin);
    let service = service_fn({
        let peer = peer.clone();
        move |mut request: Request<Incoming>| {
            peer.0.begin_request();
            request.extensions_mut().insert(peer.clone());
            let (mut router, peer, app) = (router.clone(), peer.clone(), Arc::clone(&app));
            let (chain, connection) = (Arc::clone(&app.modules.chain()), origins.connection());
            async move {
                let response = match chain.is_empty() {
                    // It is always ready.
                    true => router.call(request).await,
                    false => {
                        let served = modules::request::serve(app, router, chain, connection, peer.clone(), request);
                        Ok(Box::pin(served).await)
                    }
                };
                peer.0.end_request();
                response
            }
        }
    });
    // The bridge has deadlines of its own for what it waits for.
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
                    break Err(io::Error::other("the client does not take the response"));
                }
            }
        }
    };
    // Dropping hyper's part does not end the connection: this one is still open.
    rustix::net::shutdown(&other, if served.is_ok() { Shutdown::Write } else { Shutdown::Both })?;
    let mut rest = [0; 1024];
    while other.read(&mut rest).await? > 0 {}
    served
}

/// 503, in plain HTTP.
async fn refuse(mut stream: TcpStream, reason: &str) -> io::Result<()> {
    let body = serde_json::json!({
        "type": "/problems/unavailable", "title": "the server cannot do this now", "status": 503, "detail": reason,
    });
    let body = body.to_string();
    let head = format!(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nContent-Length: {}\r\nRetry-After: 1\r\n\
         X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await?;
    // A connection that is closed on unread bytes is reset, and the response with it.
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
