//! Bodies with errors: on every route, the response points to the member, says what was found and what is expected, and
//! contains no message of a library.

use serde_json::{Value, json};

use crate::support::{Client, Response, Server};

/// Messages of serde and serde_json, which name the server's types.
const WORDS_OF_LIBRARIES: [&str; 14] = [
    "invalid type",
    "invalid value",
    "invalid length",
    "expected struct",
    "expected a sequence",
    "expected a map",
    "missing field",
    "unknown field",
    "duplicate field",
    "unknown variant",
    "did not match any variant",
    "EOF while",
    "key must be",
    "RawValue",
];

/// Every operation that reads JSON, with a valid body.
fn operations() -> Vec<(&'static str, &'static str, &'static str, Value)> {
    let json = "application/json";
    vec![
        (
            "POST",
            "/models",
            json,
            json!({"id": "a", "schema": {"type": "object"}, "indexes": [["x"]], "unique": [["x"]], "rules": {"read": {}}}),
        ),
        (
            "PUT",
            "/models/order",
            json,
            json!({"schema": {"type": "object"}, "indexes": [["x"]], "unique": [{"properties": ["x"], "collation": "nocase"}],
                "renames": {"a": "b"}, "rules": {"read": {}}}),
        ),
        ("POST", "/models/order/instances", json, json!({"id": "i", "data": {"name": "x"}})),
        ("PUT", "/models/order/instances/a", json, json!({"data": {"name": "x"}})),
        ("PATCH", "/models/order/instances/a", "application/merge-patch+json", json!({"name": "x"})),
        (
            "POST",
            "/batch",
            json,
            json!({"operations": [{"op": "update", "model": "order", "id": "a", "data": {"name": "x"}, "if_match": "\"x\""}]}),
        ),
        (
            "PUT",
            "/models/order/hooks/preCreate",
            json,
            json!({"chain": [{"name": "h", "engine": "quickjs", "source": "export default () => {}", "mode": "enforce",
                "as": "actor", "language": "javascript"}]}),
        ),
        (
            "PUT",
            "/models/order/hooks/postCreate",
            json,
            json!({"chain": [{"engine": "webhook", "url": "https://a.example", "secret": "s"}]}),
        ),
        (
            "POST",
            "/tokens",
            json,
            json!({"name": "t", "role": "reader", "models": ["a"], "expires_at": "2030-01-01T00:00:00Z"}),
        ),
        ("POST", "/events/1/skip", json, json!({"reason": "x"})),
    ]
}

/// Every location in a body, as a JSON Pointer.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(members) => {
            members.iter().for_each(|(name, value)| places(value, &format!("{at}/{name}"), found))
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(row, value)| places(value, &format!("{at}/{row}"), found));
        }
        _ => {}
    }
}

fn send(api: &Client, method: &str, path: &str, media_type: &str, body: &str) -> Response {
    api.request(method, path).body(media_type, body).send()
}

#[track_caller]
fn in_our_words(answer: &Response, sent: &str) {
    let text = answer.text();
    assert!(answer.status < 500, "{sent}: {text}");
    for words in WORDS_OF_LIBRARIES {
        assert!(!text.contains(words), "`{words}` in the response to {sent:.300}: {text}");
    }
}

#[test]
fn no_body_of_a_wrong_type_is_answered_in_words_of_a_library() {
    let server = Server::start();
    let api = server.client();
    let schema = json!({"type": "object", "properties": {"name": {"type": "string"}}, "additionalProperties": false});
    api.post("/models", &json!({"id": "order", "schema": schema})).expect(201);
    api.post("/models/order/instances", &json!({"id": "a", "data": {"name": "x"}})).expect(201);
    let mut pointed = 0;
    for (method, path, media_type, body) in operations() {
        let what = format!("{method} {path}");
        for broken in [
            "",
            " ",
            "{",
            "[",
            "nul",
            "\"",
            "{\"a\"",
            "{\"a\":}",
            "{'a':1}",
            "{\"a\":1,}",
            "{} {}",
            "\u{feff}{}",
            "[1 2]",
        ] {
            let answer = send(&api, method, path, media_type, broken);
            in_our_words(&answer, &format!("{what} {broken}"));
            answer.expect_problem(400, "bad-request");
        }
        let mut found = Vec::new();
        places(&body, "", &mut found);
        for place in found {
            for wrong in
                [json!(5), json!("x"), json!([]), json!([5]), json!({}), json!({"x": 1}), json!(true), Value::Null]
            {
                let mut changed = body.clone();
                *changed.pointer_mut(&place).expect("a place") = wrong;
                let sent = format!("{what} {changed}");
                let answer = send(&api, method, path, media_type, &changed.to_string());
                in_our_words(&answer, &sent);
                if answer.status == 400 {
                    for row in answer.json()["errors"].as_array().into_iter().flatten() {
                        let pointer = row["pointer"].as_str().expect("a text");
                        let is_near = place.starts_with(pointer) || pointer.starts_with(&*place);
                        assert!(is_near, "{sent}: `{place}` was changed, `{pointer}` is pointed to");
                        pointed += 1;
                    }
                }
            }
            // An unknown member, and a duplicate one.
            if body.pointer(&place).is_some_and(Value::is_object) {
                let mut changed = body.clone();
                changed.pointer_mut(&place).expect("a place")["nobody"] = json!(1);
                in_our_words(&send(&api, method, path, media_type, &changed.to_string()), &changed.to_string());
            }
        }
        if let Value::Object(members) = &body {
            for (name, value) in members {
                let rest = body.to_string();
                let twice = format!("{{\"{name}\":{value},{}", &rest[1..]);
                let answer = send(&api, method, path, media_type, &twice);
                in_our_words(&answer, &twice);
                assert!(matches!(answer.status, 400 | 422), "{twice}: {}", answer.text());
            }
        }
    }
    assert!(pointed > 100, "only {pointed} responses point to a member");
    // Each line of an import is a body.
    let lines = [
        "5",
        "[]",
        "[\"a\", {}]",
        "{\"id\":5,\"data\":{}}",
        "{\"id\":\"z\"}",
        "{",
        "{\"data\":{},\"x\":1}",
        "\u{feff}{}",
    ];
    let answer = send(&api, "POST", "/models/order/import", "application/x-ndjson", &lines.join("\n"));
    in_our_words(&answer, "an import");
    let report = answer.expect(200).json();
    assert_eq!((&report["created"], &report["failed"]), (&json!(0), &json!(lines.len())), "{report}");
}

