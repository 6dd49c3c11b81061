//! Decides which events the rules of their models hide.
//!
//! An event shows the state of a record after the event, or for a deletion before it. The event is visible if the
//! current rules allow both that state and the latest state of the record, which is the current one or that at its
//! deletion. So a record that became hidden is hidden with its history, and a record that became visible does not show
//! earlier hidden states. States of older versions of the model are converted to the current version first, because
//! rules use the current names of properties. Events of a deleted model with the same name are under that model's
//! rules.
//!
//! Anything that cannot be determined is hidden.

use std::collections::HashMap;
use std::sync::Arc;

use snaphook_driver::{Event, Instance, Position, Stream, time};

use crate::catalog::Model;
use crate::catalog::rules::{Right, Rules};
use crate::engine::carried::Changes;
use crate::engine::change::{DefinitionChange, changes_definition};
use crate::engine::core::Core;
use crate::engine::error::{Error, ErrorKind, Result};
use crate::engine::revisions;
use crate::memory::tree_bytes;

/// Models whose past rules are cached.
const PAST_MODELS_MAX: usize = 64;
/// Records of a page whose visibility is cached.
const LATEST_MAX: usize = 10_000;

/// The visibility of events for one caller.
pub struct Visibility {
    core: Arc<Core>,
    right: Right,
    /// The rules of deleted models, by model and position of the definition.
    past: HashMap<(String, Position), Option<Arc<Rules>>>,
    /// The conversions of a model's data, up to the position.
    changes: HashMap<(String, Position), Changes>,
    /// Whether the latest states of records are visible, by model, id and position of the definition. Only within a
    /// page, which shows one moment.
    latest: Option<HashMap<(String, String, Position), bool>>,
}

/// The rules that apply to an event.
struct Under {
    rules: Arc<Rules>,
    /// The version of the model: states are converted to it, by the changes of the model before `until`.
    version: u64,
    until: Position,
    /// Whether these are the rules of the current model.
    is_current: bool,
}

impl Visibility {
    pub(super) fn new(core: &Arc<Core>, right: Right) -> Visibility {
        let core = Arc::clone(core);
        Visibility { core, right, past: HashMap::new(), changes: HashMap::new(), latest: None }
    }

    /// For the events of one page.
    pub(super) fn of_page(core: &Arc<Core>, right: Right) -> Visibility {
        Visibility { latest: Some(HashMap::new()), ..Visibility::new(core, right) }
    }

    pub async fn of_event(&mut self, event: &Event) -> Result<bool> {
        if self.right.subject().is_none() || !event.kind.is_instance() {
            return Ok(true);
        }
        let Some(under) = self.rules(&event.model, event.position, event.time).await? else { return Ok(true) };
        let Some(state) = self.shown_by(event).await? else { return Ok(false) };
        if !self.could_read(&under, state).await? {
            return Ok(false);
        }
        let id = event.instance.as_deref().unwrap_or_default();
        self.of_latest(&under, &event.model, id).await
    }

    /// Whether a record is visible, which may be deleted.
    pub(super) async fn of_instance(&mut self, model: &str, id: &str) -> Result<bool> {
        if self.right.subject().is_none() {
            return Ok(true);
        }
        let last = self.core.stores.event.last(&Stream::of_instance(model, id), Position::MAX).await?;
        let Some(last) = last else { return Ok(false) };
        match self.rules(model, last.position, last.time).await? {
            Some(under) => self.of_latest(&under, model, id).await,
            None => Ok(true),
        }
    }

    /// Whether a past state of a record is visible.
    pub(super) async fn of_past(&mut self, then: &Instance) -> Result<bool> {
        if self.right.subject().is_none() {
            return Ok(true);
        }
        let Some(under) = self.rules(&then.model, then.position, then.updated_at).await? else { return Ok(true) };
        Ok(self.could_read(&under, then.clone()).await? && self.of_latest(&under, &then.model, &then.id).await?)
    }

    /// The current state of the record, or the state at its deletion.
    async fn of_latest(&mut self, under: &Under, model: &str, id: &str) -> Result<bool> {
        if self.latest.is_none() {
            return self.find_latest(under, model, id).await;
        }
        let key = (model.to_owned(), id.to_owned(), under.until);
        if let Some(known) = self.latest.as_ref().and_then(|latest| latest.get(&key)) {
            return Ok(*known);
        }
        let is_visible = self.find_latest(under, model, id).await?;
        if let Some(latest) = self.latest.as_mut().filter(|latest| latest.len() < LATEST_MAX) {
            latest.insert(key, is_visible);
        }
        Ok(is_visible)
    }

