//! A store of any kind.

use std::sync::Arc;

use crate::capabilities::Capabilities;
use crate::driver::{Driver, OpenContext, Store};
use crate::error::{DriverError, ErrorKind, Result};
use crate::error_store::ErrorStore;
use crate::event_store::EventStore;
use crate::model_store::ModelStore;
use crate::secure_store::SecureStore;

/// A store of any kind, opened.
#[derive(Clone)]
pub enum Opened {
    Secure(Arc<dyn SecureStore>),
    Event(Arc<dyn EventStore>),
    Model(Arc<dyn ModelStore>),
    Error(Arc<dyn ErrorStore>),
}

impl Opened {
    /// Opens a store of a built-in driver; `ErrorKind::Unsupported` if the driver has no such store.
    pub async fn open(driver: &Driver, store: Store, context: OpenContext) -> Result<Opened> {
        let missing = || {
            let message = format!("the driver `{}` provides no {store} storage", driver.name);
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

    pub(super) fn capabilities(&self) -> Capabilities {
        match self {
            Opened::Secure(store) => store.capabilities(),
            Opened::Event(store) => store.capabilities(),
            Opened::Model(store) => store.capabilities(),
            Opened::Error(store) => store.capabilities(),
        }
    }
}
