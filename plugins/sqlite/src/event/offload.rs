//! Runs short reads on the caller's thread and long ones on another; also waits for new events.

use std::sync::Arc;
use std::time::Duration;

use snaphook_driver::{Event, EventPage, EventQuery, Holder, Position, Result, Stream};

use super::open_log::OpenLog;
use super::{blobs, claims, read};
use crate::database::off_thread;
use crate::fault::fault;

/// Pages up to this size are read on the caller's thread.
const PAGE_INLINE_MAX: u32 = 128;

/// How many events of a stream are skipped on the caller's thread.
const SKIP_INLINE_MAX: u64 = 2000;

impl OpenLog {
    /// See [`snaphook_driver::EventStore::read`].
    pub(super) async fn read(self: &Arc<Self>, query: &EventQuery, wait: Option<Duration>) -> Result<EventPage> {
        let Some(wait) = wait else { return self.page(query.clone()).await };
        let deadline = tokio::time::Instant::now() + wait;
        let mut heads = self.head.subscribe();
        let mut query = query.clone();
        loop {
            let page = self.page(query.clone()).await?;
            if !page.events.is_empty() {
                return Ok(page);
            }
            // Nothing matched up to there, so it is not scanned again.
            query.after = query.after.max(page.reached);
            if page.next().is_some() {
                continue;
            }
            let news = heads.wait_for(|head| *head > query.after);
            if !matches!(tokio::time::timeout_at(deadline, news).await, Ok(Ok(_))) {
                return Ok(page);
            }
        }
    }

    /// See [`snaphook_driver::EventStore::last_but`].
    pub(super) async fn last_but(
        self: &Arc<Self>,
        stream: &Stream,
        at_most: Position,
        skip: u64,
    ) -> Result<Option<Event>> {
        if skip <= SKIP_INLINE_MAX {
            return read::last_but(self, stream, at_most, skip);
        }
        let (shared, stream) = (Arc::clone(self), stream.clone());
        off_thread("last_but", move || read::last_but(&shared, &stream, at_most, skip)).await
    }

    /// See [`snaphook_driver::EventStore::next_claim`].
    pub(super) fn next_claim(&self, from: &str) -> Result<Option<String>> {
        self.readers.with(|connection| claims::next(connection, from).map_err(fault("next_claim")))
    }

    /// See [`snaphook_driver::EventStore::holder`].
    pub(super) fn holder(&self, key: &str) -> Result<Option<Holder>> {
        self.readers.with(|connection| claims::holder(connection, key).map_err(fault("holder")))
    }

    /// See [`snaphook_driver::EventStore::get_blob`].
    pub(super) async fn get_blob(self: &Arc<Self>, sha256: &str) -> Result<Option<Vec<u8>>> {
        let (shared, sha256) = (Arc::clone(self), sha256.to_owned());
        off_thread("get_blob", move || {
            shared.readers.with(|connection| blobs::get(connection, &sha256).map_err(fault("get_blob")))
        })
        .await
    }

    async fn page(self: &Arc<Self>, query: EventQuery) -> Result<EventPage> {
        let head = self.head();
        let short = query.limit <= PAGE_INLINE_MAX && query.filter.kinds.is_empty();
        if short || head.saturating_sub(query.after) <= u64::from(PAGE_INLINE_MAX) {
            return read::page(self, &query);
        }
        // Never closed.
        let place = Arc::clone(&self.scans).acquire_owned().await;
        let shared = Arc::clone(self);
        off_thread("read", move || {
            let _place = place;
            read::page(&shared, &query)
        })
        .await
    }
}
