//! `/models/{model}/instances`, row by row.

use serde_json::{Value, json};

use crate::support::{Client, Server, create_orders};

const INSTANCES: &str = "/models/order/instances";

fn start() -> Server {
    let server = Server::start();
    create_orders(&server.client(), "order");
    server
}

/// Creates an order `a` and returns it.
#[track_caller]
fn create_a(api: &Client) -> Value {
    api.post(INSTANCES, &json!({"id": "a", "data": {"name": "first", "total": 1}})).expect(201).json()
}

fn tag(api: &Client, instance: &Value) -> String {
    let log = api.get("/events?limit=1").expect(200).json()["next"].as_str().expect("a place").to_owned();
    let (log, _) = log.rsplit_once('.').expect("a log and a position");
    format!("\"{}-{}-{}\"", &log[log.len() - 8..], instance["position"], instance["model_version"])
}

#[test]
fn create_and_get() {
    let server = start();
    let api = server.client();
    let made = api.post(INSTANCES, &json!({"id": "A.b_c~d-1", "data": {"name": "x", "total": 1}})).expect(201);
    assert_eq!(made.header("location"), Some("/models/order/instances/A.b_c~d-1"));
    let instance = made.json();
    assert_eq!(made.header("etag"), Some(tag(&api, &instance).as_str()));
    let keys: Vec<&String> = instance.as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["id", "model", "model_version", "revision", "position", "created_at", "updated_at", "data"]);
    assert_eq!(instance["model"], "order");
    assert_eq!(instance["model_version"], 1);
    assert_eq!(instance["revision"], 1);
    assert_eq!(instance["created_at"], instance["updated_at"]);
    // The default of the schema is filled in.
    assert_eq!(instance["data"], json!({"name": "x", "total": 1, "status": "open"}));
    let got = api.get("/models/order/instances/A.b_c~d-1").expect(200);
    assert_eq!((got.body.clone(), got.header("etag")), (made.body.clone(), made.header("etag")));
    // The same id, written with an escape.
    assert_eq!(api.get("/models/order/instances/A.b_c%7Ed-1").expect(200).body, made.body);
    api.post(INSTANCES, &json!({"id": "A.b_c~d-1", "data": {"name": "x"}})).expect_problem(409, "exists");
}

#[test]
fn ids() {
    let server = start();
    let api = server.client();
    let made = api.post(INSTANCES, &json!({"data": {"name": "x"}})).expect(201).json();
    let id = made["id"].as_str().expect("an id");
    assert_eq!(uuid::Uuid::try_parse(id).expect("a UUID").get_version_num(), 7);
    for id in ["", ".a", "-a", "~", "a/b", "a b", "é", "a\u{0}", "../a", &"x".repeat(129)] {
        let problem = api.post(INSTANCES, &json!({"id": id, "data": {"name": "x"}})).expect_problem(400, "bad-request");
        assert!(problem["detail"].as_str().is_some(), "{problem}");
    }
    for path in [".a", "%2e%2e", "a%2Fb", "a%20b", "%C3%A9", "%00", &"x".repeat(129)] {
        api.get(&format!("{INSTANCES}/{path}")).expect_problem(400, "bad-request");
        api.put(&format!("{INSTANCES}/{path}"), &json!({"data": {"name": "x"}})).expect_problem(400, "bad-request");
        api.delete(&format!("{INSTANCES}/{path}")).expect_problem(400, "bad-request");
        api.get(&format!("{INSTANCES}/{path}/events")).expect_problem(400, "bad-request");
    }
    let longest = "x".repeat(128);
    api.post(INSTANCES, &json!({"id": longest, "data": {"name": "x"}})).expect(201);
    api.get(&format!("{INSTANCES}/{longest}")).expect(200);
}

