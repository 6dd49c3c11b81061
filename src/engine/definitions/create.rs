//! A new model.

use std::collections::BTreeMap;
use std::sync::Arc;

use snaphook_driver::{CarryOver, EventKind, Expected, Holder, time};

use super::Definitions;
use super::define::{Defining, NewDefinition};
use super::event::definition_append;
use super::faults::{changed, check_precondition};
use crate::catalog::{FieldError, Model, ModelRecord, Referenced, is_model_id, unique};
use crate::engine::change::DefinitionChange;
use crate::engine::command::{Defined, DryRun, ModelInput, Origin, Precondition, WriteOptions};
use crate::engine::error::{Error, ErrorKind, Result};
use crate::engine::idempotency::{IdempotencyKey, first_event};

impl Definitions {
    /// Creates a model at version 1. `exists` if there is one.
    pub async fn create(
        &self,
        id: &str,
        input: ModelInput,
        options: &WriteOptions,
        origin: &Origin,
    ) -> Result<Defined<Arc<Model>>> {
        self.core.availability.check_model(id)?;
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
                "`If-Match` cannot match for a model that is to be created",
            ));
        }
        let definition = self.compile(id, &input).await?;
        self.check_references(id, &definition)?;
        if !options.dry_run {
            self.tell_targets(id, &definition.references, origin).await?;
        }
        let key = options.idempotency_key.as_ref().map(|key| IdempotencyKey::of_model(id, key, &input, origin));
        // Two requests with one key may name different models. No model has an empty id.
        let same_key = match key {
            Some(_) => Some(self.lock_model("").await?),
            None => None,
        };
        let one = self.lock_model(id).await?;
        self.core.availability.check_model(id)?;
        let mut replaces = None;
        if let Some(key) = &key
            && let Some(holder) = self.core.stores.event.holder(&key.claim).await?
        {
            match self.first_model(key, &holder).await? {
                Some(model) => return Ok(Defined::unchanged(options, Arc::new(model))),
                None => replaces = Some(holder.position),
            }
        }
        if let Some(entry) = self.core.models.get(id) {
            check_precondition(&entry, &options.precondition)?;
            return Err(Error::new(ErrorKind::Exists, format!("the model `{id}` already exists; PUT changes it")));
        }
        let refers_to_itself = definition.references.iter().any(|reference| reference.model == id);
        let referenced = refers_to_itself.then(|| Referenced::with(None, id)).transpose();
        let now = time::now();
        let record = ModelRecord {
            id: id.to_owned(),
            version: 1,
            schema: definition.schema.text.clone(),
            indexes: definition.indexes.clone(),
            unique: definition.unique.clone(),
            unique_ids: definition.unique.iter().map(|_| unique::new_id()).collect(),
            references: definition.references.clone(),
            referenced: referenced.map_err(|message| Error::new(ErrorKind::Invalid, message))?,
            rules: definition.rules.as_ref().map(|(rules, _)| rules.clone()),
            hooks: BTreeMap::new(),
            hooked_since: BTreeMap::new(),
            position: 0,
            created_at: now,
            updated_at: now,
        };
        let change =
            DefinitionChange { definition: record.clone(), renames: Vec::new(), phase: None, is_target: false };
        let mut append = definition_append(EventKind::ModelCreated, &record, &change, Expected::New, origin)?;
        if options.dry_run {
            return Ok(Defined::DryRun(DryRun::unhooked(Some(append.event))));
        }
        append.claims.extend(key.map(|key| key.claim(replaces)));
        append.requires.extend(self.require_targets(id, &definition.references)?);
        let schema = Arc::clone(&definition.schema);
        let definitions = self.clone();
        let define = async move {
            let _locks = (same_key, one);
            let id = append.event.model.clone();
            match definitions.define(NewDefinition { append, schema, carry: CarryOver::default(), ready: None }).await?
            {
                Defining::Done(model) => Ok(model),
                // A model that it refers to was changed meanwhile.
                Defining::NotQuiet(_) => Err(changed(&id)),
            }
        };
        self.core.commit(define).await.map(Defined::Done)
    }

    /// The model that the first request with this key created; `None` if the key is free again.
    async fn first_model(&self, key: &IdempotencyKey, holder: &Holder) -> Result<Option<Model>> {
        let Some(event) =
            first_event(&*self.core.stores.event, &self.core.tail, &self.core.metrics, key, holder).await?
        else {
            return Ok(None);
        };
        let record = DefinitionChange::from_event(&event)?.definition;
        Model::from_record(record).map(Some).map_err(|error| Error::new(ErrorKind::Storage, error))
    }
}