#[test]
fn a_missing_or_unknown_property_is_pointed_to() {
    let server = Server::start();
    let api = server.client();
    let address =
        json!({"type": "object", "properties": {"city": {}}, "required": ["city"], "additionalProperties": false});
    let schema = json!({"type": "object", "properties": {"customer": {}, "address": address}, "required": ["customer"],
        "additionalProperties": false});
    api.post("/models", &json!({"id": "order", "schema": schema})).expect(201);
    let pointers = |problem: &Value| -> Vec<String> {
        let rows = problem["errors"].as_array().expect("rows");
        let mut pointers: Vec<_> = rows.iter().map(|row| row["pointer"].as_str().expect("text").to_owned()).collect();
        pointers.sort();
        pointers
    };
    let problem = api.post("/models/order/instances", &json!({"data": {"custmer": 1, "address": {"cty": 1}}}));
    let problem = problem.expect_problem(422, "invalid");
    assert_eq!(pointers(&problem), ["/data/address/city", "/data/address/cty", "/data/custmer", "/data/customer"]);
    api.post("/models/order/instances", &json!({"id": "a", "data": {"customer": 1}})).expect(201);
    let problem = api.patch("/models/order/instances/a", &json!({"custmer": 1})).expect_problem(422, "invalid");
    assert_eq!(pointers(&problem), ["/custmer"]);
    let operations = json!({"operations": [{"op": "create", "model": "order", "data": {}}]});
    let problem = api.post("/batch", &operations).expect_problem(422, "invalid");
    assert_eq!(pointers(&problem), ["/operations/0/data/customer"]);
    // Data that is not an object.
    let problem = api.post("/models/order/instances", &json!({"data": "x"})).expect_problem(400, "bad-request");
    assert_eq!(pointers(&problem), ["/data"]);
}

#[test]
fn short_forms_that_do_not_work_are_answered_with_those_that_do() {
    let server = Server::start();
    let api = server.client();
    let schema = json!({"type": "object", "properties": {"email": {"type": "string"}}});
    let model = json!({"id": "user", "schema": schema, "unique": ["email"]});
    let problem = api.post("/models", &model).expect_problem(400, "bad-request");
    assert_eq!(problem["errors"][0]["pointer"], "/unique/0", "{problem}");
    let detail = problem["detail"].as_str().expect("a text");
    // The form that the response suggests works.
    let start = detail.find("`\"unique\": ").expect("the form") + "`\"unique\": ".len();
    let form: Value = snaphook_driver::json::parse(&detail[start..start + detail[start..].find('`').expect("its end")])
        .expect("JSON");
    api.post("/models", &json!({"id": "user", "schema": schema, "unique": form})).expect(201);
    api.post("/models/user/instances", &json!({"data": {"email": "a"}})).expect(201);
    api.post("/models/user/instances", &json!({"data": {"email": "a"}})).expect_problem(409, "not-unique");
}

#[test]
fn weak_tags_never_match_and_the_response_says_so() {
    let server = Server::start();
    let api = server.client();
    api.post("/models", &json!({"id": "order", "schema": {"type": "object"}})).expect(201);
    let made = api.post("/models/order/instances", &json!({"id": "a", "data": {}})).expect(201);
    let tag = made.header("etag").expect("an ETag").to_owned();
    let path = "/models/order/instances/a";
    let body = json!({"data": {}});
    for (method, path, body) in [("PUT", path, &body), ("DELETE", path, &Value::Null), ("GET", path, &Value::Null)] {
        let request = api.request(method, path).header("If-Match", &format!("W/{tag}"));
        let answer = if body.is_null() { request.send() } else { request.json(body).send() };
        let problem = answer.expect_problem(412, "precondition-failed");
        assert!(problem["detail"].as_str().expect("a text").contains("never match"), "{method}: {problem}");
    }
    let operation = json!({"op": "delete", "model": "order", "id": "a", "if_match": format!("W/{tag}")});
    let problem = api.post("/batch", &json!({"operations": [operation]})).expect_problem(412, "precondition-failed");
    assert!(problem["detail"].as_str().expect("a text").contains("never match"), "{problem}");
    api.request("PUT", path).header("If-Match", &tag).json(&body).send().expect(200);
}

#[test]
fn options_are_answered_for_the_server_as_a_whole() {
    let server = Server::start();
    let api = server.client();
    let options = api.request_to("OPTIONS", "*").send().expect(204);
    assert_eq!(options.header("allow"), Some("GET, HEAD, POST, PUT, PATCH, DELETE"));
    assert!(options.header("x-request-id").is_some());
}
