//! Several changes as one: prepared one after the other, written together or not at all.
//!
//! Each operation is prepared as if those before it were written: its instance, its unique values and what its pre hooks read
//! are as they left them ([`Ahead`]). Nothing is held meanwhile. What others changed shows at the append, and then the
//! whole batch is prepared again.

use std::collections::HashMap;
use std::time::Duration;

use snaphook_driver::{Append, Holder, Stream};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Writes;
use super::batch_results::{at, results};
use super::conflicts::{not_unique, refusal};
use super::guard::hides_others;
use super::prepare::{Draft, dry_run};
use super::steps::{Command, Drafted, One, Submitted};
use crate::engine::ahead::Ahead;
use crate::engine::batch_input::OPERATIONS_MAX;
use crate::engine::command::{Batched, DryRun, Operation, Origin, WriteOptions};
use crate::engine::committer::{Whole, WholeAnswer, lost_answer};
use crate::engine::error::{Error, ErrorKind, Result};
use crate::engine::hanging::unanswered;
use crate::engine::idempotency::{IdempotencyKey, is_key};
use crate::engine::models::Entry;
use crate::engine::waiters;
use crate::memory::{Lease, Share};

/// Bytes of data that the events of one batch may have together, if the event store takes so many.
const BYTES_MAX: u64 = 32 << 20;

/// How long a batch may be prepared, all its tries together: each hook has limits of its own, but a batch has many.
const PREPARE_MAX: Duration = Duration::from_secs(30);

/// A batch that only needs to be written.
struct PreparedBatch {
    appends: Vec<Append>,
    submitted: Vec<Submitted>,
}

enum BatchStep {
    Write(PreparedBatch),
    /// Nothing is to be written: a dry run, or the answer that the idempotency key had before.
    Answer(Batched),
}

/// What is known of a batch while its operations are drafted.
#[derive(Default)]
struct Drafts {
    appends: Vec<Append>,
    submitted: Vec<Submitted>,
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
            let prepared = tokio::time::timeout_at(deadline, preparing).await.map_err(|_| too_long())??;
            let PreparedBatch { appends, submitted } = match prepared {
                BatchStep::Write(prepared) => prepared,
                BatchStep::Answer(answer) => return Ok(answer),
            };
            let (answer, receiver) = oneshot::channel();
            let (settled, receivers) = settling(&appends, &submitted, options);
            let whole = Whole { appends, answer, settled };
            if !self.core.committer.submit_whole(whole, submitted.iter().map(|one| &*one.entry.gate))? {
                continue;
            }
            let answer: WholeAnswer = match self.core.committer.answered(receiver).await {
                Some(answer) => answer.unwrap_or_else(|_| Err(lost_answer())),
                None => Err(unanswered()),
            };
            let (index, conflict) = match answer? {
                Ok(committed) => {
                    if let Some(wait) = options.wait {
                        let positions = committed.iter().map(|committed| committed.position);
                        self.wait(&submitted, positions.zip(receivers), wait).await;
                    }
                    return Ok(results(submitted, &committed));
                }
                Err(conflict) => conflict,
            };
            let (Some(one), Some(submitted)) = (batch.get(index), submitted.get(index)) else {
                return Err(lost_answer());
            };
            // Of the first request with the key; the next round finds its answer.
            let is_key_of_batch = matches!(&conflict, snaphook_driver::Conflict::Claimed { key, .. } if is_key(key));
            if !is_key_of_batch
                && let Some(error) = refusal(submitted, &conflict, &one.command, &one.precondition, key.is_some())
            {
                return Err(at(index, error));
            }
            self.try_again(submitted, &conflict, &mut lost).await.map_err(|error| at(index, error))?;
        }
    }

    /// Everything before the events exist.
    async fn prepare_batch(
        &self,
        batch: &[One],
        key: Option<&IdempotencyKey>,
        options: &WriteOptions,
        origin: &Origin,
        trees: &Lease<&Share>,
    ) -> Result<BatchStep> {
        let mut claim = None;
        if let Some(key) = key {
            let (first, replaces) = self.first_results(batch, key, trees).await?;
            if let Some(first) = first {
                return Ok(BatchStep::Answer(answered_before(first, batch, options)));
            }
            claim = Some(key.clone().claim(replaces));
        }
        let ahead = Ahead::new(&self.core);
        let mut drafts = Drafts::default();
        for (index, one) in batch.iter().enumerate() {
            let claim = claim.take();
            let draft = Draft {
                command: &one.command,
                precondition: &one.precondition,
                origin,
                prefix: "/data",
                collect: options.dry_run,
                trees,
                ahead: Some(&ahead),
                claim,
            };
            match self.draft_one(&mut drafts, one, draft, options.dry_run).await {
                Ok(true) => {}
                // A pre hook would stop it.
                Ok(false) => break,
                Err(error) => {
                    // What is in the way may be what the first request with this key wrote meanwhile.
                    if let Some(key) = key
                        && let (Some(first), _) = self.first_results(batch, key, trees).await?
                    {
                        return Ok(BatchStep::Answer(answered_before(first, batch, options)));
                    }
                    return Err(at(index, error));
                }
            }
        }
        Ok(match options.dry_run {
            true => BatchStep::Answer(Batched::DryRun(drafts.dry_runs)),
            false => BatchStep::Write(PreparedBatch { appends: drafts.appends, submitted: drafts.submitted }),
        })
    }

    /// Drafts the next operation; `false`: it is only tried, and would be stopped.
    async fn draft_one(&self, drafts: &mut Drafts, one: &One, draft: Draft<'_>, is_trial: bool) -> Result<bool> {
        let One { model, command: Command { id, fresh, .. }, .. } = one;
        self.core.availability.check_model(model)?;
        let entry = self.open_model(model).await?;
        let ahead = draft.ahead;
        let current = match ahead.and_then(|ahead| ahead.of(model, id)) {
            Some(current) => current,
            // A creation with an id of our own cannot meet an instance.
            None if *fresh => None,
            None => self.core.stores.model.get(model, id).await?,
        };
        let hides_others = hides_others(&entry, draft.origin);
        let (append, instance, decisions) = match self.draft(&entry, draft, current).await? {
            Drafted::Pass { append, instance, decisions } => (append, instance, decisions),
            Drafted::Stop { decisions, .. } if is_trial => {
                drafts.dry_runs.push(DryRun { hooks: decisions, ..DryRun::unhooked(None) });
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
        if is_trial {
            drafts.dry_runs.push(dry_run(&entry, append.event, decisions));
        } else {
            drafts.appends.push(append);
            drafts.submitted.push(Submitted { entry, kind, instance, key: None, hides_others });
        }
        Ok(true)
    }

    /// Takes note of the unique keys that an operation gives back and takes; an error if one before it has one of them, or
    /// in a trial somebody else. So an append never fails for what the batch itself does.
    async fn take_keys(
        &self,
        drafts: &mut Drafts,
        entry: &Entry,
        append: &Append,
        is_trial: bool,
        hides_others: bool,
    ) -> Result<()> {
        let stream = append.event.stream();
        for key in &append.releases {
            drafts.keys.insert(key.clone(), None);
        }
        for claim in append.claims.iter().filter(|claim| !is_key(&claim.key)) {
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

fn too_long() -> Error {
    let detail = format!(
        "the operations and their pre hooks took more than {} s to prepare, so nothing was stored; send fewer operations",
        PREPARE_MAX.as_secs()
    );
    Error::new(ErrorKind::TooComplex, detail)
}
