//! config.toml: parsed, checked, with errors that point at the line.
//!
//! [`Config`] is what the rest of the server sees: every default filled in, every value checked. A file goes through (`load`)
//! `document` (text to keys, with lines), then `sections` and `grants` (keys to meaning); all faults of a file are told
//! at once. [`ConfigHandle`] holds the configuration in force and loads it again while the server runs.

mod address;
mod auth;
mod cors;
mod document;
mod endpoints;
mod error;
mod grants;
mod handle;
mod hosts;
mod http_pattern;
mod limits;
mod load;
mod modules;
mod phase;
mod proxies;
mod regular;
mod sections;
mod settings;
mod static_files;
mod suggest;
mod telemetry;
mod tls;
mod units;
mod watch;
mod zia;

#[cfg(test)]
mod parts_tests;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

pub use address::MountAddress;
pub use auth::{AuthConfig, AuthMode};
pub use cors::CorsConfig;
pub use endpoints::{EndpointConfig, EndpointRole};
pub use error::{ConfigError, ConfigErrors};
pub use grants::{PROCESS_TIMEOUT_MAX, is_model_id};
pub use handle::{ConfigHandle, Reloaded};
pub use hosts::Hosts;
pub use http_pattern::HttpPattern;
pub use load::Purpose;
pub use modules::{ModuleConfig, ModuleKind};
pub use phase::Phase;
pub use proxies::TrustedProxies;
pub use regular::read_regular;
pub use settings::{
    Config, DriverConfig, FILE_DEFAULT, Grant, GrantTarget, HooksConfig, Isolation, Limits, PluginsConfig,
    ProcessGrant, ServerConfig, V8Reset,
};
pub use static_files::StaticConfig;
pub use suggest::closest;
pub use telemetry::{HeaderSource, LogFormat, TelemetryConfig, TracesConfig, Trust};
pub use tls::{Pem, PemSource, TlsConfig};
pub use units::{format_duration, format_size, parse_duration, parse_size};
pub use watch::{ChangeCause, Changes, watch};
