//! Serves an opened store to callers that only have bytes.

mod checks;
mod error;
mod event;
mod model;
mod secure;

use std::sync::Arc;

use prost::Message;

use self::checks::Checked;
use self::event::Exports;
use super::{Malformed, Method, decode, proto};
use crate::capabilities::Capabilities;
use crate::driver::{Driver, OpenContext, Store};
use crate::error::{DriverError, ErrorKind, Result};
use crate::{ErrorStore, EventStore, ModelStore, SecureStore};

/// A store of any kind, opened.
#[derive(Clone)]
pub enum Opened {
    Secure(Arc<dyn SecureStore>),
    Event(Arc<dyn EventStore>),
    Model(Arc<dyn ModelStore>),
    Error(Arc<dyn ErrorStore>),
}

impl Opened {
    /// Opens a store of a driver that is linked in; `ErrorKind::Unsupported` if it does not bring such a store.
    pub async fn open(driver: &Driver, store: Store, context: OpenContext) -> Result<Opened> {
        let missing = || {
            let message = format!("the driver `{}` brings no {store} storage", driver.name);
            DriverError::new(ErrorKind::Unsupported, "open", message)
        };
        Ok(match store {
            Store::Secure => Opened::Secure(driver.secure.ok_or_else(missing)?(context).await?),
            Store::Event => Opened::Event(driver.event.ok_or_else(missing)?(context).await?),
            Store::Model => Opened::Model(driver.model.ok_or_else(missing)?(context).await?),
            Store::Error => Opened::Error(driver.error.ok_or_else(missing)?(context).await?),
        })
    }

    pub fn store(&self) -> Store {
        match self {
            Opened::Secure(_) => Store::Secure,
            Opened::Event(_) => Store::Event,
            Opened::Model(_) => Store::Model,
            Opened::Error(_) => Store::Error,
        }
    }

    /// Ends its background work.
    pub async fn close(&self) -> Result<()> {
        match self {
            Opened::Secure(store) => store.close().await,
            Opened::Event(store) => store.close().await,
            Opened::Model(store) => store.close().await,
            Opened::Error(store) => store.close().await,
        }
    }

    fn capabilities(&self) -> Capabilities {
        match self {
            Opened::Secure(store) => store.capabilities(),
            Opened::Event(store) => store.capabilities(),
            Opened::Model(store) => store.capabilities(),
            Opened::Error(store) => store.capabilities(),
        }
    }
}

/// An opened store whose methods take and return bytes.
pub struct Service {
    opened: Opened,
    exports: Exports,
}

impl Service {
    pub fn new(opened: Opened) -> Service {
        Service { opened, exports: Exports::default() }
    }

    /// What an opener is told of the store. `handle` is its name in later calls.
    pub fn describe(&self, handle: u64) -> proto::OpenResponse {
        let log = match &self.opened {
            Opened::Event(store) => store.identity().to_owned(),
            _ => String::new(),
        };
        proto::OpenResponse { handle, capabilities: Some(self.opened.capabilities().into()), log }
    }

    /// Carries out one call. The bytes are those of the method's messages. Dropping the future gives up a read, as it does
    /// with the methods of the traits.
    pub async fn call(&self, method: Method, request: &[u8]) -> Result<Vec<u8>> {
        match &self.opened {
            Opened::Secure(store) => secure::call(&**store, method, request).await,
            Opened::Event(store) => event::call(&**store, &self.exports, method, request).await,
            Opened::Model(store) => model::call(&**store, method, request).await,
            Opened::Error(store) => error::call(&**store, method, request).await,
        }
    }
}

/// The request of a method, whose values are such as the method takes.
fn read<M: Message + Default + Checked>(method: Method, bytes: &[u8]) -> Result<M> {
    let request: M = decode(bytes).map_err(refuse(method))?;
    request.check().map_err(|fault| DriverError::new(ErrorKind::Invalid, method.name(), fault))?;
    Ok(request)
}

/// A request that cannot be read.
fn refuse(method: Method) -> impl Fn(Malformed) -> DriverError {
    move |fault| DriverError::new(ErrorKind::Invalid, method.name(), format!("the request cannot be read: {fault}"))
}

/// A method of another kind of store.
fn foreign(method: Method, store: Store) -> DriverError {
    let message = format!("`{}/{}` was called on {store} storage", method.store(), method.name());
    DriverError::new(ErrorKind::Invalid, method.name(), message)
}

fn write(message: &impl Message) -> Result<Vec<u8>> {
    Ok(message.encode_to_vec())
}

fn nothing((): ()) -> Vec<u8> {
    Vec::new()
}
