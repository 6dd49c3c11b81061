//! Adds and removes references when the definition of a model changes.
//!
//! Before others may refer to a model, an event of its own definition records this. From then on every deletion of its
//! instances, on every node, looks for references, and requires that the referring models have not changed. A new
//! reference is checked for every instance ([`Targets`]); deletions of targets during the check are found in the log,
//! and the definition is written on condition that there are no further ones.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde_json::Value;
use sha2::{Digest, Sha256};
use snaphook_driver::{
    Budget, CarryOver, Claim, Condition, EventFilter, EventKind, EventQuery, Expected, InstanceQuery, Meta, ModelStore,
    Operator, Position, Require, Stream, time,
};

use super::define::{Defining, NewDefinition};
use super::event::definition_append;
use super::faults::changed;
use super::{Definitions, LISTED_MAX};
use crate::catalog::{
    Definition, FieldError, ModelRecord, OnDelete, Reference, Referenced, escape_token, is_instance_id,
};
use crate::engine::change::DefinitionChange;
use crate::engine::command::Origin;
use crate::engine::core::Core;
use crate::engine::error::{Error, ErrorKind, Result};
use crate::engine::models::LiveModel;
use crate::engine::referring::referring;

/// How often somebody else may change a model while a reference to it is recorded.
const RACES_MAX: u32 = 5;

/// Targets per query.
const TARGETS_AT_ONCE: usize = 200;

/// Events per page.
const PAGE: u32 = 500;

impl Definitions {
    /// Rejects references to models that do not exist, and those that the event store cannot keep consistent.
    pub(super) fn check_references(&self, id: &str, definition: &Definition) -> Result<()> {
        for reference in &definition.references {
            let invalid = |member: &str, kind: ErrorKind, message: String| {
                let pointer = format!("/schema/properties/{}/x-references/{member}", escape_token(&reference.property));
                Err(Error::new(kind, message.clone()).with_errors(vec![FieldError { pointer, message }]))
            };
            if reference.model != id && self.core.models.get(&reference.model).is_none() {
                let message = format!("there is no model `{}` to refer to; create it first", reference.model);
                return invalid("model", ErrorKind::Invalid, message);
            }
            if reference.on_delete != OnDelete::Restrict && !self.core.stores.event.capabilities().atomic_batch {
                let message = format!(
                    "`{}` needs an event store that writes several events as one, which this one cannot; use `restrict`, or \
                     another driver for events",
                    reference.on_delete.as_str()
                );
                return invalid("on-delete", ErrorKind::NotSupported, message);
            }
        }
        Ok(())
    }

    /// Records in the target models that a definition refers to them, unless they know it. If a list is full, models
    /// that no longer refer are removed from it. The caller must hold no model's lock.
    pub(super) async fn tell_targets(&self, id: &str, references: &[Reference], origin: &Origin) -> Result<()> {
        for target in others(id, references) {
            let mut lost = 0;
            while let Err(error) = self.tell(target, id, origin).await {
                lost += 1;
                if error.kind != ErrorKind::Conflict || lost == RACES_MAX {
                    return Err(error);
                }
                self.core.catch_up(0).await?;
            }
        }
        Ok(())
    }

    async fn tell(&self, target: &str, id: &str, origin: &Origin) -> Result<()> {
        let one = self.lock_model(target).await?;
        self.core.availability.check_model(target)?;
        let entry = self.core.models.require(target)?;
        let old = &entry.model.record;
        if old.referenced.as_ref().is_some_and(|referenced| referenced.is_by(id)) {
            return Ok(());
        }
        let mut known = old.referenced.clone();
        let mut requires = Vec::new();
        if let Some(full) = known.take_if(|known| known.is_full()) {
            let others = referring(&self.core, old).await?;
            let refers = |entry: &LiveModel| entry.model.references_to(target).next().is_some();
            requires.extend(
                others
                    .into_iter()
                    .filter(|other| !other.entry.as_deref().is_some_and(refers))
                    .map(|other| other.require),
            );
            let gone: Vec<&str> = requires.iter().map(|require: &Require| require.stream.model.as_str()).collect();
            known = Some(full.without(&gone));
        }
        let referenced = Referenced::with(known.as_ref(), id).map_err(|message| {
            Error::new(ErrorKind::Invalid, format!("`{id}` cannot refer to `{target}`: {message}"))
        })?;
        let record = ModelRecord {
            version: old.version + 1,
            referenced: Some(referenced),
            position: 0,
            updated_at: time::now(),
            ..old.clone()
        };
        let change = DefinitionChange { definition: record.clone(), renames: Vec::new(), phase: None, is_target: true };
        let mut append =
            definition_append(EventKind::ModelUpdated, &record, &change, Expected::At(old.position), origin)?;
        append.requires = requires;
        let schema = entry.model.schema.clone();
        let definition = NewDefinition { append, schema, carry: CarryOver::default(), ready: None };
        let (definitions, target) = (self.clone(), target.to_owned());
        let define = async move {
            let _one = one;
            match definitions.define(definition).await? {
                Defining::Done(_) => Ok(()),
                // A model that is removed from the list was changed meanwhile.
                Defining::NotQuiet(_) => Err(changed(&target)),
            }
        };
        self.core.commit(define).await
    }

