//! Events and secrets in NATS JetStream, shared by several nodes.
//!
//! The event log is a *judged log*: each batch of appends is one message of one stream, published without a condition.
//! Every node follows the stream and judges each append in the stream's order with the same rules, so all nodes agree on
//! what was appended without asking each other. What a node has judged is in an SQLite file of its own, which answers
//! all reads and can be made again from the stream.
//!
//! `connection` is the client and what is checked of the server, `streams` what is checked of a stream, `parts` keeps
//! what is too large for one message, `bucket` is values by key with compare and set. `event` is the event store,
//! `secure` the store of secrets.

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
            "the number of messages between two snapshots for new nodes; 0: none",
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
