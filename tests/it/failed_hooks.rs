//! What a client learns about a failed hook, and where the operator finds the rest.

use serde_json::{Value, json};

use crate::support::{Response, Server, ServerOptions, eventually, guest};
use crate::workbench::{bind_post, failure_of, fresh_id, grant, once, open_model};

const LINES: &str = "[[grants]]\nmodel = 'order'\nphase = 'preCreate'\nhook = 'preCreate'\nread = ['customer']";

/// The response contains no configuration lines.
#[track_caller]
fn tells_no_lines(answer: &Response) {
    let text = answer.text();
    for part in ["[[grants]]", "config.toml", "to allow it", "read = "] {
        assert!(!text.contains(part), "`{part}` is in {text}");
    }
}

#[test]
fn a_client_learns_which_hook_failed_and_why_but_no_lines_of_configuration() {
    // A grant for another model: the denial names its location in the file.
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
    // A hook that passes the message on, unchanged or modified.
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

    // The operator finds the complete message.
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

/// In every language the client receives the code's own error message.
#[test]
fn an_exception_in_python_reaches_the_client_as_one_in_javascript_does() {
    let server = Server::start_with(ServerOptions {
        auth: "mode = 'tokens'",
        // A debug build on a busy machine.
        hooks: "timeout = '1 m'".to_owned(),
        // Panics of the guest, whose messages appear in the log.
        panics_allowed: true,
        ..ServerOptions::default()
    });
    let admin = std::fs::read_to_string(server.directory().join("data/admin.token")).expect("a token");
    let api = server.client();
    let ask = |method: &str, path: &str, token: &str| {
        api.request(method, path).header("Authorization", &format!("Bearer {}", token.trim_end()))
    };
    // The caller's name selects the component's behaviour: this one raises `ValueError("crashed")`.
    let made = ask("POST", "/tokens", &admin).json(&json!({"name": "crash", "role": "writer"})).send().expect(201);
    let writer = made.json()["token"].as_str().expect("a token").to_owned();
    let javascript = "export function preCreate() { throw new RangeError('crashed'); }";
    let hooks = [
        (
            "javascript",
            "text/javascript",
            Some(javascript.as_bytes().to_vec()),
            "RangeError: crashed (line 1, column 41)",
        ),
        ("python", "application/wasm", guest("suite_python.wasm"), "ValueError: crashed"),
    ];
    for (model, media_type, code, says) in hooks {
        let Some(code) = code else { continue };
        ask("POST", "/models", &admin).json(&json!({"id": model, "schema": {"type": "object"}})).send().expect(201);
        let hook = format!("/models/{model}/hooks/preCreate");
        ask("PUT", &hook, &admin).body(media_type, code).send().expect(200);
        let create = ask("POST", &format!("/models/{model}/instances"), &writer);
        let problem = create.json(&json!({"data": {}})).send().expect_problem(502, "hook-failed");
        let detail = problem["detail"].as_str().expect("a text");
        let begins = format!("pre hook `{model}.preCreate/preCreate` failed (exception), so nothing was stored: ");
        assert!(detail.starts_with(&begins) && detail.ends_with(says), "{problem}");
        assert_eq!(problem["hook"], "preCreate", "{problem}");
        let log = ask("GET", &format!("{hook}/log"), &admin).send().expect(200).text();
        assert!(log.contains(says), "{log}");
    }
}
