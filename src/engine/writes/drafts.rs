//! Drafts of changes that are written as one: what each has found, taken and deleted.

use std::collections::HashMap;
use std::sync::Arc;

use snaphook_driver::{Append, Cause, Claim, EventKind, Holder, Instance, Stream};

use super::Writes;
use super::conflicts::not_unique;
use super::guard::hides_others;
use super::prepare::{Draft, dry_run};
use super::steps::{Drafted, One, Submitted, WriteCommand};
use crate::catalog::references;
use crate::engine::ahead::Ahead;
use crate::engine::command::{DryRun, Follows, HookDecision};
use crate::engine::error::{Error, ErrorKind, Result};
use crate::engine::idempotency::is_key;
use crate::engine::models::LiveModel;
use crate::engine::reads::may_read;

/// Bytes of data of the events of one batch, if the event store accepts as many.
const BYTES_MAX: u64 = 32 << 20;

/// A batch that is ready to be written.
pub(super) struct PreparedBatch {
    pub(super) appends: Vec<Append>,
    pub(super) submitted: Vec<Submitted>,
    /// For each append, its operation. The first append of an operation is its own, the others follow from it.
    pub(super) operations: Vec<usize>,
}

/// The state of a batch while its operations are drafted.
#[derive(Default)]
pub(super) struct Drafts {
    pub(super) appends: Vec<Append>,
    pub(super) submitted: Vec<Submitted>,
    /// See [`PreparedBatch`].
    pub(super) operations: Vec<usize>,
    /// Deleted instances of models that others refer to.
    pub(super) deleted: Vec<Deleted>,
    /// Appends that follow from others.
    pub(super) following: usize,
    pub(super) dry_runs: Vec<DryRun>,
    /// Bytes of data.
    bytes: u64,
    /// Unique keys that an operation took or released (`None`).
    keys: HashMap<String, Option<Stream>>,
}

/// An instance that is deleted.
#[derive(Clone)]
pub(super) struct Deleted {
    pub(super) model: String,
    pub(super) id: String,
    /// The index of the operation that it follows from.
    pub(super) operation: usize,
    /// Position of its last event; 0 if that belongs to the same request.
    pub(super) position: u64,
    pub(super) depth: usize,
    /// Whether errors may name it.
    pub(super) is_named: bool,
}

impl Deleted {
    /// One that a client or a hook deletes.
    pub(super) fn first(one: &One, operation: usize, position: u64) -> Deleted {
        Deleted { model: one.model.clone(), id: one.command.id.clone(), operation, position, depth: 0, is_named: true }
    }

    /// For errors.
    pub(super) fn label(&self) -> String {
        match self.is_named {
            true => format!("`{}/{}`", self.model, self.id),
            false => format!("an instance of `{}`", self.model),
        }
    }
}

impl Drafts {
    /// A pre hook would stop the operation. `follows`: the model of the change that it would stop, if that follows from
    /// the operation.
    fn stopped(&mut self, mut hooks: Vec<HookDecision>, follows: Option<&str>) {
        let operation = follows.and_then(|_| self.dry_runs.pop());
        hooks.iter_mut().for_each(|hook| hook.model = follows.map(str::to_owned));
        let mut all = operation.map_or_else(Vec::new, |operation| operation.hooks);
        all.extend(hooks);
        self.dry_runs.push(DryRun { hooks: all, ..DryRun::unhooked(None) });
    }

    /// Adds to the dry run of the last operation what would follow from it.
    fn note_following(&mut self, model: &str, kind: EventKind) {
        let Some(trial) = self.dry_runs.last_mut() else { return };
        let place = trial.follows.iter().position(|known| known.model == model).unwrap_or_else(|| {
            trial.follows.push(Follows { model: model.to_owned(), deleted: 0, updated: 0 });
            trial.follows.len() - 1
        });
        let follows = &mut trial.follows[place];
        *(if kind.ends_stream() { &mut follows.deleted } else { &mut follows.updated }) += 1;
    }
}

/// Whether an append is the operation's own, and does not only follow from it.
pub(super) fn is_own(operations: &[usize], index: usize) -> bool {
    index.checked_sub(1).is_none_or(|before| operations.get(before) != operations.get(index))
}

/// Whether an event follows from the deletion of another instance.
pub(in crate::engine) fn is_following(cause: Option<&Cause>) -> bool {
    cause.is_some_and(|cause| cause.hook.contains(PLACE))
}

/// Used in causes in place of a hook's phase.
pub(super) const PLACE: &str = ".on-delete/";

impl Writes {
    /// The model of an operation and its instance, after the earlier operations.
    pub(super) async fn current(&self, one: &One, ahead: &Ahead) -> Result<(Arc<LiveModel>, Option<Instance>)> {
        let One { model, command: WriteCommand { id, fresh, .. }, .. } = one;
        self.core.availability.check_model(model)?;
        // First, so that an instance that a new version carries over meanwhile is not mistaken for one of the old
        // version.
        let entry = self.open_model(model).await?;
        let current = match ahead.of(model, id) {
            Some(current) => current,
            // A creation with an id of our own cannot meet an instance.
            None if *fresh => None,
            None => self.core.stores.model.get(model, id).await?,
        };
        Ok((entry, current))
    }

