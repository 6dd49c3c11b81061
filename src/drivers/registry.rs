//! The drivers that a configuration may name: linked ones and those of libraries. A new linked driver is a crate and
//! one line here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use snaphook_driver::wire::{DriverDescription, Opened};
use snaphook_driver::{Driver, DriverError, ErrorKind, OpenContext, Result as DriverResult, Store};

use super::plugins::{PluginFile, PluginInfo, inspect_all};
use super::{connections, settings};
use crate::config::{Config, ConfigError, ConfigErrors, DriverConfig, PluginsConfig, closest};

/// All linked drivers.
pub(super) const LINKED: &[Driver] = &[
    snaphook_memory::DRIVER,
    snaphook_file::DRIVER,
    snaphook_sqlite::DRIVER,
    snaphook_stdout::DRIVER,
    snaphook_remote::DRIVER,
    snaphook_http::DRIVER,
    snaphook_crud::DRIVER,
    snaphook_postgres::DRIVER,
    snaphook_redis::DRIVER,
    snaphook_nats::DRIVER,
];

/// All drivers that a configuration may name.
pub(super) struct Registry {
    drivers: Vec<Registered>,
    plugins: Vec<Arc<PluginFile>>,
    /// Whether it includes the libraries of the folder.
    is_whole: bool,
}

/// A driver and where its code is.
pub(super) struct Registered {
    description: DriverDescription,
    code: Code,
}

enum Code {
    Linked(&'static Driver),
    /// The driver with this index of a library.
    Library(Arc<PluginFile>, usize),
}

impl Registry {
    /// The drivers of the binary and of the plugins folder. Each folder is only read once per process, because
    /// libraries stay loaded.
    pub(super) fn of(config: &Config) -> Result<Arc<Registry>, ConfigErrors> {
        static REGISTRIES: Mutex<Option<HashMap<PluginsConfig, Arc<Registry>>>> = Mutex::new(None);
        let mut registries = REGISTRIES.lock().unwrap_or_else(PoisonError::into_inner);
        let registries = registries.get_or_insert_default();
        if let Some(registry) = registries.get(&config.plugins) {
            return Ok(Arc::clone(registry));
        }
        if !config.plugins.is_sound {
            return Ok(Arc::new(Registry::linked()));
        }
        let registry = Registry::read(&config.plugins).map_err(|faults| {
            ConfigErrors::new(config.name(), faults.into_iter().map(|fault| ConfigError::new(None, fault)).collect())
        })?;
        let registry = Arc::new(registry);
        // A folder without libraries may contain some at the next check.
        if !registry.plugins.is_empty() {
            registries.insert(config.plugins.clone(), Arc::clone(&registry));
        }
        Ok(registry)
    }

    /// Without any library.
    fn linked() -> Registry {
        let drivers = LINKED.iter().map(|driver| Registered { description: driver.into(), code: Code::Linked(driver) });
        Registry { drivers: drivers.collect(), plugins: Vec::new(), is_whole: false }
    }

    fn read(config: &PluginsConfig) -> Result<Registry, Vec<String>> {
        let plugins: Vec<_> = inspect_all(config)?.into_iter().map(Arc::new).collect();
        let mut drivers = Registry::linked().drivers;
        let mut faults = Vec::new();
        for plugin in &plugins {
            for (index, description) in plugin.description.drivers.iter().enumerate() {
                let code = Code::Library(Arc::clone(plugin), index);
                let registered = Registered { description: description.clone(), code };
                let name = &description.name;
                match drivers.iter_mut().find(|known| known.description.name == *name) {
                    None => drivers.push(registered),
                    Some(known) => match &known.code {
                        Code::Linked(_) if config.replace.contains(name) => *known = registered,
                        Code::Linked(_) => faults.push(format!(
                            "plugin `{}` provides the driver `{name}`, which the binary contains; name it in \
                             `plugins.replace`, or remove the file",
                            plugin.name()
                        )),
                        Code::Library(other, _) => faults.push(format!(
                            "the plugins `{}` and `{}` both provide the driver `{name}`; remove one",
                            other.name(),
                            plugin.name()
                        )),
                    },
                }
            }
        }
        let is_replaced = |name: &String| {
            drivers.iter().any(|driver| driver.description.name == *name && matches!(driver.code, Code::Library(..)))
        };
        for name in config.replace.iter().filter(|name| !is_replaced(name)) {
            faults
                .push(format!("`plugins.replace` names the driver `{name}`, which no library of the folder provides"));
        }
        if faults.is_empty() { Ok(Registry { drivers, plugins, is_whole: true }) } else { Err(faults) }
    }

