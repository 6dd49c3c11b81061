//! The path of one change: model, data, schema, pre hooks, event. The order of these steps is decided here.
//!
//! No lock is held between the steps. What changed meanwhile shows at the append (optimistic concurrency), and the
//! change starts over with what is there now.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use snaphook_driver::time;
use snaphook_driver::{
    Append, Claim, Conflict, ErrorKind as DriverErrorKind, Event, EventKind, Expected, Holder, Instance, Json,
    Position, Require, Stream,
};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Engine;
use super::bindings::group_of;
use super::command::{Change, DryRun, Origin, Precondition, Seen, WriteOptions, Written, phases};
use super::committer::{Answer, Committed, Pending, lost_answer};
use super::error::{Error, ErrorKind, Result};
use super::fit::{Fitting, fit};
use super::gate;
use super::hanging::unanswered;
use super::idempotency::{IdempotencyKey, first_answer, is_key};
use super::models::Entry;
use super::prehooks::Decided;
use crate::catalog::document::{Document, merge_patch};
use crate::catalog::{FieldError, ModelRecord, is_instance_id, unique};
use crate::hooks::context::Context;
use crate::memory::{Lease, Share, tree_bytes};

/// Delay before it is looked at whether the post hooks of an event ended on another node; doubles with each further look.
const SETTLED_LOOK_FIRST: Duration = Duration::from_millis(20);
const SETTLED_LOOK_MAX: Duration = Duration::from_millis(320);
/// Races that a change may lose before the caller is told.
const RETRIES_MAX: u32 = 5;

/// A change and the instance that it is about.
#[derive(Clone)]
pub(super) struct Command {
    pub(super) id: String,
    /// The id was made here: there cannot be such an instance.
    fresh: bool,
    change: Change,
}

/// A change that passed its pre hooks and only needs to be written.
pub(super) struct Prepared {
    append: Append,
    /// The instance as it will be, or, for a deletion, as it was; position and times are not filled in yet.
    instance: Instance,
    entry: Arc<Entry>,
    key: Option<IdempotencyKey>,
}

impl Prepared {
    /// What is to be written.
    pub(super) fn append(&self) -> &Append {
        &self.append
    }
}

/// What a change came to before it was written.
pub(super) enum Step {
    Write(Box<Prepared>),
    /// Nothing is to be written: a dry run, or the answer that the idempotency key had before.
    Answer(Box<Written>),
}

impl Engine {
    /// Carries out a change: validated, hooked, logged, applied.
    pub async fn write(&self, model: &str, change: Change, options: &WriteOptions, origin: &Origin) -> Result<Written> {
        self.write_command(model, Command::new(change)?, options, origin).await
    }

    /// The same for a command that is checked already.
    pub(super) async fn write_command(
        &self,
        model: &str,
        command: Command,
        options: &WriteOptions,
        origin: &Origin,
    ) -> Result<Written> {
        let mut lost = 0;
        loop {
            let preparing = self.committer.preparing();
            let prepared = match self.prepare(model, &command, options, origin).await? {
                Step::Answer(answer) => return Ok(*answer),
                Step::Write(prepared) => prepared,
            };
            // What is submitted is not on its way any more.
            drop(preparing);
            let Some((receiver, settled, pending)) = self.submit(*prepared, options)? else { continue };
            let answer = self.answer(receiver).await;
            let position = answer.as_ref().ok().and_then(|answer| answer.as_ref().ok()).map(|written| written.position);
            if let Some(written) = self.finish(pending, answer, &command, options, &mut lost).await? {
                if let (Some(wait), Some(settled), Some(position)) = (options.wait, settled, position) {
                    // A hook that is not done by then goes on; the answer says nothing of it.
                    let _ = tokio::time::timeout(wait, self.settled(model, &command.id, position, settled)).await;
                }
                return Ok(written);
            }
        }
    }

