//! Cases for the data that a model store keeps.

use serde_json::{Value, json};
use snaphook_driver::{
    Budget, CarryOver, ColumnKind, Condition, ErrorKind, EventKind, Filter, Instance, InstanceQuery, Json, ModelShape,
    ModelStore, Operator, PAGE_BYTES_MAX, PAYLOAD_BYTES_MAX, Position, Stream,
};

use crate::Subject;
use crate::sample::{bare, change, created, event, shape, sort_key};
use crate::subject::NOT_DURABLE;

use ColumnKind::{Any, Boolean, Integer, Number, Text};

/// Defines a new model.
pub(crate) async fn define(store: &dyn ModelStore, shape: &ModelShape, position: Position) {
    store.define(0, None, shape, &CarryOver::default(), position).await.unwrap();
}

/// The ids of the matching instances, sorted by id.
pub(crate) async fn ids(store: &dyn ModelStore, model: &str, filter: &[Condition]) -> Vec<String> {
    let query = InstanceQuery { filter: all(filter), limit: 1000, ..InstanceQuery::default() };
    store
        .query(model, &query, &Budget::unlimited())
        .await
        .unwrap()
        .items
        .into_iter()
        .map(|instance| instance.id)
        .collect()
}

/// The conjunction of the conditions.
pub(crate) fn all(conditions: &[Condition]) -> Filter {
    conditions.to_vec().into()
}

pub(crate) fn matches(data: &Value, filter: &[Condition]) -> bool {
    all(filter).matches(&bare(data))
}

pub(crate) fn condition(path: &[&str], operator: Operator) -> Condition {
    Condition { path: path.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>().into(), operator }
}

async fn data(store: &dyn ModelStore, model: &str, id: &str) -> String {
    store.get(model, id).await.unwrap().unwrap().data.as_str().to_owned()
}

