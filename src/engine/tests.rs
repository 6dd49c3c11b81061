//! The engine on its embedded stores: what needs no HTTP and no hook to be seen.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt;
use serde_json::{Value, json};
use snaphook_driver::{EventFilter, EventKind, EventQuery, Json};

use super::command::{Change, Origin, Precondition, WriteOptions, Written};
use super::testing::{bench, eventually, input};
use super::{At, ErrorKind, QueryInput};

#[tokio::test]
async fn a_life() {
    let bench = bench().await;
    bench.model("m", input(json!({"a": {"type": "integer"}, "b": {"default": "x"}}), &[])).await.unwrap();
    let Written::Created(created) = bench.create("one", json!({"a": 1})).await.unwrap() else { panic!() };
    assert_eq!((created.revision, created.data.as_str()), (1, r#"{"a":1,"b":"x"}"#));
    assert_eq!(bench.create("one", json!({"a": 1})).await.unwrap_err().kind, ErrorKind::Exists);
    assert_eq!(bench.create("two", json!({"a": "1"})).await.unwrap_err().errors[0].pointer, "/data/a");

    let patch = Change::Patch { id: "one".to_owned(), patch: Json::trusted(r#"{"a":9007199254740993,"b":null}"#) };
    let Written::Updated(updated) = bench.write(patch.clone(), WriteOptions::default()).await.unwrap() else {
        panic!()
    };
    assert_eq!((updated.revision, updated.data.as_str()), (2, r#"{"a":9007199254740993}"#));
    let stale = WriteOptions { precondition: Precondition::At(vec![created.position]), ..WriteOptions::default() };
    assert_eq!(bench.write(patch, stale).await.unwrap_err().kind, ErrorKind::PreconditionFailed);

    bench.write(Change::Delete { id: "one".to_owned() }, WriteOptions::default()).await.unwrap();
    assert_eq!(bench.engine.get("m", "one").await.unwrap_err().kind, ErrorKind::NotFound);
    let then = bench.engine.get_at("m", "one", At::Position(created.position)).await.unwrap();
    assert_eq!(then, created);
    assert_eq!(bench.engine.instance_events("m", "one", 0, 10).await.unwrap().events.len(), 3);

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
    bench.write(Change::Delete { id: "c".to_owned() }, WriteOptions::default()).await.unwrap();
    bench.update("m", input(properties, &["email"])).await.unwrap();
    assert_eq!(bench.create("d", json!({"email": "y"})).await.unwrap_err().kind, ErrorKind::NotUnique);

    // A rename takes the values along.
    let mut renamed = input(json!({"address": {}, "mail": {}, "n": {}}), &["address"]);
    renamed.renames = vec![("email".to_owned(), "address".to_owned())];
    bench.update("m", renamed).await.unwrap();
    assert_eq!(bench.data("a").await, r#"{"address":"x","n":1}"#);
    assert_eq!(bench.create("d", json!({"address": "y"})).await.unwrap_err().kind, ErrorKind::NotUnique);
    bench.engine.delete_model("m", true, &WriteOptions::default(), &Origin::default()).await.unwrap();
    bench.model("m", input(json!({"address": {}}), &["address"])).await.unwrap();
    bench.create("z", json!({"address": "x"})).await.unwrap();
}

#[tokio::test]
async fn an_idempotency_key_gives_the_first_answer() {
    let bench = bench().await;
    bench.model("m", input(json!({"n": {}}), &[])).await.unwrap();
    let options = || WriteOptions { idempotency_key: Some("k".to_owned()), ..WriteOptions::default() };
    let change = |n: u32| Change::Create { id: None, data: Json::from_value(&json!({"n": n})) };
    let all = futures::future::join_all((0..8).map(|n| bench.write(change(n), options()))).await;
    let answers: Vec<String> = all.into_iter().map(|answer| format!("{:?}", answer.unwrap())).collect();
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
    assert_eq!(bench.engine.count("m", &QueryInput::default()).await.unwrap(), 1);
}

#[tokio::test]
async fn patches_of_different_properties_all_count() {
    let bench = bench().await;
    bench.model("m", input(json!({}), &[])).await.unwrap();
    bench.create("one", json!({})).await.unwrap();
    let patches = (0..16).map(|n| {
        let patch = Json::from_value(&json!({format!("p{n}"): n}));
        bench.write(Change::Patch { id: "one".to_owned(), patch }, WriteOptions::default())
    });
    let done = futures::future::join_all(patches).await.into_iter().filter(Result::is_ok).count();
    let data: Value = serde_json::from_str(&bench.data("one").await).unwrap();
    assert_eq!(data.as_object().unwrap().len(), done);
    assert_eq!(bench.engine.get("m", "one").await.unwrap().revision as usize, done + 1);
}

#[tokio::test]
async fn a_follower_misses_nothing_and_sees_nothing_twice() {
    let bench = bench().await;
    bench.model("m", input(json!({}), &[])).await.unwrap();
    let filter = EventFilter { kinds: vec![EventKind::InstanceCreated], ..EventFilter::default() };
    let follow = |after| bench.engine.follow(EventQuery { after, limit: 1, filter: filter.clone() });
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
    bench.write(Change::Delete { id: "i3".to_owned() }, WriteOptions::default()).await.unwrap();
    let list = QueryInput { limit: Some(100), ..QueryInput::default() };
    let before = bench.engine.query("m", &list).await.unwrap();
    bench.engine.start_rebuild().await.unwrap();
    while bench.engine.rebuild_progress().state == "running" {
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.engine.rebuild_progress().state, "done");
    assert_eq!(bench.engine.query("m", &list).await.unwrap(), before);
    assert_eq!(before.items.len(), 49);
    assert_eq!(bench.engine.model_version("m", 1).await.unwrap().version, 1);
}

#[tokio::test]
async fn a_model_store_that_fails_is_out_of_service_until_it_has_caught_up() {
    let bench = bench().await;
    bench.model("m", input(json!({}), &[])).await.unwrap();
    bench.store.fails.store(true, Ordering::Relaxed);
    // Durable, and so acknowledged.
    assert!(matches!(bench.create("one", json!({})).await.unwrap(), Written::Created(_)));
    assert_eq!(bench.engine.get("m", "one").await.unwrap_err().kind, ErrorKind::Unavailable);
    assert_eq!(bench.create("two", json!({})).await.unwrap_err().kind, ErrorKind::Unavailable);
    bench.store.fails.store(false, Ordering::Relaxed);
    // Nothing is written meanwhile.
    eventually("it catches up by itself", || async { bench.engine.get("m", "one").await.ok() }).await;
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
    bench.engine.start_rebuild().await.unwrap();
    eventually("the rebuild ends", || async { (bench.engine.rebuild_progress().state == "failed").then_some(()) })
        .await;
    assert_eq!(bench.engine.get("m", "one").await.unwrap_err().kind, ErrorKind::Unavailable);
    bench.store.fails.store(false, Ordering::Relaxed);
    eventually("it catches up by itself", || async { bench.engine.get("m", "one").await.ok() }).await;
}
