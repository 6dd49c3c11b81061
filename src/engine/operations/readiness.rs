//! What does not work now.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Serialize;

use super::Operations;
use crate::engine::stuck::Stuck;
use crate::engine::troubles::guarded;

/// A store whose health check takes longer counts as not working.
const HEALTH_MAX: Duration = Duration::from_secs(2);

/// What does not work now; nothing, if all is well.
#[derive(Clone, Debug, PartialEq)]
pub struct Readiness {
    /// At most one row for each store.
    pub stores: Vec<StoreFault>,
    pub models: Vec<Stuck>,
}

/// Why a store does not work.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StoreFault {
    pub store: &'static str,
    pub reason: String,
}

impl Operations {
    /// What does not work now.
    pub async fn readiness(&self) -> Readiness {
        let mut stores: Vec<(&'static str, String)> = Vec::new();
        let (secure, event, model, error) = tokio::join!(
            health(self.core.stores.secure.health()),
            health(self.core.stores.event.health()),
            health(self.core.stores.model.health()),
            health(self.core.stores.error.health()),
        );
        for (name, health) in [("secure", secure), ("event", event), ("model", model), ("error", error)] {
            stores.extend(health.err().map(|reason| (name, reason)));
        }
        stores.extend(self.core.troubles.all().into_iter().map(|(part, reason)| (part.store(), reason)));
        if let Some(time) = self.core.committer.stalled() {
            stores.push(("event", format!("it has been appending for {} s", time.as_secs())));
        }
        stores.extend(self.core.availability.check().err().map(|error| ("model", error.detail)));
        // One reason for each store: the first is the nearest to its cause.
        let mut seen = BTreeSet::new();
        stores.retain(|(store, _)| seen.insert(*store));
        Readiness {
            stores: stores.into_iter().map(|(store, reason)| StoreFault { store, reason }).collect(),
            models: self.core.availability.all_stuck().into_values().collect(),
        }
    }
}

/// Checks the health of a store; the error is the reason.
async fn health(answer: impl Future<Output = snaphook_driver::Result<()>>) -> Result<(), String> {
    match tokio::time::timeout(HEALTH_MAX, guarded("health", answer)).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("it has not responded for {} s", HEALTH_MAX.as_secs())),
    }
}
