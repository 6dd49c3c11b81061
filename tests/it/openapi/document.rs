//! The document itself: what each reader sees, how it is cached, and its limits.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{create_models, models, start_with_tokens};
use crate::support::{Client, Response, Server, ServerOptions, at_once, create_orders};

fn ask(api: &Client, token: &str, path: &str) -> Response {
    api.request("GET", path).header("Authorization", &format!("Bearer {token}")).send()
}

/// The models for which a document has paths.
fn shown(document: &Value) -> BTreeSet<&str> {
    let paths = document["paths"].as_object().expect("paths").keys();
    let ids = paths.filter_map(|path| path.strip_prefix("/models/")?.strip_suffix("/instances"));
    ids.filter(|id| !id.starts_with('{')).collect()
}

#[test]
fn each_model_has_its_paths_and_its_schema() {
    let server = Server::start_with(ServerOptions { mount_path: "/api", ..ServerOptions::default() });
    let api = server.client();
    for model in models() {
        api.post("/models", &model).expect(201);
    }
    let document = api.get("/openapi.json").expect(200).json();
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["servers"], json!([{"url": "/api"}]));
    assert_eq!(shown(&document), BTreeSet::from(["constructor", "old", "order", "tree-1"]));
    assert_eq!(document["x-snaphook-models"], json!({"shown": 4, "left_out": 0, "next": null}));
    let schemas = &document["components"]["schemas"];
    let mut order = crate::support::order_schema();
    assert_eq!(schemas["order.data"], order.take());
    assert_eq!(schemas["old.data"]["properties"]["size"], json!({"type": "number", "exclusiveMinimum": 0}));
    assert_eq!(
        schemas["old.data"]["properties"]["pair"]["prefixItems"],
        json!([{"type": "string"}, {"type": "integer"}])
    );
    assert_eq!(schemas["old.data"]["properties"]["same"], json!({"$ref": "#/components/schemas/old.data.short"}));
    assert_eq!(
        schemas["tree-1.data.no_de"]["properties"]["next"],
        json!({"$ref": "#/components/schemas/tree-1.data.no_de"})
    );
    assert!(schemas["constructor.data"].get("discriminator").is_none(), "{}", schemas["constructor.data"]);
    // The instances that refer to this one belong to another model, so this document's schema does not describe them.
    assert!(document["paths"].get("/models/order/instances/{id}/referring/{other}").is_none());
    assert!(document["paths"].get("/models/{model}/instances/{id}/referring/{other}").is_some());
    for instance in [&schemas["order"], &schemas["order.page"]["properties"]["items"]["items"]] {
        assert_eq!(instance["properties"]["expand"], json!({"$ref": "#/components/schemas/Expanded"}));
    }
    // The filters of a list, an example that the server accepts, and links to the created instance.
    let list = &document["paths"]["/models/order/instances"]["get"]["parameters"];
    let names: Vec<&str> = list.as_array().expect("some").iter().filter_map(|one| one["name"].as_str()).collect();
    assert!(names.contains(&"filter[total][gte]") && names.contains(&"filter[$created_at][lt]"), "{names:?}");
    let create = &document["paths"]["/models/order/instances"]["post"];
    let example = &create["requestBody"]["content"]["application/json"]["example"];
    api.post("/models/order/instances", example).expect(201);
    assert_eq!(create["operationId"], "createInstance_order");
    assert_eq!(create["responses"]["201"]["links"]["get"]["operationId"], "getInstance_order");
    let refused = create["responses"]["422"]["$ref"].as_str().expect("a reference").trim_start_matches('#');
    let refused = document.pointer(refused).expect("a response");
    let types = &refused["content"]["application/problem+json"]["schema"]["properties"]["type"]["enum"];
    assert_eq!(
        *types,
        json!(["/problems/idempotency-key-reused", "/problems/invalid", "/problems/rejected", "/problems/too-complex"])
    );
}

