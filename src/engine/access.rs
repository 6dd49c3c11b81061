//! The engine's interface for hooks: the same commands and queries as for clients, and the store of their code.

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use bytes::Bytes;
use snaphook_driver::{Cause, Event, EventFilter, EventQuery, EventStore, Instance, InstancePage, Json, Position};

use super::command::{DEPTH_MAX, InstanceChange, Origin, Precondition, Seen, WriteOptions, Written};
use super::core::Core;
use super::error::{Error, ErrorKind};
use super::history::{History, check_data};
use super::reads;
use super::writes::Writes;
use crate::catalog::query;
use crate::catalog::rules::Right;
use crate::hooks::access::{Access, AccessCode, AccessError, Author, Expected};
use crate::hooks::host::Artifacts;
use crate::memory::tree_bytes;

/// The engine's interface for the hook host. A weak reference, because the engine owns the host.
pub(super) struct EngineAccess(pub(super) Weak<Core>);

impl EngineAccess {
    fn core(&self) -> Result<Arc<Core>, AccessError> {
        self.0.upgrade().ok_or_else(|| AccessError::new(AccessCode::Failed, "the server is stopping"))
    }

    fn history(&self) -> Result<History, AccessError> {
        Ok(History { core: self.core()? })
    }

    /// A hook's expectation, with the model version in which the hook saw the instance. If the hook did not read the
    /// instance, it knows it from the event.
    async fn precondition(&self, expected: Option<Expected>) -> Result<Precondition, AccessError> {
        let Some(Expected { position, mut model_version }) = expected else { return Ok(Precondition::None) };
        if model_version.is_none() {
            model_version = self.event(position, &Right::Server).await?.map(|event| event.model_version);
        }
        // Without an event, no instance is at that position, so the version does not matter.
        let seen = Seen { position, version: model_version.unwrap_or(0) };
        Ok(Precondition::At(vec![seen]))
    }

    async fn write(
        &self,
        author: &Author,
        model: &str,
        change: InstanceChange,
        precondition: Precondition,
    ) -> Result<Instance, AccessError> {
        let writes = Writes { core: self.core()? };
        if let Some(cause) = author.cause.as_ref().filter(|cause| cause.depth > DEPTH_MAX) {
            return Err(AccessError::new(AccessCode::Failed, cycle(&*writes.core.stores.event, cause).await));
        }
        let origin = Origin {
            actor: Some(Arc::clone(&author.actor)),
            request_id: author.request_id.clone(),
            trace: author.trace.clone(),
            cause: author.cause.clone(),
            right: author.right.clone(),
        };
        let options = WriteOptions { precondition, ..WriteOptions::default() };
        // A client's body is counted where it is read, but this body did not come from a client.
        let lease = writes.core.own_memory.lease();
        if let InstanceChange::Create { data, .. } | InstanceChange::Replace { data, .. } = &change {
            lease.grow(data.len() + tree_bytes(data.as_bytes())).map_err(Error::from)?;
        }
        match writes.change(model, change, &options, &origin).await? {
            Written::Created(instance) | Written::Updated(instance) | Written::Deleted(instance) => Ok(instance),
            Written::DryRun(_) => Err(AccessError::new(AccessCode::Failed, "the change was only tried")),
        }
    }
}

#[async_trait]
impl Access for EngineAccess {
    async fn get(&self, model: &str, id: &str, right: &Right) -> Result<Option<Instance>, AccessError> {
        Ok(reads::find(&*self.core()?, model, id, right).await?)
    }

    async fn query(&self, model: &str, text: &str, right: &Right) -> Result<InstancePage, AccessError> {
        let input = query::from_json(text).map_err(|message| AccessError::new(AccessCode::Invalid, message))?;
        Ok(self.history()?.seen_by(right).query(model, &input).await?)
    }

    async fn event(&self, position: Position, right: &Right) -> Result<Option<Event>, AccessError> {
        let Some(after) = position.checked_sub(1) else { return Ok(None) };
        let query = EventQuery { after, limit: 1, filter: EventFilter::default() };
        let history = self.history()?;
        let page = history.events(&query).await?;
        let Some(event) = page.events.into_iter().find(|event| event.position == position) else { return Ok(None) };
        check_data(&event)?;
        Ok(history.visibility(right).of_event(&event).await?.then_some(event))
    }

    async fn create(
        &self,
        author: &Author,
        model: &str,
        id: Option<&str>,
        data: &str,
    ) -> Result<Instance, AccessError> {
        let change = InstanceChange::Create { id: id.map(str::to_owned), data: Json::trusted(data) };
        self.write(author, model, change, Precondition::None).await
    }

    async fn update(
        &self,
        author: &Author,
        model: &str,
        id: &str,
        data: &str,
        expected: Option<Expected>,
    ) -> Result<Instance, AccessError> {
        let change = InstanceChange::Replace { id: id.to_owned(), data: Json::trusted(data), create: false };
        let precondition = self.precondition(expected).await?;
        self.write(author, model, change, precondition).await
    }

    async fn delete(
        &self,
        author: &Author,
        model: &str,
        id: &str,
        expected: Option<Expected>,
    ) -> Result<Instance, AccessError> {
        let precondition = self.precondition(expected).await?;
        self.write(author, model, InstanceChange::Delete { id: id.to_owned() }, precondition).await
    }

