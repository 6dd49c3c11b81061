//! Opens stores, and sends commands to a server directly.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use snaphook_driver::{OpenContext, Result, SecureStore};
use snaphook_driver_testkit::servers::Server;
use snaphook_driver_testkit::servers::redis::url;
use tokio::time::Instant;

/// Opens a store with these settings of its connection.
pub(crate) async fn open(settings: Value) -> Result<Arc<dyn SecureStore>> {
    let mut table = Map::new();
    table.insert("connection".into(), json!({"name": "test", "settings": settings}));
    (snaphook_redis::DRIVER.secure.unwrap())(OpenContext::new(table, "")).await
}

/// Opens a store on a server, with this prefix.
pub(crate) async fn open_at(server: &Server, prefix: &str) -> Result<Arc<dyn SecureStore>> {
    open(json!({"url": url(server), "prefix": prefix})).await
}

/// The error of a store that must not open, as text.
pub(crate) async fn refused(settings: Value) -> String {
    open(settings).await.err().expect("it is refused").to_string()
}

/// Sends a command without the driver.
pub(crate) async fn ask(server: &Server, words: &[&str]) -> redis::RedisResult<redis::Value> {
    let client = redis::Client::open(url(server))?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    command.query_async(&mut connection).await
}

/// Retries until a call succeeds.
pub(crate) async fn eventually<T>(call: impl AsyncFn() -> Result<T>) -> T {
    let started = Instant::now();
    loop {
        match call().await {
            Ok(value) => return value,
            Err(error) => assert!(started.elapsed() < Duration::from_secs(60), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
