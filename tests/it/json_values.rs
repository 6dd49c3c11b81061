//! For any JSON input, the same value is validated, passed to hooks, stored, indexed and returned.
//!
//! Responses are read by a parser that shares no code with the server's. `SNAPHOOK_FUZZ_SECONDS` sets the duration of
//! the random part, `SNAPHOOK_TEST_SEED` its seed.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use snaphook_driver_testkit::json::{Generator, Tree, reference};

use crate::support::{Client, Response, Server, ServerOptions, skip};

const SECONDS_DEFAULT: u64 = 5;

const RAW_VALUE: &str = "$serde_json::private::RawValue";
const NUMBER: &str = "$serde_json::private::Number";

fn number_of(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is `{text}`, expected a whole number")))
}

fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "%{byte:02X}");
        out
    })
}

#[track_caller]
fn tree(response: &Response) -> Tree {
    reference(&response.body).unwrap_or_else(|error| panic!("{error}: {}", response.text()))
}

#[track_caller]
fn create(api: &Client, model: &str, id: &str, data: &str) -> Response {
    let body = format!("{{\"id\":\"{id}\",\"data\":{data}}}");
    api.request("POST", &format!("/models/{model}/instances")).body("application/json", body).send()
}

/// The data of an instance or event.
#[track_caller]
fn data_of(found: &Tree) -> &Tree {
    found.get("data").unwrap_or_else(|| panic!("no data: {found}"))
}

/// The items of a page.
#[track_caller]
fn items(response: &Response) -> Vec<Tree> {
    match tree(response).get("items") {
        Some(Tree::List(items)) => items.clone(),
        other => panic!("no items: {other:?}"),
    }
}

#[track_caller]
fn same(what: &str, found: &Tree, expected: &Tree) {
    assert!(found.is_same(expected), "{what}: {found} instead of {expected}");
}

#[test]
fn names_of_the_json_library_mean_nothing() {
    let server = Server::start();
    let api = server.client();
    let strict = json!({"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": false});
    let schema = json!({"type": "object", "properties": {"v": {}}});
    for (id, schema, unique) in
        [("strict", &strict, json!([])), ("free", &schema, json!([])), ("unique", &schema, json!([["v"]]))]
    {
        api.post("/models", &json!({"id": id, "schema": schema, "unique": unique})).expect(201);
    }
    let mut count = 0;
    for name in [RAW_VALUE, NUMBER] {
        for hidden in ["{\"a\":1}", "1", "", "{\"v\":{\"v\":1}}", "[[[[1]]]]", "1e400"] {
            count += 1;
            let text = Value::from(hidden).to_string();
            let data = format!("{{\"{name}\":{text}}}");
            // The object is not mistaken for the value inside it.
            let problem = create(&api, "strict", "x", &data).expect_problem(422, "invalid");
            assert!(problem["errors"].to_string().contains(name), "{problem}");
            let expected = Tree::Object(vec![(name.to_owned(), Tree::String(hidden.to_owned()))]);
            let id = format!("i{count}");
            for (at, data, wrapped) in [
                ("top", data.clone(), expected.clone()),
                (
                    "inside",
                    format!("{{\"v\":[{data}]}}"),
                    Tree::Object(vec![("v".into(), Tree::List(vec![expected.clone()]))]),
                ),
            ] {
                let made = create(&api, "free", &format!("{at}-{id}"), &data).expect(201);
                same("the response", data_of(&tree(&made)), &wrapped);
                let found = api.get(&format!("/models/free/instances/{at}-{id}")).expect(200);
                same("the instance", data_of(&tree(&found)), &wrapped);
                let patch = format!("{{\"p\":{data}}}");
                let path = format!("/models/free/instances/{at}-{id}");
                let patched =
                    api.request("PATCH", &path).body("application/merge-patch+json", patch).send().expect(200);
                same("the patch", data_of(&tree(&patched)).get("p").expect("patched"), &wrapped);
                same(
                    "the rest",
                    data_of(&tree(&patched)).get(if at == "top" { name } else { "v" }).expect("kept"),
                    match &wrapped {
                        Tree::Object(members) => &members[0].1,
                        _ => unreachable!(),
                    },
                );
            }
            // Uniqueness applies to the object itself, not to the value inside it.
            create(&api, "unique", &id, &format!("{{\"v\":{data}}}")).expect(201);
            create(&api, "unique", "twin", &format!("{{ \"v\" : {data} }}")).expect_problem(409, "not-unique");
        }
    }
    for value in ["1", "{\"a\":1}", "\"1\"", "1e400"] {
        create(&api, "unique", &format!("plain{}", value.len()), &format!("{{\"v\":{value}}}")).expect(201);
    }
    // In definitions: the server does not unwrap a schema that is hidden in such an object.
    let hidden = format!("{{\"id\":\"hidden\",\"schema\":{{\"{RAW_VALUE}\":\"{{\\\"type\\\":\\\"object\\\"}}\"}}}}");
    let response = api.request("POST", "/models").body("application/json", hidden).send();
    assert!(matches!(response.status, 400 | 422), "{}", response.text());
    let schema = format!("{{\"type\":\"object\",\"properties\":{{\"v\":{{\"const\":{{\"{NUMBER}\":\"1\"}}}}}}}}");
    let body = format!("{{\"id\":\"constant\",\"schema\":{schema}}}");
    api.request("POST", "/models").body("application/json", body).send().expect(201);
    create(&api, "constant", "a", "{\"v\":1}").expect_problem(422, "invalid");
    create(&api, "constant", "b", &format!("{{\"v\":{{\"{NUMBER}\":\"1\"}}}}")).expect(201);
    let found = api.get("/models/constant").expect(200);
    same("the schema", tree(&found).get("schema").expect("a schema"), &reference(schema.as_bytes()).expect("JSON"));
    let server = server.restart();
    let found = server.client().get("/models/constant").expect(200);
    same("the schema", tree(&found).get("schema").expect("a schema"), &reference(schema.as_bytes()).expect("JSON"));
}

