//! Changes of models: made, changed, deleted. Instances must fit at the very moment of the change.
//!
//! Everything whose cost grows with the model runs beside the commits of all other models, in small steps: the review of
//! its instances, the carry-over in the model store, the keys of new `unique` lists. The model itself takes writes
//! meanwhile. Then its gate closes for a moment: what changed since is looked at again, and the event is written on condition
//! that no instance has changed since that look, because other nodes have gates of their own. The projector puts the prepared
//! version in use. Reads never wait.

mod commit;
mod hold;
mod lists;
mod locks;
mod pace;
mod prepared;
mod review;
mod twins;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use snaphook_driver::time;
use snaphook_driver::{Append, CarryOver, Event, EventKind, Expected, Holder, Position, Quiet, Stream};

pub(super) use self::commit::{Defining, NewDefinition, changed};
use self::hold::HeldBack;
use self::lists::Reserved;
pub(super) use self::lists::sweep;
pub(super) use self::locks::{DefinitionLocks, OneModel};
use self::pace::Pace;
use self::prepared::PreparedChange;
use self::review::Review;
use super::Engine;
use super::change::DefinitionChange;
use super::command::{Defined, DryRun, ModelInput, Origin, Precondition, Seen, WriteOptions};
use super::error::{Error, ErrorKind, Result};
use super::gate::{Closed, Closing};
use super::hanging::hanging;
use super::idempotency::IdempotencyKey;
use super::models::Entry;
use crate::catalog::{Definition, DefinitionError, Effort, FieldError, Model, ModelRecord, change_of, is_model_id};

/// Instances that do not fit and are listed.
const LISTED_MAX: usize = 20;
/// Instances that are read at once.
const PAGE: u32 = 500;
/// How long what changed during a review is looked at while writes go on, how long while they wait, and how often.
const OPEN_MAX: Duration = Duration::from_secs(2);
const CLOSED_MAX: Duration = Duration::from_millis(500);
const CLOSINGS_MAX: u32 = 4;
/// How often other nodes' writes may come before a change is given up.
const DISTURBED_MAX: u32 = 8;

impl Engine {
    /// Makes a model at version 1. `exists` if it is there.
    pub async fn create_model(
        self: &Arc<Self>,
        id: &str,
        input: ModelInput,
        options: &WriteOptions,
        origin: &Origin,
    ) -> Result<Defined<Arc<Model>>> {
        self.availability.check_model(id)?;
        if !is_model_id(id) {
            return Err(Error::bad_request(format!(
                "`{}` is not a model id: 1 to 63 characters of a-z, 0-9, `_`, `-` are expected, the first a letter or digit",
                id.chars().take(80).collect::<String>().escape_debug()
            ))
            .with_errors(vec![FieldError { pointer: "/id".to_owned(), message: "is not a model id".to_owned() }]));
        }
        if !input.renames.is_empty() {
            return Err(Error::bad_request("`renames` has no meaning for a new model"));
        }
        if matches!(options.precondition, Precondition::Exists | Precondition::At(_)) {
            return Err(Error::new(
                ErrorKind::PreconditionFailed,
                "`If-Match` cannot hold for a model that is to be created",
            ));
        }
        let definition = self.compile(id, &input).await?;
        let key = options.idempotency_key.as_ref().map(|key| IdempotencyKey::of_model(id, key, &input, origin));
        // Two requests with one key may name different models. No model has an empty id.
        let same_key = match key {
            Some(_) => Some(self.lock_model("").await?),
            None => None,
        };
        let one = self.lock_model(id).await?;
        self.availability.check_model(id)?;
        let mut replaces = None;
        if let Some(key) = &key
            && let Some(holder) = self.stores.event.holder(&key.claim).await?
        {
            match self.first_model(key, &holder).await? {
                Some(model) => return Ok(Defined::unchanged(options, Arc::new(model))),
                None => replaces = Some(holder.position),
            }
        }
        if let Some(entry) = self.models.get(id) {
            check_precondition(&entry, &options.precondition)?;
            return Err(Error::new(ErrorKind::Exists, format!("there is a model `{id}` already; PUT changes it")));
        }
        let now = time::now();
        let record = ModelRecord {
            id: id.to_owned(),
            version: 1,
            schema: definition.schema.text.clone(),
            indexes: definition.indexes.clone(),
            unique: definition.unique.clone(),
            unique_ids: definition.unique.iter().map(|_| lists::new_id()).collect(),
            hooks: BTreeMap::new(),
            hooked_since: BTreeMap::new(),
            position: 0,
            created_at: now,
            updated_at: now,
        };
        let change = DefinitionChange { definition: record.clone(), renames: Vec::new(), phase: None };
        let mut append = definition_append(EventKind::ModelCreated, &record, &change, Expected::New, origin)?;
        if options.dry_run {
            return Ok(Defined::DryRun(DryRun::unhooked(Some(append.event))));
        }
        append.claims.extend(key.map(|key| key.claim(replaces)));
        let schema = Arc::clone(&definition.schema);
        let engine = Arc::clone(self);
        let define = async move {
            let _locks = (same_key, one);
            engine.define(NewDefinition { append, schema, carry: CarryOver::default(), ready: None }).await?.done()
        };
        self.commit(define).await.map(Defined::Done)
    }