    /// Steps 1 to 3: everything before the event exists.
    pub(super) async fn prepare(
        &self,
        model: &str,
        command: &Command,
        options: &WriteOptions,
        origin: &Origin,
    ) -> Result<Step> {
        self.availability.check_model(model)?;
        let entry = self.open_model(model).await?;
        let Command { id, fresh, change } = command;
        let key = options.idempotency_key.as_ref();
        let key = key.map(|key| IdempotencyKey::of_change(model, key, command.named(), change, origin));
        // A creation with an id of our own cannot meet an instance.
        let current = if *fresh { None } else { self.stores.model.get(model, id).await? };
        // After the instance: its event took the key, so whoever sees the one sees the other.
        let mut replaces = None;
        if let Some(key) = &key
            && let Some(holder) = self.stores.event.holder(&key.claim).await?
        {
            match self.first_event(key, &holder).await?.and_then(first_answer) {
                // What was done already would not be done again.
                Some(_) if options.dry_run => {
                    return Ok(Step::Answer(Box::new(Written::DryRun(DryRun::unhooked(None)))));
                }
                Some(answer) => return Ok(Step::Answer(Box::new(answer))),
                None => replaces = Some(holder.position),
            }
        }
        let kind = check_presence(&entry.model.record, command, current.as_ref(), &options.precondition)?;
        // What the client sent is counted where it was read; this is for what comes from the store and from hooks.
        let trees = self.own_memory.lease();

        let mut document = match change {
            Change::Create { data, .. } | Change::Replace { data, .. } => Some(parse(data)?),
            Change::Patch { patch, .. } => Some(patched(current.as_ref(), patch, &trees)?),
            Change::Delete { .. } => None,
        };
        let is_patch = matches!(change, Change::Patch { .. });
        let prefix = if is_patch { "" } else { "/data" };
        if let Some(unchecked) = document.take() {
            let fitting = Fitting { prefix, defaults: !is_patch };
            let checked = fit(&self.workers, model, &entry.model.schema, unchecked, fitting).await;
            document = Some(checked.map_err(|misfit| misfit.into_error(&entry))?);
        }

        let (pre, post) = phases(kind).ok_or_else(stopped)?;
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
            };
            match self.decide(&entry, chain, context, document, prefix, options.dry_run, &trees).await {
                Decided::Pass { document: decided, provenance: passed, decisions: made } => {
                    document = decided;
                    provenance = passed;
                    decisions = made;
                }
                Decided::Stop { error, decisions } => {
                    if options.dry_run {
                        let answer = DryRun { hooks: decisions, ..DryRun::unhooked(None) };
                        return Ok(Step::Answer(Box::new(Written::DryRun(answer))));
                    }
                    return Err(error);
                }
            }
        }

        let record = &entry.model.record;
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
            time: time::now(),
        };
        let expected = current.as_ref().map_or(Expected::New, |current| Expected::At(current.position));
        let mut append = Append::new(event, expected);
        append.requires.push(Require { stream: Stream::of_model(model), position: record.position });
        // First, so that of two with the same key the second meets the key and not a unique value of the first.
        append.claims.extend(key.clone().map(|key| key.claim(replaces)));
        self.claim_unique(&entry, &mut append, current.as_ref(), document.as_ref(), &trees)?;
        if options.dry_run {
            self.check_claims(&entry, &append).await?;
            let post_hooks = entry.chain(post).iter().map(|hook| hook.binding().id.name.clone()).collect();
            let answer = DryRun { hooks: decisions, post_hooks, ..DryRun::unhooked(Some(append.event)) };
            return Ok(Step::Answer(Box::new(Written::DryRun(answer))));
        }
        let now = append.event.time;
        let instance = match (&current, document) {
            (Some(current), None) => current.clone(),
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
        Ok(Step::Write(Box::new(Prepared { append, instance, entry, key })))
    }

    /// The model, once it takes writes; waits for a change of the model that is about to be put in use.
    async fn open_model(&self, model: &str) -> Result<Arc<Entry>> {
        let mut deadline = None;
        loop {
            let entry = self.models.require(model)?;
            if entry.gate.is_open() {
                return Ok(entry);
            }
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + gate::WAIT_MAX);
            entry.gate.wait(model, deadline).await?;
        }
    }

    /// Step 4: hands the change to the committer. Changes that are submitted one after the other are written in that
    /// order. `None`: the model takes no writes now, so the change is to be prepared again.
    pub(super) fn submit(&self, prepared: Prepared, options: &WriteOptions) -> Result<Option<Sent>> {
        let Prepared { append, instance, entry, key } = prepared;
        let (answer, receiver) = oneshot::channel();
        let kind = append.event.kind;
        let reacts = entry.reacts_to(kind, Position::MAX);
        let (settled, settled_receiver) = match (options.wait, reacts) {
            (Some(_), true) => {
                let (sender, receiver) = oneshot::channel();
                (Some(sender), Some(receiver))
            }
            _ => (None, None),
        };
        let pending = Pending { append, hint: None, is_for_stuck: false, answer, settled };
        if !self.committer.submit(pending, &entry.gate)? {
            return Ok(None);
        }
        Ok(Some((receiver, settled_receiver, Submitted { entry, kind, instance, key })))
    }

    /// What the committer says to a change that it was handed.
    pub(super) async fn answer(&self, receiver: oneshot::Receiver<Answer>) -> Answer {
        match self.committer.answered(receiver).await {
            Some(answer) => answer.unwrap_or_else(|_| Err(lost_answer())),
            None => Err(unanswered()),
        }
    }

    /// Step 6, or `None`: a race was lost and the change is to be prepared again.
    pub(super) async fn finish(
        &self,
        submitted: Submitted,
        answer: Answer,
        command: &Command,
        options: &WriteOptions,
        lost: &mut u32,
    ) -> Result<Option<Written>> {
        let conflict = match answer? {
            Ok(committed) => return Ok(Some(submitted.written(committed))),
            Err(conflict) => conflict,
        };
        let model = &submitted.instance.model;
        let seen = position_of(&conflict);
        match conflict {
            Conflict::Claimed { key, holder } if is_key(&key) => {
                if let Some(key) = &submitted.key
                    && let Some(answer) = self.first_event(key, &holder).await?.and_then(first_answer)
                {
                    return Ok(Some(answer));
                }
            }
            Conflict::Claimed { key, holder } => return Err(not_unique(&submitted.entry.model.record, &key, &holder)),
            // With a key it may have been the same request, whose answer is then found in the next round.
            Conflict::Stream { .. } if options.idempotency_key.is_some() => {}
            Conflict::Stream { ended: false, .. } if options.precondition == Precondition::Absent => {
                return Err(Error::new(
                    ErrorKind::PreconditionFailed,
                    format!("`{model}/{}` was made by somebody else meanwhile", command.id),
                ));
            }
            Conflict::Stream { ended: false, .. } if matches!(command.change, Change::Create { .. }) => {
                return Err(exists(model, &command.id));
            }
            Conflict::Stream { .. } if options.precondition != Precondition::None => {
                return Err(Error::new(
                    ErrorKind::PreconditionFailed,
                    format!("`{model}/{}` was changed by somebody else meanwhile; read it again", command.id),
                ));
            }
            Conflict::Stream { .. } | Conflict::Required { .. } | Conflict::NotQuiet { .. } | Conflict::Batch => {}
        }
        self.seen(seen).await;
        *lost += 1;
        self.metrics.retries.fetch_add(1, Ordering::Relaxed);
        if *lost > RETRIES_MAX {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!("`{model}/{}` was changed by others {lost} times meanwhile; try again", command.id),
            ));
        }
        Ok(None)
    }

    /// Waits until the post hooks of an event ended, on whichever node they run.
    async fn settled(&self, model: &str, id: &str, position: Position, here: oneshot::Receiver<()>) {
        if !self.stores.event.capabilities().shared {
            let _ = here.await;
            return;
        }
        let (group, stream) = (group_of(model).name, Stream::of_instance(model, id));
        let elsewhere = async {
            let mut delay = SETTLED_LOOK_FIRST;
            loop {
                match self.stores.event.is_done(&group, &stream, position).await {
                    Ok(true) => return,
                    // With its hooks the group is gone.
                    Err(error) if error.kind() == DriverErrorKind::Invalid => return,
                    // A store that fails says so elsewhere; the caller waits for as long as it wanted to.
                    _ => tokio::time::sleep(delay).await,
                }
                delay = (delay * 2).min(SETTLED_LOOK_MAX);
            }
        };
        tokio::select! {
            Ok(()) = here => {}
            () = elsewhere => {}
        }
    }

    /// Waits until this node has applied the event that was in the way, so that the next try sees what it did.
    pub(super) async fn seen(&self, position: Position) {
        if let Err(error) = self.tail.reached_soon(position).await {
            tracing::warn!(position, "an event that others wrote is not applied yet: {error}");
        }
    }

    /// Claims the values of `unique` lists that are new, releases those that are gone.
    fn claim_unique(
        &self,
        entry: &Entry,
        append: &mut Append,
        current: Option<&Instance>,
        document: Option<&Document>,
        trees: &Lease<&Share>,
    ) -> Result<()> {
        let record = &entry.model.record;
        if record.unique.is_empty() {
            return Ok(());
        }
        let old = match current {
            Some(current) => unique::keys(record, &parse_stored(&current.data, trees)?.value),
            None => Vec::new(),
        };
        let new = document.map_or_else(Vec::new, |document| unique::keys(record, &document.value));
        append.releases.extend(old.iter().filter(|key| !new.contains(key)).map(|key| key.key.clone()));
        append.claims.extend(new.into_iter().filter(|key| !old.contains(key)).map(|key| Claim::new(key.key)));
        Ok(())
    }

    /// For dry runs: whether somebody else holds a value already.
    async fn check_claims(&self, entry: &Entry, append: &Append) -> Result<()> {
        let stream = append.event.stream();
        for claim in append.claims.iter().filter(|claim| !is_key(&claim.key)) {
            if let Some(holder) = self.stores.event.holder(&claim.key).await?
                && holder.stream != stream
            {
                return Err(not_unique(&entry.model.record, &claim.key, &holder));
            }
        }
        Ok(())
    }
}

