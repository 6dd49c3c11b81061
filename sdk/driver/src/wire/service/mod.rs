//! Serves an opened store over bytes.

mod checks;
mod error;
mod event;
mod model;
mod request;
mod secure;

use self::event::Exports;
use super::method::Method;
use super::opened::Opened;
use super::proto;
use crate::error::Result;

/// An opened store whose methods take and return bytes.
pub struct Service {
    opened: Opened,
    exports: Exports,
}

impl Service {
    pub fn new(opened: Opened) -> Service {
        Service { opened, exports: Exports::default() }
    }

    /// The description of the store for its opener. `handle` identifies it in later calls.
    pub fn describe(&self, handle: u64) -> proto::OpenResponse {
        let log = match &self.opened {
            Opened::Event(store) => store.identity().to_owned(),
            _ => String::new(),
        };
        proto::OpenResponse { handle, capabilities: Some(self.opened.capabilities().into()), log }
    }

    /// Performs one call. The bytes are those of the method's messages. Dropping the future abandons a read, as with
    /// the methods of the traits.
    pub async fn call(&self, method: Method, request: &[u8]) -> Result<Vec<u8>> {
        match &self.opened {
            Opened::Secure(store) => secure::call(&**store, method, request).await,
            Opened::Event(store) => event::call(&**store, &self.exports, method, request).await,
            Opened::Model(store) => model::call(&**store, method, request).await,
            Opened::Error(store) => error::call(&**store, method, request).await,
        }
    }
}
