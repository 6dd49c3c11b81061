//! Limits the number of concurrent runs and their total memory: each run is a process that may use up to its memory
//! limit.

use std::fs;

use crate::config::Phase;
use crate::hooks::fair::{self, FairPermit, FairSemaphore, Share};

/// Concurrent runs of all hooks. As many again for post hooks, which may wait long, since clients do not wait for them.
const CALLS_MAX: usize = 128;

/// Used if the system does not report its memory.
const MEMORY_ASSUMED: u64 = 4 << 30;

/// Permits for memory. One permit is one MiB.
pub(super) struct Room {
    pre: FairSemaphore,
    post: FairSemaphore,
    places: usize,
}

impl Room {
    /// A quarter of the available memory for pre hooks, and another for post hooks.
    pub(super) fn of_this_machine() -> Self {
        Room::new(memory_bytes() / 4)
    }

    pub(super) fn new(memory_bytes: u64) -> Self {
        let places = usize::try_from(memory_bytes >> 20).unwrap_or(0).max(1);
        let permits = || FairSemaphore::new(places, Share::LeavesSome);
        Room { pre: permits(), post: permits(), places }
    }

    /// Waits for memory, in turns with other hooks. A run whose limit exceeds the total gets all of it.
    pub(super) async fn take(&self, phase: Phase, key: fair::Key, limit_bytes: usize) -> FairPermit {
        let places = (limit_bytes >> 20).max(self.places.div_ceil(CALLS_MAX)).clamp(1, self.places);
        self.of(phase).acquire(key, places).await
    }

    /// Memory limit of all idle workers together, in MiB.
    pub(super) const fn for_idle(&self) -> usize {
        self.places
    }

    fn of(&self, phase: Phase) -> &FairSemaphore {
        if phase.is_pre() { &self.pre } else { &self.post }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self, phase: Phase) -> bool {
        self.of(phase).free() == self.places
    }
}

/// The memory available to this process: the machine's, or the limit of its control group.
fn memory_bytes() -> u64 {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib << 10)
    });
    let group = fs::read_to_string("/proc/self/cgroup").ok().and_then(|text| {
        let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
        fs::read_to_string(format!("/sys/fs/cgroup/{path}/memory.max")).ok()?.trim().parse::<u64>().ok()
    });
    machine.unwrap_or(MEMORY_ASSUMED).min(group.unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn calls_are_bounded_in_number_and_in_memory() {
        let room = Room::new(1 << 30);
        let fill = |limit: usize| {
            let mut taken = Vec::new();
            // Each for another hook.
            let take = |key: usize| tokio::task::unconstrained(room.take(Phase::PreCreate, key as u64, limit));
            while let Some(place) = futures::FutureExt::now_or_never(take(taken.len())) {
                taken.push(place);
            }
            taken.len()
        };
        assert_eq!(fill(1 << 20), CALLS_MAX, "however small");
        assert_eq!(fill(64 << 20), 16);
        assert_eq!(fill(8 << 30), 1, "more than there is");
        let _all = room.take(Phase::PreCreate, 1, 1 << 30).await;
        assert!(room.is_empty(Phase::PostCreate) && !room.is_empty(Phase::PreCreate));
        assert!(Room::of_this_machine().places > 1);
    }
}
