//! Several changes as one: prepared one after the other, written together or not at all.
//!
//! Each operation is prepared as if those before it were written: its instance, its unique values and what its pre hooks read
//! are as they left them ([`Ahead`]). Nothing is held meanwhile. What others changed shows at the append, and then the
//! whole batch is prepared again. What follows from a deletion ([`super::referrers`]) comes right after it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use snaphook_driver::{Append, Claim, Conflict, Holder, Instance, Stream};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Writes;
use super::batch_results::{at, results};
use super::conflicts::{not_unique, refusal};
use super::prepare::{Draft, dry_run};
use super::referrers::{Deleted, Following, is_following};
use super::steps::{Command, Drafted, One, Submitted};
use crate::catalog::references;
use crate::engine::ahead::Ahead;
use crate::engine::batch_input::OPERATIONS_MAX;
use crate::engine::command::{Batched, Change, DryRun, HookDecision, Operation, Origin, WriteOptions};
use crate::engine::committer::{Committed, Whole, WholeAnswer, commit_span, lost_answer};
use crate::engine::error::{Error, ErrorKind, Result};
use crate::engine::hanging::unanswered;
use crate::engine::idempotency::{IdempotencyKey, is_key};
use crate::engine::models::Entry;
use crate::engine::waiters;
use crate::memory::{Lease, Share};

/// Bytes of data that the events of one batch may have together, if the event store takes so many.
const BYTES_MAX: u64 = 32 << 20;

/// How long a batch may be prepared, all its tries together: each hook has limits of its own, but a batch has many.
pub(super) const PREPARE_MAX: Duration = Duration::from_secs(30);

/// A batch that only needs to be written.
pub(super) struct PreparedBatch {
    pub(super) appends: Vec<Append>,
    pub(super) submitted: Vec<Submitted>,
    /// For each append the operation that it belongs to. The first one of an operation is its own, the others follow from it.
    operations: Vec<usize>,
}

/// Why a batch is not written, and the operation that is to blame, if one is.
pub(super) struct Stopped {
    operation: Option<usize>,
    pub(super) error: Error,
}

pub(super) enum BatchStep {
    Write(PreparedBatch),
    /// Nothing is to be written: a dry run, or the answer that the idempotency key had before.
    Answer(Batched),
}

/// What is known of a batch while its operations are drafted.
#[derive(Default)]
pub(super) struct Drafts {
    appends: Vec<Append>,
    submitted: Vec<Submitted>,
    /// See [`PreparedBatch`].
    operations: Vec<usize>,
    /// Instances of models that others refer to.
    pub(super) deleted: Vec<Deleted>,
    /// Appends that follow from others.
    pub(super) following: usize,
    dry_runs: Vec<DryRun>,
    /// Bytes of data.
    bytes: u64,
    /// Unique keys that an operation took or gave back (`None`).
    keys: HashMap<String, Option<Stream>>,
}

