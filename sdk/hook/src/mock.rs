//! A host for unit tests: a test provides instances and grants, and inspects what the hook did.
//!
//! ```
//! # use serde_json::json;
//! # use snaphook_hook::{Change, Hook, Result, Verdict, log, mock::Mock, Phase, read};
//! # struct Check;
//! # impl Hook for Check {
//! #     type Data = serde_json::Value;
//! #     fn check(change: &Change<Self::Data>) -> Result<Verdict> {
//! #         let found = read::get::<serde_json::Value>("customer", "c1")?;
//! #         log::info(found.map_or("none".to_owned(), |found| found.data["name"].to_string()));
//! #         Ok(Verdict::Accept)
//! #     }
//! # }
//! let mock = Mock::new().grant("read", "customer").instance("customer", "c1", json!({"name": "Ada"}));
//! let verdict = mock.check::<Check>(Phase::PreCreate, None, Some(json!({"total": 5})));
//! assert_eq!(verdict, Ok(Verdict::Accept));
//! assert_eq!(mock.logged(), ["info \"Ada\""]);
//! ```

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use serde_json::Value;

use crate::change::{Event, Raw};
use crate::exchange::{AccessError, Command, Output, RawInstance, Request, Response};
use crate::host::{self, Host};
use crate::{Hook, Phase, Result, Verdict};

/// The test's implementation of a request or a command.
type Stub<Q, A> = Rc<dyn Fn(&Q) -> std::result::Result<A, AccessError>>;

/// The host. Nothing is allowed without a grant by the test, as in the server.
#[derive(Clone, Default)]
pub struct Mock(Rc<RefCell<MockState>>);

#[derive(Default)]
struct MockState {
    grants: Vec<(String, String)>,
    instances: BTreeMap<(String, String), RawInstance>,
    events: BTreeMap<u64, String>,
    secrets: BTreeMap<String, String>,
    http: Option<Stub<Request, Response>>,
    process: Option<Stub<Command, Output>>,
    position: u64,
    phase: Option<Phase>,
    logged: Vec<String>,
    writes: Vec<Write>,
    requests: Vec<Request>,
    commands: Vec<Command>,
}

/// One write of a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// `create`, `update` or `delete`.
    pub operation: &'static str,
    pub model: String,
    pub id: String,
    /// JSON text; absent for a deletion.
    pub data: Option<String>,
}

impl Mock {
    pub fn new() -> Mock {
        Mock::default()
    }

    /// Grants a capability (`read`, `write`, `http`, `process`, `secret`) for matching names: a `*` at the end matches
    /// anything. For `http` the name is the URL, for `process` the program.
    #[must_use]
    pub fn grant(self, capability: &str, pattern: &str) -> Mock {
        self.0.borrow_mut().grants.push((capability.to_owned(), pattern.to_owned()));
        self
    }

    /// Adds an instance.
    #[must_use]
    pub fn instance(self, model: &str, id: &str, data: Value) -> Mock {
        self.put(model, id, &data.to_string());
        self
    }

    /// Adds an event, as JSON text.
    #[must_use]
    pub fn event(self, position: u64, event: Value) -> Mock {
        self.0.borrow_mut().events.insert(position, event.to_string());
        self
    }