    /// The conditions on target models: they exist and know about the reference.
    pub(super) fn require_targets(&self, id: &str, references: &[Reference]) -> Result<Vec<Require>> {
        let require = |target: &str| {
            let entry = self.core.models.require(target)?;
            let record = &entry.model.record;
            match record.referenced.as_ref().is_some_and(|referenced| referenced.is_by(id)) {
                true => Ok(Require { stream: Stream::of_model(target), position: record.position }),
                // The model was deleted and created again meanwhile.
                false => Err(changed(target)),
            }
        };
        others(id, references).into_iter().map(require).collect()
    }

    /// Rejects the deletion of a model that others refer to. Returns the conditions that must hold until the deletion.
    pub(super) async fn check_unreferred(&self, record: &ModelRecord) -> Result<Vec<Require>> {
        let others = referring(&self.core, record).await?;
        let entries = others.iter().filter_map(|other| other.entry.as_ref());
        refuse_referred(&record.id, entries.map(|entry| &entry.model.record))?;
        Ok(others.into_iter().map(|other| other.require).collect())
    }

    /// The same, as far as this node knows, for a model whose record may be unknown.
    pub(super) fn check_stuck_unreferred(&self, id: &str) -> Result<()> {
        let all = self.core.models.all();
        refuse_referred(id, all.iter().map(|entry| &entry.model.record))
    }
}

pub(super) fn refuse_referred<'a>(id: &str, records: impl Iterator<Item = &'a ModelRecord>) -> Result<()> {
    let names: Vec<String> = records
        .filter(|record| record.id != id && record.references.iter().any(|reference| reference.model == id))
        .map(|record| format!("`{}`", record.id))
        .collect();
    if names.is_empty() {
        return Ok(());
    }
    let shown = names.iter().take(LISTED_MAX).cloned().collect::<Vec<_>>().join(", ");
    let detail =
        format!("model `{id}` cannot be deleted, since other models refer to it: {shown}; change or delete them first");
    Err(Error::new(ErrorKind::Referenced, detail))
}

/// The target models of references, each once, without the model itself.
fn others<'a>(id: &str, references: &'a [Reference]) -> BTreeSet<&'a str> {
    references.iter().map(|reference| reference.model.as_str()).filter(|target| *target != id).collect()
}

/// The targets of new references.
pub(super) struct Targets {
    model: String,
    added: Vec<Reference>,
    renames: Vec<(String, String)>,
    /// The defaults for instances without the property.
    defaults: Vec<(String, Value)>,
    /// Digests of existing targets.
    known: HashSet<u128>,
    /// Targets that were not looked up yet, with their instance.
    open: Vec<(String, usize, String)>,
    /// Deletions of targets up to this position are known.
    since: Position,
}

/// Instances with missing targets, and the reason.
pub(super) type Dangling = Vec<(String, String)>;

impl Targets {
    pub(super) fn new(model: &str, added: Vec<Reference>, carry: &CarryOver, since: Position) -> Targets {
        let is_added = |name: &String| added.iter().any(|reference| reference.property == *name);
        let defaults = carry.defaults.iter().filter(|(name, _)| is_added(name)).cloned().collect();
        Targets {
            model: model.to_owned(),
            added,
            renames: carry.renames.clone(),
            defaults,
            known: HashSet::new(),
            open: Vec::new(),
            since,
        }
    }

    /// Whether there are no such references.
    pub(super) fn is_empty(&self) -> bool {
        self.added.is_empty()
    }

    /// Records the targets of an instance.
    pub(super) fn note(&mut self, instance: &str, data: &Value) {
        for (index, reference) in self.added.iter().enumerate() {
            if let Some(target) = data.get(&reference.property).and_then(Value::as_str)
                && !self.known.contains(&digest(&reference.model, target))
            {
                self.open.push((instance.to_owned(), index, target.to_owned()));
            }
        }
    }

