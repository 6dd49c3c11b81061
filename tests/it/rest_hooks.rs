//! `/models/{model}/hooks`, row by row, with JavaScript; and how hooks affect writes.

use serde_json::{Value, json};

use crate::support::{Server, ServerOptions, create_orders, eventually};

const ACCEPT_ALL: &str = "export function preCreate() {}";
const REJECT: &str = r#"export function preCreate({ after }) {
    if (after.name === "bad") throw new Reject("no such name", { "/name": "is bad" });
}"#;
const PHASES: [&str; 6] = ["preCreate", "postCreate", "preUpdate", "postUpdate", "preDelete", "postDelete"];

fn sha256(text: &str) -> String {
    use sha2::Digest;
    format!("{:x}", sha2::Sha256::digest(text))
}

fn start() -> Server {
    let server = Server::start();
    create_orders(&server.client(), "order");
    server
}

fn start_granted(grants: &str) -> Server {
    let server = Server::start_with(ServerOptions { tables: grants.into(), ..ServerOptions::default() });
    create_orders(&server.client(), "order");
    server
}

#[test]
fn bind_read_replace_remove() {
    let server = start();
    let api = server.client();
    let none: Value =
        PHASES.iter().map(|phase| ((*phase).to_owned(), json!([]))).collect::<serde_json::Map<_, _>>().into();
    assert_eq!(api.get("/models/order/hooks").expect(200).json(), none);
    let path = "/models/order/hooks/preCreate";
    assert_eq!(api.get(path).expect(200).json(), json!([]));

    let put =
        api.request("PUT", &format!("{path}?name=check")).body("text/javascript", REJECT).send().expect(200).json();
    let hook = &put[0];
    let keys: Vec<&String> = hook.as_object().expect("an object").keys().collect();
    assert_eq!(
        keys,
        [
            "name",
            "engine",
            "artifact",
            "size",
            "mode",
            "grants",
            "position",
            "origin",
            "state",
            "top_level",
            "language"
        ]
    );
    assert_eq!(
        (&hook["name"], &hook["engine"], &hook["mode"]),
        (&json!("check"), &json!("quickjs"), &json!("enforce"))
    );
    assert_eq!(hook["size"], REJECT.len());
    let artifact = hook["artifact"].as_str().expect("text");
    assert!(artifact.starts_with("sha256:") && artifact.len() == 71, "{artifact}");
    assert_eq!(api.get(path).expect(200).json(), put);
    assert_eq!(api.get("/models/order/hooks").expect(200).json()["preCreate"], put);

    // Binding creates an event and a new version of the model.
    let model = api.get("/models/order").expect(200).json();
    assert_eq!((&model["version"], &model["hooks"]["preCreate"]), (&json!(2), &json!(["check"])));
    let events = api.get("/events?type=hook.updated").expect(200).json();
    assert_eq!(events["items"][0]["position"], hook["position"]);
    assert_eq!(api.get("/models/order?version=1").expect(200).json()["hooks"], json!({}));

    // The code can be downloaded.
    let code = api.request("GET", path).header("Accept", "text/javascript").send().expect(200);
    assert_eq!((code.text().as_str(), code.header("content-type")), (REJECT, Some("text/javascript")));
    api.request("GET", path).header("Accept", "application/wasm").send().expect_problem(404, "not-found");
    assert_eq!(api.request("GET", path).header("Accept", "*/*").send().expect(200).json(), put);

    let replaced = api.put_javascript("order", "preCreate", ACCEPT_ALL).expect(200).json();
    assert_eq!(replaced.as_array().expect("a chain").len(), 1);
    assert_ne!(replaced[0]["artifact"], hook["artifact"]);
    api.delete(path).expect(204);
    assert_eq!(api.get(path).expect(200).json(), json!([]));
    assert_eq!(api.get("/events?type=hook.deleted").expect(200).json()["items"].as_array().expect("items").len(), 1);
    api.request("GET", path).header("Accept", "text/javascript").send().expect_problem(404, "not-found");
}

