//! Many concurrent clients: unique values stay unique, the client that loses a race gets an error, listeners miss
//! nothing, and models change under full load.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::chance::Chance;
use crate::support::{Client, Response, Server, at_once, eventually, list};

const CLIENTS: usize = 16;

fn statuses(responses: &[Response]) -> BTreeMap<u16, usize> {
    responses.iter().fold(BTreeMap::new(), |mut counts, response| {
        *counts.entry(response.status).or_default() += 1;
        counts
    })
}

/// All events of a query.
#[track_caller]
fn events(api: &Client, query: &str) -> Vec<Value> {
    let (mut items, mut after) = (Vec::new(), "0".to_owned());
    loop {
        let mut page = api.get(&format!("/events?limit=1000&after={after}&{query}")).expect(200).json();
        if let Value::Array(page) = page["items"].take() {
            items.extend(page);
        }
        match page["next"].as_str() {
            Some(next) => after = next.to_owned(),
            None => return items,
        }
    }
}

#[track_caller]
fn rebuild(api: &Client) {
    api.request("POST", "/rebuild").send().expect(202);
    eventually("the rebuild is done", || (api.get("/rebuild").expect(200).json()["state"] == "done").then_some(()));
}

#[test]
fn one_of_many_gets_a_unique_value() {
    let server = Server::start();
    let api = server.client();
    let schema = json!({"type": "object", "properties": {"mail": {"type": "string"}, "n": {"type": "integer"}}});
    api.post("/models", &json!({"id": "user", "schema": schema, "unique": [["mail"]]})).expect(201);
    for n in 0..CLIENTS {
        api.post("/models/user/instances", &json!({"id": format!("u{n}"), "data": {"n": n}})).expect(201);
    }
    for round in 0..20 {
        let mail = format!("mail-{round}");
        // Some create, some replace, some patch.
        let responses = at_once(&server, CLIENTS, |number, api| {
            let data = json!({"mail": mail, "n": number});
            match number % 3 {
                0 => api.post("/models/user/instances", &json!({"data": data})),
                1 => api.put(&format!("/models/user/instances/u{number}"), &json!({"data": data})),
                _ => api.patch(&format!("/models/user/instances/u{number}"), &json!({"mail": mail})),
            }
        });
        let winners: Vec<&Response> = responses.iter().filter(|response| response.status < 300).collect();
        assert_eq!(winners.len(), 1, "{:?}", statuses(&responses));
        let winner = winners[0].json()["id"].as_str().expect("an id").to_owned();
        for (number, response) in responses.into_iter().enumerate().filter(|(_, response)| response.status >= 300) {
            let problem = response.expect_problem(409, "not-unique");
            // The pointer refers to the request body, which for a patch is the data itself.
            let pointer = if number % 3 == 2 { "/mail" } else { "/data/mail" };
            assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
        }
        let holders = list(&api, "user").into_iter().filter(|user| user["data"]["mail"] == mail.as_str()).count();
        assert_eq!(holders, 1);
        // A released value is free again, for one of many clients.
        if round % 2 == 0 {
            api.patch(&format!("/models/user/instances/{winner}"), &json!({"mail": null})).expect(200);
        } else {
            api.delete(&format!("/models/user/instances/{winner}")).expect(204);
            let _ = api.post("/models/user/instances", &json!({"id": winner, "data": {}}));
        }
        let responses =
            at_once(&server, CLIENTS, |_, api| api.post("/models/user/instances", &json!({"data": {"mail": mail}})));
        assert_eq!(statuses(&responses), BTreeMap::from([(201, 1), (409, CLIENTS - 1)]));
    }
}

#[test]
fn one_of_many_creates_an_id() {
    let server = Server::start();
    let api = server.client();
    api.post("/models", &json!({"id": "plain", "schema": {"type": "object"}})).expect(201);
    for round in 0..20 {
        let id = format!("i{round}");
        let responses = at_once(&server, CLIENTS, |number, api| match number % 2 {
            0 => api.post("/models/plain/instances", &json!({"id": id, "data": {"n": number}})),
            _ => {
                let request = api.request("PUT", &format!("/models/plain/instances/{id}")).header("If-None-Match", "*");
                request.json(&json!({"data": {"n": number}})).send()
            }
        });
        let created: Vec<Value> =
            responses.iter().filter(|response| response.status == 201).map(Response::json).collect();
        assert_eq!(created.len(), 1, "{:?}", statuses(&responses));
        assert!(
            responses.iter().all(|response| matches!(response.status, 201 | 409 | 412)),
            "{:?}",
            statuses(&responses)
        );
        assert_eq!(api.get(&format!("/models/plain/instances/{id}")).expect(200).json(), created[0]);
        assert_eq!(events(&api, &format!("model=plain&instance={id}")).len(), 1);
    }
}

