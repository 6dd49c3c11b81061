//! Limits how many requests one server gets at once, from all webhooks together.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use url::Url;

use crate::hooks::fair::{self, FairPermit, FairSemaphore, Share};

/// Concurrent requests to one server. A server that never responds occupies this many of the connections that all hooks
/// share, for the duration of a request's timeout.
const REQUESTS_PER_TARGET: usize = 16;

/// Servers that webhooks send to, by scheme, host and port.
#[derive(Default)]
pub(super) struct Targets(Mutex<HashMap<String, Weak<WebhookTarget>>>);

/// One of them.
pub(super) struct WebhookTarget(FairSemaphore);

impl Targets {
    /// The target of a URL, shared by all hooks.
    pub(super) fn of(&self, url: &str) -> Arc<WebhookTarget> {
        let origin = Url::parse(url).map(|url| url.origin().ascii_serialization()).unwrap_or_default();
        // Code that holds this lock never leaves the state inconsistent.
        let mut targets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(target) = targets.get(&origin).and_then(Weak::upgrade) {
            return target;
        }
        targets.retain(|_, target| target.strong_count() > 0);
        let target = Arc::new(WebhookTarget(FairSemaphore::new(REQUESTS_PER_TARGET, Share::All)));
        targets.insert(origin, Arc::downgrade(&target));
        target
    }
}

impl WebhookTarget {
    /// Waits for a hook's turn.
    pub(super) async fn turn(&self, key: fair::Key) -> FairPermit {
        self.0.acquire(key, 1).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_for_each_server() {
        let targets = Targets::default();
        let first = targets.of("https://example.com/a?b");
        assert!(Arc::ptr_eq(&first, &targets.of("https://EXAMPLE.com:443/c")));
        for other in ["https://example.com:8443/a", "http://example.com/a", "https://a.example.com/a"] {
            assert!(!Arc::ptr_eq(&first, &targets.of(other)), "{other}");
        }
        drop(first);
        drop(targets.of("https://example.org/"));
        assert_eq!(targets.0.lock().unwrap().len(), 1, "those that nobody uses are forgotten");
    }
}
