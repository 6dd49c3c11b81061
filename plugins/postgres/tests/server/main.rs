//! Tests with a shared server: connecting, rejected configurations, and the effects of its failures.

mod common;
mod configuration;
mod cuts;
mod kills;
mod locks;
mod models;
mod nodes;
mod pauses;
mod pooler;
mod transport;
