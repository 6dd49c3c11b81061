//! Random rules: lists, counts and single reads agree with each other and with an evaluator that shares no code with
//! the server, in each store.

use std::cmp::Ordering;

use serde_json::{Map, Value, json};
use snaphook_driver_testkit::servers::postgres;

use super::{Stage, ask, send};
use crate::chance::Chance;
use crate::other_drivers::INSTANCES_OF_PEER;
use crate::support::{Server, list};

const RULES: usize = 40;
const RECORDS: usize = 24;

#[test]
fn stores_agree_about_random_rules() {
    for (driver, path) in [("sqlite", ""), ("file", "path = 'data/instances'\n"), ("memory", "")] {
        agree(driver, &format!("[driver-model-storage]\ndriver = '{driver}'\n{path}"));
    }
}

#[test]
fn postgres_agrees_about_random_rules() {
    let server = postgres::start(&[]);
    let url = postgres::url(&server);
    let tables = "[driver-model-storage]\ndriver = 'postgres'\nconnection = 'main'\n";
    agree("postgres", &format!("[connections.main]\ndriver = 'postgres'\nurl = '{url}'\n{tables}"));
}

/// The instances are in another server, which does not know the rules.
#[test]
fn crud_agrees_about_random_rules() {
    let peer = Server::start();
    peer.client().post("/models", &json!({"id": "m", "schema": {"type": "object"}})).expect(201);
    let tables = INSTANCES_OF_PEER.replace("PEER", &format!("http://{}", peer.address()));
    agree("crud", &tables);
    assert_eq!(list(&peer.client(), "m").len(), RECORDS);
}

fn agree(driver: &str, tables: &str) {
    let stage = Stage::start(tables);
    let api = stage.api();
    let mut chance = Chance::new();
    let schema = json!({"type": "object", "properties": {
        "s": {"type": ["string", "null"]}, "n": {"type": ["number", "null"]}, "b": {"type": "boolean"},
        "any": {}, "tags": {"type": "array"}, "o": {"type": "object", "properties": {"s": {"type": "string"}}},
    }});
    let model = |rules: &Value| json!({"schema": schema, "indexes": [["s"], ["n", "-s"]], "rules": {"read": rules}});
    let mut first = model(&json!({}));
    first["id"] = json!("m");
    send(&api, &stage.admin, "POST", "/models", &first).expect(201);
    let records: Vec<(String, Value)> = (0..RECORDS).map(|at| (format!("i{at:02}"), record(&mut chance))).collect();
    for (id, data) in &records {
        send(&api, &stage.admin, "POST", "/models/m/instances", &json!({"id": id, "data": data})).expect(201);
    }
    for _ in 0..RULES {
        let rule = rule(&mut chance, 3);
        send(&api, &stage.admin, "PUT", "/models/m", &model(&rule)).expect(200);
        let expected: Vec<&str> =
            records.iter().filter(|(_, data)| holds(&rule, data)).map(|(id, _)| id.as_str()).collect();
        let page =
            ask(&api, &stage.alice, "GET", "/models/m/instances?limit=1000&count=true&sort=$id").expect(200).json();
        let items = page["items"].as_array().expect("items").iter();
        let listed: Vec<&str> = items.map(|item| item["id"].as_str().expect("an id")).collect();
        assert_eq!(listed, expected, "{driver}: {rule}");
        assert_eq!(page["count"], expected.len(), "{driver}: {rule}");
        let sorted = ask(&api, &stage.alice, "GET", "/models/m/instances?limit=1000&sort=n,-s&filter[b][eq]=true");
        let found = sorted.expect(200).json()["items"].as_array().map(Vec::len);
        let flagged = records.iter().filter(|(id, data)| data["b"] == true && expected.contains(&id.as_str())).count();
        assert_eq!(found, Some(flagged), "{driver}: {rule}");
        for (id, _) in records.iter().step_by(3) {
            let status = ask(&api, &stage.alice, "GET", &format!("/models/m/instances/{id}")).status;
            let wanted = if expected.contains(&id.as_str()) { 200 } else { 404 };
            assert_eq!(status, wanted, "{driver}: {id} under {rule}");
        }
    }
}

