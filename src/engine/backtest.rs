//! Back-tests: a pre hook decides again over changes that the log already has, and nothing is written.
//!
//! These changes were accepted, so every other verdict is a decision that would change. The hook gets the data as
//! stored, reads current instances, and has the current grants.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;
use serde_json::{Value, json};
use snaphook_driver::{
    Budget, Event, EventFilter, EventKind, EventQuery, Instance, InstancePage, Json, Position, Stream,
};

use super::amended::check_amended_here;
use super::error::Result;
use crate::catalog::rules::Right;
use crate::catalog::{FieldError, Model, Schema, query};
use crate::config::Phase;
use crate::drivers::Stores;
use crate::hooks::access::{Access, AccessCode, AccessError, Author, Expected};
use crate::hooks::context::{Context, Outcome};
use crate::hooks::host::{Artifacts, BoundHook, HookHost};

/// Maximum number of changed members that are reported.
const DIFFERENCES: usize = 20;

/// A log from which the changes of one model can be read.
#[async_trait]
pub trait Log: Send + Sync {
    /// Events of the model and the kind after a position, oldest first: one page.
    async fn page(&self, model: &str, kind: EventKind, after: Position) -> std::result::Result<Vec<Event>, String>;

    /// Position of the last event.
    async fn head(&self) -> std::result::Result<Position, String>;

    /// The data of an instance right before a position.
    async fn before(
        &self,
        model: &str,
        instance: &str,
        position: Position,
    ) -> std::result::Result<Option<Json>, String>;
}

/// A change in the log.
#[derive(Clone, Debug)]
pub struct Past {
    pub event: Event,
    pub before: Option<Json>,
}

/// The kind of event that follows when a pre phase accepts a change.
pub fn kind_after(phase: Phase) -> Option<EventKind> {
    match phase {
        Phase::PreCreate => Some(EventKind::InstanceCreated),
        Phase::PreUpdate => Some(EventKind::InstanceUpdated),
        Phase::PreDelete => Some(EventKind::InstanceDeleted),
        _ => None,
    }
}

/// The last `count` changes of a model, oldest first.
pub async fn last(log: &dyn Log, model: &str, kind: EventKind, count: usize) -> std::result::Result<Vec<Past>, String> {
    let head = log.head().await?;
    // Positions may have gaps: the range grows until it contains enough changes, or all.
    let mut stretch = (count as u64).saturating_mul(4).max(1000);
    let events = loop {
        let from = head.saturating_sub(stretch);
        let mut events: Vec<Event> = Vec::new();
        let mut after = from;
        loop {
            let page = log.page(model, kind, after).await?;
            let Some(last) = page.last() else { break };
            after = last.position;
            events.extend(page);
        }
        if events.len() >= count || from == 0 {
            break events.split_off(events.len().saturating_sub(count));
        }
        stretch = stretch.saturating_mul(8);
    };
    let mut past = Vec::with_capacity(events.len());
    for event in events {
        let before = match (kind, &event.instance) {
            (EventKind::InstanceCreated, _) | (_, None) => None,
            (_, Some(instance)) => log.before(model, instance, event.position).await?,
        };
        past.push(Past { event, before });
    }
    Ok(past)
}

/// A hook's verdict on one accepted change.
#[derive(Clone, Debug, Serialize)]
pub struct BacktestVerdict {
    pub position: Position,
    pub instance: String,
    /// `reject`, `amend` or `failed`.
    pub verdict: &'static str,
    /// Of a failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldError>,
    /// For amended data: the differences from the stored data.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<Difference>,
}

/// One place of the data; absent values are `None`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    pub pointer: String,
    pub stored: Option<Value>,
    pub now: Option<Value>,
}

/// The cost of the runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cost {
    pub runs: usize,
    pub p50: Duration,
    pub p99: Duration,
    pub memory_bytes_max: u64,
}

