//! A record that a rule hides appears not to exist, whatever the request.

use serde_json::{Value, json};

use super::{Stage, ask, ids, put, send};
use crate::support::Response;

/// Method, path, a header, body.
type Request<'a> = (&'a str, String, Option<(&'a str, &'a str)>, Value);

/// A response without the parts that differ between any two requests.
fn plain(answer: &Response, id: &str) -> (u16, Option<String>, String) {
    let etag = answer.header("etag").map(str::to_owned);
    let mut text = answer.text().replace(id, "ID");
    if let Ok(mut body) = serde_json::from_str::<Value>(&text) {
        if let Some(body) = body.as_object_mut() {
            body.remove("request_id");
        }
        text = body.to_string();
    }
    (answer.status, etag, text)
}

/// A request for a hidden record gets the same response as one for a nonexistent record.
#[test]
fn a_hidden_record_is_as_if_it_were_not_there() {
    let stage = Stage::with_notes();
    put(&stage, "hidden", json!({"owner": "alice", "text": "secret", "slug": "s1"}));
    let api = stage.api();
    // With a history: it was public once.
    let change = json!({"owner": "alice", "public": true, "text": "secret 2"});
    send(&api, &stage.admin, "PUT", "/models/note/instances/hidden", &json!({"data": change})).expect(200);
    let shown = ask(&api, &stage.bob, "GET", "/models/note/instances/hidden").expect(200);
    let etag = shown.header("etag").expect("a tag").to_owned();
    let at = shown.json()["position"].as_u64().expect("a position");
    let change = json!({"owner": "alice", "text": "secret 3"});
    send(&api, &stage.admin, "PUT", "/models/note/instances/hidden", &json!({"data": change})).expect(200);
    // And a deleted record.
    put(&stage, "gone", json!({"owner": "alice", "text": "secret"}));
    ask(&api, &stage.admin, "DELETE", "/models/note/instances/gone").expect(204);

    let one = "/models/note/instances/ID";
    let data = json!({"data": {"owner": "bob"}});
    let operation = |op: Value| json!({"operations": [op]});
    let rows: Vec<Request<'_>> = vec![
        ("GET", one.into(), None, json!(null)),
        ("HEAD", one.into(), None, json!(null)),
        ("GET", one.into(), Some(("If-None-Match", &etag)), json!(null)),
        ("GET", format!("{one}?at={at}"), None, json!(null)),
        ("GET", format!("{one}?at=2100-01-01T00:00:00Z"), None, json!(null)),
        ("GET", format!("{one}/events"), None, json!(null)),
        ("GET", format!("{one}/events?limit=1"), None, json!(null)),
        ("GET", format!("{one}/events?after={at}"), None, json!(null)),
        ("PUT", one.into(), None, data.clone()),
        ("PUT", one.into(), None, json!({"data": {"no": "owner"}})),
        ("PUT", one.into(), Some(("If-Match", "*")), data.clone()),
        ("PUT", one.into(), Some(("If-Match", &etag)), data.clone()),
        ("PUT", format!("{one}?dry-run=true"), None, data),
        ("PATCH", one.into(), None, json!({"text": "x"})),
        ("PATCH", one.into(), Some(("If-Match", &etag)), json!({"text": "x"})),
        ("PATCH", format!("{one}?dry-run=true"), None, json!({"text": "x"})),
        ("DELETE", one.into(), None, json!(null)),
        ("DELETE", one.into(), Some(("If-Match", &etag)), json!(null)),
        ("DELETE", format!("{one}?dry-run=true"), None, json!(null)),
        ("POST", "/batch".into(), None, operation(json!({"op": "delete", "model": "note", "id": "ID"}))),
        ("POST", "/batch".into(), None, operation(json!({"op": "patch", "model": "note", "id": "ID", "data": {}}))),
        (
            "POST",
            "/batch?dry-run=true".into(),
            None,
            operation(json!({"op": "update", "model": "note", "id": "ID", "data": {"owner": "bob"}, "if_match": etag})),
        ),
        ("GET", "/events?model=note&instance=ID".into(), None, json!(null)),
        ("GET", "/events?model=note&instance=ID&limit=1".into(), None, json!(null)),
        ("GET", "/models/note/instances?filter[$id][eq]=ID&count=true".into(), None, json!(null)),
    ];
    for (method, path, header, body) in rows {
        let request = |id: &str| {
            let mut request = api.request(method, &path.replace("ID", id));
            request = request.header("Authorization", &format!("Bearer {}", stage.bob));
            if let Some((name, value)) = header {
                request = request.header(name, value);
            }
            let body = (!body.is_null()).then(|| body.to_string().replace("ID", id));
            let answer = match (method, body) {
                (_, None) => request.send(),
                ("PATCH", Some(body)) => request.body("application/merge-patch+json", body).send(),
                (_, Some(body)) => request.body("application/json", body).send(),
            };
            plain(&answer, id)
        };
        let nothing = request("nothing");
        assert_ne!(nothing.0, 500);
        for id in ["hidden", "gone"] {
            assert_eq!(request(id), nothing, "{method} {path} {header:?} of `{id}`");
        }
    }
    // The only thing that a client can find out is that the id is taken.
    let create = json!({"id": "hidden", "data": {"owner": "bob"}});
    let problem = send(&api, &stage.bob, "POST", "/models/note/instances", &create).expect_problem(409, "exists");
    assert!(!problem.to_string().contains("secret"), "{problem}");
    let request = api.request("PUT", "/models/note/instances/hidden").header("If-None-Match", "*");
    let request = request.header("Authorization", &format!("Bearer {}", stage.bob));
    let problem = request.json(&json!({"data": {"owner": "bob"}})).send().expect_problem(412, "precondition-failed");
    assert!(!problem["detail"].to_string().contains("position"), "{problem}");
    // Its owner sees everything.
    ask(&api, &stage.alice, "GET", "/models/note/instances/hidden").expect(200);
    let history = ask(&api, &stage.alice, "GET", "/models/note/instances/hidden/events").expect(200).json();
    assert_eq!(history["items"].as_array().map(Vec::len), Some(3), "{history}");
    let history = ask(&api, &stage.alice, "GET", "/models/note/instances/gone/events").expect(200).json();
    assert_eq!(history["items"].as_array().map(Vec::len), Some(2), "{history}");
}