    /// The model that the first request with this key made; `None` if the key is free again.
    async fn first_model(&self, key: &IdempotencyKey, holder: &Holder) -> Result<Option<Model>> {
        let Some(event) = self.first_event(key, holder).await? else { return Ok(None) };
        let record = DefinitionChange::from_event(&event)?.definition;
        Model::from_record(record).map(Some).map_err(|error| Error::new(ErrorKind::Storage, error))
    }

    /// Makes the next version of a model; the same definition again changes nothing.
    pub async fn update_model(
        self: &Arc<Self>,
        id: &str,
        input: ModelInput,
        options: &WriteOptions,
        origin: &Origin,
    ) -> Result<Defined<Arc<Model>>> {
        self.availability.check_model(id)?;
        self.models.require(id)?;
        let definition = self.compile(id, &input).await?;
        let mut one = self.lock_model(id).await?;
        self.availability.check_model(id)?;
        let mut entry = self.models.require(id)?;
        check_precondition(&entry, &options.precondition)?;
        let old = Arc::clone(&entry.model);
        if definition.same_as(&old.record) && self.are_renamed(id, &input.renames).await? {
            return Ok(Defined::unchanged(options, old));
        }
        let carry = change_of(&old.schema, &definition.schema, &input.renames).map_err(refused)?;
        let record = ModelRecord {
            version: old.record.version + 1,
            schema: definition.schema.text.clone(),
            indexes: definition.indexes.clone(),
            unique: definition.unique.clone(),
            position: 0,
            updated_at: time::now(),
            ..old.record.clone()
        };
        let mut new = Model::with_definition(record, &definition);
        let mut pace = Pace::new(&self.tail);
        let outages = self.availability.begun();
        let mut head = self.tail.head();
        let review = Review::new(Arc::clone(&old), new.clone(), carry);
        let mut review = review.all(&self.stores.model, &self.workers, &mut pace).await?;
        review.verdict()?;
        if options.dry_run {
            new.record.unique_ids = review.list_ids();
            let append = update(&new.record, input.renames, old.record.position, origin)?;
            return Ok(Defined::DryRun(DryRun::unhooked(Some(append.event))));
        }
        let shape = new.shape();
        let mut carry = review.needed();
        let mut prepared = PreparedChange::new(&self.stores.model, &shape, &carry).await?;
        let (mut at, mut held_back, mut disturbed) = (old.record.position, None, 0);
        for _ in 0..CLOSINGS_MAX {
            // Most of what changed since the review began is looked at while writes go on. The rest while this node's wait,
            // so never for long: a model that changes faster than it can be looked at stays as it is.
            let open = review.catch_up(&self.stores, &self.tail, &self.workers, head, OPEN_MAX).await?;
            (review, head) = (open.review, open.position);
            let mut closed = self.close_gate(&entry, Closing::Change).await?;
            let mut deadline = Instant::now() + CLOSED_MAX;
            loop {
                let left = deadline.saturating_duration_since(Instant::now());
                let rest = review.catch_up(&self.stores, &self.tail, &self.workers, head, left).await?;
                (review, head) = (rest.review, rest.position);
                if !rest.is_all {
                    break;
                }
                self.check_undisturbed(id, outages)?;
                review.verdict()?;
                if review.needed() != carry {
                    carry = review.needed();
                    prepared = PreparedChange::new(&self.stores.model, &shape, &carry).await?;
                }
                new.record.unique_ids = review.list_ids();
                let reserved = Reserved::take(&self.stores, &mut review, &new.record, &mut pace);
                let reserved = self.committer.answered(reserved).await.ok_or_else(hanging)??;
                // Other nodes write without a look at this gate.
                let quiet = Some(Quiet { model: id.to_owned(), since: head });
                let append = Append { quiet, ..update(&new.record, input.renames.clone(), at, origin)? };
                let definition =
                    NewDefinition { append, schema: Arc::clone(&new.schema), carry: carry.clone(), ready: None };
                let gone = lists::gone(&old.record, &new.record);
                let (engine, forgets) = (Arc::clone(self), Pace::new(&self.tail));
                let define = async move {
                    match engine.define(definition).await? {
                        Defining::Done(model) => {
                            reserved.keep();
                            lists::forget(Arc::clone(&engine.stores.event), gone, forgets);
                            Ok(Ok(model))
                        }
                        // What is held until the definition is in use is held on.
                        Defining::NotQuiet(last) => Ok(Err((last, one, prepared, closed))),
                    }
                };
                // Writes of this node stay out until others' do too.
                let (last, _closed);
                match self.commit(define).await? {
                    Ok(model) => return Ok(Defined::Done(model)),
                    Err(again) => (last, one, prepared, _closed) = again,
                }
                self.seen(last).await;
                disturbed += 1;
                if disturbed > DISTURBED_MAX {
                    return Err(too_fast(id));
                }
                held_back = Some(HeldBack::new(self, &old.record, at, origin).await?);
                at = held_back.as_ref().map_or(at, HeldBack::position);
                // The event put the model in use anew, with a gate of its own.
                entry = self.models.require(id)?;
                closed = self.close_gate(&entry, Closing::Change).await?;
                deadline = Instant::now() + CLOSED_MAX;
            }
        }
        drop(held_back);
        Err(too_fast(id))
    }

