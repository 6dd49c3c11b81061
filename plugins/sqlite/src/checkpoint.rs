//! Keeps the write-ahead log short without stalling the writer.
//!
//! SQLite's own checkpoint runs inside a commit, which then waits for all its writes and fsyncs. Here a thread with its
//! own connection copies and syncs most of the log while the writer continues; the writer copies the few remaining
//! pages between two commits. Once the whole log is copied, the next commit can restart the log from the beginning.
//!
//! A reader must look up and copy pages from the log one by one, but has the file mapped. So if read speed matters, the
//! thread also copies everything once nothing has been written for a moment: then readers do not need the log.

use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;
use snaphook_driver::{DriverError, ErrorKind, Result};

use crate::database::{Format, locked};
use crate::fault::fault;
use crate::flush::flush;
use crate::log_room::LogRoom;

/// Number of pages that the thread may leave to the writer.
const PAGES_REST: u32 = 128;

/// Maximum number of passes in which the thread tries to get below that number.
const PASSES_MAX: u32 = 4;

/// How long nothing must have been written before everything is copied.
const QUIET: Duration = Duration::from_millis(200);

const IDLE: u8 = 0;
const ASKED: u8 = 1;
const DONE: u8 = 2;
const CLOSED: u8 = 3;

struct CheckpointerState {
    state: AtomicU8,
    /// Pages in the log after the last commit.
    pages: AtomicU32,
    /// Commits so far.
    commits: AtomicU32,
    /// Everything is copied or need not be copied: the thread sleeps until it is woken.
    resting: AtomicBool,
    /// The log's file, if it was lengthened and is not synced yet.
    lengthened: Mutex<Option<Arc<File>>>,
}

impl CheckpointerState {
    /// Lets the thread sleep unless there was a commit after number `seen`. The order of accesses matches that of the
    /// writer, which first counts a commit and then checks this, so that one of the two sees the other.
    fn rest(&self, seen: u32) {
        self.resting.store(true, Ordering::SeqCst);
        if self.commits.load(Ordering::SeqCst) != seen {
            self.resting.store(false, Ordering::SeqCst);
        }
    }
}

/// The writer's side. Dropping it stops the thread and waits for it: SQLite only removes the log when the last
/// connection is closed.
pub(crate) struct Checkpointer {
    shared: Arc<CheckpointerState>,
    /// Only `None` while this is dropped.
    thread: Option<JoinHandle<()>>,
    /// See [`Format::settles`].
    settles: bool,
    /// Number of pages after which the thread starts.
    pages: u32,
    /// Number of pages at which to request the next checkpoint.
    next: u32,
    /// Set if commits wait for the disk.
    room: Option<LogRoom>,
}

impl Checkpointer {
    /// Takes over the checkpoints of the connection's database from SQLite.
    pub(crate) fn start(path: &Path, writer: &mut Connection, format: &Format) -> Result<Checkpointer> {
        let connection = Connection::open(path).map_err(fault("open"))?;
        connection.pragma_update(None, "synchronous", "NORMAL").map_err(fault("open"))?;
        let shared = Arc::new(CheckpointerState {
            state: AtomicU8::new(IDLE),
            pages: AtomicU32::new(0),
            commits: AtomicU32::new(0),
            resting: AtomicBool::new(!format.settles),
            lengthened: Mutex::default(),
        });
        let counted = Arc::clone(&shared);
        writer
            .wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages: std::ffi::c_int| {
                counted.pages.store(pages.unsigned_abs(), Ordering::Relaxed);
                counted.commits.fetch_add(1, Ordering::SeqCst);
                Ok(())
            }))
            .map_err(fault("open"))?;
        let worker = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("sqlite-checkpoint".into())
            .spawn(move || run(connection, &worker))
            .map_err(|error| {
                DriverError::new(ErrorKind::Unexpected, "open", "no thread could be started").because(error)
            })?;
        Ok(Checkpointer {
            shared,
            thread: Some(thread),
            settles: format.settles,
            pages: format.log_pages,
            next: format.log_pages,
            room: (format.synchronous == "FULL").then(|| LogRoom::of(path)),
        })
    }

    /// Called by the writer after each commit. Costs only three loads if there is nothing to do.
    pub(crate) fn after_commit(&mut self, writer: &Connection) {
        let pages = self.shared.pages.load(Ordering::Relaxed);
        if let Some(file) = self.room.as_mut().and_then(|room| room.keep(pages)) {
            *locked(&self.shared.lengthened) = Some(file);
            self.wake();
        }
        match self.shared.state.load(Ordering::Acquire) {
            DONE => {
                // If this fails, a commit encounters the same failure and reports it.
                let _ = passive(writer);
                self.shared.state.store(IDLE, Ordering::Release);
                // If a reader prevents the log from restarting, do not retry at every commit.
                self.next = pages + self.pages;
            }
            IDLE if pages >= self.next => {
                self.shared.state.store(ASKED, Ordering::Release);
                self.wake();
            }
            IDLE if pages < self.pages => self.next = self.pages,
            _ => {}
        }
        if self.settles && self.shared.resting.load(Ordering::SeqCst) {
            self.shared.resting.store(false, Ordering::SeqCst);
            self.wake();
        }
    }

    fn wake(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.shared.state.store(CLOSED, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It cannot panic; even if it did, its connection would be closed.
            let _ = thread.join();
        }
    }
}

fn run(connection: Connection, shared: &CheckpointerState) {
    loop {
        let lengthened = locked(&shared.lengthened).take();
        if let Some(file) = lengthened {
            // If this fails, the next commit waits for the disk, or fails too.
            let _ = file.sync_data();
        }
        match shared.state.load(Ordering::Acquire) {
            CLOSED => return,
            ASKED => {
                for _ in 0..PASSES_MAX {
                    if shared.state.load(Ordering::Acquire) == CLOSED {
                        return;
                    }
                    let rest = passive(&connection);
                    // Otherwise the writer would wait until the disk has written everything. The writer encounters a
                    // failure again.
                    let _ = flush(&connection);
                    if rest.map_or(true, |rest| rest <= PAGES_REST) {
                        break;
                    }
                }
                // Copy pages that were written while waiting for the disk.
                let _ = passive(&connection);
                // Unless it was closed in the meantime.
                let _ = shared.state.compare_exchange(ASKED, DONE, Ordering::AcqRel, Ordering::Acquire);
            }
            _ if shared.resting.load(Ordering::SeqCst) => std::thread::park(),
            _ => {
                let seen = shared.commits.load(Ordering::SeqCst);
                std::thread::park_timeout(QUIET);
                let quiet = shared.commits.load(Ordering::SeqCst) == seen;
                let idle = !matches!(shared.state.load(Ordering::Acquire), ASKED | CLOSED);
                // If this fails, a commit encounters the same failure and reports it.
                if quiet && idle && passive(&connection).map_or(true, |rest| rest == 0) {
                    shared.rest(seen);
                }
            }
        }
    }
}

/// Copies everything that can be copied without waiting; returns how many pages are left.
fn passive(connection: &Connection) -> rusqlite::Result<u32> {
    let copied = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get::<_, i64>(2))?;
    let pages = connection.query_row("PRAGMA wal_checkpoint(NOOP)", [], |row| row.get::<_, i64>(1))?;
    Ok(u32::try_from(pages - copied).unwrap_or(0))
}
