//! The committer and drivers that break their word: nobody waits for ever, nothing is lost, nothing is seen twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt;
use serde_json::json;
use snaphook_driver::{ErrorKind as DriverErrorKind, EventFilter, EventQuery, EventStore as _, Json};

use super::command::{InstanceChange, Origin, WriteOptions, Written};
use super::testing::{AppendFault, Bench, bench, eventually, input};
use super::troubles::Part;
use super::{ErrorKind, QueryInput};
use crate::config::Phase;
use crate::hooks::context::Outcome;

/// More than a working store ever takes.
const PATIENCE: Duration = Duration::from_secs(20);

async fn ready(bench: &Bench) {
    eventually("the server is ready", || async {
        bench.engine.operations.readiness().await.stores.is_empty().then_some(())
    })
    .await;
}

/// Does something while appends fail, until the server shows that they do.
async fn during<T>(bench: &Bench, fault: AppendFault, work: impl Future<Output = T>) -> T {
    *bench.events.fault.lock().unwrap() = Some(fault);
    let ended = async {
        eventually("the fault shows", || async { bench.engine.core.troubles.has(Part::Append).then_some(()) }).await;
        let stores = bench.engine.operations.readiness().await.stores;
        assert!(stores.iter().any(|fault| fault.store == "event"), "{fault:?}: {stores:?}");
        // What else is to be written meanwhile does not wait, and is not written.
        let other = bench.model("other", input(json!({}), &[])).await.unwrap_err();
        assert_eq!(other.kind, ErrorKind::Storage, "{fault:?}");
        assert!(other.detail.contains("nothing was written"), "{fault:?}: {other}");
        *bench.events.fault.lock().unwrap() = None;
    };
    let answered = tokio::time::timeout(PATIENCE, async { tokio::join!(work, ended) }).await;
    answered.unwrap_or_else(|_| panic!("{fault:?} is never answered")).0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_became_of_an_append_that_failed_is_learned_before_it_is_answered() {
    let bench = bench().await;
    bench.model("m", input(json!({"n": {}}), &[])).await.unwrap();
    let filter = EventFilter { model: Some("m".to_owned()), ..EventFilter::default() };
    let mut follower = bench.engine.history.follow(EventQuery { after: 0, limit: 1000, filter });
    let mut expected = 0;
    let mut number = 0;
    for stored in [false, true] {
        for fault in [
            AppendFault::Panic { stored },
            AppendFault::Short { stored },
            AppendFault::Error { kind: DriverErrorKind::Uncertain, stored },
            AppendFault::Error { kind: DriverErrorKind::Unexpected, stored },
        ] {
            number += 1;
            let (id, name) = (format!("i{number}"), format!("{fault:?}"));
            match during(&bench, fault, bench.create(&id, json!({"n": number}))).await {
                Ok(Written::Created(instance)) => {
                    assert!(stored, "{name}: {instance:?}");
                    // Whoever has the answer finds what it says.
                    assert_eq!(bench.engine.history.get("m", &id).await.unwrap(), instance, "{name}");
                }
                Ok(other) => panic!("{name}: {other:?}"),
                Err(error) => {
                    assert!(!stored, "{name}: {error}");
                    assert_eq!(error.kind, ErrorKind::Storage, "{name}: {error}");
                    assert!(error.detail.contains("nothing was written"), "{name}: {error}");
                    assert!(bench.engine.history.get("m", &id).await.is_err(), "{name}");
                }
            }
            // By itself.
            ready(&bench).await;
            expected += u64::from(stored);
            bench.create(&format!("next{number}"), json!({"n": 0})).await.unwrap();
            expected += 1;
            assert_eq!(bench.engine.history.count("m", &QueryInput::default()).await.unwrap(), expected, "{name}");
        }
    }
    // Listeners got each event once and in order, also those whose append failed.
    let mut seen = Vec::new();
    while seen.len() as u64 <= expected {
        let next = tokio::time::timeout(PATIENCE, follower.next()).await.expect("an event");
        seen.push(next.unwrap().unwrap().position);
    }
    assert!(seen.windows(2).all(|pair| pair[0] < pair[1]), "{seen:?}");
    let names = bench.engine.definitions.all().iter().map(|model| model.record.id.clone()).collect::<Vec<_>>();
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
        assert_eq!(bench.engine.history.count("m", &QueryInput::default()).await.unwrap(), 0);
        assert_eq!(bench.engine.operations.readiness().await.stores[0].store, "event");
        *bench.events.fault.lock().unwrap() = None;
        ready(&bench).await;
    }
    bench.create("a", json!({})).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_store_that_panics_loses_one_model_and_nothing_else() {
    let bench = bench().await;
    bench.model("m", input(json!({"n": {}}), &[])).await.unwrap();
    *bench.store.refused.lock().unwrap() = Some("panic");
    bench.create("a", json!({"n": "panic"})).await.unwrap();
    *bench.store.refused.lock().unwrap() = None;
    let readiness = bench.engine.operations.readiness().await;
    assert_eq!((readiness.stores, readiness.models.len()), (Vec::new(), 1));
    bench.engine.close(Duration::from_secs(5)).await;
}

/// A post hook `count` that counts its runs.
fn counting(bench: &Bench) -> Arc<AtomicUsize> {
    let runs = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&runs);
    bench.code("count", move |_, _| {
        counter.fetch_add(1, Ordering::Relaxed);
        async { Outcome::Accept }
    });
    runs
}