    /// Drafts one change without the changes that follow from it; `false`: in a dry run, it would be stopped.
    pub(super) async fn draft_alone(
        &self,
        drafts: &mut Drafts,
        one: &One,
        draft: Draft<'_>,
        (entry, current): (Arc<LiveModel>, Option<Instance>),
        operation: usize,
        is_trial: bool,
    ) -> Result<bool> {
        let One { model, command: WriteCommand { id, .. }, .. } = one;
        let (ahead, position) = (draft.ahead, current.as_ref().map_or(0, |current| current.position));
        let follows = is_following(draft.origin.cause.as_ref());
        let hides_others = hides_others(&entry, draft.told_to);
        let is_named = match (follows, &current) {
            (true, Some(current)) => may_read(&self.core, current, draft.told_to)?,
            _ => true,
        };
        let (append, instance, decisions) = match self.draft(&entry, draft, current).await? {
            Drafted::Pass { append, instance, decisions } => (append, instance, decisions),
            Drafted::Stop { mut decisions, .. } if is_trial => {
                decisions.retain(|_| is_named);
                drafts.stopped(decisions, follows.then_some(model.as_str()));
                return Ok(false);
            }
            Drafted::Stop { error, .. } => return Err(error),
        };
        self.take_keys(drafts, &entry, &append, is_trial, hides_others).await?;
        drafts.bytes += append.event.data.as_ref().map_or(0, |data| data.len() as u64);
        let bytes_max = self.core.stores.event.capabilities().batch_bytes_max.min(BYTES_MAX);
        if drafts.bytes > bytes_max {
            let detail = format!(
                "the data of the batch has {} bytes up to here, at most {bytes_max} are written as one; send fewer \
                 operations",
                drafts.bytes
            );
            return Err(Error::new(ErrorKind::TooLarge, detail));
        }
        let kind = append.event.kind;
        if let Some(ahead) = ahead {
            ahead.put(model, id, (!kind.ends_stream()).then(|| instance.clone()));
        }
        if let Some(referenced) = entry.model.record.referenced.as_ref().filter(|_| kind.ends_stream()) {
            // At its end, the batch has no reference to it, so references within the batch must not conflict with the
            // deletion. An earlier deletion keeps its claim, which detects concurrent references of others.
            let key = referenced.key(id);
            let is_kept = |claim: &Claim| claim.key != key || claim.holder.is_none();
            drafts.appends.iter_mut().for_each(|append| append.claims.retain(is_kept));
            drafts.deleted.push(Deleted { is_named, ..Deleted::first(one, operation, position) });
        }
        if !is_trial {
            drafts.appends.push(append);
            drafts.submitted.push(Submitted { entry, kind, instance, key: None, hides_others });
            drafts.operations.push(operation);
        } else if follows {
            if is_named {
                drafts.note_following(model, kind);
            }
        } else {
            drafts.dry_runs.push(dry_run(&entry, append.event, decisions));
        }
        Ok(true)
    }

    /// Records the unique keys that an operation releases and takes; an error if an earlier operation has one of them,
    /// or in a dry run anybody else. So an append never fails because of the batch itself.
    async fn take_keys(
        &self,
        drafts: &mut Drafts,
        entry: &LiveModel,
        append: &Append,
        is_trial: bool,
        hides_others: bool,
    ) -> Result<()> {
        let stream = append.event.stream();
        for key in &append.releases {
            drafts.keys.insert(key.clone(), None);
        }
        let is_value = |claim: &&Claim| !is_key(&claim.key) && !references::is_key(&claim.key);
        for claim in append.claims.iter().filter(is_value) {
            let holder = match drafts.keys.get(&claim.key) {
                Some(holder) => holder.clone().map(|holder| Holder::new(holder, 0)),
                None if is_trial => self.core.stores.event.holder(&claim.key).await?,
                None => None,
            };
            if let Some(holder) = holder.filter(|holder| holder.stream != stream) {
                return Err(not_unique(&entry.model.record, &claim.key, Some(&holder).filter(|_| !hides_others)));
            }
            drafts.keys.insert(claim.key.clone(), Some(stream.clone()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use snaphook_driver::{Conflict, Json};

    use super::*;
    use crate::engine::command::{InstanceChange, Origin, Precondition, WriteOptions};
    use crate::engine::testing::{bench, input};
    use crate::engine::writes::batch::BatchStep;

    /// The creation between the two deletions gives the target's key back, which must not hide who took it meanwhile.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn each_deletion_of_a_batch_meets_references_that_are_made_meanwhile() {
        let bench = bench().await;
        let writes = &bench.engine.writes;
        let (options, origin) = (WriteOptions::default(), Origin::default());
        let reference = json!({"type": "string", "x-references": {"model": "customer"}});
        bench.model("customer", input(json!({}), &[])).await.unwrap();
        bench.model("order", input(json!({ "customer": reference }), &[])).await.unwrap();
        let create = || InstanceChange::Create { id: Some("c".to_owned()), data: Json::trusted("{}") };
        writes.change("customer", create(), &options, &origin).await.unwrap();
        let delete = || InstanceChange::Delete { id: "c".to_owned() };
        let batch = [delete(), create(), delete()].map(|change| One {
            model: "customer".to_owned(),
            command: WriteCommand::new(change).unwrap(),
            precondition: Precondition::None,
        });
        let trees = bench.engine.core.own_memory.lease();
        let step = writes.prepare_batch(&batch, None, &options, &origin, &trees).await;
        let Ok(BatchStep::Write(prepared)) = step else { panic!("nothing is in its way") };
        let order = InstanceChange::Create { id: None, data: Json::from_value(&json!({"customer": "c"})) };
        writes.change("order", order, &options, &origin).await.unwrap();
        let (_, outcome) = writes.submit_whole(prepared, &options).await.unwrap().unwrap();
        let Err((0, Conflict::Claimed { key, .. })) = outcome else { panic!("it refers to what is gone") };
        assert!(references::is_key(&key), "{key}");
        drop(trees);
        bench.engine.close(std::time::Duration::from_secs(1)).await;
    }
}
