//! Servers with other drivers than the defaults: everything in memory; errors as lines on stdout; stores that
//! disappear.

use serde_json::{Value, json};

use crate::support::{Client, DriverHost, Server, ServerOptions, create_orders, eventually, list};

const INSTANCES: &str = "/models/order/instances";

/// Instances in those of another Snaphook, whose URL replaces `PEER`: the settings of the page on drivers.
pub(crate) const INSTANCES_OF_PEER: &str = "\
[driver-model-storage]
driver = 'crud'
url = 'PEER'
id-in-updates = false
[driver-model-storage.paths]
create = '/models/{model}/instances'
update = '/models/{model}/instances/{id}'
delete = '/models/{model}/instances/{id}'
list = ''
[driver-model-storage.fields]
model_version = ''
revision = ''
position = ''
created_at = ''
updated_at = ''
data = 'data'
";

fn start(tables: &str) -> Server {
    let options = ServerOptions { hooks: "max-attempts = 1".into(), tables: tables.into(), ..ServerOptions::default() };
    Server::start_with(options)
}

#[test]
fn everything_in_memory() {
    let stores = ["secure", "event", "model", "error"];
    let tables: String = stores.iter().map(|store| format!("[driver-{store}-storage]\ndriver = 'memory'\n")).collect();
    let server = start(&tables);
    let api = server.client();
    create_orders(&api, "order");
    api.put_javascript("order", "preCreate", "export function preCreate({ after }) { if (!after.name) throw 1; }")
        .expect(200);
    api.put_javascript("order", "postCreate", "export function postCreate({ after }) { throw new Error(after.name); }")
        .expect(200);
    for name in ["b", "a"] {
        api.post(INSTANCES, &json!({"id": name, "data": {"name": name}})).expect(201);
    }
    api.request("PUT", "/secrets/key").body("text/plain", "value").send().expect(204);
    assert_eq!(api.get("/secrets").expect(200).json()["items"], json!(["key"]));
    let list = || api.get(&format!("{INSTANCES}?sort=-name&filter[name][gte]=a")).expect(200).text();
    let before = list();
    assert_eq!(serde_json::from_str::<Value>(&before).expect("JSON")["items"][0]["id"], "b");
    let errors = eventually("both failures are recorded", || {
        let items = api.get("/errors").expect(200).json()["items"].as_array().expect("a list").clone();
        (items.len() == 2).then_some(items)
    });
    assert_eq!(errors[0]["cause"], "exception");
    api.request("POST", "/rebuild").send().expect(202);
    eventually("the rebuild is done", || (api.get("/rebuild").expect(200).json()["state"] == "done").then_some(()));
    assert_eq!(list(), before);
    // A restart loses what is in memory.
    let server = server.restart();
    assert_eq!(server.client().get("/models").expect(200).json()["items"], json!([]));
    for file in ["events.db", "models.db", "errors.db", "secrets"] {
        assert!(!server.directory().join("data").join(file).exists(), "{file} was written");
    }
}

/// While a host is down the server gives no wrong response, and it recovers automatically when the host is back.
#[test]
fn a_driver_host_that_dies_and_comes_back() {
    let host = DriverHost::start();
    let stores = ["secure", "event", "model", "error"];
    let table = |store| format!("[driver-{store}-storage]\ndriver = 'remote'\nurl = '{}'\n", host.url());
    let server = start(&stores.map(table).concat());
    let api = server.client();
    create_orders(&api, "order");
    api.post(INSTANCES, &json!({"id": "before", "data": {"name": "a"}})).expect(201);
    let host = host.kill();
    let answer = api.post(INSTANCES, &json!({"id": "meanwhile", "data": {"name": "b"}}));
    assert_eq!(answer.status, 503, "{}", answer.text());
    let ready = api.get("/readyz").expect(503).json();
    assert!(ready["stores"].to_string().contains("the host cannot be reached"), "{ready}");
    let _host = host.restart();
    eventually("it works again", || {
        (api.post(INSTANCES, &json!({"id": "after", "data": {"name": "c"}})).status == 201).then_some(())
    });
    eventually("it is ready", || (api.get("/readyz").status == 200).then_some(()));
    let ids: Vec<_> = list(&api, "order").iter().map(|instance| instance["id"].clone()).collect();
    assert_eq!(ids, ["after", "before"], "{}", answer.text());
}

