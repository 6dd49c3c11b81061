//! The current configuration, and its replacement while the server runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;

use super::endpoints::EndpointConfig;
use super::error::ConfigErrors;
use super::load::Purpose;
use super::settings::{Config, DriverConfig, Grant};
use super::static_files::StaticConfig;

/// The current configuration. Grants and limits follow the file; everything else stays as it was at the start.
pub struct ConfigHandle {
    current: Arc<ArcSwap<Config>>,
    generation: AtomicU64,
    changed: watch::Sender<u64>,
}

/// The result of a reload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reloaded {
    /// Keys that took effect.
    pub applied: Vec<&'static str>,
    /// Keys that have changed but need a restart; their old values stay in use.
    pub restart: Vec<&'static str>,
}

impl ConfigHandle {
    pub fn new(config: Config) -> Arc<Self> {
        Arc::new(ConfigHandle {
            current: Arc::new(ArcSwap::from_pointee(config)),
            generation: AtomicU64::new(1),
            changed: watch::channel(1).0,
        })
    }

    /// The current configuration, for short use.
    pub fn load(&self) -> Guard<Arc<Config>> {
        self.current.load()
    }

    /// The current configuration, for longer use.
    pub fn current(&self) -> Arc<Config> {
        self.current.load_full()
    }

    /// The cell itself, for callers that always need the current configuration.
    pub fn shared(&self) -> Arc<ArcSwap<Config>> {
        Arc::clone(&self.current)
    }

    /// The number of changes, starting at 1. Code that caches something derived from the configuration must read this
    /// first and the configuration second, so that the cached value is never older than its generation.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Notifies of each change, with the generation.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Reloads the file and applies the keys that can change. Errors leave everything as it was; without a file there
    /// is nothing to do. `check` validates things that only the layers above know, such as the names of drivers.
    pub fn reload(&self, check: impl FnOnce(&Config) -> Result<(), ConfigErrors>) -> Result<Reloaded, ConfigErrors> {
        let old = self.current();
        let Some(file) = &old.file else { return Ok(Reloaded { applied: Vec::new(), restart: Vec::new() }) };
        let new = Config::load_as(file, &old.name(), Purpose::Api, check)?;
        Ok(self.replace(new))
    }

    /// Applies the keys that can change.
    pub(super) fn replace(&self, new: Config) -> Reloaded {
        let old = &*self.current();
        let restart = restart(old, &new);
        let mut merged = old.clone();
        let mut applied = Vec::new();
        if !same_grants(old, &new) {
            applied.push("grants");
        }
        let modules_differ = !same_modules(old, &new);
        let has_zia_now = has_zia(&new);
        // Even if they are equal: their lines, which denial messages name, may have changed.
        merged.grants = new.grants;
        let mut take = |key, changed: bool| {
            if changed {
                applied.push(key);
            }
        };
        take("server.max-body", old.server.max_body_bytes != new.server.max_body_bytes);
        take("server.limits.memory", old.server.memory_bytes != new.server.memory_bytes);
        take("server.limits.requests-per-second", old.server.requests_per_second != new.server.requests_per_second);
        take("server.limits.trusted-proxies", old.server.trusted_proxies != new.server.trusted_proxies);
        take("server.endpoints", !same_endpoints(&old.server.endpoints, &new.server.endpoints));
        take("server.limits.hosts", old.server.hosts != new.server.hosts);
        take("hooks.timeout", old.hooks.limits.timeout != new.hooks.limits.timeout);
        take("hooks.memory", old.hooks.limits.memory_bytes != new.hooks.limits.memory_bytes);
        take("hooks.isolation", old.hooks.isolation != new.hooks.isolation);
        take("hooks.concurrency", old.hooks.concurrency != new.hooks.concurrency);
        take("hooks.max-attempts", old.hooks.attempts_max != new.hooks.attempts_max);
        take("hooks.webhook-attempts", old.hooks.webhook_attempts_max != new.hooks.webhook_attempts_max);
        // Whether connections go to the bridge is only decided at the start.
        if has_zia(old) == has_zia_now {
            take("server.modules", modules_differ);
            merged.server.modules = new.server.modules;
        }
        merged.server.max_body_bytes = new.server.max_body_bytes;
        merged.server.memory_bytes = new.server.memory_bytes;
        merged.server.requests_per_second = new.server.requests_per_second;
        merged.server.hosts = new.server.hosts;
        merged.server.trusted_proxies = new.server.trusted_proxies;
        merged.server.endpoints = new.server.endpoints;
        // Turning TLS on or off would change the address's scheme.
        if let (Some(old), Some(new)) = (&old.server.tls, new.server.tls) {
            if !old.is_same(&new) {
                applied.push("server.tls");
            }
            merged.server.tls = Some(new);
        }
        merged.hooks.limits = new.hooks.limits;
        merged.hooks.isolation = new.hooks.isolation;
        merged.hooks.concurrency = new.hooks.concurrency;
        merged.hooks.attempts_max = new.hooks.attempts_max;
        merged.hooks.webhook_attempts_max = new.hooks.webhook_attempts_max;
        if merged != *old {
            self.current.store(Arc::new(merged));
            let generation = self.generation.fetch_add(1, Ordering::AcqRel) + 1;
            self.changed.send_replace(generation);
        }
        Reloaded { applied, restart }
    }
}

