//! Decides which lines of an import may be processed concurrently without changing the result.
//!
//! Lines take effect as if they were sent one by one. A line can affect a later one in three ways: it has the same
//! instance, it takes or releases a unique value that the other needs, or a pre hook of the other may read its
//! instance. In these cases the later line waits; all other lines run concurrently.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use snaphook_driver::Append;
use tokio::sync::Notify;

use crate::catalog::references;

/// The unfinished lines, by number.
#[derive(Default)]
pub(super) struct Order {
    unfinished: Mutex<BTreeMap<u64, Touched>>,
    finished: Notify,
}

/// What is known about a line so far.
#[derive(Default)]
struct Touched {
    /// Absent if the line creates an instance with a generated id.
    id: Option<String>,
    /// Unique values that it takes or releases.
    keys: Vec<String>,
}

impl Order {
    /// Adds a line. Lines begin in their order.
    pub(super) fn begin(&self, line: u64, id: Option<&str>) {
        self.lock().insert(line, Touched { id: id.map(str::to_owned), keys: Vec::new() });
    }

    /// Removes a line: its effects are visible to others.
    pub(super) fn end(&self, line: u64) {
        self.lock().remove(&line);
        self.finished.notify_waiters();
    }

    /// Waits until no earlier line has the same instance; with `alone`, until no earlier line is left.
    pub(super) async fn before_preparing(&self, line: u64, id: Option<&str>, alone: bool) {
        self.until(line, |earlier| alone || (id.is_some() && earlier.id.as_deref() == id)).await;
    }

    /// Waits until no earlier line uses a unique value that this one takes or releases. Lines get here in their order.
    pub(super) async fn before_submitting(&self, line: u64, append: &Append) {
        let claims = append.claims.iter().map(|claim| &claim.key);
        // Any number of lines may refer to the same instance.
        let keys = claims.chain(&append.releases).filter(|key| !references::is_key(key));
        let keys: Vec<String> = keys.cloned().collect();
        if keys.is_empty() {
            return;
        }
        self.until(line, |earlier| earlier.keys.iter().any(|key| keys.contains(key))).await;
        if let Some(touched) = self.lock().get_mut(&line) {
            touched.keys = keys;
        }
    }

    async fn until(&self, line: u64, is_in_the_way: impl Fn(&Touched) -> bool) {
        loop {
            let finished = self.finished.notified();
            tokio::pin!(finished);
            // Registered before the check, so that no notification is missed.
            finished.as_mut().enable();
            if !self.lock().range(..line).any(|(_, earlier)| is_in_the_way(earlier)) {
                return;
            }
            finished.await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Touched>> {
        self.unfinished.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn waits(wait: impl Future<Output = ()>) -> bool {
        wait.now_or_never().is_none()
    }

    fn claiming(keys: &[&str]) -> Append {
        let claims = keys.iter().map(|key| snaphook_driver::Claim::new(*key)).collect();
        Append { claims, ..snaphook_driver_testkit::sample::any("m", "i") }
    }

    #[test]
    fn lines_wait_for_what_matters_to_them() {
        let order = Order::default();
        order.begin(1, Some("a"));
        order.begin(2, None);
        order.begin(3, Some("a"));
        order.begin(4, None);
        assert!(!waits(order.before_preparing(2, None, false)));
        assert!(waits(order.before_preparing(2, None, true)));
        assert!(waits(order.before_preparing(3, Some("a"), false)));
        assert!(!waits(order.before_preparing(3, Some("b"), false)));
        assert!(!waits(order.before_submitting(2, &claiming(&["k"]))));
        assert!(!waits(order.before_submitting(3, &claiming(&["l"]))));
        assert!(waits(order.before_submitting(4, &claiming(&["m", "k"]))));
        order.end(1);
        assert!(!waits(order.before_preparing(3, Some("a"), false)));
        order.end(2);
        assert!(!waits(order.before_submitting(4, &claiming(&["m", "k"]))));
        assert!(waits(order.before_preparing(4, None, true)));
        order.end(3);
        assert!(!waits(order.before_preparing(4, None, true)));
    }

    #[tokio::test]
    async fn who_waits_is_woken() {
        let order = Order::default();
        order.begin(1, Some("a"));
        order.begin(2, Some("a"));
        let (waited, ()) = tokio::join!(
            tokio::time::timeout(std::time::Duration::from_secs(60), order.before_preparing(2, Some("a"), false)),
            async {
                tokio::task::yield_now().await;
                order.end(1);
            }
        );
        waited.expect("the first line has ended");
    }
}
