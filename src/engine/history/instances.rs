//! Current instances: one, or lists and counts, each within a budget that clients and hooks cannot raise.

use snaphook_driver::{Budget, Instance, InstancePage};

use super::{History, absent};
use crate::catalog::query::{self, QueryInput};
use crate::catalog::rules::Right;
use crate::engine::error::{Error, Result};
use crate::engine::reads::{self, LIMITS};

impl History {
    /// One instance, as it is now.
    pub async fn get(&self, model: &str, id: &str) -> Result<Instance> {
        reads::find(&self.core, model, id, &Right::Server).await?.ok_or_else(|| absent(model, id))
    }

    /// Whether data of the model can have a value at each of the paths.
    pub fn check_fields(&self, model: &str, paths: &[String]) -> Result<()> {
        query::check_fields(&self.core.models.require(model)?.model, paths).map_err(Error::bad_request)
    }

    /// A page of instances.
    pub async fn query(&self, model: &str, input: &QueryInput) -> Result<InstancePage> {
        reads::page(&self.core, model, input, None, &Budget::new(LIMITS), &Right::Server).await
    }

    /// How many instances match, whatever the page.
    pub async fn count(&self, model: &str, input: &QueryInput) -> Result<u64> {
        reads::count(&self.core, model, input, None, &Budget::new(LIMITS), &Right::Server).await
    }

    /// Both, within one budget.
    pub async fn query_and_count(&self, model: &str, input: &QueryInput) -> Result<(InstancePage, u64)> {
        let budget = Budget::new(LIMITS);
        let page = reads::page(&self.core, model, input, None, &budget, &Right::Server).await?;
        Ok((page, reads::count(&self.core, model, input, None, &budget, &Right::Server).await?))
    }
}
