//! Permits that hooks share fairly: waiting calls are served hook by hook in turns, and no hook can take the last
//! permits.
//!
//! A plain semaphore serves calls in order of arrival, so a hook with many calls delays all other hooks. Here each hook
//! has its own queue, and a free permit goes to the hook whose turn it is. Where permits are held for long, a hook gets
//! at most three times as many permits as it leaves free: a single hook gets three quarters of them, and the next hook
//! finds some.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// How many of the permits one hook may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Share {
    /// All that are free. For permits that are only held for a moment.
    All,
    /// Some stay free for others.
    LeavesSome,
}

/// How many permits a hook may hold for each that stays free.
const HELD_PER_FREE: usize = 3;

/// Identifies the hook that requests a permit; see [`super::grants::Granted::share_key`].
pub(super) type Key = u64;

/// A fair semaphore.
#[derive(Clone)]
pub(super) struct FairSemaphore(Arc<PermitQueues>);

struct PermitQueues {
    share: Share,
    state: Mutex<PermitState>,
}

struct PermitState {
    free: usize,
    held: HashMap<Key, usize>,
    /// The queues in the order of their turns; none is empty.
    queues: VecDeque<(Key, VecDeque<Waiter>)>,
}

struct Waiter {
    count: usize,
    /// If it is closed, the waiter is gone.
    granted: oneshot::Sender<FairPermit>,
}

/// Permits of one hook, released when this is dropped.
pub(super) struct FairPermit {
    shared: Arc<PermitQueues>,
    key: Key,
    count: usize,
}

impl FairSemaphore {
    pub(super) fn new(permits: usize, share: Share) -> Self {
        let state = PermitState { free: permits, held: HashMap::new(), queues: VecDeque::new() };
        FairSemaphore(Arc::new(PermitQueues { share, state: Mutex::new(state) }))
    }

    /// Waits for `count` permits at once, which must not exceed the total number.
    pub(super) async fn acquire(&self, key: Key, count: usize) -> FairPermit {
        loop {
            let waiting = {
                let mut state = self.0.state();
                // Those that wait could not have been served before either.
                if state.queues.is_empty() && state.may_take(self.0.share, key, count) {
                    state.take(key, count);
                    return FairPermit { shared: Arc::clone(&self.0), key, count };
                }
                state.wait(key, count)
            };
            // It may also be served at once if everybody before it waits for more permits than are free.
            self.0.serve();
            if let Ok(permit) = waiting.await {
                return permit;
            }
        }
    }

    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        self.0.state().free
    }
}

impl FairPermit {
    /// Releases the permits to waiting calls and waits behind them. It joins the queue before it releases anything: if
    /// it joined afterwards, it would be delayed each time by all calls that had arrived in between.
    pub(super) async fn pass(self) -> Self {
        let (shared, key, count) = (Arc::clone(&self.shared), self.key, self.count);
        let waiting = {
            let mut state = shared.state();
            state.forget_gone();
            if state.queues.is_empty() {
                return self;
            }
            state.wait(key, count)
        };
        drop(self);
        match waiting.await {
            Ok(permit) => permit,
            // A waiter always gets a permit, unless a serving thread has panicked.
            Err(_) => FairSemaphore(shared).acquire(key, count).await,
        }
    }
}

impl PermitQueues {
    fn state(&self) -> MutexGuard<'_, PermitState> {
        // Code that holds this lock never leaves the state inconsistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives free permits to waiting calls, in turns.
    fn serve(self: &Arc<Self>) {
        loop {
            let Some((key, waiter)) = self.state().next(self.share) else { return };
            let permit = FairPermit { shared: Arc::clone(self), key, count: waiter.count };
            // Outside the lock: if the waiter is gone, its permit is released and granted again.
            drop(waiter.granted.send(permit));
        }
    }
}