#[test]
fn one_of_many_matches_the_etag() {
    let server = Server::start();
    let api = server.client();
    api.post("/models", &json!({"id": "plain", "schema": {"type": "object"}})).expect(201);
    let path = "/models/plain/instances/a";
    let created = api.post("/models/plain/instances", &json!({"id": "a", "data": {"n": -1}})).expect(201);
    let mut etag = created.header("etag").expect("an ETag").to_owned();
    for round in 0..20 {
        let responses = at_once(&server, CLIENTS, |number, api| {
            let method = if number % 2 == 0 { "PUT" } else { "PATCH" };
            let request = api.request(method, path).header("If-Match", &etag);
            match method {
                "PUT" => request.json(&json!({"data": {"n": number, "round": round}})).send(),
                _ => {
                    let body = json!({"n": number, "round": round}).to_string();
                    request.body("application/merge-patch+json", body).send()
                }
            }
        });
        assert_eq!(statuses(&responses), BTreeMap::from([(200, 1), (412, CLIENTS - 1)]));
        let winner = responses.iter().find(|response| response.status == 200).expect("one");
        let now = api.get(path).expect(200);
        assert_eq!(now.json(), winner.json());
        etag = now.header("etag").expect("an ETag").to_owned();
        assert_eq!(winner.header("etag"), Some(etag.as_str()));
        assert_eq!(now.json()["revision"], round + 2);
    }
    // A deletion may win too.
    let responses = at_once(&server, CLIENTS, |_, api| api.request("DELETE", path).header("If-Match", &etag).send());
    assert_eq!(statuses(&responses), BTreeMap::from([(204, 1), (412, CLIENTS - 1)]));
}

#[test]
fn patches_without_a_precondition_are_all_in_or_told_to_come_back() {
    let server = Server::start();
    let api = server.client();
    api.post("/models", &json!({"id": "plain", "schema": {"type": "object"}})).expect(201);
    let path = "/models/plain/instances/a";
    api.post("/models/plain/instances", &json!({"id": "a", "data": {}})).expect(201);
    let mut expected = json!({});
    let mut stored = 0;
    for round in 0..20 {
        let responses = at_once(&server, CLIENTS, |number, api| {
            let property = format!("p{number}");
            (property.clone(), api.patch(path, &json!({property: round})))
        });
        for (property, response) in responses {
            match response.status {
                200 => {
                    assert_eq!(response.json()["data"][&property], round);
                    expected[property] = json!(round);
                    stored += 1;
                }
                _ => drop(response.expect_problem(409, "conflict")),
            }
        }
        let now = api.get(path).expect(200).json();
        assert_eq!(sorted(&now["data"]), sorted(&expected), "a patch that was acknowledged is lost");
        assert_eq!(now["revision"], stored + 1);
    }
    assert!(stored > 20 * CLIENTS / 4, "hardly any race was won: {stored}");
}

fn sorted(data: &Value) -> BTreeMap<&String, &Value> {
    data.as_object().expect("an object").iter().collect()
}

#[test]
fn the_same_key_makes_one_instance() {
    let server = Server::start();
    let api = server.client();
    let schema = json!({"type": "object", "properties": {"code": {"type": "string"}}});
    api.post("/models", &json!({"id": "plain", "schema": schema, "unique": [["code"]]})).expect(201);
    for round in 0..20 {
        // With and without a client-chosen id, and with and without a unique value.
        let mut body = json!({"data": {"round": round}});
        if round % 2 == 1 {
            body["id"] = json!(format!("own-{round}"));
        }
        if round % 4 > 1 {
            body["data"]["code"] = json!(format!("code-{round}"));
        }
        let key = format!("key-{round}");
        let responses = at_once(&server, CLIENTS, |_, api| {
            api.request("POST", "/models/plain/instances").header("Idempotency-Key", &key).json(&body).send()
        });
        assert_eq!(statuses(&responses), BTreeMap::from([(201, CLIENTS)]), "round {round}");
        let answers: BTreeSet<String> = responses.iter().map(Response::text).collect();
        assert_eq!(answers.len(), 1, "{answers:?}");
        let etags: BTreeSet<Option<&str>> = responses.iter().map(|response| response.header("etag")).collect();
        assert_eq!(etags.len(), 1, "{etags:?}");
        assert_eq!(list(&api, "plain").len(), round + 1);
    }
    // The first response, even after the instance was changed and deleted.
    let first = || {
        api.request("POST", "/models/plain/instances")
            .header("Idempotency-Key", "key-0")
            .json(&json!({"data": {"round": 0}}))
            .send()
            .expect(201)
    };
    let before = first();
    let id = before.json()["id"].as_str().expect("an id").to_owned();
    api.patch(&format!("/models/plain/instances/{id}"), &json!({"changed": true})).expect(200);
    assert_eq!(first().text(), before.text());
    api.delete(&format!("/models/plain/instances/{id}")).expect(204);
    assert_eq!(first().text(), before.text());
    // Another model has separate keys.
    api.post("/models", &json!({"id": "other", "schema": {"type": "object"}})).expect(201);
    let other = api
        .request("POST", "/models/other/instances")
        .header("Idempotency-Key", "key-0")
        .json(&json!({"data": {}}))
        .send();
    assert_eq!(other.expect(201).json()["model"], "other");
    let server = server.kill_and_restart();
    let again = server.client();
    let again = again
        .request("POST", "/models/plain/instances")
        .header("Idempotency-Key", "key-0")
        .json(&json!({"data": {"round": 0}}))
        .send();
    assert_eq!(again.expect(201).text(), before.text());
}

