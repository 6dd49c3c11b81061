//! Events in the log that no model store can apply: what the server does with them, and what an admin can do.

use rusqlite::{Connection, params};
use serde_json::{Value, json};

use super::{ask, run};
use crate::support::{Server, eventually};

/// Inserts an event directly into the log and returns its position.
fn insert(server: &Server, model: &str, instance: &str, data: Option<&str>) -> i64 {
    let log = Connection::open(server.directory().join("data/events.db")).expect("the log");
    log.execute(
        "INSERT INTO events(position, model, instance, kind, model_version, revision, time, id, data)
         SELECT max(position) + 1, (SELECT number FROM models WHERE name = ?1), ?2, 5, 1, 1, max(time), ?2 || '-id', ?3
         FROM events",
        params![model, instance, data],
    )
    .expect("an event");
    log.query_row("SELECT max(position) FROM events", [], |row| row.get(0)).expect("its position")
}

fn create_models(server: &Server, names: &[&str]) {
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}}});
    for name in names {
        let model = json!({"id": name, "schema": schema, "indexes": [["n"]]});
        server.client().post("/models", &model).expect(201);
        let instances = format!("/models/{name}/instances");
        server.client().post(&instances, &json!({"id": "good", "data": {"n": 1}})).expect(201);
    }
}

fn lines(server: &Server, text: &str) -> usize {
    server.log().iter().filter(|line| line.contains(text)).count()
}

fn status(server: &Server, model: &str) -> u16 {
    server.client().get(&format!("/models/{model}/instances/good")).status
}

