//! Steps 1 to 3 of a change: model, data, schema, pre hooks. The result is the event, ready to append.

use std::sync::Arc;

use serde_json::Value;
use snaphook_driver::{Append, Claim, Event, EventKind, Expected, Instance, Json, Require, Stream, time};
use tokio::time::Instant;

use super::Writes;
use super::conflicts::{exists, not_unique};
use super::guard::{Guard, hides_others};
use super::prehooks::Decided;
use super::steps::{Drafted, PrepareOutcome, PreparedWrite, WriteCommand};
use crate::catalog::document::{Document, merge_patch};
use crate::catalog::rules::Right;
use crate::catalog::{FieldError, ModelRecord, Reference, references, unique};
use crate::engine::ahead::Ahead;
use crate::engine::command::{
    DryRun, HookDecision, InstanceChange, Origin, Precondition, Seen, WriteOptions, Written, phases,
};
use crate::engine::error::{Error, ErrorKind, Result, stopped};
use crate::engine::fit::{Fitting, fit};
use crate::engine::gate;
use crate::engine::idempotency::{IdempotencyKey, first_answer, first_event, is_key};
use crate::engine::models::LiveModel;
use crate::hooks::access;
use crate::hooks::context::Context;
use crate::memory::{Lease, Share, tree_bytes};

/// The input of a change, besides its model and the current instance.
pub(super) struct Draft<'a> {
    pub(super) command: &'a WriteCommand,
    pub(super) precondition: &'a Precondition,
    pub(super) origin: &'a Origin,
    /// What the pointers of errors begin with.
    pub(super) prefix: &'static str,
    /// Whether the verdicts of pre hooks are returned.
    pub(super) collect: bool,
    pub(super) trees: &'a Lease<&'a Share>,
    /// Instances visible to pre hooks that are not stored yet.
    pub(super) ahead: Option<&'a Arc<Ahead>>,
    /// A claim besides those of its values.
    pub(super) claim: Option<Claim>,
    /// The reference that the instance loses, for a change that consists only of this.
    pub(super) loses: Option<&'a Reference>,
    /// The rights of the caller that gets the result. The changes that follow from a deletion have the server's rights,
    /// but their errors go to the caller of the deletion.
    pub(super) told_to: &'a Right,
}

impl Writes {
    /// Steps 1 to 3: all steps before the event exists.
    pub(super) async fn prepare(
        &self,
        model: &str,
        command: &WriteCommand,
        options: &WriteOptions,
        origin: &Origin,
    ) -> Result<PrepareOutcome> {
        self.core.availability.check_model(model)?;
        let entry = self.open_model(model).await?;
        let WriteCommand { id, fresh, change } = command;
        if matches!(change, InstanceChange::Delete { .. }) && entry.model.record.referenced.is_some() {
            return Ok(PrepareOutcome::DeleteTarget);
        }
        let key = options.idempotency_key.as_ref();
        let key = key.map(|key| IdempotencyKey::of_change(model, key, command.named(), change, origin));
        // A creation with a generated id cannot collide with an instance.
        let current = if *fresh { None } else { self.core.stores.model.get(model, id).await? };
        // After the instance: its event took the key, so whoever sees the instance also sees the key.
        let mut replaces = None;
        if let Some(key) = &key
            && let Some(holder) = self.core.stores.event.holder(&key.claim).await?
        {
            match first_event(&*self.core.stores.event, &self.core.tail, &self.core.metrics, key, &holder)
                .await?
                .and_then(first_answer)
            {
                // The dry run of a change that was already performed.
                Some(_) if options.dry_run => {
                    return Ok(PrepareOutcome::Answer(Box::new(Written::DryRun(DryRun::unhooked(None)))));
                }
                Some(answer) => return Ok(PrepareOutcome::Answer(Box::new(answer))),
                None => replaces = Some(holder.position),
            }
        }
        // The client's data is counted where it is read; this counts data from the store and from hooks.
        let trees = self.core.own_memory.lease();
        let draft = Draft {
            command,
            precondition: &options.precondition,
            origin,
            prefix: if matches!(change, InstanceChange::Patch { .. }) { "" } else { "/data" },
            collect: options.dry_run,
            trees: &trees,
            ahead: None,
            // First, so that the second of two requests with the same key conflicts with the key, and not with a unique
            // value of the first.
            claim: key.clone().map(|key| key.claim(replaces)),
            loses: None,
            told_to: &origin.right,
        };
        let (append, instance, decisions) = match self.draft(&entry, draft, current).await? {
            Drafted::Pass { append, instance, decisions } => (append, instance, decisions),
            Drafted::Stop { decisions, .. } if options.dry_run => {
                let answer = DryRun { hooks: decisions, ..DryRun::unhooked(None) };
                return Ok(PrepareOutcome::Answer(Box::new(Written::DryRun(answer))));
            }
            Drafted::Stop { error, .. } => return Err(error),
        };
        if options.dry_run {
            self.check_claims(&entry, &append, hides_others(&entry, &origin.right)).await?;
            return Ok(PrepareOutcome::Answer(Box::new(Written::DryRun(dry_run(&entry, append.event, decisions)))));
        }
        let hides_others = hides_others(&entry, &origin.right);
        Ok(PrepareOutcome::Write(Box::new(PreparedWrite { append, instance, entry, key, hides_others })))
    }

