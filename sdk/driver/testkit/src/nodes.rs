//! Cases that nodes with a shared log depend on: conditions that apply no matter which node writes, ordered times, and
//! notifications between nodes.

use std::time::{Duration, Instant};

use snaphook_driver::{
    Append, Conflict, Event, EventFilter, EventKind, EventQuery, Expected, Node, Position, Quiet, Stream,
};

use crate::Subject;
use crate::sample::{any, append, append_all, append_one, event, try_append};

pub async fn quiet_models(subject: &Subject) {
    let store = subject.event().await;
    let quiet = |since| {
        let change = event(EventKind::ModelUpdated, &Stream::of_model("m"), Some("{}"));
        Append { quiet: Some(Quiet { model: "m".into(), since }), ..append(change) }
    };
    // A model that appears in no event is quiet, and so is one without instances.
    let defined = append_one(&*store, quiet(0)).await;
    let first = append_one(&*store, any("m", "a")).await;
    let noisy = |last| Err(Conflict::NotQuiet { last });
    assert_eq!(try_append(&*store, quiet(0)).await, noisy(first));
    assert_eq!(try_append(&*store, quiet(defined)).await, noisy(first));
    append_one(&*store, quiet(first)).await;
    // Instances of other models and definitions of this model do not matter.
    let other = append_one(&*store, any("n", "a")).await;
    append_one(&*store, quiet(first)).await;
    append_one(&*store, quiet(other)).await;
    append_one(&*store, quiet(Position::MAX)).await;
    // Earlier rows of the same batch count; a deletion is an ordinary event.
    let gone = append(event(EventKind::InstanceDeleted, &Stream::of_instance("m", "a"), None));
    let answers = append_all(&*store, &[gone, quiet(first)], false).await;
    let last = answers[0].clone().unwrap();
    assert_eq!(answers[1], noisy(last));
    if store.capabilities().atomic_batch {
        let answers = append_all(&*store, &[any("m", "b"), quiet(last)], true).await;
        assert_eq!(answers[0], Err(Conflict::Batch));
        assert!(matches!(answers[1], Err(Conflict::NotQuiet { .. })), "{answers:?}");
        append_one(&*store, quiet(last)).await;
    }
    store.close().await.unwrap();
}

pub async fn times_never_go_back(subject: &Subject) {
    let at = |time| Append { event: Event { time, ..any("m", "a").event }, ..any("m", "a") };
    let store = subject.event().await;
    let mut expected = Vec::new();
    for (batch, times) in [
        (&[5000, 4000, 6000][..], [5000, 5000, 6000]),
        // A row with a conflict has no time.
        (&[5999, 7000, 1], [6000, 7000, 7000]),
    ] {
        let batch: Vec<Append> = batch.iter().map(|time| at(*time)).collect();
        let conflict = Append { expected: Expected::At(u64::MAX), ..at(9000) };
        let answers = store.append(&[&[conflict][..], &batch].concat(), false).await.unwrap();
        let found: Vec<_> = answers[1..].iter().map(|answer| answer.as_ref().unwrap().time).collect();
        assert_eq!(found, times);
        expected.extend(times);
        let query = EventQuery { after: 0, limit: 100, filter: EventFilter::default() };
        let kept: Vec<_> = store.read(&query, None).await.unwrap().events.iter().map(|event| event.time).collect();
        assert_eq!(kept, expected);
    }
    store.close().await.unwrap();
    drop(store);
    let store = subject.event().await;
    if store.capabilities().durable {
        assert_eq!(store.append(&[at(3)], false).await.unwrap()[0].as_ref().unwrap().time, 7000);
    }
    store.close().await.unwrap();
}

pub async fn nodes_know_of_each_other(subject: &Subject) {
    let store = subject.event().await;
    assert_eq!(store.nodes().await.unwrap(), []);
    let node = |id: &str, position| Node {
        id: id.into(),
        address: "127.0.0.1:1337".into(),
        version: "1.2.3-\u{e4}".into(),
        position,
        head: 9,
    };
    let long = Duration::from_secs(600);
    store.announce(&node("b", 1), long).await.unwrap();
    store.announce(&node("a", 2), long).await.unwrap();
    assert_eq!(store.nodes().await.unwrap(), [node("a", 2), node("b", 1)]);
    // The most recent announcement counts.
    let moved = Node { address: "[::1]:80".into(), ..node("b", 7) };
    store.announce(&moved, long).await.unwrap();
    assert_eq!(store.nodes().await.unwrap(), [node("a", 2), moved.clone()]);
    // A node that stays silent for longer than its lifetime is gone, and so is one that withdraws.
    store.announce(&node("a", 3), Duration::from_millis(1)).await.unwrap();
    let started = Instant::now();
    while store.nodes().await.unwrap().len() == 2 {
        assert!(started.elapsed() < Duration::from_secs(10), "a node that says nothing is still there");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(store.nodes().await.unwrap(), std::slice::from_ref(&moved));
    for _ in 0..2 {
        store.announce(&moved, Duration::ZERO).await.unwrap();
        assert_eq!(store.nodes().await.unwrap(), []);
    }
    store.close().await.unwrap();
}
