//! The engine on its embedded stores: what needs no HTTP and no hook to be seen.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt;
use serde_json::{Value, json};
use snaphook_driver::{EventFilter, EventKind, EventQuery, Json};

use super::command::{Defined, DryRun, InstanceChange, Origin, Precondition, Seen, WriteOptions, Written};
use super::testing::{Bench, bench, bench_with, eventually, input};
use super::{At, ErrorKind, QueryInput};
use crate::config::Phase;
use crate::hooks::context::Outcome;

#[tokio::test]
async fn a_life() {
    let bench = bench().await;
    bench.model("m", input(json!({"a": {"type": "integer"}, "b": {"default": "x"}}), &[])).await.unwrap();
    let Written::Created(created) = bench.create("one", json!({"a": 1})).await.unwrap() else { panic!() };
    assert_eq!((created.revision, created.data.as_str()), (1, r#"{"a":1,"b":"x"}"#));
    assert_eq!(bench.create("one", json!({"a": 1})).await.unwrap_err().kind, ErrorKind::Exists);
    assert_eq!(bench.create("two", json!({"a": "1"})).await.unwrap_err().errors[0].pointer, "/data/a");

    let patch =
        InstanceChange::Patch { id: "one".to_owned(), patch: Json::trusted(r#"{"a":9007199254740993,"b":null}"#) };
    let Written::Updated(updated) = bench.write(patch.clone(), WriteOptions::default()).await.unwrap() else {
        panic!()
    };
    assert_eq!((updated.revision, updated.data.as_str()), (2, r#"{"a":9007199254740993}"#));
    let stale =
        WriteOptions { precondition: Precondition::At(vec![Seen::instance(&created)]), ..WriteOptions::default() };
    assert_eq!(bench.write(patch, stale).await.unwrap_err().kind, ErrorKind::PreconditionFailed);

    bench.write(InstanceChange::Delete { id: "one".to_owned() }, WriteOptions::default()).await.unwrap();
    assert_eq!(bench.engine.history.get("m", "one").await.unwrap_err().kind, ErrorKind::NotFound);
    let then = bench.engine.history.get_at("m", "one", At::Position(created.position)).await.unwrap();
    assert_eq!(then, created);
    assert_eq!(bench.engine.history.instance_events("m", "one", 0, 10).await.unwrap().events.len(), 3);

    // After its end the id is free again, and starts over.
    let Written::Created(again) = bench.create("one", json!({})).await.unwrap() else { panic!() };
    assert_eq!(again.revision, 1);
    bench.engine.close(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn unique_values_move_with_the_model() {
    let bench = bench().await;
    let properties = json!({"email": {}, "mail": {}, "n": {}});
    bench.model("m", input(properties.clone(), &["email"])).await.unwrap();
    bench.create("a", json!({"email": "x", "n": 1})).await.unwrap();
    let taken = bench.create("b", json!({"email": "x"})).await.unwrap_err();
    assert_eq!((taken.kind, taken.errors[0].pointer.as_str()), (ErrorKind::NotUnique, "/data/email"));
    bench.create("b", json!({"email": "y", "n": 1})).await.unwrap();

    // `n` is not unique among what is there.
    let refused = bench.update("m", input(properties.clone(), &["email", "n"])).await.unwrap_err();
    assert_eq!((refused.kind, refused.errors.len()), (ErrorKind::Incompatible, 1));

    // Without the list the value is free; with it again, what is there counts.
    bench.update("m", input(properties.clone(), &[])).await.unwrap();
    bench.create("c", json!({"email": "x"})).await.unwrap();
    assert_eq!(
        bench.update("m", input(properties.clone(), &["email"])).await.unwrap_err().kind,
        ErrorKind::Incompatible
    );
    bench.write(InstanceChange::Delete { id: "c".to_owned() }, WriteOptions::default()).await.unwrap();
    bench.update("m", input(properties, &["email"])).await.unwrap();
    assert_eq!(bench.create("d", json!({"email": "y"})).await.unwrap_err().kind, ErrorKind::NotUnique);

    // A rename takes the values along.
    let mut renamed = input(json!({"address": {}, "mail": {}, "n": {}}), &["address"]);
    renamed.renames = vec![("email".to_owned(), "address".to_owned())];
    bench.update("m", renamed).await.unwrap();
    assert_eq!(bench.data("a").await, r#"{"address":"x","n":1}"#);
    assert_eq!(bench.create("d", json!({"address": "y"})).await.unwrap_err().kind, ErrorKind::NotUnique);
    bench.engine.definitions.delete("m", true, &WriteOptions::default(), &Origin::default()).await.unwrap();
    bench.model("m", input(json!({"address": {}}), &["address"])).await.unwrap();
    bench.create("z", json!({"address": "x"})).await.unwrap();
}

#[tokio::test]
async fn an_idempotency_key_gives_the_first_answer() {
    let bench = bench().await;
    bench.model("m", input(json!({"n": {}}), &[])).await.unwrap();
    let options = || WriteOptions { idempotency_key: Some("k".to_owned()), ..WriteOptions::default() };
    let change = |n: u32| InstanceChange::Create { id: None, data: Json::from_value(&json!({"n": n})) };
    let all = futures::future::join_all((0..8).map(|_| bench.write(change(1), options()))).await;
    let answers: Vec<String> = all.into_iter().map(|answer| format!("{:?}", answer.unwrap())).collect();
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
    assert_eq!(bench.engine.history.query_and_count("m", &QueryInput::default()).await.unwrap().1, 1);
    // Another request, however it meets the first.
    let all = futures::future::join_all((0..8).map(|n| bench.write(change(n), options()))).await;
    for (n, answer) in all.into_iter().enumerate() {
        match answer {
            Ok(_) => assert_eq!(n, 1),
            Err(error) => assert_eq!(error.kind, ErrorKind::KeyReused, "{error}"),
        }
    }
    assert_eq!(bench.engine.history.query_and_count("m", &QueryInput::default()).await.unwrap().1, 1);
}

#[tokio::test]
async fn of_two_requests_in_flight_with_one_key_one_is_written() {
    let bench = bench().await;
    bench.model("m", input(json!({}), &[])).await.unwrap();
    // Both have passed their pre hooks before either is written.
    meet(&bench).await;
    let options = || WriteOptions { idempotency_key: Some("k".to_owned()), ..WriteOptions::default() };
    let change = |data: &str| InstanceChange::Create { id: None, data: Json::trusted(data) };
    let (a, b) = tokio::join!(bench.write(change("{\"a\":1}"), options()), bench.write(change("{\"a\":2}"), options()));
    let error = match (a, b) {
        (Ok(_), Err(error)) | (Err(error), Ok(_)) => error,
        other => panic!("{other:?}"),
    };
    assert_eq!(error.kind, ErrorKind::KeyReused, "{error}");
    assert_eq!(bench.engine.history.query_and_count("m", &QueryInput::default()).await.unwrap().1, 1);
}

#[tokio::test]
async fn patches_of_different_properties_all_count() {
    let bench = bench().await;
    bench.model("m", input(json!({}), &[])).await.unwrap();
    bench.create("one", json!({})).await.unwrap();
    let patches = (0..16).map(|n| {
        let patch = Json::from_value(&json!({format!("p{n}"): n}));
        bench.write(InstanceChange::Patch { id: "one".to_owned(), patch }, WriteOptions::default())
    });
    let done = futures::future::join_all(patches).await.into_iter().filter(Result::is_ok).count();
    let data: Value = snaphook_driver::json::parse(&bench.data("one").await).unwrap();
    assert_eq!(data.as_object().unwrap().len(), done);
    assert_eq!(bench.engine.history.get("m", "one").await.unwrap().revision as usize, done + 1);
}

#[tokio::test]
async fn a_follower_misses_nothing_and_sees_nothing_twice() {
    let bench = bench().await;
    bench.model("m", input(json!({}), &[])).await.unwrap();
    let filter = EventFilter { kinds: vec![EventKind::InstanceCreated], ..EventFilter::default() };
    let follow = |after| bench.engine.history.follow(EventQuery { after, limit: 1, filter: filter.clone() });
    let mut first = follow(0);
    for n in 0..100 {
        bench.create(&format!("i{n}"), json!({})).await.unwrap();
    }
    let mut seen = Vec::new();
    while seen.len() < 50 {
        seen.push(first.next().await.unwrap().unwrap().position);
    }
    let mut second = follow(seen[49]);
    while seen.len() < 100 {
        seen.push(second.next().await.unwrap().unwrap().position);
    }
    assert!(seen.windows(2).all(|pair| pair[0] < pair[1]));
    bench.engine.close(Duration::from_secs(1)).await;
    assert!(second.next().await.is_none());
}

#[tokio::test]
async fn a_rebuild_gives_the_same_instances() {
    let bench = bench().await;
    bench.model("m", input(json!({"a": {}}), &[])).await.unwrap();
    for n in 0..50 {
        bench.create(&format!("i{n}"), json!({"a": n})).await.unwrap();
    }
    let mut renamed = input(json!({"b": {"default": 7}, "c": {}}), &[]);
    renamed.renames = vec![("a".to_owned(), "c".to_owned())];
    bench.update("m", renamed).await.unwrap();
    bench.write(InstanceChange::Delete { id: "i3".to_owned() }, WriteOptions::default()).await.unwrap();
    let list = QueryInput { limit: Some(100), ..QueryInput::default() };
    let before = bench.engine.history.query("m", &list).await.unwrap();
    bench.engine.operations.start_rebuild().await.unwrap();
    while bench.engine.operations.rebuild_progress().state == "running" {
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.engine.operations.rebuild_progress().state, "done");
    assert_eq!(bench.engine.history.query("m", &list).await.unwrap(), before);
    assert_eq!(before.items.len(), 49);
    assert_eq!(bench.engine.history.model_version("m", 1).await.unwrap().version, 1);
}

#[tokio::test]
async fn a_model_store_that_fails_is_out_of_service_until_it_has_caught_up() {
    let bench = bench().await;
    bench.model("m", input(json!({}), &[])).await.unwrap();
    bench.store.fails.store(true, Ordering::Relaxed);
    // Durable, and so acknowledged.
    assert!(matches!(bench.create("one", json!({})).await.unwrap(), Written::Created(_)));
    assert_eq!(bench.engine.history.get("m", "one").await.unwrap_err().kind, ErrorKind::Unavailable);
    assert_eq!(bench.create("two", json!({})).await.unwrap_err().kind, ErrorKind::Unavailable);
    bench.store.fails.store(false, Ordering::Relaxed);
    // Nothing is written meanwhile.
    eventually("it catches up by itself", || async { bench.engine.history.get("m", "one").await.ok() }).await;
    bench.create("two", json!({})).await.unwrap();
}

#[tokio::test]
async fn a_failed_change_of_a_model_is_caught_up_too() {
    let bench = bench().await;
    bench.model("m", input(json!({}), &[])).await.unwrap();
    bench.store.fails.store(true, Ordering::Relaxed);
    bench.update("m", input(json!({"a": {}}), &[])).await.unwrap();
    assert_eq!(bench.create("one", json!({})).await.unwrap_err().kind, ErrorKind::Unavailable);
    bench.store.fails.store(false, Ordering::Relaxed);
    eventually("it catches up by itself", || async { bench.create("one", json!({})).await.ok() }).await;
}

#[tokio::test]
async fn after_a_failed_rebuild_the_store_stays_out_of_service() {
    let bench = bench().await;
    bench.model("m", input(json!({}), &[])).await.unwrap();
    bench.create("one", json!({})).await.unwrap();
    bench.store.fails.store(true, Ordering::Relaxed);
    bench.engine.operations.start_rebuild().await.unwrap();
    eventually("the rebuild ends", || async {
        (bench.engine.operations.rebuild_progress().state == "failed").then_some(())
    })
    .await;
    assert_eq!(bench.engine.history.get("m", "one").await.unwrap_err().kind, ErrorKind::Unavailable);
    bench.store.fails.store(false, Ordering::Relaxed);
    eventually("it catches up by itself", || async { bench.engine.history.get("m", "one").await.ok() }).await;
}

/// Two changes that both pass their pre hooks before one of them is written.
async fn meet(bench: &Bench) {
    let barrier = Arc::new(tokio::sync::Barrier::new(2));
    bench.code("meet", move |_, _| {
        let barrier = Arc::clone(&barrier);
        async move {
            barrier.wait().await;
            Outcome::Accept
        }
    });
    bench.bind(Phase::PreCreate, &[("h", "meet")]).await;
}

#[tokio::test]
async fn a_default_cannot_break_uniqueness() {
    let bench = bench().await;
    bench.model("m", input(json!({"code": {}}), &["code"])).await.unwrap();
    bench.create("a", json!({})).await.unwrap();
    let with_default = || input(json!({"code": {"default": "x"}}), &["code"]);
    bench.create("b", json!({})).await.unwrap();
    assert_eq!(bench.update("m", with_default()).await.unwrap_err().kind, ErrorKind::Incompatible);
    bench.write(InstanceChange::Delete { id: "b".to_owned() }, WriteOptions::default()).await.unwrap();
    bench.update("m", with_default()).await.unwrap();
    assert_eq!(bench.data("a").await, r#"{"code":"x"}"#);
    assert_eq!(bench.create("c", json!({})).await.unwrap_err().kind, ErrorKind::NotUnique);
}

#[tokio::test]
async fn no_way_leads_to_an_instance_that_is_too_large() {
    let bench = bench().await;
    bench.model("m", input(json!({}), &[])).await.unwrap();
    let part = |name: &str| json!({name: "x".repeat(5 * 1024 * 1024)});
    bench.create("one", part("a")).await.unwrap();
    let patch = InstanceChange::Patch { id: "one".to_owned(), patch: Json::from_value(&part("b")) };
    assert_eq!(bench.write(patch, WriteOptions::default()).await.unwrap_err().kind, ErrorKind::TooLarge);
    let both = json!({"a": part("a"), "b": part("b")});
    assert_eq!(bench.create("two", both).await.unwrap_err().kind, ErrorKind::TooLarge);
}

#[tokio::test]
async fn a_key_that_was_used_makes_a_dry_run_of_nothing() {
    let bench = bench().await;
    bench.model("m", input(json!({}), &[])).await.unwrap();
    let options = WriteOptions { idempotency_key: Some("k".to_owned()), ..WriteOptions::default() };
    let change = InstanceChange::Create { id: None, data: Json::trusted("{}") };
    bench.write(change.clone(), options.clone()).await.unwrap();
    let tried = bench.write(change, WriteOptions { dry_run: true, ..options }).await.unwrap();
    assert!(matches!(tried, Written::DryRun(DryRun { event: None, .. })), "{tried:?}");
}

#[tokio::test]
async fn of_two_with_the_same_old_key_one_creates() {
    let bench = bench().await;
    bench.model("m", input(json!({}), &[])).await.unwrap();
    let options = || WriteOptions { idempotency_key: Some("k".to_owned()), ..WriteOptions::default() };
    let change = || InstanceChange::Create { id: None, data: Json::trusted("{}") };
    let id = |written| match written {
        Written::Created(instance) => instance.id,
        other => panic!("{other:?}"),
    };
    let first = id(bench.write(change(), options()).await.unwrap());
    bench.events.aged.store(bench.engine.history.head(), Ordering::Relaxed);
    meet(&bench).await;
    let (a, b) = tokio::join!(bench.write(change(), options()), bench.write(change(), options()));
    let (a, b) = (id(a.unwrap()), id(b.unwrap()));
    assert_eq!(a, b);
    assert_ne!(a, first);
    assert_eq!(bench.engine.history.query_and_count("m", &QueryInput::default()).await.unwrap().1, 2);
}

#[tokio::test]
async fn who_asked_for_absence_and_comes_second_is_told_so() {
    let bench = bench().await;
    bench.model("m", input(json!({}), &[])).await.unwrap();
    meet(&bench).await;
    let make = || {
        let change = InstanceChange::Create { id: Some("one".to_owned()), data: Json::trusted("{}") };
        bench.write(change, WriteOptions { precondition: Precondition::Absent, ..WriteOptions::default() })
    };
    let (a, b) = tokio::join!(make(), make());
    let error = a.and(b).unwrap_err();
    assert_eq!(error.kind, ErrorKind::PreconditionFailed);
}

#[tokio::test]
async fn renames_that_were_carried_out_change_nothing() {
    let bench = bench().await;
    bench.model("m", input(json!({"a": {}, "x": {}, "y": {}}), &[])).await.unwrap();
    bench.create("one", json!({"a": 1, "x": 2, "y": 3})).await.unwrap();
    let renamed = |renames: &[(&str, &str)]| {
        let mut input = input(json!({"b": {}, "x": {}, "y": {}}), &[]);
        input.renames = renames.iter().map(|(old, new)| ((*old).to_owned(), (*new).to_owned())).collect();
        input
    };
    for _ in 0..2 {
        assert_eq!(bench.update("m", renamed(&[("a", "b")])).await.unwrap(), 2);
    }
    // The answer was lost, and nobody wants the values to change places twice.
    for _ in 0..2 {
        assert_eq!(bench.update("m", renamed(&[("x", "y"), ("y", "x")])).await.unwrap(), 3);
    }
    assert_eq!(bench.data("one").await, r#"{"b":1,"y":2,"x":3}"#);
}

#[tokio::test]
async fn a_model_that_is_to_be_made_has_no_etag() {
    let bench = bench().await;
    bench.model("n", input(json!({}), &[])).await.unwrap();
    for (id, precondition) in [("m", Precondition::Exists), ("n", Precondition::Absent)] {
        let options = WriteOptions { precondition, ..WriteOptions::default() };
        let made = bench.engine.definitions.create(id, input(json!({}), &[]), &options, &Origin::default()).await;
        assert_eq!(made.unwrap_err().kind, ErrorKind::PreconditionFailed);
    }
}

#[tokio::test]
async fn other_models_are_written_to_while_one_is_deleted() {
    let bench = bench().await;
    bench.model("m", input(json!({}), &[])).await.unwrap();
    bench.model("n", input(json!({}), &[])).await.unwrap();
    for n in 0..35 {
        bench.create(&format!("i{n}"), json!({})).await.unwrap();
    }
    // While the first instances are deleted, an instance of the other model waits to be written.
    let (engine, runtime) = (Arc::clone(&bench.engine), tokio::runtime::Handle::current());
    let (sender, writing) = tokio::sync::oneshot::channel();
    let sender = std::sync::Mutex::new(Some(sender));
    *bench.store.applied.lock().unwrap() = Some(Box::new(move |events| {
        let Some(sender) = sender.lock().unwrap().take_if(|_| events[0].kind == EventKind::InstanceDeleted) else {
            return;
        };
        let writer = Arc::clone(&engine);
        let written = runtime.spawn(async move {
            let change = InstanceChange::Create { id: None, data: Json::trusted("{}") };
            writer.writes.change("n", change, &WriteOptions::default(), &Origin::default()).await
        });
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        while engine.core.committer.waiting() == 0 && std::time::Instant::now() < deadline {
            std::thread::yield_now();
        }
        let _ = sender.send(written);
    }));
    let (options, origin) = (WriteOptions::default(), Origin::default());
    let deletion = bench.engine.definitions.delete("m", true, &options, &origin);
    let (deleted, writing) = tokio::join!(deletion, writing);
    assert!(matches!(deleted.unwrap(), Defined::Done(())));
    let Written::Created(written) = writing.unwrap().await.unwrap().unwrap() else { panic!() };
    assert!(
        written.position < bench.engine.history.head() - 20,
        "{} of {}",
        written.position,
        bench.engine.history.head()
    );
    assert_eq!(bench.engine.definitions.get("m").unwrap_err().kind, ErrorKind::NotFound);
}

#[tokio::test]
async fn the_code_of_a_hook_is_prepared_once() {
    let bench = bench().await;
    bench.model("m", input(json!({}), &[])).await.unwrap();
    bench.code("accept", |_, _| async { Outcome::Accept });
    bench.bind(Phase::PreCreate, &[("h", "accept")]).await;
    bench.create("one", json!({})).await.unwrap();
    assert_eq!(bench.closures.prepared.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn amended_data_that_does_not_fit_is_a_failure_also_for_one_who_only_looks_on() {
    let bench = bench_with("[[grants]]\nmodel = '*'\nphase = '*'\nhook = '*'\namend = true\n").await;
    bench.model("m", input(json!({"n": {"type": "integer"}}), &[])).await.unwrap();
    bench.code("amend", |_, _| async { Outcome::Amend(Json::trusted(r#"{"n":"x"}"#)) });
    for (shadow, refused) in [(true, false), (false, true)] {
        bench.bind_as(Phase::PreCreate, &[("h", "amend")], shadow).await;
        let written = bench.create(if shadow { "one" } else { "two" }, json!({"n": 1})).await;
        assert_eq!(written.is_err_and(|error| error.kind == ErrorKind::HookFailed), refused);
        let stats = &bench.engine.deliveries.hook_stats("m", Phase::PreCreate).unwrap()[0];
        let failures = if shadow { &stats["shadow"]["failures"] } else { &stats["failures"]["amend"] };
        assert_eq!((failures, &stats["amendments"], &stats["shadow"]["amendments"]), (&json!(1), &json!(0), &json!(0)));
    }
}
