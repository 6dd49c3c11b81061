//! Sandboxed modules: components with the same hooks. `tests/guests/module` defines what each task of the guest does.

use std::sync::Arc;

use base64::Engine as _;
use serde_json::json;

use super::{example, has_line, module, options, says};
use crate::peer::Peer;
use crate::support::{Client, Response, Server, create_orders, eventually, guest};

/// The configuration of a component with its settings.
fn component(name: &str, settings: &str) -> String {
    format!("[[server.modules]]\nname = '{name}'\ncomponent = 'module.wasm'\n{settings}\n")
}

/// A server with the guest as `module.wasm`.
fn serve(tables: &str) -> Option<Server> {
    let folder = tempfile::tempdir().expect("a folder for the test");
    std::fs::create_dir(folder.path().join("hooks")).expect("a folder for hooks");
    std::fs::write(folder.path().join("module.wasm"), guest("module.wasm")?).expect("a component");
    Some(Server::start_in(Arc::new(folder), options(tables)))
}

fn ask(api: &Client, task: &str) -> Response {
    api.request("GET", "/models").header("x-do", task).send()
}

#[test]
fn every_hook_takes_its_part() {
    let Some(server) = serve(&component("m", "config = { a = 1 }")) else { return };
    let api = server.client();
    let plain = ask(&api, "nothing").expect(200);
    // Each hook has a separate sandbox.
    assert_eq!((plain.header("x-calls"), plain.header("x-modules")), (Some("1"), Some("{\"a\":1}")));
    let noted = ask(&api, "note").expect(200);
    assert_eq!(noted.header("x-note"), Some("GET /models"));
    assert_eq!(ask(&api, "nothing").header("x-note"), None, "another request has another note");
    let answered = ask(&api, "answer");
    assert_eq!(
        (answered.status, answered.text(), answered.header("content-type")),
        (418, "tea".into(), Some("text/plain"))
    );
    // The module changes the target to `/healthz?x`.
    let rewritten = ask(&api, "rewrite").expect_problem(400, "bad-request");
    assert_eq!(rewritten["detail"], "unknown parameter `x`");
    ask(&api, "replace").expect(201);
    assert_eq!(api.get("/models/made").expect(200).json()["id"], "made");
    let refused = ask(&api, "refuse").expect(403).json();
    assert_eq!(refused["detail"], "rejected by the module `m`");
    assert_eq!(ask(&api, "fail").status, 451);
    let page = api.request("GET", "/nothing").header("x-do", "page").send().expect(410);
    assert_eq!((page.text().as_str(), page.header("content-type")), ("was 404", Some("text/plain")));
    assert_eq!(ask(&api, "response-500").status, 503);

    // Bodies are complete, in both directions.
    let large = "x".repeat(300_000);
    let echo = api.request("POST", "/any").header("x-do", "answer-body").body("text/plain", large.clone()).send();
    assert!(echo.expect(200).text() == large);
    assert_eq!(api.request("GET", "/healthz").header("x-do", "shout").send().text(), "{\"STATUS\":\"OK\"}");
    let seen = ask(&api, "seen").expect(200);
    let seen = seen.header("x-note").expect("a note").to_owned();
    assert!(
        seen.starts_with(&format!("HTTP/1.1 {} false 127.0.0.1:", server.address())) && seen.ends_with(" 0"),
        "{seen}"
    );
    let head = api.request("HEAD", "/models").header("x-do", "answer").send();
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (418, Some("3"), 0));
}

#[test]
fn modules_are_asked_in_their_order_whatever_they_are() {
    let tables = [
        component("first", "config = { n = 1 }"),
        module("hello", &example("endpoint"), ""),
        component("second", "config = { n = 2 }"),
    ];
    let Some(server) = serve(&tables.concat()) else { return };
    let api = server.client();
    assert_eq!(api.get("/models").expect(200).headers("x-modules"), ["{\"n\":1}", "{\"n\":2}"]);
    // The library between them responds to requests that the first module declines.
    assert_eq!(api.get("/hello?you").expect(200).text(), "hello you\n");
    let first = api.request("GET", "/hello?you").header("x-do", "answer").send();
    assert_eq!((first.status, first.text()), (418, "tea".into()), "the first is asked before the library");
    assert_eq!(ask(&api, "mark").expect(200).text(), "{\"n\":1} {\"n\":2}");
    assert_eq!(ask(&api, "mark-ok").expect(200).text(), "{\"n\":1}", "OK hides the hook from those after it");
}

