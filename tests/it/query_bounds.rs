//! The cost of lists, counts and the log, also for other clients: limits, cancellation, large numbers, the past.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Client, Server, ServerOptions, eventually};

const TEXTS: &str = "/models/text/instances";

/// Each gets its response within this time, including the time in the queue; on a busy machine it may take twice as
/// long.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// A pattern that is compared with almost every character of a text, at every position.
fn slow_pattern() -> String {
    format!("%25{}_b%25", "a".repeat(400))
}

/// A model whose texts make patterns slow, and another model.
fn start(options: ServerOptions) -> Server {
    let server = Server::start_with(options);
    let api = server.client();
    let schema = json!({"type": "object", "properties": {
        "t": {"type": "string"}, "n": {"type": "number"}, "any": {}, "deep": {"type": "object", "properties": {
            "t": {"type": "string"}}}}});
    api.post("/models", &json!({"id": "text", "schema": schema, "indexes": [["n"]]})).expect(201);
    api.post("/models", &json!({"id": "other", "schema": {"type": "object"}})).expect(201);
    let text = "a".repeat(200_000);
    for number in 0..40 {
        let data = json!({"t": text, "n": number, "any": text, "deep": {"t": text}});
        api.post(TEXTS, &json!({"id": format!("i{number}"), "data": data})).expect(201);
    }
    server
}

/// Deliberately slow queries, of every kind that a client can send.
fn hostile() -> Vec<String> {
    let slow = slow_pattern();
    vec![
        format!("filter[t][like]={slow}"),
        format!("filter[any][like]={slow}&count=true"),
        format!("filter[deep.t][like]={slow}&sort=-t"),
        format!("filter[t][like]=%25{}b%25", "a_".repeat(300)),
        format!("filter[t][like]={}", "%25a_a".repeat(150)),
        (0..60).map(|_| format!("filter[t][like]={slow}")).collect::<Vec<_>>().join("&"),
        format!("filter[t][like]=%25{}&sort=any,deep.t,-t&limit=1000", "_".repeat(1000)),
        "sort=any,deep.t,t,-n&limit=1000".to_owned(),
        format!("filter[any][nin]={}&sort=any", vec!["b"; 1000].join(",")),
        format!(
            "filter[n][in]={}&filter[t][like]={slow}",
            (0..1000).map(|n| n.to_string()).collect::<Vec<_>>().join(",")
        ),
    ]
}

#[test]
fn hostile_queries_are_answered_in_time_and_nobody_else_waits() {
    let server = start(ServerOptions::default());
    let (mut health, mut creates) = (Vec::new(), Vec::new());
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..16)
            .map(|number| {
                let api = server.client();
                scope.spawn(move || {
                    let queries = hostile();
                    for round in 0..2 {
                        let query = &queries[(number + round * 7) % queries.len()];
                        let start = Instant::now();
                        let response = api.get(&format!("{TEXTS}?{query}"));
                        let shown: String = query.chars().take(60).collect();
                        assert!(start.elapsed() < ANSWER_MAX, "{:?} for {shown}", start.elapsed());
                        match response.status {
                            200 => {}
                            422 => {
                                let detail = response.expect_problem(422, "too-complex")["detail"].to_string();
                                assert!(detail.contains("stopped: it") || detail.contains("sort keys"), "{detail}");
                            }
                            503 => {
                                response.expect_problem(503, "overloaded");
                            }
                            other => panic!("{other} for {shown}: {}", response.text()),
                        }
                    }
                })
            })
            .collect();
        let api = server.client();
        while running.iter().any(|thread| !thread.is_finished()) {
            let start = Instant::now();
            api.get("/healthz").expect(200);
            health.push(start.elapsed());
            let start = Instant::now();
            api.post("/models/other/instances", &json!({"data": {}})).expect(201);
            creates.push(start.elapsed());
        }
    });
    for (what, mut times) in [("GET /healthz", health), ("creates of another model", creates)] {
        times.sort_unstable();
        let p99 = times[(times.len() * 99).div_ceil(100) - 1];
        println!("{what}: {} while hostile queries ran, p50 {:?}, p99 {p99:?}", times.len(), times[times.len() / 2]);
        // The contract says 50 ms; here two busy cores run a debug build and other tests.
        assert!(p99 < Duration::from_millis(1000), "{what}: p99 {p99:?} of {}", times.len());
    }
    // Queries work again afterwards.
    let api = server.client();
    assert_eq!(api.get(&format!("{TEXTS}?filter[n][gte]=30&count=true&fields=n")).expect(200).json()["count"], 10);
}

