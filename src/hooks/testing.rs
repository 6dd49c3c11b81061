//! What the tests of this layer share: a server's data in memory, a configuration from a few lines, sessions.

use std::collections::{BTreeMap, HashMap};
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use async_trait::async_trait;
use snaphook_driver::{Event, EventKind, Instance, InstancePage, Json, Position};

use super::access::{Access, AccessCode, AccessError, Author, Expected};
use super::capabilities::http::{HttpClient, Lookup};
use super::context::{Context, EventRef};
use super::grants::{Granted, Grantee, HookId};
use super::session::{HostError, Services, Session};
use crate::catalog::rules::Right;
use crate::config::{Config, Phase};

/// What is not there is skipped, and said; with `CI=true` nothing may be missing, so it is a failure.
#[track_caller]
pub(crate) fn skip(what: &str, reason: &str) {
    let is_ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(!is_ci, "{what}: {reason}; with CI=true nothing may be skipped");
    say(&format!("skipped: {what}: {reason}"));
}

/// Past the test harness, which keeps what passing tests print to itself.
pub(crate) fn say(line: &str) {
    // Whoever closed the error stream does not want to know.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Instances, events and secrets in memory. Reads of the model `slow` never answer.
#[derive(Default)]
pub(crate) struct MemoryAccess {
    instances: Mutex<BTreeMap<(String, String), Instance>>,
    events: Mutex<Vec<Event>>,
    secrets: HashMap<String, Vec<u8>>,
    authors: Mutex<Vec<Author>>,
    secret_reads: AtomicUsize,
    largest_page: AtomicUsize,
}

impl MemoryAccess {
    /// Who wrote, in order.
    pub(crate) fn authors(&self) -> Vec<Author> {
        self.authors.lock().unwrap().clone()
    }

    /// Most instances that one query gave.
    pub(crate) fn largest_page(&self) -> usize {
        self.largest_page.load(Ordering::Relaxed)
    }

    /// How often a secret was read.
    pub(crate) fn secret_reads(&self) -> usize {
        self.secret_reads.load(Ordering::Relaxed)
    }

    fn put(&self, model: &str, id: &str, data: &str) -> Instance {
        let mut events = self.events.lock().unwrap();
        let position = events.len() as Position + 1;
        snaphook_driver::json::parse(data).unwrap();
        let data = Json::trusted(data);
        events.push(Event {
            position,
            id: position.to_string(),
            kind: EventKind::InstanceCreated,
            model: model.to_owned(),
            model_version: 1,
            instance: Some(id.to_owned()),
            revision: 1,
            data: Some(data.clone()),
            actor: None,
            cause: None,
            hooks: Vec::new(),
            request_id: None,
            trace: None,
            time: 0,
        });
        let instance = Instance {
            id: id.to_owned(),
            model: model.to_owned(),
            model_version: 1,
            revision: 1,
            position,
            created_at: 0,
            updated_at: 0,
            data,
        };
        self.instances.lock().unwrap().insert((model.to_owned(), id.to_owned()), instance.clone());
        instance
    }
}

#[async_trait]
impl Access for MemoryAccess {
    async fn get(&self, model: &str, id: &str, _: &Right) -> Result<Option<Instance>, AccessError> {
        if model == "slow" {
            std::future::pending::<()>().await;
        }
        Ok(self.instances.lock().unwrap().get(&(model.to_owned(), id.to_owned())).cloned())
    }

    async fn query(&self, model: &str, query: &str, _: &Right) -> Result<InstancePage, AccessError> {
        let query: serde_json::Value = snaphook_driver::json::parse(query).unwrap_or_default();
        let limit = query["limit"].as_u64().unwrap_or(50) as usize;
        let after = query["cursor"].as_str().unwrap_or_default();
        let instances = self.instances.lock().unwrap();
        let all = instances.values().filter(|instance| instance.model == model && *instance.id > *after);
        let mut items: Vec<_> = all.take(limit + 1).cloned().collect();
        let more = items.len() > limit;
        items.truncate(limit);
        self.largest_page.fetch_max(items.len(), Ordering::Relaxed);
        let next = items.last().filter(|_| more).map(|instance| instance.id.clone());
        Ok(InstancePage { items, next })
    }

    async fn event(&self, position: Position, _: &Right) -> Result<Option<Event>, AccessError> {
        Ok(self.events.lock().unwrap().iter().find(|event| event.position == position).cloned())
    }

    async fn create(
        &self,
        author: &Author,
        model: &str,
        id: Option<&str>,
        data: &str,
    ) -> Result<Instance, AccessError> {
        self.authors.lock().unwrap().push(author.clone());
        Ok(self.put(model, id.unwrap_or("new"), data))
    }

    async fn update(
        &self,
        author: &Author,
        model: &str,
        id: &str,
        data: &str,
        _expected: Option<Expected>,
    ) -> Result<Instance, AccessError> {
        if self.get(model, id, &author.right).await?.is_none() {
            return Err(AccessError::new(AccessCode::NotFound, format!("no `{model}/{id}`")));
        }
        self.authors.lock().unwrap().push(author.clone());
        Ok(self.put(model, id, data))
    }

    async fn delete(
        &self,
        author: &Author,
        model: &str,
        id: &str,
        _expected: Option<Expected>,
    ) -> Result<Instance, AccessError> {
        let removed = self.instances.lock().unwrap().remove(&(model.to_owned(), id.to_owned()));
        self.authors.lock().unwrap().push(author.clone());
        removed.ok_or_else(|| AccessError::new(AccessCode::NotFound, format!("no `{model}/{id}`")))
    }

    async fn secret(&self, name: &str) -> Result<Option<Vec<u8>>, AccessError> {
        self.secret_reads.fetch_add(1, Ordering::Relaxed);
        Ok(self.secrets.get(name).cloned())
    }
}

/// A server's data; each test states only what differs from an empty one.
pub(crate) struct Bench {
    pub(crate) access: Arc<MemoryAccess>,
    lookup: Option<Arc<Lookup>>,
    services: OnceLock<Arc<Services>>,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Bench { access: Arc::default(), lookup: None, services: OnceLock::new() }
    }

    pub(crate) fn with_instance(self, model: &str, id: &str, data: &str) -> Self {
        self.access.put(model, id, data);
        self
    }

    /// Before any session is made.
    pub(crate) fn with_secret(mut self, name: &str, value: &[u8]) -> Self {
        Arc::get_mut(&mut self.access).unwrap().secrets.insert(name.to_owned(), value.to_vec());
        self
    }

    /// Names resolve to these addresses, others to none.
    pub(crate) fn with_names(mut self, names: &[(&str, &str)]) -> Self {
        let names: HashMap<String, String> = names.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        self.lookup = Some(Arc::new(move |name| {
            let found = names.get(&name).map(|address| address.parse().unwrap());
            Box::pin(async move { Ok(found.into_iter().collect()) })
        }));
        self
    }

    /// The same for all sessions.
    pub(crate) fn services(&self) -> Arc<Services> {
        let make = || {
            let access = Arc::clone(&self.access) as Arc<dyn Access>;
            match &self.lookup {
                Some(lookup) => Services::with_http(access, HttpClient::with_lookup(Arc::clone(lookup))),
                None => Services::new(access),
            }
        };
        Arc::clone(self.services.get_or_init(make))
    }

    /// A session of one hook with one grant, whose own lines are given.
    pub(crate) fn session(&self, model: &str, phase: Phase, hook: &str, lines: &str) -> Arc<Session> {
        let grant = format!("[[grants]]\nmodel = '*'\nphase = '*'\nhook = '*'\n{lines}");
        self.session_of(if lines.is_empty() { "" } else { &grant }, model, phase, hook)
    }

    /// A session with the lines that a refusal told to add.
    pub(crate) fn session_after(&self, message: &str, model: &str, phase: Phase, hook: &str) -> Arc<Session> {
        let (_, lines) = message.split_once("config.toml:\n").expect("the message holds lines to add");
        self.session_of(lines, model, phase, hook)
    }

    /// A session under a whole configuration of grants.
    pub(crate) fn session_of(&self, toml: &str, model: &str, phase: Phase, hook: &str) -> Arc<Session> {
        let id = HookId { model: model.into(), phase, name: hook.into(), artifact: "sha256:00".into() };
        let granted = Granted::resolve(&Arc::new(config(toml)), Grantee::Hook(Arc::new(id)));
        Session::new(&self.services(), Arc::new(granted), &context(model, phase), Right::Server)
    }
}

