//! Common parts of the engine's tests: an engine on its embedded stores, hooks as closures, stores that fail on demand.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::Value;
use snaphook_driver::{
    Append, Appended, Budget, Capabilities, CarryOver, Conflict, Delivery, DriverError, ErrorKind, ErrorQuery,
    ErrorRecord, Event, EventKind, EventPage, EventQuery, EventStore, Filter, Group, Holder, Instance, InstancePage,
    InstanceQuery, Json, LogExport, LogRecord, ModelShape, ModelStore, Position, Result, Stream,
};

use super::command::{BindingCode, BindingInput, Defined, InstanceChange, ModelInput, Origin, WriteOptions, Written};
use super::{Engine, replay};
use crate::catalog::Model;
use crate::config::{Config, ConfigHandle, Phase};
use crate::drivers::Stores;
use crate::hooks::context::{Context, Failure, FailureCause, Outcome, Retry};
use crate::hooks::engines::{CallReport, CallSettings, Candidate, HookEngine, PrepareError, PreparedCode};
use crate::hooks::host::HookHost;
use crate::hooks::session::Session;
use crate::hooks::testing::config_text;

/// One hook's code.
pub(super) type Behaviour = Arc<dyn Fn(Context, Arc<Session>) -> BoxFuture<'static, Outcome> + Send + Sync>;

/// An engine of hooks: the code is the name of a closure.
#[derive(Clone, Default)]
pub(super) struct Closures {
    behaviours: Arc<Mutex<HashMap<String, Behaviour>>>,
    pub(super) prepared: Arc<AtomicUsize>,
}

struct Closure(Behaviour);

#[async_trait]
impl HookEngine for Closures {
    fn name(&self) -> &'static str {
        "closure"
    }

    async fn prepare(&self, candidate: Candidate<'_>) -> std::result::Result<Arc<dyn PreparedCode>, PrepareError> {
        self.prepared.fetch_add(1, Ordering::Relaxed);
        let name = String::from_utf8(candidate.code.to_vec()).unwrap();
        Ok(Arc::new(Closure(Arc::clone(&self.behaviours.lock().unwrap()[&name]))))
    }
}

#[async_trait]
impl PreparedCode for Closure {
    async fn call(&self, context: &Context, _settings: &CallSettings, session: &Arc<Session>) -> CallReport {
        let outcome = (self.0)(context.clone(), Arc::clone(session)).await;
        CallReport { outcome, cpu: Duration::ZERO, memory_bytes: 0, retry: Retry::Usual }
    }
}

pub(super) fn failed(message: &str) -> Outcome {
    Outcome::Failed(Failure { cause: FailureCause::Exception, message: message.to_owned(), limit: None })
}

/// An engine, its stores and its hooks.
pub(super) struct Bench {
    pub(super) engine: Arc<Engine>,
    pub(super) closures: Closures,
    pub(super) events: Arc<WatchedEvents>,
    pub(super) store: Arc<FaultyModels>,
    directory: Arc<tempfile::TempDir>,
    toml: String,
}

pub(super) async fn bench() -> Bench {
    bench_with("").await
}

/// With lines of configuration.
pub(super) async fn bench_with(toml: &str) -> Bench {
    open(Arc::new(tempfile::tempdir().unwrap()), toml.to_owned(), Closures::default()).await
}

/// Nodes that share one log, each with a model store of its own.
pub(super) async fn cluster(nodes: usize) -> Vec<Bench> {
    let mut benches: Vec<Bench> = Vec::new();
    let closures = Closures::default();
    while benches.len() < nodes {
        let directory = Arc::new(tempfile::tempdir().unwrap());
        let shared = benches.first().map(|first| Arc::clone(&first.events.inner));
        benches.push(open_on(directory, String::new(), closures.clone(), Log::Shared(shared), |_| ()).await);
    }
    benches
}

async fn open(directory: Arc<tempfile::TempDir>, toml: String, closures: Closures) -> Bench {
    open_on(directory, toml, closures, Log::Own, |_| ()).await
}

