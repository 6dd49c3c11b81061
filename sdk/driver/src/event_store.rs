//! The event log: the truth that everything else is derived from.

use std::time::Duration;

use async_trait::async_trait;

use crate::append::{Append, Appended, Conflict, Holder};
use crate::capabilities::Capabilities;
use crate::error::Result;
use crate::event::{Event, Position, Stream};
use crate::event_query::{EventPage, EventQuery};
use crate::export::{LogExport, LogRecord};
use crate::group::{Delivery, Group};
use crate::nodes::Node;

/// A store of events.
///
/// All methods may be called at once from many tasks. `append` is called by one dedicated thread per node and may
/// block it; the other methods must not block for longer than a point read takes.
#[async_trait]
pub trait EventStore: Send + Sync {
    /// Constant over the life of the store.
    fn capabilities(&self) -> Capabilities;

    /// Tells this log from every other: a UUID in lower case, made with the log ([`crate::new_log_identity`]) and kept
    /// with it. Positions mean something within one log only, so whoever remembers a position remembers this too. A
    /// log that is restored from a backup is another log with the same events, and has another identity.
    fn identity(&self) -> &str;

    /// Whether the store can answer now. After an append failed this is `Ok` only when appends can succeed again, and
    /// then [`EventStore::head`] is right even if that append had ended with [`ErrorKind::Uncertain`](crate::ErrorKind).
    async fn health(&self) -> Result<()>;

    /// Ends background work. Called once, last; everything that was answered is durable.
    async fn close(&self) -> Result<()>;

    /// Appends in the order given; what was appended is durable when this returns. The answer has one row per
    /// append: where it stands in the log, or its conflict; each row succeeds or fails for itself, and a row sees the effects
    /// of the rows before it. With `atomic` all rows succeed, or none (the others answer [`Conflict::Batch`]), and no event of
    /// another caller comes between them: a row may expect anything of a stream that an earlier row has checked.
    ///
    /// An `Err` means that nothing of the batch is stored, unless it is of kind
    /// [`ErrorKind::Uncertain`](crate::ErrorKind). A driver with a network between must find out before it answers, by the
    /// events' ids.
    async fn append(&self, batch: &[Append], atomic: bool) -> Result<Vec<Result<Appended, Conflict>>>;

    /// Events after a position, oldest first. With `wait`, an empty page is answered only after that time; the call
    /// returns earlier as soon as a matching event is there. Without `wait`, a page without events may still have a
    /// [`EventPage::next`].
    async fn read(&self, query: &EventQuery, wait: Option<Duration>) -> Result<EventPage>;

    /// The last event of a stream at or before `at_most`; `None` if there is none.
    async fn last(&self, stream: &Stream, at_most: Position) -> Result<Option<Event>>;

    /// The event of a stream that has `skip` later ones at or before `at_most`; `None` if there are not so many. Costs as
    /// little as the store allows: a long stream is not read from its start.
    async fn last_but(&self, stream: &Stream, at_most: Position, skip: u64) -> Result<Option<Event>> {
        let Some(mut event) = self.last(stream, at_most).await? else { return Ok(None) };
        for _ in 0..skip {
            match self.last(stream, event.position - 1).await? {
                Some(earlier) => event = earlier,
                None => return Ok(None),
            }
        }
        Ok(Some(event))
    }

    /// Position of the last event of the log; 0 if it is empty.
    async fn head(&self) -> Result<Position>;

    /// Takes keys for streams before the event that makes them count: a change of a model may need more of them than one
    /// append should carry. Returns, for each key that another stream holds, its index and who holds it; that one is not
    /// taken, all others are, since the head of the log. Taking a key that the same stream has is no conflict.
    ///
    /// Called from other threads than `append` and with a few hundred keys at a time, so that no append waits for long.
    /// Durable no later than the next append that succeeds; when it returns, where callers outlive the store.
    async fn reserve(&self, keys: &[(String, Stream)]) -> Result<Vec<(usize, Holder)>>;

    /// Gives back up to `limit` claims whose keys begin with `prefix` (1 to 1024 bytes), whoever holds them. Returns how
    /// many; fewer than `limit` only if none is left. No more durable than [`EventStore::reserve`].
    async fn forget_claims(&self, prefix: &str, limit: u32) -> Result<u64>;