    /// Looks up the recorded targets. Returns the instances with missing targets.
    pub(super) async fn look_up(&mut self, store: &dyn ModelStore) -> Result<Dangling> {
        let open = std::mem::take(&mut self.open);
        let mut wanted: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (_, index, target) in open.iter().filter(|(_, _, target)| is_instance_id(target)) {
            wanted.entry(&self.added[*index].model).or_default().insert(target);
        }
        for (model, ids) in wanted {
            let ids: Vec<&str> = ids.into_iter().collect();
            for ids in ids.chunks(TARGETS_AT_ONCE) {
                let values = ids.iter().map(|id| Value::from(*id)).collect();
                let condition = Condition { path: Meta::Id.into(), operator: Operator::In(values) };
                let mut query = InstanceQuery {
                    filter: condition.into(),
                    limit: TARGETS_AT_ONCE as u32,
                    ..InstanceQuery::default()
                };
                loop {
                    let page = store.query(model, &query, &Budget::unlimited()).await?;
                    self.known.extend(page.items.iter().map(|found| digest(model, &found.id)));
                    match page.next {
                        Some(next) => query.cursor = Some(next),
                        None => break,
                    }
                }
            }
        }
        let is_missing = |(_, index, target): &(String, usize, String)| {
            let model = &self.added[*index].model;
            !self.known.contains(&digest(model, target))
        };
        Ok(open.into_iter().filter(is_missing).map(|(id, index, target)| (id, self.missing(index, &target))).collect())
    }

    fn missing(&self, index: usize, target: &str) -> String {
        let Reference { property, model, .. } = &self.added[index];
        let shown: String = target.chars().take(128).collect();
        format!("/{property} refers to `{model}/{}`, which does not exist", shown.escape_debug())
    }

    /// Finds targets that were deleted after the lookup. Returns the instances that refer to them, and the claims that
    /// prevent further deletions until the definition is written. Writes to the model's instances wait meanwhile.
    pub(super) async fn fence(&mut self, core: &Core) -> Result<(Dangling, Vec<Claim>)> {
        let (mut claims, mut seen) = (Vec::new(), 0);
        if self.is_empty() {
            return Ok((Vec::new(), claims));
        }
        for target in others(&self.model, &self.added) {
            let entry = core.models.require(target)?;
            let referenced = entry.model.record.referenced.as_ref().ok_or_else(|| changed(target))?;
            let holder = core.stores.event.holder(&referenced.prefix()).await?;
            let replaces = holder.map(|holder| holder.position);
            seen = seen.max(replaces.unwrap_or(0));
            claims.push(Claim { replaces, ..Claim::new(referenced.prefix()) });
        }
        let head = core.catch_up(seen).await?;
        let mut dangling = Vec::new();
        let targets: BTreeSet<String> = self.added.iter().map(|reference| reference.model.clone()).collect();
        for target in targets {
            let filter = EventFilter {
                model: Some(target.clone()),
                kinds: vec![EventKind::InstanceDeleted],
                ..EventFilter::default()
            };
            let mut query = EventQuery { after: self.since, limit: PAGE, filter };
            loop {
                let page = core.stores.event.read(&query, None).await?;
                for event in &page.events {
                    let id = event.instance.as_deref().unwrap_or_default();
                    if self.known.contains(&digest(&target, id)) && core.stores.model.get(&target, id).await?.is_none()
                    {
                        self.known.remove(&digest(&target, id));
                        // One is enough to reject the definition.
                        if dangling.len() < LISTED_MAX {
                            dangling.extend(self.referring(core, &target, id).await?);
                        }
                    }
                }
                match page.next() {
                    Some(next) => query.after = next,
                    None => break,
                }
            }
        }
        self.since = head;
        Ok((dangling, claims))
    }

    /// The instances that refer to a missing target.
    async fn referring(&self, core: &Core, target: &str, id: &str) -> Result<Dangling> {
        let mut found = Vec::new();
        for (index, reference) in self.added.iter().enumerate().filter(|(_, reference)| reference.model == target) {
            if self.defaults.iter().any(|(name, value)| *name == reference.property && value.as_str() == Some(id)) {
                let message =
                    format!("the default of `{}` is `{id}`, and `{target}/{id}` does not exist", reference.property);
                let pointer = format!("/schema/properties/{}/default", escape_token(&reference.property));
                let row = FieldError { pointer, message: message.clone() };
                return Err(Error::new(ErrorKind::Invalid, message).with_errors(vec![row]));
            }
            // Instances still have the property names of the old version.
            let renamed = self.renames.iter().find(|(_, new)| *new == reference.property);
            let property = renamed.map_or(&reference.property, |(old, _)| old).clone();
            let condition = Condition { path: vec![property].into(), operator: Operator::Eq(id.into()) };
            let query =
                InstanceQuery { filter: condition.into(), limit: LISTED_MAX as u32, ..InstanceQuery::default() };
            let page = core.stores.model.query(&self.model, &query, &Budget::unlimited()).await?;
            found.extend(page.items.into_iter().map(|instance| (instance.id, self.missing(index, id))));
        }
        Ok(found)
    }
}

fn digest(model: &str, id: &str) -> u128 {
    let digest = Sha256::digest(format!("{model}/{id}"));
    digest.iter().take(16).fold(0_u128, |bytes, byte| bytes << 8 | u128::from(*byte))
}
