//! Client of a remote event store.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use prost::Message as _;

use super::{Client, Transport, garbage};
use crate::append::{Append, Appended, Conflict, Holder};
use crate::capabilities::Capabilities;
use crate::error::Result;
use crate::event::{Event, Position, Stream};
use crate::event_query::{EventPage, EventQuery};
use crate::event_store::EventStore;
use crate::export::{LogExport, LogRecord};
use crate::group::{Delivery, Group};
use crate::nodes::Node;
use crate::wire::events::{each, outcome, read_request, to_ms};
use crate::wire::message::{Malformed, required};
use crate::wire::method::Method;
use crate::wire::proto;

#[async_trait]
impl EventStore for Client {
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn identity(&self) -> &str {
        &self.log
    }

    async fn health(&self) -> Result<()> {
        self.tell(Method::EventHealth, &proto::Empty {}).await
    }

    async fn close(&self) -> Result<()> {
        self.tell(Method::EventClose, &proto::Empty {}).await
    }

    async fn append(&self, batch: &[Append], atomic: bool) -> Result<Vec<Result<Appended, Conflict>>> {
        let request = proto::EventAppendRequest { appends: batch.iter().map(Into::into).collect(), atomic };
        let response: proto::EventAppendResponse = self.call(Method::EventAppend, &request).await?;
        if response.outcomes.len() != batch.len() {
            let counts = format!("it has {} outcomes for {} appends", response.outcomes.len(), batch.len());
            return Err(garbage(Method::EventAppend)(Malformed::new(counts)));
        }
        let outcomes: Result<Vec<_>, Malformed> = response.outcomes.into_iter().map(outcome).collect();
        outcomes.map_err(garbage(Method::EventAppend))
    }

    async fn read(&self, query: &EventQuery, wait: Option<Duration>) -> Result<EventPage> {
        let response: proto::EventReadResponse = self.call(Method::EventRead, &read_request(query, wait)).await?;
        response.try_into().map_err(garbage(Method::EventRead))
    }

    async fn last(&self, stream: &Stream, at_most: Position) -> Result<Option<Event>> {
        self.last_but(stream, at_most, 0).await
    }

    async fn last_but(&self, stream: &Stream, at_most: Position, skip: u64) -> Result<Option<Event>> {
        let request = proto::EventLastRequest { stream: Some(stream.into()), at_most, skip };
        let response: proto::EventLastResponse = self.call(Method::EventLast, &request).await?;
        response.event.map(TryInto::try_into).transpose().map_err(garbage(Method::EventLast))
    }

    async fn head(&self) -> Result<Position> {
        let response: proto::EventHeadResponse = self.call(Method::EventHead, &proto::Empty {}).await?;
        Ok(response.head)
    }

    async fn reserve(&self, keys: &[(String, Stream)]) -> Result<Vec<(usize, Holder)>> {
        let key =
            |(key, stream): &(String, Stream)| proto::Reservation { key: key.clone(), stream: Some(stream.into()) };
        let request = proto::EventReserveRequest { keys: keys.iter().map(key).collect() };
        let response: proto::EventReserveResponse = self.call(Method::EventReserve, &request).await?;
        let refusal = |refusal: proto::Refusal| {
            let index = usize::try_from(refusal.index).ok().filter(|index| *index < keys.len());
            let index = index.ok_or_else(|| Malformed::new("it rejects a key that was not requested"))?;
            Ok((index, required("holder", refusal.holder)?.try_into()?))
        };
        let refused: Result<Vec<_>, Malformed> = response.refused.into_iter().map(refusal).collect();
        refused.map_err(garbage(Method::EventReserve))
    }

    async fn forget_claims(&self, prefix: &str, limit: u32) -> Result<u64> {
        let request = proto::EventForgetClaimsRequest { prefix: prefix.to_owned(), limit };
        let response: proto::EventForgetClaimsResponse = self.call(Method::EventForgetClaims, &request).await?;
        Ok(response.forgotten)
    }

    async fn next_claim(&self, from: &str) -> Result<Option<String>> {
        let request = proto::EventNextClaimRequest { from: from.to_owned() };
        let response: proto::EventNextClaimResponse = self.call(Method::EventNextClaim, &request).await?;
        Ok(response.key)
    }

    async fn holder(&self, key: &str) -> Result<Option<Holder>> {
        let request = proto::EventHolderRequest { key: key.to_owned() };
        let response: proto::EventHolderResponse = self.call(Method::EventHolder, &request).await?;
        response.holder.map(TryInto::try_into).transpose().map_err(garbage(Method::EventHolder))
    }

    async fn create_group(&self, group: &Group, start: Position) -> Result<()> {
        let request = proto::EventCreateGroupRequest { group: Some(group.into()), start };
        self.tell(Method::EventCreateGroup, &request).await
    }

    async fn drop_group(&self, name: &str) -> Result<()> {
        self.tell(Method::EventDropGroup, &proto::EventDropGroupRequest { name: name.to_owned() }).await
    }