#[test]
fn it_shows_what_its_reader_may_read() {
    let (server, admin) = start_with_tokens("/");
    let api = server.client();
    create_models(&api, &admin);
    let made = api.request("POST", "/tokens").header("Authorization", &format!("Bearer {admin}"));
    let made = made.json(&json!({"name": "shop", "role": "reader", "models": ["ord*"]})).send().expect(201).json();
    let shop = made["token"].as_str().expect("a token");
    let nobody = api.get("/openapi.json").expect(200);
    assert!(shown(&nobody.json()).is_empty());
    assert!(!nobody.text().contains("tree-1"));
    let of_shop = ask(&api, shop, "/openapi.json").expect(200);
    assert_eq!(shown(&of_shop.json()), BTreeSet::from(["order"]));
    assert!(!of_shop.text().contains("tree-1"));
    assert_eq!(shown(&ask(&api, &admin, "/openapi.json").expect(200).json()).len(), 4);
    assert!(shown(&ask(&api, shop, "/openapi.json?model=tree-1").expect(200).json()).is_empty());
    // A caller's tag is useless to another caller, and an invalid token is rejected.
    let tag = of_shop.header("etag").expect("a tag");
    assert_ne!(Some(tag), nobody.header("etag"));
    api.request("GET", "/openapi.json").header("If-None-Match", tag).send().expect(200);
    ask(&api, "nonsense", "/openapi.json").expect_problem(401, "unauthorized");
    assert_eq!(of_shop.header("vary"), Some("authorization"));
    assert_eq!(of_shop.header("cache-control"), Some("private, no-cache"));
}

#[test]
fn it_is_cached_until_a_model_changes() {
    let server = Server::start();
    let api = server.client();
    create_orders(&api, "order");
    let first = api.get("/openapi.json").expect(200);
    let tag = first.header("etag").expect("a tag").to_owned();
    let again = |tag: &str| api.request("GET", "/openapi.json").header("If-None-Match", tag).send();
    assert!(again(&tag).expect(304).body.is_empty());
    again(&format!("\"other\", W/{tag}")).expect(304);
    again("*").expect(304);
    again("\"other\"").expect(200);
    // Concurrent requests get the same document.
    let all = at_once(&server, 8, |_, api| api.get("/openapi.json").expect(200).body);
    assert!(all.iter().all(|body| *body == first.body));
    api.post("/models/order/instances", &json!({"data": {"name": "x"}})).expect(201);
    again(&tag).expect(304);
    api.put("/models/order", &json!({"schema": {"type": "object", "properties": {"name": {"type": "string"}}}}))
        .expect(200);
    let changed = again(&tag).expect(200);
    assert_ne!(changed.header("etag"), Some(&*tag));
    assert_eq!(
        changed.json()["components"]["schemas"]["order.data"]["properties"],
        json!({"name": {"type": "string"}})
    );
    api.delete("/models/order?cascade=true").expect(204);
    let gone = again(changed.header("etag").expect("a tag")).expect(200);
    assert!(shown(&gone.json()).is_empty());
    // A recreated model is another model, although its version is 1 again.
    create_orders(&api, "order");
    again(&tag).expect(200);
    let head = api.request("HEAD", "/openapi.json").send().expect(200);
    let length = api.get("/openapi.json").expect(200).body.len().to_string();
    assert_eq!(head.header("content-length"), Some(&*length));
}

#[test]
fn many_and_large_models_come_in_parts() {
    let server = Server::start();
    let api = server.client();
    let schema = |bytes: usize| {
        let text = "x".repeat(bytes / 100);
        let properties: serde_json::Map<String, Value> =
            (0..100).map(|n| (format!("p{n}"), json!({"type": "string", "description": text}))).collect();
        json!({"type": "object", "properties": properties})
    };
    for number in 10..32 {
        api.post("/models", &json!({"id": format!("m{number}"), "schema": schema(230_000)})).expect(201);
    }
    api.post("/models", &json!({"id": "whale", "schema": schema(900_000)})).expect(201);
    let first = api.get("/openapi.json").expect(200);
    assert!(first.body.len() < 5 << 20, "{} bytes", first.body.len());
    let mut seen = BTreeSet::new();
    let mut path = "/openapi.json".to_owned();
    let mut parts = 0;
    loop {
        let document = api.get(&path).expect(200).json();
        seen.extend(shown(&document).into_iter().map(str::to_owned));
        parts += 1;
        match document["x-snaphook-models"]["next"].as_str() {
            Some(next) => path = format!("/openapi.json?after={next}"),
            None => break,
        }
    }
    assert_eq!((seen.len(), parts), (23, 2));
    let some = api.get("/openapi.json?model=m1*,whale").expect(200).json();
    assert_eq!(shown(&some).len(), 11);
    let whale = &some["components"]["schemas"]["whale.data"];
    assert!(whale.get("properties").is_none() && whale["description"].as_str().is_some(), "{whale}");
    for bad in ["?model=", "?after=A", "?after=m1&after=m2", "?version=1", &format!("?model={}", "x".repeat(1001))] {
        api.get(&format!("/openapi.json{bad}")).expect_problem(400, "bad-request");
    }
}
