//! References while two nodes write at once: whichever node deletes or refers, no reference dangles, and the
//! consequences of a deletion directly follow it in the log.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::backend::Backend;
use super::nodes::Nodes;
use crate::chance::Chance;
use crate::support::{Client, list};

const CLIENTS: usize = 8;
const WRITES: usize = 80;
const CUSTOMERS: usize = 4;
const COUNTRIES: usize = 3;

#[test]
fn references_on_postgres() {
    run(&Backend::postgres(false));
}

#[test]
fn references_on_one_model_store() {
    run(&Backend::postgres(true));
}

#[test]
fn references_on_nats() {
    run(&Backend::nats());
}

fn run(backend: &Backend) {
    let mut chance = Chance::new();
    let nodes = Nodes::start(2, backend);
    let to = |model: &str, on_delete: &str| json!({"type": ["string", "null"], "x-references": {"model": model, "on-delete": on_delete}});
    for (id, properties) in [
        ("country", json!({})),
        ("customer", json!({"country": to("country", "set-null")})),
        ("order", json!({"customer": to("customer", "restrict"), "gift": to("customer", "cascade")})),
    ] {
        let model = json!({"id": id, "schema": {"type": "object", "properties": properties}});
        nodes.client(0).post("/models", &model).expect(201);
    }
    nodes.reach(1, nodes.head());
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (api, chance) = (nodes.client(client % 2), chance.fork());
            scope.spawn(move || write(&api, client, chance));
        }
    });
    let head = nodes.head();
    (0..2).for_each(|node| nodes.reach(node, head));
    let expected = replay(&nodes.log(0));
    for node in 0..2 {
        let api = nodes.client(node);
        for model in ["country", "customer", "order"] {
            let there: BTreeMap<String, Value> = list(&api, model)
                .into_iter()
                .map(|instance| (instance["id"].as_str().expect("an id").to_owned(), instance["data"].clone()))
                .collect();
            assert_eq!(Some(&there), expected.get(model).or(Some(&BTreeMap::new())), "node {node}, {model}");
        }
    }
}

fn write(api: &Client, client: usize, mut chance: Chance) {
    // This writer deletes its own orders again; otherwise no customer could be deleted.
    let mut own: Vec<String> = Vec::new();
    for number in 0..WRITES {
        let (customer, country) = (format!("c{}", chance.below(CUSTOMERS)), format!("f{}", chance.below(COUNTRIES)));
        let create = |model: &str, id: &str, data: Value| {
            api.post(&format!("/models/{model}/instances"), &json!({"id": id, "data": data}))
        };
        let delete = |model: &str, id: &str| api.delete(&format!("/models/{model}/instances/{id}"));
        let order = format!("o{client}-{number}");
        let answer = match chance.below(14) {
            0 | 1 => create("country", &country, json!({})),
            2 | 3 => delete("country", &country),
            4 => create("customer", &customer, json!({})),
            5 | 6 => create("customer", &customer, json!({ "country": country })),
            7 | 8 => delete("customer", &customer),
            9 | 10 => create("order", &order, json!({ "gift": customer })),
            11 if own.is_empty() => {
                own.push(order.clone());
                create("order", &order, json!({ "customer": customer }))
            }
            _ => match own.pop() {
                Some(order) => delete("order", &order),
                None => continue,
            },
        };
        let is_right = matches!(answer.status, 201 | 204 | 404 | 409 | 422);
        assert!(is_right, "{}: {}", answer.status, answer.text());
    }
}

/// The state that the log adds up to, by model. Each event must be valid after the events before it.
fn replay(log: &[Value]) -> BTreeMap<String, BTreeMap<String, Value>> {
    let mut all: BTreeMap<String, BTreeMap<String, Value>> = BTreeMap::new();
    // The consequences that must follow a deletion before any other event, as its event lists them.
    let mut due: BTreeSet<(String, String)> = BTreeSet::new();
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for event in log {
        let text = |name: &str| event[name].as_str().unwrap_or_default();
        let (kind, model, id) = (text("type"), text("model"), text("instance"));
        if !kind.starts_with("instance.") {
            continue;
        }
        let follows = due.remove(&(model.to_owned(), id.to_owned()));
        assert!(follows || due.is_empty(), "{due:?} should have followed before {event}");
        assert_eq!(follows, event["cause"].is_object(), "{event}");
        if follows {
            *kinds.entry(kind).or_default() += 1;
        }
        let there = |model: &str, id: &Value| {
            id.is_null() || all.get(model).is_some_and(|all| all.contains_key(id.as_str().expect("an id")))
        };
        let data = &event["data"];
        let refers = match model {
            "customer" => vec![("country", &data["country"])],
            "order" => vec![("customer", &data["customer"]), ("customer", &data["gift"])],
            _ => Vec::new(),
        };
        if kind != "instance.deleted" {
            refers.iter().for_each(|(model, id)| assert!(there(model, id), "it refers to what is gone: {event}"));
            all.entry(model.to_owned()).or_default().insert(id.to_owned(), data.clone());
            continue;
        }
        let gone = all.get_mut(model).and_then(|all| all.remove(id));
        assert!(gone.is_some(), "{event}");
        let referring = |model: &str, property: &str| -> Vec<(String, String)> {
            let of = all.get(model).into_iter().flatten().filter(|(_, data)| data[property] == id);
            of.map(|(id, _)| (model.to_owned(), id.clone())).collect()
        };
        match model {
            "country" => due.extend(referring("customer", "country")),
            "customer" => {
                assert_eq!(referring("order", "customer"), [], "a restricted one was deleted: {event}");
                due.extend(referring("order", "gift"));
            }
            _ => {}
        }
    }
    assert!(due.is_empty(), "{due:?}");
    let often = ["instance.updated", "instance.deleted"].map(|kind| kinds.get(kind).copied().unwrap_or_default());
    println!("followed on deletions: {often:?} updates and deletions");
    assert!(often.iter().all(|count| *count > 0), "the test did not mix: {often:?}");
    all
}
