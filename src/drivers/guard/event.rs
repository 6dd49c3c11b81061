//! A guarded event store.

use std::time::Duration;

use async_trait::async_trait;
use snaphook_driver::wire::Method;
use snaphook_driver::{
    Append, Appended, Capabilities, Conflict, Delivery, DriverError, ErrorKind, Event, EventPage, EventQuery,
    EventStore, Group, Holder, LogExport, LogRecord, NODE_TEXT_BYTES_MAX, NODES_MAX, Node, Position, Result, Stream,
};

use super::Guarded;

#[async_trait]
impl EventStore for Guarded<dyn EventStore> {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn identity(&self) -> &str {
        self.inner.identity()
    }

    async fn health(&self) -> Result<()> {
        self.guard.call(Method::EventHealth, Duration::ZERO, self.inner.health()).await
    }

    async fn close(&self) -> Result<()> {
        self.guard.call(Method::EventClose, Duration::ZERO, self.inner.close()).await
    }

    async fn append(&self, batch: &[Append], atomic: bool) -> Result<Vec<Result<Appended, Conflict>>> {
        let most = self.inner.capabilities().batch_bytes_max;
        let mut rest = batch;
        let mut outcomes = Vec::new();
        while !rest.is_empty() || batch.is_empty() {
            let (part, later) = rest.split_at(first_part(rest, most));
            if atomic && !later.is_empty() {
                let message = format!("the batch has more than the {most} bytes that the storage accepts at once");
                return Err(DriverError::new(ErrorKind::Invalid, "append", message));
            }
            match self.append_part(part, atomic).await {
                Ok(appended) if outcomes.is_empty() && later.is_empty() => return Ok(appended),
                Ok(appended) => outcomes.extend(appended),
                Err(error) if outcomes.is_empty() => return Err(error),
                // An earlier part is stored.
                Err(error) => return Err(error.as_kind(ErrorKind::Uncertain)),
            }
            rest = later;
        }
        Ok(outcomes)
    }

    async fn read(&self, query: &EventQuery, wait: Option<Duration>) -> Result<EventPage> {
        let page = match wait {
            Some(wait) => self.guard.call(Method::EventRead, wait, self.inner.read(query, Some(wait))).await?,
            None => self.guard.read(Method::EventRead, || self.inner.read(query, None)).await?,
        };
        self.check_page(query, &page).map_err(|what| self.guard.wrong(Method::EventRead, what))?;
        Ok(page)
    }

    async fn last(&self, stream: &Stream, at_most: Position) -> Result<Option<Event>> {
        self.guard.read(Method::EventLast, || self.inner.last(stream, at_most)).await
    }

    async fn last_but(&self, stream: &Stream, at_most: Position, skip: u64) -> Result<Option<Event>> {
        self.guard.read(Method::EventLast, || self.inner.last_but(stream, at_most, skip)).await
    }

    async fn head(&self) -> Result<Position> {
        self.guard.read(Method::EventHead, || self.inner.head()).await
    }

    async fn reserve(&self, keys: &[(String, Stream)]) -> Result<Vec<(usize, Holder)>> {
        let refused = self.guard.call(Method::EventReserve, Duration::ZERO, self.inner.reserve(keys)).await?;
        if refused.iter().any(|(index, _)| *index >= keys.len()) {
            let what = "it rejects a key that was not requested".to_owned();
            return Err(self.guard.wrong(Method::EventReserve, what));
        }
        Ok(refused)
    }

    async fn forget_claims(&self, prefix: &str, limit: u32) -> Result<u64> {
        let forget = self.inner.forget_claims(prefix, limit);
        self.guard.call(Method::EventForgetClaims, Duration::ZERO, forget).await
    }

    async fn next_claim(&self, from: &str) -> Result<Option<String>> {
        self.guard.read(Method::EventNextClaim, || self.inner.next_claim(from)).await
    }

    async fn holder(&self, key: &str) -> Result<Option<Holder>> {
        self.guard.read(Method::EventHolder, || self.inner.holder(key)).await
    }

    async fn create_group(&self, group: &Group, start: Position) -> Result<()> {
        self.guard.call(Method::EventCreateGroup, Duration::ZERO, self.inner.create_group(group, start)).await
    }

    async fn drop_group(&self, name: &str) -> Result<()> {
        self.guard.call(Method::EventDropGroup, Duration::ZERO, self.inner.drop_group(name)).await
    }

    async fn groups(&self) -> Result<Vec<String>> {
        self.guard.read(Method::EventGroups, || self.inner.groups()).await
    }

    async fn announce(&self, node: &Node, keep: Duration) -> Result<()> {
        self.guard.call(Method::EventAnnounce, Duration::ZERO, self.inner.announce(node, keep)).await
    }