/// The event that was in the way; 0 if it is not known.
fn position_of(conflict: &Conflict) -> Position {
    match conflict {
        Conflict::Stream { last, .. } | Conflict::Required { last, .. } | Conflict::NotQuiet { last } => *last,
        Conflict::Claimed { holder, .. } => holder.position,
        Conflict::Batch => 0,
    }
}

/// Its answer, the end of its post hooks, and what is needed to make something of the answer.
pub(super) type Sent = (oneshot::Receiver<Answer>, Option<oneshot::Receiver<()>>, Submitted);

/// A change that the committer has.
pub(super) struct Submitted {
    entry: Arc<Entry>,
    kind: EventKind,
    instance: Instance,
    key: Option<IdempotencyKey>,
}

impl Submitted {
    fn written(mut self, committed: Committed) -> Written {
        if self.kind == EventKind::InstanceDeleted {
            return Written::Deleted(self.instance);
        }
        self.instance.position = committed.position;
        self.instance.updated_at = committed.time;
        if self.kind == EventKind::InstanceCreated {
            self.instance.created_at = committed.time;
            return Written::Created(self.instance);
        }
        Written::Updated(self.instance)
    }
}

impl Command {
    /// The instance, if the client has named it.
    pub(super) fn named(&self) -> Option<&str> {
        (!self.fresh).then_some(&*self.id)
    }

