//! Keeps references consistent: the target of each new one exists and is not deleted concurrently, and nobody begins to
//! refer to an instance that is about to be deleted. Both are claims of the event; see [`crate::catalog::references`].

use std::sync::Arc;

use serde_json::Value;
use snaphook_driver::Append;

use super::Writes;
use crate::catalog::rules::Right;
use crate::catalog::{FieldError, ModelRecord, escape_token, is_instance_id};
use crate::engine::ahead::Ahead;
use crate::engine::error::{Error, ErrorKind, Result, stopped};
use crate::engine::models::LiveModel;
use crate::engine::reads::may_read;
use crate::engine::referring::{referring, target as refers_to};

/// An instance that does not exist for the caller. Pre hooks may still refer to it.
pub(super) struct Hidden {
    model: String,
    id: String,
}

impl Writes {
    /// The targets in the data that exist, but not for the caller.
    pub(super) async fn hidden_targets(
        &self,
        record: &ModelRecord,
        right: &Right,
        data: Option<&Value>,
        ahead: Option<&Arc<Ahead>>,
    ) -> Result<Vec<Hidden>> {
        let mut hidden = Vec::new();
        let (Some(_), Some(data)) = (right.subject(), data) else { return Ok(hidden) };
        for reference in &record.references {
            let Some(id) = refers_to(reference, data).filter(|id| is_instance_id(id)) else { continue };
            let model = &reference.model;
            if self.core.models.get(model).is_none_or(|entry| entry.model.rules.is_none()) {
                continue;
            }
            let found = match ahead.and_then(|ahead| ahead.of(model, id)) {
                Some(changed) => changed,
                None => self.core.stores.model.get(model, id).await?,
            };
            if let Some(found) = found
                && !may_read(&self.core, &found, right)?
            {
                hidden.push(Hidden { model: model.clone(), id: id.to_owned() });
            }
        }
        Ok(hidden)
    }

    /// Rejects new references to missing or hidden targets; takes the target keys of existing ones. `before` is the
    /// current data of the instance.
    #[expect(clippy::too_many_arguments, reason = "each is a part of one change, and there is one caller")]
    pub(super) async fn claim_targets(
        &self,
        entry: &LiveModel,
        append: &mut Append,
        before: Option<&Value>,
        data: &Value,
        prefix: &str,
        ahead: Option<&Arc<Ahead>>,
        hidden: &[Hidden],
    ) -> Result<()> {
        let mut errors = Vec::new();
        for reference in &entry.model.record.references {
            let Some(target) = refers_to(reference, data) else { continue };
            // A target of an existing reference cannot have been deleted.
            if before.and_then(|before| refers_to(reference, before)) == Some(target) {
                continue;
            }
            let is_own = reference.model == append.event.model && append.event.instance.as_deref() == Some(target);
            if is_own {
                continue;
            }
            let is_hidden = hidden.iter().any(|hidden| hidden.model == reference.model && hidden.id == target);
            if is_hidden || !self.exists(&reference.model, target, ahead).await? {
                errors.push(FieldError {
                    pointer: format!("{prefix}/{}", escape_token(&reference.property)),
                    message: format!("there is no `{}/{}`", reference.model, shown(target)),
                });
                continue;
            }
            let entry = self.core.models.require(&reference.model)?;
            // A model records that others may refer to it before they do.
            let referenced = entry.model.record.referenced.as_ref().ok_or_else(stopped)?;
            let claim = referenced.claim(&reference.model, target);
            if append.claims.iter().all(|known| known.key != claim.key) {
                append.claims.push(claim);
            }
        }
        if errors.is_empty() {
            return Ok(());
        }
        let detail = format!("the data of `{}` refers to instances that do not exist", append.event.model);
        Err(Error::new(ErrorKind::Invalid, detail).with_errors(errors))
    }

    async fn exists(&self, model: &str, id: &str, ahead: Option<&Arc<Ahead>>) -> Result<bool> {
        if !is_instance_id(id) {
            return Ok(false);
        }
        if let Some(changed) = ahead.and_then(|ahead| ahead.of(model, id)) {
            return Ok(changed.is_some());
        }
        self.core.availability.check_model(model)?;
        if self.core.stores.model.get(model, id).await?.is_some() {
            return Ok(true);
        }
        // Another node may have created it a moment ago.
        let head = self.core.stores.event.head().await?;
        if head <= self.core.tail.head() {
            return Ok(false);
        }
        self.core.tail.reached_soon(head).await?;
        Ok(self.core.stores.model.get(model, id).await?.is_some())
    }

    /// Adds claims to the deletion of an instance, so that nobody begins to refer to it from now on, and the models
    /// that may refer to it do not change. Existing references are found after this.
    pub(super) async fn guard_deletion(&self, entry: &LiveModel, append: &mut Append) -> Result<()> {
        let record = &entry.model.record;
        let (Some(referenced), Some(id)) = (&record.referenced, &append.event.instance) else { return Ok(()) };
        let holder = self.core.stores.event.holder(&referenced.key(id)).await?;
        // From then on, the model store has the instances that hold the key.
        self.core.catch_up(holder.as_ref().map_or(0, |holder| holder.position)).await?;
        let others = referring(&self.core, record).await?;
        append.requires.extend(others.into_iter().map(|other| other.require));
        // Released and taken again, so that it changes whoever holds it.
        append.releases.push(referenced.prefix());
        append.claims.extend(referenced.deletion(id, holder.map(|holder| holder.position)));
        Ok(())
    }
}

/// An id from a client, shortened for a message.
fn shown(id: &str) -> String {
    id.chars().take(128).collect::<String>().escape_debug().to_string()
}