    /// Loads all libraries, whether or not a store uses them.
    pub(super) fn load_plugins(&self) -> Result<(), String> {
        self.plugins.iter().try_for_each(|plugin| plugin.load().map(|_| ()))
    }

    pub(super) fn plugins(&self) -> Vec<PluginInfo> {
        self.plugins.iter().map(|plugin| plugin.info()).collect()
    }

    /// The driver of a store.
    pub(super) fn find(&self, store: Store, name: &str) -> Option<&Registered> {
        self.drivers.iter().find(|driver| driver.description.name == name && driver.description.stores.contains(&store))
    }

    /// The description of the driver with that name, whichever stores it provides.
    fn description(&self, name: &str) -> Option<&DriverDescription> {
        self.drivers.iter().map(|driver| &driver.description).find(|description| description.name == name)
    }

    fn has(&self, name: &str) -> bool {
        self.description(name).is_some()
    }

    fn driver_fault(&self, store: Store, config: &DriverConfig) -> ConfigError {
        let name = config.driver.as_str();
        let descriptions = || self.drivers.iter().map(|driver| &driver.description);
        let message = if self.has(name) {
            let able: Vec<_> = descriptions()
                .filter(|driver| driver.stores.contains(&store))
                .map(|driver| format!("`{}`", driver.name))
                .collect();
            format!("the driver `{name}` provides no {store} storage; those that do: {}", able.join(", "))
        } else {
            let hint = closest(name, descriptions().map(|driver| driver.name.as_str()));
            let hint = hint.map_or(String::new(), |known| format!(", did you mean `{known}`?"));
            let known: Vec<_> = descriptions().map(named).collect();
            format!("there is no driver `{name}`{hint}; registered: {}", known.join(", "))
        };
        ConfigError::new(config.line, format!("`{}.driver`: {message}", table_name(store)))
    }
}

impl Registered {
    pub(super) fn description(&self) -> &DriverDescription {
        &self.description
    }