impl Writes {
    /// Carries out all operations in order, or none. The first that fails decides the error.
    pub async fn batch(&self, operations: Vec<Operation>, options: &WriteOptions, origin: &Origin) -> Result<Batched> {
        if !self.core.stores.event.capabilities().atomic_batch {
            let detail = "the event store cannot write several events as one, so there are no batches; send the \
                          operations one by one, or use another driver for events";
            return Err(Error::new(ErrorKind::NotSupported, detail));
        }
        if operations.is_empty() || operations.len() > OPERATIONS_MAX {
            let count = operations.len();
            let detail = format!("the batch has {count} operations, expected 1 to {OPERATIONS_MAX}");
            return Err(Error::bad_request(detail));
        }
        let mut batch = Vec::with_capacity(operations.len());
        for (index, Operation { model, change, precondition }) in operations.into_iter().enumerate() {
            let command = Command::new(change).map_err(|error| at(index, error))?;
            batch.push(One { model, command, precondition });
        }
        let key = options.idempotency_key.as_ref().map(|key| {
            let parts =
                batch.iter().map(|one| (&*one.model, one.command.named(), &one.command.change, &one.precondition));
            IdempotencyKey::of_batch(key, parts, origin)
        });
        let deadline = Instant::now() + PREPARE_MAX;
        let mut lost = 0;
        loop {
            // What the client sent is counted where it was read; this is for what comes from the store and from hooks.
            let trees = self.core.own_memory.lease();
            let preparing = self.prepare_batch(&batch, key.as_ref(), options, origin, &trees);
            let prepared = tokio::time::timeout_at(deadline, preparing).await.map_err(|_| too_long())?;
            let prepared = match prepared.map_err(Stopped::into_error)? {
                BatchStep::Write(prepared) => prepared,
                BatchStep::Answer(answer) => return Ok(answer),
            };
            let operations = prepared.operations.clone();
            let Some((submitted, outcome)) = self.submit_whole(prepared, options).await? else { continue };
            let (index, conflict) = match outcome {
                Ok(committed) => return Ok(results(submitted, &committed, &operations)),
                Err(conflict) => conflict,
            };
            let operation = operations.get(index).copied();
            let (Some(operation), Some(submitted)) = (operation, submitted.get(index)) else {
                return Err(lost_answer());
            };
            let one = &batch[operation];
            // Of the first request with the key; the next round finds its answer.
            let is_key_of_batch = matches!(&conflict, Conflict::Claimed { key, .. } if is_key(key));
            if !is_key_of_batch
                && is_own(&operations, index)
                && let Some(error) = refusal(submitted, &conflict, &one.command, &one.precondition, key.is_some())
            {
                return Err(at(operation, error));
            }
            self.try_again(submitted, &conflict, &mut lost).await.map_err(|error| at(operation, error))?;
        }
    }

    /// Hands a batch to the committer and waits for what becomes of it; for its post hooks too, if the client does. `None`: a
    /// model takes no writes now, so it is to be prepared again.
    pub(super) async fn submit_whole(
        &self,
        prepared: PreparedBatch,
        options: &WriteOptions,
    ) -> Result<Option<(Vec<Submitted>, Outcome)>> {
        let PreparedBatch { appends, submitted, .. } = prepared;
        let (answer, receiver) = oneshot::channel();
        let (settled, receivers) = settling(&appends, &submitted, options);
        let whole = Whole { appends, answer, settled, span: commit_span() };
        if !self.core.committer.submit_whole(whole, submitted.iter().map(|one| &*one.entry.gate))? {
            return Ok(None);
        }
        let answer: WholeAnswer = match self.core.committer.answered(receiver).await {
            Some(answer) => answer.unwrap_or_else(|_| Err(lost_answer())),
            None => Err(unanswered()),
        };
        let outcome = answer?;
        if let (Ok(committed), Some(wait)) = (&outcome, options.wait) {
            let positions = committed.iter().map(|committed| committed.position);
            tokio::select! {
                () = self.wait(&submitted, positions.zip(receivers), wait) => {}
                () = self.core.leaving.begun() => {}
            }
        }
        Ok(Some((submitted, outcome)))
    }

