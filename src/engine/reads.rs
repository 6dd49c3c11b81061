//! Reads of current instances, for all callers, and their budgets.

use std::time::Duration;

use snaphook_driver::time::{self, Millis};
use snaphook_driver::{Budget, Filter, Instance, InstancePage, InstanceQuery, Limits};

use super::core::Core;
use super::error::{Error, ErrorKind, Result};
use crate::catalog::query::{self, QueryInput};
use crate::catalog::rules::{Right, both};
use crate::catalog::{Model, is_instance_id};
use crate::memory::tree_bytes;

/// How long the pages of a list with a time-dependent rule can be read.
const LIST_MILLIS_MAX: Millis = 5 * 60 * 1000;

/// Budget of one list or count. Waiting and running together stay below five seconds.
pub(super) const LIMITS: Limits = Limits {
    // Roughly a scan of ten million small instances.
    steps: 500_000_000,
    time: Duration::from_secs(3),
    memory: 64 * 1024 * 1024,
    wait: Duration::from_millis(1500),
};

/// One instance; `None` if it does not exist, `not-found` if the model does not.
pub(super) async fn find(core: &Core, model: &str, id: &str, right: &Right) -> Result<Option<Instance>> {
    core.availability.check_model(model)?;
    // Hooks may pass any text, and no store has an invalid id.
    let found = if is_instance_id(id) { core.stores.model.get(model, id).await? } else { None };
    match found {
        None => core.models.require(model).map(|_| None),
        Some(found) => Ok(may_read(core, &found, right)?.then_some(found)),
    }
}

/// Whether a caller may read an instance of the model store. Instances that the caller may not read do not exist for
/// them.
pub(super) fn may_read(core: &Core, instance: &Instance, right: &Right) -> Result<bool> {
    let Some(subject) = right.subject() else { return Ok(true) };
    let in_use = core.models.in_use();
    // Without the model its rules are unknown.
    let Some(entry) = in_use.get(&instance.model) else { return Ok(false) };
    let Some(rules) = &entry.model.rules else { return Ok(true) };
    check_version(&entry.model, instance)?;
    let memory = core.own_memory.lease();
    memory.grow(tree_bytes(instance.data.as_bytes()))?;
    let Ok(tree) = instance.data.to_value() else { return Ok(false) };
    Ok(rules.may_read(subject, time::now(), instance, &tree))
}

/// A query, restricted to what the caller may read.
pub(super) struct Readable {
    pub(super) query: InstanceQuery,
    /// The time for the rules, if they depend on it. All pages of a list have the same time, which is in their cursors,
    /// because a store treats another filter as another list.
    moment: Option<Millis>,
}

impl Readable {
    /// `besides`: the server's own condition on the instances.
    pub(super) fn of(model: &Model, input: &QueryInput, besides: Option<Filter>, right: &Right) -> Result<Readable> {
        let mut query = query::check(model, input).map_err(Error::bad_request)?;
        if let Some(besides) = besides {
            query.filter = both(besides, query.filter);
        }
        let (Some(rules), Some(subject)) = (&model.rules, right.subject()) else {
            return Ok(Readable { query, moment: None });
        };
        let now = time::now();
        let mut moment = rules.reads_by_time().then_some(now);
        if moment.is_some()
            && let Some(cursor) = query.cursor.take()
        {
            let (began, rest) = began(&cursor, now)?;
            moment = Some(began);
            query.cursor = Some(rest.to_owned());
        }
        query.filter = both(query.filter, rules.readable(subject, moment.unwrap_or(now)));
        Ok(Readable { query, moment })
    }

    /// The page, with the start time of the list in its cursor.
    pub(super) fn page(&self, mut page: InstancePage) -> InstancePage {
        if let (Some(moment), Some(next)) = (self.moment, &mut page.next) {
            next.insert_str(0, &format!("{moment}~"));
        }
        page
    }
}

/// The start time in a cursor. A client could forge it, so it may only be slightly in the past.
fn began(cursor: &str, now: Millis) -> Result<(Millis, &str)> {
    let parts = cursor.split_once('~').and_then(|(began, rest)| Some((began.parse::<Millis>().ok()?, rest)));
    let (began, rest) =
        parts.ok_or_else(|| Error::bad_request("the cursor belongs to another list, start again without one"))?;
    if began > now || began < now - LIST_MILLIS_MAX {
        return Err(Error::bad_request("the cursor is too old, start again without one"));
    }
    Ok((began, rest))
}

/// What a caller may read of a model at a time, as a filter for the store; `None`: everything.
pub(super) fn readable(model: &Model, right: &Right, now: Millis) -> Option<Filter> {
    Some(model.rules.as_ref()?.readable(right.subject()?, now))
}

/// The number of all matching instances. `besides`: the server's own condition.
pub(super) async fn count(
    core: &Core,
    model: &str,
    input: &QueryInput,
    besides: Option<Filter>,
    budget: &Budget,
    right: &Right,
) -> Result<u64> {
    core.availability.check_model(model)?;
    let entry = core.models.require(model)?;
    let Readable { query, .. } = Readable::of(&entry.model, input, besides, right)?;
    Ok(core.stores.model.count(model, &query.filter, budget).await?)
}

/// A page of instances. `besides`: the server's own condition.
pub(super) async fn page(
    core: &Core,
    model: &str,
    input: &QueryInput,
    besides: Option<Filter>,
    budget: &Budget,
    right: &Right,
) -> Result<InstancePage> {
    core.availability.check_model(model)?;
    let entry = core.models.require(model)?;
    let readable = Readable::of(&entry.model, input, besides, right)?;
    let page = core.stores.model.query(model, &readable.query, budget).await?;
    if entry.model.rules.is_some() && right.subject().is_some() {
        page.items.iter().try_for_each(|instance| check_version(&entry.model, instance))?;
    }
    Ok(readable.page(page))
}

/// Rules apply to the properties of their version of the model. They cannot decide about data of a later version, which
/// the store may have a moment before the model is in use here.
pub(super) fn check_version(model: &Model, instance: &Instance) -> Result<()> {
    if instance.model_version <= model.record.version {
        return Ok(());
    }
    let detail = format!("the model `{}` is being changed; try again in a moment", model.record.id);
    Err(Error::new(ErrorKind::Unavailable, detail))
}
