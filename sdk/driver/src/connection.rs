//! What several stores of one plugin share: `[connections.NAME]` of the configuration, opened once.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Weak};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokio::sync::Mutex;

use crate::error::{DriverError, ErrorKind, Result};
use crate::json;

/// The value of a setting of the kind [`Connection`](crate::SettingKind::Connection): the table that it names.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connection {
    /// The name after `connections.`.
    pub name: String,
    /// The table without `driver`; references are resolved.
    pub settings: Map<String, Value>,
}

impl Connection {
    /// The settings as the driver's own type.
    pub fn settings<T: DeserializeOwned>(&self) -> Result<T> {
        json::from_tree(Value::Object(self.settings.clone())).map_err(|error| {
            let message = format!("`connections.{}`: {error}", self.name);
            DriverError::new(ErrorKind::Config, "open", message)
        })
    }
}

/// The connections of one plugin that are open. Each is a `static` of it:
///
/// ```
/// use snaphook_driver::{Connection, Connections, Result};
///
/// struct Pool;
///
/// static POOLS: Connections<Pool> = Connections::new();
///
/// async fn pool(connection: &Connection) -> Result<std::sync::Arc<Pool>> {
///     POOLS.open(connection, async || Ok(Pool)).await
/// }
/// ```
pub struct Connections<T> {
    /// By name and settings: one process may serve several configurations.
    open: Mutex<Option<HashMap<String, Weak<T>>>>,
}

impl<T> Connections<T> {
    #[allow(clippy::new_without_default, reason = "it is made in statics")]
    pub const fn new() -> Connections<T> {
        Connections { open: Mutex::const_new(None) }
    }

    /// The connection: the one that is open, or a new one. It is closed with the last store that has it.
    pub async fn open<F>(&self, connection: &Connection, open: impl FnOnce() -> F) -> Result<Arc<T>>
    where
        F: Future<Output = Result<T>>,
    {
        let key = format!("{}\n{}", connection.name, Value::Object(connection.settings.clone()));
        let mut connections = self.open.lock().await;
        let connections = connections.get_or_insert_default();
        connections.retain(|_, connection| connection.strong_count() > 0);
        if let Some(shared) = connections.get(&key).and_then(Weak::upgrade) {
            return Ok(shared);
        }
        let shared = Arc::new(open().await?);
        connections.insert(key, Arc::downgrade(&shared));
        Ok(shared)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn connection(name: &str, url: &str) -> Connection {
        Connection { name: name.to_owned(), settings: Map::from_iter([("url".to_owned(), url.into())]) }
    }

    #[tokio::test]
    async fn a_connection_is_opened_once_and_ends_with_its_last_store() {
        static OPEN: Connections<usize> = Connections::new();
        static OPENED: AtomicUsize = AtomicUsize::new(0);
        let open = async |name: &str, url: &str| {
            let open = async || Ok(OPENED.fetch_add(1, Ordering::SeqCst));
            OPEN.open(&connection(name, url), open).await.unwrap()
        };
        let (first, again) = (open("a", "x").await, open("a", "x").await);
        assert!(Arc::ptr_eq(&first, &again));
        // Another one by its name, or by what it says.
        let others = [open("b", "x").await, open("a", "y").await];
        assert_eq!((*first, *others[0], *others[1]), (0, 1, 2));
        drop((first, again));
        assert_eq!(*open("a", "x").await, 3);
    }

    #[tokio::test]
    async fn what_fails_to_open_is_tried_again() {
        static OPEN: Connections<()> = Connections::new();
        let connection = connection("a", "x");
        let failed = OPEN.open(&connection, async || Err(DriverError::new(ErrorKind::Unavailable, "open", "no"))).await;
        failed.unwrap_err();
        OPEN.open(&connection, async || Ok(())).await.unwrap();
    }
}
