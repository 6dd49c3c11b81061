//! Cases for hostile names: no name that a client may choose collides with anything in a store.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use snaphook_driver::{
    Budget, CarryOver, Claim, ColumnKind, Event, EventFilter, EventKind, EventQuery, Group, InstanceQuery, ModelShape,
    ModelStore, Operator, Position, Sealed, SortKey, Stream,
};

use crate::Subject;
use crate::error::record;
use crate::hostile;
use crate::model::{condition, define, ids};
use crate::sample::{append, append_all, change, create, created, event, shape, try_append};

pub async fn models_and_instances(subject: &Subject) {
    let mut store = subject.model().await;
    let shapes: Vec<ModelShape> =
        hostile::MODELS.iter().map(|model| shape(model, 1, &[("n", ColumnKind::Integer)], &[&["n"]])).collect();
    let mut position = 0;
    let mut at = || {
        position += 1;
        position
    };
    for shape in &shapes {
        define(&*store, shape, at()).await;
    }
    let mut events = Vec::new();
    for (number, model) in hostile::MODELS.iter().enumerate() {
        for (place, id) in hostile::INSTANCES.iter().enumerate() {
            events.push(created(at(), model, id, &json!({"n": place, "model": number, "id": id})));
        }
    }
    let last = events.last().unwrap().position;
    store.apply(0, &events, last).await.unwrap();
    let mut expected: Vec<String> = hostile::INSTANCES.iter().map(|id| (*id).to_owned()).collect();
    expected.sort();
    let all_there = async |store: &dyn ModelStore, number: usize| {
        let model = hostile::MODELS[number];
        assert_eq!(ids(store, model, &[]).await, expected, "{model}");
        let first = condition(&["n"], Operator::Eq(json!(1)));
        assert_eq!(ids(store, model, &[first]).await, [hostile::INSTANCES[1]], "{model}");
        for (place, id) in hostile::INSTANCES.iter().enumerate() {
            let found = store.get(model, id).await.unwrap().unwrap_or_else(|| panic!("{model}/{id}"));
            let data: Value = found.data.to_value().unwrap();
            assert_eq!(data, json!({"n": place, "model": number, "id": id}), "{model}/{id}");
        }
        let sort = vec![SortKey { path: vec!["n".to_owned()].into(), descending: true }];
        let query = InstanceQuery { sort, limit: 2, ..InstanceQuery::default() };
        let page = store.query(model, &query, &Budget::unlimited()).await.unwrap();
        let top: Vec<&str> = page.items.iter().map(|instance| instance.id.as_str()).collect();
        assert_eq!(top, hostile::INSTANCES.iter().rev().take(2).copied().collect::<Vec<_>>(), "{model}");
    };
    for number in 0..shapes.len() {
        all_there(&*store, number).await;
    }
    // Every other model changes, every third one is deleted, and the rest stay as they are.
    for (number, old) in shapes.iter().enumerate().step_by(2) {
        let new =
            shape(hostile::MODELS[number], 2, &[("id", ColumnKind::Text), ("n", ColumnKind::Integer)], &[&["id"]]);
        store.define(0, Some(old), &new, &CarryOver::default(), at()).await.unwrap();
    }
    for model in hostile::MODELS.iter().step_by(3) {
        store.drop_model(0, model, at()).await.unwrap();
    }
    let is_gone = |number: usize| number.is_multiple_of(3);
    for round in 0..2 {
        let defined: BTreeSet<String> =
            store.definitions().await.unwrap().into_iter().map(|shape| shape.model).collect();
        for (number, model) in hostile::MODELS.iter().enumerate() {
            assert_eq!(defined.contains(*model), !is_gone(number), "{model} in round {round}");
            match is_gone(number) {
                true => assert_eq!(
                    store.count(model, &snaphook_driver::Filter::default(), &Budget::unlimited()).await.unwrap(),
                    0,
                    "{model}"
                ),
                false => all_there(&*store, number).await,
            }
        }
        if !store.capabilities().durable {
            break;
        }
        store.close().await.unwrap();
        drop(store);
        store = subject.model().await;
    }
    // Deleted models can be defined again.
    for model in hostile::MODELS.iter().step_by(3) {
        define(&*store, &shape(model, 1, &[("n", ColumnKind::Text)], &[&["-n"]]), at()).await;
        let event = created(at(), model, "again", &json!({"n": "x"}));
        store.apply(0, std::slice::from_ref(&event), event.position).await.unwrap();
        assert_eq!(ids(&*store, model, &[]).await, ["again"], "{model}");
    }
    store.reset("log").await.unwrap();
    assert_eq!(store.definitions().await.unwrap(), []);
    store.close().await.unwrap();
}

