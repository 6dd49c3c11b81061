//! A loaded library and its counters.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use snaphook_driver::wire::PluginDescription;

use crate::deadline::Deadlines;
use crate::description::describe;
use crate::fault::LoadError;
use crate::library::Library;
use crate::threads::Threads;

/// How many unanswered calls of one plugin, including given-up ones, there may be before further calls are rejected.
const UNANSWERED_MAX: usize = 65_536;

/// The bits above these identify the plugin that a call belongs to.
const NUMBER_BITS: u32 = 48;

/// How many calls of one plugin may wait to be cancelled; beyond that, calls are not cancelled.
const CANCELS_MAX: usize = 1024;

/// How often a plugin broke the rules of the interface. Each violation fails at most the call that it concerns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Answers to calls that were already answered, or to no call.
    pub answered_none: u64,
    /// Calls that were given up because their time was over.
    pub given_up: u64,
    /// Answers to calls that had been given up.
    pub answered_late: u64,
    /// Functions that panicked or threw an exception.
    pub thrown: u64,
    /// Answers that could not be read.
    pub garbage: u64,
    /// Calls that are not answered yet, including given-up ones.
    pub unanswered: usize,
    /// Functions that are past their deadline and have not returned yet; each occupies a thread.
    pub stuck: usize,
}

/// All plugins of this process, by number. They are never removed: an answer may come at any time.
static PLUGINS: RwLock<Vec<Arc<Loaded>>> = RwLock::new(Vec::new());

/// A loaded library and the state of its calls.
pub(crate) struct Loaded {
    number: u64,
    file: PathBuf,
    pub(crate) library: Library,
    pub(crate) description: PluginDescription,
    pub(crate) deadlines: Deadlines,
    threads: Threads,
    cancels: OnceLock<SyncSender<u64>>,
    counts: Counts,
    calls: AtomicU64,
    unanswered: AtomicUsize,
}

#[derive(Default)]
pub(crate) struct Counts {
    answered_none: AtomicU64,
    given_up: AtomicU64,
    answered_late: AtomicU64,
    thrown: AtomicU64,
    garbage: AtomicU64,
}

impl Counts {
    pub(crate) fn gave_up(&self, plugin: &Loaded) {
        plugin.count(&self.given_up, "does not respond in time");
    }

    pub(crate) fn answered_late(&self, plugin: &Loaded) {
        plugin.count(&self.answered_late, "responded to a call after its deadline");
    }

    pub(crate) fn thrown(&self, plugin: &Loaded) {
        plugin.count(&self.thrown, "panicked or threw an exception");
    }

    pub(crate) fn garbage(&self, plugin: &Loaded) {
        plugin.count(&self.garbage, "returned a response that cannot be read");
    }
}

impl Loaded {
    /// As [`crate::Plugin::load`].
    pub(crate) fn load(file: &Path, deadlines: Deadlines) -> Result<Arc<Loaded>, LoadError> {
        let refuse = |fault| LoadError::new(file, fault);
        let library = Library::load(file).map_err(refuse)?;
        let description = describe(&library).map_err(refuse)?;
        let mut plugins = PLUGINS.write().unwrap_or_else(PoisonError::into_inner);
        let loaded = Arc::new(Loaded {
            number: plugins.len() as u64,
            file: file.to_owned(),
            library,
            description,
            deadlines,
            threads: Threads::default(),
            cancels: OnceLock::new(),
            counts: Counts::default(),
            calls: AtomicU64::new(0),
            unanswered: AtomicUsize::new(0),
        });
        plugins.push(Arc::clone(&loaded));
        Ok(loaded)
    }

    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// The violations so far.
    pub(crate) fn counted(&self) -> Faults {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Counts { answered_none, given_up, answered_late, thrown, garbage } = &self.counts;
        Faults {
            answered_none: count(answered_none),
            given_up: count(given_up),
            answered_late: count(answered_late),
            thrown: count(thrown),
            garbage: count(garbage),
            unanswered: self.unanswered.load(Ordering::Relaxed),
            stuck: self.threads.lost_count(),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.description.name
    }

    pub(crate) fn threads(&self) -> &Threads {
        &self.threads
    }

    pub(crate) fn faults(&self) -> &Counts {
        &self.counts
    }

    /// The number of a new call; `None` if too many calls are unanswered.
    pub(crate) fn next_call(&self) -> Option<u64> {
        if self.unanswered.fetch_add(1, Ordering::Relaxed) >= UNANSWERED_MAX {
            self.call_ended();
            return None;
        }
        let call = self.calls.fetch_add(1, Ordering::Relaxed) & ((1 << NUMBER_BITS) - 1);
        Some(self.number << NUMBER_BITS | call)
    }

    pub(crate) fn call_ended(&self) {
        self.unanswered.fetch_sub(1, Ordering::Relaxed);
    }

    /// Tells the library that nobody waits for a call. This runs on a dedicated thread, so that a library that does not
    /// return from it blocks no other thread. If the thread's queue is full, the call continues and nobody waits for
    /// it.
    pub(crate) fn cancel(self: &Arc<Self>, call: u64) {
        if self.library.can_cancel() {
            let _ = self.cancels.get_or_init(|| self.start_canceller()).try_send(call);
        }
    }

    fn start_canceller(self: &Arc<Self>) -> SyncSender<u64> {
        let (sender, calls) = sync_channel(CANCELS_MAX);
        // Plugins are never unloaded.
        let plugin = Arc::clone(self);
        let cancel = move || {
            for call in calls {
                if plugin.library.cancel(call).is_err() {
                    plugin.counts.thrown(&plugin);
                }
            }
        };
        // If the thread cannot be started, calls are not cancelled.
        let _ = std::thread::Builder::new().name("plugin-cancel".into()).spawn(cancel);
        sender
    }

    /// Counts an answer whose number belongs to no call, or no longer does.
    pub(crate) fn answered_none(number: u64) {
        let plugins = PLUGINS.read().unwrap_or_else(PoisonError::into_inner);
        let plugin = usize::try_from(number >> NUMBER_BITS).ok().and_then(|number| plugins.get(number)).cloned();
        drop(plugins);
        match plugin {
            Some(plugin) => {
                plugin.count(&plugin.counts.answered_none, "responded to a call twice, or to one that does not exist")
            }
            None => tracing::warn!("a plugin responded to call {number:#x}, which does not exist"),
        }
    }

    /// Counts a fault. Only the first one of each kind is logged.
    fn count(&self, count: &AtomicU64, what: &str) {
        if count.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!("plugin `{}` ({}) {what}; further cases are only counted", self.name(), self.file.display());
        }
    }
}
