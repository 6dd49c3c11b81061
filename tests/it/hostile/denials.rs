//! A denial contains the configuration lines that would grant the request; with them the same call succeeds.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::peer::Peer;
use crate::support::{Client, Server, eventually};
use crate::workbench::{
    append_config, bind_post, caught, create, failure_of, lines_to_add, log_of, once, open_model, react, signal,
};

struct Case {
    server: Server,
    api: Client,
}

impl Case {
    fn new() -> Case {
        let server = Server::start_with(once(""));
        let api = server.client();
        open_model(&api, "invoice");
        let schema = json!({"type": "object", "properties": {"name": {"type": "string"}}});
        api.post("/models", &json!({"id": "customer", "schema": schema})).expect(201);
        api.post("/models/customer/instances", &json!({"id": "ada", "data": {"name": "Ada"}})).expect(201);
        Case { server, api }
    }

    /// Adds the lines to the configuration and sends SIGHUP; returns when the server shows the grant.
    #[track_caller]
    fn add(&self, lines: &str, phase: &str, capability: &str) {
        let grants = || {
            let hooks = self.api.get(&format!("/models/invoice/hooks/{phase}")).expect(200).json();
            hooks[0]["grants"].get(capability).cloned()
        };
        assert_eq!(grants(), None);
        append_config(&self.server, lines);
        signal(&self.server, Signal::HUP);
        eventually("the grant is in force", grants);
    }

    /// The expression is denied in a post hook; the hook, the log and the error record get the same message. With the
    /// lines from the message it returns a value.
    #[track_caller]
    fn opens(&self, capability: &str, asked: &str, expression: &str) -> Value {
        bind_post(&self.api, "invoice", &caught(expression));
        let denied = react(&self.api, "invoice", &json!({}));
        assert_eq!(denied["code"], "denied", "{denied}");
        let message = denied["message"].as_str().expect("a text").to_owned();
        let head = format!("hook `invoice.postCreate/postCreate` asked for {asked}");
        assert!(message.starts_with(&head), "expected `{head}` in: {message}");
        let lines = lines_to_add(&message);
        assert!(lines.contains("model = 'invoice'\nphase = 'postCreate'\nhook = 'postCreate'\n"), "{lines}");
        assert!(lines.contains(&format!("\n{capability} = ")), "{lines}");

        // If the hook does not catch it, the run fails with the same message, which is in the log too.
        bind_post(&self.api, "invoice", &format!("return {{ value: await ({expression}) }};"));
        let id = crate::workbench::create_and_wait(&self.api, "invoice", &json!({}));
        let record = failure_of(&self.api, "invoice", &id);
        assert!(record["message"].as_str().expect("a text").contains(&message), "{record}");
        let log = log_of(&self.api, "invoice", "postCreate", &id);
        assert!(log.contains(&message), "{log:?}");

        self.add(&lines, "postCreate", capability);
        // The failed run succeeds on retry, and so does the next run.
        let error = record["id"].as_str().expect("a text");
        let retried = self.api.request("POST", &format!("/errors/{error}/retry")).send().expect(200).json();
        assert_eq!((&retried["matched"], &retried["succeeded"]), (&json!(1), &json!(1)), "{retried}");
        react(&self.api, "invoice", &json!({}))["value"].take()
    }
}

#[test]
fn read() {
    let case = Case::new();
    let value = case.opens("read", "read of model `customer`", "read.get('customer', 'ada')");
    assert_eq!(value["data"], json!({"name": "Ada"}));
}

#[test]
fn read_by_query() {
    let case = Case::new();
    let value = case.opens("read", "", "read.query('customer', { filter: { name: { eq: 'Ada' } } })");
    assert_eq!(value["items"][0]["id"], "ada");
}

#[test]
fn write() {
    let case = Case::new();
    let value =
        case.opens("write", "", "write.create('customer', { name: 'Grace' }, { id: 'grace-' + event.position })");
    assert_eq!(value["data"], json!({"name": "Grace"}));
    let id = value["id"].as_str().expect("a text");
    let events = case.api.get(&format!("/models/customer/instances/{id}/events")).expect(200).json();
    assert_eq!(events["items"][0]["cause"]["hook"], "invoice.postCreate/postCreate", "{events}");
    assert_eq!(events["items"][0]["actor"], json!({"id": "invoice.postCreate/postCreate", "kind": "hook"}), "{events}");
}

#[test]
fn http() {
    let case = Case::new();
    let peer = Peer::saying("hello");
    let url = peer.url("/v1/greeting?name=x");
    let value = case.opens("http", "", &format!("(await fetch('{url}')).text()"));
    assert_eq!(value, "hello");
    // Denied requests were never sent: only one retry and one call were.
    assert_eq!(peer.asked().len(), 2, "{:?}", peer.asked());
    // The grant applies to this path and this method only.
    bind_post(
        &case.api,
        "invoice",
        &caught(&format!("fetch('{}', {{ method: 'POST', body: 'x' }})", peer.url("/v1/greeting"))),
    );
    let denied = react(&case.api, "invoice", &json!({}));
    assert_eq!(denied["code"], "denied", "{denied}");
}

#[cfg(target_os = "linux")]
#[test]
fn process() {
    let case = Case::new();
    let program = std::fs::canonicalize("/usr/bin/env").expect("a program");
    let program = program.display();
    let value = case.opens("process", &format!("process `{program}`"), &format!("run('{program}', [])"));
    assert_eq!(value, json!({"code": 0, "stdout": "", "stderr": ""}));
}