pub async fn properties(subject: &Subject) {
    let store = subject.model().await;
    let names = hostile::properties();
    let shape_of = |version: u64, order: &[usize], kind: ColumnKind, odd: usize| {
        let columns: Vec<(&str, ColumnKind)> = order.iter().map(|index| (names[*index].as_str(), kind)).collect();
        let mut shape = shape("m", version, &columns, &[]);
        let indexed = order.iter().filter(|index| **index % 2 == odd);
        let key =
            |index: &usize| SortKey { path: vec![names[*index].clone()].into(), descending: index.is_multiple_of(3) };
        // Two properties per index, because the number of indexes per model is limited.
        shape.indexes = indexed.map(key).collect::<Vec<_>>().chunks(2).map(<[SortKey]>::to_vec).collect();
        shape
    };
    let forwards: Vec<usize> = (0..names.len()).collect();
    let before = shape_of(1, &forwards, ColumnKind::Text, 0);
    define(&*store, &before, 1).await;
    let mut position = 1;
    let mut insert = |id: String, data: String| {
        position += 1;
        change(EventKind::InstanceCreated, position, "m", &id, Some(&data))
    };
    let mut events: Vec<Event> = Vec::new();
    let text = |name: &str| Value::from(name).to_string();
    for (index, name) in names.iter().enumerate() {
        events.push(insert(format!("one{index:03}"), format!("{{{}:\"value {index}\"}}", text(name))));
        let spelled = format!("{{{} : \"spelled {index}\"}}", hostile::escaped(name));
        events.push(insert(format!("spelled{index:03}"), spelled));
        let nested = format!("{{\"inner\":{{{}:\"value {index}\"}}}}", text(name));
        events.push(insert(format!("nested{index:03}"), nested));
    }
    let members: Vec<String> =
        names.iter().enumerate().map(|(index, name)| format!("{}:\"all {index}\"", text(name))).collect();
    events.push(insert("all".into(), format!("{{{}}}", members.join(","))));
    let last = events.last().unwrap().position;
    store.apply(0, &events, last).await.unwrap();
    for event in &events {
        let found = store.get("m", event.instance.as_deref().unwrap()).await.unwrap().unwrap();
        assert!(Some(&found.data) == event.data.as_ref(), "{}", found.id);
    }
    let answers = async |when: &str| {
        for (index, name) in names.iter().enumerate() {
            let shown: String = name.chars().take(20).collect();
            let is = |value: String| condition(&[name], Operator::Eq(Value::from(value)));
            for (value, id) in [
                (format!("value {index}"), format!("one{index:03}")),
                (format!("spelled {index}"), format!("spelled{index:03}")),
                (format!("all {index}"), "all".to_owned()),
            ] {
                assert_eq!(ids(&*store, "m", &[is(value)]).await, [id], "{shown:?} {when}");
            }
            let inner = condition(&["inner", name], Operator::Exists(true));
            assert_eq!(ids(&*store, "m", &[inner]).await, [format!("nested{index:03}")], "{shown:?} {when}");
            let sort = vec![SortKey { path: vec![name.clone()].into(), descending: false }];
            let mut query = InstanceQuery { sort, limit: 2, ..InstanceQuery::default() };
            let mut found = Vec::new();
            for _ in 0..2 {
                let page = store.query("m", &query, &Budget::unlimited()).await.unwrap();
                found.extend(page.items.into_iter().map(|instance| instance.id));
                query.cursor = page.next;
            }
            let expected = ["all".to_owned(), format!("spelled{index:03}"), format!("one{index:03}")];
            assert_eq!(found[..3], expected, "{shown:?} {when}");
        }
    };
    answers("at first").await;
    // The rest changes the models, which only concerns the driver itself.
    if subject.tries_transport_only() {
        return store.close().await.unwrap();
    }
    let backwards: Vec<usize> = forwards.iter().rev().copied().collect();
    let after = shape_of(2, &backwards, ColumnKind::Any, 1);
    store.define(0, Some(&before), &after, &CarryOver::default(), last + 1).await.unwrap();
    answers("after a change").await;
    let again = shape_of(3, &forwards, ColumnKind::Text, 1);
    let carry = CarryOver { renames: Vec::new(), defaults: vec![("new\0".into(), json!(true))] };
    store.define(0, Some(&after), &again, &carry, last + 2).await.unwrap();
    answers("after rows were carried over").await;
    let carried = condition(&["new\0"], Operator::Eq(json!(true)));
    assert_eq!(store.count("m", &carried.into(), &Budget::unlimited()).await.unwrap(), events.len() as u64);
    assert_eq!(
        store.count("m", &condition(&["new"], Operator::Exists(true)).into(), &Budget::unlimited()).await.unwrap(),
        0
    );
    store.drop_model(0, "m", last + 3).await.unwrap();
    assert_eq!(store.definitions().await.unwrap(), []);
    store.close().await.unwrap();
}

