//! `/errors`, `/secrets`, `/rebuild`, health and metrics.

use serde_json::{Value, json};

use crate::support::{Client, Server, ServerOptions, create_orders, eventually};

const NO_ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

/// A server whose post hook fails permanently at once.
fn start_failing() -> Server {
    let server = Server::start_with(ServerOptions { hooks: "max-attempts = 1".into(), ..ServerOptions::default() });
    let api = server.client();
    create_orders(&api, "order");
    let source = "export function postCreate({ after, log }) {\n  log.info('trying');\n  throw new Error('no paper: ' + after.name);\n}";
    api.request("PUT", "/models/order/hooks/postCreate?name=print").body("text/javascript", source).send().expect(200);
    server
}

#[track_caller]
fn create(api: &Client, name: &str) {
    api.post("/models/order/instances", &json!({"data": {"name": name}})).expect(201);
}

#[track_caller]
fn wait_for_errors(api: &Client, count: usize) -> Vec<Value> {
    eventually("the errors are recorded", || {
        let items = api.get("/errors").expect(200).json()["items"].as_array().expect("items").clone();
        (items.len() == count).then_some(items)
    })
}

#[test]
fn errors_are_kept_and_dropped() {
    let server = start_failing();
    let api = server.client();
    assert_eq!(api.get("/errors").expect(200).json(), json!({"items": [], "next": null}));
    // A failed post hook does not fail the write.
    create(&api, "a");
    create(&api, "b");
    create(&api, "c");
    let errors = wait_for_errors(&api, 3);
    let error = &errors[0];
    assert_eq!(
        (&error["model"], &error["phase"], &error["hook"]),
        (&json!("order"), &json!("postCreate"), &json!("print"))
    );
    assert_eq!((&error["attempts"], &error["cause"]), (&json!(1), &json!("exception")), "{error}");
    assert!(error["message"].as_str().expect("text").contains("no paper"), "{error}");
    assert_eq!(error["event"]["type"], "instance.created");
    assert!(error["artifact"].as_str().expect("text").starts_with("sha256:"));
    assert!(error["log"].to_string().contains("trying"), "{error}");
    let id = error["id"].as_str().expect("an id");
    assert_eq!(&api.get(&format!("/errors/{id}")).expect(200).json(), error);

    let count =
        |query: &str| api.get(&format!("/errors?{query}")).expect(200).json()["items"].as_array().expect("items").len();
    assert_eq!((count("model=order"), count("model=other"), count("hook=print"), count("hook=x")), (3, 0, 3, 0));
    assert_eq!(count(&format!("after={id}")), 2);
    let page = api.get("/errors?limit=2").expect(200).json();
    assert_eq!(page["next"], page["items"][1]["id"]);
    for bad in ["model=M", "after=1", "limit=0", "phase=x"] {
        api.get(&format!("/errors?{bad}")).expect_problem(400, "bad-request");
    }
    api.delete(&format!("/errors/{id}")).expect(204);
    api.get(&format!("/errors/{id}")).expect_problem(404, "not-found");
    api.delete(&format!("/errors/{id}")).expect_problem(404, "not-found");
    api.get("/errors/x").expect_problem(400, "bad-request");
    api.get(&format!("/errors/{NO_ID}")).expect_problem(404, "not-found");
    assert_eq!(count(""), 2);
}

#[test]
fn errors_are_retried_with_the_hook_as_it_is_now() {
    let server = start_failing();
    let api = server.client();
    create(&api, "a");
    create(&api, "b");
    create(&api, "c");
    let errors = wait_for_errors(&api, 3);
    let id = errors[0]["id"].as_str().expect("an id");
    let post = |path: &str| api.request("POST", path).send();
    // Still broken: the record stays.
    let again = post(&format!("/errors/{id}/retry")).expect(200).json();
    assert_eq!((&again["matched"], &again["succeeded"]), (&json!(1), &json!(0)), "{again}");
    assert!(again["error"]["message"].as_str().expect("text").contains("no paper"), "{again}");
    assert_eq!(api.get("/errors").expect(200).json()["items"].as_array().expect("items").len(), 3);

    let fixed = "export function postCreate() {}";
    api.request("PUT", "/models/order/hooks/postCreate?name=print").body("text/javascript", fixed).send().expect(200);
    assert_eq!(post(&format!("/errors/{id}/retry")).expect(200).json(), json!({"matched": 1, "succeeded": 1}));
    api.get(&format!("/errors/{id}")).expect_problem(404, "not-found");
    assert_eq!(post("/errors/retry?dry-run=true").expect(200).json(), json!({"matched": 2, "succeeded": 0}));
    for (query, total) in [("model=other", 0), ("model=order&hook=print", 2)] {
        let started = post(&format!("/errors/retry?{query}")).expect(202);
        let job = started.json()["job"].as_str().expect("a job").to_owned();
        assert_eq!(started.header("location"), Some(format!("/jobs/{job}").as_str()));
        let ended = eventually("the job ends", || {
            let job = api.get(&format!("/jobs/{job}")).expect(200).json();
            (job["state"] != "running").then_some(job)
        });
        assert_eq!(ended, json!({"id": job, "state": "done", "total": total, "done": total, "failed": 0}));
    }
    api.get("/jobs/x").expect_problem(400, "bad-request");
    api.get(&format!("/jobs/{NO_ID}")).expect_problem(404, "not-found");
    api.delete(&format!("/jobs/{NO_ID}")).expect_problem(404, "not-found");
    assert_eq!(api.get("/errors").expect(200).json()["items"], json!([]));
    post(&format!("/errors/{NO_ID}/retry")).expect_problem(404, "not-found");
    post("/errors/retry?modell=x").expect_problem(400, "bad-request");
}