#[test]
fn digits_and_texts_come_back_as_they_were() {
    let server = Server::start();
    let api = server.client();
    api.post("/models", &json!({"id": "order", "schema": {"type": "object"}})).expect(201);
    let data = r#"{"b":9007199254740993,"a":12345678901234567890.123456789,"e":1E400,"z":-0.0,"f":1.50,"t":"é \u0000 \ud83d\ude00 \"","o":{"y":[],"x":null}}"#;
    let body = format!(r#"{{"id":"a","data":{data}}}"#);
    let made = api.request("POST", INSTANCES).body("application/json", body).send().expect(201);
    assert!(made.text().ends_with(&format!(r#""data":{data}}}"#)), "{}", made.text());
    assert_eq!(api.get("/models/order/instances/a").expect(200).body, made.body);
    let listed = api.get(INSTANCES).expect(200).text();
    assert!(listed.contains(data), "{listed}");
    let events = api.get("/events?type=instance.created").expect(200).text();
    assert!(events.contains(data), "{events}");
    // Changing another property leaves the digits unchanged.
    api.patch("/models/order/instances/a", &json!({"n": 1})).expect(200);
    let got = api.get("/models/order/instances/a").expect(200).text();
    for digits in ["9007199254740993", "12345678901234567890.123456789", "1e+400", "-0.0", "1.50"] {
        assert!(got.to_lowercase().contains(digits), "{digits}: {got}");
    }
    let server = server.restart();
    assert_eq!(server.client().get("/models/order/instances/a").expect(200).text(), got);
}

#[test]
fn broken_bodies() {
    let server = start();
    let api = server.client();
    let deep = format!(r#"{{"data":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let nested = format!(r#"{{"data":{{"name":{}1{}}}}}"#, r#"{"a":"#.repeat(100_000), "}".repeat(100_000));
    for (body, expected) in [
        (&b""[..], "empty"),
        (b"  ", "empty"),
        (b"{", "is not JSON: the text ends inside a value at line 1 column 2"),
        (b"{\"data\":{}} x", "trailing"),
        (b"{\"data\":{},}", "trailing comma"),
        (b"{'data':{}}", "expected a name in quotes"),
        (b"{\"data\":{\"name\":\"\xff\"}}", "UTF-8"),
        (b"{\"data\":{\"name\":\"\xc0\x80\"}}", "UTF-8"),
        (b"{\"data\":{\"name\":\"a\nb\"}}", "control character"),
        (b"{\"data\":{\"name\":\"\\ud800\"}}", "escape"),
        (b"{\"data\":{\"name\":\"\\x\"}}", "escape"),
        (b"{\"data\":{\"total\":01}}", ""),
        (b"{\"data\":{\"total\":.5}}", ""),
        (b"{\"data\":{\"total\":NaN}}", ""),
        (b"{\"data\":{\"total\":1e}}", ""),
        (b"\xef\xbb\xbf{\"data\":{}}", "a byte order mark (U+FEFF)"),
        (b"{\"data\":{\"name\":\"a\",\"name\":\"b\"}}", "name"),
        (b"{\"data\":{},\"data\":{}}", "`/data` appears twice"),
        (b"{\"data\":{},\"revision\":1}", "`/revision` is unknown, expected `id` or `data`"),
        (b"{\"id\":\"a\"}", "`/data` is missing"),
        (b"{\"id\":7,\"data\":{}}", "expected a string"),
        (b"[]", "the body is an array, expected an object"),
        (b"[\"a\", {}]", "the body is an array, expected an object"),
        (b"null", "the body is null, expected an object"),
        (b"\"data\"", "the body is a string, expected an object"),
        (b"{\"data\":[]}", "object"),
        (b"{\"data\":null}", "object"),
        (b"{\"data\":\"x\"}", "object"),
        (b"{\"data\":5}", "object"),
        (deep.as_bytes(), ""),
        (nested.as_bytes(), "nested"),
    ] {
        let shown = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
        let answer = api.request("POST", INSTANCES).body("application/json", body).send();
        let problem = answer.expect_problem(400, "bad-request");
        assert!(problem["detail"].as_str().expect("text").contains(expected), "{shown}: {problem}");
        assert!(problem["detail"].as_str().expect("text").len() < 1000, "{shown}: {problem}");
    }
    assert_eq!(api.get(INSTANCES).expect(200).json()["items"], json!([]));
}

#[test]
fn data_that_is_read_in_two_ways_is_named_by_its_pointer() {
    let server = start();
    let api = server.client();
    create_a(&api);
    let twice = r#"{"customer": {"city": "a", "city": "b"}}"#;
    let batch = format!(
        r#"{{"operations": [{{"op": "delete", "model": "order", "id": "a"}}, {{"op": "create", "model": "order", "data": {twice}}}]}}"#
    );
    for (method, path, media_type, body, pointer) in [
        ("POST", INSTANCES, "application/json", format!("\n\n  {{\"data\": {twice}}}"), "/data/customer/city"),
        (
            "PUT",
            "/models/order/instances/a",
            "application/json",
            format!("{{\"data\":\n{twice}}}"),
            "/data/customer/city",
        ),
        ("PATCH", "/models/order/instances/a", "application/merge-patch+json", format!("\n{twice}"), "/customer/city"),
        ("POST", "/batch", "application/json", batch, "/operations/1/data/customer/city"),
    ] {
        let answer = api.request(method, path).body(media_type, body).send();
        let problem = answer.expect_problem(400, "bad-request");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
        assert_eq!(problem["errors"][0]["message"], "property `city` appears twice in one object", "{problem}");
        // There is no line or column, which would refer to the text of the data only.
        assert_eq!(
            problem["detail"], "property `city` appears twice in one object, at `/customer/city` of the data",
            "{problem}"
        );
    }
}

#[test]
fn data_that_does_not_fit_has_a_row_for_each_fault() {
    let server = start();
    let api = server.client();
    let pointers = |problem: &Value| -> Vec<String> {
        let rows = problem["errors"].as_array().expect("rows");
        assert!(rows.iter().all(|row| row["message"].as_str().is_some_and(|text| !text.is_empty())), "{problem}");
        let mut pointers: Vec<_> = rows.iter().map(|row| row["pointer"].as_str().expect("text").to_owned()).collect();
        pointers.sort();
        pointers
    };
    let body = json!({"id": "a", "data": {"name": "", "total": "much", "count": -1, "customer": {"city": 5}}});
    let problem = api.post(INSTANCES, &body).expect_problem(422, "invalid");
    assert_eq!(pointers(&problem), ["/data/count", "/data/customer/city", "/data/name", "/data/total"]);
    api.post(INSTANCES, &json!({"data": {}})).expect_problem(422, "invalid");
    api.post(INSTANCES, &json!({"data": {"name": "x", "unknown": 1}})).expect_problem(422, "invalid");
    create_a(&api);
    let problem = api.put("/models/order/instances/a", &json!({"data": {"name": 1}})).expect_problem(422, "invalid");
    assert_eq!(pointers(&problem), ["/data/name"]);
    // The body of a patch is the data itself.
    let problem = api.patch("/models/order/instances/a", &json!({"name": 1})).expect_problem(422, "invalid");
    assert_eq!(pointers(&problem), ["/name"]);
    api.patch("/models/order/instances/a", &json!({"name": null})).expect_problem(422, "invalid");
    assert_eq!(api.get("/models/order/instances/a").expect(200).json()["revision"], 1);
}

#[test]
fn replace() {
    let server = start();
    let api = server.client();
    let path = "/models/order/instances/a";
    api.put(path, &json!({"data": {"name": "x"}})).expect_problem(404, "not-found");
    let first = create_a(&api);
    let answer = api.put(path, &json!({"data": {"name": "second"}})).expect(200);
    let second = answer.json();
    assert_eq!(answer.header("etag"), Some(tag(&api, &second).as_str()));
    // The old properties are gone, and the default applies again.
    assert_eq!(second["data"], json!({"name": "second", "status": "open"}));
    assert_eq!((&second["revision"], &second["created_at"]), (&json!(2), &first["created_at"]));
    assert!(second["position"].as_u64() > first["position"].as_u64());
    assert_eq!(api.get(path).expect(200).json(), second);
    api.put(path, &json!({"id": "a", "data": {"name": "x"}})).expect_problem(400, "bad-request");
    api.put(path, &json!({"name": "x"})).expect_problem(400, "bad-request");
    // `If-None-Match: *` creates.
    let create =
        |path: &str| api.request("PUT", path).header("If-None-Match", "*").json(&json!({"data": {"name": "x"}})).send();
    create(path).expect_problem(412, "precondition-failed");
    let made = create("/models/order/instances/b").expect(201);
    assert_eq!(made.header("location"), Some("/models/order/instances/b"));
    assert_eq!(made.json()["revision"], 1);
}

#[test]
fn patch() {
    let server = start();
    let api = server.client();
    let path = "/models/order/instances/a";
    api.patch(path, &json!({"total": 1})).expect_problem(404, "not-found");
    api.post(
        INSTANCES,
        &json!({"id": "a", "data": {"name": "x", "total": 1.50, "customer": {"name": "n", "city": "c"}}}),
    )
    .expect(201);
    let patched = api.patch(path, &json!({"total": null, "count": 3, "customer": {"city": null}})).expect(200);
    assert_eq!(patched.json()["data"], json!({"name": "x", "customer": {"name": "n"}, "status": "open", "count": 3}));
    assert_eq!(patched.json()["revision"], 2);
    assert_eq!(api.get(path).expect(200).body, patched.body);
    for body in ["[]", "1", "null", "\"x\""] {
        let answer = api.request("PATCH", path).body("application/merge-patch+json", body).send();
        assert!(matches!(answer.status, 400 | 422), "{body}: {}", answer.text());
    }
    let broken = api.request("PATCH", path).body("application/merge-patch+json", "{").send();
    broken.expect_problem(400, "bad-request");
}

#[test]
fn delete() {
    let server = start();
    let api = server.client();
    let path = "/models/order/instances/a";
    api.delete(path).expect_problem(404, "not-found");
    create_a(&api);
    let gone = api.delete(path).expect(204);
    assert!(gone.body.is_empty());
    api.get(path).expect_problem(404, "not-found");
    api.delete(path).expect_problem(404, "not-found");
    // It can be created again, starting at revision 1.
    assert_eq!(create_a(&api)["revision"], 1);
}

#[test]
fn conditional_reads() {
    let server = start();
    let api = server.client();
    let path = "/models/order/instances/a";
    let tag = tag(&api, &create_a(&api));
    let get = |name: &str, value: &str| api.request("GET", path).header(name, value).send();
    for holds in [tag.as_str(), "*", &format!("W/{tag}"), &format!("\"1\", {tag}")] {
        let answer = get("If-None-Match", holds).expect(304);
        assert!(answer.body.is_empty() && answer.header("etag") == Some(tag.as_str()), "{holds}");
    }
    get("If-None-Match", "\"999\"").expect(200);
    get("If-Match", &tag).expect(200);
    get("If-Match", "\"999\"").expect_problem(412, "precondition-failed");
    for malformed in ["7", "\"7", "", "\"7\" \"8\"", "w/\"7\""] {
        get("If-None-Match", malformed).expect_problem(400, "bad-request");
    }
    get("X-Nothing", "x").expect(200);
}

#[test]
fn conditional_writes() {
    let server = start();
    let api = server.client();
    let path = "/models/order/instances/a";
    let first = tag(&api, &create_a(&api));
    let put = |name: &str, value: &str| {
        api.request("PUT", path).header(name, value).json(&json!({"data": {"name": "x"}})).send()
    };
    put("If-Match", "\"999\"").expect_problem(412, "precondition-failed");
    put("If-Match", &format!("W/{first}")).expect_problem(412, "precondition-failed");
    put("If-Match", "\"not-a-position\"").expect_problem(412, "precondition-failed");
    let second = put("If-Match", &format!("\"999\", {first}")).expect(200).json();
    put("If-Match", &first).expect_problem(412, "precondition-failed");
    put("If-Match", "*").expect(200);
    let patch = api.request("PATCH", path).header("If-Match", &tag(&api, &second));
    patch.body("application/merge-patch+json", "{}").send().expect_problem(412, "precondition-failed");
    let delete = |value: &str| api.request("DELETE", path).header("If-Match", value).send();
    delete(&first).expect_problem(412, "precondition-failed");
    for malformed in ["7", "*, \"7\"", "\"7\"; x"] {
        put("If-Match", malformed).expect_problem(400, "bad-request");
    }
    put("If-None-Match", "\"7\"").expect_problem(400, "bad-request");
    let both = api.request("PUT", path).header("If-Match", "*").header("If-None-Match", "*");
    both.json(&json!({"data": {"name": "x"}})).send().expect_problem(400, "bad-request");
    delete("*").expect(204);
    put("If-Match", "*").expect_problem(412, "precondition-failed");
    let post = |name: &str, value: &str, id: &str| {
        let body = json!({"id": id, "data": {"name": "x"}});
        api.request("POST", INSTANCES).header(name, value).json(&body).send()
    };
    post("If-Match", "*", "b").expect_problem(412, "precondition-failed");
    post("If-None-Match", "*", "b").expect(201);
    post("If-None-Match", "*", "b").expect_problem(412, "precondition-failed");
}

#[test]
fn unique_values() {
    let server = Server::start();
    let api = server.client();
    let schema = json!({"type": "object", "properties": {"mail": {"type": "string"}, "n": {"type": "integer"}}});
    api.post("/models", &json!({"id": "order", "schema": schema, "unique": [["mail"], ["n", "mail"]]})).expect(201);
    let post = |id: &str, data: Value| api.post(INSTANCES, &json!({"id": id, "data": data}));
    post("a", json!({"mail": "x"})).expect(201);
    let problem = post("b", json!({"mail": "x"})).expect_problem(409, "not-unique");
    assert_eq!(problem["errors"][0]["pointer"], "/data/mail", "{problem}");
    post("b", json!({})).expect(201);
    post("c", json!({})).expect(201);
    let problem =
        api.put("/models/order/instances/b", &json!({"data": {"mail": "x"}})).expect_problem(409, "not-unique");
    assert!(problem["detail"].as_str().expect("text").contains("mail"), "{problem}");
    // A released value is free.
    api.put("/models/order/instances/a", &json!({"data": {"mail": "y"}})).expect(200);
    api.put("/models/order/instances/b", &json!({"data": {"mail": "x"}})).expect(200);
    api.delete("/models/order/instances/b").expect(204);
    post("d", json!({"mail": "x"})).expect(201);
}

#[test]
fn unique_values_hold_under_concurrency() {
    let server = Server::start();
    let api = server.client();
    let schema = json!({"type": "object", "properties": {"mail": {"type": "string"}}});
    api.post("/models", &json!({"id": "order", "schema": schema, "unique": [["mail"]]})).expect(201);
    let made: Vec<u16> = std::thread::scope(|scope| {
        let tries: Vec<_> = (0..16)
            .map(|_| scope.spawn(|| server.client().post(INSTANCES, &json!({"data": {"mail": "one"}})).status))
            .collect();
        tries.into_iter().map(|thread| thread.join().expect("a status")).collect()
    });
    assert_eq!(made.iter().filter(|status| **status == 201).count(), 1, "{made:?}");
    assert!(made.iter().all(|status| matches!(status, 201 | 409)), "{made:?}");
    assert_eq!(api.get(&format!("{INSTANCES}?count=true")).expect(200).json()["count"], 1);
}

#[test]
fn writers_of_one_instance_do_not_lose_updates() {
    let server = start();
    let api = server.client();
    create_a(&api);
    let done: u64 = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..8)
            .map(|writer| {
                let api = server.client();
                scope.spawn(move || {
                    let write = |n: u64| api.patch("/models/order/instances/a", &json!({"count": writer * 100 + n}));
                    (0..20).filter(|n| matches!(write(*n).status, 200)).count() as u64
                })
            })
            .collect();
        writers.into_iter().map(|thread| thread.join().expect("a count")).sum()
    });
    assert!(done > 0);
    let revision = api.get("/models/order/instances/a").expect(200).json()["revision"].as_u64().expect("a number");
    assert_eq!(revision, done + 1);
}

#[test]
fn idempotency() {
    let server = start();
    let api = server.client();
    let post = |key: &str, name: &str| {
        let body = json!({"data": {"name": name}});
        api.request("POST", INSTANCES).header("Idempotency-Key", key).json(&body).send()
    };
    let first = post("key-1", "x").expect(201);
    let again = post("key-1", "x").expect(201);
    assert_eq!((&again.body, again.header("location")), (&first.body, first.header("location")));
    assert_ne!(post("key-2", "x").expect(201).json()["id"], first.json()["id"]);
    assert_eq!(api.get(&format!("{INSTANCES}?count=true")).expect(200).json()["count"], 2);
    for bad in ["", "a b", "é", &"x".repeat(256)] {
        post(bad, "x").expect_problem(400, "bad-request");
    }
    post(&"x".repeat(255), "x").expect(201);
    // The key survives a crash.
    let server = server.kill_and_restart();
    let body = json!({"data": {"name": "x"}});
    let api = server.client();
    let again = api.request("POST", INSTANCES).header("Idempotency-Key", "key-1").json(&body).send().expect(201);
    assert_eq!(again.body, first.body);
}

#[test]
fn preferences() {
    let server = start();
    let api = server.client();
    let minimal = |method: &str, path: &str| api.request(method, path).header("Prefer", "return=minimal");
    let made = minimal("POST", INSTANCES).json(&json!({"id": "a", "data": {"name": "x"}})).send().expect(201);
    assert!(made.body.is_empty());
    assert_eq!(made.header("location"), Some("/models/order/instances/a"));
    assert_eq!(made.header("preference-applied"), Some("return=minimal"));
    assert!(made.header("etag").is_some());
    let path = "/models/order/instances/a";
    let put = minimal("PUT", path).json(&json!({"data": {"name": "y"}})).send().expect(204);
    let current = api.get(path).expect(200);
    assert_eq!(put.header("etag"), current.header("etag"));
    let patch = minimal("PATCH", path).body("application/merge-patch+json", "{\"count\":1}").send().expect(204);
    assert_ne!(patch.header("etag"), put.header("etag"));
    let whole = api.request("PUT", path).header("Prefer", "return=representation, wait=5, unknown");
    let whole = whole.json(&json!({"data": {"name": "z"}})).send().expect(200);
    assert_eq!(whole.header("preference-applied"), Some("wait=5"));
}

#[test]
fn dry_runs_store_nothing() {
    let server = start();
    let api = server.client();
    let head = api.get("/events").expect(200).json()["head"].clone();
    let dry =
        api.post(&format!("{INSTANCES}?dry-run=true"), &json!({"id": "a", "data": {"name": "x"}})).expect(200).json();
    let keys: Vec<&String> = dry.as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["event", "hooks", "post_hooks"]);
    assert_eq!(dry["event"]["type"], "instance.created");
    assert_eq!(dry["event"]["data"], json!({"name": "x", "status": "open"}));
    api.get("/models/order/instances/a").expect_problem(404, "not-found");
    api.post(&format!("{INSTANCES}?dry-run=true"), &json!({"data": {}})).expect_problem(422, "invalid");
    assert_eq!(api.get("/events").expect(200).json()["head"], head);
    create_a(&api);
    let path = "/models/order/instances/a?dry-run=true";
    assert_eq!(api.put(path, &json!({"data": {"name": "y"}})).expect(200).json()["event"]["revision"], 2);
    assert_eq!(api.patch(path, &json!({"count": 1})).expect(200).json()["event"]["data"]["count"], 1);
    assert_eq!(api.delete(path).expect(200).json()["event"]["type"], "instance.deleted");
    assert_eq!(api.get("/models/order/instances/a").expect(200).json()["revision"], 1);
    api.post(&format!("{INSTANCES}?dry-run=1"), &json!({"data": {"name": "x"}})).expect_problem(400, "bad-request");
}

#[test]
fn the_past() {
    let server = start();
    let api = server.client();
    let path = "/models/order/instances/a";
    let first = create_a(&api);
    // At the timestamp of the first version nothing else happened to it.
    crate::support::eventually("the clock moves on", || {
        let other = api.post("/models/order/instances", &json!({"data": {"name": "other"}})).expect(201).json();
        (other["updated_at"] != first["updated_at"]).then_some(())
    });
    let second = api.put(path, &json!({"data": {"name": "second"}})).expect(200).json();
    let deleted = {
        api.delete(path).expect(204);
        api.get("/events").expect(200).json()["head"].clone()
    };
    let at = |at: &str| api.get(&format!("{path}?at={at}"));
    let then = at(&first["position"].to_string()).expect(200);
    assert_eq!((then.json(), then.header("etag")), (first.clone(), Some(tag(&api, &first).as_str())));
    assert_eq!(at(first["updated_at"].as_str().expect("a time")).expect(200).json()["data"], first["data"]);
    assert_eq!(at(&second["position"].to_string()).expect(200).json(), second);
    assert_eq!(at("2999-01-01T00:00:00Z").status, 404);
    at("2000-01-01T00:00:00.000Z").expect_problem(404, "not-found");
    at("1").expect_problem(404, "not-found");
    at(&deleted.to_string()).expect_problem(404, "not-found");
    for bad in ["", "yesterday", "-1", "2020-01-01", "1.5"] {
        at(bad).expect_problem(400, "bad-request");
    }
    let unchanged =
        api.request("GET", &format!("{path}?at={}", first["position"])).header("If-None-Match", &tag(&api, &first));
    unchanged.send().expect(304);
}
