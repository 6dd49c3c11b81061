//! The event log: the source of truth, from which everything else is derived.

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
/// All methods may be called concurrently from many tasks. `append` is called by one dedicated thread per node and may
/// block it; the other methods must not block for longer than a point read takes.
#[async_trait]
pub trait EventStore: Send + Sync {
    /// Constant while the store is open.
    fn capabilities(&self) -> Capabilities;

    /// The identity of this log: a UUID in lower case, created with the log ([`crate::new_log_identity`]) and stored
    /// with it. Positions are meaningful only within one log, so whatever stores a position also stores this identity.
    /// A log that is restored from a backup has the same events, but another identity.
    fn identity(&self) -> &str;

    /// Whether the store currently works. After a failed append, this is `Ok` only when appends can succeed again, and
    /// then [`EventStore::head`] is correct, even if that append ended with [`ErrorKind::Uncertain`](crate::ErrorKind).
    async fn health(&self) -> Result<()>;

    /// Ends background work. Called once, last; everything acknowledged is durable.
    async fn close(&self) -> Result<()>;

    /// Appends events in the given order; they are durable when this returns. The result has one row per append: its
    /// position in the log, or its conflict. Each row succeeds or fails independently, and sees the effects of the
    /// earlier rows. With `atomic`, either all rows succeed or none (the others return [`Conflict::Batch`]), and no
    /// event of another caller comes between them: a row may use [`Expected::Any`](crate::Expected::Any) for a stream
    /// that an earlier row has checked.
    ///
    /// An `Err` means that nothing of the batch is stored, unless it is of kind
    /// [`ErrorKind::Uncertain`](crate::ErrorKind). A driver over a network must determine the outcome before it
    /// returns, by the events' ids.
    async fn append(&self, batch: &[Append], atomic: bool) -> Result<Vec<Result<Appended, Conflict>>>;

    /// Events after a position, oldest first. With `wait`, an empty page is returned only after that time; the call
    /// returns earlier as soon as there is a matching event. Without `wait`, a page without events may still have a
    /// [`EventPage::next`].
    async fn read(&self, query: &EventQuery, wait: Option<Duration>) -> Result<EventPage>;

    /// The last event of a stream at or before `at_most`; `None` if there is none.
    async fn last(&self, stream: &Stream, at_most: Position) -> Result<Option<Event>>;

    /// The event of a stream with exactly `skip` later ones at or before `at_most`; `None` if there are fewer events.
    /// Use an index if possible: a long stream must not be read from its start.
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

    /// Takes keys for streams before the event that needs them, because a change of a model may need more keys than one
    /// append should contain. Returns the index and the holder of each key that another stream holds; these are not
    /// taken, all others are, as of the head of the log. Taking a key that the same stream has is not a conflict.
    ///
    /// Called from other threads than `append` and with a few hundred keys at a time, so that no append waits for long.
    /// The keys are durable with the next successful append at the latest; if callers outlive the store, when this
    /// returns.
    async fn reserve(&self, keys: &[(String, Stream)]) -> Result<Vec<(usize, Holder)>>;

    /// Releases up to `limit` claims whose keys begin with `prefix` (1 to 1024 bytes), whoever holds them. Returns
    /// their number; fewer than `limit` only if none is left. As durable as [`EventStore::reserve`].
    async fn forget_claims(&self, prefix: &str, limit: u32) -> Result<u64>;

    /// The first held key at or after `from`, in the order of bytes.
    async fn next_claim(&self, from: &str) -> Result<Option<String>>;

    /// The holder of a key. An expired claim may still be returned until the store has removed it. The claim of an event
    /// may be returned a moment before [`EventStore::head`] includes that event.
    async fn holder(&self, key: &str) -> Result<Option<Holder>>;

    /// Creates a group that starts after `start`. An existing group of that name keeps its progress and gets the new
    /// filter.
    async fn create_group(&self, group: &Group, start: Position) -> Result<()>;

    /// Removes a group and its progress. Not an error if there is none.
    async fn drop_group(&self, name: &str) -> Result<()>;

    /// Names of all groups, sorted.
    async fn groups(&self) -> Result<Vec<String>>;

    /// Takes up to `limit` events for this caller, for the time `lease`. Never returns an event while an earlier one of
    /// the same stream in this group is not acknowledged, or while another caller has a valid lease on it. Skips events
    /// whose release delay has not passed, and the later ones of their streams. An event whose lease expired is
    /// returned again, with a higher `attempt`. Progress survives restarts; an acknowledgement may be forgotten in a
    /// power failure, then the event is delivered again. It must not be forgotten if a later event of the stream was
    /// returned: if callers outlive the store, a claim is durable when this returns.
    async fn claim(&self, group: &str, limit: u32, lease: Duration) -> Result<Vec<Delivery>>;

    /// Acknowledges events; they are never delivered again in this group.
    async fn ack(&self, group: &str, done: &[(Position, u64)]) -> Result<()>;

    /// Releases an event; it is delivered again after `delay`, with this note if there is one, otherwise with its
    /// previous note.
    async fn release(
        &self,
        group: &str,
        position: Position,
        token: u64,
        delay: Duration,
        note: Option<&str>,
    ) -> Result<()>;

    /// Extends a valid lease, and stores a note if there is one; `false` if the lease no longer belongs to this caller.
    async fn renew(
        &self,
        group: &str,
        position: Position,
        token: u64,
        lease: Duration,
        note: Option<&str>,
    ) -> Result<bool>;

    /// Whether an event of a stream was acknowledged. The event matches the group's filter.
    async fn is_done(&self, group: &str, stream: &Stream, position: Position) -> Result<bool>;

    /// The number of unacknowledged events of the group, and the position up to which all are acknowledged.
    async fn lag(&self, group: &str) -> Result<(u64, Position)>;

    /// Stores bytes by their SHA-256 (lowercase hex), durably when it returns. No effect if they exist.
    async fn put_blob(&self, sha256: &str, bytes: &[u8]) -> Result<()>;

    /// The bytes; `None` if they do not exist.
    async fn get_blob(&self, sha256: &str) -> Result<Option<Vec<u8>>>;

    /// Stores a node's announcement for the time `keep`; if that is zero, the node is removed. Announcements need not
    /// survive a restart of the store, because nodes repeat them every few seconds.
    async fn announce(&self, node: &Node, keep: Duration) -> Result<()>;

    /// The announced nodes that have not expired, by id.
    async fn nodes(&self) -> Result<Vec<Node>>;

    /// A consistent copy of one moment, with events, claims, blobs and the progress of groups, while others continue to
    /// read and write. It has the state after a crash at that moment: everything acknowledged in a group is
    /// acknowledged in the copy, and the copy has all events written before the acknowledgement.
    async fn export(&self) -> Result<Box<dyn LogExport>>;

    /// Imports records into a log, in the order of an export ([`LogRecord`]), in any number of calls. Durable when it
    /// returns. `ErrorKind::Conflict` if the log was not empty before the first call. Positions, times and holders are
    /// kept; the log keeps its own identity. Until [`EventStore::finish_import`] only the methods of export and import
    /// are called, and opening the store again fails, because it has only a part of a log. With
    /// [`OpenContext::resumes_import`](crate::OpenContext::resumes_import) it opens, and the import continues: with the
    /// events after those in an export, then with all other records again.
    async fn import(&self, records: &[LogRecord]) -> Result<()>;

    /// Ends an import: from then on the log is like any other. No effect if there was none.
    async fn finish_import(&self) -> Result<()>;
}
