//! The end of a server that is asked to stop: who has connected is served, who is connected is told that it was the last
//! response, and what is under way is finished.
//!
//! A connection that is closed while its client sends a request leaves the client without an answer. So the listener goes when
//! nobody waits there, and idle connections are closed only after a moment in which a request that is on its way can come; its
//! response says `Connection: close`. HTTP/2 needs no such moment, its GOAWAY names the last request, but takes it as well.
//! At the end of that moment a connection of HTTP/1 is read once more: a request that has arrived, or has begun to, is answered.
//! What a client sends while the end of the connection is on its way to it is lost in HTTP/1, whatever a server does.

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

/// How long requests may go on after the server was told to stop.
pub(super) const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);

/// How long a connection is kept open for a request that is on its way.
pub(super) const LAST_REQUEST_MAX: Duration = Duration::from_millis(500);

/// How long the rest of a head may take, of which some was there then.
const REST_OF_HEAD_MAX: Duration = Duration::from_secs(2);

/// When nobody connects for so long, nobody waits to be let in; under load somebody always does.
const QUIET: Duration = Duration::from_millis(5);
const LET_IN_MAX: Duration = Duration::from_millis(100);

/// Delay between two looks at how many connections there are.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Lets in those that have connected already, which would be reset with the listener, and closes it.
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
    // No more than can have waited: under a flood somebody always does.
    for _ in 0..BACKLOG {
        let Some(accepted) = unconstrained(listener.accept()).now_or_never() else { return };
        if !let_in(accepted) {
            return;
        }
    }
}

/// When the server stops, and requests that were on their way have had their moment.
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

    /// One more, which is there until this is dropped.
    pub(super) fn open(&self) -> Ending {
        Ending(self.0.subscribe())
    }
}

/// Tells a connection when it is to end.
pub(super) struct Ending(watch::Receiver<bool>);

impl Ending {
    /// Ends when the connection is to be closed as soon as it is idle. Whoever waits polls the connection first: what the system
    /// had received by then is read.
    pub(super) async fn come(&mut self, peer: &Peer) {
        // The sender goes after all connections.
        let _ = self.0.wait_for(|is_over| *is_over).await;
        if peer.is_http2() {
            return;
        }
        // A timer ends after the runtime has asked the system what came.
        let end = Instant::now() + REST_OF_HEAD_MAX;
        sleep(LOOK_AGAIN).await;
        while peer.has_begun_head() && Instant::now() < end {
            sleep(LOOK_AGAIN).await;
        }
    }
}

/// Waits until every connection has ended, and cuts off those that have not within [`SHUTDOWN_GRACE`].
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

/// A response of HTTP/1 to a server that stops is the last one of its connection.
pub(super) fn mark_last(headers: &mut HeaderMap, stopping: &watch::Receiver<bool>) {
    // Nobody looks at the value of this receiver, so what it has not seen is the one change that there is.
    if stopping.has_changed().unwrap_or(true) {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
}
