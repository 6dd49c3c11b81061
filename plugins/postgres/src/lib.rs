//! Stores in PostgreSQL, for one node or several: events, models and errors in one schema of a database.
//!
//! All stores that name the same `[connections.NAME]` share a pool of connections (`connection.rs`); a call has one of them
//! for itself, with a deadline (`session.rs`).

mod config;
mod connection;
mod fault;
mod migrate;
mod model;
mod session;
mod sql;
mod tls;

use std::sync::Arc;

use model::PostgresModelStore;
use snaphook_driver::Driver;

/// The driver `postgres`.
pub const DRIVER: Driver = Driver {
    name: "postgres",
    settings: config::SETTINGS,
    connection: config::CONNECTION,
    secure: None,
    event: None,
    model: Some(|context| Box::pin(async { Ok(Arc::new(PostgresModelStore::open(context).await?) as _) })),
    error: None,
};