/// Runs the hook over the changes, one after the other. Returns the decisions that would change, and the cost.
pub async fn run(host: &HookHost, hook: &BoundHook, schema: &Schema, past: Vec<Past>) -> (Vec<BacktestVerdict>, Cost) {
    let phase = hook.binding().id.phase;
    let mut changes = Vec::new();
    let mut times = Vec::with_capacity(past.len());
    let mut cost = Cost::default();
    for Past { event, before } in past {
        let instance = event.instance.unwrap_or_default();
        let context = Context {
            phase,
            model: event.model,
            model_version: event.model_version,
            instance: instance.clone(),
            before,
            after: event.data.clone(),
            actor: event.actor,
            request_id: event.request_id,
            time: event.time,
            event: None,
            attempt: 1,
            depth: 0,
            ahead: None,
        };
        let run = host.runs.checked(hook, &context, |run| {
            if let Outcome::Amend(data) = &run.outcome
                && let Err(failure) = check_amended_here(schema, data, hook)
            {
                run.outcome = Outcome::Failed(failure);
            }
        });
        let run = run.await;
        times.push(run.wall);
        cost.memory_bytes_max = cost.memory_bytes_max.max(run.memory_bytes);
        let change = BacktestVerdict {
            position: event.position,
            instance,
            verdict: "failed",
            cause: None,
            message: None,
            fields: Vec::new(),
            differences: Vec::new(),
        };
        match run.outcome {
            Outcome::Accept => {}
            Outcome::Amend(data) => {
                let value = |json: Option<&Json>| json.and_then(|json| json.to_value().ok()).unwrap_or_default();
                let mut differences = Vec::new();
                compare(&value(event.data.as_ref()), &value(Some(&data)), String::new(), &mut differences);
                if !differences.is_empty() {
                    changes.push(BacktestVerdict { verdict: "amend", differences, ..change });
                }
            }
            Outcome::Reject(rejection) => changes.push(BacktestVerdict {
                verdict: "reject",
                message: Some(rejection.message),
                fields: rejection.fields,
                ..change
            }),
            Outcome::Failed(failure) => changes.push(BacktestVerdict {
                cause: Some(failure.cause.as_str()),
                message: Some(failure.message),
                ..change
            }),
        }
    }
    times.sort();
    let share = |share: f64| {
        let rank = (times.len() as f64 * share).ceil() as usize;
        times.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    };
    (changes, Cost { runs: times.len(), p50: share(0.5), p99: share(0.99), ..cost })
}

/// Finds the differences of two documents. Numbers are equal if their digits are.
fn compare(stored: &Value, now: &Value, pointer: String, out: &mut Vec<Difference>) {
    if stored == now || out.len() >= DIFFERENCES {
        return;
    }
    let (Value::Object(a), Value::Object(b)) = (stored, now) else {
        out.push(Difference { pointer, stored: Some(stored.clone()), now: Some(now.clone()) });
        return;
    };
    let at = |name: &str| format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"));
    for (name, stored) in a {
        match b.get(name) {
            Some(now) => compare(stored, now, at(name), out),
            None => out.push(Difference { pointer: at(name), stored: Some(stored.clone()), now: None }),
        }
    }
    for (name, now) in b.iter().filter(|(name, _)| !a.contains_key(*name)) {
        out.push(Difference { pointer: at(name), stored: None, now: Some(now.clone()) });
    }
    out.truncate(DIFFERENCES);
}

impl Cost {
    pub fn to_json(&self) -> Value {
        let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
        json!({
            "runs": self.runs,
            "p50_ms": ms(self.p50),
            "p99_ms": ms(self.p99),
            "memory_bytes_max": self.memory_bytes_max,
        })
    }
}

/// The stores of a stopped server: its log, and the instances that a hook may read.
pub struct StoredLog {
    stores: Stores,
    models: HashMap<String, Model>,
}

impl StoredLog {
    /// `models`: the currently defined models.
    pub fn new(stores: Stores, models: Vec<Model>) -> Self {
        let models = models.into_iter().map(|model| (model.record.id.clone(), model)).collect();
        StoredLog { stores, models }
    }

    pub fn model(&self, id: &str) -> Option<&Model> {
        self.models.get(id)
    }

    async fn read(&self, after: Position, limit: u32, filter: EventFilter) -> Result<Vec<Event>> {
        Ok(self.stores.event.read(&EventQuery { after, limit, filter }, None).await?.events)
    }
}

