//! Modules that are native libraries in this process. Quick hooks run on threads of the runtime (inline.rs), others on
//! the module's own threads (threads.rs), all of them within the module's time limit.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde_json::{Map, Value};
use snaphook_foreign::Thrown;
use snaphook_module_abi as abi;
use tokio::runtime::Handle as Runtime;
use tokio::time::{Instant, sleep, timeout_at};

use crate::exchange::{Exchange, Origin, Side};
use crate::fault::Fault;
use crate::health::Standing;
use crate::inline::{Pace, Permit};
use crate::library::{Filter, Library, OpaqueState, RequestHook, Told, with_config};
use crate::module::{
    Called, ConnectionFiltered, ConnectionHandler, ConnectionState, Filtered, Handler, Runner, Verdict, Wants,
};
use crate::output::Output;
use crate::table::{self, with_exchange, with_output};
use crate::task::Guard;
use crate::threads::Threads;

/// Timeout of each step of loading, activating, configuring and ending a module.
const ACTIVATE_MAX: Duration = Duration::from_secs(10);

/// How long to wait before retrying to destroy state, after all threads were busy.
const CLOSE_PAUSE: Duration = Duration::from_secs(1);

/// Checks that a library can be loaded, by loading it. Its initialisers may end the process or not return.
pub fn try_out(path: &Path) -> Result<(), String> {
    Library::load(path).map(drop)
}

/// An active module.
pub struct Native(Arc<Instance>);

/// The library of a module, and what is needed to call it.
struct Instance {
    standing: Arc<Standing>,
    library: Arc<Library>,
    module: OpaqueState,
    limit: Duration,
    threads: Threads,
    paces: Paces,
    runtime: Runtime,
}

/// The pace of each function.
#[derive(Default)]
struct Paces {
    open: Pace,
    close: Pace,
    before_request: Pace,
    request: Pace,
    request_error: Pace,
    response: Pace,
    body: Pace,
    connection: Pace,
}

impl Paces {
    fn of(&self, hook: RequestHook) -> &Pace {
        match hook {
            RequestHook::BeforeRequest => &self.before_request,
            RequestHook::Request => &self.request,
            RequestHook::RequestError(_) => &self.request_error,
            RequestHook::Response => &self.response,
        }
    }
}

impl Native {
    /// Loads the library, creates and activates the module, and passes its settings. The error is a sentence about the
    /// module.
    pub async fn activate(
        standing: Arc<Standing>,
        path: std::path::PathBuf,
        limit: Duration,
        settings: &Map<String, Value>,
    ) -> Result<Native, String> {
        let threads = Threads::new(Arc::clone(&standing));
        let late = |fault: Fault| match fault {
            Fault::Late(limit) => format!("it was not activated within {} s", limit.as_secs()),
            other => other.to_string(),
        };
        let library = threads.run(ACTIVATE_MAX, move || Library::load(&path)).await.map_err(late)??;
        tracing::info!(
            "module `{}`: `{}` {} is loaded: not sandboxed, it can do whatever the server can",
            standing.name,
            library.name.escape_debug(),
            library.version.escape_debug()
        );
        let library = Arc::new(library);
        let (theirs, host) = (Arc::clone(&library), table::host(&standing.name));
        let made = threads.run(ACTIVATE_MAX, move || theirs.make(host)).await.map_err(late)?;
        let module = made.map_err(|_| "its `factory` panicked or threw an exception".to_owned())?;
        if module.is_none() {
            return Err("its `factory` returned no module".to_owned());
        }
        let (paces, runtime) = (Paces::default(), Runtime::current());
        let instance = Arc::new(Instance { standing, library, module, limit, threads, paces, runtime });
        let configured = instance.configure("activate", Library::activate, settings).await;
        let configured = match configured {
            Ok(()) => instance.configure("config_change", Library::config_change, settings).await,
            error => error,
        };
        if let Err(error) = configured {
            // The module is not active, so it is not deactivated. If one of its calls has not returned, it is left as
            // it is.
            if Arc::strong_count(&instance) == 1 {
                let theirs = Arc::clone(&instance);
                let _ = instance.threads.run(ACTIVATE_MAX, move || theirs.library.recycle(theirs.module)).await;
            }
            return Err(error);
        }
        Ok(Native(instance))
    }
}

