//! References: `x-references`, `expand` and `referring`, as clients see them.

use serde_json::{Value, json};

use crate::support::{Client, Response, Server, ServerOptions, at_once};

fn to(model: &str, on_delete: &str) -> Value {
    json!({"type": ["string", "null"], "x-references": {"model": model, "on-delete": on_delete}})
}

fn schema(properties: Value) -> Value {
    json!({"type": "object", "properties": properties})
}

fn make(api: &Client, model: &str, id: &str, data: Value) {
    api.post(&format!("/models/{model}/instances"), &json!({"id": id, "data": data})).expect(201);
}

/// Countries, customers that live in one, and orders of a customer, optionally as a gift for another.
fn shop(api: &Client) {
    for (id, properties) in [
        ("country", json!({"name": {}})),
        ("customer", json!({"name": {}, "country": to("country", "set-null")})),
        (
            "order",
            json!({"total": {"type": "number"}, "customer": to("customer", "restrict"), "gift": to("customer", "cascade")}),
        ),
    ] {
        api.post("/models", &json!({"id": id, "schema": schema(properties)})).expect(201);
    }
    make(api, "country", "fr", json!({"name": "France"}));
    make(api, "customer", "ada", json!({"name": "Ada", "country": "fr"}));
    make(api, "customer", "bob", json!({"name": "Bob"}));
    for n in 0..5 {
        let gift = if n == 4 { json!("bob") } else { Value::Null };
        make(api, "order", &format!("o{n}"), json!({"total": n, "customer": "ada", "gift": gift}));
    }
    make(api, "order", "free", json!({"total": 9}));
}

