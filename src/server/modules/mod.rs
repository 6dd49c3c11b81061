//! `[[server.modules]]`: the modules in force, loaded at start, replaced while the server runs, ended with it. How a request
//! goes through them is the crate `snaphook-modules`.

pub(super) mod connection;
mod load;
pub(super) mod request;
mod sandboxed;

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};
use snaphook_modules::{Chain, Module};
use tokio::sync::Mutex;
use tokio::time::sleep;

use self::load::{Loaded, Source};
use crate::config::{ChangeCause, Changes, Config, ConfigError, ConfigErrors, ConfigHandle, ModuleConfig};
use crate::engine::Engine;
use crate::hooks::library::Stamp;
use crate::telemetry::exposition::Exposition;

/// How long a module may be in use after the server stopped. Then it is not ended in an orderly way: it may hang.
const END_MAX: Duration = Duration::from_secs(5);

/// Time between two looks at whether a module is in use.
const LOOK: Duration = Duration::from_millis(20);

/// The modules in force.
pub struct Modules {
    chain: ArcSwap<Chain>,
    loaded: Mutex<Vec<Loaded>>,
    /// The files as they were just before they were loaded.
    opened: Vec<Option<Stamp>>,
}

impl Modules {
    /// Loads and activates all of them, in their order. An optional module that cannot be is left out, and the log says so.
    pub async fn open(config: &Config, engine: &Engine) -> Result<Arc<Modules>, ConfigErrors> {
        let opened = stamps(config);
        let modules = Modules { chain: ArcSwap::from_pointee(Chain::default()), loaded: Mutex::default(), opened };
        match modules.replace(config, engine, false).await {
            Ok(()) => Ok(Arc::new(modules)),
            Err(error) => Err(ConfigErrors::new(config.name(), vec![error])),
        }
    }

    pub(super) fn chain(&self) -> Guard<Arc<Chain>> {
        self.chain.load()
    }

    /// Those that were deactivated: name, reason, and whether requests are served without it.
    pub(super) fn deactivated(&self) -> Vec<(String, String, bool)> {
        let chain = self.chain.load();
        let standings = chain.modules().iter().map(|module| &module.standing);
        standings
            .filter(|standing| standing.health.is_deactivated())
            .map(|standing| (standing.name.clone(), standing.health.reason(), standing.is_optional))
            .collect()
    }

    /// Which are active, and what went wrong with them; nothing without modules.
    pub(super) fn write_metrics(&self, out: &mut Exposition) {
        let chain = self.chain.load();
        if chain.is_empty() {
            return;
        }
        let standings = || chain.modules().iter().map(|module| &module.standing);
        let mut active = out.gauge("snaphook_module_active", "Whether a module is called: 0 after it was deactivated");
        for standing in standings() {
            active.sample(&[("module", standing.name.as_str())], u8::from(!standing.health.is_deactivated()));
        }
        let mut failures = out.counter("snaphook_module_failures", "Calls of modules that failed");
        for standing in standings() {
            for (reason, count) in standing.health.counts() {
                failures.sample(&[("module", standing.name.as_str()), ("reason", reason)], count);
            }
        }
    }

    /// Follows the configuration, SIGHUP and the files of libraries until it is dropped. What cannot be loaded leaves all
    /// as it was.
    pub(super) async fn follow(self: Arc<Self>, config: Arc<ConfigHandle>, engine: Arc<Engine>) {
        let mut reloads = config.subscribe();
        let mut seen = self.opened.clone();
        loop {
            let files = load::files(&config.load());
            // The watcher first, then the look at the files, so that no change falls between the two.
            let mut changes = Changes::of(&files);
            let mut is_told = false;
            loop {
                let current = config.current();
                // Other files of their folders change too, such as a log.
                let before = std::mem::replace(&mut seen, stamps(&current));
                if (before != seen || is_told)
                    && let Err(error) = self.replace(&current, &engine, is_told).await
                {
                    let line = error.line.map_or_else(String::new, |line| format!(":{line}"));
                    tracing::error!("{}{line}: {}; the previous modules stay in force", current.name(), error.message);
                }
                if load::files(&current) != files {
                    break;
                }
                is_told = tokio::select! {
                    change = changes.next() => change == ChangeCause::Hangup,
                    // Its sender lives as long as the handle.
                    _ = reloads.changed() => true,
                };
            }
        }
    }

