//! Cases for a connection that is lost at every step of a call. Wherever the connection breaks, the caller learns the
//! outcome or that the outcome is uncertain, acknowledged data exists, nothing exists twice, and the next call works.
//!
//! Usually each direction of a call is cut at a dozen places; with [`LONG_VARIABLE`], after every single byte.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde_json::json;
use snaphook_driver::wire::Opened;
use snaphook_driver::{
    Append, Claim, Conflict, DriverError, ErrorKind, ErrorQuery, EventFilter, EventQuery, EventStore, Group,
    InstanceQuery, Position, Result, Sealed, SecureStore, Store, Stream,
};
use tempfile::TempDir;

use crate::cut::{Cut, Direction, Proxy};
use crate::model::define;
use crate::sample::{create, created, digest, shape};

/// If this environment variable is set, every place is tried. `cargo xtask test --long` sets it.
pub const LONG_VARIABLE: &str = "SNAPHOOK_TEST_LONG";

/// Places per direction in a short run, in addition to the first and the last bytes.
const PLACES: usize = 8;

/// Longer than anything that a case waits for.
const DEADLINE: Duration = Duration::from_secs(20);

/// A driver that reaches its store over TCP.
#[async_trait]
pub trait Connector: Send + Sync {
    /// Serves an empty store, which may keep its files in the folder, until the runtime ends. Returns its address.
    async fn serve(&self, store: Store, folder: &Path) -> SocketAddr;

    /// The driver's store at that address.
    async fn connect(&self, store: Store, address: SocketAddr) -> Result<Opened>;
}

/// Tests of a driver whose connection is lost.
#[macro_export]
macro_rules! lost_connection_suite {
    ($connector:expr) => {
        mod lost {
            #[allow(unused_imports, reason = "the connector may be named from the parent module")]
            use super::*;
            $crate::lost_connection_suite!(
                @ $connector,
                append, append_at_once, claim, acknowledge, put_blob, read, apply, change_model, put_secret, delete_secret,
                record_error,
            );
        }
    };
    (@ $connector:expr, $($case:ident),* $(,)?) => {
        $(
            #[test]
            fn $case() {
                $crate::run($crate::lost::$case(&$connector));
            }
        )*
    };
}

/// A store behind a proxy that can cut the next call.
struct Line {
    store: Opened,
    proxy: Proxy,
    cut: Mutex<Option<Cut>>,
    passed: Mutex<(usize, usize)>,
    lost: AtomicUsize,
    _folder: TempDir,
}

impl Line {
    async fn open(connector: &dyn Connector, store: Store) -> Line {
        let folder = TempDir::new().unwrap();
        let proxy = Proxy::start(connector.serve(store, folder.path()).await).await;
        let store = connector.connect(store, proxy.address()).await.unwrap();
        Line {
            store,
            proxy,
            cut: Mutex::default(),
            passed: Mutex::default(),
            lost: AtomicUsize::new(0),
            _folder: folder,
        }
    }

    fn event(&self) -> &dyn EventStore {
        let Opened::Event(store) = &self.store else { panic!("it was opened as {} storage", self.store.store()) };
        &**store
    }

    fn secure(&self) -> &dyn SecureStore {
        let Opened::Secure(store) = &self.store else { panic!("it was opened as {} storage", self.store.store()) };
        &**store
    }

    /// Makes the call during which the connection is lost.
    async fn during<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        self.proxy.arm(*self.cut.lock().unwrap());
        let outcome = tokio::time::timeout(DEADLINE, call).await.expect("the call ends");
        *self.passed.lock().unwrap() = self.proxy.disarm();
        if let Err(error) = &outcome {
            self.lost.fetch_add(1, Ordering::Relaxed);
            let is_known = error.kind() == ErrorKind::Unavailable;
            assert!(is_known || error.kind() == ErrorKind::Uncertain, "{}: {error}", self.place());
            assert!(error.is_temporary(), "{}: {error}", self.place());
        }
        outcome
    }

    fn place(&self) -> String {
        format!("{:?}", *self.cut.lock().unwrap())
    }

    /// Carries out a step repeatedly, each time with another cut. The step gets the number of its repetition.
    async fn at_every_cut(&self, step: impl AsyncFn(u64)) {
        // The first call is not cut; no later call is shorter.
        step(0).await;
        let (to_host, to_driver) = *self.passed.lock().unwrap();
        assert!(to_host > 0 && to_driver > 0, "nothing passed the proxy");
        // A request may be lost after its last byte; a response that arrived completely is not lost.
        let cuts = [(Direction::ToHost, to_host), (Direction::ToDriver, to_driver - 1)];
        let cuts = cuts
            .into_iter()
            .flat_map(|(direction, length)| places(length).into_iter().map(move |after| Cut { direction, after }));
        let cuts: Vec<Cut> = cuts.collect();
        for (number, cut) in (1..).zip(&cuts) {
            *self.cut.lock().unwrap() = Some(*cut);
            step(number).await;
        }
        let lost = self.lost.load(Ordering::Relaxed);
        assert_eq!(lost, cuts.len(), "a call was not lost although its connection was cut");
    }
}

