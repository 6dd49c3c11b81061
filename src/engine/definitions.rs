//! Changes of models: made, changed, deleted. Instances must fit at the very moment of the change.
//!
//! A change is checked against all instances first, while writes go on; then, alone on the committer's thread, only
//! against those that changed meanwhile, so that writers wait for a short time whatever the size of the model.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use snaphook_driver::time;
use snaphook_driver::{
    Append, CarryOver, Claim, Conflict, Event, EventFilter, EventKind, EventQuery, Expected, Holder, Instance,
    InstanceQuery, Position, Stream,
};

use super::Engine;
use super::change::DefinitionChange;
use super::command::{Defined, DryRun, ModelInput, Origin, Precondition, WriteOptions};
use super::committer::Writer;
use super::error::{Error, ErrorKind, Result};
use super::models::{Entry, Ready};
use super::troubles::guarded;
use super::workers::{Workers, late};
use super::write::{is_remembered, model_key, not_unique};
use crate::catalog::document::Document;
use crate::catalog::{
    Definition, DefinitionError, Effort, FieldError, Model, ModelRecord, Unfit, change_of, is_model_id, on_large_stack,
    unique,
};
use crate::hooks::host::HookHost;

/// Instances that do not fit and are listed.
const LISTED_MAX: usize = 20;
/// Instances that are read at once.
const PAGE: u32 = 1000;
/// Time that checking the instances of a model may take, and more for each of them.
const REVIEW_TIME: Duration = Duration::from_secs(3);
const REVIEW_TIME_EACH: Duration = Duration::from_micros(500);
/// Time for one instance that changed while the others were checked.
const CHANGED_MEANWHILE_TIME: Duration = Duration::from_millis(200);
/// Instances that are deleted at once with their model.
const DELETED_AT_ONCE: u32 = if cfg!(test) { 10 } else { 1000 };

