//! The example hooks in Rust, built and bound as an author would: `hooks/examples`.

use serde_json::json;

use crate::peer::{Peer, PeerResponse};
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
    // A single attempt, so that the denial is recorded at once.
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

/// A component that was built against a future version of the WIT package.
#[test]
fn a_newer_version_of_the_package_is_refused_with_the_way_out() {
    let Some(mut check) = guest("check.wasm") else { return };
    // Only the names of its imports contain the version.
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
    for part in ["snaphook:hook@0.9.0", "this server supports 0.1.0", "build the hook against"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(events(), before, "nothing is stored");
    assert_eq!(api.get("/models/order/hooks").expect(200).json()["preCreate"], json!([]));
    api.post("/models/order/instances", &json!({"data": {"total": 5_000_000}})).expect(201);
}

/// The examples in C and for Javy. On a busy machine the Python example takes longer to compile than a client waits, so
/// it is among the tests that compile.
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

/// A component that exports only one of the two functions is rejected in phases that call the other.
#[test]
fn a_rust_hook_is_refused_in_phases_that_it_has_no_function_for() {
    let Some(fetch) = guest("fetch.wasm") else { return };
    let server = server("");
    let api = server.client();
    api.post("/models", &orders()).expect(201);
    let bind = |phase: &str| {
        let path = format!("/models/order/hooks/{phase}?name=fetch");
        api.request("PUT", &path).body("application/wasm", fetch.clone()).send()
    };
    let refused = bind("preUpdate").expect_problem(422, "invalid");
    let detail = refused["detail"].as_str().unwrap_or_default();
    assert!(
        detail.starts_with("hook `fetch` cannot be bound: the component exports no handler for `preUpdate`"),
        "{detail}"
    );
    assert!(detail.contains("expected the function `check`") && detail.ends_with("it exports `react`"), "{detail}");
    assert_eq!(api.get("/models/order/hooks/preUpdate").expect(200).json(), json!([]));
    bind("postUpdate").expect(200);
}

/// `wasi:http` does not bypass the grants: this component really sends with it.
#[test]
fn a_request_over_wasi_http_needs_the_same_grant() {
    let Some(fetch) = guest("fetch.wasm") else { return };
    for is_granted in [true, false] {
        let peer = Peer::start(|asked| PeerResponse::new(418, asked.body.iter().rev().copied().collect::<Vec<u8>>()));
        let open = peer.url("/open/*");
        let grants = if is_granted { vec![open.as_str()] } else { vec!["https://example.com/*"] };
        let server = Server::start_with(ServerOptions {
            // A single attempt, so that the denial is recorded at once.
            hooks: "max-attempts = 1".into(),
            tables: format!("[[grants]]\nmodel = 'note'\nphase = 'postCreate'\nhttp = {grants:?}"),
            ..ServerOptions::default()
        });
        let api = server.client();
        api.post("/models", &json!({"id": "note", "schema": {"type": "object"}})).expect(201);
        let path = "/models/note/hooks/postCreate";
        api.request("PUT", &format!("{path}?name=fetch")).body("application/wasm", fetch.clone()).send().expect(200);
        let send = |target: &str| {
            let data = json!({"authority": format!("127.0.0.1:{}", peer.port()), "path": target, "body": "abc"});
            api.post("/models/note/instances", &json!({ "data": data })).expect(201);
        };
        let failed = |target: &str| {
            send(target);
            let error = eventually("the request is denied", || {
                api.get("/errors").expect(200).json()["items"].get(0).map(ToString::to_string)
            });
            assert!(error.contains("HttpRequestDenied") && error.contains("\"fetch\""), "{error}");
            let log = api.get(&format!("{path}/log")).expect(200).text();
            // The log names the missing grant, as for the package's own `http`.
            assert!(log.contains("asked for http") && log.contains(&peer.url(target)), "{log}");
        };
        if is_granted {
            send("/open/a?b=c");
            let log = eventually("the answer is in the log", || {
                let log = api.get(&format!("{path}/log")).expect(200).text();
                log.contains("wasi:http answered").then_some(log)
            });
            assert!(log.contains("wasi:http answered 418: cba"), "{log}");
            let asked = &peer.asked()[0];
            assert_eq!((&*asked.method, &*asked.target, &*asked.body), ("POST", "/open/a?b=c", &b"abc"[..]));
            assert_eq!(asked.headers("content-type"), ["text/plain"]);
            // The same host, but a path without a grant.
            failed("/closed");
            assert_eq!(peer.asked().len(), 1);
        } else {
            failed("/open/a");
            assert_eq!(peer.connections(), 0, "nobody was asked");
        }
    }
}