#[test]
fn typescript_is_taken_too() {
    let server = start();
    let api = server.client();
    let path = "/models/order/hooks/preCreate";
    let source = "export function preCreate({ after }: { after: { name: string } }): void {\n  const name: string = after.name;\n  if (name === 'bad') throw new Reject('typed');\n}";
    api.request("PUT", path).body("application/typescript", source).send().expect(200);
    let problem =
        api.post("/models/order/instances", &json!({"data": {"name": "bad"}})).expect_problem(422, "rejected");
    assert_eq!(problem["detail"], "typed");
    let code = api.request("GET", path).header("Accept", "application/typescript").send().expect(200);
    assert_eq!((code.text().as_str(), code.header("content-type")), (source, Some("application/typescript")));
}

#[test]
fn chains_run_in_order() {
    let server = start_granted("[[grants]]\nmodel = 'order'\nphase = 'preCreate'\nhook = 'add'\namend = true");
    let api = server.client();
    let add = "export function preCreate({ after }) { return { ...after, count: (after.count ?? 0) + 1 }; }";
    let check =
        "export function preCreate({ after }) { if (after.count !== 1) throw new Reject('count is ' + after.count); }";
    let chain = |first: &str, second: &str| {
        let binding = |name: &str| {
            let source = if name == "add" { add } else { check };
            json!({"name": name, "engine": "quickjs", "source": source})
        };
        json!({"chain": [binding(first), binding(second)]})
    };
    let path = "/models/order/hooks/preCreate";
    let bound = api.put(path, &chain("add", "check")).expect(200).json();
    assert_eq!((&bound[0]["name"], &bound[1]["name"]), (&json!("add"), &json!("check")));
    assert_eq!((&bound[0]["grants"]["amend"], &bound[1]["grants"]["amend"]), (&json!(true), &Value::Null), "{bound}");
    let made = api.post("/models/order/instances", &json!({"data": {"name": "x"}})).expect(201).json();
    assert_eq!(made["data"]["count"], 1);
    let events = api.get("/events?type=instance.created").expect(200).json();
    let hooks = &events["items"][0]["hooks"];
    assert_eq!((&hooks[0]["name"], &hooks[1]["name"]), (&json!("add"), &json!("check")), "{hooks}");
    assert_eq!(hooks[0]["artifact"], bound[0]["artifact"]);
    assert!(hooks[0]["ms"].is_number(), "{hooks}");
    // A chain has no single artifact.
    let code = api.request("GET", path).header("Accept", "text/javascript").send();
    assert!(matches!(code.status, 400 | 404 | 409), "{}", code.text());
    api.put(path, &chain("check", "add")).expect(200);
    let problem = api.post("/models/order/instances", &json!({"data": {"name": "x"}})).expect_problem(422, "rejected");
    assert_eq!(problem["hook"], "check");
    // An artifact that the server already has can be bound by name.
    let again = json!({"chain": [{"name": "again", "engine": "quickjs", "artifact": bound[0]["artifact"]}]});
    assert_eq!(api.put(path, &again).expect(200).json()[0]["artifact"], bound[0]["artifact"]);
}