#[test]
fn listeners_miss_nothing_and_see_nothing_twice() {
    const WRITERS: usize = 8;
    const WRITES: usize = 150;
    let mut chance = Chance::new();
    let server = Server::start();
    let api = server.client();
    for id in ["a", "b"] {
        api.post("/models", &json!({"id": id, "schema": {"type": "object"}})).expect(201);
    }
    api.post("/models/a/instances", &json!({"id": "shared", "data": {}})).expect(201);
    let start = api.get("/events?limit=1").expect(200).json()["head"].as_u64().expect("a position");
    let ended = |frame: &Value| frame["instance"] == "the-end" && frame["model"] == "a";
    /// The query of a listener, and whether it reconnects.
    const LISTENERS: [(&str, bool); 8] = [
        ("", false),
        ("", true),
        ("", true),
        ("model=a", false),
        ("model=a", true),
        ("type=instance.created", true),
        ("model=a&type=instance.created,instance.deleted", false),
        ("model=a&instance=the-end", false),
    ];
    let seen: Vec<Vec<Value>> = std::thread::scope(|scope| {
        let listeners: Vec<_> = LISTENERS
            .into_iter()
            .map(|(query, returns)| {
                let (api, mut chance) = (server.client(), chance.fork());
                let mut stream = api.stream(&format!("/events/stream?after={start}&{query}"), &[]);
                assert_eq!(stream.status(), 200);
                scope.spawn(move || {
                    let (mut seen, mut left) = (Vec::new(), chance.within(1..100));
                    loop {
                        let frame = stream.next();
                        assert_eq!(json!(frame.position()), frame.data["position"]);
                        assert_eq!(frame.event, frame.data["type"].as_str().expect("a type"));
                        let last = ended(&frame.data);
                        seen.push(frame.data);
                        if last {
                            return seen;
                        }
                        left -= 1;
                        if returns && left == 0 {
                            let id = frame.id.expect("an id");
                            // `after` is the initial position; the header takes precedence.
                            let path = format!("/events/stream?after={start}&{query}");
                            stream = api.stream(&path, &[("Last-Event-ID", &id)]);
                            left = chance.within(1..100);
                        }
                        left = left.max(1);
                    }
                })
            })
            .collect();
        let chances: Vec<Mutex<Chance>> = (0..WRITERS).map(|_| Mutex::new(chance.fork())).collect();
        at_once(&server, WRITERS, |number, api| {
            let mut chance = chances[number].lock().expect("its own");
            for n in 0..WRITES {
                let model = chance.pick(&["a", "b"]);
                let id = format!("w{number}-{n}");
                api.post(&format!("/models/{model}/instances"), &json!({"id": id, "data": {"n": n}})).expect(201);
                match chance.below(3) {
                    0 => drop(api.delete(&format!("/models/{model}/instances/{id}")).expect(204)),
                    1 => drop(api.patch("/models/a/instances/shared", &json!({"n": n}))),
                    _ => {}
                }
            }
        });
        api.post("/models/a/instances", &json!({"id": "the-end", "data": {}})).expect(201);
        listeners.into_iter().map(|listener| listener.join().expect("a listener")).collect()
    });
    for ((query, _), seen) in LISTENERS.iter().zip(&seen) {
        let stored: Vec<Value> =
            events(&api, query).into_iter().filter(|event| event["position"].as_u64() > Some(start)).collect();
        let positions = |events: &[Value]| events.iter().map(|event| event["position"].as_u64()).collect::<Vec<_>>();
        assert_eq!(positions(seen), positions(&stored), "`{query}`");
        assert!(*seen == stored, "`{query}`: the events are there but differ");
    }
    assert!(seen[0].len() > WRITERS * WRITES);
    // A listener that starts later at the beginning of the log gets the same events from the store.
    let mut late = api.stream("/events/stream?after=0", &[]);
    let all = events(&api, "");
    for event in &all {
        assert_eq!(late.next().data, *event);
    }
}