#[test]
fn lists_counts_and_cursors_know_only_what_is_shown() {
    let stage = Stage::with_notes();
    for number in 0..30 {
        let owner = if number % 3 == 0 { "bob" } else { "alice" };
        put(&stage, &format!("n{number:02}"), json!({"owner": owner, "public": number % 5 == 0, "score": 30 - number}));
    }
    let api = stage.api();
    let shown: Vec<String> = (0..30).filter(|n| n % 3 == 0 || n % 5 == 0).map(|n| format!("n{n:02}")).collect();
    let bob = &stage.bob;
    assert_eq!(ids(&api, bob, "/models/note/instances?sort=$id"), shown);
    for (query, expected) in [
        ("count=true&limit=1", shown.len()),
        ("count=true&limit=1&filter[owner][eq]=alice", shown.len() - 10),
        ("count=true&filter[public][exists]=true", shown.len()),
        ("count=true&filter[or][0][owner][eq]=alice&filter[or][1][owner][eq]=bob&fields=text", shown.len()),
        ("count=true&filter[$id][eq]=n01", 0),
    ] {
        let page = ask(&api, bob, "GET", &format!("/models/note/instances?{query}")).expect(200).json();
        assert_eq!(page["count"], expected, "{query}: {page}");
    }
    for sort in ["score", "-score,$id", "$created_at", "-$id"] {
        let (mut found, mut cursor) = (Vec::new(), String::new());
        loop {
            let path = format!("/models/note/instances?sort={sort}&limit=4{cursor}");
            let page = ask(&api, bob, "GET", &path).expect(200).json();
            let items = page["items"].as_array().expect("items");
            found.extend(items.iter().map(|item| item["id"].as_str().expect("an id").to_owned()));
            let Some(next) = page["next"].as_str() else { break };
            assert_eq!(items.len(), 4, "a page is only short at the end: {page}");
            // A cursor of another caller belongs to another list.
            ask(&api, &stage.alice, "GET", &format!("/models/note/instances?sort={sort}&limit=4&cursor={next}"))
                .expect(400);
            cursor = format!("&cursor={next}");
        }
        found.sort();
        assert_eq!(found, shown, "{sort}");
    }
    assert_eq!(ids(&api, &stage.admin, "/models/note/instances").len(), 30);
}

#[test]
fn events_of_hidden_records_are_in_no_page_and_no_stream() {
    let stage = Stage::with_notes();
    let api = stage.api();
    let header = format!("Bearer {}", stage.bob);
    let mut stream = api.stream("/events/stream?after=0", &[("Authorization", &header)]);
    for number in 0..6 {
        let owner = if number % 3 == 0 { "bob" } else { "alice" };
        put(&stage, &format!("n{number}"), json!({"owner": owner}));
    }
    let mut live = |count: usize| {
        let mut found = Vec::new();
        while found.len() < count {
            let frame = stream.next();
            if frame.event.starts_with("instance.") {
                found.push((frame.event, frame.data["instance"].as_str().expect("an id").to_owned()));
            }
        }
        found
    };
    let event = |kind: &str, id: &str| (format!("instance.{kind}"), id.to_owned());
    assert_eq!(live(2), [event("created", "n0"), event("created", "n3")]);
    // Transfers to another owner, and deletions.
    let path = "/models/note/instances/n0";
    send(&api, &stage.admin, "PUT", path, &json!({"data": {"owner": "alice"}})).expect(200);
    ask(&api, &stage.admin, "DELETE", "/models/note/instances/n1").expect(204);
    ask(&api, &stage.admin, "DELETE", "/models/note/instances/n3").expect(204);
    assert_eq!(live(1), [event("deleted", "n3")]);
    // No other event comes before the next visible one.
    put(&stage, "n9", json!({"owner": "bob"}));
    assert_eq!(live(1), [event("created", "n9")]);
    // A record that was transferred is hidden together with its history.
    let last = [event("created", "n3"), event("deleted", "n3"), event("created", "n9")];
    for limit in [1, 2, 100] {
        let (mut found, mut after) = (Vec::new(), "0".to_owned());
        loop {
            let page = ask(&api, &stage.bob, "GET", &format!("/events?limit={limit}&after={after}")).expect(200).json();
            let items = page["items"].as_array().expect("items").clone();
            let next = page["next"].as_str().map(str::to_owned);
            assert!(
                next.is_none() || items.len() == limit,
                "a page with room left says that something is hidden: {page}"
            );
            found.extend(items);
            let Some(next) = next else { break };
            after = next;
        }
        let found = found.iter().filter(|event| !event["instance"].is_null());
        let found: Vec<_> = found
            .map(|event| {
                (event["type"].as_str().unwrap_or("").to_owned(), event["instance"].as_str().unwrap_or("").to_owned())
            })
            .collect();
        assert_eq!(found, last, "{limit}");
    }
    let all = ask(&api, &stage.admin, "GET", "/events?limit=100").expect(200).json();
    assert_eq!(all["items"].as_array().map(Vec::len), Some(11));
}

