//! Lists of instances: filters, order, pages, fields.

use serde_json::{Value, json};

use crate::support::{Client, Server};

const LIST: &str = "/models/item/instances";

/// Five items with odd values and names.
fn start() -> Server {
    let server = Server::start();
    let api = server.client();
    let schema = json!({"type": "object", "properties": {
        "name": {"type": ["string", "null"]},
        "total": {"type": ["number", "null"]},
        "count": {"type": "integer"},
        "paid": {"type": "boolean"},
        "US Gross": {"type": "number"},
        "any": {},
        "customer": {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}},
        "tags": {"type": "array"},
    }});
    let model = json!({"id": "item", "schema": schema, "indexes": [["total"], ["-count", "name"]]});
    api.post("/models", &model).expect(201);
    for (id, data) in [
        (
            "a",
            json!({"name": "Apple", "total": 10, "count": 1, "paid": true, "US Gross": 1, "customer": {"name": "Zoe", "age": 30}}),
        ),
        (
            "b",
            json!({"name": "banana", "total": 9.5, "count": 2, "paid": false, "US Gross": 2, "customer": {"name": "Yan"}}),
        ),
        ("c", json!({"name": "Cherry_%", "total": 100, "count": 2, "customer": {"age": 7}})),
        ("d", json!({"name": null, "total": null, "count": 3, "any": 5})),
        ("e", json!({"name": "äpfel", "total": -1, "any": "5"})),
    ] {
        api.post(LIST, &json!({"id": id, "data": data})).expect(201);
    }
    server
}

#[track_caller]
fn ids(api: &Client, query: &str) -> String {
    let page = api.get(&format!("{LIST}?{query}")).expect(200).json();
    page["items"].as_array().expect("items").iter().map(|item| item["id"].as_str().expect("an id")).collect()
}

#[test]
fn filters() {
    let server = start();
    let api = server.client();
    for (query, expected) in [
        ("", "abcde"),
        ("filter[total][eq]=10", "a"),
        ("filter[total][eq]=10.0", "a"),
        ("filter[total][ne]=10", "bce"),
        ("filter[total][lt]=10", "be"),
        ("filter[total][lte]=10", "abe"),
        ("filter[total][gt]=9.5", "ac"),
        ("filter[total][gte]=9.5", "abc"),
        ("filter[total][gte]=9.5&filter[total][lt]=100", "ab"),
        ("filter[count][in]=1,3", "ad"),
        ("filter[count][nin]=1,3", "bc"),
        ("filter[paid][eq]=true", "a"),
        ("filter[paid][eq]=false", "b"),
        ("filter[paid][exists]=false", "cde"),
        ("filter[name][exists]=true", "abce"),
        ("filter[name][exists]=false", "d"),
        ("filter[name][eq]=Apple", "a"),
        ("filter[name][eq]=apple", ""),
        ("filter[name][gt]=Z", "be"),
        ("filter[name][like]=%25an%25", "b"),
        ("filter[name][like]=a%25", ""),
        ("filter[name][like]=_pple", "a"),
        ("filter[name][like]=_pfel", "e"),
        ("filter[name][like]=%25%5C_%5C%25", "c"),
        ("filter[name][in]=Apple,banana", "ab"),
        ("filter[US%20Gross][gte]=2", "b"),
        ("filter%5BUS+Gross%5D%5Bgte%5D=2", "b"),
        ("filter[customer.name][eq]=Zoe", "a"),
        ("filter[customer.age][lt]=31", "ac"),
        ("filter[customer.age][exists]=true&filter[customer.name][exists]=false", "c"),
        ("filter[customer][exists]=false", "de"),
        ("filter[any][eq]=5", "de"),
    ] {
        assert_eq!(ids(&api, query), expected, "{query}");
    }
}

