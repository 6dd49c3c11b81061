//! Rules without a server: values of callers, renames, what no caller can widen.

use std::sync::Arc;

use serde_json::{Value, json};
use snaphook_driver::{Actor, ActorKind, FILTER_CONDITIONS_MAX, FILTER_DEPTH_MAX, Filter};

use super::*;

fn schema() -> Schema {
    let schema = json!({"type": "object", "properties": {
        "s": {"type": "string"}, "n": {"type": "number"}, "any": {}, "tags": {"type": "array"}, "a.b": {"type": "string"},
        "before": {"type": "object", "properties": {"s": {"type": "string"}}},
    }});
    Schema::compile_stored(&Json::from_value(&schema)).unwrap()
}

fn rules(rules: &Value) -> Rules {
    Rules::new(&schema(), &Json::from_value(rules)).unwrap()
}

fn right(claims: Option<&Value>) -> Right {
    let actor = Actor::new(ActorKind::Oidc, "u1");
    let actor = match claims {
        Some(claims) => actor.with_claims(&Json::from_value(claims)),
        None => actor,
    };
    Right::of_actor(Some(&Arc::new(actor)))
}

fn subject(claims: Option<&Value>) -> Subject {
    right(claims).subject().unwrap().clone()
}

fn record(id: &str, data: &Value) -> Instance {
    Instance {
        id: id.to_owned(),
        model: "m".to_owned(),
        model_version: 1,
        revision: 1,
        position: 7,
        created_at: 1_000,
        updated_at: 2_000,
        data: Json::from_value(data),
    }
}

#[test]
fn who_is_asked() {
    let caller = |role, actor| snaphook_identity::Caller::new(actor, role, snaphook_identity::Scope::ALL);
    let token = || Actor::new(ActorKind::Token, "ci");
    use snaphook_identity::Role::{Admin, Reader, Writer};
    for (role, actor, is_asked) in
        [(Admin, token(), false), (Writer, token(), true), (Reader, token(), true), (Admin, Actor::anonymous(), true)]
    {
        assert_eq!(Right::of_caller(Some(&caller(role, actor))).subject().is_some(), is_asked, "{role}");
    }
    assert!(Right::of_caller(None).subject().is_some());
    assert!(Right::of_actor(None).subject().is_some());
}

/// What a caller has in a claim can only be more than what it has without: nothing becomes visible because a claim is absent,
/// null, of the wrong shape, or of another type than everything that it is compared with.
#[test]
fn a_claim_that_is_not_there_widens_nothing() {
    let places = ["s", "n", "any"];
    let mut filters = Vec::new();
    for place in places {
        for operator in ["eq", "ne", "lt", "lte", "gt", "gte", "in", "nin"] {
            filters.push(json!({place: {operator: "$actor.claims.c"}}));
        }
        filters.push(json!({place: {"in": ["$actor.claims.c"]}}));
        filters.push(json!({place: {"nin": ["$actor.claims.c"]}}));
    }
    for operator in ["eq", "ne", "lt", "gte"] {
        filters.push(json!({"$actor.claims.c": {operator: "x"}}));
        filters.push(json!({"$actor.claims.c": {operator: 5}}));
    }
    filters.push(json!({"$actor.claims.c": {"in": ["x", "y"]}}));
    filters.push(json!({"$actor.claims.c": {"nin": ["x", "y"]}}));
    filters.push(json!({"$actor.claims.c": {"like": "%"}}));
    filters.push(json!({"$actor.claims.c": {"has": "x"}}));
    let plain = filters.clone();
    let not: Vec<Value> = plain.iter().map(|filter| json!({"not": filter})).collect();
    let twice: Vec<Value> = plain.iter().map(|filter| json!({"not": {"and": [{"not": filter}, {}]}})).collect();
    let records =
        [json!({}), json!({"s": "x", "n": 5, "any": "x"}), json!({"s": "", "n": -5.5, "any": 5}), json!({"any": true})];
    for filter in plain.iter().chain(&not).chain(&twice) {
        let rules = rules(&json!({"read": filter}));
        for (claims, why) in [
            (None, "no claims"),
            (Some(json!({"c": null})), "null"),
            (Some(json!({"c": {"x": "x"}})), "an object"),
            (Some(json!({"c": [["x"]]})), "a list of lists"),
        ] {
            let subject = subject(claims.as_ref());
            for data in &records {
                let seen = rules.may_read(&subject, 0, &record("a", data), data);
                assert!(!seen, "{why}: {filter} shows {data}");
            }
        }
    }
}