/// The model that changes: its unique property has one name or the other.
fn document(name: &str, default: bool) -> Value {
    let mut properties = json!({
        name: {"type": "string", "minLength": 1},
        "size": {"type": "integer", "minimum": 0, "maximum": 10},
    });
    let mut required = vec![name];
    if default {
        properties["state"] = json!({"type": "string", "default": "new"});
        required.push("state");
    }
    let schema =
        json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false});
    json!({"schema": schema, "unique": [[name]], "indexes": [["size", name]]})
}

#[test]
fn models_change_under_load_and_every_instance_fits() {
    const TITLES: usize = 60;
    let mut chance = Chance::new();
    let server = Server::start();
    let api = server.client();
    let mut first = document("title", false);
    first["id"] = json!("doc");
    api.post("/models", &first).expect(201);
    let over = AtomicBool::new(false);
    let (mut name, mut default, mut version) = ("title", false, 1);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..8)
            .map(|number| {
                let (api, mut chance, over) = (server.client(), chance.fork(), &over);
                scope.spawn(move || {
                    let mut counts: BTreeMap<u16, usize> = BTreeMap::new();
                    for n in 0.. {
                        if over.load(Ordering::Relaxed) {
                            break;
                        }
                        // Each client has its own instances, but the values are shared.
                        let path = format!("/models/doc/instances/d{number}-{}", chance.below(12));
                        let property = chance.pick(&["title", "name"]);
                        let value = format!("t{}", chance.below(TITLES));
                        let response = match chance.below(8) {
                            0 => api.delete(&path),
                            1..4 => api.patch(&path, &json!({property: value})),
                            4 => api.patch(&path, &json!({"size": n % 11})),
                            _ => {
                                let request = api.request("PUT", &path).header("If-None-Match", "*");
                                request.json(&json!({"data": {property: value, "size": n % 11}})).send()
                            }
                        };
                        assert!(
                            matches!(response.status, 200 | 201 | 204 | 404 | 409 | 412 | 422),
                            "{}",
                            response.text()
                        );
                        *counts.entry(response.status).or_default() += 1;
                    }
                    counts
                })
            })
            .collect();
        for _ in 0..60 {
            let mut next = document(name, default);
            match chance.below(4) {
                0 | 1 => {
                    let other = if name == "title" { "name" } else { "title" };
                    next = document(other, default);
                    next["renames"] = json!({name: other});
                    name = other;
                }
                // From now on every instance has the property.
                2 => {
                    default = true;
                    next = document(name, true);
                }
                _ => {
                    // A change that some instance does not match is rejected and has no effect.
                    let mut narrow = next.clone();
                    narrow["schema"]["properties"]["size"]["maximum"] = json!(1);
                    let response = api.put("/models/doc", &narrow);
                    match response.status {
                        422 => drop(response.expect_problem(422, "incompatible")),
                        // No instance was larger at that moment.
                        _ => {
                            response.expect(200);
                            version += 1;
                        }
                    }
                }
            }
            let model = api.put("/models/doc", &next).expect(200).json();
            let now = model["version"].as_u64().expect("a version");
            assert!(now == version || now == version + 1, "{now} after {version}");
            version = now;
        }
        over.store(true, Ordering::Relaxed);
        for writer in writers {
            let counts = writer.join().expect("a writer");
            assert!(counts.contains_key(&201) && counts.contains_key(&200), "{counts:?}");
        }
    });
    let model = api.get("/models/doc").expect(200).json();
    assert_eq!(model["version"], version);
    let check = |instances: &[Value]| {
        let mut values = BTreeSet::new();
        for instance in instances {
            let data = instance["data"].as_object().expect("an object");
            let value = data.get(name).and_then(Value::as_str).unwrap_or_else(|| panic!("no `{name}`: {instance}"));
            assert!(values.insert(value.to_owned()), "`{value}` is there twice");
            assert!(data.keys().all(|key| model["schema"]["properties"].get(key).is_some()), "{instance}");
            let required = model["schema"]["required"].as_array().expect("a list");
            assert!(required.iter().all(|key| data.contains_key(key.as_str().expect("a name"))), "{instance}");
        }
        values
    };
    let before = list(&api, "doc");
    assert!(before.len() > 10, "{}", before.len());
    let held = check(&before);
    for value in (0..TITLES).map(|number| format!("t{number}")) {
        let mut data = json!({name: value, "size": 1});
        if default {
            data["state"] = json!("new");
        }
        let response = api.post("/models/doc/instances?dry-run=true", &json!({"data": data}));
        let expected = if held.contains(&value) { 409 } else { 200 };
        assert_eq!(response.status, expected, "`{value}`, held: {held:?}: {}", response.text());
    }
    rebuild(&api);
    assert_eq!(list(&api, "doc"), before);
}

