//! The driver's settings: the server's address, how to connect, and which schema of its database to use.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use snaphook_driver::{Connection, DriverError, ErrorKind, OpenContext, Result, Setting, SettingKind};
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

use crate::tls::Tls;

/// The settings in the table of a store.
pub(crate) const SETTINGS: &[Setting] =
    &[Setting::required("connection", SettingKind::Connection, "the name of a connection of this driver")];

/// The settings in `[connections.NAME]`.
pub(crate) const CONNECTION: &[Setting] = &[
    Setting::optional("url", SettingKind::Secret, URL_EXPECTED),
    Setting::optional("host", SettingKind::Text, "a host name, an address, or the folder of a socket"),
    Setting::with_default("port", SettingKind::Number, "a port", "5432"),
    Setting::optional("user", SettingKind::Text, "the name of a role"),
    Setting::optional("password", SettingKind::Secret, "the password of that role"),
    Setting::optional("database", SettingKind::Text, "the name of a database"),
    Setting::optional("tls", SettingKind::Text, TLS_EXPECTED),
    Setting::optional("tls-ca", SettingKind::Text, "the path of a PEM file with the certificates of authorities"),
    Setting::with_default("schema", SettingKind::Text, SCHEMA_EXPECTED, "\"snaphook\""),
    Setting::with_default("pool", SettingKind::Number, POOL_EXPECTED, "8"),
    Setting::with_default("pgbouncer", SettingKind::Bool, "whether connections go through PgBouncer", "false"),
    Setting::with_default("durability", SettingKind::Text, DURABILITY_EXPECTED, "\"fsync\""),
];

const URL_EXPECTED: &str = "an address such as `postgres://user:password@host:5432/database`";
const TLS_EXPECTED: &str = "`require`, `prefer` or `off`";
const SCHEMA_EXPECTED: &str = "the name of a schema: 1 to 63 bytes of lower-case letters, digits and `_`";
const POOL_EXPECTED: &str = "a number of connections from 2 to 500";
const DURABILITY_EXPECTED: &str = "`fsync` or `lazy`";

/// Timeout for establishing a connection.
pub(crate) const CONNECT_TIME: Duration = Duration::from_secs(5);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StoreConfig {
    connection: Connection<PostgresConfig>,
}

/// The connection that a store's settings name.
pub(crate) fn connection(context: &OpenContext) -> Result<Connection<PostgresConfig>> {
    let StoreConfig { connection } = context.settings()?;
    connection.settings.check()?;
    Ok(connection)
}

/// A server and a schema in one of its databases. Contains a password, so it is never shown.
#[derive(Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct PostgresConfig {
    url: Option<String>,
    host: Option<String>,
    port: Option<u16>,
    user: Option<String>,
    password: Option<String>,
    database: Option<String>,
    tls: Option<TlsMode>,
    tls_ca: Option<String>,
    #[serde(default = "default_schema")]
    schema: String,
    #[serde(default = "default_pool")]
    pool: usize,
    #[serde(default)]
    pgbouncer: bool,
    #[serde(default)]
    durability: Durability,
}

/// Whether the connection is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TlsMode {
    Off,
    /// Encrypted if the server offers it; certificates are verified in that case.
    Prefer,
    Require,
}

/// The durability that the server of a log must guarantee.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Durability {
    /// An acknowledged commit is on disk: a server with `fsync = off` is rejected.
    #[default]
    Fsync,
    /// Whatever the server is configured to do.
    Lazy,
}

fn default_schema() -> String {
    "snaphook".into()
}

const fn default_pool() -> usize {
    8
}

impl PostgresConfig {
    pub(crate) fn schema(&self) -> &str {
        &self.schema
    }

    pub(crate) fn pool(&self) -> usize {
        self.pool
    }

    pub(crate) fn pgbouncer(&self) -> bool {
        self.pgbouncer
    }

    pub(crate) fn durability(&self) -> Durability {
        self.durability
    }

    fn check(&self) -> Result<()> {
        let schema = self.schema.as_bytes();
        let is_name = matches!(schema, [b'a'..=b'z' | b'_', ..])
            && schema.len() <= 63
            && schema.iter().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
            && !self.schema.starts_with("pg_");
        if !is_name {
            return Err(wrong(format!("`schema` is `{}`, expected {SCHEMA_EXPECTED}", self.schema)));
        }
        if !(2..=500).contains(&self.pool) {
            return Err(wrong(format!("`pool` is {}, expected {POOL_EXPECTED}", self.pool)));
        }
        let parts = [&self.host, &self.user, &self.password, &self.database];
        match &self.url {
            Some(_) if self.port.is_some() || parts.iter().any(|part| part.is_some()) => Err(wrong(
                "`url` already contains the server and the login; remove `host`, `port`, `user`, `password` and \
                 `database`, or `url`",
            )),
            None if self.host.is_none() => Err(wrong(format!("`url` is missing, expected {URL_EXPECTED}, or `host`"))),
            _ => Ok(()),
        }
    }

