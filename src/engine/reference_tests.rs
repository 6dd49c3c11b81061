//! References: nothing refers to what does not exist, whoever writes at the same time, and what follows from a deletion is one
//! with it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use snaphook_driver::{
    Budget, Event, EventFilter, EventKind, EventQuery, EventStore as _, Instance, Json, ModelStore as _, Position,
};

use super::command::{
    Batched, Defined, Follows, InstanceChange, ModelInput, Operation, Origin, Precondition, WriteOptions, Written,
};
use super::error::{Error, ErrorKind, Result};
use super::referring::refers_to;
use super::testing::{Bench, bench, bench_with, cluster, input};
use super::writes::drafts::is_following;
use crate::catalog::references::REFERRING_MAX;
use crate::catalog::{OnDelete, Reference};
use crate::config::Phase;
use crate::hooks::context::{Outcome, Rejection};

fn to(model: &str, on_delete: &str) -> Value {
    json!({"type": ["string", "null"], "x-references": {"model": model, "on-delete": on_delete}})
}

/// A model whose instances refer to a `customer`.
pub(super) fn order(on_delete: &str) -> ModelInput {
    input(json!({"n": {}, "customer": to("customer", on_delete)}), &[])
}

async fn change(node: &Bench, model: &str, change: InstanceChange) -> Result<Written> {
    node.engine.writes.change(model, change, &WriteOptions::default(), &Origin::default()).await
}

pub(super) async fn create(node: &Bench, model: &str, id: &str, data: Value) -> Result<Written> {
    change(node, model, InstanceChange::Create { id: Some(id.to_owned()), data: Json::from_value(&data) }).await
}

pub(super) async fn replace(node: &Bench, model: &str, id: &str, data: Value) -> Result<Written> {
    let data = Json::from_value(&data);
    change(node, model, InstanceChange::Replace { id: id.to_owned(), data, create: false }).await
}

async fn patch(node: &Bench, model: &str, id: &str, patch: Value) -> Result<Written> {
    change(node, model, InstanceChange::Patch { id: id.to_owned(), patch: Json::from_value(&patch) }).await
}

pub(super) async fn delete(node: &Bench, model: &str, id: &str) -> Result<Written> {
    change(node, model, InstanceChange::Delete { id: id.to_owned() }).await
}

pub(super) async fn data(node: &Bench, model: &str, id: &str) -> Option<String> {
    node.engine.history.get(model, id).await.ok().map(|instance| instance.data.to_string())
}

fn operation(model: &str, change: InstanceChange) -> Operation {
    Operation { model: model.to_owned(), change, precondition: Precondition::None }
}

fn creation(model: &str, id: &str, data: Value) -> Operation {
    operation(model, InstanceChange::Create { id: Some(id.to_owned()), data: Json::from_value(&data) })
}

fn deletion(model: &str, id: &str) -> Operation {
    operation(model, InstanceChange::Delete { id: id.to_owned() })
}

async fn batch(node: &Bench, operations: Vec<Operation>) -> Result<Vec<Option<Instance>>> {
    match node.engine.writes.batch(operations, &WriteOptions::default(), &Origin::default()).await? {
        Batched::Done { results, .. } => Ok(results),
        Batched::DryRun(_) => panic!("no dry run was asked for"),
    }
}

#[track_caller]
fn invalid(result: Result<Written>, pointer: &str) {
    let error = result.expect_err("must be refused");
    let pointers: Vec<&str> = error.errors.iter().map(|row| row.pointer.as_str()).collect();
    assert_eq!((error.kind, &pointers[..]), (ErrorKind::Invalid, &[pointer][..]), "{error}: {:?}", error.errors);
}

#[track_caller]
pub(super) fn kind<T: std::fmt::Debug>(result: Result<T>, kind: ErrorKind) -> Error {
    let error = result.expect_err("must be refused");
    assert_eq!(error.kind, kind, "{error}");
    error
}

async fn all_events(node: &Bench) -> Vec<Event> {
    let mut query = EventQuery { after: 0, limit: 1000, filter: EventFilter::default() };
    let mut events = Vec::new();
    loop {
        let page = node.events.read(&query, None).await.unwrap();
        let next = page.next();
        events.extend(page.events);
        match next {
            Some(next) => query.after = next,
            None => return events,
        }
    }
}

