//! Creates the next version of a model. All instances must be compatible at the moment of the change.
//!
//! Everything whose cost grows with the model runs beside the commits of all other models, in small steps: the review
//! of its instances, the carry-over in the model store, the keys of new `unique` lists. The model itself accepts writes
//! meanwhile. Then its gate closes for a moment: instances that changed meanwhile are checked again, and the event is
//! written on condition that no instance has changed since then, because other nodes have their own gates. The
//! projector puts the prepared version in use. Reads never wait.

use std::sync::Arc;
use std::time::{Duration, Instant};

use snaphook_driver::{Append, EventKind, Position, Quiet, Stream, time};

use super::define::{Defining, NewDefinition};
use super::event::update;
use super::faults::{check_precondition, too_fast};
use super::hold::HeldBack;
use super::lists::{self, Reserved};
use super::pace::Pace;
use super::prepared::PreparedChange;
use super::review::Review;
use super::{DISTURBED_MAX, Definitions};
use crate::catalog::rules::RulesInput;
use crate::catalog::{Model, ModelRecord, Referenced, change_of};
use crate::engine::change::DefinitionChange;
use crate::engine::command::{Defined, DryRun, ModelInput, Origin, WriteOptions};
use crate::engine::error::{Error, ErrorKind, Result};
use crate::engine::gate::Closing;
use crate::engine::hanging::hanging;

/// Limits for checking instances again that changed during a review: while writes continue, while they wait, and how
/// often.
const OPEN_MAX: Duration = Duration::from_secs(2);
const CLOSED_MAX: Duration = Duration::from_millis(500);
const CLOSINGS_MAX: u32 = 4;

