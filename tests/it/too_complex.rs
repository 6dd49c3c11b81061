//! Schemas, documents and queries that would take forever: each soon gets a response, and other clients do not wait.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::support::{Client, Server};

/// The required limit, including the time in the queue.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);
/// The machine may be busy with other tests and builds.
const MARGIN: u32 = 4;

/// A schema, and the data that is sent to it.
struct Case {
    name: String,
    schema: Value,
    data: Value,
}

fn case(name: impl Into<String>, schema: Value, data: Value) -> Case {
    let mut schema = schema;
    if let Value::Object(members) = &mut schema {
        members.insert("type".to_owned(), json!("object"));
    }
    Case { name: name.into(), schema, data }
}

fn property(name: impl Into<String>, keywords: Value, value: Value) -> Case {
    case(name, json!({"properties": {"v": keywords}}), json!({ "v": value }))
}

fn numbers(count: usize, number: impl Fn(usize) -> String) -> Value {
    let text: Vec<String> = (0..count).map(number).collect();
    serde_json::from_str(&format!("[{}]", text.join(","))).expect("numbers")
}

fn nested(depth: usize) -> Value {
    (0..depth).fold(json!({}), |below, _| json!({ "a": below }))
}

fn defs(count: usize, definition: impl Fn(usize) -> Value) -> Value {
    Value::Object((0..count).map(|row| (format!("d{row}"), definition(row))).collect())
}

fn to(row: usize) -> Value {
    json!({ "$ref": format!("#/$defs/d{row}") })
}

fn unique_items() -> Vec<Case> {
    let rows: [(&str, Value); 6] = [
        ("beyond 64 bits", numbers(8_000, |n| format!("123456789012345678901{n:05}"))),
        ("exponents", numbers(8_000, |n| format!("1e{}", 400 + n))),
        ("huge exponents", numbers(8_000, |n| format!("1e99999{n:04}"))),
        ("objects", Value::from((0..8_000).map(|n| json!({"a": [n], "b": {}})).collect::<Vec<_>>())),
        ("strings", Value::from((0..20_000).map(|n| format!("{}{n}", "x".repeat(40))).collect::<Vec<_>>())),
        ("nested", Value::from((0..4_000).map(|n| json!([[[[[1e300, n]]]]])).collect::<Vec<_>>())),
    ];
    rows.map(|(name, items)| property(format!("uniqueItems: {name}"), json!({"uniqueItems": true}), items)).into()
}

fn patterns() -> Vec<Case> {
    let long = "a".repeat(100_000);
    let mut cases: Vec<Case> =
        ["^(?=(a+)+$)b", "(?:(?=.*x)a)*$", "^(?=.*b)(a|aa)+$", "(a*)*\\1c", "(?!.*(.+)\\1{9}z)(x|y)*a$"]
            .map(|pattern| {
                property(format!("pattern: {pattern}"), json!({"pattern": pattern}), json!(format!("{long}!")))
            })
            .into();
    let many: Vec<String> = (0..2_000).map(|n| format!("{}{n}!", "a".repeat(200))).collect();
    cases.push(property("pattern: many", json!({"items": {"pattern": "^(?=(a+)+$)b"}}), json!(many)));
    let names: Map<String, Value> = many.iter().map(|name| (name.clone(), json!(1))).collect();
    cases.push(property("patternProperties", json!({"patternProperties": {"^(?=(a+)+$)b": {}}}), names.clone().into()));
    cases.push(property("propertyNames", json!({"propertyNames": {"pattern": "(a*)*\\1c"}}), names.into()));
    cases.push(property("pattern: states", json!({"pattern": "[ab]*a[ab]{1000}c"}), json!("ab".repeat(200_000))));
    cases
}