impl PermitState {
    fn may_take(&self, share: Share, key: Key, count: usize) -> bool {
        let held = self.held.get(&key).copied().unwrap_or(0);
        let Some(left) = self.free.checked_sub(count) else { return false };
        share == Share::All || held == 0 || held + count <= HELD_PER_FREE * left
    }

    fn take(&mut self, key: Key, count: usize) {
        self.free -= count;
        *self.held.entry(key).or_insert(0) += count;
    }

    /// Adds a waiter: behind those of its hook; a hook without waiters goes behind all other hooks.
    fn wait(&mut self, key: Key, count: usize) -> oneshot::Receiver<FairPermit> {
        let (granted, waiting) = oneshot::channel();
        let waiter = Waiter { count, granted };
        match self.queues.iter_mut().find(|(known, _)| *known == key) {
            Some((_, queue)) => queue.push_back(waiter),
            None => self.queues.push_back((key, VecDeque::from([waiter]))),
        }
        waiting
    }

    fn forget_gone(&mut self) {
        for (_, queue) in &mut self.queues {
            while queue.front().is_some_and(|waiter| waiter.granted.is_closed()) {
                queue.pop_front();
            }
        }
        self.queues.retain(|(_, queue)| !queue.is_empty());
    }

    /// Takes the permits for the next waiter that can be served.
    fn next(&mut self, share: Share) -> Option<(Key, Waiter)> {
        self.forget_gone();
        for index in 0..self.queues.len() {
            let (key, count) = (self.queues[index].0, self.queues[index].1.front()?.count);
            if self.may_take(share, key, count) {
                let (key, mut queue) = self.queues.remove(index)?;
                let waiter = queue.pop_front()?;
                if !queue.is_empty() {
                    self.queues.push_back((key, queue));
                }
                self.take(key, count);
                return Some((key, waiter));
            }
            // This hook has no permits and needs more than are free: if others got them now, it could wait for ever.
            if !self.held.contains_key(&key) {
                return None;
            }
        }
        None
    }
}