    async fn nodes(&self) -> Result<Vec<Node>> {
        let nodes = self.guard.read(Method::EventNodes, || self.inner.nodes()).await?;
        let texts = nodes.iter().flat_map(|node| [&node.id, &node.address, &node.version]);
        if nodes.len() > NODES_MAX || texts.into_iter().any(|text| text.len() > NODE_TEXT_BYTES_MAX) {
            let what = "it reports more nodes, or longer names, than were announced".to_owned();
            return Err(self.guard.wrong(Method::EventNodes, what));
        }
        Ok(nodes)
    }

    async fn claim(&self, group: &str, limit: u32, lease: Duration) -> Result<Vec<Delivery>> {
        let claim = self.inner.claim(group, limit, lease);
        let deliveries = self.guard.call(Method::EventClaim, Duration::ZERO, claim).await?;
        if deliveries.len() > limit as usize {
            let what = format!("{} deliveries, {limit} were requested", deliveries.len());
            return Err(self.guard.wrong(Method::EventClaim, what));
        }
        Ok(deliveries)
    }

    async fn ack(&self, group: &str, done: &[(Position, u64)]) -> Result<()> {
        self.guard.call(Method::EventAck, Duration::ZERO, self.inner.ack(group, done)).await
    }

    async fn release(
        &self,
        group: &str,
        position: Position,
        token: u64,
        delay: Duration,
        note: Option<&str>,
    ) -> Result<()> {
        let release = self.inner.release(group, position, token, delay, note);
        self.guard.call(Method::EventRelease, Duration::ZERO, release).await
    }

    async fn renew(
        &self,
        group: &str,
        position: Position,
        token: u64,
        lease: Duration,
        note: Option<&str>,
    ) -> Result<bool> {
        let renew = self.inner.renew(group, position, token, lease, note);
        self.guard.call(Method::EventRenew, Duration::ZERO, renew).await
    }

    async fn is_done(&self, group: &str, stream: &Stream, position: Position) -> Result<bool> {
        self.guard.read(Method::EventIsDone, || self.inner.is_done(group, stream, position)).await
    }

    async fn lag(&self, group: &str) -> Result<(u64, Position)> {
        self.guard.read(Method::EventLag, || self.inner.lag(group)).await
    }

    async fn put_blob(&self, sha256: &str, bytes: &[u8]) -> Result<()> {
        self.guard.call(Method::EventPutBlob, Duration::ZERO, self.inner.put_blob(sha256, bytes)).await
    }

    async fn get_blob(&self, sha256: &str) -> Result<Option<Vec<u8>>> {
        self.guard.read(Method::EventGetBlob, || self.inner.get_blob(sha256)).await
    }

    async fn export(&self) -> Result<Box<dyn LogExport>> {
        self.guard.call(Method::EventExport, Duration::ZERO, self.inner.export()).await
    }

    async fn import(&self, records: &[LogRecord]) -> Result<()> {
        self.guard.call(Method::EventImport, Duration::ZERO, self.inner.import(records)).await
    }

    async fn finish_import(&self) -> Result<()> {
        self.guard.call(Method::EventFinishImport, Duration::ZERO, self.inner.finish_import()).await
    }
}

impl Guarded<dyn EventStore> {
    async fn append_part(&self, part: &[Append], atomic: bool) -> Result<Vec<Result<Appended, Conflict>>> {
        let append = self.inner.append(part, atomic);
        let outcomes = self.guard.call(Method::EventAppend, Duration::ZERO, append).await?;
        if outcomes.len() != part.len() {
            let what = format!("{} outcomes of {} appends", outcomes.len(), part.len());
            return Err(self.guard.wrong(Method::EventAppend, what));
        }
        Ok(outcomes)
    }

    /// A page with gaps or duplicates would affect every reader that continues from it.
    fn check_page(&self, query: &EventQuery, page: &EventPage) -> Result<(), String> {
        let mut before = query.after;
        for event in &page.events {
            if event.position <= before {
                return Err(format!("position {} comes after {before}", event.position));
            }
            before = event.position;
        }
        if page.events.len() > query.limit as usize {
            return Err(format!("a page of {} events, {} were requested", page.events.len(), query.limit));
        }
        if !page.events.is_empty() && page.reached < before {
            return Err(format!("the page reaches {}, its last event is at {before}", page.reached));
        }
        Ok(())
    }
}

/// The number of appends in the first part: at least one, and at most this many bytes of data.
fn first_part(appends: &[Append], bytes_max: u64) -> usize {
    let mut bytes = 0_u64;
    let fits = |append: &&Append| {
        bytes = bytes.saturating_add(append.event.data.as_deref().map_or(0, str::len) as u64);
        bytes <= bytes_max
    };
    let fitting = appends.iter().take_while(fits).count();
    fitting.max(1).min(appends.len())
}