fn recursion() -> Vec<Case> {
    let node = |keywords: Value| json!({"$ref": "#/$defs/n", "$defs": {"n": keywords}});
    let again = json!({"properties": {"a": {"$ref": "#/$defs/n"}}});
    let mut cases = Vec::new();
    for keyword in ["anyOf", "oneOf", "allOf"] {
        let branches: Vec<Value> =
            ["x", "y", "z"].map(|name| json!({"properties": {"a": {"$ref": "#/$defs/n"}}, "required": [name]})).into();
        cases.push(case(format!("recursion: {keyword}"), node(json!({ keyword: branches })), nested(100)));
    }
    cases.push(case("recursion: not", node(json!({"not": {"anyOf": [again, {"not": again}]}})), nested(100)));
    cases.push(case("recursion: if", node(json!({"if": again, "then": again, "else": again})), nested(100)));
    for leaf in [json!(false), json!(true), json!({"required": ["z"]})] {
        for keyword in ["anyOf", "oneOf", "allOf"] {
            let graph = defs(60, |row| match row {
                59 => leaf.clone(),
                _ => json!({ keyword: [to(row + 1), to(row + 1)] }),
            });
            let name = format!("doubling: {keyword} {leaf}");
            cases.push(case(&name, json!({"$defs": graph, "$ref": "#/$defs/d0"}), json!({"a": 1})));
            let unevaluated = json!({"$defs": graph, "$ref": "#/$defs/d0", "unevaluatedProperties": false});
            cases.push(case(format!("{name} unevaluated"), unevaluated, json!({"a": 1})));
        }
        let graph = defs(60, |row| match row {
            59 => leaf.clone(),
            _ => json!({"dependentSchemas": {"a": to(row + 1), "b": to(row + 1)}}),
        });
        cases.push(case(
            format!("dependentSchemas {leaf}"),
            json!({"$defs": graph, "$ref": "#/$defs/d0"}),
            json!({"a": 1, "b": 1}),
        ));
    }
    cases
}

fn chains() -> Vec<Case> {
    let chain = |count: usize, link: &dyn Fn(usize) -> Value| {
        defs(count, |row| if row + 1 == count { json!({}) } else { link(row + 1) })
    };
    let mut cases = Vec::new();
    for count in [450, 12_000] {
        let links: [(&str, &dyn Fn(usize) -> Value); 5] = [
            ("$ref", &to),
            ("allOf", &|row| json!({"allOf": [to(row)]})),
            ("anyOf", &|row| json!({"anyOf": [to(row), to(row)]})),
            ("not", &|row| json!({"not": to(row)})),
            ("properties", &|row| json!({"properties": {"a": to(row)}})),
        ];
        for (name, link) in links {
            let schema = json!({"$defs": chain(count, link), "$ref": "#/$defs/d0"});
            cases.push(case(format!("chain: {count} {name}"), schema.clone(), nested(100)));
            let Value::Object(mut members) = schema else { continue };
            members.insert("$schema".to_owned(), json!("http://json-schema.org/draft-07/schema#"));
            let reference = members.shift_remove("$ref").expect("it is there");
            members.insert("allOf".to_owned(), json!([{ "$ref": reference }]));
            cases.push(case(format!("chain: {count} {name}, draft 7"), members.into(), nested(100)));
        }
    }
    let count = 12;
    let resources = defs(count, |row| {
        let others: Vec<Value> = (0..count).map(|other| json!({"$dynamicRef": format!("r{other}#node")})).collect();
        json!({"$id": format!("r{row}"), "$dynamicAnchor": "node", "properties": {"a": {"anyOf": others}}})
    });
    let schema = json!({"$id": "https://example.com/root", "$defs": resources, "$ref": "r0"});
    cases.push(case("$dynamicRef", schema, nested(100)));
    cases
}