fn post_hook() -> Vec<super::command::BindingInput> {
    let code = super::command::BindingCode::Inline(b"count".to_vec());
    vec![super::command::BindingInput {
        as_actor: false,
        origin: crate::catalog::HookOrigin::Rest,
        name: Some("count".to_owned()),
        engine: "closure".to_owned(),
        code,
        shadow: false,
        language: None,
    }]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hooks_whose_append_seemed_to_fail_are_bound_and_served() {
    for fault in [
        AppendFault::Panic { stored: true },
        AppendFault::Short { stored: true },
        AppendFault::Error { kind: DriverErrorKind::Uncertain, stored: true },
    ] {
        let bench = bench().await;
        let runs = counting(&bench);
        bench.model("m", input(json!({}), &[])).await.unwrap();
        let (options, origin) = (WriteOptions::default(), Origin::default());
        let put = bench.engine.definitions.put_hooks("m", Phase::PostCreate, post_hook(), &options, &origin);
        during(&bench, fault, put).await.unwrap_or_else(|error| panic!("{fault:?}: {error}"));
        bench.create("a", json!({})).await.unwrap();
        eventually("the hook runs", || async { (runs.load(Ordering::Relaxed) == 1).then_some(()) }).await;

        // The same for their end.
        let delete = bench.engine.definitions.delete_hooks("m", Phase::PostCreate, &options, &origin);
        during(&bench, fault, delete).await.unwrap_or_else(|error| panic!("{fault:?}: {error}"));
        assert!(bench.events.groups().await.unwrap().is_empty(), "{fault:?}");
        bench.engine.close(Duration::from_secs(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_that_hangs_keeps_nobody_waiting_and_ends_well() {
    for stored in [true, false] {
        let bench = bench().await;
        let runs = counting(&bench);
        bench.model("m", input(json!({"n": {}}), &[])).await.unwrap();
        *bench.events.fault.lock().unwrap() = Some(AppendFault::Hang { stored });
        let options = WriteOptions { idempotency_key: Some("key".to_owned()), ..WriteOptions::default() };
        let first = || InstanceChange::Create { id: Some("one".to_owned()), data: Json::trusted(r#"{"n":1}"#) };
        let hangs = bench.write(first(), options.clone());
        let (plain, origin) = (WriteOptions::default(), Origin::default());
        // What comes while it hangs: definitions, which go on with it, and a change that needs the committer before that.
        let others = async {
            eventually("the append hangs", || async { bench.engine.core.committer.stalled() }).await;
            let ready = bench.engine.operations.readiness().await.stores;
            assert!(ready.iter().any(|fault| fault.store == "event"), "{ready:?}");
            tokio::join!(
                bench.engine.definitions.put_hooks("m", Phase::PostCreate, post_hook(), &plain, &origin),
                bench.model("other", input(json!({}), &[])),
                bench.create_any(2),
            )
        };
        let answered = tokio::time::timeout(PATIENCE, async { tokio::join!(hangs, others) }).await;
        let (hung, (hooked, made, created)) = answered.unwrap_or_else(|_| panic!("callers wait for ever ({stored})"));
        let hung = hung.unwrap_err();
        assert_eq!(hung.kind, ErrorKind::Storage);
        assert!(hung.detail.contains("is not known") && hung.detail.contains("Idempotency-Key"), "{hung}");
        let kinds = [hooked.unwrap_err().kind, made.unwrap_err().kind, created.unwrap_err().kind];
        assert_eq!(kinds, [ErrorKind::Storage; 3]);
        // Who comes later does not wait at all, nor for what others hold.
        let late = bench.write(first(), options.clone()).await.unwrap_err();
        assert_eq!(late.kind, ErrorKind::Storage);
        assert!(late.detail.contains("wrote nothing"), "{late}");
        let changed = tokio::time::timeout(PATIENCE, bench.update("m", input(json!({"n": {}, "x": {}}), &[]))).await;
        assert_eq!(changed.expect("an answer").unwrap_err().kind, ErrorKind::Storage);
        let ready_now = bench.engine.operations.readiness().await.stores;
        assert!(ready_now.iter().any(|fault| fault.store == "event"), "{ready_now:?}");

        *bench.events.fault.lock().unwrap() = None;
        ready(&bench).await;
        // The truth, whichever it is.
        match stored {
            true => {
                drop(eventually("it is applied", || async { bench.engine.history.get("m", "one").await.ok() }).await)
            }
            false => assert!(bench.engine.history.get("m", "one").await.is_err()),
        }
        let again = bench.write(first(), options).await.unwrap();
        assert!(matches!(again, Written::Created(_)), "{again:?}");
        let one = bench.engine.history.get("m", "one").await.unwrap();
        assert_eq!((one.revision, one.data.as_str()), (1, r#"{"n":1}"#));
        // What was handed over went on.
        eventually("the model is made", || async { bench.engine.definitions.get("other").ok() }).await;
        eventually("the hook is bound", || async {
            (!bench.engine.definitions.get("m").unwrap().chain(Phase::PostCreate).is_empty()).then_some(())
        })
        .await;
        bench.create("two", json!({})).await.unwrap();
        eventually("the hook runs", || async { (runs.load(Ordering::Relaxed) > 0).then_some(()) }).await;
        bench.update("m", input(json!({"n": {}, "x": {}}), &[])).await.unwrap();
        bench.engine.close(Duration::from_secs(5)).await;
    }
}

/// A change whose hooks take for ever is waited for by nobody, however much is written beside it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_prepares_for_ever_holds_nobody_up() {
    let bench = bench().await;
    bench.model("m", input(json!({"n": {}}), &[])).await.unwrap();
    let preparing = bench.engine.core.committer.preparing();
    for round in 0..20 {
        // Enough at once for the committer to take it for load.
        let creates = (0..16).map(|number| {
            let (bench, id) = (&bench, format!("i{round}-{number}"));
            async move { bench.create(&id, json!({"n": number})).await }
        });
        let created = tokio::time::timeout(PATIENCE, futures::future::join_all(creates)).await;
        created.expect("answers").into_iter().for_each(|created| drop(created.unwrap()));
        let alone = tokio::time::timeout(PATIENCE, bench.create(&format!("alone{round}"), json!({"n": 0}))).await;
        alone.expect("an answer").unwrap();
    }
    drop(preparing);
    bench.engine.close(Duration::from_secs(5)).await;
}