impl Instance {
    /// Calls `activate` or `config_change`.
    async fn configure(
        self: &Arc<Self>,
        name: &str,
        function: fn(&Library, OpaqueState, &abi::Config) -> Result<u32, Thrown>,
        settings: &Map<String, Value>,
    ) -> Result<(), String> {
        let json = serde_json::to_string(settings).unwrap_or_default();
        let mut flat = Vec::new();
        settings.iter().for_each(|(key, value)| flatten(key, value, &mut flat));
        let this = Arc::clone(self);
        let call = move || {
            let told = Told { module_name: &this.standing.name, json: &json, settings: &flat };
            with_config(&told, |config| function(&this.library, this.module, config))
        };
        match self.threads.run(ACTIVATE_MAX, call).await {
            Ok(Ok(abi::OK)) => Ok(()),
            Ok(Ok(abi::FAILED)) => Err(format!("its `{name}` failed; see its messages in the log")),
            Ok(Ok(other)) => Err(format!("its `{name}` returned {other}, expected OK or FAILED")),
            Ok(Err(_)) => Err(format!("its `{name}` panicked or threw an exception")),
            Err(fault) => Err(format!("its `{name}`: {fault}")),
        }
    }

    /// Runs a function of the library: on this thread if the function is quick, otherwise on one of the module's
    /// threads.
    async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        pace: impl Fn(&Paces) -> &Pace,
        guard: Option<&Arc<Guard>>,
        work: impl FnOnce(&Instance) -> T + Send + 'static,
    ) -> Result<T, Fault> {
        let may_inline = !self.library.has_flag(abi::BLOCKING) && self.standing.is_trusted();
        if may_inline
            && let Some(guard) = guard
            && pace(&self.paces).is_quick()
            && let Some(permit) = Permit::take(guard, &self.standing, self.limit)
        {
            let done = work(self);
            match permit.end() {
                Some(took) => pace(&self.paces).took(took),
                // The waiter of this task was notified and drops it.
                None => std::future::pending().await,
            }
            return Ok(done);
        }
        let this = Arc::clone(self);
        let (done, took) = self
            .threads
            .run(self.limit, move || {
                let started = std::time::Instant::now();
                let done = work(&this);
                (done, started.elapsed())
            })
            .await?;
        pace(&self.paces).took(took);
        Ok(done)
    }

    fn threw(&self) -> Fault {
        self.standing.distrust();
        Fault::Threw
    }

    /// Destroys state in a new task, because this is called wherever state is dropped. `maker`, the connection that the
    /// state may refer to, is kept until then.
    fn close(
        self: &Arc<Self>,
        destroy: impl Fn(&Library) -> Result<u32, Thrown> + Copy + Send + Sync + 'static,
        maker: Option<Arc<NativeConnection>>,
    ) {
        let instance = Arc::clone(self);
        drop(self.runtime.spawn(async move {
            let guard = Guard::new(None);
            let closing = async {
                loop {
                    let destroy = move |instance: &Instance| destroy(&instance.library);
                    let closed = instance.run(|paces| &paces.close, Some(&guard), destroy).await;
                    // Try again: otherwise the memory would be lost.
                    let Err(Fault::NoThread(_)) = closed else { break closed };
                    sleep(CLOSE_PAUSE).await;
                }
            };
            let closed = tokio::select! {
                biased;
                closed = closing => closed,
                // It was late; that failure is already counted.
                () = guard.given_up() => return,
            };
            let fault = match closed {
                Ok(Ok(code)) => filter_result(code, None, "a hook of a connection").err(),
                Ok(Err(_)) => Some(instance.threw()),
                Err(fault) => Some(fault),
            };
            if let Some(fault) = fault {
                instance.standing.strike(&fault);
            }
            drop(maker);
        }));
    }
}

/// Flattens settings to keys such as `a.b.0`, for modules that do not parse JSON.
fn flatten(key: &str, value: &Value, out: &mut Vec<(String, String)>) {
    match value {
        Value::Object(table) => table.iter().for_each(|(name, value)| flatten(&format!("{key}.{name}"), value, out)),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, value)| flatten(&format!("{key}.{index}"), value, out));
        }
        Value::String(text) => out.push((key.to_owned(), text.clone())),
        other => out.push((key.to_owned(), other.to_string())),
    }
}

