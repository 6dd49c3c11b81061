//! Calls of a secure store.

use super::request::{foreign, nothing, read, write};
use crate::driver::Store;
use crate::error::Result;
use crate::secure_store::SecureStore;
use crate::wire::method::Method;
use crate::wire::proto;

pub(super) async fn call(store: &dyn SecureStore, method: Method, request: &[u8]) -> Result<Vec<u8>> {
    match method {
        Method::SecureHealth => store.health().await.map(nothing),
        Method::SecureClose => store.close().await.map(nothing),
        Method::SecureGet => {
            let request: proto::SecureGetRequest = read(method, request)?;
            let secret = store.get(&request.name).await?;
            write(&proto::SecureGetResponse { secret: secret.map(proto::Sealed::from) })
        }
        Method::SecurePut => {
            let request: proto::SecurePutRequest = read(method, request)?;
            let version = store.put(&request.name, &request.bytes, request.expected).await?;
            write(&proto::SecurePutResponse { version })
        }
        Method::SecureDelete => {
            let request: proto::SecureDeleteRequest = read(method, request)?;
            write(&proto::SecureDeleteResponse { removed: store.delete(&request.name).await? })
        }
        Method::SecureList => {
            let request: proto::SecureListRequest = read(method, request)?;
            write(&proto::SecureListResponse { names: store.list(&request.prefix).await? })
        }
        _ => Err(foreign(method, Store::Secure)),
    }
}
