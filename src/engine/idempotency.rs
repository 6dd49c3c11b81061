//! Idempotency keys: a repeated request gets the first response again.
//!
//! A key is a claim in the event store, taken together with the event of its request, so of two requests in flight at
//! once only one is written. The claim's value is a digest of the request and its actor, and it expires after 24 hours;
//! the store then removes it.

use std::borrow::Cow;
use std::sync::atomic::Ordering;

use sha2::{Digest, Sha256};
use snaphook_driver::time::{self, Millis};
use snaphook_driver::{Claim, Event, EventFilter, EventKind, EventQuery, EventStore, Holder, Instance, Position};

use super::command::{InstanceChange, ModelInput, Origin, Precondition, Written};
use super::error::{Error, ErrorKind, Result};
use super::metrics::Metrics;
use super::tail::Tail;

/// Lifetime of a key, in milliseconds.
const REMEMBERED_MILLIS: Millis = 24 * 60 * 60 * 1000;

const PREFIX: &str = "idempotency ";

/// The key of one request.
#[derive(Clone, Debug)]
pub(super) struct IdempotencyKey {
    /// The key of its claim.
    pub(super) claim: String,
    digest: String,
}

impl IdempotencyKey {
    /// For a change of an instance. `id`: the id in the request, if there is one.
    pub(super) fn of_change(
        model: &str,
        key: &str,
        id: Option<&str>,
        change: &InstanceChange,
        origin: &Origin,
    ) -> Self {
        let (operation, data) = parts(change);
        IdempotencyKey {
            claim: format!("{PREFIX}{model} {key}"),
            digest: digest(origin, &[operation, id.unwrap_or_default(), data]),
        }
    }

    /// For a batch: its operations in order, each with the id in the request and its precondition. No model can have
    /// such an id, so the claim cannot collide.
    pub(super) fn of_batch<'a>(
        key: &str,
        operations: impl Iterator<Item = (&'a str, Option<&'a str>, &'a InstanceChange, &'a Precondition)>,
        origin: &Origin,
    ) -> Self {
        let mut all = vec![Cow::Borrowed("batch")];
        for (model, id, change, precondition) in operations {
            let (operation, data) = parts(change);
            all.extend([model, operation, id.unwrap_or_default(), data].map(Cow::Borrowed));
            all.push(match precondition {
                Precondition::None => Cow::Borrowed(""),
                other => Cow::Owned(format!("{other:?}")),
            });
        }
        IdempotencyKey { claim: format!("{PREFIX}/batch {key}"), digest: digest(origin, &all) }
    }

    /// For a request that creates a model. No model has an empty id, so the claim cannot collide.
    pub(super) fn of_model(id: &str, key: &str, input: &ModelInput, origin: &Origin) -> Self {
        let schema = input.schema.as_deref().unwrap_or_default();
        let unique: Vec<_> = input.unique.iter().map(|unique| &unique.list).collect();
        let lists = serde_json::to_string(&(&input.indexes, unique)).unwrap_or_default();
        IdempotencyKey { claim: format!("{PREFIX} {key}"), digest: digest(origin, &["model", id, schema, &lists]) }
    }

    /// The claim of an event. `replaces`: the position of an expired holder.
    pub(super) fn claim(self, replaces: Option<Position>) -> Claim {
        Claim {
            replaces,
            expires: Some(time::now() + REMEMBERED_MILLIS),
            value: Some(self.digest),
            ..Claim::new(self.claim)
        }
    }
}

/// Whether a claim is that of an idempotency key.
pub(super) fn is_key(claim: &str) -> bool {
    claim.starts_with(PREFIX)
}