#[test]
#[cfg(target_os = "linux")]
fn a_query_ends_when_its_client_leaves() {
    let server = start(ServerOptions::default());
    eventually("the server is idle", || server.is_idle().then_some(()));
    let head = format!(
        "GET {TEXTS}?filter[t][like]={}&count=true HTTP/1.1\r\nHost: {}\r\n\r\n",
        slow_pattern(),
        server.address()
    );
    let mut clients: Vec<TcpStream> =
        (0..4).map(|_| TcpStream::connect(server.address()).expect("it listens")).collect();
    for client in &mut clients {
        client.write_all(head.as_bytes()).expect("it reads");
    }
    eventually("the queries run", || (!server.is_idle()).then_some(()));
    drop(clients);
    let left = Instant::now();
    eventually("the work ends", || server.is_idle().then_some(()));
    // The contract allows one second; the check itself takes a third of a second, and the machine is busy.
    assert!(left.elapsed() < Duration::from_millis(2500), "{:?}", left.elapsed());
}

#[test]
#[cfg(target_os = "linux")]
fn a_query_ends_when_the_hook_that_asked_does() {
    let server = start(ServerOptions {
        tables: "[[grants]]\nmodel = 'other'\nphase = '*'\nhook = '*'\nread = ['text']\ntimeout = '1 s'\n".into(),
        ..ServerOptions::default()
    });
    let api = server.client();
    let pattern = format!("%{}_b%", "a".repeat(400));
    let source = format!(
        "export async function preCreate() {{ await read.query('text', {{ filter: {{ t: {{ like: '{pattern}' }} }} }}); }}"
    );
    api.put_javascript("other", "preCreate", &source).expect(200);
    eventually("the server is idle", || server.is_idle().then_some(()));
    let start = Instant::now();
    let response = api.post("/models/other/instances", &json!({"data": {}}));
    assert!(matches!(response.status, 502 | 422), "{}", response.text());
    assert!(start.elapsed() < ANSWER_MAX, "{:?}", start.elapsed());
    let ended = Instant::now();
    eventually("the work ends", || server.is_idle().then_some(()));
    assert!(ended.elapsed() < Duration::from_millis(2500), "{:?}", ended.elapsed());
}

#[test]
fn what_a_query_holds_is_bounded() {
    let server = start(ServerOptions::default());
    let api = server.client();
    let list = vec!["5"; 1000].join(",");
    for (query, message) in [
        (
            (0..60).map(|_| format!("filter[n][in]={}", vec!["5"; 400].join(","))).collect::<Vec<_>>().join("&"),
            "at most 5000",
        ),
        ((0..65).map(|_| "filter[n][eq]=5".to_owned()).collect::<Vec<_>>().join("&"), "at most 64"),
        (format!("filter[n][in]={list},5"), "at most 1000"),
        (format!("filter[t][like]={}", "a".repeat(1025)), "at most 1024"),
        (format!("sort={}", vec!["n"; 17].join(",")), "more than 16 keys"),
        (format!("sort={}", "a".repeat(3000)), "at most 1024"),
        (format!("filter[{}][eq]=1", "a.".repeat(600)), "at most 1024"),
    ] {
        let problem = api.get(&format!("{TEXTS}?{query}")).expect_problem(400, "bad-request");
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert!(detail.contains(message), "{message}: {detail}");
    }
    api.get(&format!("{TEXTS}?filter[n][in]={list}&fields=n")).expect(200);
}

