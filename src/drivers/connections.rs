//! `[connections.NAME]`: checks shared connections, and replaces their names in settings with their tables.

use serde_json::{Map, Value, json};
use snaphook_driver::wire::DriverDescription;
use snaphook_driver::{Setting, SettingKind, Store};

use super::references::references;
use super::settings;
use crate::config::{Config, ConfigError, DriverConfig, closest};

/// Errors in the connections. `find` looks up drivers by name, `is_whole` says whether it knows all of them.
pub(super) fn faults<'a>(
    config: &Config,
    is_whole: bool,
    find: impl Fn(&str) -> Option<&'a DriverDescription>,
) -> Vec<ConfigError> {
    let mut faults = Vec::new();
    for (name, connection) in &config.connections {
        let table = format!("connections.{name}");
        let driver = &connection.driver;
        match find(driver) {
            Some(description) if description.connection.is_empty() => {
                let message = format!("`{table}.driver`: the driver `{driver}` does not support connections");
                faults.push(ConfigError::new(connection.line, message));
            }
            Some(description) => faults.extend(settings::faults(&table, driver, &description.connection, connection)),
            None if is_whole => {
                let message = format!("`{table}.driver`: there is no driver `{driver}`");
                faults.push(ConfigError::new(connection.line, message));
            }
            None => {}
        }
    }
    faults
}

/// Errors in the connections used by a store's table.
pub(super) fn faults_of_store(
    config: &Config,
    store: Store,
    table: &str,
    store_config: &DriverConfig,
    driver: &DriverDescription,
) -> Vec<ConfigError> {
    let fault = |(key, name): (&str, &str)| {
        let line = store_config.line_of(key);
        let fault = |message: String| Some(ConfigError::new(line, format!("`{table}.{key}`: {message}")));
        let Some(connection) = config.connections.get(name) else {
            let hint = match closest(name, config.connections.keys().map(String::as_str)) {
                Some(known) => format!("did you mean `{known}`?"),
                None => format!("expected a name such as `main` and its table `[connections.{name}]`"),
            };
            return fault(format!("there is no connection `{name}`, {hint}"));
        };
        if connection.driver != driver.name {
            return fault(format!(
                "the connection `{name}` belongs to the driver `{}`, expected one of `{}`",
                connection.driver, driver.name
            ));
        }
        if store == Store::Secure && !references(&connection.settings).is_empty() {
            return fault(format!(
                "the connection `{name}` has a `secret:` reference, and the secure storage, where secrets are, needs it \
                 first; expected an `env:` reference there"
            ));
        }
        None
    };
    let misplaced = named(store_config, driver).flat_map(|(key, name)| {
        let settings = driver.connection.iter().filter(|setting| store_config.settings.contains_key(&*setting.name));
        settings.map(move |setting| {
            let line = store_config.line_of(&setting.name);
            let message =
                format!("`{table}.{}` is set beside `{key}`, expected it in `[connections.{name}]`", setting.name);
            ConfigError::new(line, message)
        })
    });
    let faults: Vec<_> = named(store_config, driver).filter_map(fault).chain(misplaced).collect();
    let may_name_one = driver.settings.iter().any(|setting| setting.kind == SettingKind::Connection);
    if !may_name_one || named(store_config, driver).next().is_some() {
        return faults;
    }
    let is_missing = |setting: &&Setting| !setting.optional && !store_config.settings.contains_key(&*setting.name);
    let missing = driver.connection.iter().filter(is_missing).map(|Setting { name, expected, .. }| {
        ConfigError::new(
            store_config.line,
            format!("`{table}.{name}` is missing, expected {expected}, or a `connection`"),
        )
    });
    faults.into_iter().chain(missing).collect()
}

/// The settings of a store, with the tables of their connections.
pub(super) fn settings(config: &Config, table: &DriverConfig, driver: &DriverDescription) -> Map<String, Value> {
    let mut settings = table.settings.clone();
    for (key, name) in named(table, driver) {
        if let Some(connection) = config.connections.get(name) {
            settings.insert(key.to_owned(), json!({"name": name, "settings": connection.settings}));
        }
    }
    settings
}

/// Values from the environment that messages about a store must not show.
pub(super) fn hidden<'a>(config: &'a Config, table: &'a DriverConfig) -> impl Iterator<Item = &'a String> {
    table.hidden.iter().chain(config.connections.values().flat_map(|connection| &connection.hidden))
}

/// The settings that refer to a connection, with its name.
fn named<'a>(table: &'a DriverConfig, driver: &'a DriverDescription) -> impl Iterator<Item = (&'a str, &'a str)> {
    let connections = driver.settings.iter().filter(|setting| setting.kind == SettingKind::Connection);
    connections.filter_map(|setting| Some((&*setting.name, table.settings.get(&*setting.name)?.as_str()?)))
}
