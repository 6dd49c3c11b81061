//! Descriptions of the operations of the API: one file per resource, one function for each operation of the table
//! ([`super::routes`]).

pub(super) mod access;
pub(super) mod errors;
pub(super) mod events;
pub(super) mod hooks;
pub(super) mod instances;
pub(super) mod models;
pub(super) mod server;