#[async_trait]
impl Log for StoredLog {
    async fn page(&self, model: &str, kind: EventKind, after: Position) -> std::result::Result<Vec<Event>, String> {
        let filter = EventFilter { model: Some(model.to_owned()), kinds: vec![kind], ..EventFilter::default() };
        let mut query = EventQuery { after, limit: 1000, filter };
        loop {
            let page = self.stores.event.read(&query, None).await.map_err(|error| error.to_string())?;
            match page.next() {
                // Nothing up to there matched.
                Some(next) if page.events.is_empty() => query.after = next,
                _ => return Ok(page.events),
            }
        }
    }

    async fn head(&self) -> std::result::Result<Position, String> {
        self.stores.event.head().await.map_err(|error| error.to_string())
    }

    async fn before(
        &self,
        model: &str,
        instance: &str,
        position: Position,
    ) -> std::result::Result<Option<Json>, String> {
        let stream = Stream::of_instance(model, instance);
        let last = self.stores.event.last(&stream, position.saturating_sub(1)).await;
        Ok(last.map_err(|error| error.to_string())?.and_then(|event| event.data))
    }
}

/// The reads of a back-test's hook.
#[async_trait]
pub trait Reads: Send + Sync {
    /// See [`Access::get`].
    async fn get(&self, model: &str, id: &str) -> std::result::Result<Option<Instance>, AccessError>;
    /// See [`Access::query`].
    async fn query(&self, model: &str, query: &str) -> std::result::Result<InstancePage, AccessError>;
    /// See [`Access::event`].
    async fn event(&self, position: Position) -> std::result::Result<Option<Event>, AccessError>;
    /// See [`Access::secret`].
    async fn secret(&self, name: &str) -> std::result::Result<Option<Vec<u8>>, AccessError>;
}

/// Lets a hook read, with the server's rights regardless of its binding, and never write.
pub struct NeverWrites<R>(pub Arc<R>);

#[async_trait]
impl<R: Reads> Access for NeverWrites<R> {
    async fn get(&self, model: &str, id: &str, _: &Right) -> std::result::Result<Option<Instance>, AccessError> {
        self.0.get(model, id).await
    }

    async fn query(&self, model: &str, query: &str, _: &Right) -> std::result::Result<InstancePage, AccessError> {
        self.0.query(model, query).await
    }

    async fn event(&self, position: Position, _: &Right) -> std::result::Result<Option<Event>, AccessError> {
        self.0.event(position).await
    }

    async fn create(
        &self,
        _: &Author,
        _: &str,
        _: Option<&str>,
        _: &str,
    ) -> std::result::Result<Instance, AccessError> {
        Err(never_writes())
    }

    async fn update(
        &self,
        _: &Author,
        _: &str,
        _: &str,
        _: &str,
        _: Option<Expected>,
    ) -> std::result::Result<Instance, AccessError> {
        Err(never_writes())
    }

    async fn delete(
        &self,
        _: &Author,
        _: &str,
        _: &str,
        _: Option<Expected>,
    ) -> std::result::Result<Instance, AccessError> {
        Err(never_writes())
    }

    async fn secret(&self, name: &str) -> std::result::Result<Option<Vec<u8>>, AccessError> {
        self.0.secret(name).await
    }
}

fn never_writes() -> AccessError {
    AccessError::new(AccessCode::Failed, "a back-test never writes")
}

#[async_trait]
impl Reads for StoredLog {
    async fn get(&self, model: &str, id: &str) -> std::result::Result<Option<Instance>, AccessError> {
        self.known(model)?;
        Ok(self.stores.model.get(model, id).await.map_err(|error| failed(&error))?)
    }

    async fn query(&self, model: &str, text: &str) -> std::result::Result<InstancePage, AccessError> {
        let invalid = |message| AccessError::new(AccessCode::Invalid, message);
        let input = query::from_json(text).map_err(invalid)?;
        let query = query::check(self.known(model)?, &input).map_err(invalid)?;
        Ok(self.stores.model.query(model, &query, &Budget::unlimited()).await.map_err(|error| failed(&error))?)
    }

