//! The end of a server that is asked to stop: who has connected is served, who is connected is told that it was the last
//! response, and what is under way is finished.
//!
//! A connection that is closed while its client sends a request leaves the client without an answer. So the listener goes when
//! nobody waits there, and idle connections are closed only after a moment in which a request that is on its way can come; its
//! response says `Connection: close`. HTTP/2 needs no such moment, its GOAWAY names the last request, but takes it as well.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures::FutureExt;
use hyper::header::{CONNECTION, HeaderMap, HeaderValue};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::sync::watch;
use tokio::task::unconstrained;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::listener::{BACKLOG, Listener, Socket, is_of_peer};

/// How long requests may go on after the server was told to stop.
pub(super) const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);

/// How long a connection is kept open for a request that is on its way.
pub(super) const LAST_REQUEST_MAX: Duration = Duration::from_millis(500);

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

/// Waits until every connection has ended, and cuts off those that have not within [`SHUTDOWN_GRACE`].
pub(super) async fn finish(graceful: GracefulShutdown) {
    let started = Instant::now();
    while graceful.count() > 0 && started.elapsed() < LAST_REQUEST_MAX {
        sleep(LOOK_AGAIN).await;
    }
    let connections = graceful.count();
    if timeout(SHUTDOWN_GRACE.saturating_sub(started.elapsed()), graceful.shutdown()).await.is_err() {
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
