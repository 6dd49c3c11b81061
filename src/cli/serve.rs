//! `snaphook serve`: opens everything in its order, serves, and closes everything in reverse.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use snaphook_driver::{Actor, ActorKind, time};
use snaphook_identity::{TokenError, Tokens};
use tokio::sync::{oneshot, watch};

use super::failure::{Failure, Result};
use super::global::Global;
use super::{log, output, rebuild, traces};
use crate::catalog::files::read_what_is_whole;
use crate::config::{self, AuthMode, Config, ConfigErrors, ConfigHandle, LogFormat, MountAddress};
use crate::drivers::{self, Stores};
use crate::engine::command::Origin;
use crate::engine::{Engine, replay};
use crate::hooks::engines;
use crate::hooks::host::HookHost;
use crate::memory::allocator;
use crate::server::{self, BoundSockets, Front, Listeners, Modules, Tls, ZiaBridge};

/// What requests and hooks that run get to finish once the server is asked to stop.
const GRACE: Duration = Duration::from_secs(10);
/// Signals within this time count as one: a terminal, a shell and a supervisor may each send theirs.
const ONE_STOP: Duration = Duration::from_secs(1);
/// What the collector of traces gets to take the last spans.
const TRACES_GRACE: Duration = Duration::from_secs(3);
/// Quick native hooks run on the server's threads: as much as a program's main thread has. Untouched, it costs nothing.
const STACK_BYTES: usize = 8 << 20;
/// Who changes models and hooks at start.
const ACTOR_APPLY: &str = "apply";

/// What differs when something else than `snaphook serve` serves.
#[derive(Default)]
pub(super) struct Options {
    /// Told where it listens, once it does.
    pub(super) ready: Option<oneshot::Sender<MountAddress>>,
    /// A folder whose models and hooks are applied before anybody is served, as far as they can be, whatever
    /// `hooks.apply` says.
    pub(super) folder: Option<PathBuf>,
}

/// What is open while requests are served.
struct Node {
    handle: Arc<ConfigHandle>,
    engine: Arc<Engine>,
    tokens: Arc<Tokens>,
}

pub(super) fn serve(global: &Global) -> Result<()> {
    let config = global.config()?;
    if global.log_format.is_none() && config.telemetry.log_format == LogFormat::Json {
        log::use_json();
    }
    match &config.file {
        Some(file) => tracing::info!("configuration: {}", file.display()),
        None => tracing::info!(
            "no {} here: serving this machine alone, at {}, without authentication, and with the defaults for the rest",
            config::FILE_DEFAULT,
            config.server.mount_address
        ),
    }
    let workers = config.server.workers;
    // What a native module does not give back is a spare thread.
    let spare = if config.server.modules.is_empty() { 0 } else { snaphook_modules::spare_threads(workers) };
    on_all_cores(workers + spare, run(config, Options::default()))
}

/// Runs what serves to its end.
pub(super) fn on_all_cores(workers: usize, work: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .thread_stack_size(STACK_BYTES)
        .thread_name("snaphook")
        .on_thread_park(allocator::before_sleep)
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("no runtime: {error}")))?;
    let result = runtime.block_on(work);
    // Everything was closed, and the process is about to exit. Threads outside of the runtime may still be in a hook
    // that was given up; if the runtime were shut down, their next look at one of its timers would panic.
    std::mem::forget(runtime);
    result
}

/// Serves until a signal asks to stop. A step of the start that fails undoes those before it.
pub(super) async fn run(config: Config, options: Options) -> Result<()> {
    let start = Instant::now();
    let mut stop = stop_signal()?;
    let node = drivers::node_id(&config.directory).map_err(Failure::new)?;
    let stores = Stores::open_as(&node, &config).await.map_err(|error| Failure::new(error.to_string()))?;
    // Bound at once, so that a port that is in use is known before anything is done; opened when requests can be answered.
    let sockets = match server::bind(&config).await {
        Ok(sockets) => sockets,
        Err(message) => {
            stores.close().await;
            return Err(Failure::new(message));
        }
    };
    let handle = ConfigHandle::new(config);
    let tokens = match open_tokens(&handle.load(), &stores).await {
        Ok(tokens) => tokens,
        Err(error) => {
            stores.close().await;
            return Err(error);
        }
    };
    let traces = match traces::start(&handle.load(), &stores).await {
        Ok(traces) => traces,
        Err(error) => {
            stores.close().await;
            return Err(error);
        }
    };
    let served = match open_engine(&handle, stores, &mut stop).await {
        Ok(Some(engine)) => serve_until(stop, start, &Node { handle, engine, tokens }, sockets, options).await,
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    // Last: the last hooks are in it.
    if let Some(traces) = traces {
        traces.close(TRACES_GRACE).await;
    }
    served?;
    tracing::info!("stopped");
    Ok(())
}

/// `None`: a signal came before the work was done, which ends where it waits.
async fn unless_stopped<T>(stop: &mut watch::Receiver<Option<Instant>>, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        done = work => Some(done),
        _ = stop.wait_for(Option::is_some) => None,
    }
}