fn values() -> Vec<Case> {
    let huge = numbers(4_000, |n| format!("1e99999{n:04}"));
    let digits = numbers(4, |n| format!("{}{}", n + 1, "7".repeat(100_000)));
    let mut cases = Vec::new();
    for (name, items) in [("huge exponents", &huge), ("many digits", &digits)] {
        for keywords in [
            json!({"multipleOf": 0.01}),
            json!({"multipleOf": 7}),
            json!({"maximum": 1e308}),
            json!({"const": numbers(1, |_| "1e400".to_owned())[0]}),
        ] {
            cases.push(property(format!("{name}: {keywords}"), json!({ "items": keywords }), items.clone()));
        }
    }
    let many = numbers(20_000, |n| format!("123456789012345678901{n:05}"));
    cases.push(property("enum: values", json!({"items": {"enum": many}}), many.clone()));
    let ones = Value::from(vec![1; 20_000]);
    cases.push(property("enum: contains", json!({"contains": {"enum": many}}), ones.clone()));
    let contains: Vec<Value> = (0..2_000).map(|n| json!({"contains": {"const": n + 2}})).collect();
    cases.push(property("contains: many", json!({"anyOf": contains}), ones.clone()));
    cases.push(property("unevaluatedItems", json!({"anyOf": contains, "unevaluatedItems": false}), ones));
    let text = |part: &str| json!(part.repeat(900_000 / part.len()));
    for (format, part) in [
        ("regex", "("),
        ("email", "a@"),
        ("hostname", "xn--a."),
        ("uri-template", "{a}"),
        ("duration", "P1Y"),
        ("iri", "é:"),
    ] {
        cases.push(property(format!("format: {format}"), json!({ "format": format }), text(part)));
    }
    cases
}

fn defaults() -> Vec<Case> {
    let doubling = defs(60, |row| match row {
        59 => json!({}),
        _ => {
            let Value::Object(mut next) = to(row + 1) else { return json!({}) };
            next.insert("default".to_owned(), json!({}));
            json!({"properties": {"a": next, "b": next}})
        }
    });
    let long = json!({"default": "x".repeat(200_000)});
    let node = json!({"properties": {"a": {"$ref": "#/$defs/n"}, "b": {"$ref": "#/$defs/n"}, "t": long}});
    let wide = (0..90).fold(json!({}), |below, _| json!({"a": below, "b": {}}));
    let bad: Vec<Value> =
        (0..500).map(|n| json!({"pattern": "^(?=(a+)+$)b", "default": format!("{}{n}", "a".repeat(400))})).collect();
    vec![
        case("default: doubling", json!({"$defs": doubling, "$ref": "#/$defs/d0"}), json!({})),
        case("default: large", json!({"$defs": {"n": node}, "$ref": "#/$defs/n"}), wide),
        case("default: patterns", json!({ "anyOf": bad }), json!({})),
        property(
            "default: itself",
            json!({"properties": {"v": {"$ref": "#/properties/v", "default": {}}}, "default": {}}),
            json!({}),
        ),
        case(
            "default: all of",
            json!({"allOf": (0..400).map(|n| json!({"properties": {format!("p{n}"): {"default": n}}})).collect::<Vec<_>>()}),
            json!({}),
        ),
    ]
}

fn combined() -> Vec<Case> {
    let graph = |leaf: Value| {
        defs(60, |row| match row {
            59 => leaf.clone(),
            _ => json!({"anyOf": [to(row + 1), to(row + 1)]}),
        })
    };
    let long = format!("{}!", "a".repeat(2_000));
    let leaf = json!({"properties": {"s": {"pattern": "^(?=(a+)+$)b"}}, "required": ["none"]});
    let items = numbers(4_000, |n| format!("123456789012345678901{n:05}"));
    let unique =
        json!({"properties": {"u": {"uniqueItems": true, "items": {"multipleOf": 0.001}}}, "required": ["none"]});
    let recursive = json!({"anyOf": [
        {"patternProperties": {"(?=a)a": {"$ref": "#/$defs/n"}}, "unevaluatedProperties": false, "required": ["b"]},
        {"patternProperties": {"(?=a)a": {"$ref": "#/$defs/n"}}, "unevaluatedProperties": false}]});
    vec![
        case("pattern behind doubling", json!({"$defs": graph(leaf), "$ref": "#/$defs/d0"}), json!({ "s": long })),
        case(
            "uniqueItems behind doubling",
            json!({"$defs": graph(unique), "$ref": "#/$defs/d0"}),
            json!({ "u": items }),
        ),
        case(
            "recursion of patternProperties and unevaluated",
            json!({"$defs": {"n": recursive}, "$ref": "#/$defs/n"}),
            nested(100),
        ),
        property(
            "contains of patterns",
            json!({"contains": {"pattern": "(a*)*\\1c"}, "uniqueItems": true}),
            Value::from((0..3_000).map(|n| format!("{}{n}", "a".repeat(100))).collect::<Vec<_>>()),
        ),
        property(
            "errors of errors",
            json!({"items": {"anyOf": (0..40).map(|n| json!({"oneOf": [{"const": n}, {"enum": [n]}]})).collect::<Vec<_>>()}}),
            Value::from(vec!["y".repeat(200); 4_000]),
        ),
    ]
}

