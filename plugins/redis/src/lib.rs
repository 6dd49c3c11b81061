//! Secrets in Redis, for several nodes that share them.
//!
//! Each secret is a hash, and the names are a sorted set; scripts change both in one step. The driver checks the
//! server's guarantees before it stores anything: by default, Redis loses acknowledged writes when it crashes, and may
//! evict keys.

mod bounded;
mod change;
mod config;
mod deadline;
mod durability;
mod failure;
mod keys;
mod link;
mod pool;
mod secure;
mod target;
mod tls;
mod verify;

use std::sync::Arc;

use snaphook_driver::{Connections, Driver, OpenContext, OpenFuture, SecureStore, Setting, SettingKind};

use config::StoreConfig;
use pool::Pool;

pub use config::RedisConfig;
pub use durability::Durability;
pub use secure::RedisSecureStore;

/// Servers that several stores share.
static SERVERS: Connections<RedisConfig, Pool> = Connections::new();

/// The driver `redis`.
pub const DRIVER: Driver = Driver {
    name: "redis",
    settings: &[Setting::required("connection", SettingKind::Connection, config::CONNECTION_EXPECTED)],
    connection: &[
        Setting::optional("url", SettingKind::Secret, config::URL_EXPECTED),
        Setting::optional("host", SettingKind::Text, config::HOST_EXPECTED),
        Setting::optional("port", SettingKind::Number, config::PORT_EXPECTED),
        Setting::optional("tls", SettingKind::Bool, config::TLS_EXPECTED),
        Setting::optional("user", SettingKind::Text, config::USER_EXPECTED),
        Setting::optional("password", SettingKind::Secret, config::PASSWORD_EXPECTED),
        Setting::optional("database", SettingKind::Number, config::DATABASE_EXPECTED),
        Setting::with_default("prefix", SettingKind::Text, config::PREFIX_EXPECTED, "\"snaphook\""),
        Setting::with_default("durability", SettingKind::Text, durability::DURABILITY_EXPECTED, "\"fsync\""),
    ],
    secure: Some(|context: OpenContext| -> OpenFuture<dyn SecureStore> {
        Box::pin(async move { Ok(Arc::new(open(&context).await?) as _) })
    }),
    event: None,
    model: None,
    error: None,
};

async fn open(context: &OpenContext) -> snaphook_driver::Result<RedisSecureStore> {
    let StoreConfig { connection } = context.settings()?;
    let pool = SERVERS.open(&connection, async || Pool::open(&connection).await).await?;
    Ok(RedisSecureStore::new(pool, connection.settings.prefix()))
}
