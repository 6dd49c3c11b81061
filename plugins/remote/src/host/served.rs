//! A store that is served. Its changes come one at a time, on threads that may wait, and each goes to its end, whatever becomes of
//! its client.

use std::sync::Arc;

use snaphook_driver::wire::{Method, Opened, Service};
use snaphook_driver::{DriverError, ErrorKind, Result};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, OwnedRwLockReadGuard, RwLock};

pub(super) struct Served {
    pub(super) service: Service,
    /// Appends hold it shared; a question for health takes it alone, so it waits for them: a client that does not know what became
    /// of an append asks that first. What is still in a socket when the question comes is another connection's and is cut off
    /// with it.
    appends: Arc<RwLock<()>>,
    /// What may block its thread, as the contract of the stores allows.
    changes: Arc<Mutex<()>>,
}

/// An append that came in and has not ended.
pub(super) type UnderWay = OwnedRwLockReadGuard<()>;

impl Served {
    pub(super) fn new(opened: Opened) -> Arc<Served> {
        Arc::new(Served { service: Service::new(opened), appends: Arc::default(), changes: Arc::default() })
    }

    /// To be called when a request is known and before its body is read.
    pub(super) async fn begin(&self, method: Method) -> Option<UnderWay> {
        match method {
            Method::EventAppend => Some(Arc::clone(&self.appends).read_owned().await),
            _ => None,
        }
    }

    /// Waits until the changes that began before have ended.
    pub(super) async fn settled(&self) {
        drop(self.appends.write().await);
        drop(self.changes.lock().await);
    }

    /// The response, and what was held for the request. A change keeps that to its own end.
    pub(super) async fn call<T: Send + 'static>(
        self: &Arc<Self>,
        method: Method,
        request: Vec<u8>,
        held: T,
    ) -> Result<(Vec<u8>, T)> {
        if method == Method::EventHealth {
            drop(self.appends.write().await);
        }
        if !may_block(method) {
            return Ok((self.service.call(method, &request).await?, held));
        }
        let turn = Arc::clone(&self.changes).lock_owned().await;
        let (served, runtime) = (Arc::clone(self), Handle::current());
        let change = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let response = runtime.block_on(served.service.call(method, &request));
            response.map(|response| (response, held))
        });
        change.await.unwrap_or_else(|error| {
            let message = "the change did not come to its end";
            Err(DriverError::new(ErrorKind::Uncertain, method.name(), message).because(error))
        })
    }
}

const fn may_block(method: Method) -> bool {
    matches!(
        method,
        Method::EventAppend | Method::ModelDefine | Method::ModelDropModel | Method::ModelApply | Method::ModelReset
    )
}
