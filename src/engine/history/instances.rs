//! Instances as they are now: one, or lists and counts, each within a budget that clients and hooks cannot raise.

use std::time::Duration;

use snaphook_driver::{Budget, Instance, InstancePage, Limits};

use super::History;
use crate::catalog::is_instance_id;
use crate::catalog::query::{self, QueryInput};
use crate::engine::error::{Error, Result};

/// What one list or count may cost. Wait and time together stay below five seconds.
const LIMITS: Limits = Limits {
    // A scan of ten million small instances, roughly.
    steps: 500_000_000,
    time: Duration::from_secs(3),
    memory: 64 * 1024 * 1024,
    wait: Duration::from_millis(1500),
};

impl History {
    /// One instance, as it is now.
    pub async fn get(&self, model: &str, id: &str) -> Result<Instance> {
        self.core.availability.check_model(model)?;
        // Hooks ask for what they like, and no store has what cannot be an id.
        let found = if is_instance_id(id) { self.core.stores.model.get(model, id).await? } else { None };
        match found {
            Some(instance) => Ok(instance),
            None => {
                self.core.models.require(model)?;
                let shown: String = id.chars().take(128).collect();
                Err(Error::not_found(format!("there is no `{model}/{}`", shown.escape_debug())))
            }
        }
    }

    /// Whether data of the model may have something at each of the paths.
    pub fn check_fields(&self, model: &str, paths: &[String]) -> Result<()> {
        query::check_fields(&self.core.models.require(model)?.model, paths).map_err(Error::bad_request)
    }

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
        self.core.availability.check_model(model)?;
        let entry = self.core.models.require(model)?;
        let query = query::check(&entry.model, input).map_err(Error::bad_request)?;
        Ok(self.core.stores.model.query(model, &query, budget).await?)
    }

    async fn count_within(&self, model: &str, input: &QueryInput, budget: &Budget) -> Result<u64> {
        self.core.availability.check_model(model)?;
        let entry = self.core.models.require(model)?;
        let filter = query::check(&entry.model, input).map_err(Error::bad_request)?.filter;
        Ok(self.core.stores.model.count(model, &filter, budget).await?)
    }
}
