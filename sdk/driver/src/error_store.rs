//! Post hook runs that failed permanently, stored until somebody retries or drops them.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::capabilities::Capabilities;
use crate::error::Result;
use crate::event::Event;
use crate::time::{self, Millis};

/// One failed run of a post hook.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ErrorRecord {
    /// A UUID that the server derives from the event, the phase and the hook: the same failure always has the same id.
    /// Sorts in the order of the events.
    pub id: String,
    #[serde(with = "time")]
    pub time: Millis,
    pub model: String,
    /// Such as `postCreate`.
    pub phase: String,
    pub hook: String,
    pub engine: String,
    /// `sha256:…` of the code that failed.
    pub artifact: String,
    /// The complete event for which the hook ran.
    pub event: Event,
    /// The number of attempts, starting at 1.
    pub attempts: u32,
    /// Kind of failure, such as `trap`, `timeout`, `memory`, `rejected`.
    pub cause: String,
    pub message: String,
    /// The exceeded limit, such as `timeout 500 ms`, if there is one.
    pub limit: Option<String>,
    /// Log lines of the last attempt.
    pub log: Vec<String>,
}

/// Which records to list.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ErrorQuery {
    pub model: Option<String>,
    pub hook: Option<String>,
    /// Only records with an id greater than this one.
    pub after: Option<String>,
    /// The maximum number of records, at least 1; fewer are returned if the data of their events would exceed
    /// [`crate::PAGE_BYTES_MAX`]. The server requests 1 to 1000.
    pub limit: u32,
}

/// Some of the records that match.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ErrorPage {
    pub records: Vec<ErrorRecord>,
    /// Whether the page ends because of a limit: then more records may follow.
    pub full: bool,
}

/// A store of failed runs.
#[async_trait]
pub trait ErrorStore: Send + Sync {
    /// Constant while the store is open.
    fn capabilities(&self) -> Capabilities;

    /// Whether the store currently works.
    async fn health(&self) -> Result<()>;

    /// Ends background work. Called once, last.
    async fn close(&self) -> Result<()>;

    /// Stores a record; it is durable when this returns. A record with an existing id replaces it, because the server
    /// records the same failure again after a crash between this and the acknowledgement of the event.
    async fn record(&self, record: &ErrorRecord) -> Result<()>;

    /// Matching records by ascending id. If any record matches, the page contains at least one.
    async fn list(&self, query: &ErrorQuery) -> Result<ErrorPage>;

    /// The number of matching records, regardless of `after` and `limit`; 0 for a store that only forwards.
    async fn count(&self, query: &ErrorQuery) -> Result<u64>;

    /// One record; `None` if there is none.
    async fn get(&self, id: &str) -> Result<Option<ErrorRecord>>;

    /// Removes a record; `false` if there was none, which is not an error.
    async fn remove(&self, id: &str) -> Result<bool>;
}