#[test]
fn what_cannot_work_is_refused_at_once() {
    let server = start();
    let api = server.client();
    let path = "/models/order/hooks/preCreate";
    let refused = |answer: crate::support::Response, expected: &str| {
        assert!(matches!(answer.status, 400 | 404 | 422), "{}", answer.text());
        let detail = answer.json()["detail"].as_str().expect("text").to_owned();
        assert!(detail.contains(expected), "{detail} lacks {expected}");
    };
    refused(api.put_javascript("order", "preCreate", "export function preCreate( {"), "1");
    refused(api.put_javascript("order", "preCreate", "\n\n  let x = ;"), "3");
    refused(api.put_javascript("order", "preCreate", "export function postCreate() {}"), "preCreate");
    refused(api.put_javascript("order", "preCreate", ""), "preCreate");
    let send = |media_type: &str, body: &[u8]| api.request("PUT", path).body(media_type, body).send();
    refused(send("text/javascript", b"\xff\xfe"), "UTF-8");
    refused(send("application/wasm", b"not a component"), "");
    refused(send("application/wasm", b"\0asm\x01\0\0\0"), "");
    for body in [
        json!({}),
        json!({"chain": [{}]}),
        json!({"chain": [{"engine": "quickjs"}]}),
        json!({"chain": [{"engine": "quickjs", "source": "x", "artifact": "y"}]}),
        json!({"chain": [{"engine": "quickjs", "source": ACCEPT_ALL, "sauce": 1}]}),
        json!({"chain": [{"engine": "quickjs", "source": ACCEPT_ALL, "mode": "maybe"}]}),
        json!({"chain": [{"engine": "nothing", "source": ACCEPT_ALL}]}),
        json!({"chain": [{"engine": "v8", "source": ACCEPT_ALL}]}),
        json!({"chain": [{"engine": "native", "library": "missing.so"}]}),
        json!({"chain": [{"engine": "quickjs", "artifact": "sha256:00"}]}),
        json!({"chain": [{"engine": "quickjs", "artifact": "missing.js"}]}),
        json!({"chain": [{"engine": "quickjs", "artifact": "../config.toml"}]}),
        json!({"chain": [{"engine": "quickjs", "name": "a b", "source": ACCEPT_ALL}]}),
        json!({"chain": [{"engine": "quickjs", "name": "a", "source": ACCEPT_ALL}, {"engine": "quickjs", "name": "a", "source": ACCEPT_ALL}]}),
    ] {
        let answer = api.put(path, &body);
        assert!(matches!(answer.status, 400 | 404 | 422), "{body}: {}", answer.text());
        assert!(answer.json()["detail"].as_str().is_some_and(|text| !text.is_empty()));
    }
    api.get("/models/order/hooks/afterwards").expect_problem(400, "bad-request");
    api.put_javascript("order", "precreate", ACCEPT_ALL).expect_problem(400, "bad-request");
    api.put_javascript("none", "preCreate", ACCEPT_ALL).expect_problem(404, "not-found");
    api.delete("/models/none/hooks/preCreate").expect_problem(404, "not-found");
    api.request("PUT", &format!("{path}?nam=x"))
        .body("text/javascript", ACCEPT_ALL)
        .send()
        .expect_problem(400, "bad-request");
    assert_eq!(api.get("/models/order").expect(200).json()["version"], 1);
}

#[test]
fn without_its_library_v8_is_refused_and_all_else_works() {
    let server = start();
    let api = server.client();
    let put = |engine: &str| {
        api.request("PUT", &format!("/models/order/hooks/preCreate?engine={engine}"))
            .body("text/javascript", ACCEPT_ALL)
            .send()
    };
    let problem = put("v8").expect_problem(422, "invalid");
    assert!(problem.to_string().contains("run `cargo xtask v8`, which fetches it"), "{problem}");
    assert_eq!(api.get("/models/order").expect(200).json()["version"], 1);
    put("quickjs").expect(200);
}

#[test]
fn a_refusal_stores_nothing() {
    let server = start();
    let api = server.client();
    api.request("PUT", "/models/order/hooks/preCreate?name=check").body("text/javascript", REJECT).send().expect(200);
    let body = json!({"id": "a", "data": {"name": "bad"}});
    let problem = api.post("/models/order/instances", &body).expect_problem(422, "rejected");
    assert_eq!((&problem["detail"], &problem["hook"]), (&json!("no such name"), &json!("check")));
    assert_eq!(problem["errors"], json!([{"pointer": "/data/name", "message": "is bad"}]));
    api.get("/models/order/instances/a").expect_problem(404, "not-found");
    assert_eq!(api.get("/events?type=instance.created").expect(200).json()["items"], json!([]));
    api.post("/models/order/instances", &json!({"id": "a", "data": {"name": "good"}})).expect(201);
}

