//! The open stores, the runtime of their calls, and the calls that wait.

use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::task::{Context, Waker};

use prost::Message as _;
use serde_json::Value;
use snaphook_driver::wire::{Method, Opened, Service, decode, proto};
use snaphook_driver::{Driver, DriverError, ErrorKind, OpenContext, Result, Store, json};
use tokio::runtime::{self, Handle};
use tokio::task::AbortHandle;

use crate::answer::PendingAnswer;
use crate::serving::Serving;

/// Threads of the runtime.
const WORKERS: usize = 2;

/// All stores of this library.
pub(crate) struct Stores {
    name: &'static str,
    drivers: &'static [Driver],
    open: RwLock<HashMap<u64, Arc<OpenStore>>>,
    handles: AtomicU64,
    runtime: Mutex<Weak<Runtime>>,
    /// Calls that wait in the runtime, by number.
    waiting: Mutex<HashMap<u64, AbortHandle>>,
}

struct OpenStore {
    service: Service,
    /// Declared after the service, because the service may need the runtime while it is dropped.
    runtime: Arc<Runtime>,
}

impl Stores {
    pub(crate) fn new(name: &'static str, drivers: &'static [Driver]) -> Stores {
        Stores {
            name,
            drivers,
            open: RwLock::default(),
            handles: AtomicU64::new(1),
            runtime: Mutex::default(),
            waiting: Mutex::default(),
        }
    }

    /// Opens a store; the answer is an `OpenResponse`.
    pub(crate) fn open(&'static self, request: Vec<u8>, answer: PendingAnswer) {
        let runtime = match self.runtime() {
            Ok(runtime) => runtime,
            Err(error) => return answer.send(Err(error)),
        };
        let kept = Arc::clone(&runtime);
        let work = async move {
            let (driver, store, context) = self.read(&request)?;
            let service = Service::new(Opened::open(driver, store, context).await?);
            let handle = self.handles.fetch_add(1, Ordering::Relaxed);
            let response = service.describe(handle).encode_to_vec();
            let store = Arc::new(OpenStore { service, runtime: kept });
            self.open.write().unwrap_or_else(PoisonError::into_inner).insert(handle, store);
            Ok(response)
        };
        // Opening may take long, so none of it runs on the server's thread.
        self.spawn(&runtime.handle, answer.call(), Serving::new(work, answer), true);
    }

    /// Calls a method of an open store.
    pub(crate) fn call(&'static self, handle: u64, method: u32, request: Vec<u8>, answer: PendingAnswer) {
        let refuse = |message: String| DriverError::new(ErrorKind::Invalid, "call", message);
        let Some(method) = Method::from_number(method) else {
            return answer.send(Err(refuse(format!("there is no method {method}"))));
        };
        let answer = answer.to(method);
        let store = self.open.read().unwrap_or_else(PoisonError::into_inner).get(&handle).map(Arc::clone);
        let Some(store) = store else {
            return answer.send(Err(refuse(format!("there is no open store {handle}"))));
        };
        if closes(method) {
            self.open.write().unwrap_or_else(PoisonError::into_inner).remove(&handle);
        }
        let (call, runtime) = (answer.call(), store.runtime.handle.clone());
        let _inside = runtime.enter();
        let mut serving = Serving::new(async move { store.service.call(method, &request).await }, answer);
        // Most calls of most drivers never wait; polling them here saves two thread switches. A call that does wait is
        // polled again at once in the runtime, with a real waker.
        let first = pin!(&mut serving).poll(&mut Context::from_waker(Waker::noop()));
        if first.is_pending() {
            // An append that is given up continues: the server waits for its end, which must not be reported too early.
            let is_cancellable = method != Method::EventAppend;
            self.spawn(&runtime, call, serving, is_cancellable);
        }
    }

    /// Ends a call early: dropping it answers it.
    pub(crate) fn cancel(&self, call: u64) {
        let waiting = self.waiting().remove(&call);
        if let Some(waiting) = waiting {
            waiting.abort();
        }
    }

    fn spawn(&'static self, runtime: &Handle, call: u64, serving: Serving, is_cancellable: bool) {
        // The lock is held, so that a call that ends at once is added before it is removed.
        let mut waiting = self.waiting();
        let forget = Forget { stores: self, call };
        let task = runtime.spawn(async move {
            let _forget = forget;
            serving.await;
        });
        if is_cancellable {
            waiting.insert(call, task.abort_handle());
        }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, AbortHandle>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, request: &[u8]) -> Result<(&'static Driver, Store, OpenContext)> {
        let refuse = |message: String| DriverError::new(ErrorKind::Invalid, "open", message);
        let request: proto::OpenRequest = decode(request).map_err(|fault| refuse(fault.to_string()))?;
        let driver = usize::try_from(request.driver).ok().and_then(|index| self.drivers.get(index));
        let driver = driver.ok_or_else(|| refuse(format!("there is no driver {}", request.driver)))?;
        let store = Store::try_from(request.store()).map_err(|fault| refuse(fault.to_string()))?;
        let settings = match json::parse(&request.settings_json) {
            Ok(Value::Object(settings)) => settings,
            Ok(_) => return Err(refuse("the settings are not an object".to_owned())),
            Err(fault) => return Err(refuse(format!("the settings are not valid JSON: {fault}"))),
        };
        let context = OpenContext {
            settings,
            directory: request.directory.into(),
            node: request.node,
            resumes_import: request.resumes_import,
        };
        Ok((driver, store, context))
    }

    /// The runtime, which exists while any store is open.
    fn runtime(&self) -> Result<Arc<Runtime>> {
        let mut current = self.runtime.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = current.upgrade() {
            return Ok(runtime);
        }
        let name = format!("plugin-{}", self.name);
        let built = runtime::Builder::new_multi_thread().worker_threads(WORKERS).thread_name(name).enable_all().build();
        let built = built.map_err(|error| {
            DriverError::new(ErrorKind::Unavailable, "open", "the plugin cannot start its threads").because(error)
        })?;
        let runtime = Arc::new(Runtime { handle: built.handle().clone(), owned: Some(built) });
        *current = Arc::downgrade(&runtime);
        Ok(runtime)
    }
}

fn closes(method: Method) -> bool {
    matches!(method, Method::SecureClose | Method::EventClose | Method::ModelClose | Method::ErrorClose)
}

/// Removes a call from the waiting calls when it ends.
struct Forget {
    stores: &'static Stores,
    call: u64,
}

impl Drop for Forget {
    fn drop(&mut self) {
        self.stores.waiting().remove(&self.call);
    }
}

struct Runtime {
    handle: Handle,
    owned: Option<runtime::Runtime>,
}

impl Drop for Runtime {
    fn drop(&mut self) {
        if let Some(runtime) = self.owned.take() {
            // The last store may be closed on a thread of the runtime itself, which cannot block until the runtime
            // ends.
            runtime.shutdown_background();
        }
    }
}
