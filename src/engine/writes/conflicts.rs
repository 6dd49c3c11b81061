//! Conflicts of a change with what is there, and the errors that report them.

use snaphook_driver::Holder;

use crate::catalog::{FieldError, ModelRecord, unique};
use crate::engine::error::{Error, ErrorKind};

pub(super) fn exists(model: &str, id: &str) -> Error {
    Error::new(ErrorKind::Exists, format!("`{model}/{id}` exists already; PUT or PATCH changes it"))
}

pub(super) fn not_unique(record: &ModelRecord, key: &str, holder: &Holder) -> Error {
    let properties = unique::properties_of(record, key).unwrap_or_default();
    let names = properties.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let errors = properties
        .iter()
        .map(|name| FieldError {
            pointer: format!("/data/{}", name.replace('~', "~0").replace('/', "~1")),
            message: format!("must be unique, `{}` has this value already", holder.stream),
        })
        .collect();
    Error::new(ErrorKind::NotUnique, format!("another instance has the same value of {names}")).with_errors(errors)
}