#[test]
fn what_goes_wrong_costs_its_request() {
    for (task, status, says_of_it) in [
        ("trap", 500, "failed (trap): the module trapped"),
        ("loop", 504, "the limit `timeout` is 300 ms"),
        ("memory", 500, "the limit `memory` is 64 MiB"),
        ("stack", 500, "failed (trap)"),
        ("calls", 500, "10001 host calls"),
        ("flood", 500, "the limit is 64 KiB"),
        ("note-large", 500, "a note of 4097 bytes"),
        ("refuse-200", 500, "which is not a status from 400 to 599"),
        ("answer-103", 500, "it set a status"),
        ("many", 500, "it set a header"),
        ("long", 500, "it set a header"),
        ("split", 500, "it set a header"),
        ("frame", 500, "it set a header"),
        ("method", 500, "it set a method"),
        ("uri", 500, "it set a path"),
        ("large", 500, "it set a body"),
        ("response-trap", 500, "failed (trap): the module trapped"),
    ] {
        // Each uses a new server, because the third failure would deactivate the module. Tasks that test other limits
        // get enough time.
        let timeout = if task == "loop" { "300 ms" } else { "1 m" };
        let grant = format!("[[grants]]\nmodule = 'm'\nread = ['order']\ntimeout = '{timeout}'\n");
        let Some(server) = serve(&(component("m", "") + &grant)) else { return };
        let api = server.client();
        let failed = ask(&api, task);
        assert_eq!(failed.header("content-type"), Some("application/problem+json"), "{task}: {}", failed.text());
        let problem = failed.expect(status).json();
        assert_eq!(problem["detail"], "the module `m` failed; see the server's log", "{task}");
        says(&server, says_of_it);
        says(&server, "module `m` failed: ");
        ask(&api, "nothing").expect(200);
        api.get("/readyz").expect(200);
        assert!(!has_line(&server, "the hook"), "{:?}", server.log());
    }
}

#[test]
fn nothing_is_granted_by_default() {
    let peer = Peer::saying("never");
    let others = format!(
        "{}[[grants]]\nmodule = 'other'\nread = ['*']\nsecret = ['*']\n[[grants]]\nmodel = '*'\nphase = '*'\nread = ['*']\n",
        component("m", "") + &component("other", "")
    );
    let Some(server) = serve(&others) else { return };
    let api = server.client();
    create_orders(&api, "order");
    let request = api.request("GET", "/models").header("x-do", "capabilities").header("x-url", &peer.url("/"));
    let answer = request.send().expect(200);
    // The last hook sets the header.
    assert_eq!(answer.header("x-note"), Some("fine denied denied denied not-found"));
    for opens in ["read = ['order']", "write = ['order']", "secret = ['key']"] {
        says(&server, &format!(r"add to config.toml:\n[[grants]]\nmodule = 'm'\n{opens} "));
    }
    assert_eq!(peer.connections(), 0);
}

#[test]
fn what_is_granted_works_and_is_the_modules_own_doing() {
    let peer = Peer::saying("hello");
    let grant = format!(
        "{}[[grants]]\nmodule = 'm*'\nread = ['order']\nwrite = ['order']\nhttp = ['{}']\nsecret = ['key']\n\
         process = [{{ program = '/usr/bin/echo', args = ['hello'] }}]\n",
        component("m", ""),
        peer.url("/*")
    );
    let Some(server) = serve(&grant) else { return };
    let api = server.client();
    create_orders(&api, "order");
    api.put("/secrets/key", &"s3cret".into()).expect(204);
    let request = api.request("GET", "/models").header("x-do", "capabilities").header("x-url", &peer.url("/"));
    let answer = request.header("X-Request-Id", "r-1").send().expect(200);
    assert_eq!(answer.header("x-note"), Some("fine fine fine fine fine"));
    let events = api.get("/events?model=order").expect(200).json();
    let made = events["items"].as_array().expect("events").iter().find(|event| event["actor"]["kind"] == "module");
    let made = made.unwrap_or_else(|| panic!("no event of the module: {events}"));
    assert_eq!((&made["actor"], &made["request_id"]), (&json!({"id": "m", "kind": "module"}), &json!("r-1")));
    ask(&api, "log").expect(200);
    says(&server, "first");
    assert!(!server.log().iter().any(|line| line.starts_with("ERROR second")), "{:?}", server.log());
}