#[track_caller]
fn pointers(response: Response, status: u16, kind: &str) -> Vec<String> {
    let problem = response.expect_problem(status, kind);
    let rows = problem["errors"].as_array().cloned().unwrap_or_default();
    rows.iter().map(|row| row["pointer"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn writes_and_deletions() {
    let server = Server::start();
    let api = server.client();
    shop(&api);
    let order = |data: Value| api.post("/models/order/instances", &json!({ "data": data }));
    assert_eq!(pointers(order(json!({"customer": "eve"})), 422, "invalid"), ["/data/customer"]);
    assert_eq!(
        pointers(order(json!({"customer": "../ada", "gift": "x"})), 422, "invalid"),
        ["/data/customer", "/data/gift"]
    );
    let patched = api.patch("/models/order/instances/o1", &json!({"customer": "eve"}));
    assert_eq!(pointers(patched, 422, "invalid"), ["/customer"]);
    let problem = api.delete("/models/customer/instances/ada").expect_problem(409, "referenced");
    let detail = problem["detail"].as_str().expect("a detail");
    assert!(detail.contains("`order`") && detail.contains("`customer`"), "{detail}");
    api.delete("/models/customer").expect_problem(409, "referenced");
    api.delete("/models/customer?cascade=true").expect_problem(409, "referenced");
    // Bob's order is deleted with him; when Ada's country is deleted, her reference is cleared.
    api.delete("/models/customer/instances/bob").expect(204);
    api.get("/models/order/instances/o4").expect_problem(404, "not-found");
    let history = api.get("/models/order/instances/o4/events").expect(200).json();
    let cause = &history["items"][1]["cause"];
    assert_eq!((cause["hook"].as_str(), cause["depth"].as_u64()), (Some("customer.on-delete/cascade"), Some(1)));
    api.delete("/models/country/instances/fr").expect(204);
    let ada = api.get("/models/customer/instances/ada").expect(200).json();
    assert_eq!(ada["data"], json!({"name": "Ada", "country": null}));
    // A batch is checked in its final state.
    let both = |operations: Value| api.post("/batch", &json!({ "operations": operations }));
    let problem = both(json!([{"op": "delete", "model": "customer", "id": "ada"}])).expect_problem(409, "referenced");
    assert_eq!(problem["errors"][0]["pointer"], "/operations/0");
    both(json!([
        {"op": "create", "model": "customer", "id": "cy", "data": {}},
        {"op": "create", "model": "order", "id": "c1", "data": {"customer": "cy"}},
    ]))
    .expect(200);
    both(json!([
        {"op": "delete", "model": "customer", "id": "cy"},
        {"op": "delete", "model": "order", "id": "c1"},
    ]))
    .expect(200);
    // Lines of an import may refer to earlier ones.
    let folder = schema(json!({"parent": to("folder", "restrict")}));
    api.post("/models", &json!({"id": "folder", "schema": folder})).expect(201);
    let lines: Vec<String> = (0..50)
        .map(|n| {
            let parent = if n == 0 { Value::Null } else { json!(format!("f{}", n - 1)) };
            json!({"id": format!("f{n}"), "data": {"parent": parent}}).to_string()
        })
        .chain([json!({"id": "lost", "data": {"parent": "nowhere"}}).to_string()])
        .collect();
    let request = api.request("POST", "/models/folder/import").body("application/x-ndjson", lines.join("\n"));
    let report = request.send().expect(200).json();
    assert_eq!((report["created"].as_u64(), report["failed"].as_u64()), (Some(50), Some(1)), "{report}");
    assert_eq!(report["errors"][0]["errors"][0]["pointer"], "/data/parent", "{report}");
}

#[test]
fn what_instances_refer_to_is_shown_with_them() {
    let server = Server::start();
    let api = server.client();
    shop(&api);
    let order = api.get("/models/order/instances/o4?expand=customer.country,gift").expect(200);
    let tag = order.header("etag").expect("a tag").to_owned();
    let order = order.json();
    assert_eq!(order["expand"]["customer"]["data"]["name"], "Ada");
    assert_eq!(order["expand"]["customer"]["expand"]["country"]["data"]["name"], "France");
    assert_eq!(order["expand"]["gift"]["id"], "bob");
    assert!(order["expand"]["gift"].get("expand").is_none());
    let page =
        api.get("/models/order/instances?expand=customer,gift&sort=total&fields=total&count=true").expect(200).json();
    assert_eq!(page["count"], 6);
    let items = page["items"].as_array().expect("items");
    let names: Vec<&Value> = items.iter().map(|item| &item["expand"]["customer"]["data"]["name"]).collect();
    assert_eq!(names, [&json!("Ada"), &json!("Ada"), &json!("Ada"), &json!("Ada"), &json!("Ada"), &Value::Null]);
    assert_eq!(items[0]["data"], json!({"total": 0}));
    assert_eq!(
        (&items[5]["expand"], &items[4]["expand"]["gift"]["id"]),
        (&json!({"customer": null, "gift": null}), &json!("bob"))
    );
    for bad in ["nothing", "total", "customer.name", "customer.country.name", "", ",", "customer,", "gift.gift", "%00"]
    {
        api.get(&format!("/models/order/instances?expand={bad}")).expect_problem(400, "bad-request");
        api.get(&format!("/models/order/instances/o1?expand={bad}")).expect_problem(400, "bad-request");
    }
    api.get("/models/order/instances/o1?expand=customer&at=1").expect_problem(400, "bad-request");
    // The tag covers everything that the response shows.
    let path = "/models/order/instances/o4?expand=customer.country,gift";
    let again = || api.request("GET", path).header("If-None-Match", &tag).send();
    again().expect(304);
    api.patch("/models/country/instances/fr", &json!({"name": "Frankreich"})).expect(200);
    let order = again().expect(200);
    assert_eq!(order.json()["expand"]["customer"]["expand"]["country"]["data"]["name"], "Frankreich");
    let plain = api.get("/models/order/instances/o4").expect(200).header("etag").expect("a tag").to_owned();
    assert_ne!(plain, order.header("etag").expect("a tag"));
    // For a write only the instance part of the tag counts.
    let patch = |text: &str| {
        let request = api.request("PATCH", "/models/order/instances/o4").header("If-Match", &tag);
        request.body("application/merge-patch+json", text).send()
    };
    patch(r#"{"total":7}"#).expect(200);
    patch(r#"{"total":8}"#).expect_problem(412, "precondition-failed");
}

/// The same instance may appear on several levels.
#[test]
fn each_level_shows_what_is_asked_of_it() {
    let server = Server::start();
    let api = server.client();
    let folder = schema(json!({"parent": to("folder", "restrict")}));
    api.post("/models", &json!({"id": "folder", "schema": folder})).expect(201);
    for n in 0..5 {
        let parent = if n == 0 { Value::Null } else { json!(format!("f{}", n - 1)) };
        make(&api, "folder", &format!("f{n}"), json!({"parent": parent}));
    }
    let page = api.get("/models/folder/instances?expand=parent.parent").expect(200).json();
    let shown: Vec<(Value, Value)> = page["items"]
        .as_array()
        .expect("items")
        .iter()
        .map(|item| {
            let parent = &item["expand"]["parent"];
            (parent["id"].clone(), parent["expand"]["parent"]["id"].clone())
        })
        .collect();
    let id = |n: i32| if n < 0 { Value::Null } else { json!(format!("f{n}")) };
    assert_eq!(shown, (0..5).map(|n| (id(n - 1), id(n - 2))).collect::<Vec<_>>());
}

#[test]
fn who_refers_to_an_instance() {
    let server = Server::start();
    let api = server.client();
    shop(&api);
    let path = "/models/customer/instances/ada/referring/order";
    api.get(path).expect_problem(400, "bad-request");
    let page = api
        .get(&format!("{path}?via=customer&limit=3&sort=-total&count=true&expand=customer&fields=total"))
        .expect(200)
        .json();
    let ids = |page: &Value| -> Vec<String> {
        page["items"]
            .as_array()
            .expect("items")
            .iter()
            .map(|item| item["id"].as_str().expect("an id").to_owned())
            .collect()
    };
    assert_eq!(
        (ids(&page), page["count"].as_u64()),
        (vec!["o4".to_owned(), "o3".to_owned(), "o2".to_owned()], Some(5))
    );
    assert_eq!(page["items"][0]["expand"]["customer"]["id"], "ada");
    let next = page["next"].as_str().expect("a cursor");
    let rest = api.get(&format!("{path}?via=customer&limit=3&sort=-total&cursor={next}")).expect(200).json();
    assert_eq!(ids(&rest), ["o1", "o0"]);
    let some = api.get(&format!("{path}?via=customer&filter[total][lt]=2")).expect(200).json();
    assert_eq!(ids(&some), ["o0", "o1"]);
    assert_eq!(ids(&api.get(&format!("{path}?via=gift")).expect(200).json()), [""; 0]);
    // With a single reference its name is optional.
    let live = api.get("/models/country/instances/fr/referring/customer").expect(200).json();
    assert_eq!(ids(&live), ["ada"]);
    api.get(&format!("{path}?via=total")).expect_problem(400, "bad-request");
    api.get("/models/customer/instances/ada/referring/country").expect_problem(400, "bad-request");
    api.get("/models/customer/instances/ada/referring/nothing").expect_problem(404, "not-found");
    api.get("/models/customer/instances/nobody/referring/order?via=gift").expect_problem(404, "not-found");
}

#[test]
fn tokens_of_some_models_see_no_others() {
    let server = Server::start_with(ServerOptions { auth: "mode = 'tokens'", ..ServerOptions::default() });
    let api = server.client();
    let text = std::fs::read_to_string(server.directory().join("data/admin.token")).expect("the first token");
    let bearer = |token: &str| format!("Bearer {}", token.trim());
    let send = |token: &str, method: &str, path: &str, body: &Value| {
        api.request(method, path).header("Authorization", &bearer(token)).json(body).send()
    };
    for (id, properties) in [("customer", json!({})), ("order", json!({"customer": to("customer", "restrict")}))] {
        send(&text, "POST", "/models", &json!({"id": id, "schema": schema(properties)})).expect(201);
    }
    send(&text, "POST", "/models/customer/instances", &json!({"id": "c", "data": {}})).expect(201);
    send(&text, "POST", "/models/order/instances", &json!({"id": "o", "data": {"customer": "c"}})).expect(201);
    let token = |model: &str, role: &str| {
        let body = json!({"name": format!("{model}-{role}"), "role": role, "models": [model]});
        send(&text, "POST", "/tokens", &body).expect(201).json()["token"].as_str().expect("a token").to_owned()
    };
    let get = |token: &str, path: &str| api.request("GET", path).header("Authorization", &bearer(token)).send();
    let (orders, customers) = (token("order", "reader"), token("customer", "reader"));
    assert_eq!(
        get(&text, "/models/order/instances/o?expand=customer").expect(200).json()["expand"]["customer"]["id"],
        "c"
    );
    for path in ["/models/order/instances/o?expand=customer", "/models/order/instances?expand=customer"] {
        let seen = get(&orders, path).expect(200).json();
        let seen = seen["items"].get(0).unwrap_or(&seen);
        assert_eq!(seen["expand"], json!({"customer": null}), "{path}");
    }
    // They do not learn what the other model refers to either.
    for below in ["customer.country", "customer.nothing"] {
        let seen = get(&orders, &format!("/models/order/instances/o?expand={below}")).expect(200).json();
        assert_eq!(seen["expand"], json!({"customer": null}), "{below}");
    }
    get(&orders, "/models/customer/instances/c/referring/order").expect_problem(403, "forbidden");
    get(&customers, "/models/customer/instances/c/referring/order").expect_problem(403, "forbidden");
    // Only clients that may read the instances that prevent a deletion are told about them.
    let writer = token("customer", "writer");
    let path = "/models/customer/instances/c";
    let batch = json!({"operations": [{"op": "delete", "model": "customer", "id": "c"}]});
    for (token, is_told) in [(&text, true), (&writer, false)] {
        let delete = |path: &str| api.request("DELETE", path).header("Authorization", &bearer(token)).send();
        for (response, row) in [
            (delete(path), ""),
            (delete(&format!("{path}?dry-run=true")), ""),
            (send(token, "POST", "/batch", &batch), "/operations/0"),
        ] {
            let problem = response.expect_problem(409, "referenced");
            assert_eq!(problem.to_string().contains("order"), is_told, "{problem}");
            assert_eq!(problem["errors"][0]["pointer"].as_str().unwrap_or_default(), row, "{problem}");
        }
    }
    let cascade = schema(json!({"customer": to("customer", "cascade")}));
    send(&text, "PUT", "/models/order", &json!({ "schema": cascade })).expect(200);
    for (token, follows) in [(&text, json!([{"model": "order", "deleted": 1, "updated": 0}])), (&writer, json!([]))] {
        let path = format!("{path}?dry-run=true");
        let trial = api.request("DELETE", &path).header("Authorization", &bearer(token)).send().expect(200).json();
        assert_eq!(trial.get("follows").unwrap_or(&json!([])), &follows, "{trial}");
    }
}

/// Over HTTP, on each embedded store, and after a kill: no order refers to a deleted customer.
#[test]
fn nothing_refers_to_what_is_gone() {
    for driver in ["sqlite", "memory", "file"] {
        let settings = match driver {
            "file" => "driver = 'file'\npath = 'data/files/event'".to_owned(),
            _ => format!("driver = '{driver}'"),
        };
        let config = format!("[driver-event-storage]\n{settings}\n");
        let server = Server::start_with(ServerOptions { tables: config, ..ServerOptions::default() });
        let api = server.client();
        api.post("/models", &json!({"id": "customer", "schema": schema(json!({}))})).expect(201);
        let order = schema(json!({"customer": to("customer", "restrict")}));
        api.post("/models", &json!({"id": "order", "schema": order})).expect(201);
        at_once(&server, 8, |task, api| {
            for round in 0..25 {
                let id = format!("c{}", round % 2);
                let response = match task % 4 {
                    0 => api.post("/models/customer/instances", &json!({"id": id, "data": {}})),
                    1 => api.delete(&format!("/models/customer/instances/{id}")),
                    _ if round % 5 == 4 => api.delete(&format!("/models/order/instances/o{task}-{}", round - 4)),
                    _ => {
                        let order = json!({"id": format!("o{task}-{round}"), "data": {"customer": id}});
                        api.post("/models/order/instances", &order)
                    }
                };
                assert!(
                    matches!(response.status, 201 | 204 | 404 | 409 | 422),
                    "{}: {}",
                    response.status,
                    response.text()
                );
            }
        });
        // Data in memory does not survive its process.
        let server = if driver == "memory" { server } else { server.kill_and_restart() };
        let orders = server.client().get("/models/order/instances?limit=1000&expand=customer").expect(200).json();
        for order in orders["items"].as_array().expect("items") {
            assert!(order["expand"]["customer"].is_object(), "{driver}: {order}");
        }
    }
}
