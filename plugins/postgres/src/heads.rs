//! The end of the log, for those that wait for more events.

use std::sync::{Arc, OnceLock};

use snaphook_driver::Position;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

/// Lives as long as the stores that use it.
pub(crate) struct Heads {
    head: watch::Sender<Position>,
    /// Notified when somebody begins to wait.
    wanted: Arc<Notify>,
    follower: OnceLock<JoinHandle<()>>,
}

impl Heads {
    pub(crate) fn new() -> Arc<Heads> {
        Arc::new(Heads { head: watch::Sender::new(0), wanted: Arc::default(), follower: OnceLock::new() })
    }

    /// The log reaches at least this position.
    pub(crate) fn publish(&self, head: Position) {
        self.head.send_if_modified(|last| {
            let is_news = head > *last;
            *last = head.max(*last);
            is_news
        });
    }

    /// A receiver of new positions. The first call starts the task that follows the log.
    pub(crate) fn subscribe(&self, start: impl FnOnce() -> JoinHandle<()>) -> watch::Receiver<Position> {
        let receiver = self.head.subscribe();
        self.follower.get_or_init(start);
        self.wanted.notify_one();
        receiver
    }

    pub(crate) fn wanted(&self) -> Arc<Notify> {
        Arc::clone(&self.wanted)
    }

    pub(crate) fn is_waited_for(&self) -> bool {
        self.head.receiver_count() > 0
    }
}

impl Drop for Heads {
    fn drop(&mut self) {
        self.follower.get().iter().for_each(|follower| follower.abort());
    }
}
