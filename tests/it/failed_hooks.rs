//! What a client learns of a hook that failed, and where whoever runs the server finds the rest.

use serde_json::{Value, json};

use crate::support::{Response, Server, eventually};
use crate::workbench::{bind_post, failure_of, fresh_id, grant, once, open_model};

const LINES: &str = "[[grants]]\nmodel = 'order'\nphase = 'preCreate'\nhook = 'preCreate'\nread = ['customer']";

/// No line of configuration, wherever in a response.
#[track_caller]
fn tells_no_lines(answer: &Response) {
    let text = answer.text();
    for part in ["[[grants]]", "config.toml", "to allow it", "read = "] {
        assert!(!text.contains(part), "`{part}` is in {text}");
    }
}

#[test]
fn a_client_learns_which_hook_failed_and_why_but_no_lines_of_configuration() {
    // A grant for another model: the refusal names its place in the file.
    let server = Server::start_with(once(grant("other", "preCreate", "read = ['customer']")));
    let api = server.client();
    open_model(&api, "order");
    open_model(&api, "customer");
    let denied = "hook `order.preCreate/preCreate` asked for read of model `customer`, which no grant opens";
    let send = |body: &str, path: &str| {
        let source = format!("export async function preCreate({{ read }}) {{ {body} }}");
        api.put_javascript("order", "preCreate", &source).expect(200);
        let instance = json!({"id": fresh_id(), "data": {}});
        let answer = match path {
            "import" => {
                let import =
                    api.request("POST", "/models/order/import").body("application/x-ndjson", instance.to_string());
                import.send()
            }
            "batch" => {
                let operation = json!({"op": "create", "model": "order", "data": {}});
                api.post("/batch", &json!({"operations": [operation]}))
            }
            query => api.post(&format!("/models/order/instances{query}"), &instance),
        };
        tells_no_lines(&answer);
        answer
    };
    let asks = "await read.get('customer', 'a');";
    for path in ["", "batch"] {
        let problem = send(asks, path).expect_problem(502, "hook-failed");
        let detail = problem["detail"].as_str().expect("a text");
        assert!(detail.contains(denied) && detail.contains("pre hook `order.preCreate/preCreate` failed"), "{problem}");
        assert_eq!(problem["hook"], "preCreate");
    }
    let dry = send(asks, "?dry-run=true");
    assert!(dry.text().contains(denied), "{}", dry.text());
    let report = send(asks, "import").expect(200);
    assert!(report.text().contains(denied), "{}", report.text());
    // A hook that passes the message on, whole or changed.
    let passed_on = "try { await read.get('customer', 'a'); } catch (error) { MESSAGE }";
    for message in [
        "throw new Error(JSON.stringify({ why: error.message }));",
        "throw new Error('again: ' + error.message + ' and ' + error.message + '!');",
    ] {
        let problem = send(&passed_on.replace("MESSAGE", message), "").expect_problem(502, "hook-failed");
        assert!(problem["detail"].as_str().expect("a text").contains(denied), "{problem}");
    }
    let rejects = passed_on.replace("MESSAGE", "throw new Reject(error.message, { '/a': error.message });");
    let problem = send(&rejects, "").expect_problem(422, "rejected");
    assert_eq!((&problem["detail"], &problem["errors"][0]["message"]), (&json!(denied), &json!(denied)));

    // Whoever runs the server finds all of it.
    let log = api.get("/models/order/hooks/preCreate/log").expect(200).json().to_string();
    assert!(log.contains(&Value::from(LINES).to_string()[1..LINES.len()]), "{log}");
    eventually("the server's log has the lines", || {
        server.log().iter().any(|line| line.contains("pre hook `order.preCreate/preCreate` failed")).then_some(())
    });
    let text = server.log().join("\n");
    assert!(text.contains("read = ['customer']") && text.contains("[[grants]]"), "{text}");
}

#[test]
fn the_error_store_keeps_the_lines() {
    let server = Server::start_with(once(""));
    let api = server.client();
    open_model(&api, "order");
    open_model(&api, "customer");
    bind_post(&api, "order", "await read.get('customer', 'a');");
    let instance = fresh_id();
    api.post("/models/order/instances", &json!({"id": instance, "data": {}})).expect(201);
    let record = failure_of(&api, "order", &instance);
    let message = record["message"].as_str().expect("a text");
    assert!(
        message.contains("[[grants]]\nmodel = 'order'\nphase = 'postCreate'")
            && message.contains("read = ['customer']"),
        "{record}"
    );
}
