//! Several changes as one: prepared one after the other, written atomically.
//!
//! Each operation is prepared as if the earlier ones were written: its instance, its unique values and the reads of its
//! pre hooks include their effects ([`Ahead`]). No locks are held. Changes of others are detected at the append, and
//! then the whole batch is prepared again. The changes that follow from a deletion ([`super::referrers`]) come right
//! after it.

use std::time::Duration;

use snaphook_driver::{Append, Claim, Conflict, Stream};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Writes;
use super::batch_results::{at, results};
use super::conflicts::refusal;
use super::drafts::{Deleted, Drafts, PreparedBatch, is_own};
use super::prepare::Draft;
use super::referrers::Following;
use super::steps::{One, Submitted, WriteCommand};
use crate::engine::ahead::Ahead;
use crate::engine::batch_input::OPERATIONS_MAX;
use crate::engine::command::{Batched, DryRun, InstanceChange, Operation, Origin, WriteOptions};
use crate::engine::committer::{Committed, Whole, WholeAnswer, commit_span, lost_answer};
use crate::engine::error::{Error, ErrorKind, Result};
use crate::engine::hanging::unanswered;
use crate::engine::idempotency::{IdempotencyKey, is_key};
use crate::engine::waiters;
use crate::memory::{Lease, Share};

/// Time limit for preparing a batch, in all attempts together: each hook has its own limits, but a batch has many
/// hooks.
pub(super) const PREPARE_MAX: Duration = Duration::from_secs(30);

/// Why a batch is not written, and the operation that caused it, if one did.
pub(super) struct Stopped {
    operation: Option<usize>,
    pub(super) error: Error,
}

pub(super) enum BatchStep {
    Write(PreparedBatch),
    /// Nothing is to be written: a dry run, or the first result of the idempotency key.
    Answer(Batched),
}

impl Writes {
    /// Performs all operations in order, or none. The first one that fails determines the error.
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
            let command = WriteCommand::new(change).map_err(|error| at(index, error))?;
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
            // The client's data is counted where it is read; this counts data from the store and from hooks.
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
            // The claim of the first request with the key; the next round finds its result.
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

    /// Passes a batch to the committer and waits for its outcome, and for its post hooks if the client does. `None`: a
    /// model does not accept writes now, so the batch must be prepared again.
    pub(super) async fn submit_whole(
        &self,
        prepared: PreparedBatch,
        options: &WriteOptions,
    ) -> Result<Option<(Vec<Submitted>, SubmitOutcome)>> {
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

    /// All steps before the events exist.
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
            // A pre hook would stop it, or there is a conflict.
            if !matches!(outcome, Ok(true)) {
                break;
            }
        }
        if matches!(outcome, Ok(true)) {
            outcome = self.check_referrers(&drafts, &ahead).await.map(|()| true);
        }
        if let Err((index, error)) = outcome {
            // The conflict may come from the first request with this key.
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

    /// Drafts the next operation and the changes that follow from it; `false`: in a dry run, it would be stopped.
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
            told_to: &following.origin.right,
        };
        if !self.draft_alone(drafts, one, draft, (entry, current), index, following.is_trial).await? {
            return Ok(false);
        }
        if !matches!(one.command.change, InstanceChange::Delete { .. }) {
            return Ok(true);
        }
        self.follow(drafts, Deleted::first(one, index, position), following).await
    }

    /// Waits until the post hooks of all events have ended, or until the time limit. Hooks that are not done by then
    /// continue.
    async fn wait(
        &self,
        submitted: &[Submitted],
        receivers: impl Iterator<Item = (u64, Option<oneshot::Receiver<()>>)>,
        wait: Duration,
    ) {
        let (events, tail) = (&*self.core.stores.event, &*self.core.tail);
        let streams: Vec<Stream> =
            submitted.iter().map(|one| Stream::of_instance(&one.instance.model, &one.instance.id)).collect();
        let all = streams.iter().zip(receivers).filter_map(|(stream, (position, receiver))| {
            Some(waiters::settled(events, tail, stream, position, receiver?))
        });
        let _ = tokio::time::timeout(wait, futures::future::join_all(all)).await;
    }
}

/// All are durable, or the conflict of the one with this index.
type SubmitOutcome = std::result::Result<Vec<Committed>, (usize, Conflict)>;

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

type Settling = (Vec<Option<oneshot::Sender<()>>>, Vec<Option<oneshot::Receiver<()>>>);

/// Channels for the end of post hooks: for events with post hooks, if the client waits for them.
fn settling(appends: &[Append], submitted: &[Submitted], options: &WriteOptions) -> Settling {
    let of = |(append, one): (&Append, &Submitted)| {
        let waits = options.wait.is_some() && one.entry.reacts_to(append.event.kind, u64::MAX);
        waits.then(oneshot::channel).unzip()
    };
    appends.iter().zip(submitted).map(of).unzip()
}

/// The dry run of a batch that was already performed.
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
