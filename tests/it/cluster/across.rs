//! What a client began on one node continues on another: keys, tags, cursors, secrets, hooks and their artifacts.

use serde_json::{Value, json};

use super::backend::Backend;
use super::nodes::Nodes;
use crate::support::{Client, Server, ServerOptions, create_orders, eventually, list};

const INSTANCES: &str = "/models/order/instances";

/// What the post hook of `order` may do.
pub(super) const GRANT: &str = "
    [[grants]]
    model = 'order'
    phase = ['postCreate']
    write = ['seen']";

#[test]
fn what_one_node_begins_another_ends() {
    let backend = Backend::postgres(false);
    let mut nodes = Nodes::start(2, &backend);
    let (a, b) = (nodes.client(0), nodes.client(1));
    create_orders(&a, "order");
    nodes.reach(1, nodes.head());
    keys_tags_and_cursors(&a, &b);
    secrets_and_hooks(&nodes, &a, &b);
    nodes_know_each_other(&mut nodes);
    a_node_without_data_makes_it_again(&mut nodes);
    a_copy_of_another_log_is_refused(&mut nodes);
}

/// Lines of an import wait for each other; while waiting they must not hold a connection that the others need.
#[test]
fn lines_that_wait_hold_no_connections() {
    let backend = Backend::postgres(true);
    let tables = backend.tables(0).replace("[connections.main]\n", "[connections.main]\npool = 2\n");
    assert_ne!(tables, backend.tables(0));
    let server = Server::start_with(ServerOptions { tables, by: backend.environment(), ..ServerOptions::default() });
    let api = server.client();
    let schema = json!({"type": "object", "properties": {"code": {"type": "string"}}});
    api.post("/models", &json!({"id": "m", "schema": schema, "unique": [["code"]]})).expect(201);
    // Three lines claim each value; the first one gets it.
    let line = |number: usize| json!({"id": format!("i{number}"), "data": {"code": format!("c{}", number / 3)}});
    let lines: Vec<String> = (0..600).map(|number| line(number).to_string()).collect();
    let request = api.request("POST", "/models/m/import").body("application/x-ndjson", lines.join("\n"));
    let report = request.send().expect(200).json();
    assert_eq!((&report["created"], &report["failed"]), (&json!(200), &json!(400)), "{report}");
    let firsts = (0..200).map(|number| json!(format!("i{}", 3 * number)));
    let mut there: Vec<Value> = list(&api, "m").into_iter().map(|instance| instance["id"].clone()).collect();
    firsts.for_each(|id| there.retain(|other| *other != id));
    assert_eq!(there, [Value::Null; 0], "not the first of its three got the value");
    assert!(!server.log().iter().any(|line| line.contains("became free")), "{}", server.log().join("\n"));
}

fn position(api: &Client, path: &str, body: &Value) -> String {
    api.post(path, body).expect(201).header("snaphook-position").expect("a position").to_owned()
}

fn keys_tags_and_cursors(a: &Client, b: &Client) {
    // An idempotency key is valid on both nodes.
    let keyed = |api: &Client| {
        let request = api.request("POST", INSTANCES).header("Idempotency-Key", "once");
        request.json(&json!({"data": {"name": "keyed"}})).send().expect(201)
    };
    let (first, again) = (keyed(a), keyed(b));
    assert_eq!(first.json(), again.json());
    // Both nodes give an instance the same tag, and both recognise an outdated one.
    let path = format!("{INSTANCES}/{}", first.json()["id"].as_str().expect("an id"));
    let tag = first.header("etag").expect("a tag").to_owned();
    let put = |api: &Client, name: &str| {
        let request = api.request("PUT", &path).header("If-Match", &tag);
        request.json(&json!({"data": {"name": name}})).send()
    };
    let written = put(b, "second").expect(200);
    put(a, "third").expect_problem(412, "precondition-failed");
    let seen = written.header("snaphook-position").expect("a position").to_owned();
    let read = a.request("GET", &path).header("Snaphook-Min-Position", &seen).send().expect(200);
    assert_eq!(read.json()["data"]["name"], "second");
    assert_eq!(read.header("etag"), written.header("etag"));
    // Pages alternate between the nodes.
    let mut last = String::new();
    for number in 0..5 {
        last = position(a, INSTANCES, &json!({"id": format!("p{number}"), "data": {"name": "page", "count": number}}));
    }
    let list = "filter[name][eq]=page&sort=-count&limit=2";
    let page = a.get(&format!("{INSTANCES}?{list}")).expect(200).json();
    let cursor = page["next"].as_str().expect("a cursor");
    let next = b.get(&format!("{INSTANCES}?{list}&cursor={cursor}&min-position={last}")).expect(200).json();
    let ids = |page: &Value| {
        page["items"].as_array().expect("items").iter().map(|item| item["id"].clone()).collect::<Vec<_>>()
    };
    assert_eq!((ids(&page), ids(&next)), (vec![json!("p4"), json!("p3")], vec![json!("p2"), json!("p1")]));
    // A read waits for a position that the log does not have yet, up to a timeout.
    let head: u64 = last.parse().expect("a number");
    let ahead = a.request("GET", &path).header("Snaphook-Min-Position", &(head + 1000).to_string()).send();
    assert!(matches!(ahead.status, 410 | 503), "{}", ahead.text());
}