/// The byte counts of a message after which to cut.
fn places(length: usize) -> Vec<usize> {
    if std::env::var_os(LONG_VARIABLE).is_some() {
        return (0..=length).collect();
    }
    let mut places: Vec<usize> = (0..=PLACES).map(|place| length * place / PLACES).collect();
    places.extend([1, length.saturating_sub(1)]);
    places.sort_unstable();
    places.dedup();
    places
}

/// Whether the outcome of the call is unknown.
fn is_uncertain<T>(outcome: &Result<T>) -> bool {
    outcome.as_ref().is_err_and(|error| error.kind() == ErrorKind::Uncertain)
}

/// The ids of all events of a log.
async fn ids(store: &dyn EventStore) -> Vec<String> {
    let (mut ids, mut after) = (Vec::new(), 0);
    loop {
        let query = EventQuery { after, limit: 1000, filter: EventFilter::default() };
        let page = store.read(&query, None).await.unwrap();
        ids.extend(page.events.iter().map(|event| event.id.clone()));
        let Some(next) = page.next() else { return ids };
        after = next;
    }
}

/// Appends with cuts, retrying where the outcome is unknown; the log must contain each event once.
async fn append_batches(connector: &dyn Connector, batch: impl Fn(u64) -> Vec<Append>, atomic: bool) {
    let line = Line::open(connector, Store::Event).await;
    let store = line.event();
    let expected = Mutex::new(Vec::new());
    line.at_every_cut(async |number| {
        let batch = batch(number);
        let outcome = line.during(store.append(&batch, atomic)).await;
        store.health().await.unwrap_or_else(|error| panic!("{}: {error}", line.place()));
        let last = async |append: &Append| store.last(&append.event.stream(), Position::MAX).await.unwrap();
        if let Err(error) = &outcome
            && !is_uncertain(&outcome)
        {
            assert_eq!(last(&batch[0]).await, None, "{}: {error}", line.place());
        }
        let rows = match outcome {
            Ok(rows) => rows,
            Err(_) => store.append(&batch, atomic).await.unwrap(),
        };
        for (append, row) in batch.iter().zip(rows) {
            let found = last(append).await.unwrap_or_else(|| panic!("{}: nothing is stored", line.place()));
            assert_eq!(found.id, append.event.id, "{}", line.place());
            match row {
                Ok(appended) => assert_eq!(found.position, appended.position, "{}", line.place()),
                // The event was stored by the first attempt.
                Err(Conflict::Stream { last, .. }) => assert_eq!(found.position, last, "{}", line.place()),
                Err(Conflict::Batch) => {}
                Err(conflict) => panic!("{}: {conflict:?}", line.place()),
            }
            for claim in &append.claims {
                let holder = store.holder(&claim.key).await.unwrap();
                assert_eq!(holder.map(|holder| holder.position), Some(found.position), "{}", line.place());
            }
        }
        expected.lock().unwrap().extend(batch.into_iter().map(|append| append.event.id));
    })
    .await;
    assert_eq!(ids(store).await, *expected.lock().unwrap(), "each event is in the log once");
}