/// The current rules apply, also to data of an older version of the model; a deleted model keeps its last rules.
#[test]
fn the_past_is_under_the_rules_of_the_present() {
    let stage = Stage::with_notes();
    put(&stage, "a", json!({"owner": "alice", "text": "secret"}));
    put(&stage, "b", json!({"owner": "bob"}));
    let api = stage.api();
    let mut schema = super::note_schema();
    let properties = schema["properties"].as_object_mut().expect("properties");
    let owner = properties.remove("owner").expect("an owner");
    properties.insert("author".to_owned(), owner);
    schema["required"] = json!(["author"]);
    let body = json!({"schema": schema, "unique": [["slug"]], "renames": {"owner": "author"}});
    let model = send(&api, &stage.admin, "PUT", "/models/note", &body).expect(200).json();
    assert_eq!(model["rules"]["update"]["after.author"], json!({"eq": "$before.author"}), "{model}");
    let seen = |token: &str| {
        let page =
            ask(&api, token, "GET", "/events?type=instance.created,instance.deleted&limit=100").expect(200).json();
        let items = page["items"].as_array().expect("items").iter();
        items.map(|event| event["instance"].as_str().expect("an id").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!((seen(&stage.alice), seen(&stage.bob)), (vec!["a".to_owned()], vec!["b".to_owned()]));
    ask(&api, &stage.bob, "GET", "/models/note/instances/a/events").expect(404);
    // Under rules that hide nothing, everything is visible.
    let mut rules = model["rules"].clone();
    rules["read"] = json!({});
    let mut open = body.clone();
    open["rules"] = rules;
    open.as_object_mut().expect("an object").remove("renames");
    send(&api, &stage.admin, "PUT", "/models/note", &open).expect(200);
    assert_eq!(seen(&stage.bob), ["a", "b"]);
    open["rules"]["read"] = model["rules"]["read"].clone();
    send(&api, &stage.admin, "PUT", "/models/note", &open).expect(200);
    // The model is deleted, and a new one with the same name has no rules.
    ask(&api, &stage.admin, "DELETE", "/models/note?cascade=true").expect(204);
    assert!(!seen(&stage.bob).contains(&"a".to_owned()), "{:?}", seen(&stage.bob));
    send(&api, &stage.admin, "POST", "/models", &json!({"id": "note", "schema": {"type": "object"}})).expect(201);
    assert!(!seen(&stage.bob).contains(&"a".to_owned()), "{:?}", seen(&stage.bob));
    send(&api, &stage.bob, "POST", "/models/note/instances", &json!({"id": "a", "data": {}})).expect(201);
    assert_eq!(seen(&stage.alice).iter().filter(|id| *id == "a").count(), 1);
}

#[test]
fn errors_do_not_name_what_is_hidden() {
    let stage = Stage::with_notes();
    put(&stage, "hidden", json!({"owner": "alice", "slug": "taken"}));
    let api = stage.api();
    let body = json!({"data": {"owner": "bob", "slug": "taken"}});
    for path in ["/models/note/instances", "/models/note/instances?dry-run=true"] {
        let problem = send(&api, &stage.bob, "POST", path, &body).expect_problem(409, "not-unique");
        assert!(!problem.to_string().contains("hidden"), "{problem}");
    }
    let create = |owner: &str| json!({"op": "create", "model": "note", "data": {"owner": owner, "slug": "taken"}});
    let batch = json!({"operations": [create("bob")]});
    let problem = send(&api, &stage.bob, "POST", "/batch", &batch).expect_problem(409, "not-unique");
    assert!(!problem.to_string().contains("hidden"), "{problem}");
    // A caller to whom the rules do not apply sees the name.
    let problem = send(&api, &stage.admin, "POST", "/models/note/instances", &body).expect_problem(409, "not-unique");
    assert!(problem.to_string().contains("hidden"), "{problem}");
}
