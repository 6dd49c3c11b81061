//! The table of built-in drivers. A new driver is a crate and one line here.

use snaphook_driver::{Driver, Store};

use super::settings;
use crate::config::{Config, ConfigError, ConfigErrors, DriverConfig, closest};

/// Every driver that can be named in the configuration.
pub const DRIVERS: &[Driver] = &[
    snaphook_memory::DRIVER,
    snaphook_file::DRIVER,
    snaphook_sqlite::DRIVER,
    snaphook_stdout::DRIVER,
    snaphook_remote::DRIVER,
];

/// A store's table of the configuration.
pub(super) const fn table(config: &Config, store: Store) -> &DriverConfig {
    match store {
        Store::Secure => &config.secure,
        Store::Event => &config.event,
        Store::Model => &config.model,
        Store::Error => &config.error,
    }
}

/// The driver of a store.
pub(super) fn find(store: Store, name: &str) -> Option<&'static Driver> {
    DRIVERS.iter().find(|driver| driver.name == name && brings(driver, store))
}

fn brings(driver: &Driver, store: Store) -> bool {
    driver.stores().any(|brought| brought == store)
}

/// Whether every driver that the configuration names is there, brings the store it is named for, and has the settings
/// that it needs and no others.
pub fn check(config: &Config) -> Result<(), ConfigErrors> {
    let faults: Vec<_> = Store::ALL
        .into_iter()
        .flat_map(|store| {
            let config = table(config, store);
            match find(store, &config.driver) {
                Some(driver) => settings::faults(&table_name(store), driver.name, driver.settings, config),
                None => vec![driver_fault(store, config)],
            }
        })
        .collect();
    if faults.is_empty() { Ok(()) } else { Err(ConfigErrors::new(config.name(), faults)) }
}

/// `driver-event-storage`.
pub(super) fn table_name(store: Store) -> String {
    format!("driver-{store}-storage")
}

fn driver_fault(store: Store, config: &DriverConfig) -> ConfigError {
    let name = config.driver.as_str();
    let word = store.as_str();
    let message = if DRIVERS.iter().any(|driver| driver.name == name) {
        let able: Vec<_> =
            DRIVERS.iter().filter(|driver| brings(driver, store)).map(|driver| format!("`{}`", driver.name)).collect();
        format!("the driver `{name}` brings no {word} storage; those that do: {}", able.join(", "))
    } else {
        let hint = closest(name, DRIVERS.iter().map(|driver| driver.name));
        let hint = hint.map_or(String::new(), |known| format!(", did you mean `{known}`?"));
        format!("there is no driver `{name}`{hint}; registered: {}", registered())
    };
    ConfigError::new(config.line, format!("`driver-{word}-storage.driver`: {message}"))
}

/// `` `memory` (secure, event, model, error), `sqlite` (event, model, error) ``.
fn registered() -> String {
    let stores = |driver: &Driver| driver.stores().map(Store::as_str).collect::<Vec<_>>().join(", ");
    DRIVERS.iter().map(|driver| format!("`{}` ({})", driver.name, stores(driver))).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

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
                 error), `stdout` (error)",
                "config.toml:8: `driver-model-storage.driver`: the driver `stdout` brings no model storage; those that do: \
                 `memory`, `file`, `sqlite`",
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
                "config.toml:8: unknown key `driver-event-storage.sync`, the driver `sqlite` knows `path`",
                "config.toml:11: `driver-model-storage.path` is no text, expected the path of a database file such as \
                 `data/events.db`",
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
    fn no_two_drivers_share_a_name() {
        let mut names: Vec<_> = DRIVERS.iter().map(|driver| driver.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), DRIVERS.len());
    }
}
