//! Cases for prepared changes, and for changes that are deferred during a replay. The result must equal that of a
//! direct change.

use serde_json::{Value, json};
use snaphook_driver::ColumnKind::{Any, Integer, Text};
use snaphook_driver::{
    CarryOver, Condition, Event, EventKind, Instance, InstanceQuery, ModelShape, ModelStore, Operator, Position,
};

use crate::Subject;
use crate::model::{condition, define, ids};
use crate::sample::{Random, change, created, shape};
use crate::subject::NOT_DURABLE;

/// All instances of a model in the store.
async fn all(store: &dyn ModelStore, model: &str) -> Vec<Instance> {
    let mut query = InstanceQuery { limit: 1000, ..InstanceQuery::default() };
    let mut found = Vec::new();
    loop {
        let page = store.query(model, &query, &snaphook_driver::Budget::unlimited()).await.unwrap();
        found.extend(page.items);
        query.cursor = page.next;
        if query.cursor.is_none() {
            return found;
        }
    }
}

fn renaming(pairs: &[(&str, &str)], defaults: &[(&str, Value)]) -> CarryOver {
    CarryOver {
        renames: pairs.iter().map(|(old, new)| ((*old).to_owned(), (*new).to_owned())).collect(),
        defaults: defaults.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
    }
}

/// Changes for `define`, with and without `prepare`, to a model of version 1 with properties `a` and `b`.
fn changes() -> Vec<(&'static str, ModelShape, CarryOver)> {
    let columns = &[("a", Integer), ("b", Text)];
    vec![
        ("index", shape("m", 2, columns, &[&["a"], &["-b"]]), CarryOver::default()),
        ("no index", shape("m", 2, columns, &[]), CarryOver::default()),
        ("column", shape("m", 2, &[("a", Integer), ("b", Text), ("c", Text)], &[&["a"]]), CarryOver::default()),
        ("type", shape("m", 2, &[("a", Any), ("b", Text)], &[&["a"]]), CarryOver::default()),
        ("nothing", shape("m", 2, columns, &[&["a"]]), CarryOver::default()),
        ("rename", shape("m", 2, &[("c", Integer), ("b", Text)], &[&["c"]]), renaming(&[("a", "c")], &[])),
        ("swap", shape("m", 2, columns, &[&["a"]]), renaming(&[("a", "b"), ("b", "a")], &[("d", json!({"x": [1]}))])),
        ("default", shape("m", 2, columns, &[&["a"]]), renaming(&[], &[("b", json!("é"))])),
    ]
}

/// Events of `count` instances from a position on: created, changed, deleted and created again.
fn events(random: &mut Random, from: Position, steps: usize, count: usize) -> Vec<Event> {
    (0..steps as Position)
        .map(|step| {
            let (position, id) = (from + step, format!("i{:05}", random.below(count)));
            let mut data = serde_json::Map::new();
            if random.below(4) > 0 {
                data.insert("a".into(), json!(random.below(1000)));
            }
            data.insert("x".into(), json!("\u{0}é".repeat(random.below(4))));
            if random.below(4) > 0 {
                data.insert("b".into(), json!(format!("b{}", random.below(50))));
            }
            match random.below(8) {
                0 => change(EventKind::InstanceDeleted, position, "m", &id, None),
                1 => created(position, "m", &id, &Value::Object(data)),
                _ => change(EventKind::InstanceUpdated, position, "m", &id, Some(&Value::Object(data).to_string())),
            }
        })
        .collect()
}