pub async fn streams_claims_and_groups(subject: &Subject) {
    let mut store = subject.event().await;
    let mut batch = Vec::new();
    for model in hostile::MODELS {
        for id in hostile::INSTANCES {
            let mut append = create(model, id, "{}");
            append.claims.push(Claim::new(format!("unique {model} {id}")));
            batch.push(append);
        }
    }
    let answers = append_all(&*store, &batch, false).await;
    assert!(answers.iter().all(Result::is_ok));
    let names = hostile::groups();
    for (index, name) in names.iter().enumerate() {
        let model = hostile::MODELS[index % hostile::MODELS.len()].to_owned();
        let group = Group { name: name.clone(), filter: EventFilter { model: Some(model), ..EventFilter::default() } };
        store.create_group(&group, 0).await.unwrap();
    }
    let mut sorted = names.clone();
    sorted.sort();
    for _ in 0..2 {
        for model in hostile::MODELS {
            let filter = EventFilter { model: Some((*model).to_owned()), ..EventFilter::default() };
            let page = store.read(&EventQuery { after: 0, limit: 1000, filter }, None).await.unwrap();
            let found: Vec<&str> = page.events.iter().filter_map(|event| event.instance.as_deref()).collect();
            assert_eq!(found, hostile::INSTANCES, "{model}");
            for id in hostile::INSTANCES {
                let stream = Stream::of_instance(*model, *id);
                let last = store.last(&stream, Position::MAX).await.unwrap().unwrap();
                assert_eq!(last.stream(), stream);
                let holder = store.holder(&format!("unique {model} {id}")).await.unwrap().unwrap();
                assert_eq!((holder.stream, holder.position), (stream, last.position));
                assert!(try_append(&*store, create(model, id, "{}")).await.is_err(), "{model}/{id}");
            }
        }
        assert_eq!(store.groups().await.unwrap(), sorted);
        if !store.capabilities().durable {
            break;
        }
        store.close().await.unwrap();
        drop(store);
        store = subject.event().await;
    }
    for (index, name) in names.iter().enumerate() {
        let model = hostile::MODELS[index % hostile::MODELS.len()];
        let deliveries = store.claim(name, 1000, Duration::from_secs(60)).await.unwrap();
        assert_eq!(deliveries.len(), hostile::INSTANCES.len(), "{name:?}");
        assert!(deliveries.iter().all(|delivery| delivery.event.model == model), "{name:?}");
        store.drop_group(name).await.unwrap();
        let mut left = sorted.clone();
        left.retain(|other| names[index + 1..].contains(other));
        assert_eq!(store.groups().await.unwrap(), left);
    }
    // Keys are equal only if all of their bytes are.
    let keys = hostile::properties();
    for (index, key) in keys.iter().enumerate() {
        let stream = Stream::of_instance("m", format!("holder{index}"));
        let mut claiming = append(event(EventKind::InstanceCreated, &stream, Some("{}")));
        claiming.claims.push(Claim::new(key.clone()));
        assert!(try_append(&*store, claiming).await.is_ok(), "{index}");
        assert_eq!(store.holder(key).await.unwrap().unwrap().stream, stream);
    }
    store.close().await.unwrap();
}

pub async fn secrets(subject: &Subject) {
    let mut store = subject.secure().await;
    let names = hostile::secrets();
    for name in &names {
        assert_eq!(store.put(name, name.as_bytes(), Some(0)).await.unwrap(), 1, "{name}");
    }
    let mut sorted = names.clone();
    sorted.sort();
    for _ in 0..2 {
        assert_eq!(store.list("").await.unwrap(), sorted);
        for name in &names {
            let sealed = store.get(name).await.unwrap();
            assert_eq!(sealed, Some(Sealed { bytes: name.as_bytes().to_vec(), version: 1 }), "{name}");
            let starting: Vec<&String> = sorted.iter().filter(|other| other.starts_with(name)).collect();
            assert_eq!(store.list(name).await.unwrap().iter().collect::<Vec<_>>(), starting, "{name}");
        }
        if !store.capabilities().durable {
            break;
        }
        store.close().await.unwrap();
        drop(store);
        store = subject.secure().await;
    }
    for name in &names {
        assert!(store.delete(name).await.unwrap(), "{name}");
        sorted.retain(|other| other != name);
        assert_eq!(store.list("").await.unwrap(), sorted);
    }
    store.close().await.unwrap();
}

pub async fn errors(subject: &Subject) {
    let store = subject.error().await;
    // A store that only forwards shows what it forwards.
    let models = if store.capabilities().readable { hostile::MODELS } else { &hostile::MODELS[..1] };
    for (index, model) in models.iter().enumerate() {
        for (place, hook) in hostile::INSTANCES.iter().enumerate() {
            store.record(&record(&format!("{index:03}-{place:03}"), model, hook)).await.unwrap();
        }
    }
    if store.capabilities().readable {
        let query = |model: Option<&str>, hook: Option<&str>| snaphook_driver::ErrorQuery {
            model: model.map(str::to_owned),
            hook: hook.map(str::to_owned),
            after: None,
            limit: 1000,
        };
        for model in hostile::MODELS {
            let found = store.list(&query(Some(model), None)).await.unwrap().records;
            assert_eq!(found.len(), hostile::INSTANCES.len(), "{model}");
            assert!(found.iter().all(|record| record.model == *model), "{model}");
        }
        for hook in hostile::INSTANCES {
            assert_eq!(
                store.list(&query(None, Some(hook))).await.unwrap().records.len(),
                hostile::MODELS.len(),
                "{hook}"
            );
            assert_eq!(store.list(&query(Some("m"), Some(hook))).await.unwrap().records.len(), 1, "{hook}");
        }
    }
    store.close().await.unwrap();
}
