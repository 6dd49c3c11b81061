//! Claims: an unknown claim of a caller grants nothing.

use serde_json::{Value, json};

use super::{ask, send};
use crate::tokens::Issuer;

/// The issuer's tokens have the claims `role` (a string), `models` (a list) and `exp` (a number); the server's tokens
/// have none.
#[test]
fn claims_open_what_they_say_and_nothing_else() {
    let Some(issuer) = Issuer::start() else { return };
    let server = issuer.server();
    let api = server.client();
    let admin = std::fs::read_to_string(server.directory().join("data/admin.token")).expect("the first token");
    let admin = admin.trim();
    let schema = json!({"type": "object", "properties": {
        "team": {"type": "string"}, "n": {"type": "number"}, "tags": {"type": "array"}, "any": {},
    }});
    let model = |read: &Value| json!({"schema": schema, "rules": {"read": read}});
    let mut first = model(&json!({}));
    first["id"] = json!("film");
    send(&api, admin, "POST", "/models", &first).expect(201);
    for (id, data) in [
        ("reader", json!({"team": "reader", "n": 1, "tags": ["reader", "x"], "any": "reader"})),
        ("film", json!({"team": "film", "n": 2, "tags": [], "any": 5})),
        ("none", json!({})),
    ] {
        send(&api, admin, "POST", "/models/film/instances", &json!({"id": id, "data": data})).expect(201);
    }
    let token = send(&api, admin, "POST", "/tokens", &json!({"name": "plain", "role": "reader"})).expect(201).json();
    let plain = token["token"].as_str().expect("a token").to_owned();
    let oidc = issuer.token("reader");
    let (role, none) = ("$actor.claims.role", "$actor.claims.none");
    let (models, exp) = ("$actor.claims.models", "$actor.claims.exp");
    let all = vec!["film", "none", "reader"];
    let nobody: Vec<&str> = vec![];
    // A rule, the records that the issuer's reader sees under it, and those that a token without claims sees.
    let rows: Vec<(Value, Vec<&str>, Vec<&str>)> = vec![
        (json!({"team": {"eq": role}}), vec!["reader"], nobody.clone()),
        (json!({"team": {"ne": role}}), vec!["film"], nobody.clone()),
        (json!({"not": {"team": {"eq": role}}}), vec!["film", "none"], nobody.clone()),
        (json!({"not": {"team": {"ne": role}}}), vec!["none", "reader"], nobody.clone()),
        (json!({"team": {"in": models}}), vec!["film"], nobody.clone()),
        (json!({"team": {"nin": models}}), vec!["reader"], nobody.clone()),
        (json!({"not": {"team": {"in": models}}}), vec!["none", "reader"], nobody.clone()),
        (json!({"team": {"in": [none, role, "film"]}}), vec!["film", "reader"], vec!["film"]),
        (json!({"team": {"nin": [none, "film"]}}), nobody.clone(), nobody.clone()),
        (json!({"tags": {"has": role}}), vec!["reader"], nobody.clone()),
        // Absent, a list in place of a single value, a single value in place of a list.
        (json!({"team": {"eq": none}}), nobody.clone(), nobody.clone()),
        (json!({"team": {"ne": none}}), nobody.clone(), nobody.clone()),
        (json!({"not": {"team": {"eq": none}}}), nobody.clone(), nobody.clone()),
        (json!({"not": {"not": {"team": {"eq": none}}}}), nobody.clone(), nobody.clone()),
        (json!({"team": {"ne": models}}), nobody.clone(), nobody.clone()),
        (json!({"not": {"team": {"nin": role}}}), nobody.clone(), nobody.clone()),
        // A different type from the record's value.
        (json!({"team": {"ne": exp}}), nobody.clone(), nobody.clone()),
        (json!({"not": {"team": {"eq": exp}}}), vec!["none"], nobody.clone()),
        (json!({"any": {"ne": role}}), nobody.clone(), nobody.clone()),
        (json!({"not": {"any": {"eq": role}}}), vec!["none"], nobody.clone()),
        (json!({"n": {"lt": exp}}), vec!["film", "reader"], nobody.clone()),
        (json!({"not": {"n": {"lt": role}}}), vec!["none"], nobody.clone()),
        // The claim on the left side.
        (json!({role: {"eq": "reader"}}), all.clone(), nobody.clone()),
        (json!({"not": {role: {"eq": "writer"}}}), all.clone(), nobody.clone()),
        (json!({none: {"ne": "x"}}), nobody.clone(), nobody.clone()),
        (json!({"not": {none: {"eq": "x"}}}), nobody.clone(), nobody.clone()),
        (json!({"not": {role: {"eq": 5}}}), nobody.clone(), nobody.clone()),
        (json!({models: {"has": "film"}}), all.clone(), nobody.clone()),
        (json!({"not": {models: {"has": 5}}}), nobody.clone(), nobody.clone()),
        (json!({"$actor.kind": {"eq": "token"}}), nobody.clone(), all.clone()),
        (json!({"or": [{none: {"eq": "x"}}, {"team": {"eq": "$actor.id"}}]}), vec!["reader"], nobody.clone()),
        (json!({"or": []}), nobody.clone(), nobody.clone()),
    ];
    for (rule, by_oidc, by_plain) in rows {
        send(&api, admin, "PUT", "/models/film", &model(&rule)).expect(200);
        for (token, expected) in [(&oidc, by_oidc), (&plain, by_plain)] {
            assert_eq!(super::ids(&api, token, "/models/film/instances?sort=$id"), expected, "{rule}");
            for id in &all {
                let status = ask(&api, token, "GET", &format!("/models/film/instances/{id}")).status;
                assert_eq!(status, if expected.contains(id) { 200 } else { 404 }, "{id} under {rule}");
            }
        }
    }
}
