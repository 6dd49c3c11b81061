//! Lists and counts of instances, each within a budget that clients and hooks cannot raise.

use std::time::Duration;

use snaphook_driver::{Budget, InstancePage, Limits};

use super::Engine;
use super::error::{Error, Result};
use crate::catalog::query::{self, QueryInput};

/// What one list or count may cost. Wait and time together stay below five seconds.
const LIMITS: Limits = Limits {
    // A scan of ten million small instances, roughly.
    steps: 500_000_000,
    time: Duration::from_secs(3),
    memory: 64 * 1024 * 1024,
    wait: Duration::from_millis(1500),
};

impl Engine {
    /// A page of instances.
    pub async fn query(&self, model: &str, input: &QueryInput) -> Result<InstancePage> {
        self.page(model, input, &Budget::new(LIMITS)).await
    }

    /// How many instances match, whatever the page.
    pub async fn count(&self, model: &str, input: &QueryInput) -> Result<u64> {
        self.count_within(model, input, &Budget::new(LIMITS)).await
    }

    /// Both. They share one budget.
    pub async fn query_and_count(&self, model: &str, input: &QueryInput) -> Result<(InstancePage, u64)> {
        let budget = Budget::new(LIMITS);
        let page = self.page(model, input, &budget).await?;
        Ok((page, self.count_within(model, input, &budget).await?))
    }

    async fn page(&self, model: &str, input: &QueryInput, budget: &Budget) -> Result<InstancePage> {
        self.availability.check_model(model)?;
        let entry = self.models.require(model)?;
        let query = query::check(&entry.model, input).map_err(Error::bad_request)?;
        Ok(self.stores.model.query(model, &query, budget).await?)
    }

    async fn count_within(&self, model: &str, input: &QueryInput, budget: &Budget) -> Result<u64> {
        self.availability.check_model(model)?;
        let entry = self.models.require(model)?;
        let filter = query::check(&entry.model, input).map_err(Error::bad_request)?.filter;
        Ok(self.stores.model.count(model, &filter, budget).await?)
    }
}