impl Drop for FairPermit {
    fn drop(&mut self) {
        {
            let mut state = self.shared.state();
            state.free += self.count;
            if let Some(held) = state.held.get_mut(&self.key) {
                *held -= self.count;
                if *held == 0 {
                    state.held.remove(&self.key);
                }
            }
            if state.queues.is_empty() {
                return;
            }
        }
        self.shared.serve();
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::Pin;

    use futures::FutureExt;

    use super::*;

    type WaitingPermit = Pin<Box<dyn Future<Output = FairPermit>>>;

    /// Starts to wait; the permit if it is there at once.
    fn ask(semaphore: &FairSemaphore, key: Key, count: usize) -> Result<FairPermit, WaitingPermit> {
        let semaphore = semaphore.clone();
        let mut waiting: WaitingPermit = Box::pin(async move { semaphore.acquire(key, count).await });
        match (&mut waiting).now_or_never() {
            Some(permit) => Ok(permit),
            None => Err(waiting),
        }
    }

    fn fill(semaphore: &FairSemaphore, key: Key) -> (Vec<FairPermit>, WaitingPermit) {
        let mut permits = Vec::new();
        loop {
            match ask(semaphore, key, 1) {
                Ok(permit) => permits.push(permit),
                Err(waiting) => return (permits, waiting),
            }
        }
    }

    #[test]
    fn one_hook_leaves_some_and_the_next_finds_them() {
        let semaphore = FairSemaphore::new(16, Share::LeavesSome);
        let (first, mut first_waits) = fill(&semaphore, 1);
        assert_eq!(first.len(), 12);
        let second = ask(&semaphore, 2, 1);
        assert!(second.is_ok(), "the first one waits for its own share, which keeps nobody else");
        drop(first);
        assert!((&mut first_waits).now_or_never().is_some());
        let all = FairSemaphore::new(16, Share::All);
        assert_eq!(fill(&all, 1).0.len(), 16);
    }

    #[test]
    fn permits_go_round_by_hook() {
        let semaphore = FairSemaphore::new(1, Share::All);
        let mut held = ask(&semaphore, 0, 1).ok();
        let mut waiting: Vec<_> =
            [1, 1, 1, 2, 3, 2].into_iter().map(|key| (key, ask(&semaphore, key, 1).err().unwrap())).collect();
        let mut order = Vec::new();
        while !waiting.is_empty() {
            drop(held.take());
            let index = waiting.iter_mut().position(|(_, waiting)| match waiting.now_or_never() {
                Some(permit) => {
                    held = Some(permit);
                    true
                }
                None => false,
            });
            order.push(waiting.remove(index.expect("one is served")).0);
        }
        assert_eq!(order, [1, 2, 3, 1, 2, 1]);
        drop(held);
        assert_eq!(semaphore.free(), 1);
    }

    /// Who passes a permit on, as what is long does at each of its turns, comes again as soon as the hooks before it had theirs,
    /// however many wait of each.
    #[test]
    fn who_passes_comes_again_after_one_of_each_other_hook() {
        for permits in [1, 2] {
            let semaphore = FairSemaphore::new(permits, Share::All);
            let mut held: Vec<_> = (0..permits).map(|_| ask(&semaphore, 1, 1).ok().unwrap()).collect();
            let keys = std::iter::repeat_n(1, 62).chain([2]).chain(std::iter::repeat_n(3, 20));
            let mut waiting: Vec<_> = keys.map(|key| ask(&semaphore, key, 1).err().unwrap()).collect();
            let mut order = Vec::new();
            for _ in 0..300 {
                waiting.push(Box::pin(held.remove(0).pass()));
                assert!(waiting.last_mut().unwrap().now_or_never().is_none(), "it goes behind the others");
                waiting.retain_mut(|waiting| match waiting.now_or_never() {
                    Some(permit) => {
                        order.push(permit.key);
                        held.push(permit);
                        false
                    }
                    None => true,
                });
                assert_eq!(held.len(), permits);
            }
            // One of each other hook at most while it waits, and those that are served while it has a permit.
            let places: Vec<_> = (0..order.len()).filter(|place| order[*place] == 2).collect();
            assert!(
                places.windows(2).all(|pair| pair[1] - pair[0] <= 2 + permits) && places.len() >= 70,
                "{permits}: {order:?}"
            );
        }
        let alone = FairSemaphore::new(1, Share::All);
        let permit = ask(&alone, 1, 1).ok().unwrap();
        let gone = ask(&alone, 2, 1).err();
        drop(gone);
        assert!(permit.pass().now_or_never().is_some(), "nobody else wants it");
        assert_eq!(alone.free(), 1);
    }

    #[test]
    fn whoever_waits_no_longer_takes_nothing() {
        let semaphore = FairSemaphore::new(2, Share::All);
        let held = ask(&semaphore, 1, 2).ok();
        let gone = ask(&semaphore, 1, 1).err();
        let mut other = ask(&semaphore, 2, 1).err().unwrap();
        drop(gone);
        drop(held);
        let permit = (&mut other).now_or_never();
        assert!(permit.is_some());
        assert_eq!(semaphore.free(), 1);
        // Granted, and dropped before it was looked at.
        let late = ask(&semaphore, 3, 2).err();
        drop(permit);
        drop(late);
        assert_eq!(semaphore.free(), 2);
        assert!(semaphore.0.state().held.is_empty());
    }

    #[test]
    fn a_large_request_of_a_hook_that_has_nothing_is_not_passed_by_for_good() {
        let semaphore = FairSemaphore::new(4, Share::LeavesSome);
        let small = ask(&semaphore, 1, 1).ok();
        let mut large = ask(&semaphore, 2, 4).err().unwrap();
        let mut more = ask(&semaphore, 1, 1).err().unwrap();
        assert!((&mut more).now_or_never().is_none() && (&mut large).now_or_never().is_none());
        drop(small);
        assert!((&mut large).now_or_never().is_some());
        assert!((&mut more).now_or_never().is_some());
    }
}