    async fn secret(&self, name: &str) -> Result<Option<Vec<u8>>, AccessError> {
        let secret = self.core()?.stores.vault.get(name).await;
        let secret = secret.map_err(|error| AccessError::new(AccessCode::Failed, error.to_string()))?;
        Ok(secret.map(|secret| secret.expose().to_vec()))
    }
}

/// The code of hooks, in the event store.
pub(super) struct StoredArtifacts(pub(super) Arc<dyn EventStore>);

#[async_trait]
impl Artifacts for StoredArtifacts {
    async fn code(&self, artifact: &str) -> std::result::Result<Bytes, String> {
        let sha256 = artifact.strip_prefix("sha256:").unwrap_or(artifact);
        match self.0.get_blob(sha256).await {
            Ok(Some(bytes)) => Ok(bytes.into()),
            Ok(None) => Err(format!("the event store does not have its code `{artifact}`; bind the hook again")),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl From<Error> for AccessError {
    fn from(error: Error) -> Self {
        let code = match error.kind {
            ErrorKind::NotFound | ErrorKind::PositionUnknown => AccessCode::NotFound,
            ErrorKind::Exists | ErrorKind::NotUnique => AccessCode::Exists,
            ErrorKind::Conflict
            | ErrorKind::PreconditionFailed
            | ErrorKind::ModelInUse
            | ErrorKind::Referenced
            | ErrorKind::KeyReused => AccessCode::Conflict,
            ErrorKind::BadRequest | ErrorKind::Invalid | ErrorKind::Incompatible | ErrorKind::TooComplex => {
                AccessCode::Invalid
            }
            ErrorKind::Rejected => AccessCode::Rejected,
            ErrorKind::Forbidden => AccessCode::Denied,
            ErrorKind::TooLarge => AccessCode::TooLarge,
            ErrorKind::HookFailed
            | ErrorKind::NotSupported
            | ErrorKind::Overloaded
            | ErrorKind::Unavailable
            | ErrorKind::Storage => AccessCode::Failed,
        };
        let mut message = error.detail;
        for field in error.errors.iter().take(5) {
            message.push_str(&format!("; {} {}", field.pointer, field.message));
        }
        AccessError { code, message }
    }
}

/// Describes the loop in a chain of causes.
async fn cycle(events: &dyn EventStore, newest: &Cause) -> String {
    let mut hooks = vec![place(&newest.hook)];
    let mut position = newest.position;
    // The chain is as long as its depth says, so this ends.
    for _ in 0..newest.depth {
        let query = EventQuery { after: position.saturating_sub(1), limit: 1, filter: EventFilter::default() };
        let Ok(page) = events.read(&query, None).await else { break };
        let Some(cause) = page.events.into_iter().find_map(|event| event.cause) else { break };
        hooks.push(place(&cause.hook));
        position = cause.position;
    }
    hooks.reverse();
    // From the last time that the newest hook ran before.
    let newest = hooks.len() - 1;
    let start = hooks[..newest].iter().rposition(|hook| *hook == hooks[newest]).unwrap_or(0);
    format!(
        "hooks set each other off {DEPTH_MAX} times in a row, so this write is rejected: {}; let one of them check \
         `actor` or the data before it writes",
        hooks[start..].join(" > ")
    )
}

/// `invoice.postCreate` of `invoice.postCreate/mail`.
fn place(hook: &str) -> String {
    hook.split('/').next().unwrap_or(hook).to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use snaphook_driver::{Actor, ActorKind};

    use super::super::testing::{bench, input};
    use super::*;

    /// A hook gives only a position; the version that it saw at that position decides.
    #[tokio::test]
    async fn data_of_an_old_form_is_not_written_back() {
        let bench = bench().await;
        bench.model("m", input(json!({"name": {}}), &[])).await.unwrap();
        let Written::Created(made) = bench.create("a", json!({"name": "x"})).await.unwrap() else { panic!() };
        let access = EngineAccess(Arc::downgrade(&bench.engine.core));
        let cause = Cause { position: made.position, hook: "m.postCreate/h".to_owned(), depth: 1 };
        let actor = Arc::new(Actor::new(ActorKind::Hook, "h"));
        let author = Author { actor, cause: Some(cause), request_id: None, trace: None, right: Right::Server };
        let update = async |data: &str, model_version: Option<u64>| {
            let expected = Expected { position: made.position, model_version };
            access.update(&author, "m", "a", data, Some(expected)).await
        };
        let mut renamed = input(json!({"title": {}}), &[]);
        renamed.renames = vec![("name".to_owned(), "title".to_owned())];
        bench.update("m", renamed).await.unwrap();
        // Seen in the event, or read before the rename.
        for seen in [None, Some(1)] {
            let error = update(r#"{"name":"y"}"#, seen).await.unwrap_err();
            assert!(error.code == AccessCode::Conflict && error.message.contains("new version"), "{}", error.message);
            assert!(
                access
                    .delete(&author, "m", "a", Some(Expected { position: made.position, model_version: seen }))
                    .await
                    .is_err()
            );
        }
        assert_eq!(bench.data("a").await, r#"{"title":"x"}"#);
        // Read after it.
        update(r#"{"title":"y"}"#, Some(2)).await.unwrap();
        assert_eq!(bench.data("a").await, r#"{"title":"y"}"#);
        // At another position in any case.
        assert!(update("{}", Some(2)).await.is_err());
    }
}
