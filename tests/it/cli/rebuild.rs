//! `snaphook rebuild`: rebuilds the model store from the log.

use serde_json::{Value, json};

use super::{ask, run};
use crate::support::{Server, create_orders};

fn fill(server: &Server) -> Value {
    let api = server.client();
    create_orders(&api, "order");
    // A hook that would leave a trace if it ran again.
    api.put_javascript("order", "postCreate", "export default ({ log }) => log.info('ran')").expect(200);
    for n in 0..40 {
        let data = json!({"name": format!("n{n:02}"), "total": n, "customer": {"name": "ä"}});
        let request = api.request("POST", "/models/order/instances").header("Prefer", "wait=25");
        request.json(&json!({"id": format!("o{n}"), "data": data})).send().expect(201);
    }
    for n in 0..10 {
        api.patch(&format!("/models/order/instances/o{n}"), &json!({"total": 9007199254740993_u64})).expect(200);
        api.delete(&format!("/models/order/instances/o{}", 39 - n)).expect(204);
    }
    let schema = json!({"type": "object", "properties": {"title": {"type": "string"}}});
    api.put("/models/order", &json!({"schema": schema, "renames": {"name": "title"}})).expect(200);
    all_of(server)
}

/// Every instance, as a client reads them.
fn all_of(server: &Server) -> Value {
    server.client().get("/models/order/instances?limit=1000&sort=title&count=true").expect(200).json()
}

fn runs(server: &Server) -> Value {
    let stats = server.client().get("/models/order/hooks/postCreate/stats").expect(200).json();
    stats["items"][0]["runs"].clone()
}

fn remove_models(server: &Server) {
    for name in ["models.db", "models.db-wal", "models.db-shm"] {
        let _ = std::fs::remove_file(server.directory().join("data").join(name));
    }
}

#[test]
fn while_a_server_runs() {
    let server = Server::start();
    let before = fill(&server);
    assert_eq!(before["count"], 30, "{before}");
    let said = ask(&server, &["rebuild"]).ok();
    assert!(said.starts_with("the model store is rebuilt from ") && said.trim_end().ends_with(" events"), "{said}");
    assert_eq!(all_of(&server), before);
    assert_eq!(runs(&server), 40);
    // The stores are locked by the server.
    let said = run(server.directory(), &["rebuild"]);
    assert_eq!(said.code, Some(1), "{}", said.stdout);
    assert_eq!(all_of(&server), before);
}

#[test]
fn while_none_runs() {
    let mut server = Server::start();
    let before = fill(&server);
    assert!(server.stop().success());
    for damaged in [false, true] {
        if damaged {
            remove_models(&server);
        }
        let said = run(server.directory(), &["rebuild"]).ok();
        assert!(said.starts_with("the model store is rebuilt from "), "{said}");
    }
    let server = server.restart_ended();
    assert_eq!(all_of(&server), before);
    assert_eq!(runs(&server), 0, "no hook ran in the rebuild nor after it");
}

#[test]
fn a_model_store_that_is_gone_is_made_at_start() {
    let mut server = Server::start();
    let before = fill(&server);
    server.stop();
    remove_models(&server);
    let server = server.restart_ended();
    assert_eq!(all_of(&server), before);
}