pub async fn instances_follow_their_events(subject: &Subject) {
    let store = subject.model().await;
    assert_eq!(store.checkpoint().await.unwrap(), 0);
    define(&*store, &shape("m", 1, &[("title", Text)], &[]), 1).await;
    assert_eq!(store.checkpoint().await.unwrap(), 1);
    let text = r#"{ "title":"é\u00e9", "n": 1.50, "big":12345678901234567890.123456789 }"#;
    let mut first = change(EventKind::InstanceCreated, 2, "m", "a", Some(text));
    first.time = 1000;
    let mut second = change(EventKind::InstanceUpdated, 5, "m", "a", Some(r#"{"title":"two"}"#));
    (second.revision, second.model_version, second.time) = (2, 3, 2000);
    store.apply(0, std::slice::from_ref(&first), 3).await.unwrap();
    assert_eq!(store.checkpoint().await.unwrap(), 3);
    let expected = Instance {
        id: "a".into(),
        model: "m".into(),
        model_version: 1,
        revision: 1,
        position: 2,
        created_at: 1000,
        updated_at: 1000,
        data: Json::trusted(text),
    };
    assert_eq!(store.get("m", "a").await.unwrap(), Some(expected.clone()));
    // Events of definitions are ignored.
    let other = event(EventKind::HookUpdated, &Stream::of_model("m"), Some("{}"));
    store.apply(0, &[snaphook_driver::Event { position: 4, ..other }, second], 5).await.unwrap();
    let expected = Instance {
        model_version: 3,
        revision: 2,
        position: 5,
        updated_at: 2000,
        data: Json::trusted(r#"{"title":"two"}"#),
        ..expected
    };
    assert_eq!(store.get("m", "a").await.unwrap(), Some(expected));
    // Deleted, created again and deleted, in one batch.
    let events = [
        change(EventKind::InstanceDeleted, 6, "m", "a", None),
        change(EventKind::InstanceCreated, 7, "m", "a", Some("{}")),
        change(EventKind::InstanceCreated, 8, "m", "b", Some("{}")),
        change(EventKind::InstanceDeleted, 9, "m", "b", None),
    ];
    store.apply(0, &events, 9).await.unwrap();
    let again = store.get("m", "a").await.unwrap().unwrap();
    assert_eq!((again.revision, again.position, again.created_at), (1, 7, events[1].time));
    assert_eq!(store.get("m", "b").await.unwrap(), None);
    assert_eq!(ids(&*store, "m", &[]).await, ["a"]);
    store.health().await.unwrap();
    store.close().await.unwrap();
}

pub async fn applying_again_has_no_effect(subject: &Subject) {
    let store = subject.model().await;
    let before = shape("m", 1, &[("n", Integer)], &[]);
    define(&*store, &before, 1).await;
    let events = [
        created(2, "m", "a", &json!({"n": 1})),
        change(EventKind::InstanceUpdated, 3, "m", "a", Some(r#"{"n":2}"#)),
        change(EventKind::InstanceDeleted, 4, "m", "a", None),
        created(5, "m", "b", &json!({"n": 5})),
    ];
    store.apply(0, &events[..2], 3).await.unwrap();
    store.apply(0, &events[..2], 3).await.unwrap();
    assert_eq!(data(&*store, "m", "a").await, r#"{"n":2}"#);
    // A batch that begins before the checkpoint and ends after it.
    store.apply(0, &events, 5).await.unwrap();
    assert_eq!(ids(&*store, "m", &[]).await, ["b"]);
    store.apply(0, &events[..1], 2).await.unwrap();
    assert_eq!(ids(&*store, "m", &[]).await, ["b"]);
    assert_eq!(store.checkpoint().await.unwrap(), 5);
    // The other calls at or before the checkpoint.
    let after = shape("m", 2, &[("x", Integer)], &[]);
    let carry = CarryOver { renames: vec![("n".into(), "x".into())], defaults: Vec::new() };
    store.define(0, Some(&before), &after, &carry, 6).await.unwrap();
    store.define(0, Some(&before), &after, &carry, 6).await.unwrap();
    store.define(0, None, &before, &CarryOver::default(), 1).await.unwrap();
    assert_eq!(data(&*store, "m", "b").await, r#"{"x":5}"#);
    assert_eq!(store.definitions().await.unwrap(), std::slice::from_ref(&after));
    store.drop_model(0, "m", 6).await.unwrap();
    assert_eq!(store.definitions().await.unwrap(), [after]);
    // An apply without events moves the checkpoint.
    store.apply(0, &[], 20).await.unwrap();
    assert_eq!(store.checkpoint().await.unwrap(), 20);
    store.close().await.unwrap();
}

pub async fn nothing_is_missed(subject: &Subject) {
    let store = subject.model().await;
    let (before, after) =
        (shape("m", 1, &[("a", ColumnKind::Any)], &[]), shape("m", 2, &[("b", ColumnKind::Any)], &[]));
    let carry = CarryOver { renames: vec![("a".into(), "b".into())], defaults: Vec::new() };
    store.define(0, None, &before, &CarryOver::default(), 3).await.unwrap();
    let events = [created(5, "m", "x", &json!({"a": 1})), created(9, "m", "y", &json!({"a": 2}))];
    store.apply(3, &events, 10).await.unwrap();
    // A caller that only knows the log from a later position is rejected and changes nothing.
    let is_gap = |result: snaphook_driver::Result<()>| assert_eq!(result.unwrap_err().kind(), ErrorKind::Conflict);
    let late = [created(13, "m", "z", &json!({"a": 3}))];
    is_gap(store.apply(12, &late, 13).await);
    is_gap(store.define(11, Some(&before), &after, &carry, 12).await);
    is_gap(store.drop_model(11, "m", 12).await);
    assert_eq!((store.checkpoint().await.unwrap(), ids(&*store, "m", &[]).await.len()), (10, 2));
    // A second caller with the same events finds them applied.
    store.apply(3, &events, 10).await.unwrap();
    store.apply(0, &[], 10).await.unwrap();
    store.drop_model(2, "m", 9).await.unwrap();
    store.define(9, Some(&before), &after, &carry, 10).await.unwrap();
    assert_eq!((store.checkpoint().await.unwrap(), ids(&*store, "m", &[]).await.len()), (10, 2));
    // A caller that brings more than the missing events adds the missing ones.
    store.apply(4, &[&events[1..], &late].concat(), 13).await.unwrap();
    assert_eq!((store.checkpoint().await.unwrap(), ids(&*store, "m", &[]).await.len()), (13, 3));
    store.define(2, Some(&before), &after, &carry, 14).await.unwrap();
    store.drop_model(0, "m", 15).await.unwrap();
    assert_eq!((store.checkpoint().await.unwrap(), ids(&*store, "m", &[]).await.len()), (15, 0));
    store.close().await.unwrap();
}

pub async fn what_is_not_there(subject: &Subject) {
    let store = subject.model().await;
    assert_eq!(store.get("m", "a").await.unwrap(), None);
    assert_eq!(store.count("m", &Filter::default(), &Budget::unlimited()).await.unwrap(), 0);
    assert!(
        store
            .query("m", &InstanceQuery { limit: 10, ..InstanceQuery::default() }, &Budget::unlimited())
            .await
            .unwrap()
            .items
            .is_empty()
    );
    assert_eq!(store.definitions().await.unwrap(), []);
    store.drop_model(0, "m", 1).await.unwrap();
    assert_eq!(store.checkpoint().await.unwrap(), 1);
    define(&*store, &shape("m", 1, &[], &[]), 2).await;
    assert_eq!(store.get("m", "a").await.unwrap(), None);
    store.apply(0, &[change(EventKind::InstanceDeleted, 3, "m", "a", None)], 3).await.unwrap();
    assert_eq!(store.count("m", &Filter::default(), &Budget::unlimited()).await.unwrap(), 0);
    // An event of a model that was never defined cannot be applied, and neither can the rest of its batch.
    let events = [created(4, "m", "a", &json!({})), created(5, "absent", "a", &json!({}))];
    assert_eq!(store.apply(0, &events, 5).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(store.checkpoint().await.unwrap(), 3);
    assert_eq!(store.count("m", &Filter::default(), &Budget::unlimited()).await.unwrap(), 0);
    store.close().await.unwrap();
}

pub async fn definitions_are_kept(subject: &Subject) {
    let store = subject.model().await;
    let mut shapes =
        vec![shape("zebra", 3, &[("a", Any), ("Ü", Boolean)], &[&["a", "-Ü"], &["x.y"]]), shape("ant", 1, &[], &[])];
    shapes[0].unique = vec![vec!["a".into(), "Ü".into()]];
    shapes[0].record = Json::trusted(r#"{ "any" : [1.0, "thing"] }"#);
    define(&*store, &shapes[0], 1).await;
    define(&*store, &shapes[1], 2).await;
    shapes.sort_by(|left, right| left.model.cmp(&right.model));
    assert_eq!(store.definitions().await.unwrap(), shapes);
    store.close().await.unwrap();
}

pub async fn data_is_carried_over(subject: &Subject) {
    let store = subject.model().await;
    let before = shape("m", 1, &[("a", Integer), ("b", Integer)], &[&["a"]]);
    define(&*store, &before, 1).await;
    define(&*store, &shape("other", 1, &[], &[]), 2).await;
    let mut events = vec![
        change(EventKind::InstanceCreated, 3, "m", "both", Some(r#"{"a":1,"x":12345678901234567890.10,"b":2}"#)),
        created(4, "m", "neither", &json!({"x": null})),
        created(5, "m", "full", &json!({"c": 1, "d": 2, "e": null})),
        created(6, "other", "untouched", &json!({"a": 1})),
    ];
    // More instances than a driver may want to keep in memory at once.
    events.extend((0..2500).map(|number| created(7 + number, "m", &format!("many{number}"), &json!({"a": number}))));
    store.apply(0, &events, 5000).await.unwrap();
    let after = shape("m", 2, &[("a", Integer), ("b", Integer), ("d", Any)], &[&["b"]]);
    let carry = CarryOver {
        renames: vec![("a".into(), "b".into()), ("b".into(), "a".into())],
        defaults: vec![("d".into(), json!({"deep": [1]})), ("e".into(), json!("é"))],
    };
    store.define(0, Some(&before), &after, &carry, 5001).await.unwrap();
    assert_eq!(
        data(&*store, "m", "both").await,
        r#"{"b":1,"x":12345678901234567890.10,"a":2,"d":{"deep":[1]},"e":"é"}"#
    );
    assert_eq!(data(&*store, "m", "neither").await, r#"{"x":null,"d":{"deep":[1]},"e":"é"}"#);
    assert_eq!(data(&*store, "other", "untouched").await, r#"{"a":1}"#);
    let both = store.get("m", "both").await.unwrap().unwrap();
    assert_eq!((both.model_version, both.revision, both.position), (2, 1, 3));
    // Unchanged instances keep their version.
    let full = store.get("m", "full").await.unwrap().unwrap();
    assert_eq!((full.data.as_str(), full.model_version), (r#"{"c":1,"d":2,"e":null}"#, 1));
    assert_eq!(ids(&*store, "m", &[condition(&["b"], Operator::Eq(json!(1)))]).await, ["both", "many1"]);
    assert_eq!(ids(&*store, "m", &[condition(&["b"], Operator::Eq(json!(2499)))]).await, ["many2499"]);
    assert_eq!(store.checkpoint().await.unwrap(), 5001);
    store.close().await.unwrap();
}

pub async fn columns_and_indexes_change(subject: &Subject) {
    let store = subject.model().await;
    let shapes = [
        shape("m", 1, &[("a", Text), ("b", Integer)], &[&["a"], &["b", "-a"]]),
        shape("m", 2, &[("A", Text), ("a", Text), ("b", Number)], &[&["-a"], &["b", "-a"]]),
        shape("m", 3, &[("a", Any), ("c", Boolean)], &[&["a"], &["c"]]),
        shape("m", 4, &[], &[]),
        shape("m", 5, &[("b", Integer), ("a", Text), ("A", Integer)], &[&["A", "a", "b"]]),
        // Different types, the same index.
        shape("m", 6, &[("b", Number), ("a", Text), ("A", Text)], &[&["A", "a", "b"]]),
    ];
    define(&*store, &shapes[0], 1).await;
    let events = [
        created(2, "m", "1", &json!({"a": "x", "b": 1, "A": "X"})),
        created(3, "m", "2", &json!({"a": "y", "b": 2, "c": true})),
    ];
    store.apply(0, &events, 3).await.unwrap();
    for (index, pair) in shapes.windows(2).enumerate() {
        let position = 4 + index as Position;
        store.define(0, Some(&pair[0]), &pair[1], &CarryOver::default(), position).await.unwrap();
        assert_eq!(store.definitions().await.unwrap(), std::slice::from_ref(&pair[1]));
        for (path, value, expected) in [("a", json!("x"), "1"), ("b", json!(2), "2"), ("a", json!("y"), "2")] {
            let found = ids(&*store, "m", &[condition(&[path], Operator::Eq(value))]).await;
            assert_eq!(found, [expected], "{path} in version {}", pair[1].version);
        }
        // Defining does not raise the version of unchanged instances.
        assert_eq!(store.get("m", "1").await.unwrap().unwrap().model_version, 1);
    }
    store.close().await.unwrap();
}

pub async fn a_dropped_model_is_gone(subject: &Subject) {
    let store = subject.model().await;
    let shape = shape("m", 1, &[("a", Integer)], &[&["a"]]);
    define(&*store, &shape, 1).await;
    define(&*store, &crate::sample::shape("n", 1, &[], &[]), 2).await;
    store.apply(0, &[created(3, "m", "a", &json!({"a": 1})), created(4, "n", "a", &json!({}))], 4).await.unwrap();
    store.drop_model(0, "m", 5).await.unwrap();
    assert_eq!(
        (store.checkpoint().await.unwrap(), store.count("m", &Filter::default(), &Budget::unlimited()).await.unwrap()),
        (5, 0)
    );
    assert_eq!(store.get("m", "a").await.unwrap(), None);
    assert_eq!(store.definitions().await.unwrap().len(), 1);
    assert_eq!(ids(&*store, "n", &[]).await, ["a"]);
    // The model can be defined again.
    define(&*store, &shape, 6).await;
    assert_eq!(ids(&*store, "m", &[]).await, Vec::<String>::new());
    store.apply(0, &[created(7, "m", "b", &json!({"a": 1}))], 7).await.unwrap();
    assert_eq!(ids(&*store, "m", &[condition(&["a"], Operator::Eq(json!(1)))]).await, ["b"]);
    store.close().await.unwrap();
}

pub async fn a_store_knows_its_log(subject: &Subject) {
    let store = subject.model().await;
    assert_eq!(store.log().await.unwrap(), None);
    store.reset("one").await.unwrap();
    assert_eq!(store.log().await.unwrap().as_deref(), Some("one"));
    define(&*store, &shape("m", 1, &[], &[]), 3).await;
    store.apply(0, &[], 7).await.unwrap();
    assert_eq!((store.log().await.unwrap().as_deref(), store.checkpoint().await.unwrap()), (Some("one"), 7));
    let store = if store.capabilities().durable {
        store.close().await.unwrap();
        drop(store);
        let store = subject.model().await;
        assert_eq!((store.log().await.unwrap().as_deref(), store.checkpoint().await.unwrap()), (Some("one"), 7));
        store
    } else {
        store
    };
    store.reset("two").await.unwrap();
    assert_eq!((store.log().await.unwrap().as_deref(), store.checkpoint().await.unwrap()), (Some("two"), 0));
    assert_eq!(store.definitions().await.unwrap(), []);
    store.close().await.unwrap();
}

pub async fn reset_removes_everything(subject: &Subject) {
    let store = subject.model().await;
    for _ in 0..2 {
        define(&*store, &shape("m", 1, &[("a", Integer)], &[&["a"]]), 1).await;
        store.apply(0, &[created(2, "m", "a", &json!({"a": 1}))], 2).await.unwrap();
        assert_eq!(ids(&*store, "m", &[]).await, ["a"]);
        store.reset("log").await.unwrap();
        assert_eq!(store.checkpoint().await.unwrap(), 0);
        assert_eq!(store.definitions().await.unwrap(), []);
        assert_eq!(store.get("m", "a").await.unwrap(), None);
    }
    store.close().await.unwrap();
}

pub async fn thousands_of_properties(subject: &Subject) {
    let store = subject.model().await;
    let names: Vec<String> = (0..2500).map(|number| format!("property {number}")).collect();
    let columns: Vec<(&str, ColumnKind)> = names.iter().map(|name| (name.as_str(), Integer)).collect();
    let before = shape("m", 1, &columns[..2400], &[&["property 7"], &["property 2390"]]);
    define(&*store, &before, 1).await;
    let object: serde_json::Map<String, Value> =
        names.iter().enumerate().map(|(index, name)| (name.clone(), Value::from(index))).collect();
    store.apply(0, &[created(2, "m", "a", &Value::Object(object))], 2).await.unwrap();
    let after = shape("m", 2, &columns[100..], &[&["property 2390"]]);
    store.define(0, Some(&before), &after, &CarryOver::default(), 3).await.unwrap();
    for number in [0, 7, 100, 1899, 1900, 1999, 2000, 2390, 2499] {
        let name = format!("property {number}");
        assert_eq!(ids(&*store, "m", &[condition(&[&name], Operator::Eq(json!(number)))]).await, ["a"], "{name}");
    }
    store.close().await.unwrap();
}

pub async fn large_instances(subject: &Subject) {
    let store = subject.model().await;
    define(&*store, &shape("m", 1, &[("small", Integer)], &[&["small"]]), 1).await;
    for (number, size) in [0, 500, 5000, 100_000, PAYLOAD_BYTES_MAX - 30].into_iter().enumerate() {
        let text = format!("{{\"large\":\"{}\",\"small\":{number}}}", "x".repeat(size));
        let position = 2 + number as Position;
        store
            .apply(
                0,
                &[change(EventKind::InstanceCreated, position, "m", &format!("i{number}"), Some(&text))],
                position,
            )
            .await
            .unwrap();
        assert!(data(&*store, "m", &format!("i{number}")).await == text, "{size}");
        assert_eq!(ids(&*store, "m", &[condition(&["small"], Operator::Eq(json!(number)))]).await.len(), 1);
    }
    // A page ends before it is too large; the next pages contain the rest.
    for number in 0..3 {
        let text = format!("{{\"large\":\"{}\"}}", "x".repeat(PAYLOAD_BYTES_MAX - 30));
        let position = 7 + number as Position;
        let event = change(EventKind::InstanceCreated, position, "m", &format!("more{number}"), Some(&text));
        store.apply(0, &[event], position).await.unwrap();
    }
    for sort in [Vec::new(), vec![sort_key("small")]] {
        let (mut query, mut found) = (InstanceQuery { limit: 100, sort, ..InstanceQuery::default() }, 0);
        loop {
            let page = store.query("m", &query, &Budget::unlimited()).await.unwrap();
            let bytes: usize = page.items.iter().map(|instance| instance.data.len()).sum();
            assert!(bytes <= PAGE_BYTES_MAX && !page.items.is_empty(), "{bytes}");
            found += page.items.len();
            query.cursor = page.next;
            if query.cursor.is_none() {
                break;
            }
        }
        assert_eq!(found, 8);
    }
    store.close().await.unwrap();
}

pub async fn many_instances(subject: &Subject) {
    let count = subject.share(100_000);
    let store = subject.model().await;
    define(&*store, &shape("m", 1, &[("n", Integer)], &[&["-n"]]), 1).await;
    for start in (0..count).step_by(5000) {
        let events: Vec<_> = (start..start + 5000)
            .map(|number| created(number as Position + 2, "m", &format!("i{number:06}"), &json!({"n": number % 1000})))
            .collect();
        store.apply(0, &events, events.last().unwrap().position).await.unwrap();
    }
    assert_eq!(store.count("m", &Filter::default(), &Budget::unlimited()).await.unwrap(), count as u64);
    assert_eq!(
        store.count("m", &condition(&["n"], Operator::Gte(json!(990))).into(), &Budget::unlimited()).await.unwrap(),
        count as u64 / 100
    );
    let query = InstanceQuery {
        filter: condition(&["n"], Operator::Lt(json!(500))).into(),
        sort: vec![crate::sample::sort_key("-n")],
        limit: 3,
        cursor: None,
    };
    let page = store.query("m", &query, &Budget::unlimited()).await.unwrap();
    let found: Vec<&str> = page.items.iter().map(|instance| instance.id.as_str()).collect();
    assert_eq!(found, ["i000499", "i001499", "i002499"]);
    store.close().await.unwrap();
}

pub async fn survives_reopening(subject: &Subject) {
    let mut shapes = vec![shape("m", 1, &[("a", Integer)], &[&["a"]])];
    let store = subject.model().await;
    if !store.capabilities().durable {
        return subject.skip(NOT_DURABLE);
    }
    define(&*store, &shapes[0], 1).await;
    store.apply(0, &[created(2, "m", "x", &json!({"a": 1}))], 2).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    for round in 0..3 {
        let store = subject.model().await;
        let position = store.checkpoint().await.unwrap();
        assert_eq!(position, 2 + 2 * round);
        assert_eq!(store.definitions().await.unwrap(), [shapes.last().unwrap().clone()]);
        assert_eq!(ids(&*store, "m", &[condition(&["a"], Operator::Eq(json!(1)))]).await.len() as u64, round + 1);
        let next = shape("m", round + 2, &[("a", Integer), ("b", Text)], &[&["a"], &["b"]]);
        store.define(0, shapes.last(), &next, &CarryOver::default(), position + 1).await.unwrap();
        shapes.push(next);
        let event = created(position + 2, "m", &format!("y{round}"), &json!({"a": 1}));
        store.apply(0, &[event], position + 2).await.unwrap();
        store.close().await.unwrap();
    }
}
