//! Batches: all or nothing, whatever is in the way.

use std::sync::Arc;

use serde_json::{Value, json};
use snaphook_driver::{
    ErrorKind as DriverErrorKind, EventFilter, EventKind, EventQuery, EventStore as _, Instance, Json,
};

use super::command::{Batched, InstanceChange, Operation, Origin, Precondition, Seen, WriteOptions};
use super::error::{Error, ErrorKind, Result};
use super::testing::{AppendFault, Bench, bench, bench_with, eventually, input};
use crate::config::Phase;
use crate::hooks::context::{Outcome, Rejection};

fn create(id: &str, data: Value) -> Operation {
    operation(InstanceChange::Create { id: Some(id.to_owned()), data: Json::from_value(&data) })
}

fn patch(id: &str, data: Value) -> Operation {
    operation(InstanceChange::Patch { id: id.to_owned(), patch: Json::from_value(&data) })
}

fn delete(id: &str) -> Operation {
    operation(InstanceChange::Delete { id: id.to_owned() })
}

fn operation(change: InstanceChange) -> Operation {
    Operation { model: "m".to_owned(), change, precondition: Precondition::None }
}

async fn batch(bench: &Bench, operations: Vec<Operation>) -> Result<Vec<Option<Instance>>> {
    match bench.engine.writes.batch(operations, &WriteOptions::default(), &Origin::default()).await? {
        Batched::Done { results, position } => {
            let last = results.iter().flatten().map(|instance| instance.position).max().unwrap_or(0);
            assert!(position >= last);
            Ok(results)
        }
        Batched::DryRun(_) => panic!("no dry run was asked for"),
    }
}

async fn events(bench: &Bench) -> usize {
    let filter = EventFilter {
        kinds: EventKind::ALL.into_iter().filter(|kind| kind.is_instance()).collect(),
        ..EventFilter::default()
    };
    bench.events.read(&EventQuery { after: 0, limit: 1000, filter }, None).await.unwrap().events.len()
}