pub async fn a_prepared_change_is_the_plain_one(subject: &Subject) {
    let store = subject.model().await;
    let mut random = Random::new(7);
    let before = shape("m", 1, &[("a", Integer), ("b", Text)], &[&["a"]]);
    let (first, last) = (events(&mut random, 2, 5000, 3000), events(&mut random, 5002, 300, 3000));
    for (name, after, carry) in changes() {
        let mut results = Vec::new();
        for prepared in [false, true] {
            clear(&*store).await;
            define(&*store, &before, 1).await;
            store.apply(0, &first, 5001).await.unwrap();
            if prepared {
                // Other events are applied in the meantime, some to rows that are already converted.
                let (ticket, ()) = tokio::join!(store.prepare(&after, &carry), async {
                    for events in last.chunks(7) {
                        store.apply(0, events, events.last().unwrap().position).await.unwrap();
                        tokio::task::yield_now().await;
                    }
                });
                ticket.unwrap();
                // The prepared change is not visible yet.
                assert_eq!(store.definitions().await.unwrap(), std::slice::from_ref(&before), "{name}");
                assert!(all(&*store, "m").await.iter().all(|instance| instance.model_version == 1), "{name}");
            } else {
                store.apply(0, &last, 5301).await.unwrap();
            }
            // A change that only affects the record keeps what is prepared.
            let noted = ModelShape { record: snaphook_driver::Json::trusted("{\"noted\":1}"), ..before.clone() };
            store.define(0, Some(&before), &noted, &CarryOver::default(), 5500).await.unwrap();
            assert_eq!(store.definitions().await.unwrap(), std::slice::from_ref(&noted), "{name}");
            store.apply(0, &[created(5600, "m", "late", &json!({"a": 7, "b": "b7"}))], 5600).await.unwrap();
            // The content of the record is not known before this point.
            let record = snaphook_driver::Json::trusted(format!("{{\"of\":{prepared}}}"));
            let after = ModelShape { record, ..after.clone() };
            store.define(0, Some(&noted), &after, &carry, 6000).await.unwrap();
            assert_eq!(store.definitions().await.unwrap(), [after], "{name}");
            assert_eq!(store.checkpoint().await.unwrap(), 6000);
            // From then on it is an ordinary model.
            store.apply(0, &[created(6001, "m", "new", &json!({"a": 5, "b": "z", "c": 5}))], 6001).await.unwrap();
            let is = |path: &str, value: Value| -> Vec<Condition> { vec![condition(&[path], Operator::Eq(value))] };
            let mut found = Vec::new();
            for (path, value) in [("a", json!(5)), ("b", json!("b7")), ("c", json!(5)), ("a", json!("b7"))] {
                found.push(ids(&*store, "m", &is(path, value)).await);
            }
            results.push((all(&*store, "m").await, found));
        }
        assert_eq!(results[0], results[1], "{name}");
        assert!(results[0].0.len() > 1000, "{name}");
    }
    store.close().await.unwrap();
}