impl Runner for Native {
    fn wants(&self) -> Wants {
        let library = &self.0.library;
        Wants {
            before_request: library.has_hook(RequestHook::BeforeRequest),
            request: library.has_hook(RequestHook::Request),
            request_error: library.has_hook(RequestHook::RequestError(0)),
            response: library.has_hook(RequestHook::Response),
            connections: library.has_connections(),
            whole_request: library.has_flag(abi::REQUEST_WHOLE),
            whole_response: library.has_flag(abi::RESPONSE_WHOLE),
        }
    }

    fn open<'a>(
        &'a self,
        connection: Option<&'a ConnectionState>,
        exchange: Box<Exchange>,
        guard: &'a Arc<Guard>,
    ) -> BoxFuture<'a, Called<Box<dyn Handler>>> {
        let instance = &self.0;
        let connection: Option<Arc<NativeConnection>> =
            connection.and_then(|connection| Arc::clone(&connection.0).downcast().ok());
        async move {
            // The state is destroyed even if the caller no longer waits for it.
            let owner = Arc::clone(instance);
            let opened = instance
                .run(
                    |paces| &paces.open,
                    Some(guard),
                    move |instance| {
                        with_exchange(exchange, |handle| {
                            let maker = connection.as_ref().map_or(OpaqueState::NONE, |connection| connection.state);
                            let made = instance.library.request_open(instance.module, maker, handle);
                            made.map(|state| state.map(|state| Open { instance: owner, state, connection }))
                        })
                    },
                )
                .await;
            let (mut exchange, opened) = match opened {
                Ok(opened) => opened,
                Err(fault) => return (None, Err(fault)),
            };
            // The next module must not see either of them.
            let lie = exchange.lie.take();
            exchange.waiting = None;
            let open = match (opened, lie) {
                (Err(Thrown), _) => return (Some(exchange), Err(instance.threw())),
                (Ok(_), Some(lie)) => return (Some(exchange), Err(Fault::Lied(lie))),
                (Ok(None), None) => {
                    return (Some(exchange), Err(Fault::Lied("its `request_open` returned null".to_owned())));
                }
                (Ok(Some(open)), None) => open,
            };
            let handler: Box<dyn Handler> = Box::new(NativeHandler(Some(Arc::new(open))));
            (Some(exchange), Ok(handler))
        }
        .boxed()
    }

    fn connect<'a>(
        &'a self,
        origin: &'a Origin,
        guard: &'a Arc<Guard>,
    ) -> BoxFuture<'a, Result<Option<Box<dyn ConnectionHandler>>, Fault>> {
        let instance = &self.0;
        async move {
            if !instance.library.has_connections() {
                return Ok(None);
            }
            let (origin, owner) = (origin.clone(), Arc::clone(instance));
            let opened = instance
                .run(
                    |paces| &paces.connection,
                    Some(guard),
                    move |instance| {
                        let library = &instance.library;
                        let made = library.connection_open(instance.module, &origin.peer, origin.is_secure);
                        made.map(|state| NativeConnection { instance: owner, state, has_begun: AtomicBool::new(false) })
                    },
                )
                .await?;
            let connection = Arc::new(opened.map_err(|Thrown| instance.threw())?);
            Ok(Some(Box::new(connection) as Box<dyn ConnectionHandler>))
        }
        .boxed()
    }

    fn configure<'a>(&'a self, settings: &'a Map<String, Value>) -> BoxFuture<'a, Result<(), String>> {
        self.0.configure("config_change", Library::config_change, settings).boxed()
    }

    fn is_in_use(&self) -> bool {
        // Each open request, open connection and running function holds another reference.
        Arc::strong_count(&self.0) > 1
    }

    fn retire(&self) -> BoxFuture<'_, Result<(), String>> {
        let instance = &self.0;
        async move {
            let this = Arc::clone(instance);
            let ended = instance
                .threads
                .run(ACTIVATE_MAX, move || {
                    let deactivated = this.library.deactivate(this.module);
                    deactivated.and(this.library.recycle(this.module))
                })
                .await;
            match ended {
                Ok(Ok(())) => Ok(()),
                Ok(Err(_)) => Err("its `deactivate` or `recycler` panicked or threw an exception".to_owned()),
                Err(fault) => Err(format!("its `deactivate` or `recycler`: {fault}")),
            }
        }
        .boxed()
    }
}