/// Whose log a node writes to.
enum Log {
    Own,
    /// One that other nodes write to as well; the first of them brings it.
    Shared(Option<Arc<dyn EventStore>>),
}

async fn open_on(
    directory: Arc<tempfile::TempDir>,
    toml: String,
    closures: Closures,
    log: Log,
    change: impl FnOnce(&FaultyModels),
) -> Bench {
    let mut config = Config::parse(&config_text(&toml), "config.toml", directory.path(), None, &|_| None).unwrap();
    // The secrets alone are kept in memory: a file of them would need a key.
    config.secure.driver = "memory".to_owned();
    config.secure.settings.clear();
    let mut stores = Stores::open(&config).await.unwrap();
    let (inner, is_shared) = match log {
        Log::Own => (Arc::clone(&stores.event), false),
        Log::Shared(first) => (first.unwrap_or_else(|| Arc::clone(&stores.event)), true),
    };
    let events = Arc::new(WatchedEvents {
        inner,
        is_shared,
        renewals: AtomicUsize::new(0),
        keeps_no_lease: AtomicBool::new(false),
        aged: AtomicU64::new(0),
        is_split: AtomicBool::new(false),
        held_back: AtomicU64::new(Position::MAX),
        fault: Mutex::default(),
    });
    let store = Arc::new(FaultyModels {
        inner: Arc::clone(&stores.model),
        fails: AtomicBool::new(false),
        refused: Mutex::default(),
        refused_kind: Mutex::default(),
        refused_definition: Mutex::default(),
        beyond_limits: Mutex::default(),
        slow_gets: AtomicU64::new(0),
        panics: Mutex::default(),
        applied: Mutex::default(),
    });
    change(&store);
    stores.event = Arc::clone(&events) as Arc<dyn EventStore>;
    stores.model = Arc::clone(&store) as Arc<dyn ModelStore>;
    let config = ConfigHandle::new(config);
    let host = Arc::new(HookHost::new(vec![Arc::new(closures.clone())], config.shared()));
    let engine = Engine::open(config, stores, host, &replay::Progress::default()).await.unwrap();
    Bench { engine, closures, events, store, directory, toml }
}

/// What a new model says.
pub(super) fn input(properties: Value, unique: &[&str]) -> ModelInput {
    ModelInput {
        rules: Default::default(),
        schema: Some(Json::from_value(&serde_json::json!({"type": "object", "properties": properties}))),
        unique: unique.iter().map(|name| vec![(*name).to_owned()].into()).collect(),
        ..ModelInput::default()
    }
}

pub(super) fn version(made: Defined<Arc<Model>>) -> u64 {
    let Defined::Done(model) = made else { panic!("no dry run was asked for") };
    model.record.version
}

impl Bench {
    pub(super) async fn model(&self, id: &str, input: ModelInput) -> super::Result<u64> {
        let options = WriteOptions::default();
        let made = self.engine.definitions.create(id, input, &options, &Origin::default()).await?;
        Ok(version(made))
    }

    pub(super) async fn update(&self, id: &str, input: ModelInput) -> super::Result<u64> {
        let options = WriteOptions::default();
        let made = self.engine.definitions.update(id, input, &options, &Origin::default()).await?;
        Ok(version(made))
    }

    /// Changes an instance of the model `m`.
    pub(super) async fn write(&self, change: InstanceChange, options: WriteOptions) -> super::Result<Written> {
        self.engine.writes.change("m", change, &options, &Origin::default()).await
    }

    pub(super) async fn create(&self, id: &str, data: Value) -> super::Result<Written> {
        let change = InstanceChange::Create { id: Some(id.to_owned()), data: Json::from_value(&data) };
        self.write(change, WriteOptions::default()).await
    }

    /// Creates an instance of the model `m` under an id of the server's.
    pub(super) async fn create_any(&self, n: u64) -> super::Result<Written> {
        let change = InstanceChange::Create { id: None, data: Json::from_value(&serde_json::json!({"n": n})) };
        self.write(change, WriteOptions::default()).await
    }