/// The tokens of the secure store; where tokens are asked for and there is none, the first one is made.
async fn open_tokens(config: &Config, stores: &Stores) -> Result<Arc<Tokens>> {
    let failed = |error: TokenError| Failure::new(format!("the tokens cannot be used: {error}"));
    let tokens = Tokens::open(Arc::clone(&stores.secure)).await.map_err(failed)?;
    if config.auth.mode == AuthMode::Tokens {
        let file = &config.auth.admin_token;
        if tokens.ensure_admin(file, time::now()).await.map_err(failed)? {
            tracing::info!("created the first token, of an admin: it is in `{}`", file.display());
        }
    }
    Ok(Arc::new(tokens))
}

/// The engine, with the model store caught up; `None` if a signal came first: the next start goes on from where the replay
/// is then. If there is no engine the stores are closed.
async fn open_engine(
    handle: &Arc<ConfigHandle>,
    stores: Stores,
    stop: &mut watch::Receiver<Option<Instant>>,
) -> Result<Option<Arc<Engine>>> {
    let start = Instant::now();
    let host = Arc::new(HookHost::new(engines::all(&handle.load()), handle.shared()));
    let progress = Arc::new(replay::Progress::default());
    let bar = rebuild::show(&progress, "replay");
    let opening = Engine::open(Arc::clone(handle), stores.clone(), host, &progress);
    let opened = unless_stopped(stop, opening).await;
    bar.finish().await;
    match opened {
        Some(Ok(engine)) => {
            let models = engine.definitions.all().len();
            tracing::info!("models loaded: {models}, {:.1} ms", start.elapsed().as_secs_f64() * 1e3);
            Ok(Some(engine))
        }
        None => {
            stores.close().await;
            Ok(None)
        }
        Some(Err(error)) => {
            stores.close().await;
            Err(Failure::new(error.to_string()))
        }
    }
}

/// From the loaded engine to the closed one.
async fn serve_until(
    mut stop: watch::Receiver<Option<Instant>>,
    start: Instant,
    node: &Node,
    sockets: BoundSockets,
    options: Options,
) -> Result<()> {
    let Node { handle, engine, tokens } = node;
    let config = handle.current();
    let prepared = async {
        apply(&config, engine, options.folder.as_deref()).await?;
        engine.definitions.compile_hooks().await;
        Ok(())
    };
    let served = match unless_stopped(&mut stop, prepared).await {
        None => Ok(()),
        Some(Err(error)) => Err(error),
        Some(Ok(())) => match open_transport(&config, engine).await {
            Ok(tls) => serve_with_modules(sockets, tls, stop.clone(), start, node, options).await,
            Err(faults) => Err(faults.into()),
        },
    };
    if let Err(error) = tokens.close().await {
        tracing::warn!("when tokens were last used cannot be stored: {error}");
    }
    let asked = *stop.borrow_and_update();
    engine.close(asked.map_or(GRACE, |asked| GRACE.saturating_sub(asked.elapsed()))).await;
    served
}

/// What requests need: the components of endpoints, and TLS.
async fn open_transport(config: &Config, engine: &Engine) -> std::result::Result<Option<Arc<Tls>>, ConfigErrors> {
    engine.endpoints().load().await?;
    Tls::open(config, engine).await
}

/// From the active modules to those that were ended.
async fn serve_with_modules(
    sockets: BoundSockets,
    tls: Option<Arc<Tls>>,
    stop: watch::Receiver<Option<Instant>>,
    start: Instant,
    node: &Node,
    options: Options,
) -> Result<()> {
    let modules = Modules::open(&node.handle.current(), &node.engine).await?;
    let served = match open_sockets(node, sockets).await {
        Ok((listeners, zia)) => serve_at(listeners, Front { tls, zia }, &modules, stop, start, node, options).await,
        Err(message) => Err(Failure::new(message)),
    };
    modules.close().await;
    served
}

/// What connections come to, once the modules that get them first are ready.
async fn open_sockets(
    node: &Node,
    sockets: BoundSockets,
) -> std::result::Result<(Listeners, Option<Arc<ZiaBridge>>), String> {
    let zia = ZiaBridge::open(&node.handle.current(), &node.engine).await?;
    Ok((sockets.listen()?, zia))
}

/// From the open port to the signal that asks to stop.
async fn serve_at(
    listeners: Listeners,
    front: Front,
    modules: &Arc<Modules>,
    mut stop: watch::Receiver<Option<Instant>>,
    start: Instant,
    node: &Node,
    options: Options,
) -> Result<()> {
    let Node { handle, engine, tokens } = node;
    let config = handle.current();
    let reload = tokio::spawn(config::watch(Arc::clone(handle), check_again));
    let giving_back = tokio::spawn(allocator::keep_giving_back(config.server.workers));
    let mount_address = listeners.address(&config);
    let address = mount_address.to_string();
    announce(&config, &mount_address, start)?;
    let announcing = tokio::spawn({
        let (engine, address) = (Arc::clone(engine), address.clone());
        async move { engine.operations.keep_announcing(&address).await }
    });
    if let Some(ready) = options.ready {
        // Whoever asked may have gone.
        let _ = ready.send(mount_address);
    }
    let shutdown = async move {
        let _ = stop.wait_for(Option::is_some).await;
        tracing::info!(
            "stopping: running requests and hooks have {} s to finish; a second signal, sent at least {} s from now, stops immediately",
            GRACE.as_secs(),
            ONE_STOP.as_secs()
        );
    };
    let modules = Arc::clone(modules);
    let served = server::run(listeners, front, modules, Arc::clone(engine), Arc::clone(tokens), handle, shutdown).await;
    reload.abort();
    giving_back.abort();
    announcing.abort();
    engine.operations.leave(&address).await;
    served.map_err(|error| Failure::new(format!("the server failed: {error}")))
}

