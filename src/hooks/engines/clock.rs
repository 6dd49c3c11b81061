//! How long a call may run: the limit counts the guest's time, but not the time in host calls.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::limits::Broken;
use crate::hooks::fair;
use crate::hooks::session::Session;

/// The deadline of one call, checked by the guest (at epoch ticks) and from outside (for a guest that waits).
pub(super) struct Clock {
    start: Instant,
    limit: Duration,
    session: Option<Arc<Session>>,
    broken: OnceLock<Broken>,
    breaks: Notify,
}

impl Clock {
    pub(super) fn start(limit: Duration, session: Option<Arc<Session>>) -> Self {
        let (broken, breaks) = (OnceLock::new(), Notify::new());
        Clock { start: Instant::now(), limit, session, broken, breaks }
    }

    /// Stops the guest, whatever it is doing, because something outside it found that a limit is exceeded.
    pub(super) fn break_off(&self, broken: Broken) {
        // The first one counts.
        let _ = self.broken.set(broken);
        self.breaks.notify_one();
    }

    /// The key under which its hook shares the cores with others; code that is only checked has a separate key.
    pub(super) fn share_key(&self) -> fair::Key {
        self.session.as_ref().map_or(0, |session| session.share_key())
    }

    /// Records that the guest ran for this long.
    pub(super) fn ran(&self, duration: Duration) {
        if let Some(session) = &self.session {
            session.guest_ran(duration);
        }
    }

    /// The time left; an error stops the guest.
    pub(super) fn left(&self) -> Result<Duration, Broken> {
        if let Some(broken) = self.broken.get() {
            return Err(broken.clone());
        }
        // The session measures its host calls, including those in progress.
        let host = self.session.as_ref().map_or(Duration::ZERO, |session| session.host_time());
        let used = self.start.elapsed().saturating_sub(host);
        match self.limit.checked_sub(used) {
            Some(left) if !left.is_zero() => Ok(left),
            _ => Err(Broken::timeout(self.limit, used)),
        }
    }
}

/// A running guest is stopped at its next tick; this stops a guest that waits for a timer or for the host.
pub(super) async fn bounded<T>(clock: Arc<Clock>, call: impl Future<Output = T> + Send) -> Result<T, Broken> {
    tokio::select! {
        biased;
        value = call => Ok(value),
        broken = over(&clock) => Err(broken),
    }
}

async fn over(clock: &Clock) -> Broken {
    loop {
        match clock.left() {
            // Slightly later than the guest's own check, which takes precedence where possible.
            Ok(left) => tokio::select! {
                () = tokio::time::sleep(left + Duration::from_millis(2)) => {}
                () = clock.breaks.notified() => {}
            },
            Err(broken) => return broken,
        }
    }
}