#[test]
fn a_model_in_use_stays_and_a_free_one_goes_whole() {
    let server = Server::start();
    let api = server.client();
    let model = |id: &str| json!({"id": id, "schema": {"type": "object"}});
    api.post("/models", &model("used")).expect(201);
    api.post("/models/used/instances", &json!({"id": "a", "data": {}})).expect(201);
    api.delete("/models/used").expect_problem(409, "model-in-use");
    api.get("/models/used/instances/a").expect(200);
    for round in 0..30 {
        let id = format!("m{round}");
        api.post("/models", &model(&id)).expect(201);
        let responses = at_once(&server, 4, |number, api| match number {
            0 => api.delete(&format!("/models/{id}")),
            _ => api.post(&format!("/models/{id}/instances"), &json!({"data": {}})),
        });
        let created = responses[1..].iter().filter(|response| response.status == 201).count();
        match responses[0].status {
            204 => {
                assert_eq!(created, 0, "a model went with instances in it");
                assert!(responses[1..].iter().all(|response| response.status == 404), "{:?}", statuses(&responses));
                api.get(&format!("/models/{id}")).expect_problem(404, "not-found");
            }
            409 => assert_eq!(list(&api, &id).len(), created),
            status => panic!("{status}: {}", responses[0].text()),
        }
    }
}

#[test]
fn a_cascade_takes_every_instance_with_it() {
    let server = Server::start();
    let api = server.client();
    let model = json!({
        "id": "gone",
        "schema": {"type": "object", "properties": {"code": {"type": "string"}}},
        "unique": [["code"]],
    });
    for round in 0..5 {
        api.post("/models", &model).expect(201);
        let start = api.get("/events?limit=1").expect(200).json()["head"].as_u64().expect("a position");
        let acknowledged: Vec<BTreeSet<String>> = at_once(&server, 9, |number, api| {
            let mut created = BTreeSet::new();
            if number == 0 {
                eventually("there is something to delete", || (list(api, "gone").len() > 200).then_some(()));
                api.delete("/models/gone?cascade=true").expect(204);
                return created;
            }
            for n in 0.. {
                let id = format!("g{number}-{n}");
                let body = json!({"id": id, "data": {"code": id}});
                let response = api.post("/models/gone/instances", &body);
                match response.status {
                    404 => break,
                    // The model is closed while its instances are deleted.
                    409 => {
                        response.expect_problem(409, "conflict");
                    }
                    _ => {
                        response.expect(201);
                        created.insert(id);
                    }
                }
            }
            created
        });
        let acknowledged: BTreeSet<String> = acknowledged.into_iter().flatten().collect();
        api.get("/models/gone").expect_problem(404, "not-found");
        api.get("/models/gone/instances").expect_problem(404, "not-found");
        let history = events(&api, "model=gone");
        let history: Vec<&Value> = history.iter().filter(|event| event["position"].as_u64() > Some(start)).collect();
        let of = |kind: &str| -> BTreeSet<String> {
            history
                .iter()
                .filter(|event| event["type"] == kind)
                .map(|event| event["instance"].as_str().expect("an id").to_owned())
                .collect()
        };
        assert_eq!(of("instance.created"), acknowledged, "round {round}");
        assert_eq!(of("instance.deleted"), acknowledged, "round {round}");
        assert_eq!(history.len(), acknowledged.len() * 2 + 1);
        assert_eq!(history.last().expect("an event")["type"], "model.deleted");
    }
    // The name, the ids and the unique values are free again.
    api.post("/models", &model).expect(201);
    assert_eq!(list(&api, "gone"), Vec::<Value>::new());
    let again = api.post("/models/gone/instances", &json!({"id": "g1-0", "data": {"code": "g1-1"}})).expect(201).json();
    assert_eq!(again["revision"], 1);
    let before = list(&api, "gone");
    rebuild(&api);
    assert_eq!(list(&api, "gone"), before);
}