#[test]
fn secret() {
    let case = Case::new();
    case.api.request("PUT", "/secrets/mail-key").body("text/plain", "s3cret").send().expect(204);
    let value = case.opens("secret", "secret `mail-key`", "(async () => (await secret('mail-key')).length)()");
    assert_eq!(value, 6);
}

#[test]
fn secret_in_a_header() {
    let case = Case::new();
    case.api.request("PUT", "/secrets/mail-key").body("text/plain", "s3cret\n").send().expect(204);
    let peer = Peer::saying("ok");
    let url = peer.url("/");
    append_config(&case.server, &crate::workbench::grant("invoice", "postCreate", &format!("http = ['{url}']")));
    signal(&case.server, Signal::HUP);
    let call =
        format!("(await fetch('{url}', {{ headers: {{ authorization: 'Bearer {{{{secret:mail-key}}}}' }} }})).text()");
    eventually("the http grant is in force", || {
        bind_post(&case.api, "invoice", &caught(&call));
        let answer = react(&case.api, "invoice", &json!({}));
        answer["message"].as_str().is_some_and(|message| message.contains("secret `mail-key`")).then_some(())
    });
    assert_eq!(case.opens("secret", "secret `mail-key`", &call), "ok");
    assert_eq!(peer.asked().last().expect("a request").headers("authorization"), ["Bearer s3cret"]);
    // The value appears nowhere else.
    for path in ["/events?limit=1000", "/errors", "/models/invoice/hooks/postCreate/log", "/secrets"] {
        assert!(!case.api.get(path).expect(200).text().contains("s3cret"), "{path}");
    }
    assert!(!case.server.log().iter().any(|line| line.contains("s3cret")));
}

#[test]
fn amend() {
    let case = Case::new();
    let source = "export const preCreate = ({ after }) => ({ ...after, slug: 'made' });";
    case.api.put_javascript("invoice", "preCreate", source).expect(200);
    let problem = create(&case.api, "invoice", &json!({"n": 1})).expect_problem(502, "hook-failed");
    let detail = problem["detail"].as_str().expect("a text");
    assert!(detail.contains("failed (amend)"), "{detail}");
    assert!(!detail.contains("[[grants]]"), "the lines are for whoever runs the server: {detail}");
    let log = case.api.get("/models/invoice/hooks/preCreate/log").expect(200).json();
    let mut messages = log["items"].as_array().expect("lines").iter().filter_map(|line| line["message"].as_str());
    let lines = lines_to_add(messages.find(|message| message.contains("to allow it")).expect("the denial"));
    assert!(lines.ends_with("amend = true"), "{lines}");
    case.add(&lines, "preCreate", "amend");
    let made = create(&case.api, "invoice", &json!({"n": 1})).expect(201).json();
    assert_eq!(made["data"], json!({"n": 1, "slug": "made"}));
}

/// A denial names a grant for another hook that would permit the request.
#[test]
fn a_grant_that_is_for_another_hook_is_named() {
    let case = Case::new();
    append_config(&case.server, &crate::workbench::grant("other", "postCreate", "read = ['customer']"));
    signal(&case.server, Signal::HUP);
    let text = std::fs::read_to_string(case.server.config_file()).expect("a config");
    let line = 1 + text.lines().position(|line| line == "[[grants]]").expect("a grant");
    let message = eventually("the grant is in force", || {
        bind_post(&case.api, "invoice", &caught("read.get('customer', 'ada')"));
        let message = react(&case.api, "invoice", &json!({}))["message"].as_str().expect("a text").to_owned();
        message.contains("the one at").then_some(message)
    });
    assert!(message.contains(&format!("the one at config.toml:{line} is for model `other`")), "{message}");
}

/// For phases that can never have a capability the message says so, instead of suggesting useless lines.
#[test]
fn what_no_grant_can_open() {
    let case = Case::new();
    let body = "const said = []; for (const ask of [() => context.write.create('customer', {}), () => context.write.delete('customer', 'ada'), \
                () => context.fetch('http://127.0.0.1:1/'), () => context.run('/bin/true', [])]) { \
                try { await ask(); said.push('done'); } catch (error) { said.push(error.code + ': ' + error.message); } } \
                throw new Reject(JSON.stringify(said));";
    let source = format!("export async function preCreate(context) {{ {body} }}");
    case.api.put_javascript("invoice", "preCreate", &source).expect(200);
    let problem = create(&case.api, "invoice", &json!({})).expect_problem(422, "rejected");
    let said: Vec<String> = serde_json::from_str(problem["detail"].as_str().expect("a text")).expect("a list");
    assert_eq!(said.len(), 4);
    for (said, capability) in said.iter().zip(["write", "write", "http", "process"]) {
        assert!(said.starts_with("denied: "), "{said}");
        let why = format!("no grant can open `{capability}` to phase preCreate");
        assert!(said.contains(&why) && !said.contains("[[grants]]"), "{said}");
    }
    case.api.get("/models/customer/instances/ada").expect(200);
}

/// Removed grants no longer apply to the next call.
#[test]
fn a_grant_that_is_removed() {
    let case = Case::new();
    let before = std::fs::read_to_string(case.server.config_file()).expect("a config");
    case.opens("read", "", "read.get('customer', 'ada')");
    std::fs::write(case.server.config_file(), before).expect("written");
    signal(&case.server, Signal::HUP);
    bind_post(&case.api, "invoice", &caught("read.get('customer', 'ada')"));
    eventually("the grant is gone", || (react(&case.api, "invoice", &json!({}))["code"] == "denied").then_some(()));
}
