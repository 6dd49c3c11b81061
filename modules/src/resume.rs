//! Waiting hooks. Each has a token, which the module passes back from any thread to resume the hook.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

static WAITING: LazyLock<Mutex<HashMap<u64, oneshot::Sender<()>>>> = LazyLock::new(Mutex::default);

fn waiting() -> MutexGuard<'static, HashMap<u64, oneshot::Sender<()>>> {
    // Code that holds this lock never leaves the state inconsistent.
    WAITING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A hook that waits or is about to. Its token is invalid once this is dropped.
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
        // Cannot fail: while this exists, only `resume` takes the sender, and it sends.
        let _ = (&mut self.resumed).await;
    }
}

impl Drop for WaitingHook {
    fn drop(&mut self) {
        waiting().remove(&self.token);
    }
}

/// Resumes a hook. Does nothing if the token is unknown or already used, or its hook no longer waits.
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