#[test]
fn three_strikes_end_it_and_a_new_component_brings_it_back() {
    for optional in [false, true] {
        let Some(server) = serve(&component("m", &format!("optional = {optional}"))) else { return };
        let api = server.client();
        for _ in 0..3 {
            ask(&api, "trap").expect(500);
        }
        let after = ask(&api, "nothing");
        assert_eq!(after.status, if optional { 200 } else { 503 });
        assert_eq!(after.header("x-calls"), None);
        says(&server, "module `m` is deactivated: it failed 3 times within a minute");
        let readiness = api.get("/readyz");
        assert_eq!(readiness.status, if optional { 200 } else { 503 });
        assert!(readiness.text().contains("`m`") || readiness.text().contains("\"m\""), "{}", readiness.text());
        let metrics = api.get("/metrics").expect(200).text();
        for line in [
            "snaphook_module_active{module=\"m\"} 0",
            "snaphook_module_failures_total{module=\"m\",reason=\"exception\"} 3",
        ] {
            assert!(metrics.contains(line), "{metrics}");
        }
        // A custom section makes it a different component with the same behaviour.
        let file = server.directory().join("module.wasm");
        let bytes = std::fs::read(&file).expect("the component");
        std::fs::write(file.with_extension("new"), [&bytes[..], b"\x00\x05\x04same"].concat()).expect("a file");
        std::fs::rename(file.with_extension("new"), &file).expect("a rename");
        eventually("it is back", || (ask(&api, "nothing").header("x-calls") == Some("1")).then_some(()));
    }
}

#[test]
fn a_broken_component_leaves_the_one_before_and_settings_change() {
    let Some(server) = serve(&component("m", "config = { n = 1 }")) else { return };
    let api = server.client();
    let file = server.directory().join("module.wasm");
    // The server starts watching the file shortly after the start.
    eventually("it is refused", || {
        std::fs::write(&file, b"no component").expect("a file");
        has_line(&server, "the module `m` cannot be used").then_some(())
    });
    assert_eq!(api.get("/models").expect(200).header("x-modules"), Some("{\"n\":1}"));
    std::fs::write(&file, guest("module.wasm").expect("a guest")).expect("a file");
    let config = server.config_file();
    let text = std::fs::read_to_string(&config).expect("the config");
    std::fs::write(&config, text.replace("n = 1", "n = 2")).expect("a file");
    eventually("new settings", || {
        (api.get("/models").expect(200).header("x-modules") == Some("{\"n\":2}")).then_some(())
    });
}

/// The Rust templates of `snaphook module new`, as `cargo xtask guests` builds them.
#[test]
fn the_templates_in_rust_work() {
    let (Some(guard), Some(quote)) = (guest("module_rust.wasm"), guest("endpoint_rust.wasm")) else { return };
    let folder = tempfile::tempdir().expect("a folder for the test");
    std::fs::create_dir(folder.path().join("hooks")).expect("a folder for hooks");
    for (name, bytes) in [("guard.wasm", guard), ("quote.wasm", quote)] {
        std::fs::write(folder.path().join(name), bytes).expect("a component");
    }
    let tables = "[[server.modules]]\nname = 'guard'\ncomponent = 'guard.wasm'\n\
                  config = { user = 'me', password = 'secret' }\n\
                  [[server.endpoints]]\nname = 'quote'\npath = '/quote'\ncomponent = 'quote.wasm'\n";
    let server = Server::start_in(Arc::new(folder), options(tables));
    let api = server.client();
    let refused = api.get("/quote/a");
    assert_eq!(refused.header("www-authenticate"), Some("Basic realm=\"snaphook\", charset=\"UTF-8\""));
    assert_eq!(refused.expect(401).json()["detail"], "rejected by the module `guard`");
    let with = |pair: &str| {
        let value = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair));
        api.request("GET", "/quote/a?b").header("Authorization", &value).send()
    };
    assert_eq!(with("me:Secret").status, 401);
    assert_eq!(with("me:secret").expect(200).text(), "hello anonymous, this is /quote/a?b\n");
    says(&server, "asked for /quote/a?b");
}
