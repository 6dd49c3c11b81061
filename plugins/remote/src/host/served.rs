//! A store that is served, and its appends: each goes to its end, whatever becomes of its client.

use std::sync::Arc;

use snaphook_driver::wire::{Method, Opened, Service};
use snaphook_driver::{DriverError, ErrorKind, Result};
use tokio::sync::RwLock;

pub(super) struct Served {
    pub(super) service: Service,
    /// Held by appends to read, and by a question whether the store is healthy to write: a client that does not know what
    /// became of an append asks that first, and must get no answer before the append has ended.
    appends: RwLock<()>,
}

impl Served {
    pub(super) fn new(opened: Opened) -> Arc<Served> {
        Arc::new(Served { service: Service::new(opened), appends: RwLock::default() })
    }

    /// Waits until the appends that began before have ended.
    pub(super) async fn settled(&self) {
        drop(self.appends.write().await);
    }

    pub(super) async fn call(self: &Arc<Self>, method: Method, request: Vec<u8>) -> Result<Vec<u8>> {
        match method {
            Method::EventAppend => {
                let served = Arc::clone(self);
                let append = tokio::spawn(async move {
                    let _under_way = served.appends.read().await;
                    served.service.call(method, &request).await
                });
                append.await.unwrap_or_else(|error| {
                    let message = "the append did not come to its end";
                    Err(DriverError::new(ErrorKind::Uncertain, method.name(), message).because(error))
                })
            }
            Method::EventHealth => {
                self.settled().await;
                self.service.call(method, &request).await
            }
            _ => self.service.call(method, &request).await,
        }
    }
}