#[track_caller]
fn failed(error: &Error, kind: ErrorKind, pointer: &str) {
    assert_eq!((error.kind, error.errors[0].pointer.as_str()), (kind, pointer), "{error}: {:?}", error.errors);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operations_see_each_other_and_unique_values_move() {
    let bench = bench().await;
    bench.model("m", input(json!({"n": {"type": "integer"}, "code": {}}), &["code"])).await.unwrap();
    let done = batch(
        &bench,
        vec![
            create("a", json!({"n": 1, "code": "x"})),
            patch("a", json!({"n": 2})),
            delete("a"),
            // The value is free again, and so is the id.
            create("b", json!({"code": "x"})),
            create("a", json!({"n": 3, "code": "y"})),
            patch("a", json!({"n": 4})),
        ],
    );
    let done = done.await.unwrap();
    let revisions: Vec<_> = done.iter().map(|one| one.as_ref().map(|instance| instance.revision)).collect();
    assert_eq!(revisions, [Some(1), Some(2), None, Some(1), Some(1), Some(2)]);
    for id in ["a", "b"] {
        let last = done.iter().flatten().rfind(|instance| instance.id == id).unwrap();
        assert_eq!(&bench.engine.history.get("m", id).await.unwrap(), last);
    }
    assert_eq!((bench.data("a").await.as_str(), events(&bench).await), (r#"{"n":4,"code":"y"}"#, 6));
    // Whatever fails, wherever: nothing is left, and the first one is told.
    for (operations, kind, pointer) in [
        (vec![create("c", json!({})), create("a", json!({}))], ErrorKind::Exists, "/operations/1"),
        (vec![create("c", json!({"code": "x"}))], ErrorKind::NotUnique, "/operations/0/data/code"),
        (
            vec![create("c", json!({"code": 1})), create("d", json!({"code": 1}))],
            ErrorKind::NotUnique,
            "/operations/1/data/code",
        ),
        (vec![patch("a", json!({"n": 9})), patch("b", json!({"n": "no"}))], ErrorKind::Invalid, "/operations/1/data/n"),
        (vec![create("c", json!({})), delete("c"), patch("c", json!({}))], ErrorKind::NotFound, "/operations/2"),
        (
            vec![patch("a", json!({"n": 9})), Operation { model: "x".to_owned(), ..delete("a") }],
            ErrorKind::NotFound,
            "/operations/1",
        ),
        (vec![create("c", json!({})), delete("/")], ErrorKind::BadRequest, "/operations/1"),
    ] {
        failed(&batch(&bench, operations).await.unwrap_err(), kind, pointer);
        assert_eq!(events(&bench).await, 6);
    }
    let stale = Precondition::At(vec![Seen { position: 1, version: 1 }]);
    let operations = vec![create("c", json!({})), Operation { precondition: stale, ..patch("a", json!({"n": 9})) }];
    failed(&batch(&bench, operations).await.unwrap_err(), ErrorKind::PreconditionFailed, "/operations/1");
    assert_eq!((bench.data("a").await.as_str(), events(&bench).await), (r#"{"n":4,"code":"y"}"#, 6));
    // Nobody waits for an event that never came.
    assert_eq!(bench.engine.core.tail.visible(), bench.engine.core.tail.head());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pre_hooks_see_the_earlier_operations() {
    let bench = bench_with("[[grants]]\nmodel = 'm'\nphase = 'preCreate'\nread = ['m']").await;
    bench.model("m", input(json!({"n": {"type": "integer"}}), &[])).await.unwrap();
    for n in 0..9 {
        bench.create(&format!("old{n}"), json!({"n": n * 10})).await.unwrap();
    }
    let seen: Arc<std::sync::Mutex<Vec<String>>> = Arc::default();
    bench.code("look", {
        let seen = Arc::clone(&seen);
        move |context, session| {
            let seen = Arc::clone(&seen);
            async move {
                if context.instance != "last" {
                    return Outcome::Accept;
                }
                let gone = session.read_get("m", "old3").await.unwrap();
                let new = session.read_get("m", "new").await.unwrap().unwrap();
                assert!(
                    gone.is_none() && new.contains(r#""n":35"#) && new.contains(r#""position":0"#),
                    "{gone:?} {new}"
                );
                for limit in [1, 2, 3, 100] {
                    for sort in ["n", "-n", ""] {
                        let (mut all, mut cursor) = (Vec::new(), Value::Null);
                        loop {
                            let mut query = json!({"limit": limit, "filter": {"n": {"gte": 20}}});
                            if !sort.is_empty() {
                                query["sort"] = json!(sort);
                            }
                            if !cursor.is_null() {
                                query["cursor"] = cursor;
                            }
                            let page = session.read_query("m", &query.to_string()).await.unwrap();
                            let page = snaphook_driver::json::parse(&page).unwrap();
                            let items = page["items"].as_array().unwrap();
                            assert!(items.len() <= limit && !items.is_empty());
                            all.extend(items.iter().map(|item| item["data"]["n"].as_i64().unwrap().to_string()));
                            cursor = page["next"].clone();
                            if cursor.is_null() {
                                break;
                            }
                            assert_eq!(items.len(), limit, "a page that is not the last is full");
                        }
                        seen.lock().unwrap().push(all.join(" "));
                    }
                }
                Outcome::Reject(Rejection { message: "seen".to_owned(), fields: Vec::new() })
            }
        }
    });
    bench.bind(Phase::PreCreate, &[("look", "look")]).await;
    let before = events(&bench).await;
    let operations = vec![
        create("new", json!({"n": 35})),
        create("zero", json!({"n": 1})),
        patch("old5", json!({"n": 99})),
        patch("old8", json!({"n": 5})),
        delete("old3"),
        create("last", json!({})),
    ];
    failed(&batch(&bench, operations).await.unwrap_err(), ErrorKind::Rejected, "/operations/5");
    assert_eq!(events(&bench).await, before);
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 12);
    for three in seen.chunks(3) {
        assert_eq!(three, ["20 35 40 60 70 99", "99 70 60 40 35 20", "35 20 40 99 60 70"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_became_of_a_batch_is_learned_as_a_whole() {
    let bench = bench().await;
    bench.model("m", input(json!({"n": {}}), &[])).await.unwrap();
    let mut expected = 0;
    for stored in [false, true] {
        for fault in [
            AppendFault::Short { stored },
            AppendFault::Error { kind: DriverErrorKind::Uncertain, stored },
            AppendFault::Error { kind: DriverErrorKind::Unexpected, stored },
        ] {
            *bench.events.fault.lock().unwrap() = Some(fault);
            let id = format!("{fault:?}").len() + expected;
            let (a, b) = (format!("a{id}{stored}"), format!("b{id}{stored}"));
            let operations = vec![create(&a, json!({"n": 1})), create(&b, json!({})), patch(&a, json!({"n": 2}))];
            let healed = async {
                eventually("the fault shows", || async {
                    bench.engine.core.troubles.has(super::troubles::Part::Append).then_some(())
                })
                .await;
                *bench.events.fault.lock().unwrap() = None;
            };
            let (answer, ()) = tokio::join!(batch(&bench, operations), healed);
            if stored {
                expected += 3;
                let done = answer.unwrap();
                assert_eq!(bench.engine.history.get("m", &a).await.unwrap(), *done[2].as_ref().unwrap(), "{fault:?}");
            } else {
                let error = answer.unwrap_err();
                assert!(error.kind == ErrorKind::Storage && error.detail.contains("nothing was written"), "{error}");
            }
            assert_eq!(events(&bench).await, expected, "{fault:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_key_gives_the_first_response_again() {
    let bench = bench().await;
    bench.model("m", input(json!({"n": {}}), &[])).await.unwrap();
    bench.create("old", json!({"n": 0})).await.unwrap();
    let operations =
        || vec![create("a", json!({})), patch("old", json!({"n": 1})), create("b", json!({})), delete("b")];
    let keyed = async |operations: Vec<Operation>| {
        let options = WriteOptions { idempotency_key: Some("k".to_owned()), ..WriteOptions::default() };
        match bench.engine.writes.batch(operations, &options, &Origin::default()).await? {
            Batched::Done { results, position } => Ok::<_, Error>((results, position)),
            Batched::DryRun(_) => panic!("no dry run was asked for"),
        }
    };
    // At once, and later.
    let (one, other) = tokio::join!(keyed(operations()), keyed(operations()));
    let one = one.unwrap();
    assert_eq!(other.unwrap(), one);
    bench.replace("old", json!({"n": 2})).await.unwrap();
    assert_eq!(keyed(operations()).await.unwrap(), one);
    assert_eq!(events(&bench).await, 6);
    assert_eq!(keyed(vec![create("c", json!({}))]).await.unwrap_err().kind, ErrorKind::KeyReused);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trial_tells_of_each_operation() {
    let bench = bench().await;
    bench.model("m", input(json!({"n": {}, "code": {}}), &["code"])).await.unwrap();
    let options = WriteOptions { dry_run: true, ..WriteOptions::default() };
    let tried = async |operations| bench.engine.writes.batch(operations, &options, &Origin::default()).await;
    let all = vec![create("a", json!({"code": 1})), delete("a"), create("b", json!({"code": 1}))];
    let Batched::DryRun(told) = tried(all).await.unwrap() else { panic!("only tried") };
    let kinds: Vec<_> = told.iter().map(|one| one.event.as_ref().unwrap().kind.as_str()).collect();
    assert_eq!(kinds, ["instance.created", "instance.deleted", "instance.created"]);
    let twice = vec![create("a", json!({"code": 1})), create("b", json!({"code": 1}))];
    failed(&tried(twice).await.unwrap_err(), ErrorKind::NotUnique, "/operations/1/data/code");
    assert_eq!(events(&bench).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_instances_change_together() {
    let bench = Arc::new(bench().await);
    bench.model("m", input(json!({"n": {"type": "integer", "minimum": 0}}), &[])).await.unwrap();
    bench.create("stock", json!({"n": 1000})).await.unwrap();
    bench.create("sold", json!({"n": 0})).await.unwrap();
    let number = async |bench: &Bench, id: &str| {
        let instance = bench.engine.history.get("m", id).await.unwrap();
        let n = snaphook_driver::json::parse(&instance.data).unwrap()["n"].as_i64().unwrap();
        (n, Seen { position: instance.position, version: 1 })
    };
    let writers = (0..16).map(|_| {
        let bench = Arc::clone(&bench);
        tokio::spawn(async move {
            let mut done = 0;
            for _ in 0..20 {
                let (stock, seen) = number(&bench, "stock").await;
                let (sold, also) = number(&bench, "sold").await;
                let part = |id: &str, n: i64, seen| Operation {
                    precondition: Precondition::At(vec![seen]),
                    ..patch(id, json!({"n": n}))
                };
                done += i64::from(
                    batch(&bench, vec![part("stock", stock - 1, seen), part("sold", sold + 1, also)]).await.is_ok(),
                );
            }
            done
        })
    });
    let mut done = 0;
    for writer in writers.collect::<Vec<_>>() {
        done += writer.await.unwrap();
    }
    assert!(done > 0);
    assert_eq!((number(&bench, "stock").await.0, number(&bench, "sold").await.0), (1000 - done, done));
    assert_eq!(events(&bench).await as i64, 2 + 2 * done);
}
