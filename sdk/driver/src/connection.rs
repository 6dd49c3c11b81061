//! Connections shared by several stores of one plugin: `[connections.NAME]` of the configuration, opened once.

use std::future::Future;
use std::sync::{Arc, Weak};

use serde::Deserialize;
use tokio::sync::Mutex;

use crate::error::Result;

/// The value of a setting of the kind [`Connection`](crate::SettingKind::Connection): the table that it names.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connection<S> {
    /// The name after `connections.`.
    pub name: String,
    /// The table without `driver`, as the driver's own type; references are resolved.
    pub settings: S,
}

/// The open connections of one plugin. Declare one `static` for each kind:
///
/// ```
/// use snaphook_driver::{Connection, Connections, Result};
///
/// #[derive(Clone, PartialEq, serde::Deserialize)]
/// struct Settings {
///     url: String,
/// }
///
/// struct Pool;
///
/// static POOLS: Connections<Settings, Pool> = Connections::new();
///
/// async fn pool(connection: &Connection<Settings>) -> Result<std::sync::Arc<Pool>> {
///     POOLS.open(connection, async || Ok(Pool)).await
/// }
/// ```
pub struct Connections<S, T> {
    /// By name and settings, because one process may serve several configurations.
    open: Mutex<Vec<(Connection<S>, Weak<T>)>>,
}

impl<S: Clone + PartialEq, T> Connections<S, T> {
    #[allow(clippy::new_without_default, reason = "it is made in statics")]
    pub const fn new() -> Self {
        Connections { open: Mutex::const_new(Vec::new()) }
    }

    /// Returns the open connection, or a new one. It is closed with the last store that uses it.
    pub async fn open<F>(&self, connection: &Connection<S>, open: impl FnOnce() -> F) -> Result<Arc<T>>
    where
        F: Future<Output = Result<T>>,
    {
        let mut connections = self.open.lock().await;
        connections.retain(|(_, shared)| shared.strong_count() > 0);
        let known = connections.iter().find(|(known, _)| known == connection);
        if let Some(shared) = known.and_then(|(_, shared)| shared.upgrade()) {
            return Ok(shared);
        }
        let shared = Arc::new(open().await?);
        connections.push((connection.clone(), Arc::downgrade(&shared)));
        Ok(shared)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::error::{DriverError, ErrorKind};

    fn connection(name: &str, settings: &'static str) -> Connection<&'static str> {
        Connection { name: name.to_owned(), settings }
    }

    #[tokio::test]
    async fn a_connection_is_opened_once_and_ends_with_its_last_store() {
        static OPEN: Connections<&str, usize> = Connections::new();
        static OPENED: AtomicUsize = AtomicUsize::new(0);
        let open = async |name: &str, settings: &'static str| {
            let open = async || Ok(OPENED.fetch_add(1, Ordering::SeqCst));
            OPEN.open(&connection(name, settings), open).await.unwrap()
        };
        let (first, again) = (open("a", "x").await, open("a", "x").await);
        assert!(Arc::ptr_eq(&first, &again));
        // Connections that differ in their name or in their settings.
        let others = [open("b", "x").await, open("a", "y").await];
        assert_eq!((*first, *others[0], *others[1]), (0, 1, 2));
        drop((first, again));
        assert_eq!(*open("a", "x").await, 3);
    }

    #[tokio::test]
    async fn what_fails_to_open_is_tried_again() {
        static OPEN: Connections<&str, ()> = Connections::new();
        let connection = connection("a", "x");
        let failed = OPEN.open(&connection, async || Err(DriverError::new(ErrorKind::Unavailable, "open", "no"))).await;
        failed.unwrap_err();
        OPEN.open(&connection, async || Ok(())).await.unwrap();
    }
}