    async fn event(&self, position: Position) -> std::result::Result<Option<Event>, AccessError> {
        let Some(after) = position.checked_sub(1) else { return Ok(None) };
        let events = self.read(after, 1, EventFilter::default()).await?;
        Ok(events.into_iter().find(|event| event.position == position))
    }

    async fn secret(&self, name: &str) -> std::result::Result<Option<Vec<u8>>, AccessError> {
        let secret = self.stores.vault.get(name).await.map_err(|error| failed(&error))?;
        Ok(secret.map(|secret| secret.expose().to_vec()))
    }
}

impl StoredLog {
    fn known(&self, model: &str) -> std::result::Result<&Model, AccessError> {
        let shown: String = model.chars().take(64).collect();
        let missing =
            || AccessError::new(AccessCode::NotFound, format!("there is no model `{}`", shown.escape_debug()));
        self.models.get(model).ok_or_else(missing)
    }
}

fn failed(error: &dyn std::fmt::Display) -> AccessError {
    AccessError::new(AccessCode::Failed, error.to_string())
}

/// A back-test gets the hook's code directly; no other code is loaded.
pub struct NoArtifacts;

#[async_trait]
impl Artifacts for NoArtifacts {
    async fn code(&self, artifact: &str) -> std::result::Result<bytes::Bytes, String> {
        Err(format!("`{artifact}` is not available: only the hook itself is loaded"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_have_their_place() {
        let stored = json!({"a": 1, "b": {"c": [1], "d/e": 2}, "gone": null});
        let now = json!({"a": 1, "b": {"c": [2], "d/e": 2}, "new": "x"});
        let mut found = Vec::new();
        compare(&stored, &now, String::new(), &mut found);
        let row = |pointer: &str, stored: Option<Value>, now: Option<Value>| Difference {
            pointer: pointer.into(),
            stored,
            now,
        };
        assert_eq!(
            found,
            [
                row("/b/c", Some(json!([1])), Some(json!([2]))),
                row("/gone", Some(Value::Null), None),
                row("/new", None, Some(json!("x")))
            ]
        );
        found.clear();
        compare(&stored, &stored, String::new(), &mut found);
        assert_eq!(found, []);
    }

    /// A log with a gap between events, whose pages are short.
    struct Gaps(Vec<Event>);

    #[async_trait]
    impl Log for Gaps {
        async fn page(&self, _: &str, kind: EventKind, after: Position) -> std::result::Result<Vec<Event>, String> {
            let later = self.0.iter().filter(|event| event.position > after && event.kind == kind);
            Ok(later.take(2).cloned().collect())
        }
        async fn head(&self) -> std::result::Result<Position, String> {
            Ok(self.0.last().map_or(0, |event| event.position))
        }
        async fn before(&self, _: &str, _: &str, position: Position) -> std::result::Result<Option<Json>, String> {
            Ok(Some(Json::trusted(format!("{{\"before\":{position}}}"))))
        }
    }

    #[tokio::test]
    async fn the_last_changes_are_found_across_gaps() {
        let event = |position: u64| Event {
            position,
            id: String::new(),
            kind: if position.is_multiple_of(3) { EventKind::InstanceUpdated } else { EventKind::InstanceCreated },
            model: "m".into(),
            model_version: 1,
            instance: Some(format!("i{position}")),
            revision: 1,
            data: None,
            actor: None,
            cause: None,
            hooks: Vec::new(),
            request_id: None,
            trace: None,
            time: 0,
        };
        let log = Gaps((1..=10).map(|n| event(n * 5000)).collect());
        for (kind, count, expected) in [
            (EventKind::InstanceUpdated, 2, vec![30_000, 45_000]),
            (EventKind::InstanceUpdated, 9, vec![15_000, 30_000, 45_000]),
            (EventKind::InstanceCreated, 1, vec![50_000]),
            (EventKind::InstanceDeleted, 5, vec![]),
        ] {
            let past = last(&log, "m", kind, count).await.unwrap();
            assert_eq!(past.iter().map(|past| past.event.position).collect::<Vec<_>>(), expected);
            let has_before = kind != EventKind::InstanceCreated;
            assert!(past.iter().all(|past| past.before.is_some() == has_before));
        }
    }
}
