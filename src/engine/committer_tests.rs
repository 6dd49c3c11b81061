//! The committer and drivers that break their word: nobody waits for ever, nothing is lost, nothing is seen twice.

use std::time::Duration;

use futures::StreamExt;
use serde_json::json;
use snaphook_driver::{ErrorKind as DriverErrorKind, EventFilter, EventQuery};

use super::testing::{AppendFault, Bench, bench, eventually, input};
use super::{ErrorKind, QueryInput};

/// More than a working store ever takes.
const PATIENCE: Duration = Duration::from_secs(20);

async fn ready(bench: &Bench) {
    eventually("the server is ready", || async { bench.engine.readiness().await.stores.is_empty().then_some(()) })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_that_fails_in_any_way_is_answered_and_the_next_one_works() {
    let bench = bench().await;
    bench.model("m", input(json!({"n": {}}), &[])).await.unwrap();
    let filter = EventFilter { model: Some("m".to_owned()), ..EventFilter::default() };
    let mut follower = bench.engine.follow(EventQuery { after: 0, limit: 1000, filter });
    let mut expected = 0;
    let mut number = 0;
    for stored in [false, true] {
        for fault in [
            AppendFault::Panic { stored },
            AppendFault::Short { stored },
            AppendFault::Error { kind: DriverErrorKind::Uncertain, stored },
            AppendFault::Error { kind: DriverErrorKind::Unexpected, stored },
        ] {
            *bench.events.fault.lock().unwrap() = Some(fault);
            number += 1;
            let (id, name) = (format!("i{number}"), format!("{fault:?}"));
            let waited = tokio::time::timeout(PATIENCE, bench.create(&id, json!({"n": number}))).await;
            let error = waited.unwrap_or_else(|_| panic!("{name} is never answered")).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Storage, "{name}: {error}");
            assert!(error.detail.contains("not known"), "{name}: {error}");
            let faults = bench.engine.readiness().await.stores;
            assert!(faults.iter().any(|fault| fault.store == "event"), "{name}: {faults:?}");
            // A change of definitions does not wait for ever either.
            let other = tokio::time::timeout(PATIENCE, bench.model("other", input(json!({}), &[]))).await;
            assert_eq!(other.expect("an answer").unwrap_err().kind, ErrorKind::Storage, "{name}");
            *bench.events.fault.lock().unwrap() = None;
            // By itself.
            ready(&bench).await;
            expected += u64::from(stored);
            assert_eq!(bench.engine.get("m", &id).await.is_ok(), stored, "{name}");
            bench.create(&format!("next{number}"), json!({"n": 0})).await.unwrap();
            expected += 1;
            assert_eq!(bench.engine.count("m", &QueryInput::default()).await.unwrap(), expected, "{name}");
        }
    }
    // Listeners got each event once and in order, also those whose append failed.
    let mut seen = Vec::new();
    while seen.len() as u64 <= expected {
        let next = tokio::time::timeout(PATIENCE, follower.next()).await.expect("an event");
        seen.push(next.unwrap().unwrap().position);
    }
    assert!(seen.windows(2).all(|pair| pair[0] < pair[1]), "{seen:?}");
    let names = bench.engine.models().iter().map(|model| model.record.id.clone()).collect::<Vec<_>>();
    assert_eq!(names, ["m"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_that_failed_cleanly_leaves_nothing() {
    let bench = bench().await;
    bench.model("m", input(json!({"n": {}}), &[])).await.unwrap();
    for kind in [DriverErrorKind::Full, DriverErrorKind::Unavailable] {
        *bench.events.fault.lock().unwrap() = Some(AppendFault::Error { kind, stored: false });
        let all = futures::future::join_all((0..50).map(|n| bench.create_any(n))).await;
        assert!(all.iter().all(|answer| answer.as_ref().unwrap_err().kind == ErrorKind::Storage));
        // Reads go on.
        assert_eq!(bench.engine.count("m", &QueryInput::default()).await.unwrap(), 0);
        assert_eq!(bench.engine.readiness().await.stores[0].store, "event");
        *bench.events.fault.lock().unwrap() = None;
        ready(&bench).await;
    }
    bench.create("a", json!({})).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_on_the_thread_fails_what_was_in_hand_and_nothing_else() {
    let bench = bench().await;
    bench.model("m", input(json!({"n": {}}), &[])).await.unwrap();
    for round in 0..3 {
        let panics = bench.engine.committer.exclusive(|_| -> () { panic!("the test wants it so") });
        let behind = bench.create_any(round);
        let (panicked, created) = tokio::time::timeout(PATIENCE, async { tokio::join!(panics, behind) }).await.unwrap();
        assert_eq!(panicked.unwrap_err().kind, ErrorKind::Storage);
        created.unwrap();
    }
    *bench.store.refused.lock().unwrap() = Some("panic");
    bench.create("a", json!({"n": "panic"})).await.unwrap();
    *bench.store.refused.lock().unwrap() = None;
    let readiness = bench.engine.readiness().await;
    assert_eq!((readiness.stores, readiness.models.len()), (Vec::new(), 1));
    bench.engine.close(Duration::from_secs(5)).await;
}
