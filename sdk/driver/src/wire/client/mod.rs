//! A store whose methods are performed by another process.

mod error;
mod event;
mod model;
mod secure;

use std::sync::Arc;

use async_trait::async_trait;
use prost::Message;

use super::message::{Malformed, decode};
use super::method::Method;
use super::opened::Opened;
use super::proto;
use crate::capabilities::Capabilities;
use crate::driver::Store;
use crate::error::{DriverError, ErrorKind, Result};

/// Transports the bytes of calls to one opened store.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Performs one call. `ErrorKind::Unavailable` means that the call had no effect, `ErrorKind::Uncertain` that it
    /// may have had one. Dropping the future abandons the call.
    async fn call(&self, method: Method, request: Vec<u8>) -> Result<Vec<u8>>;
}

/// A store over a [`Transport`]. It implements all four traits, of which the other side serves one.
#[derive(Clone)]
pub struct Client {
    transport: Arc<dyn Transport>,
    capabilities: Capabilities,
    log: String,
}

impl Client {
    /// An opened store, as described by the other side.
    pub fn new(transport: Arc<dyn Transport>, opened: proto::OpenResponse) -> Client {
        let capabilities = opened.capabilities.map_or(Capabilities::LEAST, Capabilities::from);
        Client { transport, capabilities, log: opened.log }
    }

    /// Returns the client as a store of that kind.
    pub fn into_opened(self, store: Store) -> Opened {
        match store {
            Store::Secure => Opened::Secure(Arc::new(self)),
            Store::Event => Opened::Event(Arc::new(self)),
            Store::Model => Opened::Model(Arc::new(self)),
            Store::Error => Opened::Error(Arc::new(self)),
        }
    }

    async fn call<R: Message + Default>(&self, method: Method, request: &impl Message) -> Result<R> {
        let response = self.transport.call(method, request.encode_to_vec()).await;
        // A read cannot have an unknown outcome.
        let response = response.map_err(|error| match error.kind() {
            ErrorKind::Uncertain if !method.changes() => error.as_kind(ErrorKind::Unavailable),
            _ => error,
        })?;
        decode(&response).map_err(garbage(method))
    }

    async fn tell(&self, method: Method, request: &impl Message) -> Result<()> {
        self.call::<proto::Empty>(method, request).await.map(|_| ())
    }
}

/// A response that cannot be parsed: the outcome of the call is unknown.
fn garbage(method: Method) -> impl Fn(Malformed) -> DriverError {
    move |fault| {
        let kind = if method.changes() { ErrorKind::Uncertain } else { ErrorKind::Unexpected };
        DriverError::new(kind, method.name(), format!("the driver's response cannot be read: {fault}"))
    }
}