#[test]
fn what_is_no_json_is_rejected_everywhere_alike() {
    let server = Server::start();
    let api = server.client();
    api.post("/models", &json!({"id": "m", "schema": {"type": "object"}})).expect(201);
    create(&api, "m", "a", "{}").expect(201);
    let bad: [&[u8]; 14] = [
        b"{\"v\":\"\\ud800\"}",
        b"{\"v\":\"\\udc00\\ud800\"}",
        b"{\"\\ud800\":1}",
        b"{\"v\":NaN}",
        b"{\"v\":-Infinity}",
        b"{\"v\":01}",
        b"{\"v\":1,\"v\":1}",
        b"{\"v\":{\"a\":1,\"\\u0061\":1}}",
        b"{\"v\":1e99999999999999999999}",
        b"{\"v\":\"\xff\"}",
        b"{\"v\":\"\x01\"}",
        b"{\"v\":1}}",
        b"{\"v\":1,}",
        b"\xef\xbb\xbf{\"v\":1}",
    ];
    for data in bad {
        let shown = String::from_utf8_lossy(data).into_owned();
        let wrapped = |before: &str| [before.as_bytes(), data, b"}"].concat();
        let post = api.request("POST", "/models/m/instances").body("application/json", wrapped("{\"data\":"));
        let put = api.request("PUT", "/models/m/instances/a").body("application/json", wrapped("{\"data\":"));
        let patch = api.request("PATCH", "/models/m/instances/a").body("application/merge-patch+json", data);
        for (way, request) in [("create", post), ("replace", put), ("patch", patch)] {
            let response = request.send();
            assert_eq!(response.status, 400, "{way} {shown}: {}", response.text());
            response.expect_problem(400, "bad-request");
        }
        let line = [wrapped("{\"data\":"), b"\n{\"data\":{}}".to_vec()].concat();
        let done = api.request("POST", "/models/m/import").body("application/x-ndjson", line).send().expect(200).json();
        assert_eq!((&done["created"], &done["failed"]), (&json!(1), &json!(1)), "{shown}: {done}");
        assert_eq!(done["errors"][0]["type"], "bad-request", "{shown}: {done}");
        // Schemas are parsed as strictly.
        let body = [b"{\"id\":\"x\",\"schema\":{\"type\":\"object\",\"default\":".as_slice(), data, b"}}"].concat();
        let response = api.request("POST", "/models").body("application/json", body).send();
        assert!(matches!(response.status, 400 | 422), "{shown}: {}", response.text());
    }
    let mark = api.request("POST", "/models/m/instances").body("application/json", "\u{feff}{\"data\":{}}").send();
    assert!(mark.expect_problem(400, "bad-request")["detail"].to_string().contains("byte order mark"));
    same(
        "nothing has changed",
        data_of(&tree(&api.get("/models/m/instances/a").expect(200))),
        &Tree::Object(Vec::new()),
    );
}