    /// Everything before the events exist.
    pub(super) async fn prepare_batch(
        &self,
        batch: &[One],
        key: Option<&IdempotencyKey>,
        options: &WriteOptions,
        origin: &Origin,
        trees: &Lease<&Share>,
    ) -> Result<BatchStep, Stopped> {
        let mut claim = None;
        if let Some(key) = key {
            let (first, replaces) = self.first_results(batch, key, trees).await?;
            if let Some(first) = first {
                return Ok(BatchStep::Answer(answered_before(first, batch, options)));
            }
            claim = Some(key.clone().claim(replaces));
        }
        let ahead = Ahead::new(&self.core);
        let following = Following { origin, is_trial: options.dry_run, trees, ahead: &ahead };
        let mut drafts = Drafts::default();
        let mut outcome = Ok(true);
        for (index, one) in batch.iter().enumerate() {
            let claim = claim.take();
            outcome = self.draft_one(&mut drafts, one, index, claim, &following).await.map_err(|error| (index, error));
            // A pre hook would stop it, or something is in the way.
            if !matches!(outcome, Ok(true)) {
                break;
            }
        }
        if matches!(outcome, Ok(true)) {
            outcome = self.check_referrers(&drafts, &ahead).await.map(|()| true);
        }
        if let Err((index, error)) = outcome {
            // What is in the way may be what the first request with this key wrote meanwhile.
            if let Some(key) = key
                && let (Some(first), _) = self.first_results(batch, key, trees).await?
            {
                return Ok(BatchStep::Answer(answered_before(first, batch, options)));
            }
            return Err(Stopped { operation: Some(index), error });
        }
        if options.dry_run {
            return Ok(BatchStep::Answer(Batched::DryRun(drafts.dry_runs)));
        }
        if drafts.appends.len() > 1 && !self.core.stores.event.capabilities().atomic_batch {
            let detail = "the event store cannot write a deletion and what follows from it as one; use another driver for events";
            return Err(Error::new(ErrorKind::NotSupported, detail).into());
        }
        let Drafts { appends, submitted, operations, .. } = drafts;
        Ok(BatchStep::Write(PreparedBatch { appends, submitted, operations }))
    }

    /// Drafts the next operation and what follows from it; `false`: it is only tried, and would be stopped.
    async fn draft_one(
        &self,
        drafts: &mut Drafts,
        one: &One,
        index: usize,
        claim: Option<Claim>,
        following: &Following<'_>,
    ) -> Result<bool> {
        let (entry, current) = self.current(one, following.ahead).await?;
        let position = current.as_ref().map_or(0, |current| current.position);
        let draft = Draft {
            command: &one.command,
            precondition: &one.precondition,
            origin: following.origin,
            prefix: "/data",
            collect: following.is_trial,
            trees: following.trees,
            ahead: Some(following.ahead),
            claim,
            loses: None,
        };
        if !self.draft_alone(drafts, one, draft, (entry, current), index, following.is_trial).await? {
            return Ok(false);
        }
        if !matches!(one.command.change, Change::Delete { .. }) {
            return Ok(true);
        }
        self.follow(drafts, Deleted::first(one, index, position), following).await
    }

    /// The model of an operation and its instance, as the operations before it left it.
    pub(super) async fn current(&self, one: &One, ahead: &Ahead) -> Result<(Arc<Entry>, Option<Instance>)> {
        let One { model, command: Command { id, fresh, .. }, .. } = one;
        self.core.availability.check_model(model)?;
        // First, so that an instance that a new version carries over meanwhile is not taken for one of the old.
        let entry = self.open_model(model).await?;
        let current = match ahead.of(model, id) {
            Some(current) => current,
            // A creation with an id of our own cannot meet an instance.
            None if *fresh => None,
            None => self.core.stores.model.get(model, id).await?,
        };
        Ok((entry, current))
    }