fn scalar(chance: &mut Chance) -> Value {
    match chance.below(8) {
        0 => json!("alice"),
        1 => json!("bob"),
        2 => json!(""),
        3 => json!(-1),
        4 => json!(0),
        5 => json!(2.5),
        6 => json!(true),
        _ => json!(false),
    }
}

fn record(chance: &mut Chance) -> Value {
    let mut data = Map::new();
    let texts = ["alice", "bob", "Al", "", "alice%"];
    if chance.below(4) > 0 {
        data.insert("s".to_owned(), json!(texts[chance.below(5)]));
    } else if chance.below(2) == 0 {
        data.insert("s".to_owned(), Value::Null);
    }
    if chance.below(4) > 0 {
        let number = [-1.0, 0.0, 2.5, 7.0][chance.below(4)];
        data.insert("n".to_owned(), json!(number));
    }
    if chance.below(3) > 0 {
        data.insert("b".to_owned(), json!(chance.below(2) == 0));
    }
    if chance.below(4) > 0 {
        let any = if chance.below(5) == 0 { json!([1]) } else { scalar(chance) };
        data.insert("any".to_owned(), any);
    }
    if chance.below(3) > 0 {
        let tags: Vec<Value> = (0..chance.below(3)).map(|_| scalar(chance)).collect();
        data.insert("tags".to_owned(), json!(tags));
    }
    if chance.below(2) == 0 {
        data.insert("o".to_owned(), json!({"s": texts[chance.below(5)]}));
    }
    Value::Object(data)
}

/// A comparison value for this property: a constant, or a value of the caller `alice`, who has no claims.
fn operand(chance: &mut Chance, path: &str) -> Value {
    match path {
        "n" => {
            let number = [-1.0, 0.0, 2.5, 3.0][chance.below(4)];
            json!(number)
        }
        "b" => json!(chance.below(2) == 0),
        "any" => match chance.below(3) {
            0 => json!("$actor.id"),
            1 => json!("$actor.claims.none"),
            _ => scalar(chance),
        },
        _ => {
            let text = ["alice", "bob", "$actor.id", "$actor.kind", "$actor.claims.none", ""][chance.below(6)];
            json!(text)
        }
    }
}

fn rule(chance: &mut Chance, depth: usize) -> Value {
    if depth > 0 && chance.below(2) == 0 {
        return match chance.below(3) {
            0 => json!({"not": rule(chance, depth - 1)}),
            joined => {
                let parts: Vec<Value> = (0..chance.below(3)).map(|_| rule(chance, depth - 1)).collect();
                let name = ["and", "or"][joined - 1];
                json!({name: parts})
            }
        };
    }
    let path = ["s", "n", "b", "any", "o.s", "tags"][chance.below(6)];
    if path == "tags" {
        let has = [json!("alice"), json!("$actor.id"), json!(0), json!(true)][chance.below(4)].clone();
        return json!({path: {"has": has}});
    }
    match chance.below(10) {
        0 => json!({path: {"exists": chance.below(2) == 0}}),
        1 if path != "n" && path != "b" => {
            let pattern = ["al%", "%", "_ob", ""][chance.below(4)];
            json!({path: {"like": pattern}})
        }
        2 => {
            let id = ["alice", "bob"][chance.below(2)];
            json!({"$actor.id": {"eq": id}})
        }
        3 | 4 => {
            let items: Vec<Value> = (0..chance.below(4)).map(|_| operand(chance, path)).collect();
            let operator = ["in", "nin"][chance.below(2)];
            json!({path: {operator: items}})
        }
        _ => {
            let operator = ["eq", "ne", "lt", "lte", "gt", "gte"][chance.below(6)];
            json!({path: {operator: operand(chance, path)}})
        }
    }
}

/// Whether alice may read the record.
fn holds(rule: &Value, data: &Value) -> bool {
    truth(rule, data).unwrap_or(false)
}

