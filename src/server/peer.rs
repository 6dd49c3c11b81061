//! The connection of a request: the shared memory of its requests, and whether the peer reads its responses.
//!
//! If nothing of a response is read for two to three [`TICK`]s, its connection is closed, because others need its
//! memory. An event stream is read at least at each of its heartbeats, so only one that nobody reads is late.

use std::borrow::Borrow;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use crate::memory::{Lease, MemoryBudget, Share};

/// How often a connection checks for responses that are not read.
pub(super) const TICK: Duration = Duration::from_secs(15);

/// Distinguished ticks: the current one, the previous one, and all older ones.
const EPOCHS: u8 = 3;

/// One connection.
pub(super) struct Peer {
    share: Share,
    origin: ConnectionOrigin,
    /// Responses in progress, by the tick of their last read.
    waiting: [AtomicUsize; EPOCHS as usize],
    now: AtomicU8,
    started: AtomicU64,
    ended: AtomicU64,
    /// Whether a part of the next request's head has arrived.
    has_begun: AtomicBool,
    is_http2: AtomicBool,
    /// Notified when it must close for another connection.
    closing: Notify,
}

/// The origin of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnectionOrigin {
    /// `None`: a Unix socket.
    pub(super) address: Option<IpAddr>,
    /// Whether it is TLS.
    pub(super) is_secure: bool,
}

/// A reference to a connection, which can be borrowed as its share.
#[derive(Clone)]
pub(super) struct PeerRef(pub(super) Arc<Peer>);

impl Borrow<Share> for PeerRef {
    fn borrow(&self) -> &Share {
        &self.0.share
    }
}

/// Memory of one request.
pub(super) type RequestMemory = Lease<PeerRef>;

impl Peer {
    pub(super) fn of_connection(budget: &Arc<MemoryBudget>, origin: ConnectionOrigin) -> PeerRef {
        PeerRef(Arc::new(Peer {
            share: budget.share(),
            origin,
            waiting: [const { AtomicUsize::new(0) }; EPOCHS as usize],
            now: AtomicU8::new(0),
            started: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            has_begun: AtomicBool::new(false),
            is_http2: AtomicBool::new(false),
            closing: Notify::new(),
        }))
    }

    pub(super) fn origin(&self) -> ConnectionOrigin {
        self.origin
    }

    /// Called when a request's head is complete.
    pub(super) fn begin_request(&self) {
        self.has_begun.store(false, Ordering::Relaxed);
        self.started.fetch_add(1, Ordering::Relaxed);
    }

    /// Called when data arrives while no request is in progress.
    pub(super) fn begin_head(&self) {
        self.has_begun.store(true, Ordering::Relaxed);
    }

    /// Whether a request's head is incomplete. Unread bytes of a body look the same.
    pub(super) fn has_begun_head(&self) -> bool {
        self.has_begun.load(Ordering::Relaxed)
    }

    /// Called when the connection begins as HTTP/2.
    pub(super) fn set_http2(&self) {
        self.is_http2.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_http2(&self) -> bool {
        self.is_http2.load(Ordering::Relaxed)
    }

    /// Called when its response begins.
    pub(super) fn end_request(&self) {
        self.ended.fetch_add(1, Ordering::Relaxed);
    }

    /// The number of requests, and whether one is in progress.
    pub(super) fn requests(&self) -> (u64, bool) {
        let started = self.started.load(Ordering::Relaxed);
        (started, started != self.ended.load(Ordering::Relaxed))
    }

    /// Whether no request is in progress and all responses were sent.
    pub(super) fn is_idle(&self) -> bool {
        !self.requests().1 && self.waiting.iter().all(|waiting| waiting.load(Ordering::Relaxed) == 0)
    }

    /// Asks the connection to close for another one.
    pub(super) fn close(&self) {
        self.closing.notify_one();
    }

    /// Waits until it is asked to close and is idle.
    pub(super) async fn closed(&self) {
        loop {
            self.closing.notified().await;
            if self.is_idle() {
                return;
            }
        }
    }

    #[cfg(test)]
    pub(super) fn is_closing(&self) -> bool {
        use futures::FutureExt as _;
        self.closed().now_or_never().is_some()
    }

    /// Begins a new tick; returns whether a response is late.
    pub(super) fn tick(&self) -> bool {
        let next = (self.now.load(Ordering::Relaxed) + 1) % EPOCHS;
        self.now.store(next, Ordering::Relaxed);
        // Nothing of the remaining ones was read in this tick and the previous one.
        self.waiting[usize::from(next)].load(Ordering::Relaxed) > 0
    }
}

/// A response in progress, from its head to the drop of its last byte.
pub(super) struct Ticket {
    peer: PeerRef,
    epoch: AtomicU8,
}

impl Ticket {
    pub(super) fn new(peer: &PeerRef) -> Self {
        let epoch = peer.0.now.load(Ordering::Relaxed);
        peer.0.waiting[usize::from(epoch)].fetch_add(1, Ordering::Relaxed);
        Ticket { peer: peer.clone(), epoch: AtomicU8::new(epoch) }
    }

    /// Called when a part was read.
    pub(super) fn renew(&self) {
        let now = self.peer.0.now.load(Ordering::Relaxed);
        let before = self.epoch.swap(now, Ordering::Relaxed);
        if before != now {
            self.peer.0.waiting[usize::from(now)].fetch_add(1, Ordering::Relaxed);
            self.peer.0.waiting[usize::from(before)].fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let epoch = usize::from(*self.epoch.get_mut());
        self.peer.0.waiting[epoch].fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_late_when_nothing_is_taken_for_two_ticks() {
        let origin = ConnectionOrigin { address: None, is_secure: false };
        let peer = Peer::of_connection(&MemoryBudget::new(1 << 20), origin);
        let ticket = Ticket::new(&peer);
        assert_eq!([peer.0.tick(), peer.0.tick()], [false, false]);
        ticket.renew();
        assert_eq!([peer.0.tick(), peer.0.tick(), peer.0.tick()], [false, false, true]);
        drop(ticket);
        assert_eq!([peer.0.tick(), peer.0.tick(), peer.0.tick()], [false; 3]);
        for _ in 0..10 {
            drop(Ticket::new(&peer));
            assert!(!peer.0.tick());
        }
    }
}