#[test]
fn updates_and_deletions_are_asked_too() {
    let server = start();
    let api = server.client();
    let update =
        "export function preUpdate({ before, after }) { if (after.count < before.count) throw new Reject('shrinks'); }";
    let delete = "export function preDelete({ before }) { if (before.paid) throw new Reject('is paid'); }";
    api.put_javascript("order", "preUpdate", update).expect(200);
    api.put_javascript("order", "preDelete", delete).expect(200);
    api.post("/models/order/instances", &json!({"id": "a", "data": {"name": "x", "count": 5, "paid": true}}))
        .expect(201);
    let path = "/models/order/instances/a";
    assert_eq!(api.patch(path, &json!({"count": 4})).expect_problem(422, "rejected")["detail"], "shrinks");
    api.put(path, &json!({"data": {"name": "x", "count": 4}})).expect_problem(422, "rejected");
    assert_eq!(api.delete(path).expect_problem(422, "rejected")["detail"], "is paid");
    api.patch(path, &json!({"count": 6, "paid": false})).expect(200);
    api.delete(path).expect(204);
}

#[test]
fn a_hook_that_fails_stops_the_change() {
    let server = start();
    let api = server.client();
    for (source, expected) in [
        ("export function preCreate() {\n  return nothing.at.all;\n}", "2"),
        ("export function preCreate() { for (;;) {} }", "500 ms"),
        ("export function preCreate({ after }) { return { ...after, count: 1 }; }", "failed (amend)"),
    ] {
        api.request("PUT", "/models/order/hooks/preCreate?name=odd").body("text/javascript", source).send().expect(200);
        let body = json!({"id": "a", "data": {"name": "x"}});
        let problem = api.post("/models/order/instances", &body).expect_problem(502, "hook-failed");
        assert_eq!(problem["hook"], "odd");
        assert!(problem["detail"].as_str().expect("text").contains(expected), "{problem}");
        api.get("/models/order/instances/a").expect_problem(404, "not-found");
    }
}

#[test]
fn a_shadow_only_looks_on() {
    let server = start();
    let api = server.client();
    let chain = json!({"chain": [{"name": "new", "engine": "quickjs", "source": REJECT, "mode": "shadow"}]});
    let bound = api.put("/models/order/hooks/preCreate", &chain).expect(200).json();
    assert_eq!(bound[0]["mode"], "shadow");
    api.post("/models/order/instances", &json!({"data": {"name": "bad"}})).expect(201);
    let stats = api.get("/models/order/hooks/preCreate/stats").expect(200).json();
    assert_eq!(stats["items"][0]["runs"], 1, "{stats}");
    let log = eventually("the shadow's word is in the log", || {
        let log = api.get("/models/order/hooks/preCreate/log").expect(200).json();
        log["items"].as_array().is_some_and(|lines| !lines.is_empty()).then_some(log)
    });
    assert!(log.to_string().contains("no such name"), "{log}");
    // A dry run reports what the hook would have decided, and that it decided nothing.
    let dry = api.post("/models/order/instances?dry-run=true", &json!({"data": {"name": "bad"}})).expect(200).json();
    let hook = &dry["hooks"][0];
    assert_eq!((&hook["decision"], &hook["message"]), (&json!("reject"), &json!("no such name")), "{dry}");
    assert_eq!((&hook["shadow"], &dry["event"]["type"]), (&json!(true), &json!("instance.created")), "{dry}");
}

