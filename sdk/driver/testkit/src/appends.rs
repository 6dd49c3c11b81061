//! Random appends. They use few names and close times, so that most conditions refer to something recent.

use snaphook_driver::time::Millis;
use snaphook_driver::{Append, Claim, Event, EventKind, Expected, Holder, Position, Quiet, Require, Stream};

use crate::Subject;
use crate::naive::NaiveLog;
use crate::sample::{Random, any, append_one};

/// All keys that clients claim.
pub const KEYS: [&str; 5] = ["", "a", "a\0", "b", "é"];

const MODELS: [&str; 3] = ["m", "n", "mn"];

/// Texts, and UUIDs that are not in numeric order.
const INSTANCES: [&str; 6] = [
    "a",
    "b",
    "0190a6c4-5f8b-7cde-8f01-000000000002",
    "0190a6c4-5f8b-7cde-8f01-000000000001",
    "0190a6c4-5f8b-7cde-8f01-000000000009",
    "0190A6C4-5f8b-7cde-8f01-000000000009",
];

const ROWS_MAX: usize = 6;

/// Times are equal or differ by multiples of this.
const STEP: Millis = 7_000;

/// A client that appends at random.
pub struct Client {
    random: Random,
    clock: Millis,
}

impl Client {
    /// A client that makes the same appends in every run.
    pub fn new(seed: u64) -> Self {
        Client { random: Random::new(seed), clock: 1_700_000_000_000 }
    }

    /// A batch, and whether it is atomic. About half of the conditions hold for the log before the batch.
    pub fn batch(&mut self, log: &NaiveLog) -> (Vec<Append>, bool) {
        let rows = self.random.below(ROWS_MAX + 1);
        let batch = (0..rows).map(|_| self.append(log)).collect();
        (batch, self.is(1, 4))
    }

    fn append(&mut self, log: &NaiveLog) -> Append {
        self.clock += STEP * self.random.below(3) as Millis;
        let stream = self.stream();
        let kinds = match stream.instance {
            Some(_) => [EventKind::InstanceCreated, EventKind::InstanceUpdated, EventKind::InstanceDeleted],
            None => [EventKind::ModelCreated, EventKind::ModelUpdated, EventKind::ModelDeleted],
        };
        let expected = match self.random.below(3) {
            0 => Expected::Any,
            1 => Expected::New,
            _ => Expected::At(self.position(log, log.end_of(&stream).0)),
        };
        let requires = self.some(2, |client| {
            let stream = client.stream();
            let position = client.position(log, log.end_of(&stream).0);
            Require { stream, position }
        });
        let quiet = self.is(1, 4).then(|| {
            let model = (*self.random.pick(&MODELS)).to_owned();
            let since = self.position(log, log.last_of_instances(&model));
            Quiet { model, since }
        });
        let claims = self.some(3, |client| client.claim(log));
        let releases = self.some(2, |client| (*client.random.pick(&KEYS)).to_owned());
        let event = Event {
            kind: *self.random.pick(&kinds),
            model: stream.model,
            instance: stream.instance,
            time: self.clock - STEP * self.random.below(3) as Millis,
            ..any("", "").event
        };
        Append { event, expected, requires, quiet, claims, releases }
    }

    fn claim(&mut self, log: &NaiveLog) -> Claim {
        let key = *self.random.pick(&KEYS);
        let since = log.holder(key).map_or(0, |holder| holder.position);
        Claim {
            key: key.to_owned(),
            holder: self.is(1, 4).then(|| self.stream()),
            replaces: self.is(1, 3).then(|| self.position(log, since)),
            expires: self.is(1, 2).then(|| self.clock + STEP * (self.random.below(12) as Millis - 3)),
            value: self.is(1, 3).then(|| self.random.below(1000).to_string()),
        }
    }

    fn stream(&mut self) -> Stream {
        let model = *self.random.pick(&MODELS);
        if self.is(1, 3) { Stream::of_model(model) } else { Stream::of_instance(model, *self.random.pick(&INSTANCES)) }
    }

    /// The right position, or one near the end of the log.
    fn position(&mut self, log: &NaiveLog, right: Position) -> Position {
        if self.is(1, 2) { right } else { (log.head() + 4).saturating_sub(self.random.below(12) as Position) }
    }

    /// Usually none, otherwise up to `most`.
    fn some<T>(&mut self, most: usize, mut one: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let count = if self.is(1, 2) { self.random.below(most + 1) } else { 0 };
        (0..count).map(|_| one(self)).collect()
    }

    fn is(&mut self, times: usize, of: usize) -> bool {
        self.random.below(of) < times
    }
}

/// Whether a store may report `found` as the holder of a key; an expired claim may be gone.
pub fn may_be_held(log: &NaiveLog, key: &str, found: Option<&Holder>) -> bool {
    let holder = log.holder(key);
    let has_expired = |holder: &Holder| log.time().is_some_and(|time| holder.has_expired(time));
    found == holder || (found.is_none() && holder.is_some_and(has_expired))
}

pub async fn random_appends(subject: &Subject) {
    let mut store = subject.event().await;
    if append_one(&*store, any("m", "a")).await != 1 {
        // Conditions name positions that cannot be predicted if there may be gaps.
        return store.close().await.unwrap();
    }
    let (mut client, mut log) = (Client::new(7), NaiveLog::default());
    log.append(&[any("m", "a")], false);
    for round in 0..400 {
        let (batch, atomic) = client.batch(&log);
        let atomic = atomic && store.capabilities().atomic_batch;
        let expected = log.append(&batch, atomic);
        assert_eq!(store.append(&batch, atomic).await.unwrap(), expected, "round {round}: {batch:#?}");
        for key in KEYS {
            let found = store.holder(key).await.unwrap();
            assert!(may_be_held(&log, key, found.as_ref()), "round {round}, key {key:?}: {found:?}");
        }
        if round % 100 == 99 && store.capabilities().durable {
            store.close().await.unwrap();
            drop(store);
            store = subject.event().await;
        }
    }
    assert_eq!(store.head().await.unwrap(), log.head());
    store.close().await.unwrap();
}