#[test]
fn instances_in_another_snaphook() {
    let peer = start("");
    create_orders(&peer.client(), "order");
    let address = peer.address().to_string();
    let server = start(&INSTANCES_OF_PEER.replace("PEER", &format!("http://{address}")));
    let api = server.client();
    create_orders(&api, "order");
    for name in ["a", "b", "c"] {
        api.post(INSTANCES, &json!({"id": name, "data": {"name": name}})).expect(201);
    }
    api.put(&format!("{INSTANCES}/b"), &json!({"data": {"name": "changed"}})).expect(200);
    api.delete(&format!("{INSTANCES}/c")).expect(204);
    let seen = |api: &Client| -> Vec<Value> {
        list(api, "order").iter().map(|instance| json!([instance["id"], instance["data"]])).collect()
    };
    let order = |id: &str, name: &str| json!([id, {"name": name, "status": "open"}]);
    let expected = [order("a", "a"), order("b", "changed")];
    assert_eq!(seen(&api), expected);
    assert_eq!(seen(&peer.client()), expected);
    // A rejection by the peer affects only that model; a peer that is gone only causes a delay.
    api.post("/rebuild", &json!({})).expect(202);
    eventually("the store is rebuilt", || (api.get("/rebuild").expect(200).json()["state"] == "done").then_some(()));
    assert_eq!(seen(&peer.client()), expected);
    let peer = peer.restart();
    assert_ne!(peer.address().to_string(), address, "the peer is somewhere else now");
    // The event is in the log nevertheless; changes that cannot be sent to the peer make the store unavailable.
    api.post(INSTANCES, &json!({"id": "d", "data": {"name": "d"}})).expect(201);
    eventually("nothing is answered from a store that misses an event", || {
        (api.get(INSTANCES).status == 503).then_some(())
    });
}

#[test]
fn errors_as_lines_on_stdout() {
    let server = start("[driver-error-storage]\ndriver = 'stdout'\n");
    let api = server.client();
    create_orders(&api, "order");
    let source = "export function postCreate({ after }) { throw new Error('no paper: ' + after.name); }";
    api.request("PUT", "/models/order/hooks/postCreate?name=print").body("text/javascript", source).send().expect(200);
    api.post(INSTANCES, &json!({"data": {"name": "first"}})).expect(201);
    let line = eventually("the failure is a line", || {
        server.log().iter().find_map(|line| serde_json::from_str::<Value>(line).ok().filter(|line| line.is_object()))
    });
    assert_eq!((&line["hook"], &line["cause"]), (&json!("print"), &json!("exception")), "{line}");
    assert!(line["message"].as_str().is_some_and(|message| message.contains("no paper: first")), "{line}");
    // Nothing is stored, and every errors route reports this.
    for (method, path) in [("GET", "/errors"), ("POST", "/errors/retry")] {
        let problem = api.request(method, path).send();
        assert!(problem.status >= 400, "{method} {path}: {}", problem.status);
        assert!(problem.text().contains("only forwards"), "{}", problem.text());
    }
}

#[test]
fn a_store_that_is_gone_is_not_ready() {
    let server = Server::start();
    let api = server.client();
    assert_eq!(api.get("/readyz").expect(200).json(), json!({"status": "ready"}));
    // The folder of the secrets is checked on every request.
    let secrets = server.directory().join("data/secrets");
    std::fs::remove_dir_all(&secrets).expect("a folder");
    std::fs::write(&secrets, "in the way").expect("a file");
    let ready = api.get("/readyz").expect(503).json();
    assert_eq!((&ready["status"], &ready["stores"][0]["store"]), (&json!("unavailable"), &json!("secure")), "{ready}");
    // The process itself is healthy.
    api.get("/healthz").expect(200);
}