#[test]
fn dry_runs_tell_what_each_hook_said() {
    let server = start();
    let api = server.client();
    api.request("PUT", "/models/order/hooks/preCreate?name=check").body("text/javascript", REJECT).send().expect(200);
    let after = "export function postCreate() {}";
    api.request("PUT", "/models/order/hooks/postCreate?name=mail").body("text/javascript", after).send().expect(200);
    let dry = |name: &str| api.post("/models/order/instances?dry-run=true", &json!({"data": {"name": name}}));
    let good = dry("good").expect(200).json();
    assert_eq!((&good["hooks"][0]["name"], &good["hooks"][0]["decision"]), (&json!("check"), &json!("accept")));
    assert_eq!(good["post_hooks"], json!(["mail"]));
    assert_eq!(good["event"]["type"], "instance.created");
    let bad = dry("bad").expect(200).json();
    assert_eq!((&bad["hooks"][0]["decision"], &bad["hooks"][0]["message"]), (&json!("reject"), &json!("no such name")));
    assert_eq!(bad["event"], Value::Null);
    assert_eq!(api.get("/models/order/instances").expect(200).json()["items"], json!([]));
}

#[test]
fn binding_can_be_tried_without_a_change() {
    let server = start();
    let api = server.client();
    let path = "/models/order/hooks/preCreate";
    let put = |path: &str, source: &str| api.request("PUT", path).body("text/javascript", source).send();
    let before = api.get("/models/order").expect(200).text();
    let dry = put(&format!("{path}?name=check&dry-run=true"), REJECT).expect(200).json();
    assert_eq!((&dry["event"]["type"], &dry["event"]["model_version"]), (&json!("hook.updated"), &json!(2)));
    assert_eq!(dry["event"]["data"]["definition"]["hooks"]["preCreate"][0]["name"], "check");
    put(&format!("{path}?dry-run=true"), "export const = 1;").expect_problem(422, "invalid");
    let gone = api.delete(&format!("{path}?dry-run=true")).expect(200).json();
    assert_eq!(gone["event"], Value::Null);
    assert_eq!(api.get("/models/order").expect(200).text(), before);

    put(&format!("{path}?name=check"), REJECT).expect(200);
    let same = put(&format!("{path}?name=check&dry-run=true"), REJECT).expect(200).json();
    assert_eq!(same["event"], Value::Null);
    let gone = api.delete(&format!("{path}?dry-run=true")).expect(200).json();
    assert_eq!(gone["event"]["type"], "hook.deleted");
    assert_eq!(api.get(path).expect(200).json()[0]["name"], "check");
    // Code that was only tried is not stored.
    let chain = json!({"chain": [{"engine": "quickjs", "artifact": format!("sha256:{}", sha256(ACCEPT_ALL))}]});
    put(&format!("{path}?dry-run=true"), ACCEPT_ALL).expect(200);
    api.put(path, &chain).expect_problem(422, "invalid");
}

#[test]
fn a_grant_may_be_pinned_to_the_code_that_was_reviewed() {
    let reviewed = "export function preCreate({ after }) { return { ...after, status: 'seen' }; }";
    let server = start_granted(&format!(
        "[[grants]]\nmodel = 'order'\nphase = 'preCreate'\nhook = 'sha256:{}'\namend = true\n",
        sha256(reviewed)
    ));
    let api = server.client();
    api.put_javascript("order", "preCreate", reviewed).expect(200);
    let create = || api.post("/models/order/instances", &json!({"data": {"name": "x"}}));
    assert_eq!(create().expect(201).json()["data"]["status"], "seen");
    // One more space makes it other code.
    api.put_javascript("order", "preCreate", &format!("{reviewed} ")).expect(200);
    let problem = create().expect_problem(502, "hook-failed");
    assert!(problem["detail"].as_str().expect("text").contains("failed (amend)"), "{problem}");
    api.put_javascript("order", "preCreate", reviewed).expect(200);
    assert_eq!(create().expect(201).json()["data"]["status"], "seen");
}