#[test]
fn large_exponents_cost_neither_time_nor_memory() {
    let server = Server::start();
    let api = server.client();
    let schema = json!({"type": "object", "properties": {
        "v": {"type": "number", "multipleOf": 0.01, "minimum": -7}, "i": {"type": "integer"},
        "l": {"type": "array", "uniqueItems": true}, "e": {"enum": [1, 2.5, "x"]}}});
    api.post("/models", &json!({"id": "m", "schema": schema, "unique": [["v"]], "indexes": [["v"]]})).expect(201);
    let started = Instant::now();
    create(&api, "m", "a", "{\"v\":1e999999999,\"i\":1e999999999,\"l\":[1e999999999,1e999999998,1e-999999999]}")
        .expect(201);
    create(&api, "m", "b", "{\"v\":10e999999998}").expect_problem(409, "not-unique");
    create(&api, "m", "c", "{\"v\":1e999999998}").expect(201);
    create(&api, "m", "d", "{\"v\":1e999999999999999}").expect(201);
    create(&api, "m", "e", "{\"v\":1e-999999999}").expect_problem(422, "invalid");
    create(&api, "m", "f", "{\"i\":1e-999999999}").expect_problem(422, "invalid");
    create(&api, "m", "g", "{\"l\":[1e999999999,10e999999998]}").expect_problem(422, "invalid");
    create(&api, "m", "h", "{\"e\":1e999999999}").expect_problem(422, "invalid");
    create(&api, "m", "i", "{\"v\":-1e999999999}").expect_problem(422, "invalid");
    for operator in ["eq", "gt", "lt", "in"] {
        api.get(&format!("/models/m/instances?filter[v][{operator}]=1e999999999&sort=-v")).expect(200);
    }
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

/// Hooks that return their input as a new value.
const ECHO: &str = "export default ({ after }) => ({ ...after, echoed: true })";
const GRANTS: &str = "[[grants]]\nmodel = '*'\nphase = ['preCreate', 'preUpdate']\namend = true\n";

/// Each model, and whether its hook adds `echoed`.
fn models(api: &Client, has_v8: bool) -> Vec<(&'static str, bool)> {
    let schema = json!({"type": "object", "properties": {"v": {}}});
    let mut models = vec![("plain", false), ("quickjs", true)];
    if has_v8 {
        models.push(("v8", true));
    }
    for (model, hooked) in &models {
        api.post("/models", &json!({"id": model, "schema": schema})).expect(201);
        if *hooked {
            let path = format!("/models/{model}/hooks/preCreate?engine={model}");
            api.request("PUT", &path).body("text/javascript", ECHO).send().expect(200);
        }
    }
    models
}

/// Adjacent names whose escaped forms share a prefix: an engine that compares the escaped text confuses them.
#[test]
fn names_with_escapes_are_told_apart() {
    let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins");
    let has_v8 = plugins.join("v8/libmini_racer.so").is_file();
    let tables = format!("[plugins]\ndirectory = '{}'\n{GRANTS}", plugins.display());
    let server = Server::start_with(ServerOptions { tables, ..ServerOptions::default() });
    let api = server.client();
    let names = ["\\", "\"", "\n", "a\\", "a\"", "a\u{1}", "\\\\", "\"\\", "__proto__", "7", "", " x:{\"[,"];
    for (model, hooked) in models(&api, has_v8) {
        for (index, (first, second)) in names.iter().flat_map(|name| names.map(|other| (*name, other))).enumerate() {
            let member = |name: &str| json!({ name: "\\n \"" });
            let data = json!({"v": member(first), "w": member(second), "x": [member(second), member(first)]});
            let made = create(&api, model, &format!("i{index}"), &data.to_string()).expect(201);
            let expected = expected(&Tree::of(&data), hooked);
            same(&format!("{model} {first:?} {second:?}"), data_of(&tree(&made)), &expected);
        }
    }
}

#[test]
fn random_values_are_the_same_on_every_way() {
    let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins");
    let has_v8 = plugins.join("v8/libmini_racer.so").is_file();
    if !has_v8 {
        skip("the engine v8", "V8 is not in plugins/v8; `cargo xtask v8` fetches it");
    }
    let tables = format!("[plugins]\ndirectory = '{}'\n{GRANTS}", plugins.display());
    let mut server = Server::start_with(ServerOptions { tables, ..ServerOptions::default() });
    let models = models(&server.client(), has_v8);

    let seconds = number_of("SNAPHOOK_FUZZ_SECONDS").unwrap_or(SECONDS_DEFAULT);
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos() as u64);
    let first = number_of("SNAPHOOK_TEST_SEED").unwrap_or(clock);
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut kept: Vec<(String, Tree)> = Vec::new();
    let mut values = 0;
    {
        let api = server.client();
        let mut stream = api.stream("/events/stream?type=instance.created", &[]);
        while values == 0 || Instant::now() < end {
            let seed = first + values;
            println!("seed {seed}; SNAPHOOK_TEST_SEED={seed} draws the same again");
            let mut generator = Generator::new(seed);
            let value = generator.value(4);
            let members = vec![("v".to_owned(), value.clone()), ("w".to_owned(), generator.object(4))];
            let data = Tree::Object(members);
            let text = generator.write(&data, true);
            for (model, hooked) in &models {
                let expected = expected(&data, *hooked);
                let path = format!("/models/{model}/instances/i{values}");
                let made = create(&api, model, &format!("i{values}"), &text).expect(201);
                same("create", data_of(&tree(&made)), &expected);
                same("get", data_of(&tree(&api.get(&path).expect(200))), &expected);
                let history = items(&api.get(&format!("{path}/events")).expect(200));
                same("history", data_of(&history[0]), &expected);
                let frame = stream.next();
                same("stream", data_of(&Tree::of(&frame.data)), &expected);
                let part = items(&api.get(&format!("/models/{model}/instances?fields=v&limit=1000")).expect(200));
                let this = Tree::String(format!("i{values}"));
                let found = part.iter().find(|item| item.get("id") == Some(&this)).expect("it is in the list");
                same("fields", data_of(found).get("v").expect("the property"), &value);
                // The result of a filter for a text.
                if let Tree::String(v) = &value
                    && !v.contains(',')
                    && *model == "plain"
                {
                    let query = format!("/models/{model}/instances?filter[v][eq]={}&limit=1000", encoded(v));
                    let found = items(&api.get(&query).expect(200));
                    let has = found.iter().any(|item| item.get("id") == Some(&this));
                    assert!(has, "filter[v][eq] does not find {value}");
                    let strangers = found.iter().find(|item| {
                        data_of(item).get("v").is_some_and(|other| matches!(other, Tree::String(other) if other != v))
                    });
                    assert!(strangers.is_none(), "filter[v][eq] for {value} finds {strangers:?}");
                }
                if values % 16 == 0 {
                    kept.push((path, expected));
                }
            }
            values += 1;
            // Pages of all instances stay short.
            if values % 400 == 0 {
                for (model, _) in &models {
                    for n in values - 400..values {
                        api.delete(&format!("/models/{model}/instances/i{n}")).expect(204);
                    }
                }
                kept.clear();
            }
        }
    }
    server = server.restart();
    let api = server.client();
    for (path, expected) in &kept {
        same("after a restart", data_of(&tree(&api.get(path).expect(200))), expected);
    }
    println!("{values} values through {} models, from seed {first}", models.len());
}

/// The data that a model is expected to store.
fn expected(data: &Tree, hooked: bool) -> Tree {
    match data {
        Tree::Object(members) if hooked => {
            Tree::Object(members.iter().cloned().chain([("echoed".to_owned(), Tree::Boolean(true))]).collect())
        }
        data => data.clone(),
    }
}
