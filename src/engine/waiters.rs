//! Callers that wait for the post hooks of one event (`Prefer: wait`).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use snaphook_driver::{ErrorKind, EventStore, Position, Stream};
use tokio::sync::oneshot;

use super::group::group_of;
use super::tail::Tail;

/// Delay before the first check whether the post hooks of an event ended on another node; doubles with each further
/// check.
const SETTLED_LOOK_FIRST: Duration = Duration::from_millis(20);
const SETTLED_LOOK_MAX: Duration = Duration::from_millis(320);

/// The waiters, by event.
#[derive(Default)]
pub(super) struct Waiters(Mutex<HashMap<Position, oneshot::Sender<()>>>);

impl Waiters {
    /// Called before the event is published, so that no notification is missed: no hook runs before that. Only after
    /// the log was read again because of a fault may it come too late; then the caller waits for its full time.
    pub(super) fn add(&self, position: Position, sender: oneshot::Sender<()>) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Callers that gave up left their senders here.
        if waiting.len() >= 1024 {
            waiting.retain(|_, sender| !sender.is_closed());
        }
        waiting.insert(position, sender);
    }

    /// The post hooks of the event have ended, successfully or not.
    pub(super) fn settle(&self, position: Position) {
        let sender = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&position);
        if let Some(sender) = sender {
            let _ = sender.send(());
        }
    }
}

/// Waits until the post hooks of an event have ended, on any node, and what they wrote is visible on this one.
pub(super) async fn settled(
    events: &dyn EventStore,
    tail: &Tail,
    instance: &Stream,
    position: Position,
    here: oneshot::Receiver<()>,
) {
    if !events.capabilities().shared {
        let _ = here.await;
        return;
    }
    let group = group_of(&instance.model).name;
    let elsewhere = async {
        let mut delay = SETTLED_LOOK_FIRST;
        loop {
            match events.is_done(&group, instance, position).await {
                Ok(true) => break,
                // The group was removed with the hooks.
                Err(error) if error.kind() == ErrorKind::Invalid => return,
                // A store's failure is reported elsewhere; the caller waits for its full time.
                _ => tokio::time::sleep(delay).await,
            }
            delay = (delay * 2).min(SETTLED_LOOK_MAX);
        }
        if let Ok(head) = events.head().await {
            tail.reached(head).await;
        }
    };
    tokio::select! {
        Ok(()) = here => {}
        () = elsewhere => {}
    }
}
