//! What changes of models must not lose: the form in which a client has seen an instance, the values of renamed
//! properties, and concurrent changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::support::{Client, Response, Server, at_once, eventually};

const CLIENTS: usize = 8;

/// A definition with string properties.
fn definition(properties: &[&str], unique: &[&[&str]]) -> Value {
    let schema: serde_json::Map<String, Value> =
        properties.iter().map(|name| ((*name).to_owned(), json!({"type": "string"}))).collect();
    json!({"schema": {"type": "object", "properties": schema}, "unique": unique})
}

#[track_caller]
fn create_model(api: &Client, id: &str, mut definition: Value) {
    definition["id"] = json!(id);
    api.post("/models", &definition).expect(201);
}

/// The same with renames.
fn renaming(mut definition: Value, renames: Value) -> Value {
    definition["renames"] = renames;
    definition
}

#[track_caller]
fn create(api: &Client, id: &str, data: Value) -> Response {
    api.post("/models/m/instances", &json!({"id": id, "data": data}))
}

#[track_caller]
fn data(api: &Client, id: &str) -> Value {
    api.get(&format!("/models/m/instances/{id}")).expect(200).json()["data"].clone()
}

fn etag(response: &Response) -> String {
    response.header("etag").expect("an ETag").to_owned()
}

#[test]
fn an_etag_from_before_a_carry_over_does_not_match() {
    let server = Server::start();
    let api = server.client();
    create_model(&api, "m", definition(&["name"], &[]));
    let path = "/models/m/instances/a";
    let before = etag(&create(&api, "a", json!({"name": "x", "other": 1})).expect(201));
    assert_eq!(etag(&api.get(path).expect(200)), before);
    // A change that does not affect the data changes no tag.
    let mut indexed = definition(&["name"], &[]);
    indexed["indexes"] = json!([["name"]]);
    api.put("/models/m", &indexed).expect(200);
    assert_eq!(etag(&api.get(path).expect(200)), before);
    api.request("GET", path).header("If-None-Match", &before).send().expect(304);

    api.put("/models/m", &renaming(definition(&["title"], &[]), json!({"name": "title"}))).expect(200);
    let now = api.request("GET", path).header("If-None-Match", &before).send().expect(200);
    let after = etag(&now);
    assert_ne!(after, before);
    assert_eq!(now.json()["data"], json!({"title": "x", "other": 1}));
    api.request("GET", path).header("If-Match", &before).send().expect_problem(412, "precondition-failed");
    // Writing back the old form would drop the value of the renamed property.
    let old_form = json!({"data": {"name": "x", "other": 2}});
    let problem = api.request("PUT", path).header("If-Match", &before).json(&old_form).send();
    let problem = problem.expect_problem(412, "precondition-failed");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("new version")), "{problem}");
    let patch = api.request("PATCH", path).header("If-Match", &before);
    patch.body("application/merge-patch+json", "{}").send().expect_problem(412, "precondition-failed");
    api.request("DELETE", path).header("If-Match", &before).send().expect_problem(412, "precondition-failed");
    assert_eq!(data(&api, "a"), json!({"title": "x", "other": 1}));
    let written = api.request("PUT", path).header("If-Match", &after).json(&json!({"data": {"title": "y"}})).send();
    let written = etag(&written.expect(200));
    assert_eq!(etag(&api.get(path).expect(200)), written);
    // Filling in a default changes an instance too, but not one that already has the property.
    create(&api, "b", json!({"title": "z", "note": "there"})).expect(201);
    let tags = |id: &str| etag(&api.get(&format!("/models/m/instances/{id}")).expect(200));
    let (a, b) = (tags("a"), tags("b"));
    let mut with_default = definition(&["title", "note"], &[]);
    with_default["schema"]["properties"]["note"]["default"] = json!("none");
    api.put("/models/m", &with_default).expect(200);
    assert_ne!(tags("a"), a);
    assert_eq!(tags("b"), b);
    // The tags are a function of the log.
    let tags_now = (tags("a"), tags("b"));
    api.request("POST", "/rebuild").send().expect(202);
    eventually("the rebuild is done", || (api.get("/rebuild").expect(200).json()["state"] == "done").then_some(()));
    assert_eq!((tags("a"), tags("b")), tags_now);
}

