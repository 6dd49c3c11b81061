//! Numbers keep their digits on every path through the server.

use serde_json::json;

use crate::support::{Client, Server, ServerOptions, eventually};

/// Property and number, as a client writes it. None of them survives conversion to a double.
const NUMBERS: &[(&str, &str)] = &[
    ("odd", "9007199254740993"),
    ("negative", "-9007199254740993"),
    ("beyond", "18446744073709551617"),
    ("exact", "12345678901234567890.123456789"),
    ("one", "1.0"),
    ("trailing", "2.50"),
    ("huge", "1e400"),
    ("upper", "1.5E+3"),
    ("tiny", "-2.5e-400"),
    ("zero", "-0.0"),
    ("long", "0.1000000000000000055511151231257827021181583404541015625"),
    ("wide", "123456789012345678901234567890123456789012345678901234567890"),
];

/// Data with all numbers, also inside an object and a list.
fn data(note: &str) -> String {
    let members: Vec<String> = NUMBERS.iter().map(|(name, number)| format!(r#""{name}":{number}"#)).collect();
    let list: Vec<&str> = NUMBERS.iter().map(|(_, number)| *number).collect();
    format!(
        r#"{{"note":"{note}",{},"inner":{{{}}},"list":[{}]}}"#,
        members.join(","),
        members.join(","),
        list.join(",")
    )
}

/// Removes the optional plus sign of exponents, which is not a digit.
fn plain(text: &str) -> String {
    text.replace("e+", "e").replace("E+", "e")
}

/// The text contains each number wherever the data has it.
#[track_caller]
fn check(what: &str, text: &str) {
    let text = plain(text);
    for (name, number) in NUMBERS {
        let number = plain(number);
        let count =
            [",", "}"].iter().map(|end| text.matches(&format!(r#""{name}":{number}{end}"#)).count()).sum::<usize>();
        assert!(count >= 2, "{what}: `{name}` is not {number} everywhere: {text}");
    }
    let list: Vec<&str> = NUMBERS.iter().map(|(_, number)| *number).collect();
    assert!(text.contains(&plain(&format!(r#""list":[{}]"#, list.join(",")))), "{what}: {text}");
}

fn model(id: &str) -> serde_json::Value {
    let numbers = || NUMBERS.iter().map(|(name, _)| ((*name).to_owned(), json!({"type": "number"})));
    let mut properties: serde_json::Map<_, _> = numbers().collect();
    properties.insert("note".to_owned(), json!({"type": "string"}));
    properties.insert(
        "inner".to_owned(),
        json!({"type": "object", "properties": numbers().collect::<serde_json::Map<_, _>>()}),
    );
    properties.insert("list".to_owned(), json!({"type": "array"}));
    json!({"id": id, "schema": {"type": "object", "properties": properties}, "indexes": [["odd"], ["-exact", "huge"]]})
}

#[track_caller]
fn send(api: &Client, method: &str, path: &str, body: String, status: u16) -> String {
    let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    api.request(method, path).body(kind, body).send().expect(status).text()
}

/// Checks every way to read the instance `a`.
#[track_caller]
fn check_reads(api: &Client, model: &str) {
    let path = format!("/models/{model}/instances");
    let instance = api.get(&format!("{path}/a")).expect(200);
    check("get", &instance.text());
    let instance = instance.json();
    for (what, path) in [
        ("list", path.clone()),
        ("sorted list", format!("{path}?sort=-exact,odd")),
        ("filtered list", format!("{path}?filter[odd][eq]=9007199254740993")),
        ("history", format!("{path}/a/events")),
        ("events", format!("/events?model={model}&type=instance.created,instance.updated&limit=1000")),
        ("by position", format!("{path}/a?at={}", instance["position"])),
        ("by time", format!("{path}/a?at={}", instance["updated_at"].as_str().expect("a time"))),
    ] {
        check(what, &api.get(&path).expect(200).text());
    }
    let fields: Vec<&str> = NUMBERS.iter().map(|(name, _)| *name).chain(["inner", "list"]).collect();
    check("fields", &api.get(&format!("{path}/?fields={}", fields.join(",")).replace("/?", "?")).expect(200).text());
}

#[test]
fn digits_survive_every_way_through_the_server() {
    let tables = "[[grants]]\nmodel = 'hooked'\nphase = ['preCreate', 'preUpdate']\namend = true\n\
                  [[grants]]\nmodel = 'hooked'\nphase = 'postCreate'\nwrite = ['copy']\n";
    let mut server = Server::start_with(ServerOptions { tables: tables.to_owned(), ..ServerOptions::default() });
    let api = server.client();
    for id in ["plain", "hooked"] {
        api.post("/models", &model(id)).expect(201);
    }
    let amend = "export default ({ after }) => ({ ...after, note: after.note + '!' })";
    api.put_javascript("hooked", "preCreate", amend).expect(200);
    let amend = "export default ({ after }) => { after.note += '?'; return after; }";
    api.put_javascript("hooked", "preUpdate", amend).expect(200);

    for model in ["plain", "hooked"] {
        let path = format!("/models/{model}/instances");
        let dry_run = send(&api, "POST", &format!("{path}?dry-run=true"), format!(r#"{{"data":{}}}"#, data("d")), 200);
        check("dry run", &dry_run);
        check("create", &send(&api, "POST", &path, format!(r#"{{"id":"a","data":{}}}"#, data("one")), 201));
        check_reads(&api, model);
        check("replace", &send(&api, "PUT", &format!("{path}/a"), format!(r#"{{"data":{}}}"#, data("two")), 200));
        check("patch", &send(&api, "PATCH", &format!("{path}/a"), r#"{"note":"three"}"#.to_owned(), 200));
        check_reads(&api, model);
        let line = format!("{{\"id\":\"b\",\"data\":{}}}\n", data("four"));
        let imported = api.request("POST", &format!("/models/{model}/import")).body("application/x-ndjson", line);
        assert_eq!(imported.send().expect(200).json()["created"], 1);
        check("import", &api.get(&format!("{path}/b")).expect(200).text());
    }
    let note =
        |model: &str| api.get(&format!("/models/{model}/instances/a")).expect(200).json()["data"]["note"].clone();
    assert_eq!((note("plain"), note("hooked")), (json!("three"), json!("three?")));

    server = server.restart();
    let api = server.client();
    for model in ["plain", "hooked"] {
        check_reads(&api, model);
    }
    api.request("POST", "/rebuild").send().expect(202);
    eventually("the rebuild is done", || (api.get("/rebuild").expect(200).json()["state"] == "done").then_some(()));
    for model in ["plain", "hooked"] {
        check_reads(&api, model);
    }
}

#[test]
fn a_hook_that_changes_a_number_changes_that_one_only() {
    let tables = "[[grants]]\nmodel = 'plain'\nphase = 'preCreate'\namend = true\n";
    let server = Server::start_with(ServerOptions { tables: tables.to_owned(), ..ServerOptions::default() });
    let api = server.client();
    api.post("/models", &model("plain")).expect(201);
    let hook =
        "export default ({ after }) => ({ ...after, one: after.one + 1, inner: { ...after.inner, trailing: 7 } })";
    api.put_javascript("plain", "preCreate", hook).expect(200);
    let body = format!(r#"{{"id":"a","data":{}}}"#, data("x"));
    let text = plain(&send(&api, "POST", "/models/plain/instances", body, 201));
    let (outer, inner) = text.split_once(r#""inner":"#).expect("the inner object");
    for (name, number) in NUMBERS {
        let expected =
            |changed: &str, to: &str| plain(&format!(r#""{name}":{}"#, if *name == changed { to } else { number }));
        assert!(outer.contains(&expected("one", "2")), "{name}: {text}");
        assert!(inner.contains(&expected("trailing", "7")), "{name}: {text}");
    }
}

#[test]
fn numbers_that_a_double_confuses_stay_apart() {
    let server = Server::start();
    let api = server.client();
    let schema = json!({"type": "object", "properties": {"n": {"type": "number"}}});
    api.post("/models", &json!({"id": "plain", "schema": schema, "unique": [["n"]]})).expect(201);
    let path = "/models/plain/instances";
    let create = |n: &str, status| send(&api, "POST", path, format!(r#"{{"data":{{"n":{n}}}}}"#), status);
    for n in ["9007199254740992", "9007199254740993", "1e400", "1e401", "0.1", "0.10000000000000000001"] {
        create(n, 201);
    }
    // Different digits, but the same number.
    for n in ["9007199254740993.0", "10e399", "0.100", "1e-1"] {
        create(n, 409);
    }
    for n in ["9007199254740992", "9007199254740993"] {
        let found = api.get(&format!("{path}?filter[n][eq]={n}&count=true")).expect(200);
        assert_eq!(found.json()["count"], 1, "{n}: {}", found.text());
        assert!(found.text().contains(&format!(r#""n":{n}}}"#)), "{}", found.text());
    }
}
