//! Events and instances for tests.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use snaphook_driver::compare::InstanceView;
use snaphook_driver::{
    Append, Column, ColumnKind, Conflict, Event, EventKind, EventStore, Expected, Json, ModelShape, Position,
    Provenance, SortKey, Stream,
};

static NEXT: AtomicU64 = AtomicU64::new(1);

/// A text in the form of a UUIDv7 that is unique in this process.
pub fn uuid() -> String {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("01920000-{:04x}-7000-8000-{:012x}", number >> 48, number & 0xffff_ffff_ffff)
}

/// The name of a blob.
pub fn digest(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

/// An event without any optional fields.
pub fn event(kind: EventKind, stream: &Stream, data: Option<&str>) -> Event {
    Event {
        position: 0,
        id: uuid(),
        kind,
        model: stream.model.clone(),
        model_version: 1,
        instance: stream.instance.clone(),
        revision: 1,
        data: data.map(Json::trusted),
        actor: None,
        cause: None,
        hooks: Vec::<Provenance>::new(),
        request_id: None,
        trace: None,
        time: 1_700_000_000_000,
    }
}

/// An append that expects nothing.
pub fn append(event: Event) -> Append {
    Append::new(event, Expected::Any)
}

/// The creation of an instance, expected to be new.
pub fn create(model: &str, id: &str, data: &str) -> Append {
    let stream = Stream::of_instance(model, id);
    Append { expected: Expected::New, ..append(event(EventKind::InstanceCreated, &stream, Some(data))) }
}

/// The creation of an instance without an expectation.
pub fn any(model: &str, id: &str) -> Append {
    append(event(EventKind::InstanceUpdated, &Stream::of_instance(model, id), Some("{}")))
}

/// Appends one event that must succeed.
pub async fn append_one(store: &dyn EventStore, append: Append) -> Position {
    try_append(store, append).await.unwrap()
}

/// Appends one event.
pub async fn try_append(store: &dyn EventStore, append: Append) -> Result<Position, Conflict> {
    append_all(store, &[append], false).await.remove(0)
}

/// Appends a batch and returns the positions. Checks the rest of the store's answer as far as the batch determines it.
pub async fn append_all(store: &dyn EventStore, batch: &[Append], atomic: bool) -> Vec<Result<Position, Conflict>> {
    let answers = store.append(batch, atomic).await.unwrap();
    assert_eq!(answers.len(), batch.len());
    let appended = || answers.iter().zip(batch).filter_map(|(answer, append)| Some((answer.as_ref().ok()?, append)));
    for (appended, append) in appended() {
        assert!(appended.after < appended.position, "{appended:?}");
        assert!(appended.time >= append.event.time, "{appended:?} of {append:?}");
    }
    appended().zip(appended().skip(1)).for_each(|((one, _), (next, _))| {
        assert_eq!(next.after, one.position, "{next:?} after {one:?}");
        assert!(next.time >= one.time, "{next:?} after {one:?}");
    });
    answers.into_iter().map(|answer| answer.map(|appended| appended.position)).collect()
}

/// A shape with columns and indexes in short notation: `("total", ColumnKind::Number)`, `["status", "-total"]`.
pub fn shape(model: &str, version: u64, columns: &[(&str, ColumnKind)], indexes: &[&[&str]]) -> ModelShape {
    ModelShape {
        model: model.to_owned(),
        version,
        columns: columns.iter().map(|(name, kind)| Column { name: (*name).to_owned(), kind: *kind }).collect(),
        indexes: indexes.iter().map(|keys| keys.iter().map(|key| sort_key(key)).collect()).collect(),
        unique: Vec::new(),
        record: Json::trusted(format!("{{\"version\":{version}}}")),
    }
}

/// Data as filters and sort orders see it, of an instance without other fields.
pub fn bare(data: &Value) -> InstanceView<'_> {
    InstanceView { id: "", created_at: 0, updated_at: 0, revision: 0, position: 0, data }
}

/// `-a.b` means descending by the path `a`, `b`.
pub fn sort_key(text: &str) -> SortKey {
    let (descending, path) = text.strip_prefix('-').map_or((false, text), |path| (true, path));
    SortKey { path: path.split('.').map(str::to_owned).collect::<Vec<_>>().into(), descending }
}

/// An instance event at a position.
pub fn change(kind: EventKind, position: Position, model: &str, id: &str, data: Option<&str>) -> Event {
    Event { position, ..event(kind, &Stream::of_instance(model, id), data) }
}

/// The creation of an instance at a position.
pub fn created(position: Position, model: &str, id: &str, data: &Value) -> Event {
    change(EventKind::InstanceCreated, position, model, id, Some(&data.to_string()))
}

/// The seeds of a property test: a fixed one, and the requested one or else a new one.
pub fn seeds() -> impl Iterator<Item = u64> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed = std::env::var("SNAPHOOK_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(now);
    [42, seed].into_iter().inspect(|seed| eprintln!("seed {seed}; SNAPHOOK_TEST_SEED sets it"))
}

/// Random numbers that are the same in every run (xorshift64*).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed.max(1))
    }

    /// A random number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }

    /// A random item.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}
