//! Calls of an error store.

use super::request::{foreign, nothing, read, refuse, write};
use crate::driver::Store;
use crate::error::Result;
use crate::error_store::{ErrorQuery, ErrorStore};
use crate::wire::message::required;
use crate::wire::method::Method;
use crate::wire::proto;

pub(super) async fn call(store: &dyn ErrorStore, method: Method, request: &[u8]) -> Result<Vec<u8>> {
    match method {
        Method::ErrorHealth => store.health().await.map(nothing),
        Method::ErrorClose => store.close().await.map(nothing),
        Method::ErrorRecord => {
            let request: proto::ErrorRecordRequest = read(method, request)?;
            let record = required("record", request.record).and_then(TryInto::try_into).map_err(refuse(method))?;
            store.record(&record).await.map(nothing)
        }
        Method::ErrorList => {
            let request: proto::ErrorListRequest = read(method, request)?;
            let page = store.list(&query(request.query)).await?;
            let records = page.records.iter().map(proto::ErrorRecord::from).collect();
            write(&proto::ErrorListResponse { records, full: page.full })
        }
        Method::ErrorCount => {
            let request: proto::ErrorCountRequest = read(method, request)?;
            write(&proto::ErrorCountResponse { count: store.count(&query(request.query)).await? })
        }
        Method::ErrorGet => {
            let request: proto::ErrorGetRequest = read(method, request)?;
            let record = store.get(&request.id).await?;
            write(&proto::ErrorGetResponse { record: record.as_ref().map(Into::into) })
        }
        Method::ErrorRemove => {
            let request: proto::ErrorRemoveRequest = read(method, request)?;
            write(&proto::ErrorRemoveResponse { removed: store.remove(&request.id).await? })
        }
        _ => Err(foreign(method, Store::Error)),
    }
}

fn query(query: Option<proto::ErrorQuery>) -> ErrorQuery {
    query.unwrap_or_default().into()
}