/// The request gets a clear response within the limit.
#[track_caller]
fn answered(name: &str, send: impl FnOnce() -> crate::support::Response) -> u16 {
    let started = Instant::now();
    let response = send();
    let took = started.elapsed();
    assert!(took < ANSWERED_WITHIN * MARGIN, "{name}: answered after {took:?}");
    if took > ANSWERED_WITHIN {
        eprintln!("{name}: answered after {took:?}, the machine is busy");
    }
    let text = response.text();
    match response.status {
        200 | 201 => {}
        422 => assert!(text.contains("/problems/too-complex") || text.contains("/problems/invalid"), "{name}: {text}"),
        413 => {}
        // Only where the machine is slower than the limit, so that the request waits for others.
        503 => assert!(text.contains("/problems/overloaded"), "{name}: {text}"),
        _ => panic!("{name}: {text}"),
    }
    response.status
}

fn run(cases: Vec<Case>) {
    assert!(cases.len() >= 5);
    let server = Server::start();
    let api = server.client();
    let mut verdicts = Vec::new();
    for (row, Case { name, schema, data }) in cases.into_iter().enumerate() {
        let model = format!("m{row}");
        let created = answered(&name, || api.post("/models", &json!({"id": model, "schema": schema})));
        let sent = (created == 201)
            .then(|| answered(&name, || api.post(&format!("/models/{model}/instances"), &json!({ "data": data }))));
        verdicts.push(format!("{name}: {created} {sent:?}"));
        api.get("/healthz").expect(200);
    }
    eprintln!("{}", verdicts.join("\n"));
}

#[test]
fn items_that_must_be_unique_are_answered() {
    run(unique_items());
}

#[test]
fn patterns_are_answered() {
    run(patterns());
}

#[test]
fn recursion_is_answered() {
    run(recursion());
}

#[test]
fn chains_of_references_are_answered() {
    run(chains());
}

#[test]
fn numbers_enums_and_formats_are_answered() {
    run(values());
}

#[test]
fn defaults_are_answered() {
    run(defaults());
}

#[test]
fn combinations_are_answered() {
    run(combined());
}

/// A document that uses up the whole budget.
fn heavy() -> (Value, Value) {
    let schema = json!({"type": "object", "properties": {"s": {"pattern": "(?=(a*)*$)(a|aa)+$"}}});
    (schema, json!({"data": {"s": format!("{}!", "a".repeat(100_000))}}))
}

#[test]
fn too_complex_is_said() {
    let server = Server::start();
    let api = server.client();
    let (schema, data) = heavy();
    api.post("/models", &json!({"id": "m", "schema": schema})).expect(201);
    let problem = api.post("/models/m/instances", &data).expect_problem(422, "too-complex");
    let detail = problem["detail"].as_str().expect("a detail");
    assert!(detail.contains("it takes more than") && detail.contains("make the schema of `m` simpler"), "{detail}");
    let deep = defs(900, |row| to(row + 1));
    let schema = json!({"type": "object", "$ref": "#/$defs/d0", "$defs": deep});
    let problem = api.post("/models", &json!({"id": "deep", "schema": schema})).expect_problem(422, "too-complex");
    assert!(problem["detail"].as_str().expect("a detail").contains("deep"), "{problem}");
}