    /// Events that post hooks of a model have not seen, and the position up to which they have.
    pub(super) async fn events_lag(&self, model: &str) -> (u64, Position) {
        self.events.lag(&super::group::group_of(model).name).await.unwrap()
    }

    pub(super) async fn replace(&self, id: &str, data: Value) -> super::Result<Written> {
        let change = InstanceChange::Replace { id: id.to_owned(), data: Json::from_value(&data), create: false };
        self.write(change, WriteOptions::default()).await
    }

    pub(super) async fn data(&self, id: &str) -> String {
        self.engine.history.get("m", id).await.unwrap().data.to_string()
    }

    /// Gives a hook's code a meaning.
    pub(super) fn code<F>(&self, code: &str, behaviour: impl Fn(Context, Arc<Session>) -> F + Send + Sync + 'static)
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let behaviour: Behaviour = Arc::new(move |context, session| behaviour(context, session).boxed());
        self.closures.behaviours.lock().unwrap().insert(code.to_owned(), behaviour);
    }

    /// Binds a chain to a phase of the model `m`: names and code.
    pub(super) async fn bind(&self, phase: Phase, chain: &[(&str, &str)]) {
        self.bind_as(phase, chain, false).await;
    }

    pub(super) async fn bind_as(&self, phase: Phase, chain: &[(&str, &str)], shadow: bool) {
        let chain = chain
            .iter()
            .map(|(name, code)| BindingInput {
                name: Some((*name).to_owned()),
                engine: "closure".to_owned(),
                code: BindingCode::Inline(code.as_bytes().to_vec()),
                shadow,
                as_actor: false,
                origin: crate::catalog::HookOrigin::Rest,
                language: None,
            })
            .collect();
        self.engine
            .definitions
            .put_hooks("m", phase, chain, &WriteOptions::default(), &Origin::default())
            .await
            .unwrap();
    }

    pub(super) async fn errors(&self) -> Vec<ErrorRecord> {
        self.engine.deliveries.errors(&ErrorQuery { limit: 100, ..ErrorQuery::default() }).await.unwrap().records
    }

    /// Closes the engine and opens another on the same stores.
    pub(super) async fn restart(self) -> Bench {
        self.restart_with(|_| ()).await
    }

    /// The same, with a model store that is not as it was.
    pub(super) async fn restart_with(self, change: impl FnOnce(&FaultyModels)) -> Bench {
        self.engine.close(Duration::from_secs(5)).await;
        let Bench { engine, closures, events, store, directory, toml } = self;
        let log = match events.is_shared {
            true => Log::Shared(Some(Arc::clone(&events.inner))),
            false => Log::Own,
        };
        drop((engine, events, store));
        open_on(directory, toml, closures, log, change).await
    }
}

/// Waits until a condition yields a value.
pub(super) async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within 30 s: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

type Applied = Box<dyn Fn(&[Event]) + Send>;

/// A model store that fails to change anything while it is told to.
pub(super) struct FaultyModels {
    inner: Arc<dyn ModelStore>,
    pub(super) fails: AtomicBool,
    /// Events whose data has this text cannot be applied; `panic` makes the store panic instead.
    pub(super) refused: Mutex<Option<&'static str>>,
    /// The same for events of that kind.
    pub(super) refused_kind: Mutex<Option<EventKind>>,
    /// The same for models with a column of that name.
    pub(super) refused_definition: Mutex<Option<&'static str>>,
    /// A model whose stored definition no server of this version would take.
    pub(super) beyond_limits: Mutex<Option<&'static str>>,
    /// Milliseconds that each read of one instance takes.
    pub(super) slow_gets: AtomicU64,
    /// The calls that panic.
    pub(super) panics: Mutex<Vec<&'static str>>,
    /// Asked before events are applied.
    pub(super) applied: Mutex<Option<Applied>>,
}

impl FaultyModels {
    fn may_panic(&self, call: &str) {
        let panics = self.panics.lock().unwrap().contains(&call);
        assert!(!panics, "the test wants it so");
    }