pub async fn what_is_prepared_may_be_given_up(subject: &Subject) {
    let store = subject.model().await;
    let before = shape("m", 1, &[("a", Integer)], &[&["a"]]);
    let after = shape("m", 2, &[("b", Integer)], &[&["b"]]);
    let carry = renaming(&[("a", "b")], &[]);
    assert_eq!(store.prepare(&after, &carry).await.unwrap(), 0);
    define(&*store, &before, 1).await;
    let rows: Vec<Event> = (0..3000).map(|n| created(2 + n, "m", &format!("i{n}"), &json!({"a": n}))).collect();
    store.apply(0, &rows, 4000).await.unwrap();
    let is = |path: &str, n: u64| vec![condition(&[path], Operator::Eq(json!(n)))];
    // Cancelled halfway, cancelled when it is complete, replaced by another one.
    for polls in 0..4 {
        let mut work = Box::pin(store.prepare(&after, &carry));
        for _ in 0..polls {
            let once = std::future::poll_fn(|context| std::task::Poll::Ready(work.as_mut().poll(context)));
            if once.await.is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    let ticket = store.prepare(&after, &carry).await.unwrap();
    store.discard("m", ticket).await.unwrap();
    store.discard("m", ticket).await.unwrap();
    store.discard("none", 1).await.unwrap();
    let older = store.prepare(&shape("m", 2, &[("a", Integer)], &[]), &CarryOver::default()).await.unwrap();
    store.prepare(&after, &carry).await.unwrap();
    // An old ticket does not affect the new preparation.
    store.discard("m", older).await.unwrap();
    assert_eq!(ids(&*store, "m", &is("a", 7)).await, ["i7"]);
    store.apply(0, &[created(4001, "m", "late", &json!({"a": 7}))], 4001).await.unwrap();
    assert_eq!(ids(&*store, "m", &is("a", 7)).await, ["i7", "late"]);
    // A change that differs from the prepared one.
    let other = shape("m", 2, &[("c", Integer)], &[&["c"]]);
    store.define(0, Some(&before), &other, &renaming(&[("a", "c")], &[]), 4002).await.unwrap();
    assert_eq!(ids(&*store, "m", &is("c", 7)).await, ["i7", "late"]);
    assert!(ids(&*store, "m", &is("b", 7)).await.is_empty());
    // The model is dropped and defined again while a change is prepared.
    store.prepare(&shape("m", 3, &[("b", Integer)], &[&["b"]]), &renaming(&[("c", "b")], &[])).await.unwrap();
    store.drop_model(0, "m", 4003).await.unwrap();
    define(&*store, &before, 4004).await;
    assert_eq!(
        store.count("m", &snaphook_driver::Filter::default(), &snaphook_driver::Budget::unlimited()).await.unwrap(),
        0
    );
    store.apply(0, &[created(4005, "m", "x", &json!({"a": 1}))], 4005).await.unwrap();
    store.prepare(&after, &carry).await.unwrap();
    let durable = store.capabilities().durable;
    store.close().await.unwrap();
    drop(store);
    if !durable {
        return subject.skip(NOT_DURABLE);
    }
    // The prepared change is lost with the process; the model is unchanged.
    let store = subject.model().await;
    assert_eq!(ids(&*store, "m", &is("a", 1)).await, ["x"]);
    store.define(0, Some(&before), &after, &carry, 4006).await.unwrap();
    assert_eq!(ids(&*store, "m", &is("b", 1)).await, ["x"]);
    store.close().await.unwrap();
}

/// Removes all contents, by events only.
async fn clear(store: &dyn ModelStore) {
    store.reset("log").await.unwrap();
}

pub async fn a_replay_gives_what_the_steps_gave(subject: &Subject) {
    let store = subject.model().await;
    let mut random = Random::new(11);
    const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
    for round in 0..subject.share(12) {
        // A history: definitions, each followed by a series of events.
        let mut history = vec![(shape("m", 1, &[("a", Integer), ("b", Text)], &[&["a"]]), CarryOver::default())];
        for version in 2..2 + random.below(10) as u64 {
            let mut targets = NAMES.to_vec();
            let mut renames = Vec::new();
            for old in NAMES {
                if random.below(4) == 0 {
                    renames.push((old, targets.swap_remove(random.below(targets.len()))));
                }
            }
            let defaults = if random.below(3) == 0 { vec![(*random.pick(&NAMES), json!(version))] } else { Vec::new() };
            let columns: Vec<_> = NAMES.iter().filter(|_| random.below(2) == 0).map(|name| (*name, Any)).collect();
            let indexed = [*random.pick(&NAMES)];
            history.push((shape("m", version, &columns, &[&indexed]), renaming(&renames, &defaults)));
        }
        let runs: Vec<Vec<Event>> = (0..history.len() as u64)
            .map(|index| {
                let mut run = events(&mut random, 1000 * index + 1, 60, 100);
                run.iter_mut().for_each(|event| event.model_version = index + 1);
                run
            })
            .collect();
        let split = random.below(history.len());
        let mut results = Vec::new();
        for replayed in [false, true] {
            clear(&*store).await;
            if replayed {
                store.begin_replay().await.unwrap();
            }
            for (index, ((shape, carry), run)) in history.iter().zip(&runs).enumerate() {
                if replayed && index == split {
                    // As after a crash: deferred changes are carried out, and deferred again.
                    end_replay(&*store).await;
                    store.begin_replay().await.unwrap();
                }
                let old = index.checked_sub(1).map(|before| &history[before].0);
                store.define(0, old, shape, carry, 1000 * index as u64 + 1 - u64::from(index > 0)).await.unwrap();
                assert_eq!(store.definitions().await.unwrap(), std::slice::from_ref(shape));
                store.apply(0, &run[usize::from(index == 0)..], run.last().unwrap().position).await.unwrap();
            }
            end_replay(&*store).await;
            let mut found = Vec::new();
            for name in NAMES {
                found.push(ids(&*store, "m", &[condition(&[name], Operator::Exists(true))]).await);
            }
            results.push((all(&*store, "m").await, found, store.checkpoint().await.unwrap()));
        }
        assert_eq!(results[0], results[1], "round {round}");
    }
    store.close().await.unwrap();
}

/// Ends a replay in which no model has an error.
async fn end_replay(store: &dyn ModelStore) {
    let failed = store.end_replay().await.unwrap();
    assert!(failed.is_empty(), "{failed:?}");
}

pub async fn a_replay_survives_reopening(subject: &Subject) {
    let store = subject.model().await;
    if !store.capabilities().durable {
        return subject.skip(NOT_DURABLE);
    }
    store.begin_replay().await.unwrap();
    let first = shape("m", 1, &[("a", Integer)], &[&["a"]]);
    let second = shape("m", 2, &[("b", Integer)], &[&["b"]]);
    define(&*store, &first, 1).await;
    define(&*store, &shape("n", 1, &[("a", Integer)], &[&["a"]]), 2).await;
    store.apply(0, &[created(3, "m", "x", &json!({"a": 1})), created(4, "n", "x", &json!({"a": 1}))], 4).await.unwrap();
    store.define(0, Some(&first), &second, &renaming(&[("a", "b")], &[]), 5).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    let store = subject.model().await;
    assert_eq!(store.checkpoint().await.unwrap(), 5);
    store.begin_replay().await.unwrap();
    store.apply(0, &[created(6, "m", "y", &json!({"b": 1}))], 6).await.unwrap();
    end_replay(&*store).await;
    assert_eq!(ids(&*store, "m", &[condition(&["b"], Operator::Eq(json!(1)))]).await, ["x", "y"]);
    assert_eq!(ids(&*store, "n", &[condition(&["a"], Operator::Eq(json!(1)))]).await, ["x"]);
    let carried = store.get("m", "x").await.unwrap().unwrap();
    assert_eq!((carried.model_version, carried.data.as_str()), (2, r#"{"b":1}"#));
    store.close().await.unwrap();
}
