//! Events and secrets in NATS JetStream, shared by several nodes.
//!
//! The event log is a *judged log*: each batch of appends is one message of one stream, published without a condition.
//! Every node follows the stream and judges each append in stream order with the same rules, so all nodes agree on the
//! accepted appends without coordination. Each node stores the result in its own SQLite file, which serves all reads
//! and can be rebuilt from the stream.
//!
//! `connection` contains the client and the checks of the server, `streams` the checks of a stream, `parts` stores
//! values that are too large for one message, and `bucket` is a key-value store with compare-and-set. `event` is the
//! event store, `secure` the store of secrets.

mod bucket;
mod config;
mod connection;
mod event;
mod fault;
mod monitor;
mod parts;
mod secure;
mod streams;

use std::sync::Arc;

use snaphook_driver::{Driver, OpenContext, OpenFuture, Setting, SettingKind};

/// The driver `nats`.
pub const DRIVER: Driver = Driver {
    name: "nats",
    settings: &[
        Setting::required("connection", SettingKind::Connection, "the name of a table `[connections.NAME]`"),
        Setting::with_default("path", SettingKind::Text, config::PATH_EXPECTED, "\"data/nats.db\""),
        Setting::with_default(
            "snapshots",
            SettingKind::Number,
            "the number of messages between two snapshots for new nodes; 0: no snapshots",
            "100000",
        ),
    ],
    connection: config::CONNECTION,
    secure: Some(|context: OpenContext| -> OpenFuture<dyn snaphook_driver::SecureStore> {
        Box::pin(async move { Ok(Arc::new(secure::NatsSecureStore::open(&context).await?) as _) })
    }),
    event: Some(|context: OpenContext| -> OpenFuture<dyn snaphook_driver::EventStore> {
        Box::pin(async move { Ok(Arc::new(event::NatsEventStore::open(&context).await?) as _) })
    }),
    model: None,
    error: None,
};
