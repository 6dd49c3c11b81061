//! Several nodes on one log: each learns from it what the others wrote, and none of them writes what the others would not.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::StreamExt;
use serde_json::{Value, json};
use snaphook_driver::{EventFilter, EventQuery, EventStore as _, Instance, Position, Stream};
use snaphook_driver_testkit::sample::Random;

use super::command::{InstanceChange, Origin, WriteOptions, Written};
use super::projector::Own;
use super::testing::{Bench, cluster, eventually, failed, input};
use super::waiters::settled;
use super::{ErrorKind, QueryInput};
use crate::config::Phase;
use crate::hooks::context::Outcome;

/// Brings a node to where the log is.
async fn caught_up(node: &Bench) {
    let head = snaphook_driver::EventStore::head(&*node.events).await.unwrap();
    node.engine.history.reached(head).await.unwrap();
}

/// Every instance of a model, by id.
async fn instances(node: &Bench, model: &str) -> BTreeMap<String, Instance> {
    caught_up(node).await;
    let mut query = QueryInput { limit: Some(100), ..QueryInput::default() };
    let mut all = BTreeMap::new();
    loop {
        let page = node.engine.history.query(model, &query).await.unwrap();
        all.extend(page.items.into_iter().map(|instance| (instance.id.clone(), instance)));
        match page.next {
            Some(next) => query.cursor = Some(next),
            None => return all,
        }
    }
}

/// Nodes agree on everything that they derive.
async fn agree(nodes: &[Bench], model: &str) -> BTreeMap<String, Instance> {
    let expected = instances(&nodes[0], model).await;
    let models =
        |node: &Bench| node.engine.definitions.all().iter().map(|model| model.record.clone()).collect::<Vec<_>>();
    for node in &nodes[1..] {
        assert_eq!(instances(node, model).await, expected);
        assert_eq!(models(node), models(&nodes[0]));
    }
    expected
}

fn position(written: Written) -> Position {
    match written {
        Written::Created(instance) | Written::Updated(instance) => instance.position,
        other => panic!("{other:?}"),
    }
}

