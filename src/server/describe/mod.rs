//! What the operations of the API say of themselves, one file per resource, a function for each operation of the table
//! ([`super::routes`]).

pub(super) mod access;
pub(super) mod errors;
pub(super) mod events;
pub(super) mod hooks;
pub(super) mod instances;
pub(super) mod models;
pub(super) mod server;