/// The module's state of an open request.
struct Open {
    instance: Arc<Instance>,
    state: OpaqueState,
    /// The connection that the request came on. Its state outlives the request's.
    connection: Option<Arc<NativeConnection>>,
}

impl Drop for Open {
    fn drop(&mut self) {
        if !self.instance.library.closes_requests() {
            return;
        }
        let state = self.state;
        let destroy = move |library: &Library| library.request_close(state).map(|()| abi::OK);
        self.instance.close(destroy, self.connection.take());
    }
}

struct NativeHandler(Option<Arc<Open>>);

impl Handler for NativeHandler {
    fn call<'a>(
        &'a mut self,
        hook: RequestHook,
        exchange: Box<Exchange>,
        guard: &'a Arc<Guard>,
    ) -> BoxFuture<'a, Called<Verdict>> {
        async move {
            let Some(open) = self.0.clone() else { return (Some(exchange), Err(Fault::Lost)) };
            let mut exchange = exchange;
            let side = exchange.open;
            let mut deadline = None;
            loop {
                // A resumed hook may change the same side as before.
                exchange.open = side;
                let open = Arc::clone(&open);
                let instance = Arc::clone(&open.instance);
                let called = instance
                    .run(
                        |paces| paces.of(hook),
                        Some(guard),
                        move |instance| {
                            let called =
                                with_exchange(exchange, |handle| instance.library.call(hook, open.state, handle));
                            drop(open);
                            called
                        },
                    )
                    .await;
                let (back, result) = match called {
                    Ok(called) => called,
                    Err(fault) => {
                        // The hook may still run; the state is destroyed when it returns.
                        self.0 = None;
                        return (None, Err(fault));
                    }
                };
                exchange = back;
                let Ok(code) = result else { return (Some(exchange), Err(instance.threw())) };
                if let Some(lie) = exchange.lie.take() {
                    return (Some(exchange), Err(Fault::Lied(lie)));
                }
                let waiting = exchange.waiting.take();
                let verdict = match (code, waiting) {
                    (abi::PENDING, Some(mut waiting)) => {
                        // One deadline for all waits of a hook, which may wait repeatedly.
                        let deadline = *deadline.get_or_insert_with(|| Instant::now() + instance.limit);
                        match timeout_at(deadline, waiting.resumed()).await {
                            Ok(()) if Instant::now() < deadline => continue,
                            _ => Err(Fault::Late(instance.limit)),
                        }
                    }
                    (abi::PENDING, None) => {
                        Err(Fault::Lied(format!("its `{}` returned PENDING, but requested no token", hook.name())))
                    }
                    (abi::DECLINED, _) => Ok(Verdict::Declined),
                    (abi::OK, _) => Ok(Verdict::Ok),
                    (abi::FAILED, _) => Err(Fault::Failed),
                    (status @ 400..=599, _) => Ok(Verdict::Status(status as u16)),
                    (other, _) => Err(Fault::Lied(format!(
                        "its `{}` returned {other}, which is neither a result nor a status from 400 to 599",
                        hook.name()
                    ))),
                };
                return (Some(exchange), verdict);
            }
        }
        .boxed()
    }

    fn filter<'a>(
        &'a mut self,
        side: Side,
        bytes: Bytes,
        is_last: bool,
        guard: &'a Arc<Guard>,
    ) -> BoxFuture<'a, Result<Filtered, Fault>> {
        async move {
            let open = self.0.clone().ok_or(Fault::Lost)?;
            let filter = match side {
                Side::Request => Filter::RequestBody,
                Side::Response => Filter::ResponseBody,
            };
            let instance = Arc::clone(&open.instance);
            let memory = guard.memory();
            if !instance.library.has_filter(filter) {
                return Err(Fault::Lied("it requested the pieces of a body, but has no filter for them".to_owned()));
            }
            let filtered = instance
                .run(
                    |paces| &paces.body,
                    Some(guard),
                    move |instance| {
                        with_output(Output::of(side, memory), |handle| {
                            instance.library.filter(filter, open.state, &bytes, is_last, handle)
                        })
                    },
                )
                .await;
            let (mut output, result) = match filtered {
                Ok(filtered) => filtered,
                Err(fault) => {
                    self.0 = None;
                    return Err(fault);
                }
            };
            let (result, lie) = (result.map_err(|_| instance.threw())?, output.lie.take());
            let [to_server, to_peer] = output.into_bytes()?;
            let written = match side {
                Side::Request => to_server,
                Side::Response => to_peer,
            };
            filter_result(result, lie, "a filter of a body")
                .map(|is_replaced| if is_replaced { Filtered::Replaced(written) } else { Filtered::Unchanged })
        }
        .boxed()
    }
}