#[test]
fn filters_of_every_kind() {
    let server = start();
    let api = server.client();
    api.post(LIST, &json!({"id": "f", "data": {"name": "x,y", "total": 1, "tags": ["red", 5, true]}})).expect(201);
    api.put(&format!("{LIST}/b"), &json!({"data": {"name": "banana", "total": 9.5, "count": 2}})).expect(200);
    let of = |id: &str, member: &str| {
        let value = api.get(&format!("{LIST}/{id}")).expect(200).json()[member].clone();
        value.as_str().map_or_else(|| value.to_string(), str::to_owned)
    };
    for (query, expected) in [
        ("filter[$id][in]=a,c,x".to_owned(), "ac"),
        ("filter[$id][gte]=d&sort=-$id".to_owned(), "fed"),
        ("filter[$revision][gt]=1".to_owned(), "b"),
        (format!("filter[$position][lte]={}", of("c", "position")), "ac"),
        (format!("filter[$position][gt]={}&sort=-$position", of("d", "position")), "bfe"),
        (format!("filter[$updated_at][gte]={}&filter[$revision][eq]=2", of("b", "updated_at")), "b"),
        ("filter[$created_at][lt]=2000-01-01T00:00:00Z".to_owned(), ""),
        ("filter[$created_at][gte]=2000-01-01T01:00:00%2B01:00".to_owned(), "abcdef"),
        ("filter[tags][has]=red".to_owned(), "f"),
        ("filter[tags][has]=5".to_owned(), "f"),
        ("filter[tags][has]=RED".to_owned(), ""),
        ("filter[name][ilike]=APP%25".to_owned(), "a"),
        ("filter[name][ilike]=%C3%84PFEL".to_owned(), "e"),
        ("filter[name][in]=x%5C,y,Apple".to_owned(), "af"),
        ("filter[or][0][total][eq]=10&filter[or][1][total][eq]=100".to_owned(), "ac"),
        ("filter[or][0][total][eq]=10&filter[or][0][count][eq]=7&filter[or][1][$id][eq]=e".to_owned(), "e"),
        ("filter[total][lt]=50&filter[or][3][or][0][$id][eq]=a&filter[or][3][or][1][$id][eq]=c".to_owned(), "a"),
    ] {
        assert_eq!(ids(&api, &query), expected, "{query}");
        let counted = api.get(&format!("{LIST}?{query}&count=true&limit=1")).expect(200).json();
        assert_eq!(counted["count"], expected.len(), "{query}");
    }
    // Separate pages together equal one large page.
    for query in ["sort=-$updated_at,$id", "sort=$revision,-$id", "filter[or][0][total][gt]=5&filter[or][1][$id][gt]=c"]
    {
        let (mut found, mut cursor) = (String::new(), String::new());
        loop {
            let page = api.get(&format!("{LIST}?{query}&limit=2{cursor}")).expect(200).json();
            found.extend(
                page["items"].as_array().expect("items").iter().map(|item| item["id"].as_str().expect("an id")),
            );
            let Some(next) = page["next"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        assert_eq!(found, ids(&api, query), "{query}");
    }
    for (query, message) in [
        ("filter[name][is]=x", "eq ne lt lte gt gte in nin like ilike has exists"),
        ("filter[$name][eq]=x", "written `$$name`"),
        ("filter[$$name][eq]=x", "no property `$name`"),
        ("filter[$created_at][gt]=yesterday", "is not a time"),
        ("filter[$position][gt]=x", "not of type integer"),
        ("filter[name][has]=x", "the property is not an array"),
        ("filter[or][0][or][0][or][0][or][0][name][eq]=x", "more than 3 levels deep"),
        ("filter[or][0][name]=x", "expected `filter[path][op]=value`"),
        ("filter[or][0][nothing][eq]=x", "no property `nothing`"),
        ("sort=$name", "written `$$name`"),
    ] {
        let problem = api.get(&format!("{LIST}?{query}")).expect_problem(400, "bad-request");
        let detail = problem["detail"].as_str().expect("a detail");
        assert!(detail.contains(message), "{query}: {detail}");
    }
}

#[test]
fn filters_that_mean_nothing_are_refused() {
    let server = start();
    let api = server.client();
    for query in [
        "filter[nothing][eq]=1",
        "filter[customer.nothing][eq]=1",
        "filter[total][eq]=much",
        "filter[total][eq]=",
        "filter[count][in]=1,x",
        "filter[paid][eq]=yes",
        "filter[name][exists]=1",
        "filter[name][is]=x",
        "filter[name]=x",
        "filter[name][]=x",
        "filter[][eq]=x",
        "filter=x",
        "filter[name][eq=x",
        "filter[name]eq]=x",
        "filter[customer][eq]=x",
        "Filter[name][eq]=x",
        "filter[name][eq]=%ff",
        "filter[name][eq]=%zz",
        "sort=nothing",
        "sort=",
        "sort=total,,name",
        "sort=--total",
        "sort=total&sort=",
        "limit=1&limit=2",
        "limit=0",
        "limit=1001",
        "limit=x",
        "limit=-1",
        "limit=",
        "cursor=x",
        "cursor=",
        "fields=",
        "fields=a,,b",
        "count=yes",
        "page=2",
        "total=5",
    ] {
        api.get(&format!("{LIST}?{query}")).expect_problem(400, "bad-request");
    }
    let many: String = (0..500).map(|_| "filter[total][gt]=1&").collect();
    api.get(&format!("{LIST}?{many}")).expect_problem(400, "bad-request");
    // A quote in a value or a name has no special meaning.
    assert_eq!(ids(&api, "filter[name][eq]=%27%20OR%201=1--"), "");
    api.get(&format!("{LIST}?filter[name%22%27][eq]=x")).expect_problem(400, "bad-request");
    api.get(&format!("{LIST}?sort=name%22;drop")).expect_problem(400, "bad-request");
}

#[test]
fn order() {
    let server = start();
    let api = server.client();
    for (query, expected) in [
        ("sort=total", "ebacd"),
        ("sort=-total", "cabed"),
        ("sort=name", "acbed"),
        ("sort=-name", "ebcad"),
        ("sort=count,-total", "acbde"),
        // Repeated parameters, as clients write lists by default.
        ("sort=count&sort=-total", "acbde"),
        ("sort=count&limit=1000&sort=-total", "acbde"),
        ("sort=-count,name", "dcbae"),
        ("sort=customer.age", "cabde"),
        ("sort=-US%20Gross", "bacde"),
        ("sort=paid", "bacde"),
    ] {
        assert_eq!(ids(&api, query), expected, "{query}");
    }
}

#[test]
fn pages() {
    let server = start();
    let api = server.client();
    for query in ["", "&sort=total", "&sort=-name", "&sort=count,-total", "&filter[count][exists]=true"] {
        let whole = ids(&api, query.trim_start_matches('&'));
        for limit in 1..=6 {
            let (mut found, mut cursor) = (String::new(), String::new());
            loop {
                let path = format!("{LIST}?limit={limit}{query}{cursor}");
                let page = api.get(&path).expect(200).json();
                let items = page["items"].as_array().expect("items").clone();
                assert!(items.len() <= limit, "{path}");
                found.extend(items.iter().map(|item| item["id"].as_str().expect("an id")));
                match &page["next"] {
                    Value::Null => break,
                    next => cursor = format!("&cursor={}", next.as_str().expect("text")),
                }
            }
            assert_eq!(found, whole, "{query} by {limit}");
        }
    }
    // A cursor is valid only for its query.
    let next =
        api.get(&format!("{LIST}?limit=2&sort=total")).expect(200).json()["next"].as_str().expect("text").to_owned();
    api.get(&format!("{LIST}?limit=2&sort=name&cursor={next}")).expect_problem(400, "bad-request");
}

#[test]
fn pages_while_instances_come_and_go() {
    let server = start();
    let api = server.client();
    let first = api.get(&format!("{LIST}?limit=2&sort=total")).expect(200).json();
    assert_eq!((&first["items"][0]["id"], &first["items"][1]["id"]), (&json!("e"), &json!("b")));
    api.delete(&format!("{LIST}/e")).expect(204);
    api.delete(&format!("{LIST}/b")).expect(204);
    api.post(LIST, &json!({"id": "0", "data": {"total": -5}})).expect(201);
    let next = first["next"].as_str().expect("text");
    assert_eq!(ids(&api, &format!("limit=10&sort=total&cursor={next}")), "acd");
}

#[test]
fn counts_and_fields() {
    let server = start();
    let api = server.client();
    let page = api.get(&format!("{LIST}?count=true&limit=1&filter[total][gt]=0")).expect(200).json();
    assert_eq!((page["count"].clone(), page["items"].as_array().expect("items").len()), (json!(3), 1));
    assert!(api.get(LIST).expect(200).json().get("count").is_none());
    let page = api.get(&format!("{LIST}?fields=customer.name,US%20Gross&sort=name&limit=1")).expect(200).json();
    assert_eq!(page["items"][0]["data"], json!({"US Gross": 1, "customer": {"name": "Zoe"}}));
    assert_eq!(page["items"][0]["revision"], 1);
    for (query, word) in [
        ("fields=name,nothing", "no property `nothing`"),
        ("fields=customer.nothing", "no property `customer.nothing`"),
        ("sort=customer", "`customer` is an object"),
    ] {
        let problem = api.get(&format!("{LIST}?{query}")).expect_problem(400, "bad-request");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(word)), "{problem}");
    }
}

#[test]
fn the_default_page_has_fifty() {
    let server = Server::start();
    let api = server.client();
    api.post("/models", &json!({"id": "item", "schema": {"type": "object"}})).expect(201);
    let lines: String = (0..60).map(|n| format!("{{\"id\":\"i{n:03}\",\"data\":{{}}}}\n")).collect();
    api.request("POST", "/models/item/import").body("application/x-ndjson", lines).send().expect(200);
    let page = api.get(LIST).expect(200).json();
    assert_eq!(page["items"].as_array().expect("items").len(), 50);
    assert!(page["next"].is_string());
    assert_eq!(api.get(&format!("{LIST}?limit=1000")).expect(200).json()["items"].as_array().expect("items").len(), 60);
}
