//! Keeps a process of the bridge running: restarts it with exponential backoff, deactivates modules that fail too often, and
//! passes on changes of the configuration.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, timeout};

use super::control::Control;
use super::message::{Order, Report};
use super::modules::Module;
use super::process::Process;
use super::program;
use super::threads::Threads;
use crate::config::{Config, ConfigHandle, ModuleConfig};
use crate::drivers::references::{references, with_values};
use crate::engine::Engine;
use crate::telemetry::exposition::Exposition;

/// Permits for open connections; more than there can be at once.
pub(super) const CONNECTIONS: u32 = 1 << 20;

/// Time limit for a process to accept connections. The process has its own limits for each module.
const START_MAX: Duration = Duration::from_mins(2);

/// Time from the end of its socket until the process is killed.
const END_MAX: Duration = Duration::from_secs(5);

/// Time for connections when the server stops, after their requests have ended.
const STOP_TIME: Duration = Duration::from_millis(500);

/// Time for the connections of a process that is replaced.
const REPLACED_TIME: Duration = Duration::from_mins(1);

/// The shortest and the longest pause before a restart.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// A process that ran for this long is restarted without a pause.
const STEADY: Duration = Duration::from_mins(1);

/// The bridge, across restarts of its process.
pub struct Bridge {
    program: PathBuf,
    modules: Mutex<Vec<Module>>,
    /// The socket to the process that accepts connections.
    pub(super) control: watch::Sender<Option<Arc<Control>>>,
    pub(super) threads: Threads,
    /// [`CONNECTIONS`] permits, less one for each open connection.
    pub(super) open: Arc<Semaphore>,
    /// The first process, until `keep` takes it.
    first: Mutex<Option<Process>>,
    starts: Mutex<u64>,
}

/// Why a process did not start to accept connections.
struct Unstarted {
    module: Option<usize>,
    what: String,
}

/// The inputs of the supervisor.
struct SupervisorInputs {
    handle: Arc<ConfigHandle>,
    engine: Arc<Engine>,
    reloads: watch::Receiver<u64>,
    stop: watch::Receiver<bool>,
}

/// An event for the supervisor.
enum Event {
    Report(Report),
    /// The process has closed its socket.
    End,
    Reload,
    Stop,
}

impl Bridge {
    /// Starts the bridge, if any module needs it. The error is a whole message.
    pub async fn open(config: &Config, engine: &Engine) -> Result<Option<Arc<Bridge>>, String> {
        let modules = modules(config, engine).await?;
        if modules.is_empty() {
            return Ok(None);
        }
        let bridge = Arc::new(Bridge {
            program: program::find(&config.server.zia_bridge)?,
            modules: Mutex::new(modules),
            control: watch::channel(None).0,
            threads: Threads::new(),
            open: Arc::new(Semaphore::new(CONNECTIONS as usize)),
            first: Mutex::new(None),
            starts: Mutex::new(0),
        });
        let process = loop {
            match bridge.start(config).await {
                Ok(process) => break process,
                Err(unstarted) => match bridge.failed_to_start(&unstarted) {
                    true => {}
                    false => return Err(bridge.told(config, &unstarted)),
                },
            }
        };
        bridge.control.send_replace(Some(Arc::clone(&process.control)));
        *bridge.first.lock().unwrap_or_else(PoisonError::into_inner) = Some(process);
        Ok(Some(bridge))
    }