    /// Steps 2 and 3 for the instance `current`: data, schema, pre hooks.
    pub(super) async fn draft(
        &self,
        entry: &LiveModel,
        draft: Draft<'_>,
        current: Option<Instance>,
    ) -> Result<Drafted> {
        let Draft { command, precondition, origin, prefix, collect, trees, ahead, claim, loses, .. } = draft;
        let WriteCommand { id, fresh, change } = command;
        let record = &entry.model.record;
        let model = &record.id;
        let guard = Guard::new(entry, origin, current.as_ref(), trees)?;
        let is_hidden = guard.as_ref().zip(current.as_ref()).is_some_and(|(guard, current)| guard.hides(current));
        let kind = match is_hidden {
            false => check_presence(record, command, current.as_ref(), precondition)?,
            true => check_hidden(record, command, precondition)?,
        };
        if let Some(guard) = &guard {
            guard.check_for_nobody(kind)?;
        }

        let mut document = match change {
            InstanceChange::Create { data, .. } | InstanceChange::Replace { data, .. } => Some(parse(data, prefix)?),
            InstanceChange::Patch { patch, .. } => Some(match (loses, &current) {
                (Some(reference), Some(current)) => without(entry, current, reference, trees)?,
                _ => patched(current.as_ref(), patch, prefix, trees)?,
            }),
            InstanceChange::Delete { .. } => None,
        };
        let is_patch = matches!(change, InstanceChange::Patch { .. });
        if let Some(unchecked) = document.take() {
            let fitting = Fitting { prefix, defaults: !is_patch };
            let checked = fit(&self.core.workers, model, &entry.model.schema, unchecked, fitting).await;
            document = Some(checked.map_err(|misfit| misfit.into_error(entry))?);
        }
        let named = document.as_ref().map(|document| &document.value);
        let hidden = self.hidden_targets(record, &origin.right, named, ahead).await?;

        let (pre, _) = phases(kind).ok_or_else(stopped)?;
        let chain = entry.chain(pre);
        let mut provenance = Vec::new();
        let mut decisions = Vec::new();
        if !chain.is_empty() {
            let context = Context {
                phase: pre,
                model: model.to_owned(),
                model_version: entry.model.record.version,
                instance: id.to_owned(),
                before: current.as_ref().map(|instance| instance.data.clone()),
                after: document.as_ref().map(|document| document.text.clone()),
                actor: origin.actor.clone(),
                request_id: origin.request_id.clone(),
                time: time::now(),
                event: None,
                attempt: 1,
                depth: origin.cause.as_ref().map_or(0, |cause| cause.depth),
                ahead: ahead.map(|ahead| Arc::clone(ahead) as Arc<dyn access::Ahead>),
            };
            match self.decide(entry, chain, context, document, prefix, collect, trees).await {
                Decided::Pass { document: decided, provenance: passed, decisions: made } => {
                    document = decided;
                    provenance = passed;
                    decisions = made;
                }
                Decided::Stop { error, decisions } => return Ok(Drafted::Stop { error, decisions }),
            }
        }

        if let Some(guard) = &guard {
            guard.check(kind, id, current.as_ref(), document.as_ref())?;
        }
        let revision = current.as_ref().map_or(1, |current| current.revision + 1);
        let event = Event {
            position: 0,
            id: uuid::Uuid::now_v7().to_string(),
            kind,
            model: model.to_owned(),
            model_version: record.version,
            instance: Some(id.to_owned()),
            revision,
            data: document.as_ref().map(|document| document.text.clone()),
            actor: origin.actor.clone(),
            cause: origin.cause.clone(),
            hooks: provenance,
            request_id: origin.request_id.clone(),
            trace: origin.trace.clone(),
            time: time::now(),
        };
        let expected = match &current {
            None => Expected::New,
            // Written by an earlier operation of the batch at a still unknown position, with nothing in between.
            Some(current) if current.position == 0 => Expected::Any,
            Some(current) => Expected::At(current.position),
        };
        let mut append = Append::new(event, expected);
        append.requires.push(Require { stream: Stream::of_model(model), position: record.position });
        append.claims.extend(claim);
        let is_looked_at = !record.unique.is_empty() || !record.references.is_empty() && document.is_some();
        let before = match current.as_ref().filter(|_| is_looked_at) {
            Some(current) => Some(parse_stored(&current.data, trees)?.value),
            None => None,
        };
        let data = document.as_ref().map(|document| &document.value);
        claim_unique(record, &mut append, before.as_ref(), data);
        match data {
            Some(data) if !record.references.is_empty() => {
                self.claim_targets(entry, &mut append, before.as_ref(), data, prefix, ahead, &hidden).await?;
            }
            None => self.guard_deletion(entry, &mut append).await?,
            Some(_) => {}
        }
        if let Some(referenced) = record.referenced.as_ref().filter(|_| current.is_none() && !fresh) {
            // An earlier deletion of an instance with that id blocks references to it.
            append.releases.push(referenced.key(id));
        }
        let now = append.event.time;
        let instance = match (current, document) {
            (Some(current), None) => current,
            (current, document) => Instance {
                id: id.to_owned(),
                model: model.to_owned(),
                model_version: record.version,
                revision,
                position: 0,
                created_at: current.as_ref().map_or(now, |current| current.created_at),
                updated_at: now,
                data: document.map_or_else(|| Json::trusted("{}"), |document| document.text),
            },
        };
        Ok(Drafted::Pass { append, instance, decisions })
    }