    /// The configuration for the client library.
    pub(crate) fn client(&self) -> Result<tokio_postgres::Config> {
        let mut client = match &self.url {
            // The address and the cause are not shown, because they may contain a password.
            Some(url) => {
                url.parse().map_err(|_| wrong(format!("`url` is not a valid address, expected {URL_EXPECTED}")))?
            }
            None => {
                let mut client = tokio_postgres::Config::new();
                self.host.iter().for_each(|host| _ = client.host(host));
                self.port.iter().for_each(|port| _ = client.port(*port));
                self.user.iter().for_each(|user| _ = client.user(user));
                self.password.iter().for_each(|password| _ = client.password(password));
                self.database.iter().for_each(|database| _ = client.dbname(database));
                client
            }
        };
        if client.get_hosts().is_empty() && client.get_hostaddrs().is_empty() {
            return Err(wrong(format!("`url` names no host, expected {URL_EXPECTED}")));
        }
        if client.get_user().is_none() {
            return Err(wrong("no user is set; set `user` next to `host`, or put the user into `url`"));
        }
        let mode = match self.tls_mode(&client) {
            TlsMode::Off => SslMode::Disable,
            TlsMode::Prefer => SslMode::Prefer,
            TlsMode::Require => SslMode::Require,
        };
        client
            .ssl_mode(mode)
            .application_name("snaphook")
            .connect_timeout(CONNECT_TIME)
            .keepalives(true)
            .keepalives_idle(Duration::from_secs(10))
            .keepalives_interval(Duration::from_secs(5))
            .keepalives_retries(3)
            .tcp_user_timeout(Duration::from_secs(20));
        if client.get_hosts().len() > 1 {
            client.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        Ok(client)
    }

    /// The configured mode. Without one: the mode that `url` requests; otherwise encrypted, unless the server is on
    /// this machine.
    fn tls_mode(&self, client: &tokio_postgres::Config) -> TlsMode {
        match (self.tls, client.get_ssl_mode()) {
            (Some(mode), _) => mode,
            (None, SslMode::Require) => TlsMode::Require,
            (None, SslMode::Disable) => TlsMode::Off,
            (None, _) if is_here(client) => TlsMode::Off,
            (None, _) => TlsMode::Require,
        }
    }

    /// How the connection is encrypted. Relative paths are relative to `directory`.
    pub(crate) fn tls(&self, client: &tokio_postgres::Config, directory: &Path) -> Result<Tls> {
        match client.get_ssl_mode() {
            SslMode::Disable => Ok(Tls::off()),
            _ => Tls::verified(self.tls_ca.as_ref().map(|path| directory.join(path)).as_deref()),
        }
    }
}

/// Whether the server is on this machine. Names other than `localhost` count as remote.
fn is_here(client: &tokio_postgres::Config) -> bool {
    let hosts = client.get_hosts().iter().all(|host| match host {
        Host::Tcp(host) => host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback()),
        #[cfg(unix)]
        Host::Unix(_) => true,
    });
    hosts && client.get_hostaddrs().iter().all(IpAddr::is_loopback)
}

fn wrong(message: impl Into<String>) -> DriverError {
    DriverError::new(ErrorKind::Config, "open", message)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn config(settings: Value) -> Result<PostgresConfig> {
        let Value::Object(settings) = json!({"connection": {"name": "main", "settings": settings}}) else {
            unreachable!()
        };
        connection(&OpenContext::new(settings, "/")).map(|connection| connection.settings)
    }

    #[test]
    fn wrong_settings_are_refused() {
        for (settings, word) in [
            (json!({}), "`url` is missing"),
            (json!({"url": "postgres://u@h/d", "port": 1}), "already contains the server"),
            (json!({"host": "h", "schema": "Big"}), "lower-case"),
            (json!({"host": "h", "schema": "a\"b"}), "lower-case"),
            (json!({"host": "h", "schema": "pg_a"}), "lower-case"),
            (json!({"host": "h", "schema": ""}), "lower-case"),
            (json!({"host": "h", "pool": 1}), "from 2 to 500"),
            (json!({"host": "h", "tls": "maybe"}), "maybe"),
            (json!({"host": "h", "sslmode": "require"}), "sslmode"),
        ] {
            let error = config(settings.clone()).err().unwrap();
            assert!(error.kind() == ErrorKind::Config && error.to_string().contains(word), "{settings}: {error}");
        }
        for (settings, word) in [
            (json!({"url": "postgres://u:secret@h:port/d"}), "is not a valid address"),
            (json!({"url": "postgres:///d?user=u"}), "no host"),
            (json!({"host": "h"}), "no user"),
        ] {
            let error = config(settings.clone()).unwrap().client().unwrap_err();
            assert!(error.kind() == ErrorKind::Config && error.to_string().contains(word), "{settings}: {error}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn other_machines_are_reached_with_tls() {
        for (settings, mode) in [
            (json!({"host": "db.example", "user": "u"}), SslMode::Require),
            (json!({"url": "postgres://u@db.example/d"}), SslMode::Require),
            (json!({"url": "postgres://u@127.0.0.1,db.example/d"}), SslMode::Require),
            (json!({"url": "postgres://u@localhost/d?hostaddr=10.0.0.1"}), SslMode::Require),
            (json!({"url": "postgres://u@db.example/d?sslmode=disable"}), SslMode::Disable),
            (json!({"url": "postgres://u@localhost/d?sslmode=require"}), SslMode::Require),
            (json!({"url": "postgres://u@localhost/d"}), SslMode::Disable),
            (json!({"url": "postgres://u@[::1]/d"}), SslMode::Disable),
            (json!({"host": "/run/postgresql", "user": "u"}), SslMode::Disable),
            (json!({"host": "localhost", "user": "u", "tls": "prefer"}), SslMode::Prefer),
            (json!({"host": "db.example", "user": "u", "tls": "off"}), SslMode::Disable),
        ] {
            assert_eq!(config(settings.clone()).unwrap().client().unwrap().get_ssl_mode(), mode, "{settings}");
        }
    }
}
