//! Nodes of one log: stores on one server, each with its own folder.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use snaphook_driver::wire::Opened;
use snaphook_driver::{
    Append, Claim, EventFilter, EventQuery, EventStore, LogRecord, OpenContext, Position, Result, Store,
};
use snaphook_driver_testkit::sample::{Random, any};
use snaphook_nats::DRIVER;
use tempfile::TempDir;

/// Longer than any wait in these tests.
pub(crate) const DEADLINE: Duration = Duration::from_secs(90);

/// The settings of a node.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) folder: Arc<TempDir>,
    pub(crate) connection: Value,
    pub(crate) snapshots: u64,
}

impl Node {
    pub(crate) fn new(name: &str, url: &str, log: &str) -> Node {
        Node::with(name, json!({"url": url, "name": log}))
    }

    pub(crate) fn with(name: &str, connection: Value) -> Node {
        let folder = Arc::new(TempDir::new().unwrap());
        Node { name: name.to_owned(), folder, connection, snapshots: 0 }
    }

    /// A context as in another process: with its own client.
    fn context(&self) -> OpenContext {
        let settings = json!({
            "connection": {"name": self.name, "settings": self.connection},
            "path": "log.db",
            "snapshots": self.snapshots,
        });
        let Value::Object(settings) = settings else { unreachable!() };
        OpenContext { node: self.name.clone(), ..OpenContext::new(settings, self.folder.path()) }
    }

    pub(crate) async fn try_open(&self) -> Result<Arc<dyn EventStore>> {
        match Opened::open(&DRIVER, Store::Event, self.context()).await? {
            Opened::Event(store) => Ok(store),
            _ => unreachable!(),
        }
    }

    pub(crate) async fn open(&self) -> Arc<dyn EventStore> {
        self.try_open().await.unwrap()
    }

    pub(crate) async fn refused(&self) -> snaphook_driver::DriverError {
        match self.try_open().await {
            Ok(_) => panic!("it was opened"),
            Err(error) => error,
        }
    }

    pub(crate) fn file(&self) -> std::path::PathBuf {
        self.folder.path().join("log.db")
    }
}

/// All records of a log, except groups.
pub(crate) async fn records(store: &dyn EventStore) -> Vec<LogRecord> {
    let mut export = store.export().await.unwrap();
    let mut records = Vec::new();
    loop {
        let more = export.next().await.unwrap();
        if more.is_empty() {
            records.retain(|record| !matches!(record, LogRecord::Group { .. } | LogRecord::Pending { .. }));
            return records;
        }
        records.extend(more);
    }
}

/// Waits until a condition is met.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !holds().await {
        assert!(started.elapsed() < DEADLINE, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until a node's copy of the log reaches `head`.
pub(crate) async fn reaches(store: &dyn EventStore, head: Position) {
    let query = EventQuery { after: head - 1, limit: 1, filter: EventFilter::default() };
    let page = store.read(&query, Some(DEADLINE)).await.unwrap();
    assert!(page.head >= head, "{} instead of {head}", page.head);
}

/// Appends that conflict with each other: few instances, few keys, and expectations that others may have changed.
pub(crate) fn batch(node: &str, number: u64, random: &mut Random) -> Vec<Append> {
    (0..1 + random.below(8))
        .map(|row| {
            let mut append = any("m", &format!("i{}", random.below(6)));
            append.event.id = format!("{node}-{number}-{row}");
            append.event.time += random.below(10_000) as i64;
            append.event.data = Some(snaphook_driver::Json::from_value(&json!({"pad": "x".repeat(random.below(300))})));
            if random.below(3) == 0 {
                append.claims = vec![Claim::new(format!("k{}", random.below(5)))];
            }
            if random.below(4) == 0 {
                append.releases = vec![format!("k{}", random.below(5))];
            }
            append
        })
        .collect()
}

/// Checks that the log contains every acknowledged event at its position, and no event twice.
pub(crate) fn check_answers(records: &[LogRecord], answered: &[(String, Position)]) {
    let mut positions = std::collections::HashMap::new();
    for record in records {
        if let LogRecord::Event(event) = record {
            assert_eq!(positions.insert(event.id.clone(), event.position), None, "{} is there twice", event.id);
        }
    }
    for (id, position) in answered {
        assert_eq!(positions.get(id), Some(position), "{id} was answered");
    }
}

pub(crate) fn exists(path: &Path) -> bool {
    path.exists()
}