    /// The model, once it accepts writes; waits for a change of the model that is about to be put in use.
    pub(super) async fn open_model(&self, model: &str) -> Result<Arc<LiveModel>> {
        let mut deadline = None;
        loop {
            let entry = self.core.models.require(model)?;
            if entry.gate.is_open() {
                return Ok(entry);
            }
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + gate::WAIT_MAX);
            entry.gate.wait(model, deadline).await?;
        }
    }

    /// For dry runs: whether a value is already taken.
    async fn check_claims(&self, entry: &LiveModel, append: &Append, hides: bool) -> Result<()> {
        let stream = append.event.stream();
        let is_value = |claim: &&Claim| !is_key(&claim.key) && !references::is_key(&claim.key);
        for claim in append.claims.iter().filter(is_value) {
            if let Some(holder) = self.core.stores.event.holder(&claim.key).await?
                && holder.stream != stream
            {
                return Err(not_unique(&entry.model.record, &claim.key, Some(&holder).filter(|_| !hides)));
            }
        }
        Ok(())
    }
}

/// The result of a dry run for a change that would be written.
pub(super) fn dry_run(entry: &LiveModel, event: Event, hooks: Vec<HookDecision>) -> DryRun {
    let post = phases(event.kind).map_or(&[][..], |(_, post)| entry.chain(post));
    let post_hooks = post.iter().map(|hook| hook.binding().id.name.clone()).collect();
    DryRun { hooks, post_hooks, ..DryRun::unhooked(Some(event)) }
}

/// Claims new values of `unique` lists and releases old ones.
fn claim_unique(record: &ModelRecord, append: &mut Append, before: Option<&Value>, data: Option<&Value>) {
    if record.unique.is_empty() {
        return;
    }
    let keys = |data: Option<&Value>| data.map_or_else(Vec::new, |data| unique::keys(record, data));
    let (old, new) = (keys(before), keys(data));
    append.releases.extend(old.iter().filter(|key| !new.contains(key)).map(|key| key.key.clone()));
    append.claims.extend(new.into_iter().filter(|key| !old.contains(key)).map(|key| Claim::new(key.key)));
}