#[test]
fn a_rename_never_overwrites_an_undeclared_value() {
    for (old, new, renames, data, lost) in [
        (&["a"][..], &["b"][..], json!({"a": "b"}), json!({"a": "1", "b": "2"}), Some("b")),
        (&["a"], &["b"], json!({"a": "b"}), json!({"b": "2", "a": "1"}), Some("b")),
        // Null is a value too.
        (&["a"], &["b"], json!({"a": "b"}), json!({"a": "1", "b": null}), Some("b")),
        (&["a", "b"], &["b", "c"], json!({"a": "b", "b": "c"}), json!({"a": "1", "b": "2", "c": "3"}), Some("c")),
        (&["a", "b"], &["b", "c"], json!({"a": "b", "b": "c"}), json!({"a": "1", "c": "3"}), None),
        (&["a"], &["b"], json!({"a": "b"}), json!({"b": "2"}), None),
        (&["a"], &["b"], json!({"a": "b"}), json!({"a": "1", "c": "3"}), None),
    ] {
        let server = Server::start();
        let api = server.client();
        create_model(&api, "m", definition(old, &[]));
        create(&api, "fine", json!({"a": "0"})).expect(201);
        create(&api, "x", data.clone()).expect(201);
        let response = api.put("/models/m", &renaming(definition(new, &[]), renames.clone()));
        match lost {
            None => drop(response.expect(200)),
            Some(lost) => {
                let problem = response.expect_problem(422, "incompatible");
                let rows = problem["errors"].as_array().expect("rows");
                assert_eq!(rows.len(), 1, "{problem}");
                assert_eq!(rows[0]["pointer"], "/instances/x", "{problem}");
                assert!(rows[0]["message"].as_str().expect("text").contains(&format!("`{lost}`")), "{problem}");
                assert_eq!(self::data(&api, "x"), data);
                assert_eq!(api.get("/models/m").expect(200).json()["version"], 1);
                // Once the value in the way is removed, the rename succeeds.
                api.patch("/models/m/instances/x", &json!({lost: null})).expect(200);
                api.put("/models/m", &renaming(definition(new, &[]), renames)).expect(200);
            }
        }
    }
}

#[test]
fn unique_values_change_their_names() {
    for (old, new, renames, unique_before, unique_after) in [
        (
            &["a", "b"][..],
            &["a", "b"][..],
            json!({"a": "b", "b": "a"}),
            &[&["a"][..], &["b"]][..],
            &[&["a"][..], &["b"]][..],
        ),
        (&["a", "b"], &["b", "c"], json!({"a": "b", "b": "c"}), &[&["a"], &["b"]], &[&["b"], &["c"]]),
        (&["a", "b"], &["b", "a"], json!({"a": "b", "b": "a"}), &[&["a", "b"]], &[&["a", "b"]]),
        (&["a", "b"], &["a", "b"], json!({"a": "b", "b": "a"}), &[&["a"]], &[&["b"]]),
        (&["a", "b"], &["a", "b"], json!({"a": "b", "b": "a"}), &[&["a"]], &[&["a"]]),
    ] {
        let server = Server::start();
        let api = server.client();
        create_model(&api, "m", definition(old, unique_before));
        // Each instance has the other's values, swapped.
        create(&api, "x", json!({"a": "1", "b": "2"})).expect(201);
        create(&api, "y", json!({"a": "2", "b": "1"})).expect(201);
        create(&api, "z", json!({"a": "3"})).expect(201);
        let next = renaming(definition(new, unique_after), renames.clone());
        let model = api.put("/models/m", &next).expect(200).json();
        assert_eq!(model["version"], 2, "{renames}");
        let renamed = |name: &str| renames[name].as_str().expect("a new name").to_owned();
        assert_eq!(data(&api, "x"), json!({renamed("a"): "1", renamed("b"): "2"}), "{renames}");
        assert_eq!(data(&api, "z"), json!({renamed("a"): "3"}), "{renames}");
        // The values are still unique, and released values are free.
        let lists = model["unique"].as_array().expect("lists");
        for list in lists {
            let mut twin = serde_json::Map::new();
            for name in list.as_array().expect("names") {
                twin.insert(
                    name.as_str().expect("a name").to_owned(),
                    data(&api, "x")[name.as_str().expect("a name")].clone(),
                );
            }
            let problem = create(&api, "twin", Value::Object(twin.clone())).expect_problem(409, "not-unique");
            let pointer = format!("/data/{}", list[0].as_str().expect("a name"));
            assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
        }
        let values = data(&api, "x");
        api.delete("/models/m/instances/x").expect(204);
        create(&api, "again", values).expect(201);
    }
}

