//! The signal that the server is stopping, which ends endless work.

use std::future::Future;

use tokio::sync::watch;

/// Set once; many can wait for it.
pub(super) struct Stopping(watch::Sender<bool>);

impl Default for Stopping {
    fn default() -> Self {
        Stopping(watch::Sender::new(false))
    }
}

impl Stopping {
    /// Signals that the server is stopping.
    pub(super) fn begin(&self) {
        self.0.send_replace(true);
    }

    /// Waits until the server is stopping.
    pub(super) fn begun(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut stopping = self.0.subscribe();
        async move {
            let _ = stopping.wait_for(|stopping| *stopping).await;
        }
    }
}
