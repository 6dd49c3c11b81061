//! The driver's settings.

use serde::Deserialize;
use serde_json::Number;
use snaphook_driver::Connection;

use crate::durability::Durability;

pub(crate) const CONNECTION_EXPECTED: &str = "the name of a connection of this driver";
pub(crate) const URL_EXPECTED: &str =
    "the address of a server such as `redis://127.0.0.1:6379` or `rediss://…` with TLS";
pub(crate) const HOST_EXPECTED: &str = "the name or address of a server, instead of `url`";
pub(crate) const PORT_EXPECTED: &str = "the port of the server at `host`, 6379 by default";
pub(crate) const TLS_EXPECTED: &str = "whether the server at `host` is reached with TLS";
pub(crate) const USER_EXPECTED: &str = "the name of a user of the server, its default user if not set";
pub(crate) const PASSWORD_EXPECTED: &str = "the password of that user";
pub(crate) const DATABASE_EXPECTED: &str = "the number of a database of the server, 0 by default";
pub(crate) const PREFIX_EXPECTED: &str =
    "1 to 64 letters, digits, `.`, `_`, `:` and `-` with which the driver's keys begin";

/// The settings below `driver = 'redis'` in the table of a store.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StoreConfig {
    pub(crate) connection: Connection<RedisConfig>,
}

/// The settings in `[connections.NAME]`: a server, as an address or in parts.
#[derive(Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedisConfig {
    pub url: Option<String>,
    pub host: Option<String>,
    pub port: Option<Number>,
    pub tls: Option<bool>,
    pub user: Option<String>,
    pub password: Option<String>,
    pub database: Option<Number>,
    /// The prefix of all keys, so that several stores can share a database.
    pub prefix: Option<String>,
    #[serde(default)]
    pub durability: Durability,
}

impl RedisConfig {
    pub(crate) fn prefix(&self) -> &str {
        self.prefix.as_deref().unwrap_or("snaphook")
    }
}