    /// Ends all of them, in reverse order, once they are not in use any more.
    pub async fn close(&self) {
        self.chain.store(Arc::default());
        let mut loaded = std::mem::take(&mut *self.loaded.lock().await);
        while let Some(last) = loaded.pop() {
            end(last.module, Some(END_MAX)).await;
        }
    }

    /// Makes what the configuration says be in force. `is_told`: modules that stay get their settings again.
    async fn replace(&self, config: &Config, engine: &Engine, is_told: bool) -> Result<(), ConfigError> {
        let mut loaded = self.loaded.lock().await;
        let mut next: Vec<Loaded> = Vec::new();
        let mut made: Vec<Arc<Module>> = Vec::new();
        for wanted in load::in_process(config) {
            match self::next(&loaded, wanted, config, engine).await {
                Ok(Next::Same(module, source)) => {
                    if is_told {
                        configure(&module, wanted, engine).await;
                    }
                    next.push(Loaded { config: wanted.clone(), source, module });
                }
                Ok(Next::Made(new)) => {
                    made.push(Arc::clone(&new.module));
                    next.push(new);
                }
                Err(message) => {
                    let message = format!("the module `{}` cannot be used: {message}", wanted.name);
                    if wanted.optional {
                        match loaded.iter().find(|old| old.config.name == wanted.name) {
                            Some(old) => {
                                tracing::error!("{message}; the previous one stays in force");
                                next.push(old.again());
                            }
                            None => tracing::error!("{message}; it is optional, and left out"),
                        }
                        continue;
                    }
                    drop(next);
                    for module in made.into_iter().rev() {
                        end(module, Some(END_MAX)).await;
                    }
                    return Err(ConfigError::new(wanted.line, message));
                }
            }
        }
        let chain = Chain::new(next.iter().map(|loaded| Arc::clone(&loaded.module)).collect());
        self.chain.store(Arc::new(chain));
        let before = std::mem::replace(&mut *loaded, next);
        let is_gone = |old: &Loaded| !loaded.iter().any(|loaded| Arc::ptr_eq(&loaded.module, &old.module));
        let gone: Vec<Loaded> = before.into_iter().filter(is_gone).collect();
        if !gone.is_empty() {
            tokio::spawn(async move {
                for old in gone.into_iter().rev() {
                    end(old.module, None).await;
                }
            });
        }
        Ok(())
    }
}

fn stamps(config: &Config) -> Vec<Option<Stamp>> {
    load::files(config).iter().map(|file| Stamp::at(file)).collect()
}

/// What becomes of a module of the configuration.
enum Next {
    Same(Arc<Module>, Source),
    Made(Loaded),
}

async fn next(loaded: &[Loaded], wanted: &ModuleConfig, config: &Config, engine: &Engine) -> Result<Next, String> {
    let (source, code) = load::read(wanted).await?;
    let old = loaded.iter().find(|old| {
        let is_active = !old.module.standing.health.is_deactivated();
        let of_same_settings = ModuleConfig { settings: wanted.settings.clone(), ..old.config.clone() };
        old.source == source && of_same_settings.is_same(wanted) && (is_active || old.config.is_same(wanted))
    });
    match old {
        Some(old) => Ok(Next::Same(Arc::clone(&old.module), source)),
        None => load::load(wanted, source, code, config, engine).await.map(Next::Made),
    }
}

async fn configure(module: &Module, wanted: &ModuleConfig, engine: &Engine) {
    if module.standing.health.is_deactivated() {
        return;
    }
    let configured = match load::settings(wanted, engine).await {
        Ok(settings) => module.runner.configure(&settings).await,
        Err(error) => Err(error),
    };
    if let Err(error) = configured {
        tracing::error!("module `{}` keeps its configuration: {error}", module.standing.name);
    }
}

/// Ends a module that no new request gets to, once it is in use no more.
async fn end(module: Arc<Module>, patience: Option<Duration>) {
    let started = Instant::now();
    // Requests and connections hold the chain that they came with.
    while Arc::strong_count(&module) > 1 || module.runner.is_in_use() {
        if patience.is_some_and(|patience| started.elapsed() > patience) {
            tracing::warn!(
                "module `{}` is still in use, so it is neither deactivated nor recycled: some of its calls did not return",
                module.standing.name
            );
            return;
        }
        sleep(LOOK).await;
    }
    if let Err(error) = module.runner.retire().await {
        tracing::warn!("module `{}` could not be ended: {error}", module.standing.name);
    }
}