    fn fault(&self) -> Result<()> {
        match self.fails.load(Ordering::Relaxed) {
            true => Err(DriverError::new(ErrorKind::Unavailable, "change", "the test wants it so")),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl ModelStore for FaultyModels {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn health(&self) -> Result<()> {
        self.inner.health().await
    }
    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
    async fn define(
        &self,
        after: Position,
        old: Option<&ModelShape>,
        new: &ModelShape,
        carry: &CarryOver,
        position: Position,
    ) -> Result<()> {
        self.fault()?;
        let refused = *self.refused_definition.lock().unwrap();
        if refused.is_some_and(|name| new.columns.iter().any(|column| column.name == name)) {
            return Err(DriverError::new(ErrorKind::Unexpected, "define", "the test wants it so"));
        }
        self.inner.define(after, old, new, carry, position).await
    }
    async fn prepare(&self, new: &ModelShape, carry: &CarryOver) -> Result<u64> {
        self.inner.prepare(new, carry).await
    }
    async fn discard(&self, model: &str, ticket: u64) -> Result<()> {
        self.inner.discard(model, ticket).await
    }
    async fn begin_replay(&self) -> Result<()> {
        self.may_panic("begin_replay");
        self.inner.begin_replay().await
    }
    async fn end_replay(&self) -> Result<Vec<(String, DriverError)>> {
        self.may_panic("end_replay");
        self.inner.end_replay().await
    }
    async fn drop_model(&self, after: Position, model: &str, position: Position) -> Result<()> {
        self.fault()?;
        self.inner.drop_model(after, model, position).await
    }
    async fn apply(&self, after: Position, events: &[Event], to: Position) -> Result<()> {
        if let Some(applied) = &*self.applied.lock().unwrap() {
            applied(events);
        }
        self.fault()?;
        let refused = *self.refused.lock().unwrap();
        let has = |event: &Event, text: &str| event.data.as_ref().is_some_and(|data| data.contains(text));
        let refused_kind = *self.refused_kind.lock().unwrap();
        if let Some(event) = refused
            .and_then(|text| events.iter().find(|event| has(event, text)))
            .or_else(|| events.iter().find(|event| Some(event.kind) == refused_kind))
        {
            assert!(!has(event, "panic"), "the test wants it so");
            // As a driver does that finds out half way.
            let message = format!("the test refuses the event at {}", event.position);
            return Err(DriverError::new(ErrorKind::Unexpected, "apply", message));
        }
        self.inner.apply(after, events, to).await
    }
    async fn checkpoint(&self) -> Result<Position> {
        self.may_panic("checkpoint");
        self.inner.checkpoint().await
    }
    async fn definitions(&self) -> Result<Vec<ModelShape>> {
        self.may_panic("definitions");
        let mut shapes = self.inner.definitions().await?;
        let beyond = *self.beyond_limits.lock().unwrap();
        for shape in shapes.iter_mut().filter(|shape| Some(shape.model.as_str()) == beyond) {
            let mut record = shape.record.to_value().unwrap();
            record["schema"] = serde_json::json!({"$ref": "https://example.com/elsewhere"});
            shape.record = Json::from_value(&record);
        }
        Ok(shapes)
    }
    async fn get(&self, model: &str, id: &str) -> Result<Option<Instance>> {
        let delay = self.slow_gets.load(Ordering::Relaxed);
        if delay > 0 {
            tokio::time::sleep(Duration::from_millis(delay)).await;
        }
        self.inner.get(model, id).await
    }
    async fn query(&self, model: &str, query: &InstanceQuery, budget: &Budget) -> Result<InstancePage> {
        self.inner.query(model, query, budget).await
    }
    async fn count(&self, model: &str, filter: &Filter, budget: &Budget) -> Result<u64> {
        self.inner.count(model, filter, budget).await
    }
    async fn log(&self) -> Result<Option<String>> {
        self.inner.log().await
    }
    async fn reset(&self, log: &str) -> Result<()> {
        self.may_panic("reset");
        self.inner.reset(log).await
    }
}

/// An event store that counts what the test wants to wait for.
pub(super) struct WatchedEvents {
    inner: Arc<dyn EventStore>,
    /// Whether other nodes use it too.
    is_shared: bool,
    pub(super) renewals: AtomicUsize,
    /// Whether leases are not renewed, with an error.
    pub(super) keeps_no_lease: AtomicBool,
    /// Events up to this position look two days older.
    pub(super) aged: AtomicU64,
    /// Whether a batch is appended event by event, so that others' events come between.
    pub(super) is_split: AtomicBool,
    /// The head and the pages end here, as in the moment after a commit, although claims show what is beyond.
    pub(super) held_back: AtomicU64,
    /// How appends fail.
    pub(super) fault: Mutex<Option<AppendFault>>,
}

/// What goes wrong with an append. `stored` appends are in the log all the same.
#[derive(Clone, Copy, Debug)]
pub(super) enum AppendFault {
    Panic {
        stored: bool,
    },
    /// One answer too few.
    Short {
        stored: bool,
    },
    Error {
        kind: ErrorKind,
        stored: bool,
    },
    /// Comes back when the fault is taken away, and then works or fails cleanly.
    Hang {
        stored: bool,
    },
}

impl AppendFault {
    const fn is_stored(self) -> bool {
        match self {
            AppendFault::Panic { stored }
            | AppendFault::Short { stored }
            | AppendFault::Error { stored, .. }
            | AppendFault::Hang { stored } => stored,
        }
    }
}

#[async_trait]
impl EventStore for WatchedEvents {
    fn capabilities(&self) -> Capabilities {
        Capabilities { shared: self.is_shared, ..self.inner.capabilities() }
    }
    fn identity(&self) -> &str {
        self.inner.identity()
    }
    async fn health(&self) -> Result<()> {
        if let Some(fault) = *self.fault.lock().unwrap() {
            return Err(DriverError::new(ErrorKind::Unavailable, "health", format!("{fault:?}")));
        }
        self.inner.health().await
    }
    async fn close(&self) -> Result<()> {
        // Others may go on with it.
        if self.is_shared { Ok(()) } else { self.inner.close().await }
    }
    async fn append(&self, batch: &[Append], atomic: bool) -> Result<Vec<std::result::Result<Appended, Conflict>>> {
        if self.is_split.load(Ordering::Relaxed) {
            let mut answers = Vec::new();
            for append in batch {
                answers.extend(self.inner.append(std::slice::from_ref(append), atomic).await?);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            return Ok(answers);
        }
        let fault = *self.fault.lock().unwrap();
        let Some(fault) = fault else { return self.inner.append(batch, atomic).await };
        while matches!(*self.fault.lock().unwrap(), Some(AppendFault::Hang { .. })) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mut answers = match fault.is_stored() {
            true => self.inner.append(batch, atomic).await?,
            false => batch.iter().map(|_| Ok(Appended { position: 1, time: 0, after: 0 })).collect(),
        };
        match fault {
            AppendFault::Panic { .. } => panic!("the test wants it so"),
            AppendFault::Short { .. } => {
                answers.pop();
                Ok(answers)
            }
            AppendFault::Hang { stored: true } => Ok(answers),
            AppendFault::Hang { stored: false } => {
                Err(DriverError::new(ErrorKind::Unavailable, "append", "the test wants it so"))
            }
            AppendFault::Error { kind, .. } => Err(DriverError::new(kind, "append", "the test wants it so")),
        }
    }
    async fn read(&self, query: &EventQuery, wait: Option<Duration>) -> Result<EventPage> {
        let end = self.held_back.load(Ordering::Relaxed);
        if end == Position::MAX {
            return self.inner.read(query, wait).await;
        }
        let mut page = self.inner.read(query, None).await?;
        page.events.retain(|event| event.position <= end);
        (page.head, page.reached) = (page.head.min(end), page.reached.min(end));
        if page.events.is_empty() && wait.is_some() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(page)
    }
    async fn last(&self, stream: &Stream, at_most: Position) -> Result<Option<Event>> {
        let last = self.inner.last(stream, at_most).await?;
        let aged = self.aged.load(Ordering::Relaxed);
        Ok(last.map(|event| match event.position <= aged {
            true => Event { time: event.time - 2 * 24 * 60 * 60 * 1000, ..event },
            false => event,
        }))
    }
    async fn head(&self) -> Result<Position> {
        Ok(self.inner.head().await?.min(self.held_back.load(Ordering::Relaxed)))
    }
    async fn reserve(&self, keys: &[(String, Stream)]) -> Result<Vec<(usize, Holder)>> {
        self.inner.reserve(keys).await
    }
    async fn forget_claims(&self, prefix: &str, limit: u32) -> Result<u64> {
        self.inner.forget_claims(prefix, limit).await
    }
    async fn next_claim(&self, from: &str) -> Result<Option<String>> {
        self.inner.next_claim(from).await
    }
    async fn holder(&self, key: &str) -> Result<Option<Holder>> {
        let holder = self.inner.holder(key).await?;
        let aged = self.aged.load(Ordering::Relaxed);
        Ok(holder.map(|holder| match holder.position <= aged {
            true => Holder { expires: holder.expires.map(|time| time - 2 * 24 * 60 * 60 * 1000), ..holder },
            false => holder,
        }))
    }
    async fn create_group(&self, group: &Group, start: Position) -> Result<()> {
        self.inner.create_group(group, start).await
    }
    async fn drop_group(&self, name: &str) -> Result<()> {
        self.inner.drop_group(name).await
    }
    async fn announce(&self, node: &snaphook_driver::Node, keep: Duration) -> Result<()> {
        self.inner.announce(node, keep).await
    }
    async fn nodes(&self) -> Result<Vec<snaphook_driver::Node>> {
        self.inner.nodes().await
    }
    async fn groups(&self) -> Result<Vec<String>> {
        self.inner.groups().await
    }
    async fn claim(&self, group: &str, limit: u32, lease: Duration) -> Result<Vec<Delivery>> {
        self.inner.claim(group, limit, lease).await
    }
    async fn ack(&self, group: &str, done: &[(Position, u64)]) -> Result<()> {
        self.inner.ack(group, done).await
    }
    async fn release(
        &self,
        group: &str,
        position: Position,
        token: u64,
        delay: Duration,
        note: Option<&str>,
    ) -> Result<()> {
        self.inner.release(group, position, token, delay, note).await
    }
    async fn renew(
        &self,
        group: &str,
        position: Position,
        token: u64,
        lease: Duration,
        note: Option<&str>,
    ) -> Result<bool> {
        if self.keeps_no_lease.load(Ordering::Relaxed) {
            return Err(DriverError::new(ErrorKind::Unavailable, "renew", "as told"));
        }
        let renewed = self.inner.renew(group, position, token, lease, note).await;
        self.renewals.fetch_add(1, Ordering::Relaxed);
        renewed
    }
    async fn is_done(&self, group: &str, stream: &Stream, position: Position) -> Result<bool> {
        self.inner.is_done(group, stream, position).await
    }
    async fn lag(&self, group: &str) -> Result<(u64, Position)> {
        self.inner.lag(group).await
    }
    async fn put_blob(&self, sha256: &str, bytes: &[u8]) -> Result<()> {
        self.inner.put_blob(sha256, bytes).await
    }
    async fn get_blob(&self, sha256: &str) -> Result<Option<Vec<u8>>> {
        self.inner.get_blob(sha256).await
    }
    async fn export(&self) -> Result<Box<dyn LogExport>> {
        self.inner.export().await
    }
    async fn import(&self, records: &[LogRecord]) -> Result<()> {
        self.inner.import(records).await
    }
    async fn finish_import(&self) -> Result<()> {
        self.inner.finish_import().await
    }
}