#[test]
fn changes_are_compared_on_both_sides() {
    let rules = rules(&json!({
        "create": {"after.s": {"eq": "$actor.id"}, "after.$id": {"like": "u1-%"}},
        "update": {"after.s": {"eq": "$before.s"}, "before.$updated_at": {"lt": "$now"}, "after.before.s": {"exists": false}},
        "delete": {"before.n": {"gt": 0}},
    }));
    let subject = subject(None);
    let may = |operation, now, before: Option<Value>, after: Option<Value>| {
        let (old, new) = (record("u1-a", &Value::Null), record("u1-a", &Value::Null));
        let before = before.as_ref().map(|data| InstanceView::new(&old, data));
        let after = after.as_ref().map(|data| InstanceView::new(&new, data));
        rules.may_change(operation, &subject, now, before.as_ref(), after.as_ref())
    };
    let (x, y) = (json!({"s": "x"}), json!({"s": "y"}));
    assert!(may(Operation::Create, 0, None, Some(json!({"s": "u1"}))));
    assert!(!may(Operation::Create, 0, None, Some(x.clone())));
    assert!(may(Operation::Update, 3_000, Some(x.clone()), Some(x.clone())));
    assert!(!may(Operation::Update, 2_000, Some(x.clone()), Some(x.clone())), "too early");
    assert!(!may(Operation::Update, 3_000, Some(x.clone()), Some(y)));
    assert!(!may(Operation::Update, 3_000, Some(json!({})), Some(json!({}))), "nothing equals what is not there");
    assert!(!may(Operation::Update, 3_000, Some(x), Some(json!({"s": "x", "before": {"s": "x"}}))));
    assert!(may(Operation::Delete, 0, Some(json!({"n": 1})), None));
    assert!(!may(Operation::Delete, 0, Some(json!({"n": 0})), None));
    assert!(!may(Operation::Read, 0, None, None) && rules.is_for_nobody(Operation::Read));
    assert_eq!(rules.readable(&subject, 0), nothing());
}

#[test]
fn names_are_renamed_in_paths_and_values() {
    let before = json!({
        "read": {"or": [{"s": {"eq": "$actor.id"}}, {"path": "s", "ne": "s"}, {"not": {"before.s": {"eq": "$before.s2"}}}], "a.b": {"eq": "s"}, "$id": {"eq": "s"}},
        "update": {"before.s": {"eq": "$after.s"}, "after.s.x": {"in": ["$before.s", "s", "$$s"]}, "after.before.s": {"exists": true}},
    });
    let renames = [("s", "$t"), ("a.b", "c"), ("before", "s")].map(|(old, new)| (old.to_owned(), new.to_owned()));
    let after = renamed(&Json::from_value(&before), &renames).to_value().unwrap();
    let expected = json!({
        "read": {"or": [{"$$t": {"eq": "$actor.id"}}, {"ne": "s", "path": "$$t"}, {"not": {"s.s": {"eq": "$before.s2"}}}], "c": {"eq": "s"}, "$id": {"eq": "s"}},
        "update": {"before.$$t": {"eq": "$after.$$t"}, "after.$$t.x": {"in": ["$before.$$t", "s", "$$s"]}, "after.s.s": {"exists": true}},
    });
    assert_eq!(after, expected);
}

/// Whatever a rule and a client ask together, every store takes it.
#[test]
fn a_rule_and_a_clients_filter_are_within_the_bounds_of_stores() {
    let list = json!({"any": {"in": ["$actor.claims.t", "$actor.claims.n", "$actor.claims.b"]}});
    let deep = (0..4).fold(
        json!({"any": {"eq": 1}, "s": {"eq": "x"}}),
        |inner, _| json!({"or": [inner, {"s": {"eq": "y"}}], "n": {"gt": 1}}),
    );
    let rule = json!({"not": {"and": vec![list; 18]}, "or": [deep]});
    let rules = rules(&json!({"read": rule}));
    let readable = rules.readable(&subject(Some(&json!({"t": "x", "n": 1, "b": true}))), 0);
    let condition = |at: usize| {
        Filter::Condition(snaphook_driver::Condition {
            path: vec![format!("p{at}")].into(),
            operator: snaphook_driver::Operator::Eq(json!(at)),
        })
    };
    let asked = (0..8).fold(Filter::And((0..56).map(condition).collect()), |inner, at| {
        Filter::And(vec![if at % 2 == 0 {
            Filter::Not(Box::new(Filter::And(vec![inner])))
        } else {
            Filter::Or(vec![inner, condition(at)])
        }])
    });
    let size = both(asked, readable).size();
    assert!(size.depth <= FILTER_DEPTH_MAX && size.conditions <= FILTER_CONDITIONS_MAX, "{size:?}");
}
