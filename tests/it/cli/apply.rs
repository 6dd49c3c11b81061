//! `snaphook apply`, and `[hooks] apply = true`: models and hooks kept as files.

use serde_json::json;

use super::{ask, write};
use crate::support::{Server, ServerOptions};
use crate::workbench::open_model;

const INVOICE: &str = r#"{"schema": {"type": "object", "properties": {"n": {"type": "integer"}}}, "unique": [["n"]]}"#;
const REFUSES: &str = "export default ({ after }) => { if (after.n > 9) throw new Reject('too much'); };";

fn fill(server: &Server) {
    let at = server.directory();
    write(at, "hooks/invoice/model.json", INVOICE);
    write(at, "hooks/invoice/preCreate.ts", REFUSES);
    write(at, "hooks/customer/model.json", r#"{"schema": {"type": "object"}}"#);
    write(
        at,
        "hooks/customer/postCreate.toml",
        "[[chain]]\nname = 'first'\nengine = 'quickjs'\nfile = 'first.js'\n[[chain]]\nname = 'second'\nengine = 'quickjs'\nfile = 'second.js'\n",
    );
    write(at, "hooks/customer/first.js", "export default () => {};");
    write(at, "hooks/customer/second.js", "export default ({ log }) => log.info('second');");
}

#[test]
fn a_server_is_made_to_match() {
    let server = Server::start();
    let api = server.client();
    open_model(&api, "other");
    fill(&server);
    let events = || api.get("/events?limit=1000").expect(200).json()["items"].as_array().expect("a list").len();
    let before = events();
    let planned = ask(&server, &["apply", "--plan"]).ok();
    let expected = [
        "create model `customer`",
        "create model `invoice`",
        "create hook `customer.postCreate`: ",
        "create hook `invoice.preCreate`: ",
    ];
    let lines: Vec<&str> = planned.lines().collect();
    assert_eq!(lines.len(), 4, "{planned}");
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.starts_with(expected), "expected `{expected}`: {planned}");
    }
    assert_eq!(events(), before, "a plan changes nothing");
    assert_eq!(ask(&server, &["apply"]).ok(), planned);
    assert_eq!(events(), before + 4);
    api.post("/models/invoice/instances", &json!({"data": {"n": 10}})).expect_problem(422, "rejected");
    api.post("/models/invoice/instances", &json!({"data": {"n": 1}})).expect(201);
    api.post("/models/invoice/instances", &json!({"data": {"n": 1}})).expect_problem(409, "not-unique");
    assert_eq!(api.get("/models/customer/hooks/postCreate").expect(200).json()[1]["name"], "second");

    // Applying the same files again changes nothing.
    let now = events();
    for args in [&["apply"][..], &["apply", "--plan"], &["apply", "hooks"]] {
        assert!(ask(&server, args).ok().starts_with("nothing to do, 2 models"), "{args:?}");
    }
    assert_eq!(events(), now);
    api.get("/models/other").expect(200);

    write(server.directory(), "hooks/invoice/preCreate.ts", "export default () => {};");
    write(
        server.directory(),
        "hooks/customer/model.json",
        r#"{"schema": {"type": "object", "properties": {"name": {}}}, "indexes": [["name"]]}"#,
    );
    std::fs::remove_file(server.directory().join("hooks/customer/postCreate.toml")).expect("removed");
    std::fs::remove_file(server.directory().join("hooks/customer/first.js")).expect("removed");
    std::fs::remove_file(server.directory().join("hooks/customer/second.js")).expect("removed");
    let said = ask(&server, &["apply"]).ok();
    for says in [
        "change model `customer`: ",
        "change hook `invoice.preCreate`: ",
        "remove hook `customer.postCreate`: first, second",
    ] {
        assert!(said.contains(says), "`{says}` is missing in: {said}");
    }
    api.post("/models/invoice/instances", &json!({"data": {"n": 10}})).expect(201);
    assert_eq!(api.get("/models/customer/hooks/postCreate").expect(200).json(), json!([]));
    assert!(ask(&server, &["apply"]).ok().starts_with("nothing to do"));
}

#[test]
fn files_with_faults_are_not_applied() {
    let server = Server::start();
    fill(&server);
    let at = server.directory();
    write(at, "hooks/invoice/precreate.js", "");
    write(at, "hooks/customer/model.json", "{\n \"schema\": {},\n}");
    let said = ask(&server, &["apply"]).fails();
    assert!(
        said.contains("nothing was applied")
            && said.contains("hooks/customer/model.json:3")
            && said.contains("hooks/invoice/precreate.js"),
        "{said}"
    );
    assert_eq!(server.client().get("/models").expect(200).json()["items"], json!([]));
    let said = ask(&server, &["apply", "nowhere"]).fails();
    assert!(said.contains("`nowhere` is not a folder"), "{said}");
    // A step that the server rejects ends the command with an error.
    std::fs::remove_file(at.join("hooks/invoice/precreate.js")).expect("removed");
    write(at, "hooks/customer/model.json", r#"{"schema": {"type": "object"}}"#);
    write(at, "hooks/invoice/preCreate.ts", "export default () => {\n  return 1 +;\n}");
    let said = ask(&server, &["apply"]).fails();
    assert!(said.contains("(line 2, column 13)") && said.contains("the steps after this one were not taken"), "{said}");
}

#[test]
fn at_start() {
    let options = ServerOptions { hooks: "apply = true".to_owned(), ..ServerOptions::default() };
    let mut server = Server::start_with(options);
    server.stop();
    fill(&server);
    let mut server = server.restart_ended();
    let api = server.client();
    api.post("/models/invoice/instances", &json!({"id": "a", "data": {"n": 10}})).expect_problem(422, "rejected");
    let events = api.get("/events?limit=1000").expect(200).json()["items"].clone();
    assert_eq!(events.as_array().expect("a list").len(), 4, "{events}");
    assert_eq!(events[0]["actor"], json!({"id": "apply", "kind": "server"}), "{events}");
    // Another start changes nothing.
    server.stop();
    let server = server.restart_ended();
    assert_eq!(server.client().get("/events?limit=1000").expect(200).json()["items"], events);
}
