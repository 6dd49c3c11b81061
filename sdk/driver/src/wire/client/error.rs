//! Client of a remote error store.

use async_trait::async_trait;

use super::{Client, garbage};
use crate::capabilities::Capabilities;
use crate::error::Result;
use crate::error_store::{ErrorPage, ErrorQuery, ErrorRecord, ErrorStore};
use crate::wire::events::each;
use crate::wire::method::Method;
use crate::wire::proto;

#[async_trait]
impl ErrorStore for Client {
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    async fn health(&self) -> Result<()> {
        self.tell(Method::ErrorHealth, &proto::Empty {}).await
    }

    async fn close(&self) -> Result<()> {
        self.tell(Method::ErrorClose, &proto::Empty {}).await
    }

    async fn record(&self, record: &ErrorRecord) -> Result<()> {
        self.tell(Method::ErrorRecord, &proto::ErrorRecordRequest { record: Some(record.into()) }).await
    }

    async fn list(&self, query: &ErrorQuery) -> Result<ErrorPage> {
        let request = proto::ErrorListRequest { query: Some(query.into()) };
        let response: proto::ErrorListResponse = self.call(Method::ErrorList, &request).await?;
        let records = each(response.records).map_err(garbage(Method::ErrorList))?;
        Ok(ErrorPage { records, full: response.full })
    }

    async fn count(&self, query: &ErrorQuery) -> Result<u64> {
        let request = proto::ErrorCountRequest { query: Some(query.into()) };
        let response: proto::ErrorCountResponse = self.call(Method::ErrorCount, &request).await?;
        Ok(response.count)
    }

    async fn get(&self, id: &str) -> Result<Option<ErrorRecord>> {
        let request = proto::ErrorGetRequest { id: id.to_owned() };
        let response: proto::ErrorGetResponse = self.call(Method::ErrorGet, &request).await?;
        response.record.map(TryInto::try_into).transpose().map_err(garbage(Method::ErrorGet))
    }

    async fn remove(&self, id: &str) -> Result<bool> {
        let request = proto::ErrorRemoveRequest { id: id.to_owned() };
        let response: proto::ErrorRemoveResponse = self.call(Method::ErrorRemove, &request).await?;
        Ok(response.removed)
    }
}