    #[must_use]
    pub fn secret(self, name: &str, value: &str) -> Mock {
        self.0.borrow_mut().secrets.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Sets the function that answers requests.
    #[must_use]
    pub fn on_http(self, answer: impl Fn(&Request) -> std::result::Result<Response, AccessError> + 'static) -> Mock {
        self.0.borrow_mut().http = Some(Rc::new(answer));
        self
    }

    /// Sets the function that runs programs.
    #[must_use]
    pub fn on_process(self, answer: impl Fn(&Command) -> std::result::Result<Output, AccessError> + 'static) -> Mock {
        self.0.borrow_mut().process = Some(Rc::new(answer));
        self
    }

    /// Runs a pre hook on data of model `test`.
    pub fn check<H: Hook>(&self, phase: Phase, before: Option<Value>, after: Option<Value>) -> Result<Verdict> {
        let change = self.change(phase, before.map(|data| data.to_string()), after.map(|data| data.to_string()));
        host::with(Rc::new(self.clone()), || crate::run::check::<H>(change))
    }

    /// The same with JSON text, for numbers that [`Value`] cannot represent.
    pub fn check_text<H: Hook>(&self, phase: Phase, before: Option<&str>, after: Option<&str>) -> Result<Verdict> {
        let change = self.change(phase, before.map(str::to_owned), after.map(str::to_owned));
        host::with(Rc::new(self.clone()), || crate::run::check::<H>(change))
    }

    /// Runs a post hook on data of model `test`.
    pub fn react<H: Hook>(
        &self,
        phase: Phase,
        before: Option<Value>,
        after: Option<Value>,
    ) -> std::result::Result<(), String> {
        let change = self.change(phase, before.map(|data| data.to_string()), after.map(|data| data.to_string()));
        host::with(Rc::new(self.clone()), || crate::run::react::<H>(change))
    }

    /// The log lines, each with its level: `info …`.
    pub fn logged(&self) -> Vec<String> {
        self.0.borrow().logged.clone()
    }

    pub fn writes(&self) -> Vec<Write> {
        self.0.borrow().writes.clone()
    }

    pub fn requests(&self) -> Vec<Request> {
        self.0.borrow().requests.clone()
    }

    pub fn commands(&self) -> Vec<Command> {
        self.0.borrow().commands.clone()
    }

    fn change(&self, phase: Phase, before: Option<String>, after: Option<String>) -> Raw {
        self.0.borrow_mut().phase = Some(phase);
        Raw {
            phase,
            model: "test".to_owned(),
            model_version: 1,
            id: "test-1".to_owned(),
            before: None,
            after: None,
            before_text: before,
            after_text: after,
            actor: None,
            request_id: None,
            time: "2026-01-01T00:00:00.000Z".to_owned(),
            event: (!phase.is_pre()).then(|| Event { position: 1, id: "event-1".to_owned() }),
            attempt: 1,
        }
    }

    fn put(&self, model: &str, id: &str, data: &str) -> RawInstance {
        let mut state = self.0.borrow_mut();
        state.position += 1;
        let key = (model.to_owned(), id.to_owned());
        let revision = state.instances.get(&key).map_or(1, |old| old.revision + 1);
        let instance = RawInstance {
            id: id.to_owned(),
            model: model.to_owned(),
            model_version: 1,
            revision,
            position: state.position,
            created_at: "2026-01-01T00:00:00.000Z".to_owned(),
            updated_at: "2026-01-01T00:00:00.000Z".to_owned(),
            data: data.to_owned(),
        };
        state.instances.insert(key, instance.clone());
        instance
    }

    fn allow(&self, capability: &str, target: &str) -> std::result::Result<(), AccessError> {
        let state = self.0.borrow();
        let after = ["write", "http", "process"].contains(&capability);
        if after && state.phase.is_some_and(Phase::is_pre) {
            let message = format!("no grant can open `{capability}` to a pre phase");
            return Err(AccessError::new("denied", message));
        }
        let fits =
            |pattern: &str| pattern.strip_suffix('*').map_or(pattern == target, |start| target.starts_with(start));
        if state.grants.iter().any(|(granted, pattern)| granted == capability && fits(pattern)) {
            return Ok(());
        }
        let message = format!("asked for {capability} of `{target}`, which no grant opens");
        Err(AccessError::new("denied", message))
    }

    fn stored(&self, model: &str, id: &str, expected: Option<u64>) -> std::result::Result<RawInstance, AccessError> {
        let found = self.0.borrow().instances.get(&(model.to_owned(), id.to_owned())).cloned();
        let found = found.ok_or_else(|| AccessError::new("not-found", format!("there is no `{model}/{id}`")))?;
        match expected.is_some_and(|expected| expected != found.position) {
            true => Err(AccessError::new("conflict", format!("`{model}/{id}` is at position {}", found.position))),
            false => Ok(found),
        }
    }

    fn wrote(&self, operation: &'static str, model: &str, id: &str, data: Option<&str>) {
        let write = Write { operation, model: model.to_owned(), id: id.to_owned(), data: data.map(str::to_owned) };
        self.0.borrow_mut().writes.push(write);
    }
}

impl Host for Mock {
    fn log(&self, level: u32, message: &str) {
        let level = ["debug", "info", "warn", "error"][level.min(3) as usize];
        self.0.borrow_mut().logged.push(format!("{level} {message}"));
    }

