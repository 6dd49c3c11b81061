//! Changes of models beside everything else, on the embedded stores.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;
use snaphook_driver::Stream;

use super::super::command::{InstanceChange, Origin, WriteOptions};
use super::super::gate::{Closed, Closing};
use super::super::testing::{bench, eventually, input};
use super::super::{ErrorKind, QueryInput};
use crate::catalog::unique;

#[tokio::test]
async fn writes_wait_while_the_gate_is_closed() {
    let bench = bench().await;
    bench.model("m", input(json!({"a": {}}), &[])).await.unwrap();
    let entry = bench.engine.core.models.require("m").unwrap();
    let closed = Closed::new(&entry.gate, Closing::Change);
    let engine = Arc::clone(&bench.engine);
    let change =
        |id: &str| InstanceChange::Create { id: Some(id.to_owned()), data: snaphook_driver::Json::trusted("{}") };
    let one = change("a");
    let waiting =
        tokio::spawn(async move { engine.writes.change("m", one, &WriteOptions::default(), &Origin::default()).await });
    // Reads do not wait.
    assert_eq!(bench.engine.history.get("m", "a").await.unwrap_err().kind, ErrorKind::NotFound);
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    assert!(!waiting.is_finished());
    drop(closed);
    waiting.await.unwrap().unwrap();
    // A model that is being deleted lets nobody wait.
    let closed = Closed::new(&entry.gate, Closing::Deletion);
    assert_eq!(bench.create("b", json!({})).await.unwrap_err().kind, ErrorKind::Conflict);
    drop(closed);
    bench.create("b", json!({})).await.unwrap();
    bench.engine.close(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn keys_that_a_crash_left_are_forgotten() {
    let bench = bench().await;
    bench.model("m", input(json!({"a": {}}), &["a"])).await.unwrap();
    bench.create("one", json!({"a": 1})).await.unwrap();
    let record = bench.engine.definitions.get("m").unwrap().record.clone();
    let kept = unique::keys(&record, &json!({"a": 1}))[0].key.clone();
    let left: Vec<(String, Stream)> = (0..700)
        .map(|n| {
            (
                format!("{}{} {n}", unique::PREFIX, if n % 2 == 0 { unique::new_id() } else { "0".repeat(32) }),
                Stream::of_instance("m", "x"),
            )
        })
        .collect();
    assert!(bench.engine.core.stores.event.reserve(&left).await.unwrap().is_empty());
    let bench = bench.restart().await;
    let events = Arc::clone(&bench.engine.core.stores.event);
    eventually("the keys are forgotten", || async {
        let first = events.next_claim(unique::PREFIX).await.unwrap();
        let second = events.next_claim(&format!("{kept}!")).await.unwrap();
        let only = second.is_none_or(|key| !key.starts_with(unique::PREFIX));
        (first.as_ref() == Some(&kept) && only).then_some(())
    })
    .await;
    assert_eq!(bench.create("two", json!({"a": 1})).await.unwrap_err().kind, ErrorKind::NotUnique);
    bench.engine.close(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn a_refused_change_leaves_no_keys() {
    let bench = bench().await;
    bench.model("m", input(json!({"a": {}, "b": {"default": 0}}), &[])).await.unwrap();
    for n in 0..40 {
        bench.create(&format!("i{n}"), json!({"a": n % 39})).await.unwrap();
    }
    let error = bench.update("m", input(json!({"a": {}}), &["a"])).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Incompatible);
    assert_eq!(error.errors.len(), 1, "{error:?}");
    assert!(error.errors[0].message.contains("same value of a"), "{error:?}");
    let events = Arc::clone(&bench.engine.core.stores.event);
    eventually("no keys are left", || async {
        let first = events.next_claim(unique::PREFIX).await.unwrap();
        first.is_none_or(|key| !key.starts_with(unique::PREFIX)).then_some(())
    })
    .await;
    bench.engine.close(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn a_store_that_fails_at_the_change_catches_up() {
    let bench = bench().await;
    bench.model("m", input(json!({"a": {}}), &["a"])).await.unwrap();
    for n in 0..30 {
        bench.create(&format!("i{n}"), json!({"a": n})).await.unwrap();
    }
    bench.store.fails.store(true, Ordering::Relaxed);
    let mut renamed = input(json!({"c": {}}), &["c"]);
    renamed.renames = vec![("a".to_owned(), "c".to_owned())];
    bench.update("m", renamed).await.unwrap();
    bench.store.fails.store(false, Ordering::Relaxed);
    eventually("the store has caught up", || async { bench.engine.history.get("m", "i7").await.ok() }).await;
    assert_eq!(bench.data("i7").await, r#"{"c":7}"#);
    assert_eq!(bench.create("twin", json!({"c": 7})).await.unwrap_err().kind, ErrorKind::NotUnique);
    bench.engine.close(Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_changes_faster_than_it_is_checked_stays_as_it_is() {
    let bench = bench().await;
    bench.model("m", input(json!({"a": {}}), &[])).await.unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let writers = async {
        let mut longest = Duration::ZERO;
        while !stop.load(Ordering::Relaxed) {
            let began = std::time::Instant::now();
            let all = futures::future::join_all((0..8).map(|n| bench.create_any(n))).await;
            longest = longest.max(began.elapsed());
            for created in all {
                created.unwrap();
            }
        }
        longest
    };
    bench.store.slow_gets.store(500, Ordering::Relaxed);
    let change = async {
        let next = input(json!({"a": {}, "b": {"default": 1}}), &[]);
        let changed = tokio::time::timeout(Duration::from_secs(60), bench.update("m", next)).await;
        stop.store(true, Ordering::Relaxed);
        changed.expect("an end")
    };
    let (changed, longest) = tokio::join!(change, writers);
    assert_eq!(changed.unwrap_err().kind, ErrorKind::Conflict);
    assert!(longest < crate::engine::gate::WAIT_MAX, "writes waited {longest:?}");
    // In quiet it works.
    bench.store.slow_gets.store(0, Ordering::Relaxed);
    assert_eq!(bench.update("m", input(json!({"a": {}, "b": {"default": 1}}), &[])).await.unwrap(), 2);
    bench.engine.close(Duration::from_secs(1)).await;
}

/// Files that are applied, definitions from elsewhere, rebuilds and writes, all at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_from_everywhere_follow_each_other() {
    let bench = bench().await;
    bench.model("m", input(json!({"a": {}}), &[])).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("m")).unwrap();
    let file =
        json!({"schema": {"type": "object", "properties": {"a": {}, "file": {"default": 1}}}, "indexes": [["a"]]});
    std::fs::write(folder.path().join("m/model.json"), file.to_string()).unwrap();
    let files = async {
        for _ in 0..15 {
            match bench.engine.definitions.apply(folder.path(), &Origin::default()).await {
                Ok(_) => {}
                Err(error) => assert!(matches!(error.kind, ErrorKind::Unavailable), "{error:?}"),
            }
        }
    };
    let definitions = async {
        for n in 0..15 {
            let next = input(json!({"a": {}, format!("p{n}"): {"default": n}}), &["a"]);
            match bench.update("m", next).await {
                Ok(_) => {}
                Err(error) => assert!(matches!(error.kind, ErrorKind::Unavailable), "{error:?}"),
            }
        }
    };
    let writes = async {
        for n in 0..200 {
            match bench.create(&format!("i{n}"), json!({"a": n})).await {
                Ok(_) => {}
                Err(error) => {
                    assert!(matches!(error.kind, ErrorKind::Unavailable | ErrorKind::Conflict), "{error:?}");
                }
            }
        }
    };
    let rebuilds = async {
        for _ in 0..3 {
            bench.engine.operations.start_rebuild().await.unwrap();
            while bench.engine.operations.rebuild_progress().state == "running" {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            assert_eq!(bench.engine.operations.rebuild_progress().state, "done");
        }
    };
    tokio::join!(files, definitions, writes, rebuilds);
    let list = QueryInput { limit: Some(1000), ..QueryInput::default() };
    let before = bench.engine.history.query("m", &list).await.unwrap();
    bench.engine.operations.start_rebuild().await.unwrap();
    while bench.engine.operations.rebuild_progress().state == "running" {
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.engine.history.query("m", &list).await.unwrap(), before);
    bench.engine.close(Duration::from_secs(1)).await;
}

/// On another node a model may begin to refer to one while its instances are deleted page by page.
#[tokio::test]
async fn instances_go_with_their_model_only_while_nobody_refers_to_it() {
    let bench = bench().await;
    let definitions = &bench.engine.definitions;
    let (options, origin) = (WriteOptions::default(), Origin::default());
    let referring = || input(json!({"to": {"type": "string", "x-references": {"model": "m"}}}), &[]);
    bench.model("m", input(json!({}), &[])).await.unwrap();
    bench.model("other", referring()).await.unwrap();
    definitions.delete("other", false, &options, &origin).await.unwrap();
    bench.create("a", json!({})).await.unwrap();
    let entry = bench.engine.core.models.require("m").unwrap();
    let page =
        || definitions.delete_page(&entry.model, entry.model.record.position, bench.engine.history.head(), &origin);
    bench.model("other", referring()).await.unwrap();
    assert_eq!(page().await.unwrap_err().kind, ErrorKind::Referenced);
    definitions.delete("other", false, &options, &origin).await.unwrap();
    // One that this node did not know of: the model was told of it, and is not where it was.
    bench.model("new", referring()).await.unwrap();
    assert_eq!(page().await.unwrap_err().kind, ErrorKind::Conflict);
    bench.engine.history.get("m", "a").await.unwrap();
    definitions.delete("new", false, &options, &origin).await.unwrap();
    definitions.delete("m", true, &options, &origin).await.unwrap();
    bench.engine.close(Duration::from_secs(1)).await;
}