/// Follows the log: after each change, and all that follows from it, everything exists that something refers to.
pub(super) async fn check_log(node: &Bench, references: &[(&str, &str, &str)]) {
    let events = all_events(node).await;
    let mut living: BTreeMap<(String, String), Value> = BTreeMap::new();
    for (index, event) in events.iter().enumerate() {
        let Some(id) = event.instance.clone().filter(|_| event.kind.is_instance()) else { continue };
        let key = (event.model.clone(), id);
        match &event.data {
            Some(data) => drop(living.insert(key, data.to_value().unwrap())),
            None => drop(living.remove(&key)),
        }
        if events.get(index + 1).is_some_and(|next| is_following(next.cause.as_ref())) {
            continue;
        }
        for ((model, id), data) in &living {
            for (_, property, target) in references.iter().filter(|(of, ..)| of == model) {
                let Some(to) = data.get(property).and_then(Value::as_str) else { continue };
                let target = ((*target).to_owned(), to.to_owned());
                assert!(living.contains_key(&target), "{model}/{id} refers to {target:?} after {event:?}");
            }
        }
    }
    // And the model store is what the log says.
    for (model, ..) in references {
        let query = super::QueryInput { limit: Some(1000), ..super::QueryInput::default() };
        let page = node.engine.history.query(model, &query).await.unwrap();
        let ids: BTreeSet<&str> = page.items.iter().map(|item| item.id.as_str()).collect();
        let expected: BTreeSet<&str> = living.keys().filter(|(of, _)| of == model).map(|(_, id)| id.as_str()).collect();
        assert_eq!(ids, expected, "{model}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reference_needs_its_target_and_holds_it() {
    let bench = bench().await;
    bench.model("customer", input(json!({"name": {}}), &[])).await.unwrap();
    bench.model("order", order("restrict")).await.unwrap();
    invalid(create(&bench, "order", "o", json!({"customer": "c"})).await, "/data/customer");
    for hostile in ["", "..", "c/../d", "a b", "$id", "c\u{0}", &"x".repeat(100_000)] {
        invalid(create(&bench, "order", "o", json!({"customer": hostile})).await, "/data/customer");
    }
    create(&bench, "customer", "c", json!({})).await.unwrap();
    create(&bench, "order", "o", json!({"customer": "c"})).await.unwrap();
    create(&bench, "order", "free", json!({"customer": null})).await.unwrap();
    invalid(replace(&bench, "order", "o", json!({"customer": "d"})).await, "/data/customer");
    invalid(patch(&bench, "order", "free", json!({"customer": "d"})).await, "/customer");
    // Changes of the target and of the rest are free.
    replace(&bench, "customer", "c", json!({"name": "x"})).await.unwrap();
    patch(&bench, "order", "o", json!({"n": 1})).await.unwrap();
    let error = kind(delete(&bench, "customer", "c").await, ErrorKind::Referenced);
    assert!(error.detail.contains("instances of `order` refer to it through `customer`"), "{error}");
    assert_eq!(error.errors.len(), 1);
    let trial = WriteOptions { dry_run: true, ..WriteOptions::default() };
    let tried = InstanceChange::Delete { id: "c".to_owned() };
    kind(bench.engine.writes.change("customer", tried, &trial, &Origin::default()).await, ErrorKind::Referenced);
    patch(&bench, "order", "o", json!({"customer": null})).await.unwrap();
    delete(&bench, "customer", "c").await.unwrap();
    kind(delete(&bench, "customer", "c").await, ErrorKind::NotFound);
    invalid(patch(&bench, "order", "o", json!({"customer": "c"})).await, "/customer");
    // An id can be used again.
    create(&bench, "customer", "c", json!({})).await.unwrap();
    patch(&bench, "order", "o", json!({"customer": "c"})).await.unwrap();
    kind(delete(&bench, "customer", "c").await, ErrorKind::Referenced);
    delete(&bench, "order", "o").await.unwrap();
    delete(&bench, "customer", "c").await.unwrap();
    check_log(&bench, &[("order", "customer", "customer")]).await;
    // What was said before the restart is known after it.
    let bench = bench.restart().await;
    invalid(create(&bench, "order", "o", json!({"customer": "c"})).await, "/data/customer");
    create(&bench, "customer", "c", json!({})).await.unwrap();
    create(&bench, "order", "o", json!({"customer": "c"})).await.unwrap();
    kind(delete(&bench, "customer", "c").await, ErrorKind::Referenced);
    bench.engine.close(Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_hooks_make_of_the_data_is_checked_too() {
    let bench = bench_with("[[grants]]\nmodel = '*'\nphase = '*'\nhook = '*'\namend = true\n").await;
    bench.model("customer", input(json!({}), &[])).await.unwrap();
    bench.model("m", order("restrict")).await.unwrap();
    bench.code("amend", |context, _| async move {
        let mut data = context.after.unwrap().to_value().unwrap();
        data["customer"] = json!("c");
        Outcome::Amend(Json::from_value(&data))
    });
    bench.bind(Phase::PreCreate, &[("h", "amend")]).await;
    invalid(create(&bench, "m", "o", json!({})).await, "/data/customer");
    create(&bench, "customer", "c", json!({})).await.unwrap();
    create(&bench, "m", "o", json!({})).await.unwrap();
    kind(delete(&bench, "customer", "c").await, ErrorKind::Referenced);
    bench.engine.close(Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn definitions_with_references_are_checked() {
    let bench = bench().await;
    let error = kind(bench.model("order", order("restrict")).await, ErrorKind::Invalid);
    assert_eq!(error.errors[0].pointer, "/schema/properties/customer/x-references/model");
    bench.model("customer", input(json!({}), &[])).await.unwrap();
    bench.model("order", input(json!({"customer": {"type": ["string", "null"]}}), &[])).await.unwrap();
    create(&bench, "customer", "c", json!({})).await.unwrap();
    for (id, customer) in [("good", json!("c")), ("bad", json!("nobody")), ("odd", json!("a b")), ("none", json!(null))]
    {
        create(&bench, "order", id, json!({ "customer": customer })).await.unwrap();
    }
    let error = kind(bench.update("order", order("restrict")).await, ErrorKind::Incompatible);
    let pointers: Vec<&str> = error.errors.iter().map(|row| row.pointer.as_str()).collect();
    assert_eq!(pointers, ["/instances/bad", "/instances/odd"], "{:?}", error.errors);
    // The model was told, but nothing refers to it yet.
    kind(
        bench.engine.definitions.delete("nobody", false, &WriteOptions::default(), &Origin::default()).await.map(drop),
        ErrorKind::NotFound,
    );
    delete(&bench, "order", "bad").await.unwrap();
    delete(&bench, "order", "odd").await.unwrap();
    bench.update("order", order("restrict")).await.unwrap();
    // What was there before holds its target, too.
    kind(delete(&bench, "customer", "c").await, ErrorKind::Referenced);
    let options = WriteOptions::default();
    for cascade in [false, true] {
        let deleted = bench.engine.definitions.delete("customer", cascade, &options, &Origin::default()).await;
        let error = kind(deleted.map(drop), ErrorKind::Referenced);
        assert!(error.detail.contains("`order`"), "{error}");
    }
    // A rename carries the reference.
    let mut renamed = input(json!({"buyer": to("customer", "restrict"), "n": {}}), &[]);
    renamed.renames = vec![("customer".to_owned(), "buyer".to_owned())];
    bench.update("order", renamed.clone()).await.unwrap();
    assert_eq!(data(&bench, "order", "good").await.unwrap(), r#"{"buyer":"c"}"#);
    kind(delete(&bench, "customer", "c").await, ErrorKind::Referenced);
    // The same again changes nothing.
    let version = bench.engine.definitions.get("order").unwrap().record.version;
    assert_eq!(bench.update("order", renamed).await.unwrap(), version);
    // Without the reference nothing is held.
    bench.update("order", input(json!({"buyer": {"type": ["string", "null"]}, "n": {}}), &[])).await.unwrap();
    delete(&bench, "customer", "c").await.unwrap();
    let deleted = bench.engine.definitions.delete("customer", false, &options, &Origin::default()).await;
    assert!(matches!(deleted.unwrap(), Defined::Done(())));
    // A model of the same name begins anew.
    bench.model("customer", input(json!({}), &[])).await.unwrap();
    create(&bench, "customer", "c", json!({})).await.unwrap();
    let mut back = input(json!({"customer": to("customer", "cascade"), "n": {}}), &[]);
    back.renames = vec![("buyer".to_owned(), "customer".to_owned())];
    bench.update("order", back).await.unwrap();
    delete(&bench, "customer", "c").await.unwrap();
    assert_eq!(data(&bench, "order", "good").await, None);
    bench.engine.close(Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletions_take_with_them_what_refers_to_it() {
    let bench = bench().await;
    bench.model("customer", input(json!({}), &[])).await.unwrap();
    bench.model("order", order("cascade")).await.unwrap();
    let lines = input(json!({"order": to("order", "cascade"), "customer": to("customer", "restrict")}), &[]);
    bench.model("line", lines).await.unwrap();
    let optional = json!({"type": "string", "x-references": {"model": "customer", "on-delete": "set-null"}});
    bench
        .model("m", input(json!({"customer": optional, "other": to("customer", "set-null"), "n": {}}), &[]))
        .await
        .unwrap();
    for customer in ["c", "d"] {
        create(&bench, "customer", customer, json!({})).await.unwrap();
    }
    for n in 0..3 {
        create(&bench, "order", &format!("o{n}"), json!({"customer": "c"})).await.unwrap();
        let line = json!({"order": format!("o{n}"), "customer": "c"});
        create(&bench, "line", &format!("l{n}"), line).await.unwrap();
    }
    create(&bench, "order", "kept", json!({"customer": "d"})).await.unwrap();
    create(&bench, "m", "note", json!({"customer": "c", "other": "c", "n": 1.5})).await.unwrap();
    // A line that another order has is still in the way.
    create(&bench, "line", "other", json!({"order": "kept", "customer": "c"})).await.unwrap();
    let head = bench.engine.history.head();
    kind(delete(&bench, "customer", "c").await, ErrorKind::Referenced);
    delete(&bench, "line", "other").await.unwrap();
    // A hook may refuse the whole.
    bench.code("refuse", |_, _| async {
        Outcome::Reject(Rejection { message: "keep it".to_owned(), fields: Vec::new() })
    });
    bench.bind(Phase::PreUpdate, &[("h", "refuse")]).await;
    let error = kind(delete(&bench, "customer", "c").await, ErrorKind::Rejected);
    assert!(error.detail.contains("`m/note`") && error.detail.contains("keep it"), "{error}");
    assert_eq!(error.hook.as_deref(), Some("h"));
    assert_eq!(bench.engine.history.head(), head + 2);
    bench.code("accept", |_, _| async { Outcome::Accept });
    bench.bind(Phase::PreUpdate, &[("h", "accept")]).await;
    let Written::Deleted(gone) = delete(&bench, "customer", "c").await.unwrap() else { panic!() };
    assert_eq!(gone.id, "c");
    assert_eq!(data(&bench, "m", "note").await.unwrap(), r#"{"other":null,"n":1.5}"#);
    for n in 0..3 {
        assert_eq!(data(&bench, "order", &format!("o{n}")).await, None);
        assert_eq!(data(&bench, "line", &format!("l{n}")).await, None);
    }
    assert!(data(&bench, "order", "kept").await.is_some());
    let events = all_events(&bench).await;
    let first = events
        .iter()
        .position(|event| event.instance.as_deref() == Some("c") && event.kind == EventKind::InstanceDeleted);
    let followed: Vec<(String, EventKind, String, u32)> = events[first.unwrap() + 1..]
        .iter()
        .map(|event| {
            let cause = event.cause.clone().unwrap();
            (event.instance.clone().unwrap(), event.kind, cause.hook, cause.depth)
        })
        .collect();
    assert_eq!(followed.len(), 8, "{followed:?}");
    let expect = |id: &str, kind, hook: &str| (id.to_owned(), kind, hook.to_owned(), 1);
    for row in [
        expect("o1", EventKind::InstanceDeleted, "customer.on-delete/cascade"),
        expect("l1", EventKind::InstanceDeleted, "order.on-delete/cascade"),
        expect("note", EventKind::InstanceUpdated, "customer.on-delete/set-null"),
    ] {
        assert!(followed.contains(&row), "{row:?} in {followed:?}");
    }
    check_log(
        &bench,
        &[
            ("order", "customer", "customer"),
            ("line", "order", "order"),
            ("line", "customer", "customer"),
            ("m", "customer", "customer"),
            ("m", "other", "customer"),
        ],
    )
    .await;
    bench.engine.close(Duration::from_secs(1)).await;
}

/// What comes while a deletion is prepared goes with it; what a pre hook keeps is in its way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_meanwhile_follows_too() {
    let bench = Arc::new(bench_with("[[grants]]\nmodel = '*'\nphase = '*'\nhook = '*'\namend = true\n").await);
    bench.model("customer", input(json!({}), &[])).await.unwrap();
    bench.model("m", order("cascade")).await.unwrap();
    create(&bench, "customer", "c", json!({})).await.unwrap();
    create(&bench, "m", "o1", json!({"customer": "c"})).await.unwrap();
    let engine = Arc::downgrade(&bench.engine);
    bench.code("another", move |_, _| {
        let engine = engine.upgrade().unwrap();
        async move {
            let data = Json::from_value(&json!({"customer": "c"}));
            let change = InstanceChange::Create { id: Some("o2".to_owned()), data };
            let made = engine.writes.change("m", change, &WriteOptions::default(), &Origin::default()).await;
            assert!(made.is_ok() || engine.history.get("m", "o2").await.is_ok());
            Outcome::Accept
        }
    });
    bench.bind(Phase::PreDelete, &[("h", "another")]).await;
    delete(&bench, "customer", "c").await.unwrap();
    for order in ["o1", "o2"] {
        assert_eq!(data(&bench, "m", order).await, None);
    }
    bench.update("m", order("set-null")).await.unwrap();
    create(&bench, "customer", "c", json!({})).await.unwrap();
    create(&bench, "m", "o1", json!({"customer": "c"})).await.unwrap();
    bench.code("keep", |context, _| async move { Outcome::Amend(context.before.unwrap()) });
    bench.bind(Phase::PreUpdate, &[("h", "keep")]).await;
    kind(delete(&bench, "customer", "c").await, ErrorKind::Referenced);
    check_log(&bench, &[("m", "customer", "customer")]).await;
    bench.engine.close(Duration::from_secs(1)).await;
}

/// A dry run says what follows, in a batch too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trial_tells_what_follows() {
    let bench = bench().await;
    bench.model("customer", input(json!({}), &[])).await.unwrap();
    bench.model("m", order("cascade")).await.unwrap();
    bench.model("note", order("set-null")).await.unwrap();
    for customer in ["c", "d"] {
        create(&bench, "customer", customer, json!({})).await.unwrap();
    }
    for n in 0..3 {
        create(&bench, "m", &format!("o{n}"), json!({"customer": "c"})).await.unwrap();
        create(&bench, "note", &format!("n{n}"), json!({"customer": if n == 0 { "c" } else { "d" }})).await.unwrap();
    }
    let trial = WriteOptions { dry_run: true, ..WriteOptions::default() };
    let tried = async |operations| {
        let made = bench.engine.writes.batch(operations, &trial, &Origin::default()).await.unwrap();
        let Batched::DryRun(trials) = made else { panic!("it was only tried") };
        trials
    };
    let follows = |model: &str, deleted, updated| Follows { model: model.to_owned(), deleted, updated };
    let both = || vec![deletion("customer", "c"), deletion("customer", "d")];
    let trials = tried(both()).await;
    assert_eq!(trials[0].follows, [follows("m", 3, 0), follows("note", 0, 1)]);
    assert_eq!(trials[1].follows, [follows("note", 0, 2)]);
    bench.code("refuse", |_, _| async {
        Outcome::Reject(Rejection { message: "keep it".to_owned(), fields: Vec::new() })
    });
    bench.bind(Phase::PreDelete, &[("h", "refuse")]).await;
    let trials = tried(both()).await;
    assert_eq!(trials.len(), 1);
    assert!(trials[0].event.is_none() && trials[0].follows.is_empty());
    assert_eq!(trials[0].hooks.last().unwrap().model.as_deref(), Some("m"));
    bench.engine.close(Duration::from_secs(1)).await;
}

/// Models that do not refer to one any more make room for others, and those that do stay known.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn models_that_are_gone_make_room() {
    let bench = bench_with("[driver-event-storage]\ndriver = 'memory'\n").await;
    bench.model("customer", input(json!({}), &[])).await.unwrap();
    bench.model("order", order("restrict")).await.unwrap();
    create(&bench, "customer", "c", json!({})).await.unwrap();
    create(&bench, "order", "o", json!({"customer": "c"})).await.unwrap();
    for n in 0..=REFERRING_MAX {
        let id = format!("x{n}");
        bench.model(&id, order("restrict")).await.unwrap();
        bench.engine.definitions.delete(&id, false, &WriteOptions::default(), &Origin::default()).await.unwrap();
    }
    kind(delete(&bench, "customer", "c").await, ErrorKind::Referenced);
    bench.engine.close(Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn circles_and_bounds() {
    let bench = bench().await;
    bench.model("m", input(json!({"parent": to("m", "cascade")}), &[])).await.unwrap();
    // Of itself, and in a circle.
    create(&bench, "m", "self", json!({"parent": "self"})).await.unwrap();
    delete(&bench, "m", "self").await.unwrap();
    create(&bench, "m", "a", json!({})).await.unwrap();
    create(&bench, "m", "b", json!({"parent": "a"})).await.unwrap();
    patch(&bench, "m", "a", json!({"parent": "b"})).await.unwrap();
    delete(&bench, "m", "b").await.unwrap();
    assert_eq!(data(&bench, "m", "a").await, None);
    // Deeper than is allowed.
    create(&bench, "m", "d0", json!({})).await.unwrap();
    for n in 1..=40 {
        create(&bench, "m", &format!("d{n}"), json!({"parent": format!("d{}", n - 1)})).await.unwrap();
    }
    let error = kind(delete(&bench, "m", "d0").await, ErrorKind::Referenced);
    assert!(error.detail.contains("more than 32 deep"), "{error}");
    delete(&bench, "m", "d8").await.unwrap();
    assert_eq!(data(&bench, "m", "d40").await, None);
    // More than are allowed.
    create(&bench, "m", "many", json!({})).await.unwrap();
    for part in 0..11 {
        let count = if part == 10 { 1 } else { 100 };
        let all = (0..count).map(|n| creation("m", &format!("x{part}-{n}"), json!({"parent": "many"})));
        batch(&bench, all.collect()).await.unwrap();
    }
    let error = kind(delete(&bench, "m", "many").await, ErrorKind::Referenced);
    assert!(error.detail.contains("more than 1000 instances"), "{error}");
    delete(&bench, "m", "x10-0").await.unwrap();
    delete(&bench, "m", "many").await.unwrap();
    check_log(&bench, &[("m", "parent", "m")]).await;
    bench.engine.close(Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operations_of_a_batch_refer_to_each_other() {
    let bench = bench().await;
    bench.model("customer", input(json!({}), &[])).await.unwrap();
    bench.model("order", order("restrict")).await.unwrap();
    let error =
        batch(&bench, vec![creation("order", "o", json!({"customer": "c"})), creation("customer", "c", json!({}))]);
    let error = kind(error.await, ErrorKind::Invalid);
    assert_eq!(error.errors[0].pointer, "/operations/0/data/customer");
    let made = || vec![creation("customer", "c", json!({})), creation("order", "o", json!({"customer": "c"}))];
    batch(&bench, made()).await.unwrap();
    let error = kind(batch(&bench, vec![deletion("order", "x"), deletion("customer", "c")]).await, ErrorKind::NotFound);
    assert_eq!(error.errors[0].pointer, "/operations/0");
    let error = kind(batch(&bench, vec![deletion("customer", "c")]).await, ErrorKind::Referenced);
    assert_eq!(error.errors[0].pointer, "/operations/0");
    // In either order, since it ends without a reference.
    batch(&bench, vec![deletion("customer", "c"), deletion("order", "o")]).await.unwrap();
    batch(&bench, made()).await.unwrap();
    batch(&bench, vec![deletion("order", "o"), deletion("customer", "c")]).await.unwrap();
    // A reference that a batch makes is not in the way of what it deletes.
    batch(&bench, made()).await.unwrap();
    create(&bench, "customer", "d", json!({})).await.unwrap();
    let moved = |to: &str| {
        let patch = Json::from_value(&json!({ "customer": to }));
        operation("order", InstanceChange::Patch { id: "o".to_owned(), patch })
    };
    batch(&bench, vec![moved("d"), deletion("order", "o"), deletion("customer", "d")]).await.unwrap();
    // Deleted and made again.
    create(&bench, "order", "o", json!({"customer": "c"})).await.unwrap();
    batch(&bench, vec![deletion("customer", "c"), creation("customer", "c", json!({}))]).await.unwrap();
    kind(delete(&bench, "customer", "c").await, ErrorKind::Referenced);
    check_log_of_batches(&bench).await;
    // With what follows: results are those of the operations, and the same key gives them again.
    bench.update("order", order("cascade")).await.unwrap();
    let options = WriteOptions { idempotency_key: Some("k".to_owned()), ..WriteOptions::default() };
    let operations = || vec![deletion("customer", "c"), creation("customer", "e", json!({}))];
    let first = bench.engine.writes.batch(operations(), &options, &Origin::default()).await.unwrap();
    let again = bench.engine.writes.batch(operations(), &options, &Origin::default()).await.unwrap();
    let (Batched::Done { results: first, .. }, Batched::Done { results: again, .. }) = (first, again) else { panic!() };
    assert_eq!(first.len(), 2);
    assert_eq!(first, again);
    assert_eq!(data(&bench, "order", "o").await, None);
    bench.engine.close(Duration::from_secs(1)).await;
}

/// In the end everything is there that something refers to.
async fn check_log_of_batches(node: &Bench) {
    let query = super::QueryInput { limit: Some(1000), ..super::QueryInput::default() };
    for order in node.engine.history.query("order", &query).await.unwrap().items {
        let order = order.data.to_value().unwrap();
        if let Some(customer) = order["customer"].as_str() {
            assert!(data(node, "customer", customer).await.is_some(), "{order}");
        }
    }
}

/// Customers made, customers deleted, customers changed, references made: how many of each a race needs.
const ENOUGH: [usize; 4] = [30, 30, 10, 60];

/// Writers on all nodes at once: references are made and moved while their targets are deleted and made again.
async fn race(nodes: Vec<Arc<Bench>>, on_delete: &str) {
    nodes[0].model("customer", input(json!({"n": {}}), &[])).await.unwrap();
    nodes[0].model("order", order(on_delete)).await.unwrap();
    let head = nodes[0].events.head().await.unwrap();
    for node in &nodes {
        node.engine.history.reached(head).await.unwrap();
    }
    let done: Arc<[AtomicUsize; 4]> = Arc::default();
    let is_over =
        |done: &[AtomicUsize; 4]| done.iter().zip(ENOUGH).all(|(done, enough)| done.load(Ordering::Relaxed) >= enough);
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut tasks = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        for task in 0..6 {
            let (node, done) = (Arc::clone(node), Arc::clone(&done));
            tasks.push(tokio::spawn(async move {
                for round in 0.. {
                    if is_over(&done) {
                        return;
                    }
                    assert!(Instant::now() < deadline, "too little happens: {done:?}");
                    let customer = format!("c{}", (round / 2 + task) % 3);
                    let id = format!("o{index}-{task}-{}", round / 2 % 2);
                    let (what, result) = match task {
                        0 | 1 => (0, create(&node, "customer", &customer, json!({"n": round})).await),
                        2 => (1, delete(&node, "customer", &customer).await),
                        3 => (2, replace(&node, "customer", &customer, json!({"n": round})).await),
                        _ if round % 2 == 1 && round % 5 != 0 => (4, delete(&node, "order", &id).await),
                        _ => match create(&node, "order", &id, json!({"customer": customer})).await {
                            Err(error) if error.kind == ErrorKind::Exists => {
                                (3, patch(&node, "order", &id, json!({"customer": customer})).await)
                            }
                            other => (3, other),
                        },
                    };
                    use ErrorKind::{Conflict, Exists, Invalid, NotFound, Referenced};
                    match result {
                        Ok(_) => drop(done.get(what).map(|done| done.fetch_add(1, Ordering::Relaxed))),
                        Err(error) => {
                            let expected = matches!(error.kind, Exists | NotFound | Invalid | Referenced | Conflict);
                            assert!(expected, "{error:?}");
                        }
                    }
                    // What fails does not wait for the disk.
                    tokio::task::yield_now().await;
                }
            }));
        }
    }
    for task in tasks {
        task.await.unwrap();
    }
    let head = nodes[0].events.head().await.unwrap();
    for node in &nodes {
        node.engine.history.reached(head).await.unwrap();
        check_log(node, &[("order", "customer", "customer")]).await;
    }
    for node in nodes {
        node.engine.close(Duration::from_secs(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_and_a_new_reference_never_both_happen() {
    let file = "[driver-event-storage]\ndriver = 'file'\npath = 'data/event'\n";
    for toml in ["", "[driver-event-storage]\ndriver = 'memory'\n", file] {
        for on_delete in ["restrict", "cascade"] {
            race(vec![Arc::new(bench_with(toml).await)], on_delete).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_do_they_on_different_nodes() {
    for on_delete in ["restrict", "set-null", "cascade"] {
        let nodes = cluster(2).await.into_iter().map(Arc::new).collect();
        race(nodes, on_delete).await;
    }
}

/// The store shows who refers to an instance before it counts that event.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_waits_for_a_reference_that_is_just_being_committed() {
    for on_delete in ["restrict", "cascade"] {
        let nodes = cluster(2).await;
        nodes[0].model("customer", input(json!({}), &[])).await.unwrap();
        nodes[0].model("order", order(on_delete)).await.unwrap();
        create(&nodes[0], "customer", "c", json!({})).await.unwrap();
        let head = nodes[0].events.head().await.unwrap();
        nodes[1].engine.history.reached(head).await.unwrap();
        nodes[1].events.held_back.store(head, Ordering::Relaxed);
        create(&nodes[0], "order", "o", json!({"customer": "c"})).await.unwrap();
        let mut deletion = Box::pin(delete(&nodes[1], "customer", "c"));
        let early = tokio::time::timeout(Duration::from_millis(100), &mut deletion).await;
        assert!(early.is_err(), "{on_delete}: {early:?}");
        nodes[1].events.held_back.store(Position::MAX, Ordering::Relaxed);
        match on_delete {
            "restrict" => drop(kind(deletion.await, ErrorKind::Referenced)),
            _ => drop(deletion.await.unwrap()),
        }
        nodes[1].engine.history.reached(nodes[0].events.head().await.unwrap()).await.unwrap();
        check_log(&nodes[1], &[("order", "customer", "customer")]).await;
        for node in nodes {
            node.engine.close(Duration::from_secs(5)).await;
        }
    }
}

/// A reference is declared on one node while the other deletes what it would refer to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reference_is_declared_while_targets_go() {
    for round in 0..6 {
        let nodes = cluster(2).await;
        let plain = || input(json!({"n": {}, "customer": {"type": ["string", "null"]}}), &[]);
        nodes[0].model("customer", input(json!({}), &[])).await.unwrap();
        nodes[0].model("order", plain()).await.unwrap();
        for n in 0..30 {
            create(&nodes[0], "customer", &format!("c{n}"), json!({})).await.unwrap();
            create(&nodes[0], "order", &format!("o{n}"), json!({"customer": format!("c{n}")})).await.unwrap();
        }
        let head = nodes[0].events.head().await.unwrap();
        nodes[1].engine.history.reached(head).await.unwrap();
        let declare = nodes[0].update("order", order("restrict"));
        let delete_some = async {
            let mut gone = 0;
            for n in 0..3 {
                tokio::time::sleep(Duration::from_millis(2 * round)).await;
                match delete(&nodes[1], "customer", &format!("c{n}")).await {
                    Ok(_) => gone += 1,
                    Err(error) => {
                        let expected = matches!(error.kind, ErrorKind::Referenced | ErrorKind::Conflict);
                        assert!(expected, "{error:?}");
                    }
                }
            }
            gone
        };
        let (declared, gone) = tokio::join!(declare, delete_some);
        match declared {
            Ok(_) => assert_eq!(gone, 0, "declared, though targets are gone"),
            Err(error) => assert!(matches!(error.kind, ErrorKind::Incompatible | ErrorKind::Conflict), "{error:?}"),
        }
        for node in nodes {
            node.engine.close(Duration::from_secs(5)).await;
        }
    }
}

/// The property of a reference has an index without being asked for one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_refers_is_found_by_an_index() {
    let bench = bench().await;
    bench.model("customer", input(json!({}), &[])).await.unwrap();
    bench.model("order", input(json!({"n": {}, "customer": {"type": "string"}}), &[])).await.unwrap();
    for customer in ["c", "d"] {
        create(&bench, "customer", customer, json!({})).await.unwrap();
    }
    for part in 0..20 {
        let all = (0..100).map(|n| creation("order", &format!("x{part}-{n}"), json!({"customer": "d"})));
        batch(&bench, all.collect()).await.unwrap();
    }
    create(&bench, "order", "one", json!({"customer": "c"})).await.unwrap();
    let reference =
        Reference { property: "customer".to_owned(), model: "customer".to_owned(), on_delete: OnDelete::Restrict };
    let steps = async || {
        let budget = Budget::new(snaphook_driver::Limits {
            steps: 2_000_000,
            time: Duration::from_secs(30),
            memory: 1 << 26,
            wait: Duration::from_secs(30),
        });
        let found = bench.store.count("order", &refers_to(&reference, "c"), &budget).await.unwrap();
        assert_eq!(found, 1);
        budget.steps()
    };
    let scanned = steps().await;
    bench.update("order", input(json!({"n": {}, "customer": to("customer", "restrict")}), &[])).await.unwrap();
    let found = steps().await;
    assert!(found * 20 < scanned, "{found} steps by the index, {scanned} without");
    bench.engine.close(Duration::from_secs(1)).await;
}
