//! The table of built-in drivers. A new driver is a crate and one line here.

use snaphook_driver::Driver;

use crate::config::{Config, ConfigError, ConfigErrors, DriverConfig, closest};

/// Every driver that can be named in the configuration.
pub const DRIVERS: &[Driver] =
    &[snaphook_memory::DRIVER, snaphook_file::DRIVER, snaphook_sqlite::DRIVER, snaphook_stdout::DRIVER];

/// The four kinds of store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    Secure,
    Event,
    Model,
    Error,
}

impl Store {
    /// In the order in which they are opened.
    pub const ALL: [Store; 4] = [Store::Secure, Store::Event, Store::Model, Store::Error];

    /// The word for it in messages and, within `driver-…-storage`, in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Store::Secure => "secure",
            Store::Event => "event",
            Store::Model => "model",
            Store::Error => "error",
        }
    }

    /// Its table of the configuration.
    pub const fn config(self, config: &Config) -> &DriverConfig {
        match self {
            Store::Secure => &config.secure,
            Store::Event => &config.event,
            Store::Model => &config.model,
            Store::Error => &config.error,
        }
    }

    const fn is_brought_by(self, driver: &Driver) -> bool {
        match self {
            Store::Secure => driver.secure.is_some(),
            Store::Event => driver.event.is_some(),
            Store::Model => driver.model.is_some(),
            Store::Error => driver.error.is_some(),
        }
    }
}

/// The driver of a store.
pub(super) fn find(store: Store, name: &str) -> Option<&'static Driver> {
    DRIVERS.iter().find(|driver| driver.name == name && store.is_brought_by(driver))
}

/// Whether every driver that the configuration names is there and brings the store it is named for.
pub fn check(config: &Config) -> Result<(), ConfigErrors> {
    let faults: Vec<_> = Store::ALL.into_iter().filter_map(|store| fault(store, store.config(config))).collect();
    if faults.is_empty() { Ok(()) } else { Err(ConfigErrors::new(config.name(), faults)) }
}

fn fault(store: Store, config: &DriverConfig) -> Option<ConfigError> {
    let name = config.driver.as_str();
    if find(store, name).is_some() {
        return None;
    }
    let word = store.as_str();
    let message = if DRIVERS.iter().any(|driver| driver.name == name) {
        let able: Vec<_> = DRIVERS
            .iter()
            .filter(|driver| store.is_brought_by(driver))
            .map(|driver| format!("`{}`", driver.name))
            .collect();
        format!("the driver `{name}` brings no {word} storage; those that do: {}", able.join(", "))
    } else {
        let hint = closest(name, DRIVERS.iter().map(|driver| driver.name));
        let hint = hint.map_or(String::new(), |known| format!(", did you mean `{known}`?"));
        format!("there is no driver `{name}`{hint}; registered: {}", registered())
    };
    Some(ConfigError::new(config.line, format!("`driver-{word}-storage.driver`: {message}")))
}

/// `` `memory` (secure, event, model, error), `sqlite` (event, model, error) ``.
fn registered() -> String {
    let stores = |driver: &Driver| {
        let brought = Store::ALL.into_iter().filter(|store| store.is_brought_by(driver));
        brought.map(Store::as_str).collect::<Vec<_>>().join(", ")
    };
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
                 `memory` (secure, event, model, error), `file` (secure), `sqlite` (event, model, error), `stdout` (error)",
                "config.toml:8: `driver-model-storage.driver`: the driver `stdout` brings no model storage; those that do: \
                 `memory`, `sqlite`",
            ]
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