#[test]
fn a_unique_list_comes_and_goes() {
    const COUNT: usize = 1500;
    let server = Server::start();
    let api = server.client();
    create_model(&api, "m", definition(&["a", "b"], &[]));
    let mut lines: Vec<String> = (0..COUNT)
        .map(|number| json!({"id": format!("i{number}"), "data": {"a": format!("v{number}"), "b": "same"}}).to_string())
        .collect();
    lines.push(json!({"id": "twin", "data": {"a": "v7"}}).to_string());
    let import = api.request("POST", "/models/m/import").body("application/x-ndjson", lines.join("\n"));
    assert_eq!(import.send().expect(200).json()["created"], COUNT + 1);
    let unique = definition(&["a", "b"], &[&["a"]]);
    for _ in 0..2 {
        let problem = api.put("/models/m", &unique).expect_problem(422, "incompatible");
        let rows = problem["errors"].as_array().expect("rows");
        assert!(
            rows.len() == 1 && problem.to_string().contains("twin") && problem.to_string().contains("i7"),
            "{problem}"
        );
        let dry = api.put("/models/m?dry-run=true", &unique);
        dry.expect_problem(422, "incompatible");
    }
    // A rejected change leaves nothing behind: its other values are still free, checked twice.
    create(&api, "more", json!({"a": "v8"})).expect(201);
    for id in ["twin", "more"] {
        api.delete(&format!("/models/m/instances/{id}")).expect(204);
    }
    api.put("/models/m", &unique).expect(200);
    let problem = create(&api, "twin", json!({"a": "v7"})).expect_problem(409, "not-unique");
    assert!(problem.to_string().contains("m/i7"), "{problem}");
    api.patch("/models/m/instances/i7", &json!({"a": "other"})).expect(200);
    create(&api, "free", json!({"a": "v7"})).expect(201);
    // Removed and added again: only the current values count.
    api.put("/models/m", &definition(&["a", "b"], &[])).expect(200);
    create(&api, "twin", json!({"a": "v9"})).expect(201);
    api.put("/models/m", &unique).expect_problem(422, "incompatible");
    api.patch("/models/m/instances/i9", &json!({"a": "ninth"})).expect(200);
    api.put("/models/m", &unique).expect(200);
    create(&api, "v9", json!({"a": "v9"})).expect_problem(409, "not-unique");
    // A default may complete a list.
    let mut filled = definition(&["a", "b", "c"], &[&["a"], &["b", "c"]]);
    filled["schema"]["properties"]["c"]["default"] = json!("none");
    let problem = api.put("/models/m", &filled).expect_problem(422, "incompatible");
    assert_eq!(problem["errors"].as_array().expect("rows").len(), 20, "{problem}");
}

#[test]
fn changes_of_one_model_follow_each_other() {
    let server = Server::start();
    let api = server.client();
    create_model(&api, "m", definition(&["a"], &[]));
    for number in 0..50 {
        create(&api, &format!("i{number}"), json!({"a": format!("{number}")})).expect(201);
    }
    for round in 0..6 {
        let model = api.get("/models/m").expect(200);
        let (tag, version) = (etag(&model), model.json()["version"].as_u64().expect("a version"));
        // With the tag, one of them succeeds.
        let responses = at_once(&server, CLIENTS, |number, api| {
            let name = format!("p{round}x{number}");
            let next = definition(&["a", &name], &[&["a"]]);
            api.request("PUT", "/models/m").header("If-Match", &tag).json(&next).send()
        });
        let won = responses.iter().filter(|response| response.status == 200).count();
        assert_eq!(won, 1, "{:?}", responses.iter().map(|response| response.status).collect::<Vec<_>>());
        assert_eq!(api.get("/models/m").expect(200).json()["version"], version + 1);
        // Without it, all of them succeed one after another, including hook changes.
        let responses = at_once(&server, CLIENTS, |number, api| match number % 2 {
            0 => api.put("/models/m", &definition(&["a", &format!("q{round}x{number}")], &[])),
            _ => api.put_javascript(
                "m",
                "preCreate",
                &format!("export const preCreate = () => {{ /* {round} {number} */ }}"),
            ),
        });
        let statuses: Vec<u16> = responses.iter().map(|response| response.status).collect();
        assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
        let versions: BTreeSet<u64> =
            responses.iter().filter_map(|response| response.json()["version"].as_u64()).collect();
        assert_eq!(versions.len(), CLIENTS / 2, "{versions:?}");
        assert_eq!(api.get("/models/m").expect(200).json()["version"], version + 1 + CLIENTS as u64);
    }
    // The log contains each version once, in order.
    let events = api.get("/events?model=m&type=model.updated&limit=1000").expect(200).json();
    let versions: Vec<u64> = events["items"]
        .as_array()
        .expect("events")
        .iter()
        .filter_map(|event| event["model_version"].as_u64())
        .collect();
    assert!(versions.is_sorted_by(|a, b| a < b), "{versions:?}");
}