#[test]
fn numbers_beyond_64_bits_compare_exactly() {
    let server = Server::start();
    let api = server.client();
    let schema =
        json!({"type": "object", "properties": {"i": {"type": "integer"}, "n": {"type": "number"}, "any": {}}});
    for (model, indexes) in [("plain", json!([])), ("indexed", json!([["i"], ["-n"], ["any"]]))] {
        api.post("/models", &json!({"id": model, "schema": schema, "indexes": indexes})).expect(201);
        let path = format!("/models/{model}/instances");
        for (id, number) in [
            ("a", "18446744073709551615"),
            ("b", "18446744073709551616"),
            ("c", "18446744073709551617"),
            ("d", "-18446744073709551617"),
        ] {
            let body =
                format!(r#"{{"id":"{id}","data":{{"i":{number},"n":{number}.0000000000000000001,"any":{number}}}}}"#);
            api.request("POST", &path).body("application/json", body).send().expect(201);
        }
        let ids = |query: &str| -> String {
            let page = api.get(&format!("{path}?{query}")).expect(200).json();
            page["items"].as_array().expect("items").iter().map(|item| item["id"].as_str().expect("an id")).collect()
        };
        for (query, expected) in [
            ("filter[i][eq]=18446744073709551616", "b"),
            ("filter[i][gt]=18446744073709551616", "c"),
            ("filter[i][lte]=18446744073709551616", "abd"),
            ("filter[i][in]=18446744073709551617,-18446744073709551617", "cd"),
            ("filter[i][ne]=18446744073709551615", "bcd"),
            ("filter[n][eq]=18446744073709551616", ""),
            ("filter[n][eq]=18446744073709551616.0000000000000000001", "b"),
            ("filter[any][eq]=18446744073709551616", "b"),
            ("filter[any][gte]=18446744073709551616.5", "c"),
            ("sort=-i", "cbad"),
            ("sort=n", "dabc"),
            ("sort=-any&limit=10", "cbad"),
        ] {
            assert_eq!(ids(query), expected, "{query} of {model}");
        }
    }
}

#[test]
fn the_log_says_which_models_it_has_never_seen() {
    let server = Server::start();
    let api = server.client();
    api.post("/models", &json!({"id": "gone", "schema": {"type": "object"}})).expect(201);
    api.post("/models/gone/instances", &json!({"id": "a", "data": {}})).expect(201);
    api.delete("/models/gone?cascade=true").expect(204);
    for path in ["/events?model=never", "/events?model=never&type=instance.created", "/events?model=never&instance=a"] {
        let problem = api.get(path).expect_problem(404, "not-found");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("`never`")), "{problem}");
    }
    api.get("/events/stream?model=never").expect_problem(404, "not-found");
    api.get("/events/stream?model=never&after=0").expect_problem(404, "not-found");
    let page = api.get("/events?model=gone").expect(200).json();
    assert_eq!(page["items"].as_array().map(Vec::len), Some(4));
    assert_eq!(api.stream("/events/stream?after=0&model=gone", &[]).next().event, "model.created");
    assert_eq!(api.get("/events?model=gone&type=hook.updated").expect(200).json()["items"], json!([]));
}

/// The past of an instance that was deleted and recreated, at every position and every time.
#[test]
fn every_moment_of_the_past_is_as_it_was() {
    let server = Server::start();
    let api = server.client();
    let path = "/models/m/instances";
    api.post("/models", &json!({"id": "m", "schema": {"type": "object"}})).expect(201);
    let mut expected: Vec<(u64, Option<Value>)> = Vec::new();
    let mut note = |api: &Client| {
        let head = api.get("/events?limit=1").expect(200).json()["head"].as_u64().expect("a head");
        let now = api.get(&format!("{path}/a"));
        expected.push((head, (now.status == 200).then(|| now.json())));
    };
    for life in 0..3 {
        api.post(path, &json!({"id": "a", "data": {"life": life}})).expect(201);
        note(&api);
        for number in 0..5 {
            api.put(&format!("{path}/a"), &json!({"data": {"life": life, "n": number}})).expect(200);
            api.post(path, &json!({"data": {}})).expect(201);
            note(&api);
        }
        // The last life continues: its data must not be returned for an earlier one.
        if life < 2 {
            api.delete(&format!("{path}/a")).expect(204);
            note(&api);
        }
    }
    for (position, instance) in &expected {
        let then = api.get(&format!("{path}/a?at={position}"));
        match instance {
            Some(instance) => {
                assert_eq!(&then.expect(200).json(), instance, "at {position}");
                // Several events may share a millisecond; the last one applies.
                let time = instance["updated_at"].as_str().expect("a time");
                let last = expected
                    .iter()
                    .rev()
                    .find(|(_, other)| other.as_ref().is_some_and(|other| other["updated_at"] == time));
                let by_time = api.get(&format!("{path}/a?at={time}"));
                if by_time.status == 200 {
                    let (_, last) = last.expect("at least this one");
                    assert_eq!(Some(&by_time.json()), last.as_ref(), "at {time}");
                }
            }
            None => {
                then.expect_problem(404, "not-found");
            }
        }
    }
    api.get(&format!("{path}/a?at=1")).expect_problem(404, "not-found");
    api.get(&format!("{path}/a?at=1970-01-01T00:00:00.000Z")).expect_problem(404, "not-found");
    let now = api.get(&format!("{path}/a")).expect(200).json();
    assert_eq!(api.get(&format!("{path}/a?at=2999-01-01T00:00:00.000Z")).expect(200).json(), now);
    // Versions of the model, with hook changes in between.
    for version in 2..8 {
        let schema = json!({"type": "object", "title": format!("version {version}")});
        api.put("/models/m", &json!({"schema": schema})).expect(200);
    }
    assert_eq!(api.get("/models/m?version=1").expect(200).json()["schema"], json!({"type": "object"}));
    for version in 2..8 {
        let found = api.get(&format!("/models/m?version={version}")).expect(200).json();
        assert_eq!(found["schema"]["title"], format!("version {version}"));
        assert_eq!(found["version"], version);
    }
    api.get("/models/m?version=8").expect_problem(404, "not-found");
}
