//! Hooks that wait: a number for each, which the module gives back from any thread when the hook can go on.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

static WAITING: LazyLock<Mutex<HashMap<u64, oneshot::Sender<()>>>> = LazyLock::new(Mutex::default);

fn waiting() -> MutexGuard<'static, HashMap<u64, oneshot::Sender<()>>> {
    // What holds it leaves nothing half done.
    WAITING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A hook that waits, or will. Its number means nothing once it is dropped.
pub(crate) struct WaitingHook {
    pub(crate) token: u64,
    resumed: oneshot::Receiver<()>,
}

impl WaitingHook {
    pub(crate) fn new() -> WaitingHook {
        static TOKENS: AtomicU64 = AtomicU64::new(1);
        let token = TOKENS.fetch_add(1, Ordering::Relaxed);
        let (sender, resumed) = oneshot::channel();
        waiting().insert(token, sender);
        WaitingHook { token, resumed }
    }

    pub(crate) async fn resumed(&mut self) {
        // The sender is dropped by `resume` alone.
        let _ = (&mut self.resumed).await;
    }
}

impl Drop for WaitingHook {
    fn drop(&mut self) {
        waiting().remove(&self.token);
    }
}

/// Lets a hook go on. A number that is unknown, was used, or whose hook waits no more does nothing.
pub(crate) fn resume(token: u64) {
    let waiting = waiting().remove(&token);
    if let Some(waiting) = waiting {
        let _ = waiting.send(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn once_and_only_while_it_waits() {
        let mut waiting = WaitingHook::new();
        let token = waiting.token;
        resume(token);
        waiting.resumed().await;
        resume(token);
        drop(waiting);
        resume(token);
        let gone = WaitingHook::new().token;
        resume(gone);
        assert!(!super::waiting().contains_key(&gone));
    }
}