#[test]
fn a_hook_whose_code_is_lost_stops_the_change() {
    let server = start();
    let api = server.client();
    api.put_javascript("order", "preCreate", ACCEPT_ALL).expect(200);
    let file = server.directory().join("data/events.db");
    let mut server = server;
    assert!(server.stop().success());
    let lost = rusqlite::Connection::open(file).expect("the log").execute("DELETE FROM blobs", []);
    assert_eq!(lost.expect("a table"), 1);
    let server = server.restart_ended();
    let api = server.client();
    let problem =
        api.post("/models/order/instances", &json!({"data": {"name": "x"}})).expect_problem(502, "hook-failed");
    assert!(problem["detail"].as_str().expect("text").contains("bind the hook again"), "{problem}");
    // Code that cannot be loaded is not looked up for each change, but again after a short time.
    api.put_javascript("order", "preCreate", ACCEPT_ALL).expect(200);
    eventually("the code is loaded", || {
        let response = api.post("/models/order/instances", &json!({"data": {"name": "x"}}));
        (response.status == 201).then_some(())
    });
}

/// The history of a phase: only its own chains, newest first, in pages; and the code of each.
#[test]
fn the_history_of_a_phase() {
    let server = start();
    let api = server.client();
    let path = "/models/order/hooks/preCreate";
    assert_eq!(api.get(&format!("{path}/history")).expect(200).json(), json!({"items": [], "next": null}));
    let sources: Vec<String> = (0..5).map(|number| format!("export default () => {{ {number} }}")).collect();
    for source in &sources {
        api.put_javascript("order", "preCreate", source).expect(200);
        // Another phase has a separate history.
        api.put_javascript("order", "preUpdate", source).expect(200);
    }
    api.delete(path).expect(204);
    let all = api.get(&format!("{path}/history")).expect(200).json();
    let items = all["items"].as_array().expect("items");
    assert_eq!((items.len(), &all["next"]), (6, &Value::Null), "{all}");
    assert_eq!(items[0]["chain"], json!([]));
    for (item, source) in items[1..].iter().zip(sources.iter().rev()) {
        let hook = &item["chain"][0];
        assert_eq!(hook["artifact"], format!("sha256:{}", sha256(source)));
        assert_eq!(
            (&hook["origin"], &hook["engine"], &hook["size"]),
            (&json!("rest"), &json!("quickjs"), &json!(source.len()))
        );
        // The code of each, by its full digest or a sufficient prefix.
        for digits in [64, 12] {
            let artifact = format!("sha256:{}", &sha256(source)[..digits]);
            let code = api.get(&format!("{path}/source?artifact={artifact}")).expect(200);
            assert_eq!((code.text(), code.header("content-type")), (source.clone(), Some("text/javascript")));
        }
    }
    let mut paged = Vec::new();
    let mut query = "?limit=2".to_owned();
    loop {
        let page = api.get(&format!("{path}/history{query}")).expect(200).json();
        paged.extend(page["items"].as_array().expect("items").clone());
        match page["next"].as_u64() {
            Some(next) => query = format!("?limit=2&before={next}"),
            None => break,
        }
    }
    assert_eq!(&paged, items);
    for (query, status) in
        [("before=0", 400), ("before=x", 400), ("limit=0", 400), ("limit=1001", 400), ("after=1", 400)]
    {
        assert_eq!(api.get(&format!("{path}/history?{query}")).status, status, "{query}");
    }
    for (query, status) in [
        ("", 404),
        ("?artifact=abc", 400),
        ("?artifact=sha256:ABCDEF", 400),
        ("?artifact=", 400),
        ("?artifact=0000000000000", 404),
        ("?hook=nobody", 404),
        ("?foo=1", 400),
    ] {
        assert_eq!(api.get(&format!("{path}/source{query}")).status, status, "{query}");
    }
    // A recreated model has no history.
    api.delete("/models/order").expect(204);
    create_orders(&api, "order");
    assert_eq!(api.get(&format!("{path}/history")).expect(200).json()["items"], json!([]));
    api.get("/models/nobody/hooks/preCreate/history").expect_problem(404, "not-found");
}

