//! A store that a library opened, and how calls reach it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use prost::Message as _;
use serde_json::Value;
use snaphook_driver::wire::{Client, Method, Opened, Transport, decode, proto};
use snaphook_driver::{DriverError, ErrorKind, OpenContext, Result, Store};
use tokio::sync::oneshot;

use crate::answer::{self, Operation};
use crate::inline::{Paces, Permit};
use crate::loaded::Loaded;
use crate::outcome::{CallOutcome, Stage};
use crate::outstanding::Outstanding;
use crate::threads::NoThread;
use crate::{calls, completion, watch};

/// Opens a store of the driver with this index.
pub(crate) async fn open(plugin: &Arc<Loaded>, driver: usize, store: Store, context: OpenContext) -> Result<Opened> {
    let refuse = |kind, message: String| Err(DriverError::new(kind, "open", message));
    let Some(description) = plugin.description.drivers.get(driver) else {
        return refuse(ErrorKind::Invalid, format!("the plugin `{}` has no driver {driver}", plugin.name()));
    };
    if !description.stores.contains(&store) {
        let message = format!("the driver `{}` provides no {store} storage", description.name);
        return refuse(ErrorKind::Unsupported, message);
    }
    let Some(directory) = context.directory.to_str() else {
        let message = format!("the folder `{}` is not UTF-8", context.directory.display());
        return refuse(ErrorKind::Config, message);
    };
    let request = proto::OpenRequest {
        driver: driver as u32,
        store: proto::Store::from(store).into(),
        settings_json: Value::Object(context.settings).to_string(),
        directory: directory.to_owned(),
        node: context.node,
        resumes_import: context.resumes_import,
    };
    let time = plugin.deadlines.whole;
    let outcome = start(plugin, CallTarget::Open, request.encode_to_vec(), time, None)?.outcome().await;
    let response = answer::read(plugin, Operation::Open, time, outcome)?;
    let garbage = |fault: String| {
        plugin.faults().garbage(plugin);
        let message = format!("the response of the plugin `{}` {fault}", plugin.name());
        DriverError::new(ErrorKind::Unexpected, "open", message)
    };
    let response: proto::OpenResponse =
        decode(&response).map_err(|fault| garbage(format!("cannot be read: {fault}")))?;
    if store == Store::Event && response.log.is_empty() {
        return Err(garbage("has no identity of the log".to_owned()));
    }
    let transport = LibraryStore {
        plugin: Arc::clone(plugin),
        handle: response.handle,
        store,
        paces: Arc::new(Paces::new()),
        dropped: Arc::default(),
        overdue: Arc::default(),
        is_closed: AtomicBool::new(false),
    };
    Ok(Client::new(Arc::new(transport), response).into_opened(store))
}

struct LibraryStore {
    plugin: Arc<Loaded>,
    handle: u64,
    store: Store,
    paces: Arc<Paces>,
    /// Changes that were dropped. A linked driver stops a change while its future is dropped, and some callers rely on
    /// that; a library stops it slightly later. So the next change waits until it ends.
    dropped: Arc<Outstanding>,
    /// Appends that are past their deadline. Their outcome is unknown until they end, so the store is unhealthy until
    /// then.
    overdue: Arc<Outstanding>,
    is_closed: AtomicBool,
}

impl LibraryStore {
    fn target(&self, method: Method) -> CallTarget {
        CallTarget::Method { handle: self.handle, method, paces: Arc::clone(&self.paces) }
    }

    fn close_method(&self) -> Method {
        match self.store {
            Store::Secure => Method::SecureClose,
            Store::Event => Method::EventClose,
            Store::Model => Method::ModelClose,
            Store::Error => Method::ErrorClose,
        }
    }
}

#[async_trait]
impl Transport for LibraryStore {
    async fn call(&self, method: Method, request: Vec<u8>) -> Result<Vec<u8>> {
        if self.is_closed.load(Ordering::Relaxed) {
            return Err(DriverError::new(ErrorKind::Unavailable, method.name(), "the store is closed"));
        }
        let unavailable = |message: &str| DriverError::new(ErrorKind::Unavailable, method.name(), message);
        let time = self.plugin.deadlines.of(method, &request);
        if method == self.close_method() {
            self.is_closed.store(true, Ordering::Relaxed);
        } else if method.changes() && tokio::time::timeout(time, self.dropped.ended()).await.is_err() {
            return Err(unavailable("an earlier change that was abandoned is still running"));
        } else if method == Method::EventHealth && !self.overdue.is_empty() {
            return Err(unavailable("an append that timed out is still running"));
        }
        let overdue = (method == Method::EventAppend).then(|| Arc::clone(&self.overdue));
        let mut started = start(&self.plugin, self.target(method), request, time, overdue)?;
        started.dropped = method.changes().then(|| Arc::clone(&self.dropped));
        let outcome = started.outcome().await;
        if matches!(outcome, CallOutcome::Late(Stage::Running)) {
            self.paces.never_again(method);
        }
        answer::read(&self.plugin, Operation::Method(method), time, outcome)
    }
}

