//! Reads of instances as they are now, for all who make them, and what one may cost.

use std::time::Duration;

use snaphook_driver::{Budget, Instance, InstancePage, Limits};

use super::core::Core;
use super::error::{Error, Result};
use crate::catalog::is_instance_id;
use crate::catalog::query::{self, QueryInput};

/// What one list or count may cost. Wait and time together stay below five seconds.
pub(super) const LIMITS: Limits = Limits {
    // A scan of ten million small instances, roughly.
    steps: 500_000_000,
    time: Duration::from_secs(3),
    memory: 64 * 1024 * 1024,
    wait: Duration::from_millis(1500),
};

/// One instance; `None` if there is none, `not-found` if there is no such model.
pub(super) async fn find(core: &Core, model: &str, id: &str) -> Result<Option<Instance>> {
    core.availability.check_model(model)?;
    // Hooks ask for what they like, and no store has what cannot be an id.
    let found = if is_instance_id(id) { core.stores.model.get(model, id).await? } else { None };
    if found.is_none() {
        core.models.require(model)?;
    }
    Ok(found)
}

/// A page of instances.
pub(super) async fn page(core: &Core, model: &str, input: &QueryInput, budget: &Budget) -> Result<InstancePage> {
    core.availability.check_model(model)?;
    let entry = core.models.require(model)?;
    let query = query::check(&entry.model, input).map_err(Error::bad_request)?;
    Ok(core.stores.model.query(model, &query, budget).await?)
}