/// Evaluates the rule in Kleene's three-valued logic: `None` means unknown.
fn truth(rule: &Value, data: &Value) -> Option<bool> {
    let (name, value) =
        rule.as_object().expect("an object").iter().next().map_or(("and", &Value::Null), |(a, b)| (a.as_str(), b));
    let parts = || value.as_array().map(Vec::as_slice).unwrap_or_default().iter().map(|part| truth(part, data));
    match name {
        "and" if parts().any(|part| part == Some(false)) => Some(false),
        "and" => parts().all(|part| part == Some(true)).then_some(true),
        "or" if parts().any(|part| part == Some(true)) => Some(true),
        "or" => parts().all(|part| part == Some(false)).then_some(false),
        "not" => truth(value, data).map(|truth| !truth),
        path => {
            let (operator, operand) = value.as_object().expect("operators").iter().next().expect("an operator");
            condition(path, operator, operand, data)
        }
    }
}

fn condition(path: &str, operator: &str, operand: &Value, data: &Value) -> Option<bool> {
    let found = match path {
        "$actor.id" => &json!("alice"),
        "o.s" => &data["o"]["s"],
        path => &data[path],
    };
    let known = |operand: &Value| match operand.as_str() {
        Some("$actor.id") => Some((json!("alice"), true)),
        Some("$actor.kind") => Some((json!("token"), true)),
        Some("$actor.claims.none") => None,
        _ => Some((operand.clone(), false)),
    };
    if found.is_null() {
        // An unknown operand makes the result unknown, even for a missing property.
        let items = operand.as_array().cloned().unwrap_or_else(|| vec![operand.clone()]);
        let unknown = items.iter().any(|item| known(item).is_none());
        return match operator {
            "exists" => Some(operand == &json!(false)),
            "in" => (!unknown).then_some(false),
            _ if unknown => None,
            _ => Some(false),
        };
    }
    let class = |value: &Value| match value {
        Value::String(_) => 1,
        Value::Number(_) => 2,
        Value::Bool(_) => 3,
        _ => 0,
    };
    let order = |other: &Value| match (found, other) {
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Number(a), Value::Number(b)) => a.as_f64().partial_cmp(&b.as_f64()),
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        _ => None,
    };
    match operator {
        "exists" => Some(operand == &json!(true)),
        "like" => {
            Some(found.as_str().is_some_and(|text| like(text.as_bytes(), operand.as_str().unwrap_or("").as_bytes())))
        }
        "has" => {
            let (operand, _) = known(operand)?;
            let is = |item: &Value| {
                class(item) == class(&operand)
                    && (item == &operand || item.as_f64().is_some_and(|n| Some(n) == operand.as_f64()))
            };
            Some(found.as_array().is_some_and(|items| items.iter().any(is)))
        }
        "in" | "nin" => {
            let (mut is_in, mut unknown) = (false, false);
            for item in operand.as_array().expect("a list") {
                match known(item) {
                    None => unknown = true,
                    Some((item, of_caller)) if class(&item) != class(found) => unknown |= of_caller,
                    Some((item, _)) => is_in |= order(&item) == Some(Ordering::Equal),
                }
            }
            if operator == "nin"
                && operand.as_array().is_some_and(|items| items.iter().any(|item| known(item).is_none()))
            {
                return None;
            }
            match (is_in, unknown) {
                // A match with a known item decides, whatever the unknown item is.
                (true, _) => Some(operator == "in"),
                (false, true) => None,
                (false, false) => Some(operator == "nin"),
            }
        }
        comparison => {
            let (operand, of_caller) = known(operand)?;
            if of_caller && class(&operand) != class(found) {
                return None;
            }
            let order = order(&operand);
            Some(match comparison {
                "eq" => order == Some(Ordering::Equal),
                "ne" => order != Some(Ordering::Equal),
                "lt" => order == Some(Ordering::Less),
                "lte" => matches!(order, Some(Ordering::Less | Ordering::Equal)),
                "gt" => order == Some(Ordering::Greater),
                _ => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
            })
        }
    }
}

fn like(text: &[u8], pattern: &[u8]) -> bool {
    match (pattern.first(), text.first()) {
        (None, None) => true,
        (Some(b'%'), _) => like(text, &pattern[1..]) || (!text.is_empty() && like(&text[1..], pattern)),
        (Some(b'_'), Some(_)) => like(&text[1..], &pattern[1..]),
        (Some(expected), Some(found)) => expected == found && like(&text[1..], &pattern[1..]),
        _ => false,
    }
}
