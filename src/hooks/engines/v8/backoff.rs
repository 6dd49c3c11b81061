//! Backoff for code that crashes its process. A crash costs the server more than a failed run, so its cause is held
//! back.
//!
//! A crash is first attributed to the change: to the instance, or for a creation to the data. The hook does not run for
//! it for one second, after the next crash for two, up to a minute; other changes continue. An actor with several such
//! changes is held back in the same way, and after several such actors the whole hook is. All of them resume
//! automatically, and are forgotten after a minute without a crash. A run that was ended by its limits does not count,
//! whatever happened to its process.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use snaphook_driver::time::{self, Millis};

use crate::config::format_duration;
use crate::hooks::context::{Context, Failure, FailureCause};
use crate::hooks::engines::engine::{HeldBack, HookState};

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// After this many changes their actor is held back, and after this many actors the hook.
const SEVERAL: usize = 3;

/// Maximum number of recorded sources. The least dangerous ones are removed first.
const SOURCES_MAX: usize = 256;

/// The backoff of one piece of code, which may be bound to several models.
pub(super) struct Backoff {
    began: Instant,
    hasher: RandomState,
    sources: Mutex<Sources>,
    /// Whether there are any sources: most code never has one.
    any: AtomicBool,
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff {
            began: Instant::now(),
            hasher: RandomState::new(),
            sources: Mutex::default(),
            any: AtomicBool::new(false),
        }
    }
}

impl Backoff {
    /// The current time; [`Backoff::died`] and [`Backoff::went_well`] take it as the start of a run.
    pub(super) fn now(&self) -> Millis {
        self.began.elapsed().as_millis() as Millis
    }

    /// A failure if the change is held back.
    pub(super) fn failure(&self, context: &Context) -> Option<Failure> {
        // Relaxed: a run that comes a moment too early is harmless.
        if !self.any.load(Ordering::Relaxed) {
            return None;
        }
        let (level, left) = self.sources().held(self.blame(context), self.now())?;
        let (what, whom) = match level {
            Level::Change => ("this change", "it"),
            Level::Actor => ("changes of this actor", "them"),
            Level::Hook => ("changes of several actors", "anybody"),
        };
        Some(Failure {
            cause: FailureCause::Load,
            message: format!(
                "{what} ended the hook's V8 process in a way that no limit foresaw, so it is not run for {whom} for another {}; \
                 bind it again to retry immediately",
                format_duration(Duration::from_millis(left as u64))
            ),
            limit: None,
        })
    }

    /// The state for `GET …/hooks`.
    pub(super) fn state(&self, model: &str) -> HookState {
        if !self.any.load(Ordering::Relaxed) {
            return HookState::Ok;
        }
        self.sources().state(self.hasher.hash_one(model), self.now(), time::now())
    }

    /// A run that began at `start` crashed its process. Concurrent runs for the same source count once.
    pub(super) fn died(&self, context: &Context, start: Millis) {
        let mut sources = self.sources();
        sources.died(self.blame(context), start, self.now());
        self.any.store(true, Ordering::Relaxed);
    }

    /// A run that began at `start` returned a result.
    pub(super) fn went_well(&self, context: &Context, start: Millis) {
        if self.any.load(Ordering::Relaxed) {
            let mut sources = self.sources();
            sources.went_well(self.blame(context), start);
            sources.0.retain(|_, source| !source.is_over(self.now()));
            // Under the lock, so that no crash is lost.
            self.any.store(!sources.0.is_empty(), Ordering::Relaxed);
        }
    }

    /// Forgets the crashes for a model.
    pub(super) fn forget(&self, model: &str) {
        let model = self.hasher.hash_one(model);
        self.sources().0.retain(|_, source| source.model != model);
    }