/// A context of the second event of a chain.
pub(crate) fn context(model: &str, phase: Phase) -> Context {
    Context {
        phase,
        model: model.to_owned(),
        model_version: 1,
        instance: "i-1".to_owned(),
        before: None,
        after: Some(Json::trusted("{}")),
        actor: None,
        request_id: Some("r-1".to_owned()),
        time: 0,
        event: (!phase.is_pre()).then(|| EventRef { position: 7, id: "e-7".to_owned(), record: None }),
        attempt: 1,
        depth: 2,
        ahead: None,
    }
}

/// The guest's error of a host call.
#[track_caller]
pub(crate) fn access_error(error: HostError) -> AccessError {
    match error {
        HostError::Access(error) => error,
        HostError::Fatal(failure) => panic!("a fatal failure: {failure:?}"),
    }
}

/// The defaults with the grants of a TOML text.
#[track_caller]
pub(crate) fn config(toml: &str) -> Config {
    Config::parse(&config_text(toml), "config.toml", Path::new("."), None, &|_| None)
        .unwrap_or_else(|errors| panic!("{errors}\n{toml}"))
}

/// A whole file that may start a server, with these lines first.
pub(crate) fn config_text(toml: &str) -> String {
    format!("{toml}\n\n[auth]\nmode = 'open'\n\n[server]\nmount-address = '127.0.0.1:0'\n")
}

/// Runs one test of this binary in a process of its own, with a variable by which it knows.
pub(crate) fn rerun(test: &str, variables: &[(&str, &str)]) -> std::process::Command {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).envs(variables.iter().copied());
    command
}