    /// The first key that is held and is not before `from`, in the order of bytes.
    async fn next_claim(&self, from: &str) -> Result<Option<String>>;

    /// Who holds a claim. One that has expired may still be returned, until the store has removed it.
    async fn holder(&self, key: &str) -> Result<Option<Holder>>;

    /// Makes a group that starts after `start`. A group of that name that exists keeps its progress and gets the
    /// new filter.
    async fn create_group(&self, group: &Group, start: Position) -> Result<()>;

    /// Forgets a group and its progress. Not an error if there is none.
    async fn drop_group(&self, name: &str) -> Result<()>;

    /// Names of all groups, sorted.
    async fn groups(&self) -> Result<Vec<String>>;

    /// Takes up to `limit` events for this caller, for the time `lease`. Never hands out an event while an earlier
    /// one of the same stream in this group is not acknowledged; never one that another caller holds with a lease
    /// that runs; skips those released with a delay that has not passed, and what follows them in their streams.
    /// An event whose lease ended is handed out again, `attempt` counted up. Progress survives restarts; an
    /// acknowledgement may be forgotten in a power failure, then the event is delivered again. That one is not forgotten
    /// if a later event of the stream was handed out: where callers outlive the store, a claim is durable when it returns.
    async fn claim(&self, group: &str, limit: u32, lease: Duration) -> Result<Vec<Delivery>>;

    /// The events were dealt with and are never delivered again in this group.
    async fn ack(&self, group: &str, done: &[(Position, u64)]) -> Result<()>;

    /// Gives an event back; it is delivered again after `delay`, with this note if there is one, else with the one it had.
    async fn release(
        &self,
        group: &str,
        position: Position,
        token: u64,
        delay: Duration,
        note: Option<&str>,
    ) -> Result<()>;

    /// Prolongs a lease that runs, and keeps a note if there is one; `false` if it is no longer this caller's.
    async fn renew(
        &self,
        group: &str,
        position: Position,
        token: u64,
        lease: Duration,
        note: Option<&str>,
    ) -> Result<bool>;

    /// Whether an event of a stream, which matches the group's filter, was acknowledged.
    async fn is_done(&self, group: &str, stream: &Stream, position: Position) -> Result<bool>;

    /// How many events of the group are not acknowledged yet, and the position up to which all are.
    async fn lag(&self, group: &str) -> Result<(u64, Position)>;

    /// Keeps bytes by their SHA-256 (lowercase hex), durable when it returns. Again: no effect.
    async fn put_blob(&self, sha256: &str, bytes: &[u8]) -> Result<()>;

    /// The bytes; `None` if they are not there.
    async fn get_blob(&self, sha256: &str) -> Result<Option<Vec<u8>>>;

    /// Takes note of what a node says of itself, for the time `keep`; with a time of zero the node is forgotten. Need not
    /// survive a restart of the store: nodes say it again every few seconds.
    async fn announce(&self, node: &Node, keep: Duration) -> Result<()>;

    /// The nodes that announced themselves and whose time has not passed, by id.
    async fn nodes(&self) -> Result<Vec<Node>>;

    /// A copy of everything as it is at one moment, events, claims, blobs and the progress of groups, while others go
    /// on reading and writing. It is what a crash at that moment would leave: whatever was acknowledged in a group is
    /// acknowledged in the copy, and the events that were written before the acknowledgement are in it.
    async fn export(&self) -> Result<Box<dyn LogExport>>;

    /// Puts records into a log, in the order of an export ([`LogRecord`]), over as many calls as the caller likes.
    /// Durable when it returns. `ErrorKind::Conflict` if the log held anything before the first call. Positions, times
    /// and holders are kept; the log keeps its own identity. Until [`EventStore::finish_import`] nothing but the
    /// methods of export and import is called, and a store that is opened again then refuses to: part of a log is no log. With
    /// [`OpenContext::resumes_import`](crate::OpenContext::resumes_import) it opens, and the import goes on: with the events after
    /// those that an export shows, then with all other records again.
    async fn import(&self, records: &[LogRecord]) -> Result<()>;

    /// Ends an import: from here on the log is like any other. No effect if there was none.
    async fn finish_import(&self) -> Result<()>;
}