    /// Drafts one change, whatever follows from it; `false`: it is only tried, and would be stopped.
    pub(super) async fn draft_alone(
        &self,
        drafts: &mut Drafts,
        one: &One,
        draft: Draft<'_>,
        (entry, current): (Arc<Entry>, Option<Instance>),
        operation: usize,
        is_trial: bool,
    ) -> Result<bool> {
        let One { model, command: Command { id, .. }, .. } = one;
        let (ahead, position) = (draft.ahead, current.as_ref().map_or(0, |current| current.position));
        let follows = is_following(draft.origin.cause.as_ref());
        let (append, instance, decisions) = match self.draft(&entry, draft, current).await? {
            Drafted::Pass { append, instance, decisions } => (append, instance, decisions),
            Drafted::Stop { decisions, .. } if is_trial => {
                drafts.stopped(decisions, follows);
                return Ok(false);
            }
            Drafted::Stop { error, .. } => return Err(error),
        };
        self.take_keys(drafts, &entry, &append, is_trial).await?;
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
            // Nothing of the batch refers to it in the end, so nothing of it is to be in the way of the deletion.
            let key = referenced.key(id);
            drafts.appends.iter_mut().for_each(|append| append.claims.retain(|claim| claim.key != key));
            drafts.deleted.push(Deleted::first(one, operation, position));
        }
        if !is_trial {
            drafts.appends.push(append);
            drafts.submitted.push(Submitted { entry, kind, instance, key: None });
            drafts.operations.push(operation);
        } else if !follows {
            drafts.dry_runs.push(dry_run(&entry, append.event, decisions));
        }
        Ok(true)
    }

    /// Takes note of the unique keys that an operation gives back and takes; an error if one before it has one of them, or
    /// in a trial somebody else. So an append never fails for what the batch itself does.
    async fn take_keys(&self, drafts: &mut Drafts, entry: &Entry, append: &Append, is_trial: bool) -> Result<()> {
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
                return Err(not_unique(&entry.model.record, &claim.key, &holder));
            }
            drafts.keys.insert(claim.key.clone(), Some(stream.clone()));
        }
        Ok(())
    }

    /// Waits until the post hooks of all events ended, at most that long. A hook that is not done by then goes on.
    async fn wait(
        &self,
        submitted: &[Submitted],
        receivers: impl Iterator<Item = (u64, Option<oneshot::Receiver<()>>)>,
        wait: Duration,
    ) {
        let events = &*self.core.stores.event;
        let streams: Vec<Stream> =
            submitted.iter().map(|one| Stream::of_instance(&one.instance.model, &one.instance.id)).collect();
        let all = streams
            .iter()
            .zip(receivers)
            .filter_map(|(stream, (position, receiver))| Some(waiters::settled(events, stream, position, receiver?)));
        let _ = tokio::time::timeout(wait, futures::future::join_all(all)).await;
    }
}

/// All durable, or what one with this index met.
type Outcome = std::result::Result<Vec<Committed>, (usize, Conflict)>;

impl Stopped {
    fn into_error(self) -> Error {
        match self.operation {
            Some(index) => at(index, self.error),
            None => self.error,
        }
    }
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Stopped {
        Stopped { operation: None, error }
    }
}

impl Drafts {
    /// A pre hook would stop the operation, or what follows from it.
    fn stopped(&mut self, hooks: Vec<HookDecision>, follows: bool) {
        let mut trial = match follows {
            true => self.dry_runs.pop().unwrap_or(DryRun::unhooked(None)),
            false => DryRun::unhooked(None),
        };
        trial.event = None;
        trial.hooks.extend(hooks);
        trial.post_hooks.clear();
        self.dry_runs.push(trial);
    }
}

/// Whether an append is what its operation says, and does not only follow from it.
pub(super) fn is_own(operations: &[usize], index: usize) -> bool {
    index.checked_sub(1).is_none_or(|before| operations.get(before) != operations.get(index))
}

type Settling = (Vec<Option<oneshot::Sender<()>>>, Vec<Option<oneshot::Receiver<()>>>);

/// Who is told of the end of post hooks: of the events that have some, if the client waits for them.
fn settling(appends: &[Append], submitted: &[Submitted], options: &WriteOptions) -> Settling {
    let of = |(append, one): (&Append, &Submitted)| {
        let waits = options.wait.is_some() && one.entry.reacts_to(append.event.kind, u64::MAX);
        waits.then(oneshot::channel).unzip()
    };
    appends.iter().zip(submitted).map(of).unzip()
}

/// What was done already would not be done again.
fn answered_before(first: Batched, batch: &[One], options: &WriteOptions) -> Batched {
    match options.dry_run {
        true => Batched::DryRun(batch.iter().map(|_| DryRun::unhooked(None)).collect()),
        false => first,
    }
}

pub(super) fn too_long() -> Error {
    let detail = format!(
        "the operations and their pre hooks took more than {} s to prepare, so nothing was stored; send fewer operations",
        PREPARE_MAX.as_secs()
    );
    Error::new(ErrorKind::TooComplex, detail)
}
