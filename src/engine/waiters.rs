//! Callers that wait for the post hooks of one event (`Prefer: wait`).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use snaphook_driver::Position;
use tokio::sync::oneshot;

/// Who waits for which event.
#[derive(Default)]
pub(super) struct Waiters(Mutex<HashMap<Position, oneshot::Sender<()>>>);

impl Waiters {
    /// Called before the event is published, so that its end cannot be missed: no hook runs before that, whatever woke
    /// the consumer group. Only where the log was read again after a fault may it come too late; then the caller waits for as
    /// long as it wanted to.
    pub(super) fn add(&self, position: Position, sender: oneshot::Sender<()>) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Callers that gave up leave their senders behind.
        if waiting.len() >= 1024 {
            waiting.retain(|_, sender| !sender.is_closed());
        }
        waiting.insert(position, sender);
    }

    /// The post hooks of the event ended, well or not.
    pub(super) fn settle(&self, position: Position) {
        let sender = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&position);
        if let Some(sender) = sender {
            let _ = sender.send(());
        }
    }
}