fn degraded(server: &Server) -> Vec<(String, i64)> {
    let ready = server.client().get("/readyz").expect(200).json();
    let models = ready["models"].as_array().cloned().unwrap_or_default();
    assert_eq!(ready["status"], if models.is_empty() { "ready" } else { "degraded" }, "{ready}");
    let row = |row: &Value| {
        assert!(row["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{row}");
        (row["model"].as_str().expect("a model").to_owned(), row["position"].as_i64().expect("a position"))
    };
    models.iter().map(row).collect()
}

#[test]
fn each_makes_its_own_model_unavailable_and_nothing_else() {
    let nested = format!("{{\"n\":{}{}}}", "[".repeat(2000), "]".repeat(2000));
    let number = format!("{{\"n\":{}}}", "1".repeat(20_000));
    let name = format!("{{\"{}\":1}}", "n".repeat(70_000));
    let long_id = "i".repeat(200);
    let cases: [(&str, &str, Option<&str>); 8] = [
        ("array", "bad", Some("[1]")),
        ("broken", "bad", Some("{\"n\":")),
        ("empty", "bad", Some("")),
        ("id", &long_id, Some("{}")),
        ("name", "bad", Some(&name)),
        ("nested", "bad", Some(&nested)),
        ("nothing", "bad", None),
        ("number", "bad", Some(&number)),
    ];
    let mut server = Server::start();
    create_models(&server, &["fine"]);
    create_models(&server, &cases.map(|(model, ..)| model));
    server.stop();
    let mut expected = Vec::new();
    for (model, instance, data) in cases {
        expected.push((model.to_owned(), insert(&server, model, instance, data)));
        // Later events of the model must wait.
        insert(&server, model, "later", Some("{\"n\":2}"));
        insert(&server, "fine", model, Some("{\"n\":3}"));
    }
    let server = server.restart_ended();
    assert_eq!(degraded(&server), expected);
    assert_eq!(lines(&server, "cannot apply an event"), cases.len(), "{}", server.log().join("\n"));
    let api = server.client();
    for (model, position) in &expected {
        for path in [format!("/models/{model}/instances/good"), format!("/models/{model}/instances?sort=n")] {
            let problem = api.get(&path).expect_problem(503, "unavailable");
            let detail = problem["detail"].as_str().expect("a detail");
            assert!(detail.contains(&position.to_string()) && detail.contains("inspect"), "{detail}");
        }
        let instances = format!("/models/{model}/instances");
        api.post(&instances, &json!({"data": {"n": 1}})).expect_problem(503, "unavailable");
    }
    let all = api.get("/models/fine/instances?filter[n][eq]=3&count=true").expect(200).json();
    assert_eq!(all["count"], cases.len(), "{all}");
    api.post("/models/fine/instances", &json!({"data": {"n": 4}})).expect(201);
    create_models(&server, &["new"]);
    let metrics = api.get("/metrics").expect(200).text();
    assert!(metrics.contains(&format!("\nsnaphook_models_unavailable {}\n", cases.len())), "{metrics}");
    // Not reported again at the next start or after a kill.
    let server = server.kill_and_restart();
    assert_eq!(degraded(&server), expected);
    assert_eq!(lines(&server, "cannot apply an event"), cases.len());
    assert_eq!(status(&server, "fine"), 200);
    // A rebuild finds and reports them again.
    let rebuilt = ask(&server, &["rebuild"]);
    assert!(rebuilt.stderr.contains("`nested` is unavailable"), "{}", rebuilt.stderr);
    rebuilt.ok();
    assert_eq!(degraded(&server), expected);
    assert_eq!((status(&server, "fine"), status(&server, "new")), (200, 200));
}

#[test]
fn the_admin_skips_the_event_or_deletes_the_model() {
    let mut server = Server::start();
    create_models(&server, &["a", "b", "c", "fine"]);
    server.stop();
    let [a, b, c] = ["a", "b", "c"].map(|model| {
        let position = insert(&server, model, "bad", Some("{\"n\":"));
        insert(&server, model, "later", Some("{\"n\":2}"));
        position
    });
    let mut server = server.restart_ended();
    let inspected: Value =
        serde_json::from_str(&ask(&server, &["events", "inspect", &a.to_string()]).ok()).expect("JSON");
    assert_eq!((&inspected["event"]["instance"], &inspected["stuck"]["position"]), (&json!("bad"), &json!(a)));
    assert_eq!((&inspected["skipped"], &inspected["data_text"]), (&Value::Null, &json!("{\"n\":")));
    let absent = ask(&server, &["events", "inspect", "99999"]).fails();
    assert!(absent.contains("no event at position 99999"), "{absent}");

    // While the server runs.
    let refused = ask(&server, &["events", "skip", "1", "--reason", "x"]).fails();
    assert!(refused.contains("not what keeps `a` unavailable"), "{refused}");
    let said = ask(&server, &["events", "skip", &a.to_string(), "--reason", "cut off by hand"]).ok();
    assert!(said.starts_with(&format!("the event at {a} is skipped")), "{said}");
    assert_eq!(degraded(&server), [("b".to_owned(), b), ("c".to_owned(), c)]);
    let api = server.client();
    assert_eq!(api.get("/models/a/instances/later").expect(200).json()["data"], json!({"n": 2}));
    let skips = api.get("/events?type=model.event-skipped").expect(200).json();
    let event = &skips["items"][0];
    assert_eq!((&event["model"], &event["data"]["position"]), (&json!("a"), &json!(a)), "{event}");
    assert_eq!(event["data"]["reason"], "cut off by hand");
    // The model is available again: for instances, including the skipped id, and for its definition.
    api.post("/models/a/instances", &json!({"id": "bad", "data": {"n": 5}})).expect(201);
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}, "x": {"default": 1}}});
    api.put("/models/a", &json!({"schema": schema, "indexes": [["n"]]})).expect(200);
    assert_eq!(api.get("/models/a/instances/later").expect(200).json()["data"], json!({"n": 2, "x": 1}));

    // By deleting the model.
    api.delete("/models/b").expect_problem(409, "model-in-use");
    api.delete("/models/b?cascade=true").expect(204);
    api.get("/models/b/instances/good").expect_problem(404, "not-found");
    create_models(&server, &["b"]);
    assert_eq!(degraded(&server), [("c".to_owned(), c)]);

    // While no server runs.
    server.stop();
    let text: Value =
        serde_json::from_str(&run(server.directory(), &["events", "inspect", &c.to_string()]).ok()).expect("JSON");
    assert_eq!(text["stuck"]["model"], "c");
    let said = run(server.directory(), &["events", "skip", &c.to_string(), "--reason", "offline"]).ok();
    assert!(said.contains("is skipped"), "{said}");
    let rebuilt = run(server.directory(), &["rebuild"]);
    assert_eq!(rebuilt.stderr, "");
    rebuilt.ok();
    let server = server.restart_ended();
    assert_eq!(degraded(&server), []);
    for model in ["a", "b", "c", "fine"] {
        assert_eq!(status(&server, model), 200, "{model}");
    }
}

