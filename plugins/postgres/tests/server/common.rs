//! Opens stores on a server, and reads their logs.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use snaphook_driver::{DriverError, Event, EventFilter, EventQuery, EventStore, OpenContext};
use snaphook_driver_testkit::servers::{Server, postgres};
use snaphook_postgres::DRIVER;
use tokio_postgres::{Client, NoTls};

/// Longer than any wait in these tests.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// The server for tests that do not disturb it.
pub(crate) fn url() -> String {
    static SERVER: OnceLock<Server> = OnceLock::new();
    postgres::url(SERVER.get_or_init(|| postgres::start(&[])))
}

/// A schema that no other test uses.
pub(crate) fn schema() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("s{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The context of a store with a connection of this name; stores with other names share nothing with it.
pub(crate) fn context(name: &str, settings: Value) -> OpenContext {
    let connection = json!({"name": name, "settings": settings});
    OpenContext::new(Map::from_iter([("connection".to_owned(), connection)]), "/")
}

pub(crate) async fn try_open(name: &str, settings: Value) -> Result<Arc<dyn EventStore>, DriverError> {
    DRIVER.event.unwrap()(context(name, settings)).await
}

pub(crate) async fn open(name: &str, url: &str, schema: &str) -> Arc<dyn EventStore> {
    try_open(name, json!({"url": url, "schema": schema, "pool": 3})).await.unwrap()
}

/// A client without the driver; waits for a server that is starting.
pub(crate) async fn client(url: &str) -> Client {
    let started = Instant::now();
    loop {
        match tokio_postgres::connect(url, NoTls).await {
            Ok((client, connection)) => {
                tokio::spawn(connection);
                return client;
            }
            Err(error) => assert!(started.elapsed() < DEADLINE, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) async fn all(store: &dyn EventStore) -> Vec<Event> {
    let (mut after, mut events) = (0, Vec::new());
    loop {
        let page = store.read(&EventQuery { after, limit: 1000, filter: EventFilter::default() }, None).await.unwrap();
        let Some(last) = page.events.last() else { return events };
        after = last.position;
        events.extend(page.events);
    }
}

/// Retries until it succeeds.
pub(crate) async fn eventually<T, F: Future<Output = Result<T, DriverError>>>(mut work: impl FnMut() -> F) -> T {
    let started = Instant::now();
    loop {
        match work().await {
            Ok(value) => return value,
            Err(error) => assert!(started.elapsed() < DEADLINE, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