    async fn find_latest(&mut self, under: &Under, model: &str, id: &str) -> Result<bool> {
        if under.is_current
            && let Some(instance) = self.core.stores.model.get(model, id).await?
        {
            return self.may_read(under, &instance);
        }
        let last = self.core.stores.event.last(&Stream::of_instance(model, id), Position::MAX).await?;
        let Some(last) = last else { return Ok(false) };
        match self.shown_by(&last).await? {
            Some(state) => self.could_read(under, state).await,
            None => Ok(false),
        }
    }

    /// The state shown by an event.
    async fn shown_by(&self, event: &Event) -> Result<Option<Instance>> {
        if !event.kind.ends_stream() {
            return revisions::left_by(&self.core, event.clone()).await;
        }
        match self.core.stores.event.last_but(&event.stream(), event.position, 1).await? {
            Some(before) => revisions::left_by(&self.core, before).await,
            None => Ok(None),
        }
    }

    /// The same for a state from the log, whose data has the form of that time.
    async fn could_read(&mut self, under: &Under, mut state: Instance) -> Result<bool> {
        if under.version != state.model_version {
            let key = (state.model.clone(), under.until);
            if !self.changes.contains_key(&key) {
                let changes = Changes::read(&*self.core.stores.event, &state.model, 0, under.until).await?;
                if self.changes.len() >= PAST_MODELS_MAX {
                    self.changes.clear();
                }
                self.changes.insert(key.clone(), changes);
            }
            if let Some(changes) = self.changes.get(&key) {
                state.data = changes.carry(state.data, state.position);
            }
        }
        self.may_read(under, &state)
    }

    fn may_read(&self, under: &Under, state: &Instance) -> Result<bool> {
        let Some(subject) = self.right.subject() else { return Ok(true) };
        let memory = self.core.own_memory.lease();
        memory.grow(tree_bytes(state.data.as_bytes()))?;
        let Ok(tree) = state.data.to_value() else { return Ok(false) };
        Ok(under.rules.may_read(subject, time::now(), state, &tree))
    }

    /// `None`: no rules.
    async fn rules(&mut self, model: &str, position: Position, at: time::Millis) -> Result<Option<Under>> {
        if let Some(entry) = self.core.models.get(model)
            && self.is_of_this_life(&entry.model, position, at).await?
        {
            let (version, until) = (entry.model.record.version, entry.model.record.position + 1);
            let under = |rules| Under { rules, version, until, is_current: true };
            return Ok(entry.model.rules.clone().map(under));
        }
        let Some(definition) = self.definition(model, position).await? else { return Ok(None) };
        let (version, until) = (definition.revision, definition.position + 1);
        let under = |rules| Under { rules, version, until, is_current: false };
        let key = (model.to_owned(), definition.position);
        if let Some(rules) = self.past.get(&key) {
            return Ok(rules.clone().map(under));
        }
        let record = DefinitionChange::from_event(&definition)?.definition;
        let rules = match record.rules {
            None => None,
            Some(_) => Model::from_record(record).map_err(|error| Error::new(ErrorKind::Storage, error))?.rules,
        };
        if self.past.len() >= PAST_MODELS_MAX {
            self.past.clear();
        }
        self.past.insert(key, rules.clone());
        Ok(rules.map(under))
    }

    /// Whether an event belongs to the current model, and not to a deleted one of the same name. The log's times never
    /// go back.
    async fn is_of_this_life(&self, model: &Model, position: Position, at: time::Millis) -> Result<bool> {
        if at != model.record.created_at {
            return Ok(at > model.record.created_at);
        }
        let (events, stream) = (&*self.core.stores.event, Stream::of_model(model.record.id.as_str()));
        let Some(last) = events.last(&stream, Position::MAX).await? else { return Ok(false) };
        let created = revisions::at(events, &stream, last, 1).await?;
        Ok(created.is_some_and(|created| created.position < position))
    }

    /// The last definition of a model at a position.
    async fn definition(&self, model: &str, position: Position) -> Result<Option<Event>> {
        let stream = Stream::of_model(model);
        let mut event = self.core.stores.event.last(&stream, position).await?;
        while let Some(found) = event.take_if(|event| !changes_definition(event.kind)) {
            event = self.core.stores.event.last_but(&stream, found.position, 1).await?;
        }
        Ok(event)
    }
}