    async fn groups(&self) -> Result<Vec<String>> {
        let response: proto::EventGroupsResponse = self.call(Method::EventGroups, &proto::Empty {}).await?;
        Ok(response.names)
    }

    async fn announce(&self, node: &Node, keep: Duration) -> Result<()> {
        let request = proto::EventAnnounceRequest { node: Some(node.into()), keep_ms: to_ms(keep) };
        self.tell(Method::EventAnnounce, &request).await
    }

    async fn nodes(&self) -> Result<Vec<Node>> {
        let response: proto::EventNodesResponse = self.call(Method::EventNodes, &proto::Empty {}).await?;
        Ok(response.nodes.into_iter().map(Into::into).collect())
    }

    async fn claim(&self, group: &str, limit: u32, lease: Duration) -> Result<Vec<Delivery>> {
        let request = proto::EventClaimRequest { group: group.to_owned(), limit, lease_ms: to_ms(lease) };
        let response: proto::EventClaimResponse = self.call(Method::EventClaim, &request).await?;
        each(response.deliveries).map_err(garbage(Method::EventClaim))
    }

    async fn ack(&self, group: &str, done: &[(Position, u64)]) -> Result<()> {
        let done = done.iter().map(|(position, token)| proto::Acknowledgement { position: *position, token: *token });
        let request = proto::EventAckRequest { group: group.to_owned(), done: done.collect() };
        self.tell(Method::EventAck, &request).await
    }

    async fn release(
        &self,
        group: &str,
        position: Position,
        token: u64,
        delay: Duration,
        note: Option<&str>,
    ) -> Result<()> {
        let (group, note) = (group.to_owned(), note.map(str::to_owned));
        let request = proto::EventReleaseRequest { group, position, token, delay_ms: to_ms(delay), note };
        self.tell(Method::EventRelease, &request).await
    }

    async fn renew(
        &self,
        group: &str,
        position: Position,
        token: u64,
        lease: Duration,
        note: Option<&str>,
    ) -> Result<bool> {
        let (group, note) = (group.to_owned(), note.map(str::to_owned));
        let request = proto::EventRenewRequest { group, position, token, lease_ms: to_ms(lease), note };
        let response: proto::EventRenewResponse = self.call(Method::EventRenew, &request).await?;
        Ok(response.renewed)
    }

    async fn is_done(&self, group: &str, stream: &Stream, position: Position) -> Result<bool> {
        let request = proto::EventIsDoneRequest { group: group.to_owned(), stream: Some(stream.into()), position };
        let response: proto::EventIsDoneResponse = self.call(Method::EventIsDone, &request).await?;
        Ok(response.done)
    }

    async fn lag(&self, group: &str) -> Result<(u64, Position)> {
        let request = proto::EventLagRequest { group: group.to_owned() };
        let response: proto::EventLagResponse = self.call(Method::EventLag, &request).await?;
        Ok((response.waiting, response.done_to))
    }

    async fn put_blob(&self, sha256: &str, bytes: &[u8]) -> Result<()> {
        let request = proto::EventPutBlobRequest { sha256: sha256.to_owned(), bytes: bytes.to_vec() };
        self.tell(Method::EventPutBlob, &request).await
    }

    async fn get_blob(&self, sha256: &str) -> Result<Option<Vec<u8>>> {
        let request = proto::EventGetBlobRequest { sha256: sha256.to_owned() };
        let response: proto::EventGetBlobResponse = self.call(Method::EventGetBlob, &request).await?;
        Ok(response.bytes)
    }

    async fn export(&self) -> Result<Box<dyn LogExport>> {
        let response: proto::EventExportResponse = self.call(Method::EventExport, &proto::Empty {}).await?;
        Ok(Box::new(Export { client: self.clone(), number: response.export, head: response.head }))
    }

    async fn import(&self, records: &[LogRecord]) -> Result<()> {
        let request = proto::EventImportRequest { records: records.iter().map(Into::into).collect() };
        self.tell(Method::EventImport, &request).await
    }

    async fn finish_import(&self) -> Result<()> {
        self.tell(Method::EventFinishImport, &proto::Empty {}).await
    }
}

/// An export on the other side. Dropping it closes the export there.
struct Export {
    client: Client,
    number: u64,
    head: Position,
}

#[async_trait]
impl LogExport for Export {
    fn head(&self) -> Position {
        self.head
    }

    async fn next(&mut self) -> Result<Vec<LogRecord>> {
        let request = proto::EventExportNextRequest { export: self.number };
        let response: proto::EventExportNextResponse = self.client.call(Method::EventExportNext, &request).await?;
        each(response.records).map_err(garbage(Method::EventExportNext))
    }
}

impl Drop for Export {
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let transport: Arc<dyn Transport> = Arc::clone(&self.client.transport);
        let request = proto::EventExportCloseRequest { export: self.number }.encode_to_vec();
        // If this fails, the other side closes the export after a while.
        runtime.spawn(async move { drop(transport.call(Method::EventExportClose, request).await) });
    }
}