    /// Checks and compiles a definition, when it is the model's turn.
    async fn compile(&self, model: &str, input: &ModelInput) -> Result<Definition> {
        let input = input.clone();
        let work = move |effort: &Effort| Definition::new_within(&input, effort);
        self.workers.run(model, work).await?.map_err(refused)
    }

    /// Waits until nobody else changes this model.
    pub(super) async fn lock_model(&self, id: &str) -> Result<OneModel> {
        self.committer.answered(self.definitions.of(id)).await.ok_or_else(hanging)
    }

    /// Refuses what was read from the model store since, if that has failed meanwhile: it may have missed events.
    fn check_undisturbed(&self, model: &str, outages: u64) -> Result<()> {
        self.availability.check_model(model)?;
        if self.availability.begun() == outages {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            format!("the model store failed while the instances of `{model}` were looked at; try again in a moment"),
        ))
    }

    /// Closes a model's gate. When this returns, every write that came before is in the model store.
    async fn close_gate(&self, entry: &Arc<Entry>, why: Closing) -> Result<Closed> {
        let closed = Closed::new(&entry.gate, why);
        self.committer.answered(self.committer.barrier()).await.ok_or_else(hanging)??;
        Ok(closed)
    }

    /// Whether the last change of the definition was these renames: the client may ask again because it never got the
    /// answer.
    async fn are_renamed(&self, model: &str, renames: &[(String, String)]) -> Result<bool> {
        if renames.is_empty() {
            return Ok(true);
        }
        let stream = Stream::of_model(model);
        let mut at_most = Position::MAX;
        // Hooks may have come and gone since.
        while let Some(event) = self.stores.event.last(&stream, at_most).await? {
            match event.kind {
                EventKind::HookUpdated
                | EventKind::HookDeleted
                | EventKind::ModelEventSkipped
                | EventKind::ModelChanging => at_most = event.position - 1,
                EventKind::ModelUpdated => return Ok(DefinitionChange::from_event(&event)?.renames == renames),
                _ => break,
            }
        }
        Ok(false)
    }

    /// Deletes a model. With `cascade` its instances are deleted first, each with an event; no hook runs for them.
    pub async fn delete_model(
        self: &Arc<Self>,
        id: &str,
        cascade: bool,
        options: &WriteOptions,
        origin: &Origin,
    ) -> Result<Defined<()>> {
        self.check_available()?;
        let one = self.lock_model(id).await?;
        self.check_available()?;
        if let Some(stuck) = self.availability.stuck(id) {
            return self.delete_stuck(one, stuck, cascade, options, origin).await;
        }
        let entry = self.models.require(id)?;
        check_precondition(&entry, &options.precondition)?;
        if !cascade {
            // Not on the committer's thread, which only has to know whether there is one.
            check_unused(id, self.stores.model.count(id, &[], &snaphook_driver::Budget::unlimited()).await?)?;
        }
        if options.dry_run {
            let append = deletion(&entry.model.record, entry.model.record.position, origin)?;
            return Ok(Defined::DryRun(DryRun::unhooked(Some(append.event))));
        }
        let (engine, origin) = (Arc::clone(self), origin.clone());
        // A deletion that was left half way would have taken some of the instances.
        self.commit(async move { engine.delete_prepared(one, entry, cascade, origin).await }).await.map(Defined::Done)
    }

    async fn delete_prepared(
        self: &Arc<Self>,
        _one: OneModel,
        mut entry: Arc<Entry>,
        cascade: bool,
        origin: Origin,
    ) -> Result<()> {
        let id = entry.model.record.id.clone();
        // Only a deletion with all instances takes longer than a write can wait.
        let closing = if cascade { Closing::Deletion } else { Closing::Change };
        let mut closed = self.close_gate(&entry, closing).await?;
        let mut is_deleted = false;
        let (mut at, mut held_back) = (entry.model.record.position, None);
        for _ in 0..=DISTURBED_MAX {
            // Page by page, so that other models are written to meanwhile. What comes later is left for the next round.
            let head = self.tail.head();
            while cascade && self.delete_page(&entry.model, head, &origin).await? {}
            match self.delete_empty(&entry, at, &origin).await {
                Ok(None) => is_deleted = true,
                Ok(Some(last)) => self.seen(last).await,
                // Another node made some meanwhile.
                Err(error) if cascade && error.kind == ErrorKind::ModelInUse => {}
                Err(error) => return Err(error),
            }
            if is_deleted {
                break;
            }
            held_back = Some(HeldBack::new(self, &entry.model.record, at, &origin).await?);
            at = held_back.as_ref().map_or(at, HeldBack::position);
            // The event put the model in use anew, with a gate of its own.
            entry = self.models.require(&id)?;
            closed = self.close_gate(&entry, closing).await?;
        }
        drop((held_back, closed));
        if !is_deleted {
            return Err(written_on(&id));
        }
        let gone = lists::all(&entry.model.record);
        // What instances of the model held was released with them; this is for what a crash left.
        lists::forget(Arc::clone(&self.stores.event), gone, Pace::new(&self.tail));
        // Post hooks that did not run yet have no model any more.
        self.dispatcher.forget(&id).await;
        Ok(())
    }
}