/// The data without a reference: null if the schema allows it, otherwise without the property.
fn without(entry: &LiveModel, current: &Instance, reference: &Reference, trees: &Lease<&Share>) -> Result<Document> {
    let mut value = parse_stored(&current.data, trees)?.value;
    trees.grow(current.data.len())?;
    if let Some(members) = value.as_object_mut() {
        match entry.model.schema.types_of(&reference.property).contains(&"null") {
            true => drop(members.insert(reference.property.clone(), Value::Null)),
            false => drop(members.shift_remove(&reference.property)),
        }
    }
    Ok(Document::from_value(value))
}

fn parse(data: &Json, pointer: &str) -> Result<Document> {
    Document::parse(data).map_err(|error| {
        let detail = error.to_string();
        let row = FieldError { pointer: format!("{pointer}{}", error.pointer), message: error.message };
        Error::bad_request(detail).with_errors(vec![row])
    })
}

/// The same for data of the store, whose size does not depend on the request: it takes memory of the budget.
fn parse_stored(data: &Json, trees: &Lease<&Share>) -> Result<Document> {
    trees.grow(tree_bytes(data.as_bytes()))?;
    parse(data, "")
}

/// The data after a merge patch.
fn patched(current: Option<&Instance>, patch: &Json, pointer: &str, trees: &Lease<&Share>) -> Result<Document> {
    let patch = parse(patch, pointer)?;
    let mut value = match current {
        Some(current) => parse_stored(&current.data, trees)?.value,
        None => Value::Null,
    };
    merge_patch(&mut value, patch.value);
    // The text of both.
    trees.grow(current.map_or(0, |current| current.data.len()))?;
    // Merging two documents of allowed depth cannot create a deeper one.
    Ok(Document::from_value(value))
}

/// The same if there is an instance that the caller may not see: as if it did not exist, except that its id is taken.
fn check_hidden(record: &ModelRecord, command: &WriteCommand, precondition: &Precondition) -> Result<EventKind> {
    match (&command.change, precondition) {
        (InstanceChange::Create { .. } | InstanceChange::Replace { create: true, .. }, Precondition::Absent) => {
            let detail = format!("`{}/{}` exists", record.id, command.id);
            Err(Error::new(ErrorKind::PreconditionFailed, detail))
        }
        (InstanceChange::Create { .. } | InstanceChange::Replace { create: true, .. }, _) => {
            Err(exists(&record.id, &command.id))
        }
        _ => check_presence(record, command, None, precondition),
    }
}

/// The kind of event of the change, if the current state allows it.
fn check_presence(
    record: &ModelRecord,
    command: &WriteCommand,
    current: Option<&Instance>,
    precondition: &Precondition,
) -> Result<EventKind> {
    let WriteCommand { id, change, .. } = command;
    let model = &record.id;
    let failed = |detail: String| Err(Error::new(ErrorKind::PreconditionFailed, detail));
    match (precondition, current) {
        (Precondition::At(_) | Precondition::Exists, None) if !matches!(change, InstanceChange::Create { .. }) => {
            return failed(format!("there is no `{model}/{id}`, so `If-Match` does not match"));
        }
        (Precondition::At(expected), Some(current)) if !expected.contains(&Seen::instance(current)) => {
            let what = if expected.iter().any(|seen| seen.position == current.position) {
                "was carried over to a new version of its model"
            } else {
                "was changed"
            };
            return failed(format!(
                "`{model}/{id}` {what} since it was read (it is at position {}, model version {}); read it again",
                current.position, current.model_version
            ));
        }
        (Precondition::Absent, Some(current)) => {
            return failed(format!("`{model}/{id}` exists, at position {}", current.position));
        }
        _ => {}
    }
    match (change, current) {
        (InstanceChange::Create { .. }, Some(_)) => Err(exists(model, id)),
        (InstanceChange::Create { .. }, None) => Ok(EventKind::InstanceCreated),
        (InstanceChange::Replace { create: true, .. }, None) => Ok(EventKind::InstanceCreated),
        (_, None) => Err(Error::not_found(format!("there is no `{model}/{id}`"))),
        (InstanceChange::Delete { .. }, Some(_)) => Ok(EventKind::InstanceDeleted),
        (_, Some(_)) => Ok(EventKind::InstanceUpdated),
    }
}