impl Engine {
    /// Makes a model at version 1. `exists` if it is there.
    pub async fn create_model(
        &self,
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
        let _one = self.definitions.lock().await;
        let claim_key = options.idempotency_key.as_ref().map(|key| model_key(key));
        let mut replaces = None;
        if let Some(key) = &claim_key
            && let Some(holder) = self.stores.event.holder(key).await?
        {
            match self.first_model(&holder).await? {
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
        append.claims.extend(claim_key.map(|key| Claim { key, holder: None, replaces }));
        let host = Arc::clone(&self.host);
        let model = Model::with_definition(record, &definition);
        self.committer
            .exclusive(move |writer| writer.define(append, model, &host, Step::default()))
            .await?
            .map(Defined::Done)
    }

    /// The model that an idempotency key made; `None` if the key is too old.
    async fn first_model(&self, holder: &Holder) -> Result<Option<Model>> {
        let event = self.stores.event.last(&holder.stream, holder.position).await?;
        let Some(event) = event.filter(is_remembered) else { return Ok(None) };
        let record = DefinitionChange::from_event(&event)?.definition;
        Model::from_record(record).map(Some).map_err(|error| Error::new(ErrorKind::Storage, error))
    }

    /// Makes the next version of a model; the same definition again changes nothing.
    pub async fn update_model(
        &self,
        id: &str,
        input: ModelInput,
        options: &WriteOptions,
        origin: &Origin,
    ) -> Result<Defined<Arc<Model>>> {
        self.availability.check_model(id)?;
        self.models.require(id)?;
        let definition = self.compile(id, &input).await?;
        let _one = self.definitions.lock().await;
        let entry = self.models.require(id)?;
        check_precondition(&entry, &options.precondition)?;
        let old = &entry.model;
        if definition.same_as(&old.record) && self.are_renamed(id, &input.renames).await? {
            return Ok(Defined::unchanged(options, Arc::clone(old)));
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
        let new = Model::with_definition(record.clone(), &definition);
        let head = self.tail.head();
        let review = Review::new(Arc::clone(old), new.clone(), carry.clone());
        let mut review = review.all(&*self.stores.model, &self.workers).await?;
        review.verdict()?;
        let change = DefinitionChange { definition: record.clone(), renames: input.renames.clone(), phase: None };
        let expected = Expected::At(old.record.position);
        let mut append = definition_append(EventKind::ModelUpdated, &record, &change, expected, origin)?;
        if options.dry_run {
            review.look_for_twins();
            review.verdict()?;
            return Ok(Defined::DryRun(DryRun::unhooked(Some(append.event))));
        }
        let host = Arc::clone(&self.host);
        self.committer
            .exclusive(move |writer| {
                writer.catch_up()?;
                writer.runtime.block_on(review.since(&*writer.events, &*writer.store, head))?;
                review.look_for_twins();
                review.verdict()?;
                (append.claims, append.releases) = review.claims();
                let step = Step { old: Some(&entry), carry, ..Step::default() };
                writer.define(append, new, &host, step)
            })
            .await?
            .map(Defined::Done)
    }

    /// Checks and compiles a definition, when it is the model's turn.
    async fn compile(&self, model: &str, input: &ModelInput) -> Result<Definition> {
        let input = input.clone();
        let work = move |effort: &Effort| Definition::new_within(&input, effort);
        self.workers.run(model, work).await?.map_err(refused)
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
                EventKind::HookUpdated | EventKind::HookDeleted | EventKind::ModelEventSkipped => {
                    at_most = event.position - 1
                }
                EventKind::ModelUpdated => return Ok(DefinitionChange::from_event(&event)?.renames == renames),
                _ => break,
            }
        }
        Ok(false)
    }

    /// Deletes a model. With `cascade` its instances are deleted first, each with an event; no hook runs for them.
    pub async fn delete_model(
        &self,
        id: &str,
        cascade: bool,
        options: &WriteOptions,
        origin: &Origin,
    ) -> Result<Defined<()>> {
        self.check_available()?;
        let _one = self.definitions.lock().await;
        if let Some(stuck) = self.availability.stuck(id) {
            return self.delete_stuck(&stuck, cascade, options, origin).await;
        }
        let entry = self.models.require(id)?;
        check_precondition(&entry, &options.precondition)?;
        if options.dry_run {
            if !cascade {
                check_unused(id, self.stores.model.count(id, &[]).await?)?;
            }
            let append = deletion(&entry.model.record, origin)?;
            return Ok(Defined::DryRun(DryRun::unhooked(Some(append.event))));
        }
        let origin = origin.clone();
        let _closed = cascade.then(|| entry.close());
        // Page by page, so that other models are written to meanwhile.
        let mut more = cascade;
        while more {
            let (entry, origin) = (Arc::clone(&entry), origin.clone());
            more = self.committer.exclusive(move |writer| writer.delete_page(&entry.model, &origin)).await??;
        }
        self.committer.exclusive(move |writer| writer.delete_model(&entry, cascade, &origin)).await??;
        // Post hooks that did not run yet have no model any more.
        self.dispatcher.forget(id).await;
        Ok(Defined::Done(()))
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
    Ok(Append {
        event: Event {
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
        },
        expected,
        requires: Vec::new(),
        claims: Vec::new(),
        releases: Vec::new(),
    })
}

fn deletion(record: &ModelRecord, origin: &Origin) -> Result<Append> {
    let change = DefinitionChange { definition: record.clone(), renames: Vec::new(), phase: None };
    let expected = Expected::At(record.position);
    let mut append = definition_append(EventKind::ModelDeleted, record, &change, expected, origin)?;
    append.event.data = None;
    Ok(append)
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
        Precondition::At(expected) if !expected.contains(&record.position) => Err(Error::new(
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

/// Checks every instance of a model against a new definition, and keeps the unique keys that change hands.
struct Review {
    old: Arc<Model>,
    new: Model,
    carry: CarryOver,
    misfits: BTreeMap<String, String>,
    /// The keys that each instance needs. Empty if no `unique` list changed.
    keys: BTreeMap<String, Vec<unique::UniqueKey>>,
    releases: Vec<String>,
    /// Whether keys have to be looked at at all.
    keys_change: bool,
    /// Whether instances have to be looked at at all.
    data_change: bool,
    /// Time that was spent on looking, and how many instances were looked at.
    spent: Duration,
    looked_at: u32,
}

impl Review {
    fn new(old: Arc<Model>, new: Model, carry: CarryOver) -> Review {
        // A default may give an instance a value that it did not have.
        let unique = |name: &String| new.record.unique.iter().flatten().any(|property| property == name);
        let keys_change = old.record.unique != new.record.unique
            || !carry.renames.is_empty()
            || carry.defaults.iter().any(|(name, _)| unique(name));
        let data_change = old.record.schema != new.record.schema;
        Review {
            old,
            new,
            carry,
            misfits: BTreeMap::new(),
            keys: BTreeMap::new(),
            releases: Vec::new(),
            keys_change,
            data_change,
            spent: Duration::ZERO,
            looked_at: 0,
        }
    }

    /// Looks at every instance, a page at a time when it is the model's turn.
    async fn all(mut self, store: &dyn snaphook_driver::ModelStore, workers: &Workers) -> Result<Review> {
        if !self.keys_change && !self.data_change {
            return Ok(self);
        }
        let model = self.old.record.id.clone();
        let mut query = InstanceQuery { limit: PAGE, ..InstanceQuery::default() };
        loop {
            let page = store.query(&model, &query).await?;
            let look = move |effort: &Effort| {
                for instance in &page.items {
                    self.look(instance, effort)?;
                }
                Ok::<_, Error>(self)
            };
            self = workers.run(&model, look).await??;
            match page.next {
                Some(next) => query.cursor = Some(next),
                None => return Ok(self),
            }
        }
    }

    /// Looks again at those that changed after `head`; nothing changes while this runs.
    async fn since(
        &mut self,
        events: &dyn snaphook_driver::EventStore,
        store: &dyn snaphook_driver::ModelStore,
        head: Position,
    ) -> Result<()> {
        let model = self.old.record.id.clone();
        let filter = EventFilter { model: Some(model.clone()), ..EventFilter::default() };
        let mut query = EventQuery { after: head, limit: PAGE, filter };
        loop {
            let page = events.read(&query, None).await?;
            let Some(last) = page.events.last() else { return Ok(()) };
            query.after = last.position;
            let changed: std::collections::BTreeSet<&String> =
                page.events.iter().filter_map(|event| event.instance.as_ref()).collect();
            for id in changed {
                self.misfits.remove(id);
                self.keys.remove(id);
                if let Some(instance) = store.get(&model, id).await? {
                    // The committer waits meanwhile, and with it every model.
                    let until = Instant::now() + CHANGED_MEANWHILE_TIME;
                    on_large_stack(|| self.look(&instance, &Effort::whole(Some(until), None)))?;
                }
            }
        }
    }

    fn look(&mut self, instance: &Instance, effort: &Effort) -> Result<()> {
        let started = Instant::now();
        self.compare(instance, effort)?;
        self.spent += started.elapsed();
        self.looked_at += 1;
        if self.spent > REVIEW_TIME + REVIEW_TIME_EACH * self.looked_at {
            return Err(Error::new(
                ErrorKind::TooComplex,
                format!(
                    "checking the instances of `{}` against the new schema takes too long: {} of them took {} ms; make the schema simpler",
                    self.old.record.id,
                    self.looked_at,
                    self.spent.as_millis()
                ),
            ));
        }
        Ok(())
    }

    fn compare(&mut self, instance: &Instance, effort: &Effort) -> Result<()> {
        let unreadable = |error: String| {
            Error::new(ErrorKind::Storage, format!("`{}/{}` cannot be read: {error}", instance.model, instance.id))
        };
        let mut value = Document::parse(&instance.data).map_err(|error| unreadable(error.to_string()))?.value;
        if self.keys_change {
            let keys = unique::keys(&self.old.record.id, &self.old.record.unique, &value);
            self.releases.extend(keys.into_iter().map(|key| key.key));
        }
        if let Some(data) = value.as_object_mut() {
            self.carry.apply(data);
        }
        let verdict = if self.data_change { self.new.schema.check(&value, "", effort) } else { Ok(()) };
        let message = match verdict {
            Ok(()) => None,
            Err(Unfit::Errors(errors)) => {
                let messages: Vec<String> =
                    errors.into_iter().take(3).map(|error| format!("{} {}", error.pointer, error.message)).collect();
                Some(messages.join("; ").trim().to_owned())
            }
            Err(Unfit::TooComplex(message)) => Some(message),
            Err(Unfit::Late) => return Err(late()),
        };
        if let Some(message) = message
            && self.misfits.len() < LISTED_MAX
        {
            self.misfits.insert(instance.id.clone(), message);
        }
        if self.keys_change {
            let keys = unique::keys(&self.new.record.id, &self.new.record.unique, &value);
            self.keys.insert(instance.id.clone(), keys);
        }
        Ok(())
    }

    /// Whether two instances need the same key. Only once nothing changes any more: until then their values may be
    /// of different moments.
    fn look_for_twins(&mut self) {
        let mut holders: HashMap<&str, &str> = HashMap::new();
        for (id, keys) in &self.keys {
            for key in keys {
                if let Some(other) = holders.insert(&key.key, id)
                    && self.misfits.len() < LISTED_MAX
                {
                    let names = key.properties.join(", ");
                    let message = format!("has the same value of {names} as `{other}`, which `unique` forbids");
                    self.misfits.insert(id.clone(), message);
                }
            }
        }
    }

    /// `incompatible` if instances do not fit.
    fn verdict(&self) -> Result<()> {
        if self.misfits.is_empty() {
            return Ok(());
        }
        let model = &self.old.record.id;
        let errors = self
            .misfits
            .iter()
            .map(|(id, message)| FieldError { pointer: format!("/instances/{id}"), message: message.clone() })
            .collect();
        Err(Error::new(
            ErrorKind::Incompatible,
            format!(
                "instances of `{model}` do not fit the new version, the first {} are listed; change them first, or the schema",
                self.misfits.len()
            ),
        )
        .with_errors(errors))
    }

    /// Keys to take and to give back with the change.
    fn claims(&mut self) -> (Vec<Claim>, Vec<String>) {
        let model = &self.old.record.id;
        let claims: Vec<Claim> = std::mem::take(&mut self.keys)
            .into_iter()
            .flat_map(|(id, keys)| keys.into_iter().map(move |key| (id.clone(), key.key)))
            .map(|(id, key)| Claim { key, holder: Some(Stream::of_instance(model, &id)), replaces: None })
            .collect();
        let claimed: HashSet<&str> = claims.iter().map(|claim| claim.key.as_str()).collect();
        let releases =
            std::mem::take(&mut self.releases).into_iter().filter(|key| !claimed.contains(key.as_str())).collect();
        (claims, releases)
    }
}

/// How a definition follows the one before it.
#[derive(Default)]
pub(super) struct Step<'a> {
    pub(super) old: Option<&'a Entry>,
    pub(super) carry: CarryOver,
    /// The consumer group of post hooks, if the model gets its first.
    pub(super) group: Option<&'a snaphook_driver::Group>,
    pub(super) ready: Option<&'a Ready>,
}

impl Writer {
    /// Appends the event of a definition, changes the model store, puts the model in use, tells listeners.
    pub(super) fn define(
        &mut self,
        append: Append,
        mut model: Model,
        host: &HookHost,
        step: Step<'_>,
    ) -> Result<Arc<Model>> {
        let Step { old, carry, group, ready } = step;
        self.catch_up()?;
        let id = model.record.id.clone();
        self.availability.check_model(&id)?;
        let mut appends = [append];
        let result = self.append(&mut appends)?.pop();
        let committed = match result {
            Some(Ok(committed)) => committed,
            Some(Err(Conflict::Claimed { key, holder })) => return Err(not_unique(&key, &holder)),
            _ => {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    format!("model `{id}` was changed by somebody else meanwhile; read it again"),
                ));
            }
        };
        let [append] = appends;
        model.record.settle(committed.position);
        model.record.updated_at = committed.time;
        if append.event.kind == EventKind::ModelCreated {
            model.record.created_at = committed.time;
        }
        let old_shape = old.map(|entry| entry.model.shape());
        let new_shape = model.shape();
        let defined = self.store.define(old_shape.as_ref(), &new_shape, &carry, committed.position);
        let defined = self.runtime.block_on(guarded("define", defined));
        self.check_applied(defined);
        if let Some(group) = group
            && let Err(error) = self.runtime.block_on(self.events.create_group(group, committed.position))
        {
            // The dispatcher makes it when it next looks.
            tracing::error!(group = group.name, "a consumer group could not be made yet: {error}");
        }
        let model = Arc::new(model);
        self.models.put(Arc::new(Entry::new(Arc::clone(&model), host, old, ready)));
        let event = Event { position: committed.position, ..append.event };
        self.tail.publish(std::iter::once(Arc::new(event)));
        Ok(model)
    }

    fn delete_model(&mut self, entry: &Entry, cascade: bool, origin: &Origin) -> Result<()> {
        self.catch_up()?;
        let record = &entry.model.record;
        self.availability.check_model(&record.id)?;
        if cascade {
            // What was on its way when the model was closed.
            while self.delete_page(&entry.model, origin)? {}
        } else {
            check_unused(&record.id, self.runtime.block_on(self.store.count(&record.id, &[]))?)?;
        }
        let mut appends = [deletion(record, origin)?];
        let Some(Ok(committed)) = self.append(&mut appends)?.pop() else {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!("model `{}` was changed by somebody else meanwhile; read it again", record.id),
            ));
        };
        let dropped = self.store.drop_model(&record.id, committed.position);
        let dropped = self.runtime.block_on(guarded("drop_model", dropped));
        self.check_applied(dropped);
        self.models.remove(&record.id);
        let [append] = appends;
        self.tail.publish(std::iter::once(Arc::new(Event { position: committed.position, ..append.event })));
        Ok(())
    }