    fn blame(&self, context: &Context) -> Blame {
        let model = self.hasher.hash_one(&context.model);
        let change = match (&context.before, &context.event) {
            // Its id may differ at each attempt.
            (None, None) => self.hasher.hash_one((model, "data", context.after.as_deref().unwrap_or_default())),
            _ => self.hasher.hash_one((model, "instance", &context.instance)),
        };
        let actor = context.actor.as_ref().map(|actor| actor.identity());
        Blame { change, actor: self.hasher.hash_one((model, "actor", actor)), model }
    }

    fn sources(&self) -> MutexGuard<'_, Sources> {
        // The code under the lock never leaves an inconsistent state.
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The possible causes of a crash, as hashes that clients cannot choose.
#[derive(Clone, Copy)]
struct Blame {
    change: u64,
    actor: u64,
    model: u64,
}

impl Blame {
    const fn of(self, level: Level) -> u64 {
        match level {
            Level::Change => self.change,
            Level::Actor => self.actor,
            Level::Hook => self.model,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Change,
    Actor,
    Hook,
}

const LEVELS: [Level; 3] = [Level::Change, Level::Actor, Level::Hook];

/// The recorded sources, without a clock.
#[derive(Default)]
struct Sources(HashMap<u64, Source>);

struct Source {
    level: Level,
    model: u64,
    /// Held back until this time.
    until: Millis,
    /// The last pause.
    pause: Millis,
    last_death: Millis,
    /// The changes of an actor, or the actors of a hook; at most [`SEVERAL`].
    several: Vec<u64>,
}

impl Source {
    fn pauses(&mut self, start: Millis, now: Millis) {
        // It began before the last pause.
        if self.pause > 0 && start < self.until {
            return;
        }
        self.pause = (self.pause * 2).clamp(FIRST.as_millis() as Millis, LONGEST.as_millis() as Millis);
        self.until = now + self.pause;
    }

    fn is_over(&self, now: Millis) -> bool {
        now - self.until.max(self.last_death) > LONGEST.as_millis() as Millis
    }
}

impl Sources {
    /// The longest wait of the change, and its level.
    fn held(&self, blame: Blame, now: Millis) -> Option<(Level, Millis)> {
        let left = |level| self.0.get(&blame.of(level)).map(|source| (level, source.until - now));
        LEVELS.into_iter().filter_map(left).filter(|(_, left)| *left > 0).max_by_key(|(_, left)| *left)
    }

    fn died(&mut self, blame: Blame, start: Millis, now: Millis) {
        self.0.retain(|_, source| !source.is_over(now));
        let mut below = None;
        for level in LEVELS {
            self.make_room(blame.of(level));
            let source = self.0.entry(blame.of(level)).or_insert_with(|| Source {
                level,
                model: blame.model,
                until: 0,
                pause: 0,
                last_death: now,
                several: Vec::new(),
            });
            source.last_death = now;
            if let Some(below) = below
                && !source.several.contains(&below)
                && source.several.len() < SEVERAL
            {
                source.several.push(below);
            }
            if level == Level::Change || source.several.len() >= SEVERAL {
                source.pauses(start, now);
            }
            below = Some(blame.of(level));
        }
    }

    fn went_well(&mut self, blame: Blame, start: Millis) {
        // Success of this change says nothing about others: a client may send harmless changes between harmful ones.
        if self.0.get(&blame.change).is_some_and(|source| start >= source.until) {
            self.0.remove(&blame.change);
        }
    }

    /// A change is forgotten before an actor, and of the same kind the one that is held back for the shortest time.
    fn make_room(&mut self, key: u64) {
        if self.0.len() < SOURCES_MAX || self.0.contains_key(&key) {
            return;
        }
        let least = self.0.iter().min_by_key(|(_, source)| (source.level as u8, source.until));
        if let Some(least) = least.map(|(key, _)| *key) {
            self.0.remove(&least);
        }
    }

    /// `clock`: the time of day at `now`.
    fn state(&self, model: u64, now: Millis, clock: Millis) -> HookState {
        let held: Vec<&Source> = self.0.values().filter(|source| source.model == model && source.until > now).collect();
        let Some(until) = held.iter().map(|source| source.until).max() else { return HookState::Ok };
        if let Some(hook) = held.iter().find(|source| source.level == Level::Hook) {
            return HookState::BackingOff { retry_at: clock + hook.until - now, held_back: None };
        }
        let count = |level| held.iter().filter(|source| source.level == level).count();
        let held_back = HeldBack { changes: count(Level::Change), actors: count(Level::Actor) };
        HookState::BackingOff { retry_at: clock + until - now, held_back: Some(held_back) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODEL: u64 = 1;

    fn blame(change: u64, actor: u64) -> Blame {
        Blame { change: 1000 + change, actor: 100 + actor, model: MODEL }
    }

    fn level(sources: &Sources, blame: Blame, now: Millis) -> Option<Level> {
        sources.held(blame, now).map(|(level, _)| level)
    }

    #[test]
    fn each_end_doubles_the_pause_of_its_change_and_an_answer_ends_the_series() {
        let mut sources = Sources::default();
        let bad = blame(1, 1);
        let mut now = 10_000;
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            sources.died(bad, now, now);
            // Concurrent runs.
            sources.died(bad, now, now);
            sources.died(bad, 0, now);
            assert_eq!(sources.held(bad, now), Some((Level::Change, seconds * 1000)));
            assert_eq!(level(&sources, blame(2, 1), now), None, "the same actor's other changes run");
            sources.went_well(bad, now);
            now += seconds * 1000;
            assert_eq!(level(&sources, bad, now), None, "it runs again by itself");
        }
        sources.went_well(bad, now);
        sources.died(bad, now, now);
        assert_eq!(sources.held(bad, now), Some((Level::Change, 1000)));
    }

    #[test]
    fn several_changes_are_their_actors_and_several_actors_are_the_hooks_fault() {
        let mut sources = Sources::default();
        for change in 0..2 {
            sources.died(blame(change, 1), 0, 0);
            assert_eq!(level(&sources, blame(9, 1), 1), None);
        }
        let held = HeldBack { changes: 2, actors: 0 };
        assert_eq!(sources.state(MODEL, 400, 5_400), HookState::BackingOff { retry_at: 6_000, held_back: Some(held) });
        sources.died(blame(2, 1), 500, 500);
        assert_eq!(level(&sources, blame(9, 1), 501), Some(Level::Actor));
        assert_eq!(level(&sources, blame(9, 2), 501), None, "another actor is served");
        assert_eq!(sources.state(2, 501, 0), HookState::Ok, "another model");
        // However many more changes of this actor crash.
        for change in 10..1_000 {
            sources.died(blame(change, 1), 2_000 * change as Millis, 2_000 * change as Millis);
        }
        let now = 2_000 * 1_000;
        assert_eq!(level(&sources, blame(9, 2), now), None);
        for actor in [2, 3] {
            sources.died(blame(2_000 + actor, actor), now, now);
        }
        assert_eq!(level(&sources, blame(9, 9), now + 1), Some(Level::Hook));
        assert_eq!(sources.state(MODEL, now, now), HookState::BackingOff { retry_at: now + 1000, held_back: None });
        assert_eq!(level(&sources, blame(9, 9), now + 1_001), None, "it runs again by itself");
    }

    #[test]
    fn what_is_remembered_is_bounded_and_forgotten() {
        let mut sources = Sources::default();
        for change in 0..10_000 {
            sources.died(blame(change, change % 5_000), 0, change as Millis % 7);
            assert!(sources.0.len() <= SOURCES_MAX && sources.0.values().all(|source| source.several.len() <= SEVERAL));
        }
        assert_eq!(level(&sources, blame(77_777, 77_777), 1), Some(Level::Hook));
        let later = LONGEST.as_millis() as Millis * 3;
        sources.died(blame(1, 1), later, later);
        assert_eq!(sources.0.len(), LEVELS.len(), "all else is over");
        assert_eq!(level(&sources, blame(2, 2), later), None);
    }
}