impl Drop for LibraryStore {
    /// A linked store releases its resources when it is dropped; so does this one, in the background.
    fn drop(&mut self) {
        if !*self.is_closed.get_mut() {
            let (target, time) = (self.target(self.close_method()), self.plugin.deadlines.whole);
            if let Ok(mut started) = start(&self.plugin, target, Vec::new(), time, None) {
                started.is_over = true;
            }
        }
    }
}

#[derive(Clone)]
enum CallTarget {
    Open,
    Method { handle: u64, method: Method, paces: Arc<Paces> },
}

impl CallTarget {
    fn operation(&self) -> Operation {
        match self {
            CallTarget::Open => Operation::Open,
            CallTarget::Method { method, .. } => Operation::Method(*method),
        }
    }

    fn is_quick(&self) -> bool {
        match self {
            CallTarget::Open => false,
            CallTarget::Method { method, paces, .. } => paces.is_quick(*method),
        }
    }
}

/// Starts a call: on a thread of the runtime if its method is quick, otherwise on one of the plugin's threads.
fn start(
    plugin: &Arc<Loaded>,
    target: CallTarget,
    request: Vec<u8>,
    time: Duration,
    overdue: Option<Arc<Outstanding>>,
) -> Result<Started> {
    let operation = target.operation().name();
    let Some((number, receiver)) = calls::begin(plugin, time, overdue) else {
        let message = format!("the plugin `{}` has too many calls without a response", plugin.name());
        return Err(DriverError::new(ErrorKind::Unavailable, operation, message));
    };
    watch::wake();
    let started = Started { plugin: Arc::clone(plugin), number, receiver, dropped: None, is_over: false };
    let permit = if target.is_quick() { Permit::take() } else { None };
    let work = Work { plugin: Arc::clone(plugin), number, target, request };
    match permit {
        // A separate task, so that the waiter can give up the call.
        Some(permit) => {
            tokio::spawn(async move {
                calls::on_runtime_thread(|| work.run());
                drop(permit);
            });
        }
        None => plugin.threads().run(move || work.run()).map_err(|NoThread(why)| {
            let message = format!("the plugin `{}` cannot be called: {why}", plugin.name());
            DriverError::new(ErrorKind::Unavailable, operation, message)
        })?,
    }
    Ok(started)
}

/// A call in progress. It is given up when this is dropped.
struct Started {
    plugin: Arc<Loaded>,
    number: u64,
    receiver: oneshot::Receiver<CallOutcome>,
    /// For a change: where it is counted if it is given up.
    dropped: Option<Arc<Outstanding>>,
    is_over: bool,
}

impl Started {
    async fn outcome(mut self) -> CallOutcome {
        let outcome = (&mut self.receiver).await;
        self.is_over = true;
        // The call was lost, so its effect is unknown.
        outcome.unwrap_or(CallOutcome::Thrown)
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let ending = self.dropped.as_ref().map(Outstanding::add);
        if calls::abandon(self.number, ending) {
            self.plugin.cancel(self.number);
        }
    }
}

/// A call that is ready to run.
struct Work {
    plugin: Arc<Loaded>,
    number: u64,
    target: CallTarget,
    request: Vec<u8>,
}

impl Work {
    /// Calls the library's function on this thread.
    fn run(self) {
        let Work { plugin, number, target, request } = self;
        if !calls::enter(number) {
            return;
        }
        let completion = completion::of(number);
        let result = match target {
            CallTarget::Open => plugin.library.open(&request, completion),
            CallTarget::Method { handle, method, paces } => {
                let started = Instant::now();
                let result = plugin.library.call(handle, method.number(), &request, completion);
                match result {
                    Ok(()) => paces.took(method, started.elapsed()),
                    Err(_) => paces.never_again(method),
                }
                result
            }
        };
        if result.is_err() {
            plugin.faults().thrown(&plugin);
        }
        if calls::leave(number, result.is_err()) {
            plugin.cancel(number);
        }
    }
}
