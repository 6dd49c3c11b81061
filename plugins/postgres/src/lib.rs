//! Stores in PostgreSQL, for one node or several: events, models and errors in one schema of a database.
//!
//! All stores that name the same `[connections.NAME]` share a pool of connections (`connection.rs`). Each call has
//! exclusive use of one connection, with a deadline (`session.rs`).

mod config;
mod connection;
mod error;
mod event;
mod fault;
mod heads;
mod link;
mod listener;
mod migrate;
mod model;
mod session;
mod sql;
mod text;
mod tls;

use std::sync::Arc;

use snaphook_driver::{Driver, OpenContext, OpenFuture};

pub use error::PostgresErrorStore;
pub use event::PostgresEventStore;
pub use model::PostgresModelStore;

/// The driver `postgres`.
pub const DRIVER: Driver = Driver {
    name: "postgres",
    settings: config::SETTINGS,
    connection: config::CONNECTION,
    secure: None,
    event: Some(|context: OpenContext| -> OpenFuture<dyn snaphook_driver::EventStore> {
        Box::pin(async move { Ok(Arc::new(PostgresEventStore::open(&context).await?) as _) })
    }),
    model: Some(|context: OpenContext| -> OpenFuture<dyn snaphook_driver::ModelStore> {
        Box::pin(async move { Ok(Arc::new(PostgresModelStore::open(&context).await?) as _) })
    }),
    error: Some(|context: OpenContext| -> OpenFuture<dyn snaphook_driver::ErrorStore> {
        Box::pin(async move { Ok(Arc::new(PostgresErrorStore::open(&context).await?) as _) })
    }),
};