/// A prefix of the digest that is unique is enough to bind an artifact again.
#[test]
fn artifacts_by_their_first_digits() {
    let server = start();
    let api = server.client();
    let path = "/models/order/hooks/preCreate";
    api.put_javascript("order", "preCreate", REJECT).expect(200);
    api.put_javascript("order", "preCreate", ACCEPT_ALL).expect(200);
    let bind =
        |artifact: &str| api.put(path, &json!({"chain": [{"name": "x", "engine": "quickjs", "artifact": artifact}]}));
    let bound = bind(&format!("sha256:{}", &sha256(REJECT)[..8])).expect(200).json();
    assert_eq!(bound[0]["artifact"], format!("sha256:{}", sha256(REJECT)));
    for (artifact, says) in [
        ("sha256:000", "is not a digest, expected 4 to 64"),
        ("sha256:zzzz", "is not a digest"),
        ("sha256:00000000", "no hook has or had an artifact that begins with `sha256:00000000`"),
    ] {
        let problem = bind(artifact).expect_problem(422, "invalid");
        assert_eq!(problem["errors"][0]["pointer"], "/chain/0/artifact", "{problem}");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(says)), "{problem}");
    }
    assert_eq!(api.get(path).expect(200).json(), bound);
}

/// A chain is checked without a model, and nothing is stored.
#[test]
fn hooks_are_checked_without_a_model() {
    let server = start();
    let api = server.client();
    let events = api.get("/events").expect(200).json()["items"].clone();
    let check = |phase: &str, source: &str| {
        api.request("POST", &format!("/hooks/check/{phase}?name=x")).body("text/javascript", source).send()
    };
    let checked = check("preCreate", REJECT).expect(200).json();
    assert_eq!(checked["items"][0]["name"], "x");
    assert_eq!(
        (&checked["items"][0]["artifact"], &checked["warnings"]),
        (&json!(format!("sha256:{}", sha256(REJECT))), &json!([]))
    );
    let problem = check("preCreate", "export default () => {\n  return 1 +;\n}").expect_problem(422, "invalid");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("(line 2, column 13)")), "{problem}");
    check("preUpdate", ACCEPT_ALL).expect_problem(422, "invalid");
    check("precreate", ACCEPT_ALL).expect_problem(400, "bad-request");
    let chain = json!({"chain": [{"engine": "quickjs", "artifact": format!("sha256:{}", sha256(REJECT))}]});
    let problem = api.post("/hooks/check/preCreate", &chain).expect_problem(422, "invalid");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("does not have an artifact")), "{problem}");
    api.post("/hooks/check/preCreate", &json!({"chain": []})).expect_problem(400, "bad-request");
    assert_eq!(api.get("/events").expect(200).json()["items"], events);
    api.request("PUT", "/models/order/hooks/preCreate?origin=elsewhere")
        .body("text/javascript", ACCEPT_ALL)
        .send()
        .expect_problem(400, "bad-request");
}