#[test]
fn secrets_go_in_and_never_come_out() {
    let server = Server::start();
    let api = server.client();
    assert_eq!(api.get("/secrets").expect(200).json()["items"], json!([]));
    let put =
        |name: &str, value: &str| api.request("PUT", &format!("/secrets/{name}")).body("text/plain", value).send();
    put("mail-key", "hunter2hunter2").expect(204);
    put("a.b_c", "x").expect(204);
    put("mail-key", "hunter3hunter3").expect(204);
    let listed = api.get("/secrets").expect(200);
    assert_eq!(listed.json()["items"], json!(["a.b_c", "mail-key"]));
    assert!(!listed.text().contains("hunter"));
    api.get("/secrets/mail-key").expect_problem(405, "method-not-allowed");
    for bad in [".a", "a%20b", "a%2Fb", "%C3%A9", &"x".repeat(129)] {
        put(bad, "x").expect_problem(400, "bad-request");
    }
    api.delete("/secrets/mail-key").expect(204);
    api.delete("/secrets/mail-key").expect_problem(404, "not-found");
    assert_eq!(api.get("/secrets").expect(200).json()["items"], json!(["a.b_c"]));
    assert!(!server.log().iter().any(|line| line.contains("hunter")));
    // No event mentions the secret, and no file contains its value.
    assert!(!api.get("/events").expect(200).text().contains("mail-key"));
    let mut folders = vec![server.directory().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path());
            } else if let Ok(bytes) = std::fs::read(entry.path()) {
                assert!(!bytes.windows(6).any(|window| window == b"hunter"), "{:?}", entry.path());
            }
        }
    }
}

#[test]
fn a_rebuild_gives_the_same() {
    let server = Server::start();
    let api = server.client();
    create_orders(&api, "order");
    let lines: String =
        (0..500).map(|n| format!("{{\"id\":\"i{n:03}\",\"data\":{{\"name\":\"x{n}\",\"total\":{n}.50}}}}\n")).collect();
    api.request("POST", "/models/order/import").body("application/x-ndjson", lines).send().expect(200);
    api.delete("/models/order/instances/i000").expect(204);
    api.patch("/models/order/instances/i001", &json!({"count": 7})).expect(200);
    let before = api.get("/models/order/instances?limit=1000").expect(200).text();
    assert_eq!(api.get("/rebuild").expect(200).json()["state"], "idle");
    let started = api.request("POST", "/rebuild").send().expect(202).json();
    assert!(matches!(started["state"].as_str(), Some("running" | "done")), "{started}");
    let done = eventually("the rebuild ends", || {
        let progress = api.get("/rebuild").expect(200).json();
        (progress["state"] != "running").then_some(progress)
    });
    assert_eq!(done["state"], "done", "{done}");
    assert_eq!(done["position"], done["head"]);
    assert!(done["events"].as_u64() >= Some(503), "{done}");
    assert_eq!(api.get("/models/order/instances?limit=1000").expect(200).text(), before);
    api.request("POST", "/rebuild?x=1").send().expect_problem(400, "bad-request");
}

#[test]
fn health_and_metrics() {
    let server = Server::start();
    let api = server.client();
    assert_eq!(api.get("/healthz").expect(200).json(), json!({"status": "ok"}));
    assert_eq!(api.get("/readyz").expect(200).json(), json!({"status": "ready"}));
    create_orders(&api, "order");
    create(&api, "a");
    api.get("/models/order/instances/none").expect_problem(404, "not-found");
    let metrics = api.get("/metrics").expect(200);
    assert!(metrics.header("content-type").is_some_and(|kind| kind.starts_with("text/plain; version=0.0.4")));
    let text = metrics.text();
    for line in [
        r#"snaphook_http_requests_total{route="/models/{model}/instances",method="POST",status="201"} 1"#,
        r#"snaphook_http_requests_total{route="/models/{model}/instances/{id}",method="GET",status="404"} 1"#,
        r#"snaphook_http_request_duration_seconds_count{route="/models/{model}/instances"} 1"#,
    ] {
        assert!(text.lines().any(|written| written == line), "{line}\n{text}");
    }
    // Each line is a comment or a name, labels and a number.
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let value = line.rsplit(' ').next().expect("a value");
        assert!(value.parse::<f64>().is_ok() || matches!(value, "NaN" | "+Inf"), "{line}");
    }
}

#[test]
fn a_node_tells_of_itself() {
    let server = Server::start();
    let api = server.client();
    create_orders(&api, "order");
    let of_node = || {
        let nodes = api.get("/nodes").expect(200).json();
        assert_eq!(nodes["next"], Value::Null);
        nodes["items"].as_array().expect("a list").first().cloned()
    };
    let node = eventually("it is announced with what it has applied", || {
        of_node().filter(|node| node["position"].as_u64() > Some(0))
    });
    let id = std::fs::read_to_string(server.directory().join("data/node.id")).expect("its id");
    assert_eq!(node["id"], id.trim());
    assert_eq!(node["address"], server.address().to_string());
    assert_eq!((&node["version"], &node["lag"]), (&json!(env!("CARGO_PKG_VERSION")), &json!(0)));
    api.post("/nodes", &json!({})).expect_problem(405, "method-not-allowed");
    let metrics = api.get("/metrics").expect(200).text();
    assert!(metrics.contains("\nsnaphook_node_lag 0\n"), "{metrics}");
}
