//! What every command takes.

use std::path::PathBuf;

use clap::Args;

use super::client::Client;
use super::failure::Result;
use super::log::LineFormat;
use crate::config::{Config, ConfigErrors, Purpose};
use crate::{drivers, server};

#[derive(Args, Clone, Debug)]
pub(super) struct Global {
    /// Configuration file [default: config.toml, if it exists]
    #[arg(long, short, global = true, value_name = "FILE", env = "SNAPHOOK_CONFIG")]
    pub(super) config: Option<PathBuf>,
    /// What to log to stderr: a level, or `target=level,…` [default: info for `serve` and `driver-host`, else warn]
    #[arg(long, global = true, value_name = "FILTER", env = "SNAPHOOK_LOG")]
    pub(super) log: Option<String>,
    /// Format of log lines [default: `telemetry.log-format` for `serve`, else text]
    #[arg(long, global = true, value_name = "FORMAT", value_enum, env = "SNAPHOOK_LOG_FORMAT")]
    pub(super) log_format: Option<LineFormat>,
    /// Address of a running server [default: the one in the configuration]
    #[arg(long, global = true, value_name = "URL", env = "SNAPHOOK_URL")]
    pub(super) url: Option<String>,
    /// Token for the server [default: the first admin token, if its file is readable and `--url` is not given]
    #[arg(long, global = true, value_name = "TOKEN", env = "SNAPHOOK_TOKEN", hide_env_values = true)]
    pub(super) token: Option<String>,
}

/// What only the layers above the configuration know: drivers, the files of TLS, the folder of static files, the program of zia
/// modules, and the paths of the API.
fn check(config: &Config) -> std::result::Result<(), ConfigErrors> {
    let checks = [
        drivers::check(config),
        server::check_tls(config),
        server::check_static_files(config),
        server::check_endpoints(config),
        server::check_zia(config),
    ];
    let faults = checks.into_iter().filter_map(std::result::Result::err);
    let faults: Vec<_> = faults.flat_map(|errors| errors.errors).collect();
    if faults.is_empty() { Ok(()) } else { Err(ConfigErrors::new(config.name(), faults)) }
}

impl Global {
    /// The configuration, with its drivers checked.
    pub(super) fn config(&self) -> Result<Config> {
        Ok(Config::load_with(self.config.as_deref(), Purpose::Api, check)?)
    }

    /// The configuration of stores that another program serves.
    pub(super) fn stores_config(&self) -> Result<Config> {
        Ok(Config::load_with(self.config.as_deref(), Purpose::Stores, drivers::check)?)
    }

    /// The configuration for who opens no store: libraries of the plugins folder are left alone.
    pub(super) fn config_without_drivers(&self) -> Result<Config> {
        // Faults are told all at once, those of drivers among them.
        Config::load(self.config.as_deref()).or_else(|_| self.config())
    }

    pub(super) fn client(&self) -> Result<Client> {
        match &self.url {
            Some(url) => Ok(Client::new(url, true)?.with_token(self.token.clone())),
            None => {
                let config = self.config_without_drivers()?;
                // The first token lies beside the data; who may read it may use it. It is for this server alone.
                let first = || std::fs::read_to_string(&config.auth.admin_token).ok();
                let token = self.token.clone().or_else(first).map(|token| token.trim_end().to_owned());
                Ok(Client::of(&config, &config.server.mount_address, false)?.with_token(token))
            }
        }
    }
}
