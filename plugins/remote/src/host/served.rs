//! A served store. Its changes run one at a time, on threads that may block, and each runs to its end even if its
//! client disconnects.

use std::sync::Arc;

use snaphook_driver::wire::{Method, Opened, Service};
use snaphook_driver::{DriverError, ErrorKind, Result};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, OwnedRwLockReadGuard, RwLock};

pub(super) struct Served {
    pub(super) service: Service,
    /// Appends take a shared lock; a health call takes the exclusive lock, so it waits for them: a client that does not
    /// know the outcome of an append makes a health call first. Requests that are still in another connection's socket
    /// at that time are cut off with that connection.
    appends: Arc<RwLock<()>>,
    /// Serialises changes, which may block their thread according to the contract of the stores.
    changes: Arc<Mutex<()>>,
}

/// An append in progress.
pub(super) type UnderWay = OwnedRwLockReadGuard<()>;

impl Served {
    pub(super) fn new(opened: Opened) -> Arc<Served> {
        Arc::new(Served { service: Service::new(opened), appends: Arc::default(), changes: Arc::default() })
    }

    /// Must be called once the method of a request is known, before its body is read.
    pub(super) async fn begin(&self, method: Method) -> Option<UnderWay> {
        match method {
            Method::EventAppend => Some(Arc::clone(&self.appends).read_owned().await),
            _ => None,
        }
    }

    /// Waits until all earlier changes have ended.
    pub(super) async fn settled(&self) {
        drop(self.appends.write().await);
        drop(self.changes.lock().await);
    }

    /// Returns the response and the resources held for the request. A change keeps these until its own end.
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
            let message = "the task of the change ended early";
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
