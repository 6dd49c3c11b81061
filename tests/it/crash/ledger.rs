//! Compares the writers' requests with the log and the model store.
//!
//! Each write carries a unique mark, so each event can be assigned to an attempt. The ledger replays the log
//! independently: the instances that the server lists must match the events exactly.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::writer::{code, counter};
use super::{COUNTERS, MODEL};
use crate::support::{Client, list};

/// A write that a writer attempted.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) mark: String,
    pub(crate) what: What,
    pub(crate) outcome: WriteOutcome,
}

#[derive(Clone, Debug)]
pub(crate) enum What {
    /// Without an id the server chooses one; then the mark is the idempotency key.
    Create {
        id: Option<String>,
        data: Value,
    },
    Replace {
        id: String,
        data: Value,
    },
    Patch {
        id: String,
        patch: Value,
    },
    Delete {
        id: String,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum WriteOutcome {
    /// The response confirmed the write, with its position if the response contains it.
    Acknowledged { id: String, position: Option<u64> },
    /// The response rejected the write.
    Refused,
    /// The server died before it responded.
    Unknown,
}

/// An instance according to its events.
#[derive(Clone, Debug, PartialEq)]
struct Folded {
    data: Value,
    revision: u64,
    position: u64,
    created_at: String,
    updated_at: String,
}

/// Everything known about the model `account`.
#[derive(Default)]
pub(crate) struct Ledger {
    /// The position of the last event that was checked.
    position: u64,
    instances: BTreeMap<String, Folded>,
    /// Every instance event: position, instance, type.
    pub(crate) history: Vec<(u64, String, String)>,
    pub(crate) acknowledged: usize,
    /// Writes without a response that were stored nevertheless.
    pub(crate) surfaced: usize,
    pub(crate) unanswered: usize,
}

impl Ledger {
    /// Existing instances of one writer.
    pub(crate) fn instances_of(&self, prefix: &str) -> Vec<String> {
        self.instances.keys().filter(|id| id.starts_with(prefix)).cloned().collect()
    }

    /// Compares the server's state with the attempts since the last call. Returns new attempts for the next call.
    #[track_caller]
    pub(crate) fn settle(&mut self, api: &Client, attempts: Vec<Attempt>) -> Vec<Attempt> {
        let mut open: BTreeMap<String, Attempt> = BTreeMap::new();
        for attempt in attempts {
            self.acknowledged += usize::from(matches!(attempt.outcome, WriteOutcome::Acknowledged { .. }));
            self.unanswered += usize::from(attempt.outcome == WriteOutcome::Unknown);
            let twice = open.insert(attempt.mark.clone(), attempt);
            assert!(twice.is_none(), "the test used a mark twice: {twice:?}");
        }
        let mut keyed = Vec::new();
        for event in events_after(api, self.position, MODEL) {
            self.position = event["position"].as_u64().expect("a position");
            let mark = match event["data"]["mark"].as_str() {
                Some(mark) => mark.to_owned(),
                None => format!("delete {}", event["instance"].as_str().expect("an id")),
            };
            let attempt =
                open.remove(&mark).unwrap_or_else(|| panic!("nobody wrote this, or it is there twice: {event}"));
            assert_ne!(attempt.outcome, WriteOutcome::Refused, "it was refused and is there: {event}");
            self.surfaced += usize::from(attempt.outcome == WriteOutcome::Unknown);
            self.take(&event, &attempt);
            if let What::Create { id: None, data } = &attempt.what {
                keyed.push((attempt.mark, data.clone(), Some(event)));
            }
        }
        for attempt in open.into_values() {
            if let WriteOutcome::Acknowledged { .. } = attempt.outcome {
                panic!("it was acknowledged and is lost: {attempt:?}");
            }
            if let (What::Create { id: None, data }, WriteOutcome::Unknown) = (attempt.what, attempt.outcome) {
                keyed.push((attempt.mark, data, None));
            }
        }
        self.check_instances(api);
        keyed.into_iter().filter_map(|(key, data, event)| self.repeat(api, key, data, event.as_ref())).collect()
    }

    /// Applies one event, which must match its attempt and the current state.
    fn take(&mut self, event: &Value, attempt: &Attempt) {
        let text = |name: &str| event[name].as_str().unwrap_or_else(|| panic!("{name}: {event}")).to_owned();
        let (id, kind, time) = (text("instance"), text("type"), text("time"));
        self.history.push((self.position, id.clone(), kind.clone()));
        if let WriteOutcome::Acknowledged { id: told, position } = &attempt.outcome {
            assert_eq!(told, &id, "{event}");
            assert!(position.is_none_or(|position| position == self.position), "{attempt:?}: {event}");
        }
        let before = self.instances.remove(&id);
        let (expected_kind, expected_id, data) = match &attempt.what {
            What::Create { id, data } => ("instance.created", id.as_ref(), Some(data.clone())),
            What::Replace { id, data } => ("instance.updated", Some(id), Some(data.clone())),
            What::Patch { id, patch } => {
                let mut data = before.as_ref().map_or(Value::Null, |before| before.data.clone());
                merge(&mut data, patch);
                ("instance.updated", Some(id), Some(data))
            }
            What::Delete { id } => ("instance.deleted", Some(id), None),
        };
        assert_eq!(kind, expected_kind, "{event}");
        assert!(expected_id.is_none_or(|expected| *expected == id), "{attempt:?}: {event}");
        assert_eq!(event["data"], data.clone().unwrap_or_default(), "half of it, or of two: {event}");
        assert_eq!(before.is_none(), kind == "instance.created", "{before:?}: {event}");
        let revision = before.as_ref().map_or(1, |before| before.revision + 1);
        assert_eq!(event["revision"], revision, "{event}");
        let Some(data) = data else { return };
        if (0..COUNTERS).any(|number| counter(number) == id) {
            assert_eq!(data["n"], revision - 1, "an increment was lost: {event}");
        }
        let created_at = before.map_or_else(|| time.clone(), |before| before.created_at);
        self.instances.insert(id, Folded { data, revision, position: self.position, created_at, updated_at: time });
    }

    /// The server has exactly the instances of the log, with the same content.
    fn check_instances(&self, api: &Client) {
        let listed: BTreeMap<String, Folded> = list(api, MODEL)
            .into_iter()
            .map(|instance| {
                let text = |name: &str| instance[name].as_str().expect("a text").to_owned();
                let number = |name: &str| instance[name].as_u64().expect("a number");
                let folded = Folded {
                    data: instance["data"].clone(),
                    revision: number("revision"),
                    position: number("position"),
                    created_at: text("created_at"),
                    updated_at: text("updated_at"),
                };
                (text("id"), folded)
            })
            .collect();
        for (id, folded) in &self.instances {
            assert_eq!(listed.get(id), Some(folded), "`{id}` is not what its events say");
        }
        assert_eq!(listed.len(), self.instances.len(), "instances without events");
        let mut codes = BTreeSet::new();
        for (id, folded) in &self.instances {
            if let Some(code) = folded.data["code"].as_str() {
                assert!(codes.insert(code), "`{id}` shares the unique code `{code}` with another");
            }
        }
    }

    /// Repeats a request with its idempotency key: returns the first response if there was one. Otherwise it is a new
    /// attempt.
    fn repeat(&self, api: &Client, key: String, data: Value, event: Option<&Value>) -> Option<Attempt> {
        let response = super::writer::create_keyed(api, &key, &data).expect("an answer");
        let outcome = super::writer::outcome_of(&response);
        let Some(event) = event else {
            let what = What::Create { id: None, data };
            return Some(Attempt { mark: key, what, outcome });
        };
        let answer = response.expect(201).json();
        assert_eq!(answer["id"], event["instance"], "a key made a second instance: {event}");
        assert_eq!((&answer["position"], &answer["data"]), (&event["position"], &event["data"]), "{event}");
        None
    }

    /// The codes of existing instances are claimed; all others are free.
    #[track_caller]
    pub(crate) fn check_claims(&self, api: &Client, codes: usize) {
        let held: BTreeSet<&str> =
            self.instances.values().filter_map(|instance| instance.data["code"].as_str()).collect();
        assert!(!held.is_empty() && held.len() < codes, "the test did not mix: {} of {codes} are held", held.len());
        for code in (0..codes).map(code) {
            let body = json!({"data": {"mark": "claims", "code": code}});
            let response = api.post(&format!("/models/{MODEL}/instances?dry-run=true"), &body);
            match held.contains(code.as_str()) {
                true => drop(response.expect_problem(409, "not-unique")),
                false => drop(response.expect(200)),
            }
        }
    }
}

/// All instance events of a model after a position.
#[track_caller]
pub(crate) fn events_after(api: &Client, mut after: u64, model: &str) -> Vec<Value> {
    let mut events = Vec::new();
    loop {
        let page = api
            .get(&format!(
                "/events?after={after}&limit=1000&model={model}&type=instance.created,instance.updated,instance.deleted"
            ))
            .expect(200)
            .json();
        for event in page["items"].as_array().expect("items") {
            let position = event["position"].as_u64().expect("a position");
            assert!(position > after, "positions go up: {event}");
            after = position;
            events.push(event.clone());
        }
        if page["next"].is_null() {
            return events;
        }
    }
}

/// RFC 7396 for flat objects.
fn merge(data: &mut Value, patch: &Value) {
    let fields: &mut Map<String, Value> = data.as_object_mut().expect("an object");
    for (name, value) in patch.as_object().expect("an object") {
        if value.is_null() {
            fields.shift_remove(name);
        } else {
            fields.insert(name.clone(), value.clone());
        }
    }
}
