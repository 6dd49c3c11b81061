//! What is special to a server that several nodes share: how it is reached and refused, and what its faults leave behind.

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
