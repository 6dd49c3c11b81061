//! Plugins that violate the interface at run time: each violation affects only its own call.

mod support;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Map;
use snaphook_driver::wire::Opened;
use snaphook_driver::{DriverError, ErrorKind, EventFilter, EventQuery, EventStore, OpenContext, SecureStore, Store};
use snaphook_driver_loader::{Deadlines, Faults, Plugin};
use snaphook_driver_testkit::sample::any;
use support::{driver_file, hostile};

/// Timeout for results that should arrive at once, even on a busy machine.
const LONG: Duration = Duration::from_secs(20);

/// The deadline for tests in which some calls miss it; the other calls meet it even on a busy machine.
const SHORT: Duration = Duration::from_secs(1);

/// The deadline for tests in which every call misses it.
const VERY_SHORT: Duration = Duration::from_millis(200);

fn file(test: &str) -> PathBuf {
    // A separate library for each test, because a library's state is shared by all of its users.
    hostile(test, "calls.c", &[])
}

fn load(test: &str, call: Duration) -> Plugin {
    Plugin::load(&file(test), Deadlines { call, whole: LONG }).unwrap()
}

async fn open(plugin: &Plugin, store: Store) -> Opened {
    plugin.open(0, store, OpenContext::new(Map::new(), ".")).await.unwrap()
}

async fn secure(plugin: &Plugin) -> Arc<dyn SecureStore> {
    match open(plugin, Store::Secure).await {
        Opened::Secure(store) => store,
        _ => panic!("secure storage was opened"),
    }
}

async fn event(plugin: &Plugin) -> Arc<dyn EventStore> {
    match open(plugin, Store::Event).await {
        Opened::Event(store) => store,
        _ => panic!("event storage was opened"),
    }
}

/// Waits until the plugin's fault counters match.
async fn until(plugin: &Plugin, expected: impl Fn(Faults) -> bool) -> Faults {
    let started = Instant::now();
    while !expected(plugin.faults()) {
        assert!(started.elapsed() < LONG, "the faults stay {:?}", plugin.faults());
        tokio::task::yield_now().await;
    }
    plugin.faults()
}