#[test]
fn logs_and_figures() {
    let server = start();
    let api = server.client();
    let source = "export function preCreate({ after, log }) { log.warn('saw', after.name); console.log('plain'); }";
    api.request("PUT", "/models/order/hooks/preCreate?name=talk").body("text/javascript", source).send().expect(200);
    let mut live = api.stream("/models/order/hooks/preCreate/log", &[]);
    assert_eq!((live.status(), live.header("content-type")), (200, Some("text/event-stream")));
    api.post("/models/order/instances", &json!({"data": {"name": "first"}})).expect(201);
    let line = live.next();
    assert_eq!((line.event.as_str(), &line.data["hook"], &line.data["level"]), ("log", &json!("talk"), &json!("warn")));
    assert!(line.data["message"].as_str().expect("text").contains("first"), "{line:?}");
    assert!(live.next().data["message"].as_str().expect("text").contains("plain"));
    let log = api.get("/models/order/hooks/preCreate/log").expect(200).json();
    assert_eq!(log["items"].as_array().expect("lines").len(), 2, "{log}");
    for number in 0..150 {
        api.post("/models/order/instances", &json!({"data": {"name": format!("n{number}")}})).expect(201);
    }
    let log = api.get("/models/order/hooks/preCreate/log").expect(200).json();
    let lines = log["items"].as_array().expect("lines");
    assert_eq!(lines.len(), 200);
    assert!(lines[198]["message"].as_str().expect("text").contains("n149"), "{log}");
    let stats = api.get("/models/order/hooks/preCreate/stats").expect(200).json();
    assert_eq!((&stats["items"][0]["name"], &stats["items"][0]["runs"]), (&json!("talk"), &json!(151)), "{stats}");
    api.put_javascript("order", "preUpdate", "export function preUpdate() { null.x; }").expect(200);
    api.post("/models/order/instances", &json!({"id": "a", "data": {"name": "x"}})).expect(201);
    api.patch("/models/order/instances/a", &json!({"name": "y"})).expect_problem(502, "hook-failed");
    let metrics = api.get("/metrics").expect(200).text();
    for line in [
        r#"snaphook_hook_runs_total{model="order",phase="preCreate",outcome="accept"} 152"#,
        r#"snaphook_hook_failures_total{model="order",phase="preUpdate",cause="exception"} 1"#,
    ] {
        assert!(metrics.lines().any(|written| written == line), "{line} is not in\n{metrics}");
    }
    api.get("/models/order/hooks/preCreate/log?limit=1").expect_problem(400, "bad-request");
    api.get("/models/none/hooks/preCreate/log").expect_problem(404, "not-found");
    api.get("/models/none/hooks/preCreate/stats").expect_problem(404, "not-found");
}

#[test]
fn a_preference_waits_for_post_hooks() {
    let server =
        start_granted("[[grants]]\nmodel = 'order'\nphase = 'postCreate'\nwrite = ['audit']\nread = ['audit']");
    let api = server.client();
    api.post("/models", &json!({"id": "audit", "schema": {"type": "object"}})).expect(201);
    let source =
        "export async function postCreate({ id, write }) { await write.create('audit', { order: id }, { id }); }";
    api.put_javascript("order", "postCreate", source).expect(200);
    let create = api.request("POST", "/models/order/instances").header("Prefer", "wait=20");
    create.json(&json!({"id": "a", "data": {"name": "x"}})).send().expect(201);
    let audit = api.get("/models/audit/instances/a").expect(200).json();
    assert_eq!(audit["data"], json!({"order": "a"}));
    let event = &api.get("/events?model=audit&instance=a").expect(200).json()["items"][0];
    assert_eq!(event["cause"]["depth"], 1, "{event}");
    assert!(event["cause"]["hook"].as_str().expect("text").starts_with("order.postCreate"), "{event}");
    assert_eq!(event["actor"]["kind"], "hook", "{event}");
}

#[test]
fn preconditions() {
    let server = start();
    let api = server.client();
    let path = "/models/order/hooks/preCreate";
    let put = |tag: &str| api.request("PUT", path).header("If-Match", tag).body("text/javascript", ACCEPT_ALL).send();
    put("\"999\"").expect_problem(412, "precondition-failed");
    let model = api.get("/models/order").expect(200);
    let tag = model.header("etag").expect("a tag").to_owned();
    put(&tag).expect(200);
    put(&tag).expect_problem(412, "precondition-failed");
    api.request("DELETE", path).header("If-Match", &tag).send().expect_problem(412, "precondition-failed");
    api.request("DELETE", path).header("If-Match", "*").send().expect(204);
}
