//! Client of a remote secure store.

use async_trait::async_trait;

use super::Client;
use crate::capabilities::Capabilities;
use crate::error::Result;
use crate::secure_store::{Sealed, SecureStore};
use crate::wire::method::Method;
use crate::wire::proto;

#[async_trait]
impl SecureStore for Client {
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    async fn health(&self) -> Result<()> {
        self.tell(Method::SecureHealth, &proto::Empty {}).await
    }

    async fn close(&self) -> Result<()> {
        self.tell(Method::SecureClose, &proto::Empty {}).await
    }

    async fn get(&self, name: &str) -> Result<Option<Sealed>> {
        let request = proto::SecureGetRequest { name: name.to_owned() };
        let response: proto::SecureGetResponse = self.call(Method::SecureGet, &request).await?;
        Ok(response.secret.map(Sealed::from))
    }

    async fn put(&self, name: &str, bytes: &[u8], expected: Option<u64>) -> Result<u64> {
        let request = proto::SecurePutRequest { name: name.to_owned(), bytes: bytes.to_vec(), expected };
        let response: proto::SecurePutResponse = self.call(Method::SecurePut, &request).await?;
        Ok(response.version)
    }

    async fn delete(&self, name: &str) -> Result<bool> {
        let request = proto::SecureDeleteRequest { name: name.to_owned() };
        let response: proto::SecureDeleteResponse = self.call(Method::SecureDelete, &request).await?;
        Ok(response.removed)
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>> {
        let request = proto::SecureListRequest { prefix: prefix.to_owned() };
        let response: proto::SecureListResponse = self.call(Method::SecureList, &request).await?;
        Ok(response.names)
    }
}