impl Definitions {
    /// Creates the next version of a model; repeating the same definition has no effect.
    pub async fn update(
        &self,
        id: &str,
        input: ModelInput,
        options: &WriteOptions,
        origin: &Origin,
    ) -> Result<Defined<Arc<Model>>> {
        self.core.availability.check_model(id)?;
        self.core.models.require(id)?;
        let mut definition = self.compile(id, &input).await?;
        self.check_references(id, &definition)?;
        if !options.dry_run {
            self.tell_targets(id, &definition.references, origin).await?;
        }
        let mut one = self.lock_model(id).await?;
        self.core.availability.check_model(id)?;
        let mut entry = self.core.models.require(id)?;
        check_precondition(&entry, &options.precondition)?;
        let old = Arc::clone(&entry.model);
        let keeps_rules = matches!(input.rules, RulesInput::Keep);
        if definition.same_as(&old.record, keeps_rules) && self.are_renamed(id, &input.renames).await? {
            return Ok(Defined::unchanged(options, old));
        }
        if keeps_rules {
            definition.keep_rules(&old.record, &input.renames)?;
        }
        let carry = change_of(&old.schema, &definition.schema, &input.renames)?;
        let mut referenced = old.record.referenced.clone();
        if definition.references.iter().any(|reference| reference.model == id) {
            let more = Referenced::with(referenced.as_ref(), id);
            referenced = Some(more.map_err(|message| Error::new(ErrorKind::Invalid, message))?);
        }
        let record = ModelRecord {
            version: old.record.version + 1,
            schema: definition.schema.text.clone(),
            indexes: definition.indexes.clone(),
            unique: definition.unique.clone(),
            references: definition.references.clone(),
            referenced,
            rules: definition.rules.as_ref().map(|(rules, _)| rules.clone()),
            position: 0,
            updated_at: time::now(),
            ..old.record.clone()
        };
        let mut new = definition.model(record);
        let mut pace = Pace::new(&self.core.tail);
        let outages = self.core.availability.begun();
        let mut head = self.core.tail.head();
        let review = Review::new(Arc::clone(&old), new.clone(), carry, head);
        let mut review = review.all(&self.core.stores.model, &self.core.workers, &mut pace).await?;
        review.verdict()?;
        if options.dry_run {
            new.record.unique_ids = review.list_ids();
            let append = update(&new.record, input.renames, old.record.position, origin)?;
            return Ok(Defined::DryRun(DryRun::unhooked(Some(append.event))));
        }
        let shape = new.shape();
        let mut carry = review.needed();
        let mut prepared = PreparedChange::new(&self.core.stores.model, &shape, &carry).await?;
        let (mut at, mut held_back, mut disturbed) = (old.record.position, None, 0);
        for _ in 0..CLOSINGS_MAX {
            // Most instances that changed since the review began are checked while writes continue. For the rest this
            // node's writes wait, so never for long: a model that changes faster than it can be checked stays
            // unchanged.
            let open = review.catch_up(&self.core.stores, &self.core.tail, &self.core.workers, head, OPEN_MAX).await?;
            (review, head) = (open.review, open.position);
            // So that few deletions of targets are left to check while writes wait.
            review.fence(&self.core).await?;
            review.verdict()?;
            let mut closed = self.close_gate(&entry, Closing::Change).await?;
            let mut deadline = Instant::now() + CLOSED_MAX;
            loop {
                let left = deadline.saturating_duration_since(Instant::now());
                let rest = review.catch_up(&self.core.stores, &self.core.tail, &self.core.workers, head, left).await?;
                (review, head) = (rest.review, rest.position);
                if !rest.is_all {
                    break;
                }
                self.check_undisturbed(id, outages)?;
                let fence = review.fence(&self.core).await?;
                review.verdict()?;
                if review.needed() != carry {
                    carry = review.needed();
                    prepared = PreparedChange::new(&self.core.stores.model, &shape, &carry).await?;
                }
                new.record.unique_ids = review.list_ids();
                let reserved = Reserved::take(&self.core.stores, &mut review, &new.record, &mut pace);
                let reserved = self.core.committer.answered(reserved).await.ok_or_else(hanging)??;
                // Other nodes do not know this gate.
                let quiet = Some(Quiet { model: id.to_owned(), since: head });
                let mut append = Append { quiet, ..update(&new.record, input.renames.clone(), at, origin)? };
                append.claims.extend(fence);
                append.requires.extend(self.require_targets(id, &definition.references)?);
                let definition =
                    NewDefinition { append, schema: Arc::clone(&new.schema), carry: carry.clone(), ready: None };
                let gone = lists::gone(&old.record, &new.record);
                let (definitions, forgets) = (self.clone(), Pace::new(&self.core.tail));
                let define = async move {
                    match definitions.define(definition).await? {
                        Defining::Done(model) => {
                            reserved.keep();
                            lists::forget(Arc::clone(&definitions.core.stores.event), gone, forgets);
                            Ok(Ok(model))
                        }
                        // What is held until the definition is in use is held on.
                        Defining::NotQuiet(last) => Ok(Err((last, one, prepared, closed))),
                    }
                };
                // Writes of this node stay blocked until those of other nodes are blocked, too.
                let (last, _closed);
                match self.core.commit(define).await? {
                    Ok(model) => return Ok(Defined::Done(model)),
                    Err(again) => (last, one, prepared, _closed) = again,
                }
                self.core.seen(last).await;
                disturbed += 1;
                if disturbed > DISTURBED_MAX {
                    return Err(too_fast(id));
                }
                held_back = Some(HeldBack::new(&self.core, &old.record, at, origin).await?);
                at = held_back.as_ref().map_or(at, HeldBack::position);
                // The event put a new entry in use, with its own gate.
                entry = self.core.models.require(id)?;
                closed = self.close_gate(&entry, Closing::Change).await?;
                deadline = Instant::now() + CLOSED_MAX;
            }
        }
        drop(held_back);
        Err(too_fast(id))
    }

    /// Whether the last change of the definition was these renames: the client may repeat a request whose response was
    /// lost.
    async fn are_renamed(&self, model: &str, renames: &[(String, String)]) -> Result<bool> {
        if renames.is_empty() {
            return Ok(true);
        }
        let stream = Stream::of_model(model);
        let mut at_most = Position::MAX;
        // Hooks may have changed since.
        while let Some(event) = self.core.stores.event.last(&stream, at_most).await? {
            match event.kind {
                EventKind::HookUpdated
                | EventKind::HookDeleted
                | EventKind::ModelEventSkipped
                | EventKind::ModelChanging => at_most = event.position - 1,
                EventKind::ModelUpdated => {
                    let change = DefinitionChange::from_event(&event)?;
                    if !change.is_target {
                        return Ok(change.renames == renames);
                    }
                    at_most = event.position - 1;
                }
                _ => break,
            }
        }
        Ok(false)
    }
}