fn secrets_and_hooks(nodes: &Nodes, a: &Client, b: &Client) {
    a.request("PUT", "/secrets/key").body("text/plain", "hunter2").send().expect(204);
    assert_eq!(b.get("/secrets").expect(200).json()["items"], json!(["key"]));
    // Bound on one node and run by the other, which gets the artifact from the log.
    let pre = "export default ({ after }) => { if (after.name === 'bad') throw new Error('no'); }";
    b.put_javascript("order", "preCreate", pre).expect(200);
    nodes.reach(0, nodes.head());
    a.post(INSTANCES, &json!({"data": {"name": "bad"}})).expect_problem(502, "hook-failed");
    // A client waits on one node for a post hook that either node may run.
    let post = "export default async ({ id, write }) => { await write.create('seen', { id }); }";
    a.post("/models", &json!({"id": "seen", "schema": {"type": "object"}})).expect(201);
    a.put_javascript("order", "postCreate", post).expect(200);
    nodes.reach(1, nodes.head());
    for number in 0..10 {
        let api = if number % 2 == 0 { a } else { b };
        let id = format!("waited{number}");
        let request = api.request("POST", INSTANCES).header("Prefer", "wait=30");
        let answer = request.json(&json!({"id": id, "data": {"name": "waited"}})).send().expect(201);
        let seen = api.get("/models/seen/instances?limit=1000").expect(200).text();
        assert!(seen.contains(&id), "the hook had not run when it was answered: {} {seen}", answer.text());
    }
}

fn nodes_know_each_other(nodes: &mut Nodes) {
    let addresses = |api: &Client| -> Vec<String> {
        let nodes = api.get("/nodes").expect(200).json();
        let items = nodes["items"].as_array().expect("items");
        let mut addresses: Vec<_> =
            items.iter().map(|node| node["address"].as_str().expect("an address").to_owned()).collect();
        addresses.sort_unstable();
        addresses
    };
    let mut all: Vec<String> = nodes.addresses().iter().map(ToString::to_string).collect();
    all.sort_unstable();
    for node in 0..2 {
        assert_eq!(addresses(&nodes.client(node)), all);
    }
    // A node that stops deregisters; a node that dies expires.
    let left = vec![nodes.addresses()[1].to_string()];
    nodes.stop(0);
    assert_eq!(addresses(&nodes.client(1)), left);
    nodes.mend();
    eventually("it is back", || (addresses(&nodes.client(1)) == all).then_some(()));
    nodes.kill(0);
    eventually("it is forgotten", || (addresses(&nodes.client(1)) == left).then_some(()));
    nodes.mend();
}

fn a_node_without_data_makes_it_again(nodes: &mut Nodes) {
    let list = |api: &Client| api.get(&format!("{INSTANCES}?limit=1000")).expect(200).json();
    let expected = list(&nodes.client(1));
    nodes.stop(0);
    let data = nodes.directory(0).join("data");
    std::fs::remove_dir_all(&data).expect("data that can be removed");
    nodes.mend();
    assert_eq!(list(&nodes.client(0)), expected);
}

fn a_copy_of_another_log_is_refused(nodes: &mut Nodes) {
    nodes.stop(0);
    let mut other = Server::start_with(ServerOptions::default());
    create_orders(&other.client(), "order");
    other.client().post(INSTANCES, &json!({"id": "foreign", "data": {"name": "foreign"}})).expect(201);
    assert!(other.stop().success());
    let (from, to) = (other.directory().join("data/models.db"), nodes.directory(0).join("data/models.db"));
    for suffix in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", to.display()));
    }
    std::fs::copy(from, to).expect("a copy");
    let refusal = nodes.refusal(0);
    assert!(refusal.contains("log"), "{refusal}");
    // A removed model store is rebuilt.
    std::fs::remove_file(nodes.directory(0).join("data/models.db")).expect("it is there");
    nodes.mend();
    let listed = nodes.client(0).get(&format!("{INSTANCES}?limit=1000")).expect(200).text();
    assert!(!listed.contains("foreign"), "{listed}");
}