#[test]
fn deletion_and_other_changes_exclude_each_other() {
    let server = Server::start();
    let api = server.client();
    for _ in 0..5 {
        create_model(&api, "m", definition(&["a"], &[&["a"]]));
        for number in 0..60 {
            create(&api, &format!("i{number}"), json!({"a": format!("{number}")})).expect(201);
        }
        let over = AtomicBool::new(false);
        let responses = at_once(&server, CLIENTS, |number, api| {
            let mut counts: BTreeMap<u16, usize> = BTreeMap::new();
            let mut note = |response: Response| *counts.entry(response.status).or_default() += 1;
            match number {
                0 => {
                    let deleted = api.delete("/models/m?cascade=true");
                    over.store(true, Ordering::Relaxed);
                    note(deleted.expect(204));
                }
                1 => note(api.put_javascript("m", "postDelete", "export const postDelete = () => {}")),
                2 => note(api.put("/models/m", &renaming(definition(&["b"], &[&["b"]]), json!({"a": "b"})))),
                _ => {
                    for step in 0.. {
                        if over.load(Ordering::Relaxed) {
                            break;
                        }
                        note(create(api, &format!("n{number}x{step}"), json!({"a": format!("n{number}x{step}")})));
                    }
                }
            }
            counts
        });
        for counts in &responses {
            assert!(counts.keys().all(|status| matches!(status, 200 | 201 | 204 | 404 | 409 | 503)), "{responses:?}");
        }
        api.get("/models/m").expect_problem(404, "not-found");
        // Nothing of it is left: no instances and no claimed values.
        create_model(&api, "m", definition(&["a", "b"], &[&["a"], &["b"]]));
        assert_eq!(api.get("/models/m/instances?count=true").expect(200).json()["count"], 0);
        for number in 0..60 {
            create(&api, &format!("i{number}"), json!({"a": format!("{number}"), "b": format!("{number}")}))
                .expect(201);
        }
        api.delete("/models/m?cascade=true").expect(204);
    }
}

#[test]
fn writes_go_on_beside_changes_of_their_model() {
    let server = Server::start();
    let api = server.client();
    create_model(&api, "m", definition(&["a", "b"], &[&["a"]]));
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|number| {
                let (api, over) = (server.client(), &over);
                scope.spawn(move || {
                    let mut last = BTreeMap::new();
                    for step in 0.. {
                        if over.load(Ordering::Relaxed) {
                            return last;
                        }
                        let (id, value) = (format!("w{number}x{}", step % 40), format!("w{number}x{step}"));
                        let request = api.request("PUT", &format!("/models/m/instances/{id}"));
                        let body = json!({"data": {"a": value, "b": "1"}});
                        let response = match step < 40 {
                            true => request.header("If-None-Match", "*").json(&body).send(),
                            false => request.json(&body).send(),
                        };
                        assert!(matches!(response.status, 200 | 201), "{}", response.text());
                        last.insert(id, value);
                    }
                    last
                })
            })
            .collect();
        for round in 0..30 {
            let mut next = definition(&["a", "b"], if round % 3 == 0 { &[&["a"], &["a", "b"]] } else { &[&["a"]] });
            next["indexes"] = if round % 2 == 0 { json!([["b", "-a"]]) } else { json!([]) };
            if round % 5 == 4 {
                // A property that every instance must get.
                next["schema"]["properties"][format!("d{round}")] = json!({"type": "integer", "default": round});
            }
            api.put("/models/m", &next).expect(200);
        }
        over.store(true, Ordering::Relaxed);
        for writer in writers {
            for (id, value) in writer.join().expect("a writer") {
                assert_eq!(data(&api, &id)["a"], value, "{id}");
            }
        }
    });
    // The model store matches the log.
    let all = || api.get("/models/m/instances?limit=1000").expect(200).json();
    let before = all();
    api.request("POST", "/rebuild").send().expect(202);
    eventually("the rebuild is done", || (api.get("/rebuild").expect(200).json()["state"] == "done").then_some(()));
    assert_eq!(all(), before);
}