#[test]
fn a_model_store_of_an_older_format_is_built_again() {
    let mut server = Server::start();
    create_models(&server, &["json_each", "sqlite_master", "m"]);
    server.stop();
    let models = Connection::open(server.directory().join("data/models.db")).expect("the model store");
    models.execute_batch("PRAGMA user_version = 1; DROP TABLE _models").expect("changed");
    drop(models);
    let server = server.restart_ended();
    assert_eq!(lines(&server, "it is rebuilt from the event log"), 1, "{}", server.log().join("\n"));
    for model in ["json_each", "sqlite_master", "m"] {
        eventually("it is there", || (status(&server, model) == 200).then_some(()));
        server.client().get(&format!("/models/{model}/instances?filter[n][eq]=1")).expect(200);
    }
}

#[test]
fn broken_data_in_the_log_breaks_no_answer() {
    let mut server = Server::start();
    create_models(&server, &["m"]);
    server.stop();
    let position = insert(&server, "m", "bad", Some("{\"n\":\n"));
    insert(&server, "m", "later", Some("{\"n\":2}"));
    let server = server.restart_ended();
    let api = server.client();
    let marked = |event: &Value| {
        assert_eq!((event["position"].as_i64(), &event["data"]), (Some(position), &Value::Null), "{event}");
        let error = event["data_error"].as_str().expect("an error");
        assert!(
            error.contains("is not valid JSON") && error.contains(&format!("events inspect {position}")),
            "{error}"
        );
    };
    // `json` reads the complete response.
    for path in ["/events?limit=100", "/models/m/instances/bad/events"] {
        let page = api.get(path).expect(200).json();
        let events = page["items"].as_array().expect("items").clone();
        let (bad, good): (Vec<_>, Vec<_>) = events.into_iter().partition(|event| event["instance"] == "bad");
        assert_eq!(bad.len(), 1, "{path}");
        marked(&bad[0]);
        assert!(good.iter().all(|event| event["data_error"].is_null() && !event["data"].is_null()), "{good:?}");
    }
    let mut stream = api.stream(&format!("/events/stream?after={}", position - 1), &[]);
    marked(&stream.next().data);
    let later = stream.next().data;
    assert_eq!((&later["instance"], &later["data"]), (&json!("later"), &json!({"n": 2})));
    let problem = api.get(&format!("/models/m/instances/bad?at={position}")).expect_problem(503, "storage");
    assert!(problem["detail"].as_str().expect("a detail").contains("is not valid JSON"), "{problem}");
}

#[test]
fn an_index_that_cannot_be_built_keeps_only_its_model() {
    let mut server = Server::start();
    create_models(&server, &["a", "b", "c"]);
    server.stop();
    let store = Connection::open(server.directory().join("data/models.db")).expect("the model store");
    // Its indexes are still pending, and an index with that name already exists.
    store
        .execute("UPDATE _models SET pending = '{\"steps\":[],\"refill\":false}' WHERE id = 'b'", [])
        .expect("it is written");
    drop(store);
    let server = server.restart_ended();
    let position = server.client().get("/events?model=b&type=model.created").expect(200).json()["items"][0]["position"]
        .as_i64()
        .expect("a position");
    assert_eq!(degraded(&server), [("b".to_owned(), position)]);
    assert_eq!([status(&server, "a"), status(&server, "b"), status(&server, "c")], [200, 503, 200]);
    server.client().post("/models/c/instances", &json!({"data": {"n": 5}})).expect(201);
    // The server retries at each start; a rebuild recreates the model.
    let server = server.restart();
    assert_eq!(degraded(&server), [("b".to_owned(), position)]);
    ask(&server, &["rebuild"]).ok();
    eventually("it works again", || (status(&server, "b") == 200).then_some(()));
    assert_eq!(degraded(&server), []);
}