    /// Deletes some instances; `false` if there are none left.
    fn delete_page(&mut self, model: &Model, origin: &Origin) -> Result<bool> {
        self.catch_up()?;
        let record = &model.record;
        let query = InstanceQuery { limit: DELETED_AT_ONCE, ..InstanceQuery::default() };
        let page = self.runtime.block_on(self.store.query(&record.id, &query))?;
        if page.items.is_empty() {
            return Ok(false);
        }
        let mut appends: Vec<Append> =
            page.items.into_iter().map(|instance| instance_deletion(record, instance, origin)).collect();
        let results = self.append(&mut appends)?;
        let mut events = Vec::with_capacity(appends.len());
        let mut conflict = false;
        for (append, result) in appends.into_iter().zip(results) {
            match result {
                Ok(committed) => events.push(Event { position: committed.position, ..append.event }),
                Err(_) => conflict = true,
            }
        }
        // Those that are deleted are so whatever became of the others.
        self.apply(events);
        self.catch_up()?;
        if conflict {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!("an instance of `{}` was changed by somebody else meanwhile; try again", record.id),
            ));
        }
        Ok(true)
    }
}

/// The end of an instance whose model ends. No hook sees it.
fn instance_deletion(record: &ModelRecord, instance: Instance, origin: &Origin) -> Append {
    let value = instance.data.to_value().unwrap_or_default();
    let keys = unique::keys(&record.id, &record.unique, &value);
    Append {
        event: Event {
            position: 0,
            id: uuid::Uuid::now_v7().to_string(),
            kind: EventKind::InstanceDeleted,
            model: record.id.clone(),
            model_version: record.version,
            instance: Some(instance.id),
            revision: instance.revision + 1,
            data: None,
            actor: origin.actor.clone(),
            cause: origin.cause.clone(),
            hooks: Vec::new(),
            request_id: origin.request_id.clone(),
            time: 0,
        },
        expected: Expected::At(instance.position),
        requires: Vec::new(),
        claims: Vec::new(),
        releases: keys.into_iter().map(|key| key.key).collect(),
    }
}
