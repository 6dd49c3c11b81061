//! Common handling of requests and responses for all kinds of stores.

use prost::Message;

use super::checks::Checked;
use crate::driver::Store;
use crate::error::{DriverError, ErrorKind, Result};
use crate::wire::message::{Malformed, decode};
use crate::wire::method::Method;

/// Reads the request of a method and checks its values.
pub(super) fn read<M: Message + Default + Checked>(method: Method, bytes: &[u8]) -> Result<M> {
    let request: M = decode(bytes).map_err(refuse(method))?;
    request.check().map_err(|fault| DriverError::new(ErrorKind::Invalid, method.name(), fault))?;
    Ok(request)
}

/// The error for an unreadable request.
pub(super) fn refuse(method: Method) -> impl Fn(Malformed) -> DriverError {
    move |fault| DriverError::new(ErrorKind::Invalid, method.name(), format!("the request cannot be read: {fault}"))
}

/// The error for a method of another kind of store.
pub(super) fn foreign(method: Method, store: Store) -> DriverError {
    let message = format!("`{}/{}` was called on {store} storage", method.store(), method.name());
    DriverError::new(ErrorKind::Invalid, method.name(), message)
}

pub(super) fn write(message: &impl Message) -> Result<Vec<u8>> {
    Ok(message.encode_to_vec())
}

pub(super) fn nothing((): ()) -> Vec<u8> {
    Vec::new()
}