/// What may be wrong with a configuration that is loaded again.
fn check_again(config: &Config) -> std::result::Result<(), ConfigErrors> {
    drivers::check(config)?;
    server::check_endpoints(config)
}

/// `[hooks] apply = true`.
async fn apply(config: &Config, engine: &Arc<Engine>, folder: Option<&Path>) -> Result<()> {
    if let Some(folder) = folder {
        return apply_what_is_whole(folder, engine).await;
    }
    if !config.hooks.apply {
        return Ok(());
    }
    super::apply::check_folder(config)?;
    let start = Instant::now();
    let directory: &Path = &config.hooks.directory;
    let origin = origin_of_apply();
    let applied = engine.definitions.apply(directory, &origin).await.map_err(|error| {
        let line = format!("`hooks.apply` is true, but `{}` cannot be applied: {error}", directory.display());
        Failure::new(line)
    })?;
    for step in &applied.steps {
        tracing::info!("{step}");
    }
    for kept in &applied.kept {
        tracing::warn!("{kept}");
    }
    for note in super::apply::left_out(directory, read_what_is_whole(directory).0.len()) {
        tracing::warn!("{note}");
    }
    tracing::info!(
        "{} applied: {} changes, {:.1} ms",
        directory.display(),
        applied.steps.len(),
        start.elapsed().as_secs_f64() * 1e3
    );
    Ok(())
}

/// The server itself.
fn origin_of_apply() -> Origin {
    Origin { actor: Some(Arc::new(Actor::new(ActorKind::Server, ACTOR_APPLY))), ..Origin::default() }
}

/// What is wrong is for the caller to find out: it is left as it was.
async fn apply_what_is_whole(folder: &Path, engine: &Arc<Engine>) -> Result<()> {
    let origin = origin_of_apply();
    let (models, _) = read_what_is_whole(folder);
    match engine.definitions.apply_files(&models, &origin).await {
        // What is kept is said by whoever looks at the files from now on.
        Ok(applied) => applied.steps.iter().try_for_each(output::line),
        Err(_) => Ok(()),
    }
}

/// One line on stdout: the address, with the port that the system chose if the configuration asks for 0.
fn announce(config: &Config, address: &MountAddress, start: Instant) -> Result<()> {
    let place = match address {
        MountAddress::Tcp(address) => config.url_at(&address.to_string()),
        MountAddress::Unix(_) => address.to_string(),
    };
    tracing::info!("started in {:.0} ms", start.elapsed().as_secs_f64() * 1e3);
    match output::line(format!("snaphook serves at {place}")) {
        // Nobody reads it; the log says where it serves, too.
        Err(Failure::OutputClosed) => Ok(()),
        result => result,
    }
}

/// Holds the time of the first SIGINT or SIGTERM. A later one ends the process, unless it comes within [`ONE_STOP`].
pub(super) fn stop_signal() -> Result<watch::Receiver<Option<Instant>>> {
    let mut signals = Signals::new().map_err(|error| Failure::new(format!("cannot listen for signals: {error}")))?;
    let (sender, receiver) = watch::channel(None);
    tokio::spawn(async move {
        signals.next().await;
        let asked = Instant::now();
        sender.send_replace(Some(asked));
        let code = loop {
            let code = signals.next().await;
            if asked.elapsed() >= ONE_STOP {
                break code;
            }
        };
        tracing::warn!("stopped immediately; every acknowledged change is in the event log");
        engines::exit_at_once(code);
    });
    Ok(receiver)
}

/// The signals that ask to stop; [`Signals::next`] gives the exit code that goes with one.
#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        // A limit of the size of files is an error of the write that meets it, and no reason to end.
        let _ = signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?;
        Ok(Signals { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => 130,
            _ = self.terminate.recv() => 143,
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Signals)
    }

    async fn next(&mut self) -> u8 {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        130
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_signal_ends_a_start_that_takes_long() {
        let (sender, mut stop) = watch::channel(None);
        assert_eq!(unless_stopped(&mut stop, async { 1 }).await, Some(1));
        let endless = unless_stopped(&mut stop, std::future::pending::<()>());
        let (ended, ()) = tokio::join!(endless, async {
            sender.send_replace(Some(Instant::now()));
        });
        assert_eq!(ended, None);
    }
}