    /// Checks the instance's id; gives a creation without one an id, so that every try means the same instance.
    pub(super) fn new(mut change: Change) -> Result<Command> {
        let id = match &mut change {
            Change::Create { id, .. } => id.take(),
            Change::Replace { id, .. } | Change::Patch { id, .. } | Change::Delete { id } => Some(id.clone()),
        };
        match id {
            None => Ok(Command { id: uuid::Uuid::now_v7().to_string(), fresh: true, change }),
            Some(id) if is_instance_id(&id) => Ok(Command { id, fresh: false, change }),
            Some(id) => Err(Error::bad_request(format!(
                "`{}` is not an instance id: 1 to 128 letters, digits, `.`, `_`, `~`, `-` are expected, the first a letter or digit",
                id.chars().take(140).collect::<String>().escape_debug()
            ))),
        }
    }
}

pub(super) fn stopped() -> Error {
    Error::new(ErrorKind::Unavailable, "the server is stopping; try again when it is back")
}

fn parse(data: &Json) -> Result<Document> {
    Document::parse(data).map_err(|error| Error::bad_request(error.to_string()))
}

/// The same for data of the store, whose size says nothing about the request: memory is held for it.
fn parse_stored(data: &Json, trees: &Lease<&Share>) -> Result<Document> {
    trees.grow(tree_bytes(data.as_bytes()))?;
    parse(data)
}