/// The event of a definition, ready to append.
pub(super) fn definition_append(
    kind: EventKind,
    record: &ModelRecord,
    change: &DefinitionChange,
    expected: Expected,
    origin: &Origin,
) -> Result<Append> {
    let event = Event {
        position: 0,
        id: uuid::Uuid::now_v7().to_string(),
        kind,
        model: record.id.clone(),
        model_version: record.version,
        instance: None,
        revision: record.version,
        data: Some(change.to_json()?),
        actor: origin.actor.clone(),
        cause: origin.cause.clone(),
        hooks: Vec::new(),
        request_id: origin.request_id.clone(),
        time: time::now(),
    };
    Ok(Append::new(event, expected))
}

fn deletion(record: &ModelRecord, at: Position, origin: &Origin) -> Result<Append> {
    let change = DefinitionChange { definition: record.clone(), renames: Vec::new(), phase: None };
    let mut append = definition_append(EventKind::ModelDeleted, record, &change, Expected::At(at), origin)?;
    append.event.data = None;
    Ok(append)
}

/// The event of a model's next version.
fn update(record: &ModelRecord, renames: Vec<(String, String)>, at: Position, origin: &Origin) -> Result<Append> {
    let change = DefinitionChange { definition: record.clone(), renames, phase: None };
    definition_append(EventKind::ModelUpdated, record, &change, Expected::At(at), origin)
}

fn too_fast(model: &str) -> Error {
    Error::new(
        ErrorKind::Conflict,
        format!(
            "instances of `{model}` change faster than they can be checked against the new version; try again when fewer are \
             written, or make the schema simpler"
        ),
    )
}

/// For deletions of models that other nodes write to.
pub(super) fn written_on(model: &str) -> Error {
    Error::new(
        ErrorKind::Conflict,
        format!("others make instances of `{model}` while it is deleted; try again when fewer are written"),
    )
}

pub(super) fn check_unused(model: &str, instances: u64) -> Result<()> {
    if instances == 0 {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::ModelInUse,
        format!("model `{model}` has {instances} instances; delete them first, or ask with `?cascade=true`"),
    ))
}

/// `If-Match` on a model.
pub(super) fn check_precondition(entry: &Entry, precondition: &Precondition) -> Result<()> {
    let record = &entry.model.record;
    match precondition {
        Precondition::At(expected) if !expected.contains(&Seen::model(record)) => Err(Error::new(
            ErrorKind::PreconditionFailed,
            format!(
                "model `{}` is at position {}, not where `If-Match` expected it; read it again",
                record.id, record.position
            ),
        )),
        Precondition::Absent => Err(Error::new(ErrorKind::PreconditionFailed, format!("model `{}` exists", record.id))),
        _ => Ok(()),
    }
}

fn refused(error: DefinitionError) -> Error {
    let kind = if error.too_complex { ErrorKind::TooComplex } else { ErrorKind::Invalid };
    let errors = vec![FieldError { pointer: error.pointer.clone(), message: error.message.clone() }];
    Error::new(kind, error.message).with_errors(errors)
}
