//! `/events`, `/events/stream`, and the history of an instance.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Client, Server, create_orders};

#[track_caller]
fn create(api: &Client, id: &str) -> Value {
    api.post("/models/order/instances", &json!({"id": id, "data": {"name": id}})).expect(201).json()
}

fn start() -> Server {
    let server = Server::start();
    create_orders(&server.client(), "order");
    server
}

#[test]
fn pages() {
    let server = start();
    let api = server.client();
    assert_eq!(api.get("/events?type=instance.created").expect(200).json()["items"], json!([]));
    for id in ["a", "b", "c"] {
        create(&api, id);
    }
    api.patch("/models/order/instances/a", &json!({"count": 1})).expect(200);
    api.delete("/models/order/instances/b").expect(204);
    let all = api.get("/events").expect(200).json();
    let items = all["items"].as_array().expect("items");
    let kinds: Vec<_> = items.iter().map(|event| event["type"].as_str().expect("a type")).collect();
    assert_eq!(
        kinds,
        [
            "model.created",
            "instance.created",
            "instance.created",
            "instance.created",
            "instance.updated",
            "instance.deleted"
        ]
    );
    let positions: Vec<_> = items.iter().map(|event| event["position"].as_u64().expect("a number")).collect();
    assert!(positions.is_sorted_by(|a, b| a < b), "{positions:?}");
    assert_eq!((&all["next"], &all["head"]), (&Value::Null, &items[5]["position"]));
    let keys: Vec<&String> = items[1].as_object().expect("an object").keys().collect();
    assert_eq!(
        keys,
        [
            "position",
            "id",
            "type",
            "model",
            "model_version",
            "instance",
            "revision",
            "data",
            "actor",
            "cause",
            "hooks",
            "request_id",
            "time"
        ]
    );
    assert_eq!(items[1]["data"], json!({"name": "a", "status": "open"}));
    assert_eq!((&items[1]["cause"], &items[1]["hooks"]), (&Value::Null, &json!([])));
    assert_eq!((&items[5]["data"], &items[5]["revision"]), (&Value::Null, &json!(2)));
    assert_eq!(items[0]["instance"], Value::Null);

    // Page by page.
    let (mut next, mut seen) = (Some("0".to_owned()), Vec::new());
    while let Some(after) = next {
        let page = api.get(&format!("/events?limit=2&after={after}")).expect(200).json();
        seen.extend(page["items"].as_array().expect("items").clone());
        assert_eq!(page["head"], all["head"]);
        next = page["next"].as_str().map(str::to_owned);
    }
    assert_eq!(&seen, items);
    let count =
        |query: &str| api.get(&format!("/events?{query}")).expect(200).json()["items"].as_array().expect("items").len();
    assert_eq!(count("model=order"), 6);
    api.get("/events?model=none").expect_problem(404, "not-found");
    api.get("/events/stream?model=none").expect_problem(404, "not-found");
    assert_eq!(count("model=order&instance=a"), 2);
    assert_eq!(count("type=instance.created,model.created"), 4);
    assert_eq!(count("type=instance.deleted&model=order&instance=a"), 0);
    assert_eq!(count(&format!("after={}", positions[3])), 2);
    assert_eq!(count(&format!("after={}", all["head"])), 0);
    for bad in [
        "after=-1",
        "after=x",
        "after=",
        "limit=0",
        "limit=1001",
        "model=M",
        "instance=a",
        "type=x",
        "type=",
        "model=order&instance=%20",
        "before=1",
    ] {
        api.get(&format!("/events?{bad}")).expect_problem(400, "bad-request");
    }
}

#[test]
fn history() {
    let server = start();
    let api = server.client();
    create(&api, "a");
    create(&api, "b");
    api.patch("/models/order/instances/a", &json!({"count": 1})).expect(200);
    api.delete("/models/order/instances/a").expect(204);
    create(&api, "a");
    let history = api.get("/models/order/instances/a/events").expect(200).json();
    let revisions: Vec<_> =
        history["items"].as_array().expect("items").iter().map(|event| event["revision"].clone()).collect();
    assert_eq!(revisions, [1, 2, 3, 1]);
    api.delete("/models/order/instances/a").expect(204);
    let history = api.get("/models/order/instances/a/events?limit=3").expect(200).json();
    assert_eq!(history["items"].as_array().expect("items").len(), 3);
    let next = history["next"].as_str().expect("a place");
    let rest = api.get(&format!("/models/order/instances/a/events?after={next}")).expect(200).json();
    assert_eq!(rest["items"].as_array().expect("items").len(), 2);
    api.get("/models/order/instances/never/events").expect_problem(404, "not-found");
    api.get("/models/none/instances/a/events").expect_problem(404, "not-found");
    api.get("/models/order/instances/a/events?type=x").expect_problem(400, "bad-request");
}

#[test]
fn a_stream_follows_from_now() {
    let server = start();
    let api = server.client();
    create(&api, "before");
    let mut stream = api.stream("/events/stream", &[]);
    assert_eq!((stream.status(), stream.header("content-type")), (200, Some("text/event-stream")));
    assert_eq!(stream.header("cache-control"), Some("no-store"));
    assert!(stream.header("x-request-id").is_some());
    let made = create(&api, "a");
    let frame = stream.next();
    assert_eq!((frame.event.as_str(), &json!(frame.position())), ("instance.created", &made["position"]));
    assert_eq!(frame.data["instance"], "a");
    // The same event as in the log, on one line.
    let listed =
        api.get(&format!("/events?after={}", made["position"].as_u64().expect("a number") - 1)).expect(200).json();
    assert_eq!(frame.data, listed["items"][0]);
}