/// The keys that differ and are only read at start.
fn restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let differs =
        |left: &DriverConfig, right: &DriverConfig| left.driver != right.driver || left.settings != right.settings;
    let connections_differ = !old.connections.keys().eq(new.connections.keys())
        || old.connections.values().zip(new.connections.values()).any(|(left, right)| differs(left, right));
    [
        ("server.mount-address", old.server.mount_address != new.server.mount_address),
        ("server.mount-path", old.server.mount_path != new.server.mount_path),
        ("telemetry", !old.telemetry.is_same(&new.telemetry)),
        ("server.tls", old.server.tls.is_some() != new.server.tls.is_some()),
        ("server.redirect-http", old.server.redirect_http != new.server.redirect_http),
        ("server.cors", old.server.cors != new.server.cors),
        ("server.static", !same_files(old, new)),
        ("server.limits.connections", old.server.connections_max != new.server.connections_max),
        ("server.modules", has_zia(old) != has_zia(new)),
        ("server.zia-bridge", old.server.zia_bridge != new.server.zia_bridge),
        ("server.workers", old.server.workers != new.server.workers),
        ("auth", old.auth != new.auth),
        ("plugins", old.plugins != new.plugins),
        ("connections", connections_differ),
        ("hooks.directory", old.hooks.directory != new.hooks.directory),
        ("hooks.apply", old.hooks.apply != new.hooks.apply),
        ("hooks.cache", old.hooks.cache != new.hooks.cache),
        ("hooks.v8.reset", old.hooks.v8_reset != new.hooks.v8_reset),
        ("driver-secure-storage", differs(&old.secure, &new.secure) || old.private_key != new.private_key),
        ("driver-event-storage", differs(&old.event, &new.event)),
        ("driver-model-storage", differs(&old.model, &new.model)),
        ("driver-error-storage", differs(&old.error, &new.error)),
    ]
    .into_iter()
    .filter_map(|(key, differs)| differs.then_some(key))
    .collect()
}

/// Whether both serve the same files, ignoring lines in the configuration.
fn same_files(old: &Config, new: &Config) -> bool {
    let unplaced = |config: &Config| config.server.static_files.clone().map(|files| StaticConfig { line: 0, ..files });
    unplaced(old) == unplaced(new)
}

/// Whether both are equal, ignoring lines in the file.
fn same_endpoints(old: &[EndpointConfig], new: &[EndpointConfig]) -> bool {
    old.iter().map(EndpointConfig::unplaced).eq(new.iter().map(EndpointConfig::unplaced))
}

