//! One connection as its requests see it: the memory that they hold together, and whether the peer takes its responses.
//!
//! HTTP has no word for "read faster". A response of which nothing is taken for two to three [`TICK`]s makes its connection
//! end, whatever else goes on there: what it holds is needed by others. An event stream is taken from at least at each of
//! its heartbeats, so only one that nobody reads is late.

use std::borrow::Borrow;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use crate::memory::{Lease, MemoryBudget, Share};

/// How often a connection looks for responses that are not taken.
pub(super) const TICK: Duration = Duration::from_secs(15);

/// Ticks that are told apart: this one, the one before, and all that are older.
const EPOCHS: u8 = 3;

/// One connection.
pub(super) struct Peer {
    share: Share,
    origin: ConnectionOrigin,
    /// Responses under way, by the tick in which something of them was taken last.
    waiting: [AtomicUsize; EPOCHS as usize],
    now: AtomicU8,
    started: AtomicU64,
    ended: AtomicU64,
    /// Told once it is to make room for another.
    closing: Notify,
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnectionOrigin {
    /// `None`: a Unix socket.
    pub(super) address: Option<IpAddr>,
    /// Whether it is TLS.
    pub(super) is_secure: bool,
}

/// A way to a connection that counts as a way to its share.
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
            closing: Notify::new(),
        }))
    }

    pub(super) fn origin(&self) -> ConnectionOrigin {
        self.origin
    }

    /// A request's head is complete.
    pub(super) fn begin_request(&self) {
        self.started.fetch_add(1, Ordering::Relaxed);
    }

    /// Its response begins.
    pub(super) fn end_request(&self) {
        self.ended.fetch_add(1, Ordering::Relaxed);
    }

    /// How many requests there were, and whether one is worked on.
    pub(super) fn requests(&self) -> (u64, bool) {
        let started = self.started.load(Ordering::Relaxed);
        (started, started != self.ended.load(Ordering::Relaxed))
    }

    /// Whether nothing is asked, and everything answered.
    pub(super) fn is_idle(&self) -> bool {
        !self.requests().1 && self.waiting.iter().all(|waiting| waiting.load(Ordering::Relaxed) == 0)
    }

    /// Another connection needs the place of this one.
    pub(super) fn close(&self) {
        self.closing.notify_one();
    }

    /// Ends when the place is needed and the connection is idle.
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

    /// Begins a new tick; answers whether a response is late.
    pub(super) fn tick(&self) -> bool {
        let next = (self.now.load(Ordering::Relaxed) + 1) % EPOCHS;
        self.now.store(next, Ordering::Relaxed);
        // Those that are still here had no part taken in this tick and the one before.
        self.waiting[usize::from(next)].load(Ordering::Relaxed) > 0
    }
}

/// A response under way, from its head to the drop of its last byte.
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

    /// Something was taken.
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