    /// Opens a store of it.
    pub(super) async fn open(&self, store: Store, context: OpenContext) -> DriverResult<Opened> {
        match &self.code {
            Code::Linked(driver) => Opened::open(driver, store, context).await,
            Code::Library(file, index) => {
                let plugin = file.load().map_err(|error| DriverError::new(ErrorKind::Unavailable, "open", error))?;
                plugin.open(*index, store, context).await
            }
        }
    }
}

/// `` `sqlite` (event, model, error) ``.
fn named(driver: &DriverDescription) -> String {
    let stores: Vec<_> = driver.stores.iter().map(|store| store.as_str()).collect();
    format!("`{}` ({})", driver.name, stores.join(", "))
}

/// Checks that every driver in the configuration exists, provides the store for which it is named, and has exactly the
/// settings that it supports. Reads the plugins folder for that.
pub fn check(config: &Config) -> Result<(), ConfigErrors> {
    let registry = Registry::of(config)?;
    let mut faults = connections::faults(config, registry.is_whole, |name| registry.description(name));
    let faults_of_store = |store| {
        let (name, table) = (table_name(store), table(config, store));
        match registry.find(store, &table.driver) {
            Some(Registered { description, .. }) => {
                let mut faults = settings::faults(&name, &description.name, &description.settings, table);
                faults.extend(connections::faults_of_store(config, store, &name, table, description));
                faults
            }
            None if registry.is_whole || registry.has(&table.driver) => vec![registry.driver_fault(store, table)],
            // A library may bring it.
            None => Vec::new(),
        }
    };
    faults.extend(Store::ALL.into_iter().flat_map(faults_of_store));
    if faults.is_empty() { Ok(()) } else { Err(ConfigErrors::new(config.name(), faults)) }
}

/// The plugins of a configuration, by file.
pub fn plugins(config: &Config) -> Result<Vec<PluginInfo>, ConfigErrors> {
    Registry::of(config).map(|registry| registry.plugins())
}

/// A store's table of the configuration.
pub(super) const fn table(config: &Config, store: Store) -> &DriverConfig {
    match store {
        Store::Secure => &config.secure,
        Store::Event => &config.event,
        Store::Model => &config.model,
        Store::Error => &config.error,
    }
}

/// `driver-event-storage`.
pub(super) fn table_name(store: Store) -> String {
    format!("driver-{store}-storage")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Purpose;

    fn faults(text: &str) -> Vec<String> {
        let text = format!("[server]\nmount-address = '127.0.0.1:0'\n[auth]\nmode = 'open'\n{text}");
        let config = Config::parse(&text, "config.toml", Path::new("/srv"), None, &|_| None).unwrap();
        check(&config).err().map(|errors| errors.lines().collect()).unwrap_or_default()
    }

    #[test]
    fn names() {
        assert_eq!(faults(""), [""; 0]);
        assert_eq!(
            faults("[driver-event-storage]\ndriver = 'sqlit'\n[driver-model-storage]\ndriver = 'stdout'\n"),
            [
                "config.toml:6: `driver-event-storage.driver`: there is no driver `sqlit`, did you mean `sqlite`?; registered: \
                 `memory` (secure, event, model, error), `file` (secure, event, model, error), `sqlite` (event, model, \
                 error), `stdout` (error), `remote` (secure, event, model, error), `http` (error), `crud` (model), \
                 `postgres` (event, model, error), `redis` (secure), `nats` (secure, event)",
                "config.toml:8: `driver-model-storage.driver`: the driver `stdout` provides no model storage; those \
                 that do: `memory`, `file`, `sqlite`, `remote`, `crud`, `postgres`",
            ]
        );
    }

    #[test]
    fn settings() {
        assert_eq!(
            faults(
                "[driver-event-storage]\ndriver = 'sqlite'\npth = 'x'\nsync = true\n[driver-model-storage]\n\
                 driver = 'sqlite'\npath = 7\n[driver-error-storage]\ndriver = 'stdout'\npath = 'x'\n\
                 [driver-secure-storage]\ndriver = 'file'\npath = ''\n"
            ),
            [
                "config.toml:7: unknown key `driver-event-storage.pth`, did you mean `driver-event-storage.path`?",
                "config.toml:8: unknown key `driver-event-storage.sync`, the driver `sqlite` supports `path`",
                "config.toml:11: `driver-model-storage.path` is not a string, expected the path of a database file \
                 such as `data/events.db`",
                "config.toml:14: unknown key `driver-error-storage.path`, the driver `stdout` has no settings",
                "config.toml:17: `driver-secure-storage.path` is empty, expected the path of a folder such as `data/secrets` or \
                 `data/events`",
            ]
        );
        assert_eq!(
            faults("[driver-secure-storage]\ndriver = 'memory'\n[driver-event-storage]\ndriver = 'memory'\n"),
            [""; 0]
        );
    }

    #[test]
    fn connections() {
        let connection = "[connections.main]\ndriver = 'remote'\nurl = 'http://127.0.0.1:1'\n";
        let named = |name: &str| format!("[driver-event-storage]\ndriver = 'remote'\nconnection = '{name}'\n");
        assert_eq!(faults(&format!("{connection}{}", named("main"))), [""; 0]);
        assert_eq!(
            faults(&format!("{connection}{}", named("mian"))),
            ["config.toml:10: `driver-event-storage.connection`: there is no connection `mian`, did you mean `main`?"]
        );
        assert_eq!(
            faults(&named("main")),
            [
                "config.toml:7: `driver-event-storage.connection`: there is no connection `main`, expected a name such as `main` \
                 and its table `[connections.main]`"
            ]
        );
        assert_eq!(
            faults(&format!("{connection}{}token = 'x'\n", named("main"))),
            ["config.toml:11: `driver-event-storage.token` is set beside `connection`, expected it in \
                 `[connections.main]`"]
        );
        assert_eq!(
            faults("[driver-event-storage]\ndriver = 'remote'\n"),
            ["config.toml:6: `driver-event-storage.url` is missing, expected the address of a driver's host such as \
                 `http://127.0.0.1:1400`, or a `connection`"]
        );
        assert_eq!(
            faults(
                "[connections.a]\ndriver = 'sqlite'\n[connections.b]\ndriver = 'x'\n[connections.c]\ndriver = 'remote'\nul = 7\n"
            ),
            [
                "config.toml:6: `connections.a.driver`: the driver `sqlite` does not support connections",
                "config.toml:8: `connections.b.driver`: there is no driver `x`",
                "config.toml:10: `connections.c.url` is missing, expected the address of a driver's host such as \
                 `http://127.0.0.1:1400`",
                "config.toml:11: unknown key `connections.c.ul`, did you mean `connections.c.url`?",
            ]
        );
        let secret = "[connections.main]\ndriver = 'remote'\nurl = 'http://127.0.0.1:1'\ntoken = 'secret:x'\n\
                      [driver-secure-storage]\ndriver = 'remote'\nconnection = 'main'\n";
        assert_eq!(
            faults(secret),
            [
                "config.toml:11: `driver-secure-storage.connection`: the connection `main` has a `secret:` reference, and the \
                 secure storage, where secrets are, needs it first; expected an `env:` reference there"
            ]
        );
    }

    /// What a file with this text is told, in a folder whose plugins have these names and are no libraries.
    fn faults_of_file(plugins: &[&str], text: &str) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("plugins")).unwrap();
        for name in plugins {
            std::fs::write(folder.path().join("plugins").join(name), "no library").unwrap();
        }
        let file = folder.path().join("config.toml");
        std::fs::write(&file, format!("[server]\nmount-address = '127.0.0.1:0'\n[auth]\nmode = 'open'\n{text}"))
            .unwrap();
        let errors = Config::load_with(Some(&file), Purpose::Api, check).err();
        let shown = folder.path().display().to_string();
        errors.iter().flat_map(ConfigErrors::lines).map(|line| line.replace(&format!("{shown}/"), "")).collect()
    }

    /// A list of digests that cannot be read must not allow everything.
    #[test]
    fn nothing_is_run_while_the_section_has_faults() {
        for (text, fault) in [
            ("sha256 = ['x']", "config.toml:6: `plugins.sha256` is `x`, expected 64"),
            ("sha256 = 'x'", "config.toml:6: `plugins.sha256` is a string, expected a list"),
            ("sha265 = []", "config.toml:6: unknown key `plugins.sha265`, did you mean `plugins.sha256`?"),
        ] {
            // A library may bring this driver.
            let text = format!("[plugins]\n{text}\n[driver-error-storage]\ndriver = 'other'\n");
            let faults = faults_of_file(&["any.so"], &text);
            assert!(faults.len() == 1 && faults[0].starts_with(fault), "{faults:?}");
        }
        let digest = "0".repeat(64);
        let faults = faults_of_file(&["any.so"], &format!("[plugins]\nsha256 = ['{digest}']\n"));
        assert!(faults.len() == 1 && faults[0].contains("is not in `plugins.sha256`"), "{faults:?}");
    }

    #[test]
    fn what_cannot_be_a_library_is_named() {
        let faults = faults_of_file(&[], "[plugins]\nreplace = ['sqlite']\n");
        assert_eq!(
            faults,
            ["config.toml: `plugins.replace` names the driver `sqlite`, which no library of the folder provides"]
        );
        let faults = faults_of_file(&[], "[plugins]\ndirectory = 'config.toml'\n");
        assert!(
            faults.len() == 1 && faults[0].contains("the plugins folder `config.toml` cannot be read"),
            "{faults:?}"
        );
        #[cfg(unix)]
        {
            let faults = faults_of_file(&[], "[plugins]\ndirectory = '/dev'\n");
            assert_eq!(faults, [""; 0]);
            let folder = tempfile::tempdir().unwrap();
            std::os::unix::fs::symlink("/dev/zero", folder.path().join("zero.so")).unwrap();
            let text = format!("[plugins]\ndirectory = '{}'\n", folder.path().display());
            let faults = faults_of_file(&[], &text);
            assert!(faults.len() == 1 && faults[0].contains("cannot be read: it is not a regular file"), "{faults:?}");
        }
    }

    #[test]
    fn no_two_drivers_share_a_name() {
        let mut names: Vec<_> = LINKED.iter().map(|driver| driver.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), LINKED.len());
    }
}
