//! What hooks may do to the server's data: the same commands and questions as everybody's.

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use snaphook_driver::{Event, EventFilter, EventQuery, Instance, InstancePage, Json, Position};

use super::Engine;
use super::command::{Change, Origin, Precondition, WriteOptions, Written};
use super::delivery::DEPTH_MAX;
use super::error::{Error, ErrorKind};
use crate::catalog::query;
use crate::hooks::access::{Access, AccessCode, AccessError, Writer};
use crate::memory::tree_bytes;

/// The engine, as the hook host sees it.
pub(super) struct EngineAccess(pub(super) Weak<Engine>);

impl EngineAccess {
    fn engine(&self) -> Result<Arc<Engine>, AccessError> {
        self.0.upgrade().ok_or_else(|| AccessError::new(AccessCode::Failed, "the server is stopping"))
    }

    async fn write(
        &self,
        writer: &Writer,
        model: &str,
        change: Change,
        precondition: Precondition,
    ) -> Result<Instance, AccessError> {
        let engine = self.engine()?;
        if writer.cause.depth > DEPTH_MAX {
            return Err(AccessError::new(AccessCode::Failed, engine.cycle(writer).await));
        }
        let origin = Origin {
            actor: Some(writer.actor.clone()),
            request_id: writer.request_id.clone(),
            cause: Some(writer.cause.clone()),
        };
        let options = WriteOptions { precondition, ..WriteOptions::default() };
        // A client's body is counted where it is read; this one came another way.
        let lease = engine.own_memory.lease();
        if let Change::Create { data, .. } | Change::Replace { data, .. } = &change {
            lease.grow(data.len() + tree_bytes(data.as_bytes())).map_err(Error::from)?;
        }
        match engine.write(model, change, &options, &origin).await? {
            Written::Created(instance) | Written::Updated(instance) | Written::Deleted(instance) => Ok(instance),
            Written::DryRun(_) => Err(AccessError::new(AccessCode::Failed, "the change was only tried")),
        }
    }
}

#[async_trait]
impl Access for EngineAccess {
    async fn get(&self, model: &str, id: &str) -> Result<Option<Instance>, AccessError> {
        match self.engine()?.get(model, id).await {
            Ok(instance) => Ok(Some(instance)),
            Err(error) if error.kind == ErrorKind::NotFound && self.engine()?.model(model).is_ok() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn query(&self, model: &str, text: &str) -> Result<InstancePage, AccessError> {
        let input = query::from_json(text).map_err(|message| AccessError::new(AccessCode::Invalid, message))?;
        Ok(self.engine()?.query(model, &input).await?)
    }

    async fn event(&self, position: Position) -> Result<Option<Event>, AccessError> {
        let Some(after) = position.checked_sub(1) else { return Ok(None) };
        let query = EventQuery { after, limit: 1, filter: EventFilter::default() };
        let page = self.engine()?.events(&query).await?;
        Ok(page.events.into_iter().find(|event| event.position == position))
    }

    async fn create(
        &self,
        writer: &Writer,
        model: &str,
        id: Option<&str>,
        data: &str,
    ) -> Result<Instance, AccessError> {
        let change = Change::Create { id: id.map(str::to_owned), data: Json::trusted(data) };
        self.write(writer, model, change, Precondition::None).await
    }

    async fn update(
        &self,
        writer: &Writer,
        model: &str,
        id: &str,
        data: &str,
        expected: Option<Position>,
    ) -> Result<Instance, AccessError> {
        let change = Change::Replace { id: id.to_owned(), data: Json::trusted(data), create: false };
        self.write(writer, model, change, at(expected)).await
    }

    async fn delete(
        &self,
        writer: &Writer,
        model: &str,
        id: &str,
        expected: Option<Position>,
    ) -> Result<Instance, AccessError> {
        self.write(writer, model, Change::Delete { id: id.to_owned() }, at(expected)).await
    }

    async fn secret(&self, name: &str) -> Result<Option<Vec<u8>>, AccessError> {
        let secret = self.engine()?.stores.vault.get(name).await;
        let secret = secret.map_err(|error| AccessError::new(AccessCode::Failed, error.to_string()))?;
        Ok(secret.map(|secret| secret.expose().to_vec()))
    }
}

fn at(expected: Option<Position>) -> Precondition {
    expected.map_or(Precondition::None, |position| Precondition::At(vec![position]))
}

impl From<Error> for AccessError {
    fn from(error: Error) -> Self {
        let code = match error.kind {
            ErrorKind::NotFound | ErrorKind::PositionUnknown => AccessCode::NotFound,
            ErrorKind::Exists | ErrorKind::NotUnique => AccessCode::Exists,
            ErrorKind::Conflict | ErrorKind::PreconditionFailed | ErrorKind::ModelInUse | ErrorKind::KeyReused => {
                AccessCode::Conflict
            }
            ErrorKind::BadRequest | ErrorKind::Invalid | ErrorKind::Incompatible | ErrorKind::TooComplex => {
                AccessCode::Invalid
            }
            ErrorKind::Rejected => AccessCode::Rejected,
            ErrorKind::TooLarge => AccessCode::TooLarge,
            ErrorKind::HookFailed | ErrorKind::Overloaded | ErrorKind::Unavailable | ErrorKind::Storage => {
                AccessCode::Failed
            }
        };
        let mut message = error.detail;
        for field in error.errors.iter().take(5) {
            message.push_str(&format!("; {} {}", field.pointer, field.message));
        }
        AccessError { code, message }
    }
}

impl Engine {
    /// Spells out the loop that a chain of causes runs in.
    async fn cycle(&self, writer: &Writer) -> String {
        let mut hooks = vec![place(&writer.cause.hook)];
        let mut position = writer.cause.position;
        // The chain is as long as its depth says, so this ends.
        for _ in 0..writer.cause.depth {
            let query = EventQuery { after: position.saturating_sub(1), limit: 1, filter: EventFilter::default() };
            let Ok(page) = self.stores.event.read(&query, None).await else { break };
            let Some(cause) = page.events.into_iter().find_map(|event| event.cause) else { break };
            hooks.push(place(&cause.hook));
            position = cause.position;
        }
        hooks.reverse();
        // From the last time that the newest hook ran before.
        let newest = hooks.len() - 1;
        let start = hooks[..newest].iter().rposition(|hook| *hook == hooks[newest]).unwrap_or(0);
        format!(
            "hooks set each other off {DEPTH_MAX} times in a row, so this write is refused: {}; let one of them look at `actor` or at the data before it writes",
            hooks[start..].join(" > ")
        )
    }
}

/// `invoice.postCreate` of `invoice.postCreate/mail`.
fn place(hook: &str) -> String {
    hook.split('/').next().unwrap_or(hook).to_owned()
}
