//! Loads a file and checks the configuration.

use std::path::Path;

use super::auth::AuthMode;
use super::document::{ConfigDocument, Section};
use super::error::{ConfigError, ConfigErrors};
use super::settings::{Config, FILE_DEFAULT};
use super::{grants, sections};

/// The purpose for which a configuration is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Serving the API: checks that depend on who can reach it apply.
    Api,
    /// Only opening the stores.
    Stores,
}

impl Config {
    /// Reads and checks a file; `None`: [`FILE_DEFAULT`] in the working directory, or the defaults if there is none.
    pub fn load(path: Option<&Path>) -> Result<Config, ConfigErrors> {
        Config::load_with(path, Purpose::Api, |_| Ok(()))
    }

    /// The same, with a `check` of things that only the layers above know, such as the names of drivers. Its errors are
    /// included.
    pub fn load_with(
        path: Option<&Path>,
        purpose: Purpose,
        check: impl FnOnce(&Config) -> Result<(), ConfigErrors>,
    ) -> Result<Config, ConfigErrors> {
        let named = path.unwrap_or(Path::new(FILE_DEFAULT));
        let fault =
            |message: String| ConfigErrors::new(named.display().to_string(), vec![ConfigError::new(None, message)]);
        let working = std::env::current_dir().map_err(|error| fault(format!("no working directory: {error}")))?;
        let file = working.join(named);
        match path {
            None if !file.exists() => {
                let config = Config::defaults(&working);
                check(&config).map(|()| config)
            }
            _ => Config::load_as(&file, &named.display().to_string(), purpose, check),
        }
    }

    /// Reads and checks the file at an absolute path; messages call it `name`.
    pub(super) fn load_as(
        file: &Path,
        name: &str,
        purpose: Purpose,
        check: impl FnOnce(&Config) -> Result<(), ConfigErrors>,
    ) -> Result<Config, ConfigErrors> {
        let text = std::fs::read_to_string(file).map_err(|error| {
            ConfigErrors::new(name, vec![ConfigError::new(None, format!("cannot be read: {error}"))])
        })?;
        let directory = file.parent().unwrap_or(file);
        let (config, mut errors) = Config::read(&text, directory, Some(file), purpose, &environment);
        errors.extend(config.as_ref().and_then(|config| check(config).err()).into_iter().flat_map(|more| more.errors));
        errors.extend(config.iter().flat_map(|config| grants::links(&config.grants)));
        accept(config, name, errors)
    }

    /// The configuration without a file: the defaults of all keys, except that it only serves this machine and requires
    /// no token. Paths are relative to `directory`.
    pub fn defaults(directory: &Path) -> Config {
        let document = ConfigDocument::new("", &environment);
        let table = toml::de::DeTable::new();
        let mut root = Section::root(&document, &table);
        let (mut config, _) = sections::config(&document, &mut root, directory, None);
        config.server.mount_address = config.server.mount_address.on_loopback();
        config.auth.mode = AuthMode::Open;
        config
    }

    /// Checks the text of a file. `name` is its name in messages, `environment` resolves `env:NAME`.
    pub fn parse(
        text: &str,
        name: &str,
        directory: &Path,
        file: Option<&Path>,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Config, ConfigErrors> {
        let (config, errors) = Config::read(text, directory, file, Purpose::Api, environment);
        accept(config, name, errors)
    }

    /// The contents of a text as far as it is valid, and its errors.
    fn read(
        text: &str,
        directory: &Path,
        file: Option<&Path>,
        purpose: Purpose,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> (Option<Config>, Vec<ConfigError>) {
        let document = ConfigDocument::new(text, environment);
        let config = document.parse().map(|table| {
            let mut root = Section::root(&document, &table);
            let (config, exposed) = sections::config(&document, &mut root, directory, file);
            if let Some(fault) = exposed.filter(|_| purpose == Purpose::Api) {
                document.error(fault.line, fault.message);
            }
            root.finish();
            config
        });
        (config, document.into_errors())
    }
}

fn accept(config: Option<Config>, name: &str, errors: Vec<ConfigError>) -> Result<Config, ConfigErrors> {
    match config {
        Some(config) if errors.is_empty() => Ok(config),
        _ => Err(ConfigErrors::new(name, errors)),
    }
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