fn has_zia(config: &Config) -> bool {
    config.server.modules.iter().any(|module| module.kind.is_zia())
}

/// Whether both have the same modules, ignoring lines in the file.
fn same_modules(old: &Config, new: &Config) -> bool {
    let (old, new) = (&old.server.modules, &new.server.modules);
    old.len() == new.len() && old.iter().zip(new).all(|(old, new)| old.is_same(new))
}

/// Whether both have the same grants, ignoring lines in the file.
fn same_grants(old: &Config, new: &Config) -> bool {
    let unplaced =
        |config: &Config| -> Vec<_> { config.grants.iter().map(|grant| Grant { line: 0, ..grant.clone() }).collect() };
    unplaced(old) == unplaced(new)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::ConfigError;
    use super::*;

    const START: &str = "[server]\nmount-address = '127.0.0.1:1337'\n[auth]\nmode = 'open'\n";

    fn handle(folder: &Path) -> Arc<ConfigHandle> {
        write(folder, START);
        ConfigHandle::new(Config::load(Some(&folder.join("config.toml"))).unwrap())
    }

    fn write(folder: &Path, text: &str) {
        std::fs::write(folder.join("config.toml"), text).unwrap();
    }

    #[test]
    fn grants_and_limits_take_effect() {
        let folder = tempfile::tempdir().unwrap();
        let handle = handle(folder.path());
        let before = handle.current();
        write(
            folder.path(),
            &format!(
                "{START}[hooks]\ntimeout = '1 s'\nconcurrency = 2\n[[grants]]\nmodel = 'a'\nphase = '*'\nread = ['b']\n"
            ),
        );
        let reloaded = handle.reload(|_| Ok(())).unwrap();
        assert_eq!(reloaded.applied, ["grants", "hooks.timeout", "hooks.concurrency"]);
        assert!(reloaded.restart.is_empty());
        assert_eq!(handle.generation(), 2);
        assert_eq!(handle.load().hooks.concurrency, 2);
        assert_eq!(handle.load().grants.len(), 1);
        assert_eq!(before.grants.len(), 0, "who keeps a configuration keeps it whole");

        assert!(handle.reload(|_| Ok(())).unwrap().applied.is_empty());
        assert_eq!(handle.generation(), 2);
    }

    #[test]
    fn what_needs_a_restart_stays() {
        let folder = tempfile::tempdir().unwrap();
        let handle = handle(folder.path());
        write(
            folder.path(),
            "[server]\nmount-address = '127.0.0.1:1'\nmax-body = '1 MiB'\nlimits.memory = '64 MiB'\n[auth]\nmode = 'open'\n[driver-model-storage]\n\
             path = 'elsewhere'\n[hooks]\napply = true\nmemory = '1 MiB'\n",
        );
        let reloaded = handle.reload(|_| Ok(())).unwrap();
        assert_eq!(reloaded.applied, ["server.max-body", "server.limits.memory", "hooks.memory"]);
        assert_eq!(reloaded.restart, ["server.mount-address", "hooks.apply", "driver-model-storage"]);
        assert_eq!(handle.load().server.mount_address.port(), Some(1337));
        assert_eq!(handle.load().model.settings["path"], "data/models.db");
    }

    #[test]
    fn a_refused_file_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let handle = handle(folder.path());
        write(folder.path(), &format!("{START}[hooks]\ntimeout = '0 s'\nmemory = '1'\n"));
        assert_eq!(handle.reload(|_| Ok(())).unwrap_err().errors.len(), 2);
        write(folder.path(), &format!("{START}[hooks]\ntimeout = '1 s'\n"));
        let refused = |config: &Config| Err(ConfigErrors::new(config.name(), vec![ConfigError::new(1, "no")]));
        assert!(handle.reload(refused).is_err());
        std::fs::remove_file(folder.path().join("config.toml")).unwrap();
        assert!(handle.reload(|_| Ok(())).is_err());
        assert_eq!((handle.generation(), handle.load().hooks.limits.timeout.as_millis()), (1, 500));
    }
}