#[track_caller]
fn assert_error(error: DriverError, kind: ErrorKind, message: &str) {
    assert!(error.kind() == kind && error.to_string().contains(message), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_cannot_be_read() {
    let plugin = load("garbage", LONG);
    let store = secure(&plugin).await;
    let cases = [
        ("garbage", "cannot be read: it is not a valid message"),
        ("no-utf8", "cannot be read: it is not a valid message"),
        ("odd-status", "the response of the plugin `h` has status 7, expected 0 or 1"),
        ("null", "the response of the plugin `h` is null, with 10 bytes"),
        ("huge", "the response of the plugin `h` has 18446744073709551615 bytes, at most 268435456 are allowed"),
        ("odd-error", "the response of the plugin `h` is an error that cannot be read"),
    ];
    for (name, message) in cases {
        // `list`, because the response to `get` for an absent secret is empty.
        assert_error(store.list(name).await.unwrap_err(), ErrorKind::Unexpected, message);
        // It is unknown whether the secret was stored.
        assert_error(store.put(name, b"", None).await.unwrap_err(), ErrorKind::Uncertain, message);
    }
    assert!(store.list("fine").await.unwrap().is_empty());
    assert_eq!(plugin.faults().garbage, 8);
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_counts() {
    let plugin = load("counts", LONG);
    let store = event(&plugin).await;
    assert_eq!(store.append(&[any("m", "a"), any("m", "b")], false).await.unwrap().len(), 2);
    for count in [0, 1, 3] {
        let batch: Vec<_> = (0..count).map(|number| any("m", &number.to_string())).collect();
        let message = format!("it has 2 outcomes for {count} appends");
        assert_error(store.append(&batch, false).await.unwrap_err(), ErrorKind::Uncertain, &message);
    }
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_to_no_call() {
    let plugin = load("twice", LONG);
    let store = secure(&plugin).await;
    // Many times, so that some calls run on a runtime thread.
    for _ in 0..20 {
        for name in ["twice", "made-up", "nobody"] {
            assert_eq!(store.get(name).await.unwrap(), None);
        }
    }
    // The number in `nobody` belongs to no plugin, so those answers are not counted.
    until(&plugin, |faults| faults.answered_none == 40 && faults.unanswered == 0).await;
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_answers() {
    let plugin = load("late", SHORT);
    let store = secure(&plugin).await;
    let message = "the plugin `h` did not respond to the call within 1s";
    assert_error(store.get("later").await.unwrap_err(), ErrorKind::Unavailable, message);
    assert_error(store.put("later", b"", None).await.unwrap_err(), ErrorKind::Uncertain, message);
    let faults = plugin.faults();
    assert_eq!((faults.given_up, faults.answered_late, faults.unanswered), (2, 0, 2));
    store.get("release").await.unwrap();
    until(&plugin, |faults| faults.answered_late == 2 && faults.unanswered == 0).await;
    assert_eq!(store.get("fine").await.unwrap(), None);
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_after_the_end() {
    let plugin = load("after-close", SHORT);
    let store = secure(&plugin).await;
    // An answered call is counted until its function has returned.
    until(&plugin, |faults| faults.unanswered == 0).await;
    let waiting = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.get("later").await }
    });
    until(&plugin, |faults| faults.unanswered == 1).await;
    store.close().await.unwrap();
    assert_error(store.get("x").await.unwrap_err(), ErrorKind::Unavailable, "the store is closed");
    let error = waiting.await.unwrap().unwrap_err();
    assert_error(error, ErrorKind::Unavailable, "did not respond to the call within 1s");
    let again = secure(&plugin).await;
    again.get("release").await.unwrap();
    until(&plugin, |faults| faults.answered_late == 1 && faults.unanswered == 0).await;
    again.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_are_never_answered() {
    let plugin = load("never", SHORT);
    let store = secure(&plugin).await;
    assert_error(store.get("never").await.unwrap_err(), ErrorKind::Unavailable, "did not respond to the call within");
    // A call without a waiter is not given up, but it counts as unanswered.
    assert!(tokio::time::timeout(Duration::ZERO, store.get("never")).await.is_err());
    assert_eq!(store.get("fine").await.unwrap(), None);
    store.close().await.unwrap();
    // Answered calls are removed slightly later.
    assert_eq!(until(&plugin, |faults| faults.unanswered == 2).await.given_up, 1);
}

/// The outcome of an append past its deadline is unknown until the append ends, so the store is unhealthy until then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_append() {
    let plugin = load("late-append", SHORT);
    let store = event(&plugin).await;
    store.health().await.unwrap();
    let late = store.append(&[any("later", "a")], false).await;
    assert_error(late.unwrap_err(), ErrorKind::Uncertain, "did not respond to the call within 1s");
    let message = "an append that timed out is still running";
    assert_error(store.health().await.unwrap_err(), ErrorKind::Unavailable, message);
    assert_eq!(store.holder("release").await.unwrap(), None);
    until(&plugin, |faults| faults.unanswered == 0).await;
    store.health().await.unwrap();
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn functions_that_throw() {
    let plugin = load("throws", LONG);
    let store = secure(&plugin).await;
    let message = "the plugin `h` panicked or threw an exception";
    for _ in 0..20 {
        assert_error(store.get("throw").await.unwrap_err(), ErrorKind::Unexpected, message);
    }
    assert_error(store.put("throw", b"", None).await.unwrap_err(), ErrorKind::Uncertain, message);
    // The call was answered before the exception, so it counts as answered.
    assert_eq!(store.get("twice throw").await.unwrap(), None);
    until(&plugin, |faults| faults.thrown == 22).await;
    store.close().await.unwrap();
}

/// The function blocks one runtime thread: the other thread continues, and so do all timers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_that_does_not_return() {
    for name in ["block", "answer-first"] {
        let plugin = load(name, SHORT);
        let store = secure(&plugin).await;
        let shared = Arc::clone(&store);
        let call = move |name: &'static str| {
            let store = Arc::clone(&shared);
            tokio::spawn(async move { store.get(name).await })
        };
        // Make the method count as quick.
        for _ in 0..20 {
            call("fine").await.unwrap().unwrap();
        }
        until(&plugin, |faults| faults.unanswered == 0).await;
        let blocked = call(name);
        until(&plugin, |faults| faults.unanswered == 1).await;
        let other = call.clone();
        let others = async move {
            for _ in 0..20 {
                tokio::time::sleep(Duration::from_millis(1)).await;
                other("fine").await.unwrap().unwrap();
            }
        };
        tokio::time::timeout(LONG, tokio::spawn(others)).await.unwrap().unwrap();
        match (name, blocked.await.unwrap()) {
            ("answer-first", result) => assert_eq!(result.unwrap(), None),
            (_, result) => {
                let message = "the plugin `h` did not return from the call within 1s";
                assert_error(result.unwrap_err(), ErrorKind::Unavailable, message);
            }
        }
        until(&plugin, |faults| faults.stuck == 1).await;
        call("release").await.unwrap().unwrap();
        until(&plugin, |faults| faults.stuck == 0 && faults.unanswered == 0).await;
        store.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn functions_that_hold_all_threads() {
    let plugin = load("exhausted", VERY_SHORT);
    let store = secure(&plugin).await;
    let refused = loop {
        let calls: Vec<_> = (0..32)
            .map(|_| {
                let store = Arc::clone(&store);
                tokio::spawn(async move { store.put("block", b"", None).await.unwrap_err() })
            })
            .collect();
        let mut refused = None;
        for call in calls {
            let error = call.await.unwrap();
            // A call that got no thread has changed nothing.
            match error.to_string().contains("did not return from the call") {
                true => assert_eq!(error.kind(), ErrorKind::Uncertain),
                false => assert_eq!(error.kind(), ErrorKind::Unavailable),
            }
            refused = Some(error).filter(|error| error.to_string().contains("cannot be called")).or(refused);
        }
        if let Some(refused) = refused {
            break refused;
        }
    };
    let message = "the plugin `h` cannot be called: 64 of its calls did not return, so it gets no more threads";
    assert_error(refused, ErrorKind::Unavailable, message);
    // Another plugin has its own threads, and so does the same file when it is loaded again.
    let other = load("exhausted", LONG);
    secure(&other).await.get("release").await.unwrap();
    until(&plugin, |faults| faults.stuck == 0 && faults.unanswered == 0).await;
    // The threads are available again.
    secure(&plugin).await.close().await.unwrap();
    store.close().await.unwrap();
}

/// On a runtime with one thread, no call runs on the caller's thread.
#[tokio::test]
async fn a_runtime_with_one_thread() {
    let plugin = load("one-thread", SHORT);
    let store = secure(&plugin).await;
    for _ in 0..20 {
        store.get("fine").await.unwrap();
    }
    assert_error(store.get("block").await.unwrap_err(), ErrorKind::Unavailable, "did not return from the call");
    store.get("release").await.unwrap();
    until(&plugin, |faults| faults.stuck == 0).await;
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_plugin_does_not_bring() {
    let plugin = load("absent", LONG);
    let open = |driver, store| plugin.open(driver, store, OpenContext::new(Map::new(), "."));
    let error = open(0, Store::Model).await.err().unwrap();
    assert_error(error, ErrorKind::Unsupported, "the driver `h` provides no model storage");
    assert_error(open(1, Store::Secure).await.err().unwrap(), ErrorKind::Invalid, "has no driver 1");
}

/// A read that waits for events ends when it is dropped, and its waiting time does not count towards its deadline.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_and_cancelling() {
    let plugin = Plugin::load(&driver_file("memory"), Deadlines { call: SHORT, whole: LONG }).unwrap();
    let store = event(&plugin).await;
    let query = EventQuery { after: 0, limit: 1, filter: EventFilter::default() };
    let page = store.read(&query, Some(2 * SHORT)).await.unwrap();
    assert!(page.events.is_empty());
    until(&plugin, |faults| faults.unanswered == 0).await;
    let waiting = tokio::spawn({
        let (store, query) = (Arc::clone(&store), query.clone());
        async move { store.read(&query, Some(LONG)).await }
    });
    until(&plugin, |faults| faults.unanswered == 1).await;
    waiting.abort();
    until(&plugin, |faults| faults.unanswered == 0).await;
    assert_eq!(plugin.faults(), Faults::default());
    store.close().await.unwrap();
}

/// The resources of a dropped store are released.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_store_is_closed() {
    let plugin = Plugin::load(&driver_file("sqlite"), Deadlines::default()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut settings = Map::new();
    settings.insert("path".into(), "events.db".into());
    let open = || plugin.open(0, Store::Event, OpenContext::new(settings.clone(), folder.path()));
    let first = open().await.unwrap();
    open().await.map(|_| ()).unwrap_err();
    drop(first);
    until(&plugin, |faults| faults.unanswered == 0).await;
    let Opened::Event(again) = open().await.unwrap() else { panic!("event storage was opened") };
    again.close().await.unwrap();
}
