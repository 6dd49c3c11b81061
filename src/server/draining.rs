//! The graceful end of a server: pending connections are accepted, the last response of each connection says so, and
//! running requests are completed.
//!
//! If a connection is closed while its client sends a request, the client gets no response. So the listener closes when
//! nobody waits there, and idle connections are closed only after a moment in which a request in transit can arrive;
//! its response says `Connection: close`. HTTP/2 does not need this moment, because its GOAWAY names the last request,
//! but has it as well. At the end of the moment an HTTP/1 connection is read once more: a request that has arrived, or
//! has begun to, is completed. Requests that an HTTP/1 client sends while the close is in transit are always lost.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures::FutureExt;
use hyper::header::{CONNECTION, HeaderMap, HeaderValue};
use tokio::sync::watch;
use tokio::task::unconstrained;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::listener::{BACKLOG, Listener, Socket, is_of_peer};
use super::peer::Peer;

/// How long requests may continue after the server was asked to stop.
pub(super) const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);

/// How long an idle connection stays open for a request in transit.
pub(super) const LAST_REQUEST_MAX: Duration = Duration::from_millis(500);

/// How long the rest of a head may take that had begun to arrive by then.
const REST_OF_HEAD_MAX: Duration = Duration::from_secs(2);

/// If nobody connects for this long, no connection is pending; under load there is always one.
const QUIET: Duration = Duration::from_millis(5);
const LET_IN_MAX: Duration = Duration::from_millis(100);

/// Interval of checking the number of connections.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Accepts pending connections, which would be reset with the listener, and closes it.
pub(super) async fn close(listener: Listener, mut begin: impl FnMut(Socket, Option<SocketAddr>)) {
    let end = Instant::now() + LET_IN_MAX;
    let mut let_in = |accepted: io::Result<(Socket, Option<SocketAddr>)>| match accepted {
        Ok((socket, address)) => {
            begin(socket, address);
            true
        }
        Err(error) => is_of_peer(&error),
    };
    while let Ok(accepted) = timeout_at(end.min(Instant::now() + QUIET), listener.accept()).await {
        if !let_in(accepted) {
            return;
        }
    }
    // No more than the backlog: under a flood there is always a pending one.
    for _ in 0..BACKLOG {
        let Some(accepted) = unconstrained(listener.accept()).now_or_never() else { return };
        if !let_in(accepted) {
            return;
        }
    }
}

/// Waits until the server stops and the moment for requests in transit is over.
pub(super) async fn last_request(mut stopping: watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stopping| *stopping).await;
    sleep(LAST_REQUEST_MAX).await;
}

/// All connections of a server.
pub(super) struct Connections(watch::Sender<bool>);

impl Connections {
    pub(super) fn new() -> Connections {
        Connections(watch::Sender::new(false))
    }

    /// Counts one more, until this is dropped.
    pub(super) fn open(&self) -> Ending {
        Ending(self.0.subscribe())
    }
}

/// Signals to a connection when to end.
pub(super) struct Ending(watch::Receiver<bool>);

impl Ending {
    /// Waits until the connection must close when idle. The caller polls the connection first, so that data received by
    /// then is read.
    pub(super) async fn come(&mut self, peer: &Peer) {
        // The sender outlives all connections.
        let _ = self.0.wait_for(|is_over| *is_over).await;
        if peer.is_http2() {
            return;
        }
        // A timer fires after the runtime has polled the system for received data.
        let end = Instant::now() + REST_OF_HEAD_MAX;
        sleep(LOOK_AGAIN).await;
        while peer.has_begun_head() && Instant::now() < end {
            sleep(LOOK_AGAIN).await;
        }
    }
}

/// Waits until every connection has ended, and closes those that have not within [`SHUTDOWN_GRACE`].
pub(super) async fn finish(Connections(is_over): Connections) {
    let started = Instant::now();
    while is_over.receiver_count() > 0 && started.elapsed() < LAST_REQUEST_MAX {
        sleep(LOOK_AGAIN).await;
    }
    let connections = is_over.receiver_count();
    is_over.send_replace(true);
    if timeout(SHUTDOWN_GRACE.saturating_sub(started.elapsed()), is_over.closed()).await.is_err() {
        tracing::warn!("some of {connections} connections were still busy after {SHUTDOWN_GRACE:?} and are cut off");
    }
}

/// When the server stops, an HTTP/1 response is the last one of its connection.
pub(super) fn mark_last(headers: &mut HeaderMap, stopping: &watch::Receiver<bool>) {
    // The value of this receiver is never read, so an unseen change is the only change that exists.
    if stopping.has_changed().unwrap_or(true) {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
}