    fn read_get(&self, model: &str, id: &str) -> std::result::Result<Option<RawInstance>, AccessError> {
        self.allow("read", model)?;
        Ok(self.0.borrow().instances.get(&(model.to_owned(), id.to_owned())).cloned())
    }

    /// Returns all instances of the model: only the server evaluates filters.
    fn read_query(
        &self,
        model: &str,
        query: &str,
    ) -> std::result::Result<(Vec<RawInstance>, Option<String>), AccessError> {
        self.allow("read", model)?;
        let limit = serde_json::from_str::<Value>(query).ok().and_then(|query| query["limit"].as_u64()).unwrap_or(50);
        let state = self.0.borrow();
        let found = state.instances.values().filter(|instance| instance.model == model);
        Ok((found.take(limit as usize).cloned().collect(), None))
    }

    fn read_event(&self, position: u64) -> std::result::Result<Option<String>, AccessError> {
        let event = self.0.borrow().events.get(&position).cloned();
        let Some(event) = event else { return Ok(None) };
        let model =
            serde_json::from_str::<Value>(&event).ok().and_then(|event| Some(event["model"].as_str()?.to_owned()));
        self.allow("read", &model.unwrap_or_default())?;
        Ok(Some(event))
    }

    fn write_create(&self, model: &str, id: Option<&str>, data: &str) -> std::result::Result<RawInstance, AccessError> {
        self.allow("write", model)?;
        let made = format!("new-{}", self.0.borrow().position + 1);
        let id = id.unwrap_or(&made);
        if self.stored(model, id, None).is_ok() {
            return Err(AccessError::new("exists", format!("`{model}/{id}` exists")));
        }
        self.wrote("create", model, id, Some(data));
        Ok(self.put(model, id, data))
    }

    fn write_update(
        &self,
        model: &str,
        id: &str,
        data: &str,
        expected: Option<u64>,
    ) -> std::result::Result<RawInstance, AccessError> {
        self.allow("write", model)?;
        self.stored(model, id, expected)?;
        self.wrote("update", model, id, Some(data));
        Ok(self.put(model, id, data))
    }

    fn write_delete(
        &self,
        model: &str,
        id: &str,
        expected: Option<u64>,
    ) -> std::result::Result<RawInstance, AccessError> {
        self.allow("write", model)?;
        let found = self.stored(model, id, expected)?;
        self.wrote("delete", model, id, None);
        self.0.borrow_mut().instances.remove(&(model.to_owned(), id.to_owned()));
        Ok(found)
    }

    fn http_send(&self, request: &Request) -> std::result::Result<Response, AccessError> {
        self.allow("http", &request.url)?;
        self.0.borrow_mut().requests.push(request.clone());
        let answer = self.0.borrow().http.clone();
        let answer = answer.ok_or_else(|| {
            AccessError::new("failed", "the test does not handle requests; set a function with `on_http`")
        })?;
        answer(request)
    }

    fn process_run(&self, command: &Command) -> std::result::Result<Output, AccessError> {
        self.allow("process", &command.program)?;
        self.0.borrow_mut().commands.push(command.clone());
        let answer = self.0.borrow().process.clone();
        let answer = answer.ok_or_else(|| {
            AccessError::new("failed", "the test does not run programs; set a function with `on_process`")
        })?;
        answer(command)
    }

    fn secret_get(&self, name: &str) -> std::result::Result<String, AccessError> {
        self.allow("secret", name)?;
        let value = self.0.borrow().secrets.get(name).cloned();
        value.ok_or_else(|| AccessError::new("not-found", format!("there is no secret `{name}`")))
    }
}
