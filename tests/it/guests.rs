//! The example hooks in Rust, built and bound as an author would: `hooks/examples`.

use serde_json::json;

use crate::support::{Server, ServerOptions, eventually, guest};

fn orders() -> serde_json::Value {
    let schema = json!({"type": "object", "required": ["total"], "properties": {
        "total": {"type": "number"}, "currency": {"type": "string"}}});
    json!({"id": "order", "schema": schema})
}

fn server(tables: &str) -> Server {
    Server::start_with(ServerOptions { tables: tables.into(), ..ServerOptions::default() })
}

#[test]
fn a_rust_component_accepts_amends_and_refuses() {
    let Some(check) = guest("check.wasm") else { return };
    let server = server("[[grants]]\nmodel = 'order'\nphase = 'preCreate'\namend = true");
    let api = server.client();
    api.post("/models", &orders()).expect(201);
    api.request("PUT", "/models/order/hooks/preCreate").body("application/wasm", check.clone()).send().expect(200);

    let create = |body: &str| {
        api.request("POST", "/models/order/instances").body("application/json", format!("{{\"data\": {body}}}")).send()
    };
    let accepted = create(r#"{"total": 12345678901234567.890123456789}"#);
    let refused = accepted.expect_problem(422, "rejected");
    assert_eq!(refused["errors"], json!([{"pointer": "/data/total", "message": "at most a million"}]), "{refused}");
    let amended = create(r#"{"total": 0.10000000000000000001, "currency": "eur"}"#).expect(201).text();
    assert!(amended.contains(r#""currency":"EUR""#) && amended.contains("0.10000000000000000001"), "{amended}");
    assert_eq!(create(r#"{"total": 1, "currency": "EUR"}"#).expect(201).json()["data"]["currency"], "EUR");

    let bound = api.request("GET", "/models/order/hooks/preCreate").header("Accept", "application/wasm").send();
    assert!(bound.expect(200).body == check, "the artifact comes back as it was bound");
}

#[test]
fn a_rust_component_writes_after_the_change_when_it_may() {
    let Some(audit) = guest("audit.wasm") else { return };
    let grant = "[[grants]]\nmodel = 'order'\nphase = 'postCreate'\nwrite = ['audit']";
    // One try, so that the denial is there at once.
    for (tables, is_granted) in [(grant, true), ("", false)] {
        let server = Server::start_with(ServerOptions {
            hooks: "max-attempts = 1".into(),
            tables: tables.into(),
            ..ServerOptions::default()
        });
        let api = server.client();
        api.post("/models", &orders()).expect(201);
        let schema = json!({"type": "object", "properties": {"what": {"type": "string"}}});
        api.post("/models", &json!({"id": "audit", "schema": schema})).expect(201);
        api.request("PUT", "/models/order/hooks/postCreate").body("application/wasm", audit.clone()).send().expect(200);
        let order = api.post("/models/order/instances", &json!({"id": "a", "data": {"total": 1}})).expect(201).json();
        if is_granted {
            let path = format!("/models/audit/instances/at-{}", order["position"]);
            let note = eventually("the change is noted", || {
                let answer = api.get(&path);
                (answer.status == 200).then(|| answer.json())
            });
            assert_eq!(note["data"]["what"], "order/a was created");
        } else {
            let error =
                eventually("the denial is kept", || api.get("/errors").expect(200).json()["items"].get(0).cloned());
            assert!(error.to_string().contains("write = ['audit']"), "it says what would grant it: {error}");
            assert_eq!(api.get("/models/audit/instances").expect(200).json()["items"], json!([]));
        }
    }
}

/// A component that was built against a version of the WIT package that is not there yet.
#[test]
fn a_newer_version_of_the_package_is_refused_with_the_way_out() {
    let Some(mut check) = guest("check.wasm") else { return };
    // The names of its imports are all that tells of the version.
    let places: Vec<usize> = (0..check.len() - 6).filter(|at| check[*at..].starts_with(b"@0.1.0")).collect();
    assert!(!places.is_empty());
    places.into_iter().for_each(|at| check[at..at + 6].copy_from_slice(b"@0.9.0"));
    let server = server("");
    let api = server.client();
    api.post("/models", &orders()).expect(201);
    let events = || api.get("/events").expect(200).json()["items"].as_array().unwrap().len();
    let before = events();
    let answer = api.request("PUT", "/models/order/hooks/preCreate").body("application/wasm", check).send();
    let problem = answer.expect(422).json();
    let text = problem.to_string();
    for part in ["snaphook:hook@0.9.0", "this server speaks 0.1.0", "build the hook against"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(events(), before, "nothing is stored");
    assert_eq!(api.get("/models/order/hooks").expect(200).json()["preCreate"], json!([]));
    api.post("/models/order/instances", &json!({"data": {"total": 5_000_000}})).expect(201);
}

/// The examples in C and for Javy. The one in Python takes longer to compile than a client waits on a busy machine; the
/// suite of the engines runs Python.
#[test]
fn hooks_in_other_languages_decide() {
    for (name, amends) in [("check_c", false), ("javy_check", true)] {
        let Some(code) = guest(&format!("{name}.wasm")) else { continue };
        let server = server("[[grants]]\nmodel = 'order'\nphase = 'preCreate'\namend = true");
        let api = server.client();
        api.post("/models", &orders()).expect(201);
        api.request("PUT", "/models/order/hooks/preCreate").body("application/wasm", code).send().expect(200);
        let create = |data: serde_json::Value| api.post("/models/order/instances", &json!({ "data": data }));
        create(json!({"total": 5})).expect(201);
        let refused = create(json!({"total": 5_000_000})).expect_problem(422, "rejected");
        assert_eq!(refused["errors"], json!([{"pointer": "/data/total", "message": "at most a million"}]), "{name}");
        if amends {
            let amended = create(json!({"total": 5, "currency": "eur"})).expect(201).json();
            assert_eq!(amended["data"]["currency"], "EUR", "{name}");
        }
    }
}