/// The data after a merge patch.
fn patched(current: Option<&Instance>, patch: &Json, trees: &Lease<&Share>) -> Result<Document> {
    let patch = parse(patch)?;
    let mut value = match current {
        Some(current) => parse_stored(&current.data, trees)?.value,
        None => serde_json::Value::Null,
    };
    merge_patch(&mut value, patch.value);
    // The text of both.
    trees.grow(current.map_or(0, |current| current.data.len()))?;
    // Two documents of allowed depth cannot make a deeper one.
    Ok(Document::from_value(value))
}

/// What kind of event the change becomes, if what is there allows it.
fn check_presence(
    record: &ModelRecord,
    command: &Command,
    current: Option<&Instance>,
    precondition: &Precondition,
) -> Result<EventKind> {
    let Command { id, change, .. } = command;
    let model = &record.id;
    let failed = |detail: String| Err(Error::new(ErrorKind::PreconditionFailed, detail));
    match (precondition, current) {
        (Precondition::At(_) | Precondition::Exists, None) if !matches!(change, Change::Create { .. }) => {
            return failed(format!("there is no `{model}/{id}`, so `If-Match` does not hold"));
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
        (Change::Create { .. }, Some(_)) => Err(exists(model, id)),
        (Change::Create { .. }, None) => Ok(EventKind::InstanceCreated),
        (Change::Replace { create: true, .. }, None) => Ok(EventKind::InstanceCreated),
        (_, None) => Err(Error::not_found(format!("there is no `{model}/{id}`"))),
        (Change::Delete { .. }, Some(_)) => Ok(EventKind::InstanceDeleted),
        (_, Some(_)) => Ok(EventKind::InstanceUpdated),
    }
}

fn exists(model: &str, id: &str) -> Error {
    Error::new(ErrorKind::Exists, format!("`{model}/{id}` exists already; PUT or PATCH changes it"))
}

fn not_unique(record: &ModelRecord, key: &str, holder: &Holder) -> Error {
    let properties = unique::properties_of(record, key).unwrap_or_default();
    let names = properties.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let errors = properties
        .iter()
        .map(|name| FieldError {
            pointer: format!("/data/{}", name.replace('~', "~0").replace('/', "~1")),
            message: format!("must be unique, `{}` has this value already", holder.stream),
        })
        .collect();
    Error::new(ErrorKind::NotUnique, format!("another instance has the same value of {names}")).with_errors(errors)
}
