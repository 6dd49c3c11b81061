//! Limits the number of open connections, and selects idle ones to close when the limit is reached.
//!
//! An idle connection costs a client nothing, so one client could hold all of them. If a new connection gets no permit,
//! idle ones are closed: those of the address with the most, and among these first the ones that never sent a request.
//! Clients expect this of any server with keep-alive, and reconnect.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use snaphook_identity::client_of;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::peer::PeerRef;

/// How long connections may take to close before more are selected.
const PATIENCE: Duration = Duration::from_millis(100);
/// The fraction of all connections that is closed at once: the search takes time, so it is done rarely.
const PART: usize = 64;

/// All connection permits of a server.
pub(super) struct Places {
    free: Arc<Semaphore>,
    most: usize,
    /// By order of arrival.
    taken: Mutex<BTreeMap<u64, PeerRef>>,
    next: AtomicU64,
}

/// The permit of one connection.
pub(super) struct ConnectionPermit {
    places: Arc<Places>,
    number: u64,
    _permit: OwnedSemaphorePermit,
}

impl Places {
    pub(super) fn new(most: usize) -> Arc<Places> {
        let free = Arc::new(Semaphore::new(most));
        Arc::new(Places { free, most, taken: Mutex::default(), next: AtomicU64::new(0) })
    }

    /// Waits for a permit. Nothing is lost if the future is dropped.
    pub(super) async fn free(&self) -> OwnedSemaphorePermit {
        let mut acquired = Arc::clone(&self.free).try_acquire_owned().ok();
        loop {
            match acquired {
                Some(permit) => return permit,
                None => self.make_room(),
            }
            // The semaphore is never closed.
            acquired = timeout(PATIENCE, Arc::clone(&self.free).acquire_owned()).await.ok().and_then(Result::ok);
        }
    }

    /// Registers the connection of `peer` until the result is dropped.
    pub(super) fn take(self: &Arc<Self>, permit: OwnedSemaphorePermit, peer: PeerRef) -> ConnectionPermit {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).insert(number, peer);
        ConnectionPermit { places: Arc::clone(self), number, _permit: permit }
    }

    /// Asks some idle connections to close, if any.
    fn make_room(&self) {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let mut holders: HashMap<Option<u64>, Holder<'_>> = HashMap::new();
        for peer in taken.values() {
            let holder = holders.entry(peer.0.origin().address.map(client_of)).or_default();
            holder.connections += 1;
            if peer.0.is_idle() {
                holder.idle.push(peer);
            }
        }
        let with_idle = holders.into_values().filter(|holder| !holder.idle.is_empty());
        let Some(mut most) = with_idle.max_by_key(|holder| (holder.connections, holder.idle.len())) else { return };
        // Stable: the oldest come first.
        most.idle.sort_by_key(|peer| peer.0.requests().0 > 0);
        let count = (self.most / PART).clamp(1, most.idle.len());
        tracing::debug!(
            "all {} connections are in use: {count} of {} idle ones of one address make room",
            self.most,
            most.idle.len()
        );
        for peer in &most.idle[..count] {
            peer.0.close();
        }
    }
}

/// The connections of one address.
#[derive(Default)]
struct Holder<'p> {
    connections: usize,
    /// By order of arrival.
    idle: Vec<&'p PeerRef>,
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.places.taken.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryBudget;
    use crate::server::peer::{ConnectionOrigin, Peer};

    fn peer(address: &str) -> PeerRef {
        Peer::of_connection(
            &MemoryBudget::new(1 << 20),
            ConnectionOrigin { address: address.parse().ok(), is_secure: false },
        )
    }

    #[tokio::test(start_paused = true)]
    async fn idle_connections_of_who_holds_most_make_room() {
        let places = Places::new(6);
        let mut open = Vec::new();
        for address in ["10.0.0.1", "10.0.0.2", "10.0.0.1", "10.0.0.1", "unix", "10.0.0.2"] {
            let peer = peer(address);
            open.push((places.take(places.free().await, peer.clone()), peer));
        }
        let closing = |open: &[(ConnectionPermit, PeerRef)]| -> Vec<usize> {
            (0..open.len()).filter(|index| open[*index].1.0.is_closing()).collect()
        };
        // Of those of the address with the most, the oldest has sent a request before, and the next one has one in
        // progress.
        open[0].1.0.begin_request();
        open[0].1.0.end_request();
        open[2].1.0.begin_request();
        assert!(timeout(PATIENCE / 2, places.free()).await.is_err());
        assert_eq!(closing(&open), [3]);
        let (place, _) = open.remove(3);
        drop(place);
        let last = peer("10.0.0.3");
        open.push((places.take(places.free().await, last.clone()), last));
        // Now two addresses have two each, and both of the other one are idle.
        assert!(timeout(PATIENCE / 2, places.free()).await.is_err());
        assert_eq!(closing(&open), [1]);

        for (_, peer) in &open {
            peer.0.begin_request();
        }
        let waiting = places.free();
        tokio::pin!(waiting);
        assert!(timeout(PATIENCE * 5, &mut waiting).await.is_err());
        assert!(closing(&open).is_empty(), "one that is busy is closed");
        drop(open.remove(0));
        drop(waiting.await);
        let is_left: Vec<u64> = places.taken.lock().unwrap().keys().copied().collect();
        assert_eq!(is_left.len(), open.len());
    }
}