/// Whether the output replaces the input.
fn filter_result(code: u32, lie: Option<String>, what: &str) -> Result<bool, Fault> {
    match (code, lie) {
        (_, Some(lie)) => Err(Fault::Lied(lie)),
        (abi::DECLINED, None) => Ok(false),
        (abi::OK, None) => Ok(true),
        (abi::FAILED, None) => Err(Fault::Failed),
        (other, None) => Err(Fault::Lied(format!("{what} returned {other}, expected OK, DECLINED or FAILED"))),
    }
}

/// The module's state of a connection. Kept while the connection or one of its requests is open.
struct NativeConnection {
    instance: Arc<Instance>,
    state: OpaqueState,
    /// Whether `connection_start` was called, so that `connection_end` has to be called too.
    has_begun: AtomicBool,
}

impl Drop for NativeConnection {
    fn drop(&mut self) {
        let (state, has_begun) = (self.state, *self.has_begun.get_mut());
        let end_and_close = move |library: &Library| {
            let ended = if has_begun { library.connection_end(state) } else { Ok(abi::OK) };
            library.connection_close(state).and(ended)
        };
        self.instance.close(end_and_close, None);
    }
}

impl ConnectionHandler for Arc<NativeConnection> {
    fn state(&self) -> ConnectionState {
        ConnectionState(Arc::<NativeConnection>::clone(self))
    }

    fn start<'a>(&'a mut self, guard: &'a Arc<Guard>) -> BoxFuture<'a, Result<ConnectionFiltered, Fault>> {
        self.has_begun.store(true, Ordering::Relaxed);
        self.filtered(guard, |library, state, output| library.connection_start(state, output))
    }

    fn filter<'a>(
        &'a mut self,
        to: Side,
        bytes: Bytes,
        is_last: bool,
        guard: &'a Arc<Guard>,
    ) -> BoxFuture<'a, Result<ConnectionFiltered, Fault>> {
        let filter = match to {
            Side::Request => Filter::ConnectionRead,
            Side::Response => Filter::ConnectionWrite,
        };
        if !self.instance.library.has_filter(filter) {
            return std::future::ready(Ok(ConnectionFiltered::default())).boxed();
        }
        self.filtered(guard, move |library, state, output| library.filter(filter, state, &bytes, is_last, output))
    }
}

trait FilteredConnection {
    fn filtered<'a>(
        &'a self,
        guard: &'a Arc<Guard>,
        call: impl FnOnce(&Library, OpaqueState, usize) -> Result<u32, Thrown> + Send + 'static,
    ) -> BoxFuture<'a, Result<ConnectionFiltered, Fault>>;
}

impl FilteredConnection for Arc<NativeConnection> {
    fn filtered<'a>(
        &'a self,
        guard: &'a Arc<Guard>,
        call: impl FnOnce(&Library, OpaqueState, usize) -> Result<u32, Thrown> + Send + 'static,
    ) -> BoxFuture<'a, Result<ConnectionFiltered, Fault>> {
        let this = Arc::clone(self);
        async move {
            let instance = Arc::clone(&this.instance);
            let theirs = Arc::clone(&this);
            let memory = guard.memory();
            let (mut output, result) = instance
                .run(
                    |paces| &paces.connection,
                    Some(guard),
                    move |instance| {
                        with_output(Output::new(memory), |handle| call(&instance.library, theirs.state, handle))
                    },
                )
                .await?;
            let (result, lie) = (result.map_err(|_| instance.threw())?, output.lie.take());
            let [to_server, to_peer] = output.into_bytes()?;
            let is_replaced = filter_result(result, lie, "a hook of a connection")?;
            Ok(ConnectionFiltered { is_replaced, to_server, to_peer })
        }
        .boxed()
    }
}