pub async fn append(connector: &dyn Connector) {
    let one = |number: u64| Append {
        claims: vec![Claim::new(format!("k{number:06}"))],
        ..create("m", &format!("i{number:06}"), r#"{"a": 1}"#)
    };
    append_batches(connector, |number| vec![one(number)], false).await;
}

pub async fn append_at_once(connector: &dyn Connector) {
    let some = |number| (0..3).map(|row| create("m", &format!("i{number:06}-{row}"), "{}")).collect();
    append_batches(connector, some, true).await;
}

/// Appends one event for a group.
async fn offer(store: &dyn EventStore, number: u64) -> Position {
    let group = Group { name: "g".into(), filter: EventFilter::default() };
    store.create_group(&group, 0).await.unwrap();
    crate::sample::append_one(store, create("m", &format!("i{number:06}"), "{}")).await
}

pub async fn claim(connector: &dyn Connector) {
    let line = Line::open(connector, Store::Event).await;
    let store = line.event();
    line.at_every_cut(async |number| {
        let position = offer(store, number).await;
        // A client that lost the response does not know what it has leased, so the lease must expire.
        let lost = line.during(store.claim("g", 10, Duration::from_millis(20))).await;
        let mut deliveries = lost.unwrap_or_default();
        let asked = Instant::now();
        while deliveries.is_empty() {
            assert!(asked.elapsed() < DEADLINE, "{}: the event does not come again", line.place());
            deliveries = store.claim("g", 10, Duration::from_secs(60)).await.unwrap();
        }
        let found: Vec<_> = deliveries.iter().map(|delivery| delivery.event.position).collect();
        assert_eq!(found, [position], "{}", line.place());
        let stream = Stream::of_instance("m", format!("i{number:06}"));
        while !store.is_done("g", &stream, position).await.unwrap() {
            assert!(asked.elapsed() < DEADLINE, "{}: the event is not done", line.place());
            let done: Vec<_> = deliveries.iter().map(|delivery| (position, delivery.token)).collect();
            store.ack("g", &done).await.unwrap();
            deliveries = store.claim("g", 10, Duration::from_secs(60)).await.unwrap();
        }
        assert_eq!(store.lag("g").await.unwrap().0, 0, "{}", line.place());
    })
    .await;
}

pub async fn acknowledge(connector: &dyn Connector) {
    let line = Line::open(connector, Store::Event).await;
    let store = line.event();
    line.at_every_cut(async |number| {
        let position = offer(store, number).await;
        let deliveries = store.claim("g", 10, Duration::from_secs(60)).await.unwrap();
        assert_eq!(deliveries.len(), 1, "{}", line.place());
        let done = [(position, deliveries[0].token)];
        if line.during(store.ack("g", &done)).await.is_err() {
            store.ack("g", &done).await.unwrap();
        }
        let stream = Stream::of_instance("m", format!("i{number:06}"));
        assert!(store.is_done("g", &stream, position).await.unwrap(), "{}", line.place());
        assert_eq!(store.claim("g", 10, Duration::from_secs(60)).await.unwrap(), [], "{}", line.place());
    })
    .await;
}

pub async fn put_blob(connector: &dyn Connector) {
    let line = Line::open(connector, Store::Event).await;
    let store = line.event();
    line.at_every_cut(async |number| {
        let bytes = [number.to_le_bytes(); 20].concat();
        let digest = digest(&bytes);
        if line.during(store.put_blob(&digest, &bytes)).await.is_err() {
            store.put_blob(&digest, &bytes).await.unwrap();
        }
        assert_eq!(store.get_blob(&digest).await.unwrap().as_deref(), Some(&bytes[..]), "{}", line.place());
    })
    .await;
}

/// A read never has an uncertain outcome, and a partial response counts as none.
pub async fn read(connector: &dyn Connector) {
    let line = Line::open(connector, Store::Event).await;
    let store = line.event();
    for number in 0..10 {
        crate::sample::append_one(store, create("m", &format!("i{number}"), "{}")).await;
    }
    let query = EventQuery { after: 0, limit: 100, filter: EventFilter::default() };
    line.at_every_cut(async |_| {
        let page = line.during(store.read(&query, None)).await;
        assert!(!is_uncertain(&page), "{}", line.place());
        for page in page.ok().into_iter().chain([store.read(&query, None).await.unwrap()]) {
            assert_eq!((page.events.len(), page.reached), (10, page.head), "{}", line.place());
        }
    })
    .await;
}

pub async fn apply(connector: &dyn Connector) {
    let line = Line::open(connector, Store::Model).await;
    let Opened::Model(store) = &line.store else { panic!("it was asked for") };
    store.reset("log").await.unwrap();
    define(&**store, &shape("m", 1, &[], &[]), 1).await;
    line.at_every_cut(async |number| {
        let (after, to) = (1 + number * 2, 3 + number * 2);
        let events = [to - 1, to].map(|position| created(position, "m", &format!("i{position:06}"), &json!({})));
        if line.during(store.apply(after, &events, to)).await.is_err() {
            store.apply(after, &events, to).await.unwrap();
        }
        assert_eq!(store.checkpoint().await.unwrap(), to, "{}", line.place());
        for event in events {
            let found = store.get("m", event.instance.as_deref().unwrap()).await.unwrap().unwrap();
            assert_eq!((found.position, found.revision), (event.position, 1), "{}", line.place());
        }
        let query = InstanceQuery { limit: 1000, ..InstanceQuery::default() };
        let page = store.query("m", &query, &snaphook_driver::Budget::unlimited()).await.unwrap();
        assert!(page.next.is_some() || page.items.len() as u64 == to - 1, "{}", line.place());
    })
    .await;
}

pub async fn change_model(connector: &dyn Connector) {
    let line = Line::open(connector, Store::Model).await;
    let Opened::Model(store) = &line.store else { panic!("it was asked for") };
    store.reset("log").await.unwrap();
    let (first, carry) = (shape("m", 1, &[], &[]), snaphook_driver::CarryOver::default());
    define(&**store, &first, 1).await;
    line.at_every_cut(async |number| {
        let (old, new) = (shape("m", 1 + number, &[], &[]), shape("m", 2 + number, &[], &[]));
        let change = || store.define(1 + number, Some(&old), &new, &carry, 2 + number);
        if line.during(change()).await.is_err() {
            change().await.unwrap();
        }
        assert_eq!(store.checkpoint().await.unwrap(), 2 + number, "{}", line.place());
        assert_eq!(store.definitions().await.unwrap(), [new], "{}", line.place());
    })
    .await;
}

pub async fn put_secret(connector: &dyn Connector) {
    let line = Line::open(connector, Store::Secure).await;
    let store = line.secure();
    line.at_every_cut(async |number| {
        let name = format!("s{number:06}");
        match line.during(store.put(&name, b"sealed", Some(0))).await {
            Ok(version) => assert_eq!(version, 1, "{}", line.place()),
            Err(_) => match store.put(&name, b"sealed", Some(0)).await {
                Ok(version) => assert_eq!(version, 1, "{}", line.place()),
                // The secret was stored by the first attempt.
                Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{}: {error}", line.place()),
            },
        }
        let sealed = Sealed { bytes: b"sealed".to_vec(), version: 1 };
        assert_eq!(store.get(&name).await.unwrap(), Some(sealed), "{}", line.place());
        assert_eq!(store.list("").await.unwrap().len() as u64, number + 1, "{}", line.place());
    })
    .await;
}

pub async fn delete_secret(connector: &dyn Connector) {
    let line = Line::open(connector, Store::Secure).await;
    let store = line.secure();
    store.put("stays", b"x", None).await.unwrap();
    line.at_every_cut(async |_| {
        store.put("gone", b"x", Some(0)).await.unwrap();
        match line.during(store.delete("gone")).await {
            Ok(removed) => assert!(removed, "{}", line.place()),
            Err(_) => drop(store.delete("gone").await.unwrap()),
        }
        assert_eq!(store.list("").await.unwrap(), ["stays"], "{}", line.place());
    })
    .await;
}

pub async fn record_error(connector: &dyn Connector) {
    let line = Line::open(connector, Store::Error).await;
    let Opened::Error(store) = &line.store else { panic!("it was asked for") };
    line.at_every_cut(async |number| {
        let record = crate::error::record(&format!("{number:06}"), "m", "h");
        let recorded: Result<(), DriverError> = line.during(store.record(&record)).await;
        if recorded.is_err() {
            store.record(&record).await.unwrap();
        }
        assert_eq!(store.get(&record.id).await.unwrap(), Some(record), "{}", line.place());
        assert_eq!(store.count(&ErrorQuery::default()).await.unwrap(), number + 1, "{}", line.place());
    })
    .await;
}