    /// Keeps the bridge running until the server stops: `stop` becomes true when all requests have ended.
    pub(in crate::server) async fn keep(
        self: Arc<Self>,
        handle: Arc<ConfigHandle>,
        engine: Arc<Engine>,
        stop: watch::Receiver<bool>,
    ) {
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut process) = first else { return };
        let mut kept = SupervisorInputs { reloads: handle.subscribe(), handle, engine, stop };
        loop {
            let started = Instant::now();
            let is_over = loop {
                let event = tokio::select! {
                    bytes = process.control.receive() => match Report::parse(&bytes) {
                        Some(report) => Event::Report(report),
                        None => Event::End,
                    },
                    _ = kept.reloads.changed() => Event::Reload,
                    _ = kept.stop.wait_for(|stop| *stop) => Event::Stop,
                };
                match event {
                    Event::Report(report) => self.take(&process.control, report).await,
                    Event::Reload => {
                        let config = kept.handle.current();
                        tokio::select! {
                            () = self.reload(&mut process, &config, &kept.engine) => {}
                            // Dropping the reload ends a process that it has started.
                            _ = kept.stop.wait_for(|stop| *stop) => break true,
                        }
                    }
                    Event::End => break false,
                    Event::Stop => break true,
                }
            };
            self.control.send_replace(None);
            if is_over {
                process.stop(STOP_TIME).await;
                return;
            }
            let status = process.ended(END_MAX).await;
            tracing::error!("the bridge for zia modules ended with all its connections: {status}");
            process = match self.start_again(&mut kept, started).await {
                Some(process) => process,
                None => return,
            };
        }
    }

    /// Starts a new process, with retries. `None`: the server stops.
    async fn start_again(&self, kept: &mut SupervisorInputs, started: Instant) -> Option<Process> {
        let mut pause = if started.elapsed() > STEADY { Duration::ZERO } else { PAUSE.0 };
        loop {
            tokio::select! {
                () = sleep(pause) => {}
                _ = kept.stop.wait_for(|stop| *stop) => return None,
            }
            pause = (pause * 2).clamp(PAUSE.0, PAUSE.1);
            // A required module is deactivated: no request would be served until the configuration changes.
            while self.refusal().is_some() {
                tokio::select! {
                    _ = kept.reloads.changed() => {}
                    _ = kept.stop.wait_for(|stop| *stop) => return None,
                }
                match modules(&kept.handle.current(), &kept.engine).await {
                    Ok(new) => *self.lock() = new,
                    Err(message) => tracing::error!("{message}; the modules stay as they were"),
                }
            }
            let config = kept.handle.current();
            let started = tokio::select! {
                started = self.start(&config) => started,
                // Dropping the process ends it.
                _ = kept.stop.wait_for(|stop| *stop) => return None,
            };
            match started {
                Ok(process) => {
                    tracing::info!("the bridge for zia modules runs again");
                    self.control.send_replace(Some(Arc::clone(&process.control)));
                    return Some(process);
                }
                Err(unstarted) => {
                    self.failed_to_start(&unstarted);
                    tracing::error!("the bridge for zia modules does not start: {}", unstarted.what);
                }
            }
        }
    }

    /// Starts a process with the active modules.
    async fn start(&self, config: &Config) -> Result<Process, Unstarted> {
        let broken = |what: String| Unstarted { module: None, what };
        *self.starts.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        let process = Process::start(&self.program)
            .map_err(|error| broken(format!("`{}` cannot be started: {error}", self.program.display())))?;
        let mut orders: Vec<(Option<usize>, Order)> = {
            let modules = self.lock();
            let active = modules.iter().enumerate().filter(|(_, module)| module.deactivated.is_none());
            active.map(|(number, module)| (Some(number), module.order(number))).collect()
        };
        orders.extend([Order::limits(&config.server), Order::activate()].map(|order| (None, order)));
        for (module, order) in &orders {
            match process.control.send(order).await {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => {
                    return Err(Unstarted {
                        module: *module,
                        what: format!("its configuration cannot be passed on: {error}"),
                    });
                }
                // The process has ended; its earlier messages are read below.
                Err(_) => break,
            }
        }
        let mut reason = None;
        let ready = async {
            loop {
                match Report::parse(&process.control.receive().await) {
                    Some(Report::Ready) => return true,
                    Some(Report::Refused { module, what }) => {
                        if self.is_optional(module) {
                            self.deactivate(module, what);
                        } else {
                            reason = Some(Unstarted { module: Some(module), what });
                        }
                    }
                    Some(Report::Failed { module, what }) => {
                        reason = Some(Unstarted { module, what: format!("its {what}") });
                    }
                    Some(Report::Crashed { module, what }) => {
                        reason = Some(Unstarted { module, what: format!("its {what} crashed") });
                    }
                    None => return false,
                }
            }
        };
        match timeout(START_MAX, ready).await {
            Ok(true) => {
                self.lock().iter_mut().for_each(Module::started);
                Ok(process)
            }
            Ok(false) => {
                let status = process.ended(END_MAX).await;
                Err(reason.unwrap_or_else(|| broken(format!("the program ended: {status}"))))
            }
            Err(_) => Err(broken(format!("the modules were not ready within {START_MAX:?}"))),
        }
    }

    /// Counts a failed start. Returns whether to try again: the reason was an optional module.
    fn failed_to_start(&self, unstarted: &Unstarted) -> bool {
        let mut modules = self.lock();
        let Some(module) = unstarted.module.and_then(|number| modules.get_mut(number)) else { return false };
        module.failed_to_start(Instant::now(), &unstarted.what);
        module.config.optional
    }

    fn told(&self, config: &Config, unstarted: &Unstarted) -> String {
        let modules = self.lock();
        match unstarted.module.and_then(|number| modules.get(number)) {
            Some(Module { config: module, .. }) => format!(
                "{}:{}: module `{}` cannot be used: {}",
                config.name(),
                module.line,
                module.name,
                unstarted.what
            ),
            None => format!("the bridge for zia modules does not start: {}", unstarted.what),
        }
    }

    async fn take(&self, control: &Control, report: Report) {
        let (module, what) = match report {
            Report::Failed { module, what } => (module, what),
            Report::Crashed { module, what } if what.is_empty() => (module, "crashed".to_owned()),
            Report::Crashed { module, what } => (module, format!("{what} crashed")),
            Report::Refused { module, what } => (Some(module), what),
            Report::Ready => return,
        };
        let Some(number) = module else {
            tracing::error!("the bridge for zia modules: {what}");
            return;
        };
        let is_deactivated = self.lock().get_mut(number).is_some_and(|module| module.strike(Instant::now(), &what));
        if is_deactivated {
            // If this fails, the process is gone, and the next one is started without the module.
            let _ = control.send(&Order::deactivate(number)).await;
        }
    }

    /// Passes new limits and settings to the running process; starts a new process for a changed list of modules.
    async fn reload(&self, process: &mut Process, config: &Config, engine: &Engine) {
        // If this fails, the process is gone, and the next one is started with the new limits.
        let _ = process.control.send(&Order::limits(&config.server)).await;
        let new = match modules(config, engine).await {
            Ok(new) => new,
            Err(message) => return tracing::error!("{message}; the modules stay as they were"),
        };
        let is_same_but_settings = {
            let old = self.lock();
            let unset = |module: &Module| ModuleConfig { settings: Map::new(), line: 0, ..module.config.clone() };
            old.len() == new.len() && old.iter().zip(&new).all(|(old, new)| unset(old) == unset(new))
        };
        if is_same_but_settings {
            for (number, new) in new.into_iter().enumerate() {
                let is_changed = self.lock().get_mut(number).is_some_and(|old| {
                    let is_changed = old.config.settings != new.config.settings;
                    old.config = new.config.clone();
                    is_changed
                });
                if is_changed
                    && let Err(error) = process.control.send(&Order::config_change(number, &new.config.settings)).await
                {
                    tracing::error!("module `{}` cannot receive its new configuration: {error}", new.config.name);
                }
            }
            return;
        }
        let old = std::mem::replace(&mut *self.lock(), new);
        match self.start(config).await {
            Ok(started) => {
                self.control.send_replace(Some(Arc::clone(&started.control)));
                // The old process ends after its connections.
                tokio::spawn(std::mem::replace(process, started).stop(REPLACED_TIME));
                tracing::info!("the bridge for zia modules runs the new modules");
            }
            Err(unstarted) => {
                let message = self.told(config, &unstarted);
                *self.lock() = old;
                tracing::error!("{message}; the modules stay as they were");
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Module>> {
        self.modules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_optional(&self, number: usize) -> bool {
        self.lock().get(number).is_some_and(|module| module.config.optional)
    }

    fn deactivate(&self, number: usize, why: String) {
        if let Some(module) = self.lock().get_mut(number) {
            module.deactivate(why);
        }
    }

    /// Why all requests are rejected: a module that is not optional is deactivated.
    pub(super) fn refusal(&self) -> Option<String> {
        let modules = self.lock();
        let gone = modules.iter().find(|module| module.deactivated.is_some() && !module.config.optional)?;
        Some(format!("the module `{}` is deactivated", gone.config.name))
    }

    /// The deactivated modules with the reasons: those because of which requests are rejected, and the optional ones.
    pub(in crate::server) fn troubles(&self) -> (Map<String, Value>, Map<String, Value>) {
        let modules = self.lock();
        let named = |optional: bool| {
            let gone = modules.iter().filter(move |module| module.config.optional == optional);
            gone.filter_map(|module| Some((module.config.name.clone(), module.deactivated.clone()?.into())))
        };
        let mut refused: Map<_, _> = named(false).collect();
        if refused.is_empty() && self.control.borrow().is_none() {
            let waits = modules.iter().map(|module| (module.config.name.clone(), "the bridge is not running".into()));
            refused.extend(waits);
        }
        (refused, named(true).collect())
    }

    pub(in crate::server) fn write_metrics(&self, out: &mut Exposition) {
        let starts = *self.starts.lock().unwrap_or_else(PoisonError::into_inner);
        out.counter("snaphook_zia_bridge_starts", "Processes started for zia modules").sample(&[], starts);
        let modules = self.lock();
        let mut failures = out.counter("snaphook_zia_module_failures", "Faults of zia modules");
        modules.iter().for_each(|module| failures.sample(&[("module", &*module.config.name)], module.failures));
        let mut active = out.gauge("snaphook_zia_module_active", "Whether a zia module is active");
        for module in modules.iter() {
            active.sample(&[("module", &*module.config.name)], u8::from(module.deactivated.is_none()));
        }
    }
}

/// The zia modules of a configuration, with the values of their secrets. The error is a whole message.
async fn modules(config: &Config, engine: &Engine) -> Result<Vec<Module>, String> {
    let mut modules = Vec::new();
    for module in config.server.modules.iter().filter(|module| module.kind.is_zia()) {
        let mut module = module.clone();
        let mut secrets = Vec::new();
        for name in references(&module.settings) {
            let fault = |what: String| format!("{}:{}: module `{}` {what}", config.name(), module.line, module.name);
            let secret = match engine.operations.secret(&name).await {
                Ok(Some(secret)) => String::from_utf8(secret.expose().to_vec()).ok(),
                Ok(None) => return Err(fault(format!("names the secret `{name}`, which does not exist"))),
                Err(error) => return Err(fault(format!("names the secret `{name}`, which cannot be read: {error}"))),
            };
            secrets.push(secret.ok_or_else(|| fault(format!("names the secret `{name}`, which is not text")))?);
        }
        module.settings = with_values(&module.settings, &secrets);
        modules.push(Module::new(module));
    }
    Ok(modules)
}
