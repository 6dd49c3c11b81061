//! Permits for threads of the bridge. Each connection that is served has one, including event streams until they end. A single
//! client gets only a part of them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use snaphook_identity::client_of;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Maximum number of connections that are served at once; others wait.
const THREADS: usize = 1024;

/// Maximum number for one client. A trusted proxy stands for many clients, so it may have all.
const OF_CLIENT: usize = THREADS / 4;

pub(super) struct Threads {
    all: Arc<Semaphore>,
    clients: Mutex<HashMap<u64, Weak<Semaphore>>>,
}

/// A permit for a thread, until it is dropped.
pub(super) struct Thread {
    _thread: OwnedSemaphorePermit,
    _of_client: Option<OwnedSemaphorePermit>,
}

impl Threads {
    pub(super) fn new() -> Threads {
        Threads { all: Arc::new(Semaphore::new(THREADS)), clients: Mutex::default() }
    }

    /// Waits for a permit. `client`: `None` for a trusted proxy.
    pub(super) async fn take(&self, client: Option<IpAddr>) -> Thread {
        // No semaphore is ever closed.
        let of_client = match client {
            Some(client) => self.of(client_of(client)).acquire_owned().await.ok(),
            None => None,
        };
        loop {
            if let Ok(thread) = Arc::clone(&self.all).acquire_owned().await {
                return Thread { _thread: thread, _of_client: of_client };
            }
        }
    }

    fn of(&self, client: u64) -> Arc<Semaphore> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(semaphore) = clients.get(&client).and_then(Weak::upgrade) {
            return semaphore;
        }
        clients.retain(|_, semaphore| semaphore.strong_count() > 0);
        let semaphore = Arc::new(Semaphore::new(OF_CLIENT));
        clients.insert(client, Arc::downgrade(&semaphore));
        semaphore
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn take(threads: &Threads, client: &str) -> Option<Thread> {
        let client = (client != "proxy").then(|| client.parse().unwrap());
        threads.take(client).now_or_never()
    }

    #[test]
    fn a_client_has_a_part_and_a_proxy_may_have_all() {
        let threads = Threads::new();
        let mut first: Vec<_> = (0..OF_CLIENT).map(|n| take(&threads, &format!("2001:db8::{n:x}")).unwrap()).collect();
        assert!(take(&threads, "2001:db8::ffff").is_none(), "they are of one network");
        let other = take(&threads, "192.0.2.1");
        assert!(other.is_some());
        first.pop();
        first.extend(take(&threads, "2001:db8::1"));
        assert_eq!(first.len(), OF_CLIENT);
        let rest = THREADS - OF_CLIENT - 1;
        let proxy: Vec<_> = (0..rest).map(|_| take(&threads, "proxy").unwrap()).collect();
        assert!(take(&threads, "proxy").is_none() && take(&threads, "192.0.2.1").is_none());
        drop((proxy, first, other));
        assert!(take(&threads, "192.0.2.2").is_some());
        assert!(threads.clients.lock().unwrap().len() <= 1, "those that hold none are forgotten");
    }
}
