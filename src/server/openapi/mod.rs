//! The API as an OpenAPI 3.1 document.
//!
//! The descriptions of the operations ([`super::describe`]) are rendered once in general form, and once for each model
//! with the model's own schema.

mod cache;
mod document;
mod general;
mod model;
mod operation;
mod render;
pub(super) mod serve;

pub(super) use self::cache::OpenApi;
pub(super) use self::general::Described;
pub(super) use self::operation::{Operation, Tag};