#[test]
fn a_new_schema_is_checked_against_instances_within_bounds() {
    let server = Server::start();
    let api = server.client();
    api.post("/models", &json!({"id": "m", "schema": {"type": "object"}})).expect(201);
    let (schema, data) = heavy();
    for _ in 0..30 {
        api.post("/models/m/instances", &data).expect(201);
    }
    let status = answered("update", || api.put("/models/m", &json!({ "schema": schema })));
    assert!(matches!(status, 422 | 409 | 503), "{status}");
    api.put("/models/m", &json!({"schema": {"type": "object", "properties": {"n": {"type": "number"}}}})).expect(200);
}

#[test]
fn paths_of_queries_are_looked_up_within_bounds() {
    let server = Server::start();
    let api = server.client();
    let node = json!({"anyOf": [to(0), to(0), {"allOf": [to(0), to(0)]}], "properties": {"a": to(0), "a.a": to(0)}});
    let graph = defs(200, |row| match row {
        0 => node.clone(),
        199 => json!({}),
        _ => json!({"anyOf": [to(row + 1), to(row + 1)]}),
    });
    let schema = json!({"type": "object", "properties": {"r": to(0), "d": to(1)}, "$defs": graph});
    api.post("/models", &json!({"id": "m", "schema": schema})).expect(201);
    let long = "a.".repeat(300);
    for query in [
        format!("sort=r.{long}b"),
        format!("filter[r.{long}b][eq]=1"),
        format!("fields=r.{long}b"),
        "sort=d.nothing".to_owned(),
        "filter[d.nothing][exists]=true".to_owned(),
        (0..60).map(|n| format!("filter[r.{long}{n}][eq]=1")).take(8).collect::<Vec<_>>().join("&"),
    ] {
        let started = Instant::now();
        api.get(&format!("/models/m/instances?{query}")).expect_problem(400, "bad-request");
        assert!(started.elapsed() < ANSWERED_WITHIN, "{query}");
    }
}

/// The 99th percentile.
fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[(times.len() * 99 / 100).min(times.len() - 1)]
}

#[test]
fn neighbours_do_not_wait() {
    const IN_FLIGHT: usize = 16;
    let server = Server::start();
    let api = server.client();
    let (schema, data) = heavy();
    for model in 0..4 {
        api.post("/models", &json!({"id": format!("heavy{model}"), "schema": schema})).expect(201);
    }
    let recursive: Vec<Case> = recursion().into_iter().chain(combined()).collect();
    api.post(
        "/models",
        &json!({"id": "light", "schema": {"type": "object", "properties": {"n": {"type": "integer"}}}}),
    )
    .expect(201);
    let done = AtomicBool::new(false);
    let (mut health, mut creates) = (Vec::new(), Vec::new());
    std::thread::scope(|scope| {
        for client in 0..IN_FLIGHT {
            let (done, data, recursive) = (&done, &data, &recursive);
            let api = server.client();
            scope.spawn(move || {
                let mut round = client;
                while !done.load(Ordering::Relaxed) {
                    round += 1;
                    if client % 4 == 0 {
                        let case = &recursive[round % recursive.len()];
                        let definition = json!({"id": format!("d{client}-{round}"), "schema": case.schema});
                        answered(&case.name, || api.post("/models", &definition));
                    } else {
                        let path = format!("/models/heavy{}/instances", client % 4);
                        answered("heavy", || api.post(&path, data));
                    }
                }
            });
        }
        let timed = |times: &mut Vec<Duration>, send: &dyn Fn(&Client)| {
            let started = Instant::now();
            send(&api);
            times.push(started.elapsed());
        };
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(10) || creates.len() < 200 {
            timed(&mut health, &|api| drop(api.get("/healthz").expect(200)));
            timed(&mut creates, &|api| {
                drop(api.post("/models/light/instances", &json!({"data": {"n": 1}})).expect(201))
            });
        }
        done.store(true, Ordering::Relaxed);
    });
    let (count, health, creates) = (creates.len(), p99(health), p99(creates));
    eprintln!("{IN_FLIGHT} heavy checks in flight: p99 of {count} GET /healthz {health:?}, of creates {creates:?}");
    let bound = Duration::from_millis(50);
    assert!(health < bound * MARGIN, "GET /healthz: p99 {health:?}");
    assert!(creates < bound * MARGIN, "creates: p99 {creates:?}");
}