async fn close(nodes: Vec<Bench>) {
    for node in nodes {
        node.engine.close(Duration::from_secs(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_node_writes_the_other_reads() {
    let nodes = cluster(2).await;
    let (a, b) = (&nodes[0], &nodes[1]);
    let filter = EventFilter::default();
    let mut follower = b.engine.history.follow(EventQuery { after: 0, limit: 100, filter });
    a.model("m", input(json!({"n": {}}), &["n"])).await.unwrap();
    caught_up(b).await;
    for (writer, reader, n) in [(a, b, 1), (b, a, 2), (a, b, 3)] {
        let position = position(writer.create(&format!("i{n}"), json!({"n": n})).await.unwrap());
        reader.engine.history.reached(position).await.unwrap();
        assert_eq!(reader.data(&format!("i{n}")).await, format!("{{\"n\":{n}}}"));
        // Unique keys are the log's.
        assert_eq!(reader.create("x", json!({"n": n})).await.unwrap_err().kind, ErrorKind::NotUnique);
    }
    // A node that does not know yet what is in its way looks again.
    for round in 0..20 {
        let (one, two) =
            tokio::join!(a.replace("i1", json!({"n": 10 + round})), b.replace("i1", json!({"n": 40 + round})));
        assert_ne!(position(one.unwrap()), position(two.unwrap()));
    }
    assert_eq!(agree(&nodes, "m").await["i1"].revision, 41);
    // Listeners of one node hear what is written on the other, each event once and in order.
    let head = b.engine.history.head();
    let mut last = 0;
    while last < head {
        let next = tokio::time::timeout(Duration::from_secs(20), follower.next()).await.expect("an event");
        let position = next.unwrap().unwrap().position;
        assert_eq!(position, last + 1);
        last = position;
    }
    // What is asked for and does not come is not waited for without end.
    let error = b.engine.history.reached(head + 1).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
    close(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_comes_later_or_makes_its_store_again_has_the_same() {
    let mut nodes = cluster(2).await;
    nodes[0].model("m", input(json!({"n": {}}), &[])).await.unwrap();
    caught_up(&nodes[1]).await;
    for n in 0..50 {
        nodes[n % 2].create(&format!("i{n}"), json!({"n": n})).await.unwrap();
    }
    nodes[1].update("m", input(json!({"n": {}, "x": {"default": 7}}), &[])).await.unwrap();
    nodes[0].engine.operations.start_rebuild().await.unwrap();
    // The others go on meanwhile.
    nodes[1].create("during", json!({"n": 1})).await.unwrap();
    eventually("the rebuild is done", || async {
        (nodes[0].engine.operations.rebuild_progress().state == "done").then_some(())
    })
    .await;
    let restarted = nodes.remove(1).restart().await;
    nodes.push(restarted);
    let all = agree(&nodes, "m").await;
    assert_eq!(all.len(), 51);
    assert!(all.values().all(|instance| instance.data.contains("\"x\":7")), "{all:?}");
    close(nodes).await;
}

/// Whatever is written beside it, no instance is left that does not fit the new version.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_a_model_misses_nothing_that_is_written_elsewhere() {
    let nodes = cluster(2).await;
    let (a, b) = (&nodes[0], &nodes[1]);
    let properties = |kind: Value| json!({"n": kind, "u": {}});
    a.model("m", input(properties(json!({})), &[])).await.unwrap();
    caught_up(b).await;
    let stop = AtomicBool::new(false);
    let write = async {
        let mut random = Random::new(5);
        let (mut written, mut refused) = (0, 0);
        let mut mended: Option<String> = None;
        while !stop.load(Ordering::Relaxed) {
            // Now and then something that the new version does not take, and is mended at once.
            let bad = mended.is_none() && random.below(50) == 0;
            let n = if bad { json!("text") } else { json!(1) };
            let id = mended.take().unwrap_or_else(|| format!("i{}", random.below(30)));
            mended = bad.then(|| id.clone());
            let data = json!({"n": n, "u": id});
            let change = InstanceChange::Replace { id, data: snaphook_driver::Json::from_value(&data), create: true };
            match b.write(change, WriteOptions::default()).await {
                Ok(_) => written += 1,
                Err(error) => {
                    let kinds = [ErrorKind::Invalid, ErrorKind::Conflict, ErrorKind::Unavailable];
                    assert!(kinds.contains(&error.kind), "{error}");
                    refused += 1;
                }
            }
            tokio::task::yield_now().await;
        }
        (written, refused)
    };
    let change = async {
        let mut changes = 0;
        let started = Instant::now();
        while changes < 6 && started.elapsed() < Duration::from_secs(20) {
            let number = changes % 2 == 0;
            let kind = if number { json!({"type": "integer"}) } else { json!({}) };
            let unique: &[&str] = if number { &["u"] } else { &[] };
            match a.update("m", input(properties(kind), unique)).await {
                Ok(_) => {
                    changes += 1;
                    if number {
                        for (id, instance) in instances(b, "m").await {
                            assert!(!instance.data.contains("text"), "{id}: {:?}", instance.data);
                        }
                    }
                }
                Err(error) => {
                    let kinds = [ErrorKind::Incompatible, ErrorKind::Conflict];
                    assert!(kinds.contains(&error.kind), "{error}");
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
        changes
    };
    let ((written, refused), changes) = tokio::join!(write, change);
    assert!(written > 0, "{written} {refused}");
    assert!(changes >= 2, "{changes} changes beside {written} writes");
    agree(&nodes, "m").await;
    close(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_changes_of_one_model_one_wins() {
    let nodes = cluster(2).await;
    let (a, b) = (&nodes[0], &nodes[1]);
    let (one, two) = tokio::join!(a.model("m", input(json!({}), &[])), b.model("m", input(json!({}), &[])));
    assert_eq!([one.is_ok(), two.is_ok()].iter().filter(|made| **made).count(), 1, "{one:?} {two:?}");
    let mut version = 1;
    for round in 0..10 {
        caught_up(a).await;
        caught_up(b).await;
        let to = |name: &str| input(json!({(format!("{name}{round}")): {}}), &[]);
        let (one, two) = tokio::join!(a.update("m", to("a")), b.update("m", to("b")));
        for answer in [&one, &two] {
            match answer {
                Ok(_) => version += 1,
                Err(error) => assert_eq!(error.kind, ErrorKind::Conflict, "{error}"),
            }
        }
        assert!(one.is_ok() || two.is_ok(), "{one:?} {two:?}");
        caught_up(a).await;
        assert_eq!(a.engine.definitions.get("m").unwrap().record.version, version);
    }
    agree(&nodes, "m").await;
    close(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_is_deleted_with_what_others_write_meanwhile() {
    for cascade in [true, false] {
        let nodes = cluster(2).await;
        let (a, b) = (&nodes[0], &nodes[1]);
        a.model("m", input(json!({"n": {}}), &["n"])).await.unwrap();
        caught_up(b).await;
        let deleted = AtomicBool::new(false);
        let write = async {
            let mut n = 0;
            while !deleted.load(Ordering::Relaxed) {
                n += 1;
                match b.create_any(n).await {
                    Ok(_) => {}
                    Err(error) => {
                        let kinds = [ErrorKind::NotFound, ErrorKind::Conflict, ErrorKind::Unavailable];
                        assert!(kinds.contains(&error.kind), "{error}");
                    }
                }
                tokio::task::yield_now().await;
            }
        };
        let delete = async {
            let (options, origin) = (WriteOptions::default(), Origin::default());
            loop {
                match a.engine.definitions.delete("m", cascade, &options, &origin).await {
                    Ok(_) => break,
                    // Never a deletion that leaves instances behind.
                    Err(error) if cascade => assert_eq!(error.kind, ErrorKind::Conflict, "{error}"),
                    Err(error) => {
                        assert!(matches!(error.kind, ErrorKind::ModelInUse | ErrorKind::Conflict), "{error}");
                        break;
                    }
                }
            }
            deleted.store(true, Ordering::Relaxed);
        };
        tokio::time::timeout(Duration::from_secs(60), async { tokio::join!(write, delete) }).await.expect("an end");
        caught_up(a).await;
        caught_up(b).await;
        for node in &nodes {
            assert_eq!(node.engine.definitions.get("m").is_err(), cascade, "{cascade}");
        }
        if cascade {
            // No key is held by what is gone.
            b.model("m", input(json!({"n": {}}), &["n"])).await.unwrap();
            caught_up(a).await;
            a.create_any(1).await.unwrap();
            assert_eq!(agree(&nodes, "m").await.len(), 1);
        }
        close(nodes).await;
    }
}

/// Runs of hooks: by name and instance.
type Runs = Arc<Mutex<BTreeMap<(String, String), usize>>>;

fn counted(node: &Bench, name: &'static str, runs: &Runs) {
    let runs = Arc::clone(runs);
    node.code(name, move |context, _| {
        *runs.lock().unwrap().entry((name.to_owned(), context.instance)).or_default() += 1;
        async { Outcome::Accept }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn post_hooks_run_once_wherever_they_run() {
    let nodes = cluster(3).await;
    let runs = Runs::default();
    counted(&nodes[0], "one", &runs);
    counted(&nodes[0], "two", &runs);
    nodes[0].model("m", input(json!({"n": {}}), &[])).await.unwrap();
    nodes[0].bind(Phase::PostCreate, &[("one", "one"), ("two", "two")]).await;
    for node in &nodes {
        caught_up(node).await;
    }
    let creates = nodes.iter().enumerate().flat_map(|(node, bench)| {
        (0..30).map(move |n| async move { bench.create(&format!("i{node}-{n}"), json!({"n": n})).await.unwrap() })
    });
    futures::future::join_all(creates).await;
    eventually("all are acknowledged", || async { (nodes[0].events_lag("m").await.0 == 0).then_some(()) }).await;
    let counts = runs.lock().unwrap().clone();
    assert_eq!(counts.len(), 2 * 3 * 30);
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");

    // `Prefer: wait` waits for a hook that runs on another node; a wake-up reaches it long before it would look again.
    for node in &nodes[..2] {
        node.engine.core.lanes.close(Duration::from_secs(5)).await;
    }
    let mut soonest = Duration::MAX;
    for n in 0..5 {
        let id = format!("waited{n}");
        let options = WriteOptions { wait: Some(Duration::from_secs(30)), ..WriteOptions::default() };
        let change = InstanceChange::Create { id: Some(id.clone()), data: snaphook_driver::Json::trusted("{}") };
        let started = Instant::now();
        nodes[0].write(change, options).await.unwrap();
        assert_eq!(runs.lock().unwrap().get(&("two".to_owned(), id)), Some(&1));
        soonest = soonest.min(started.elapsed());
    }
    assert!(soonest < Duration::from_secs(4), "{soonest:?}");
    close(nodes).await;
}

/// A hook writes on the node that runs it; whoever waited for it on another node reads there what it wrote.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_a_hook_elsewhere_reads_what_it_wrote() {
    let nodes = cluster(2).await;
    nodes[0].engine.core.lanes.close(Duration::from_secs(5)).await;
    counted(&nodes[1], "one", &Runs::default());
    nodes[1].model("m", input(json!({}), &[])).await.unwrap();
    nodes[1].bind(Phase::PostCreate, &[("one", "one")]).await;
    let position = position(nodes[1].create("i", json!({})).await.unwrap());
    caught_up(&nodes[0]).await;
    nodes[0].events.held_back.store(nodes[0].events.head().await.unwrap(), Ordering::Relaxed);
    nodes[1].create("written", json!({})).await.unwrap();
    let (_never, here) = tokio::sync::oneshot::channel();
    let (stream, tail) = (Stream::of_instance("m", "i"), &nodes[0].engine.core.tail);
    // With the events as the store has them now: the log ends further than this node has applied.
    let mut settled = Box::pin(settled(&*nodes[1].events, tail, &stream, position, here));
    assert!(tokio::time::timeout(Duration::from_millis(200), &mut settled).await.is_err());
    nodes[0].events.held_back.store(Position::MAX, Ordering::Relaxed);
    settled.await;
    assert!(nodes[0].engine.history.get("m", "written").await.is_ok());
    close(nodes).await;
}

/// A node may meet a model and its first post hooks at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hooks_of_a_model_that_is_new_on_a_node_are_served_there() {
    let nodes = cluster(2).await;
    let (a, b) = (&nodes[0], &nodes[1]);
    let runs = Runs::default();
    counted(a, "one", &runs);
    let halted = b.engine.core.projector.lock().await;
    a.model("m", input(json!({}), &[])).await.unwrap();
    a.bind(Phase::PostCreate, &[("one", "one")]).await;
    drop(halted);
    caught_up(b).await;
    a.engine.core.lanes.close(Duration::from_secs(5)).await;
    a.create("i", json!({})).await.unwrap();
    eventually("the hook runs", || async { (!runs.lock().unwrap().is_empty()).then_some(()) }).await;
    // The same after the model, or its hooks, came back.
    b.engine.operations.start_rebuild().await.unwrap();
    eventually("the rebuild is done", || async {
        (b.engine.operations.rebuild_progress().state == "done").then_some(())
    })
    .await;
    a.create("j", json!({})).await.unwrap();
    eventually("the hook runs", || async { (runs.lock().unwrap().len() == 2).then_some(()) }).await;
    close(nodes).await;
}

/// Events that others write between two of a batch are applied in their place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_lets_others_in_between_loses_nothing() {
    let nodes = cluster(2).await;
    let (a, b) = (&nodes[0], &nodes[1]);
    a.model("m", input(json!({"n": {}}), &[])).await.unwrap();
    caught_up(b).await;
    for node in &nodes {
        node.events.is_split.store(true, Ordering::Relaxed);
        // Each learns of the other's events by its own alone.
        node.engine.tasks.lock().unwrap().iter().for_each(tokio::task::JoinHandle::abort);
    }
    let creates =
        (0..400).map(|n| async move { [a, b][n % 2].create(&format!("i{n}"), json!({"n": n})).await.unwrap() });
    futures::future::join_all(creates).await;
    for node in &nodes {
        node.engine.core.projector.lock().await.take(Own::default()).await;
    }
    assert_eq!(agree(&nodes, "m").await.len(), 400);
    close(nodes).await;
}

/// The tries of a hook add up over nodes, and what ran on one does not run again on another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_goes_on_where_another_node_left_it() {
    let nodes = cluster(2).await;
    let (a, b) = (&nodes[0], &nodes[1]);
    let runs = Runs::default();
    counted(a, "first", &runs);
    let tries = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&tries);
    a.code("fails", move |context, _| {
        let earlier = counter.fetch_add(1, Ordering::Relaxed);
        async move { failed(&format!("try {} is attempt {}", earlier + 1, context.attempt)) }
    });
    a.model("m", input(json!({}), &[])).await.unwrap();
    a.bind(Phase::PostCreate, &[("first", "first"), ("fails", "fails")]).await;
    caught_up(b).await;
    // One of them at a time, in turns.
    b.engine.core.lanes.stop("m");
    a.create("i", json!({})).await.unwrap();
    for round in 1.. {
        eventually("another try", || async {
            let all = a.errors().await.len() + b.errors().await.len();
            (all > 0 || tries.load(Ordering::Relaxed) >= round).then_some(())
        })
        .await;
        if !a.errors().await.is_empty() || !b.errors().await.is_empty() {
            break;
        }
        let (from, to) = if round % 2 == 1 { (a, b) } else { (b, a) };
        from.engine.core.lanes.stop("m");
        to.engine.core.lanes.serve("m");
    }
    let mut errors = a.errors().await;
    errors.extend(b.errors().await);
    let [error] = &errors[..] else { panic!("{errors:?}") };
    let attempts = tries.load(Ordering::Relaxed);
    assert_eq!(error.attempts as usize, attempts);
    assert_eq!(error.message, format!("try {attempts} is attempt {attempts}"));
    assert_eq!(runs.lock().unwrap().values().copied().collect::<Vec<_>>(), [1]);
    close(nodes).await;
}