/// The event of the first request with this key; `None` if the key is free again. Another request with the same key
/// is an error.
pub(super) async fn first_event(
    events: &dyn EventStore,
    tail: &Tail,
    metrics: &Metrics,
    key: &IdempotencyKey,
    holder: &Holder,
) -> Result<Option<Event>> {
    if holder.has_expired(time::now()) || is_of_deleted_model(events, holder).await? {
        return Ok(None);
    }
    if holder.value.as_ref().is_some_and(|digest| *digest != key.digest) {
        metrics.keys_reused.fetch_add(1, Ordering::Relaxed);
        let detail = "the `Idempotency-Key` was used before, with another body or from another actor; a new request \
                      needs a new key";
        return Err(Error::new(ErrorKind::KeyReused, detail));
    }
    metrics.keys_repeated.fetch_add(1, Ordering::Relaxed);
    let event = events.last(&holder.stream, holder.position).await?;
    // Another node may have written it: this node must have applied it before the client gets this response.
    tail.reached_soon(holder.position).await?;
    // Claims of versions without expiry.
    Ok(event.filter(|event| holder.expires.is_some() || time::now() - event.time < REMEMBERED_MILLIS))
}

/// Whether the instance belongs to a model that was deleted later. A model of the same name is a different one.
async fn is_of_deleted_model(events: &dyn EventStore, holder: &Holder) -> Result<bool> {
    if holder.stream.instance.is_none() {
        return Ok(false);
    }
    let filter = EventFilter {
        model: Some(holder.stream.model.clone()),
        definitions_only: true,
        kinds: vec![EventKind::ModelDeleted],
        ..EventFilter::default()
    };
    let mut query = EventQuery { after: holder.position, limit: 1, filter };
    loop {
        let page = events.read(&query, None).await?;
        match page.next().filter(|_| page.events.is_empty()) {
            // The page skipped as many events as it may.
            Some(next) => query.after = next,
            None => return Ok(!page.events.is_empty()),
        }
    }
}

/// The first response, from its event.
pub(super) fn first_answer(event: Event) -> Option<Written> {
    let kind = event.kind;
    let instance = Instance {
        id: event.instance?,
        model: event.model,
        model_version: event.model_version,
        revision: event.revision,
        position: event.position,
        created_at: event.time,
        updated_at: event.time,
        data: event.data?,
    };
    Some(if kind == EventKind::InstanceCreated { Written::Created(instance) } else { Written::Updated(instance) })
}

/// The operation of a change, and its data.
fn parts(change: &InstanceChange) -> (&'static str, &str) {
    match change {
        InstanceChange::Create { data, .. } => ("create", data),
        InstanceChange::Replace { data, .. } => ("replace", data),
        InstanceChange::Patch { patch, .. } => ("patch", patch),
        InstanceChange::Delete { .. } => ("delete", ""),
    }
}

/// In hexadecimal. Each part is preceded by its length, so that different lists of parts have different bytes.
fn digest(origin: &Origin, parts: &[impl AsRef<str>]) -> String {
    let mut digest = Sha256::new();
    let actor = match origin.actor.as_ref().map(|actor| actor.identity()) {
        Some((kind, id)) => format!("{kind}:{id}"),
        None => "-".to_owned(),
    };
    for part in std::iter::once(actor.as_str()).chain(parts.iter().map(AsRef::as_ref)) {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part.as_bytes());
    }
    format!("{:x}", digest.finalize())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use snaphook_driver::{Actor, ActorKind, Json};

    use super::*;

    #[test]
    fn every_part_of_a_request_counts() {
        let key_of = |actor: Actor, id: Option<&str>, data: &str| {
            let origin = Origin { actor: Some(Arc::new(actor)), ..Origin::default() };
            let change = InstanceChange::Create { id: None, data: Json::trusted(data) };
            IdempotencyKey::of_change("m", "k", id, &change, &origin).digest
        };
        let key = |actor: &str, id, data| key_of(Actor::new(ActorKind::Token, actor), id, data);
        let first = key("a", None, "{}");
        assert_eq!(key("a", None, "{}"), first);
        for other in [key("b", None, "{}"), key("a", Some("i"), "{}"), key("a", None, "{ }"), key("a{", None, "}")] {
            assert_ne!(other, first);
        }
        assert_ne!(key_of(Actor::new(ActorKind::Oidc, "a"), None, "{}"), first);
        let claims = Actor::new(ActorKind::Token, "a").with_claims(&Json::trusted("{}"));
        assert_eq!(key_of(claims, None, "{}"), first);
        assert!(is_key(&IdempotencyKey::of_model("m", "k", &ModelInput::default(), &Origin::default()).claim));
    }
}