#[test]
fn a_stream_resumes_where_it_was() {
    let server = start();
    let api = server.client();
    let positions: Vec<u64> =
        (0..200).map(|n| create(&api, &format!("i{n}"))["position"].as_u64().expect("a number")).collect();
    let mut stream = api.stream("/events/stream?after=0", &[]);
    assert_eq!(stream.next().event, "model.created");
    for position in &positions {
        assert_eq!(stream.next().position(), *position);
    }
    let live = create(&api, "live");
    assert_eq!(json!(stream.next().position()), live["position"]);
    // For a reconnecting listener the header takes precedence over the URL.
    let mut back = api.stream("/events/stream?after=0", &[("Last-Event-ID", &positions[150].to_string())]);
    assert_eq!(back.next().position(), positions[151]);
    let mut after = api.stream(&format!("/events/stream?after={}", positions[198]), &[]);
    assert_eq!(after.next().position(), positions[199]);
    for bad in ["x", "-1", "1.5"] {
        let answer = api.request("GET", "/events/stream").header("Last-Event-ID", bad).send();
        answer.expect_problem(400, "bad-request");
    }
    for bad in ["after=x", "type=x", "instance=a", "limit=5", "model=M"] {
        api.get(&format!("/events/stream?{bad}")).expect_problem(400, "bad-request");
    }
}

#[test]
fn a_stream_shows_what_it_was_asked_for() {
    let server = start();
    let api = server.client();
    create_orders(&api, "other");
    let mut updates = api.stream("/events/stream?after=0&model=order&type=instance.updated,instance.deleted", &[]);
    let mut one = api.stream("/events/stream?after=0&model=order&instance=b", &[]);
    api.post("/models/other/instances", &json!({"id": "b", "data": {"name": "x"}})).expect(201);
    for id in ["a", "b"] {
        create(&api, id);
        api.patch(&format!("/models/order/instances/{id}"), &json!({"count": 1})).expect(200);
    }
    api.delete("/models/order/instances/b").expect(204);
    let seen: Vec<_> =
        (0..3).map(|_| updates.next()).map(|frame| (frame.event, frame.data["instance"].clone())).collect();
    let expected = [("instance.updated", "a"), ("instance.updated", "b"), ("instance.deleted", "b")];
    assert_eq!(seen, expected.map(|(kind, id)| (kind.to_owned(), json!(id))));
    let seen: Vec<_> = (0..3).map(|_| one.next().event).collect();
    assert_eq!(seen, ["instance.created", "instance.updated", "instance.deleted"]);
}

#[test]
fn a_stream_misses_nothing_while_others_write() {
    let server = start();
    let api = server.client();
    let start = create(&api, "first")["position"].as_u64().expect("a number");
    let (writers, each) = (4, 100);
    let seen: Vec<String> = std::thread::scope(|scope| {
        for writer in 0..writers {
            let api = server.client();
            scope.spawn(move || (0..each).for_each(|n| drop(create(&api, &format!("w{writer}-{n}")))));
        }
        let mut seen = Vec::new();
        let mut after = start;
        while seen.len() < writers * each {
            // A listener that disconnects and reconnects repeatedly.
            let mut stream = api.stream("/events/stream", &[("Last-Event-ID", &after.to_string())]);
            for _ in 0..37.min(writers * each - seen.len()) {
                let frame = stream.next();
                let position = frame.data["position"].as_u64().expect("a number");
                assert!(position > after, "{position} after {after}");
                after = position;
                seen.push(frame.data["instance"].as_str().expect("an id").to_owned());
            }
        }
        seen
    });
    let distinct: std::collections::HashSet<_> = seen.iter().collect();
    assert_eq!(distinct.len(), writers * each);
}

#[test]
fn many_listeners_hear_the_same() {
    let server = start();
    let api = server.client();
    let mut streams: Vec<_> = (0..100).map(|_| api.stream("/events/stream", &[])).collect();
    let made = create(&api, "a");
    for stream in &mut streams {
        assert_eq!(json!(stream.next().position()), made["position"]);
    }
}

#[test]
fn a_stream_says_that_it_is_alive() {
    let server = start();
    let mut stream = server.client().stream("/events/stream", &[]);
    stream.expect_comment(Duration::from_secs(2));
    stream.expect_comment(Duration::from_secs(25));
    assert!(stream.comments() >= 2);
}

#[test]
fn a_stream_of_texts_with_line_breaks() {
    let server = start();
    let api = server.client();
    let mut stream = api.stream("/events/stream", &[]);
    let body = "{\r\n  \"id\": \"a\",\n  \"data\": {\n    \"name\": \"line\\nbreak\"\r\n  }\n}";
    api.request("POST", "/models/order/instances").body("application/json", body).send().expect(201);
    assert_eq!(stream.next().data["data"]["name"], "line\nbreak");
}
