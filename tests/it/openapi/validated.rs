//! The document is one by the specification, and the server does what it says.

use serde_json::json;

use super::tools::{python, run};
use super::{create_models, models};
use crate::support::{Server, ServerOptions};

#[test]
fn it_is_an_openapi_document_whoever_reads_it() {
    let Some(mut validate) = python("openapi-spec-validator") else { return };
    let tokens = "mode = 'tokens'";
    let folder = tempfile::tempdir().expect("a folder");
    for (auth, name) in [("mode = 'open'", "open.json"), (tokens, "tokens.json")] {
        let server = Server::start_with(ServerOptions { auth, mount_path: "/api/v1", ..ServerOptions::default() });
        let api = server.client();
        let token = std::fs::read_to_string(server.directory().join("data/admin.token")).unwrap_or_default();
        create_models(&api, token.trim());
        let request = api.request("GET", "/openapi.json").header("Authorization", &format!("Bearer {}", token.trim()));
        let file = folder.path().join(name);
        std::fs::write(&file, request.send().expect(200).body).expect("a file");
        validate.arg(file);
    }
    run(&mut validate);
}

/// A fixed seed, and so many examples that it takes a fraction of a minute.
const SEED: &str = "1";
const EXAMPLES: &str = "12";

/// Then it ends with what it has tried.
const SECONDS_MAX: &str = "50";

const CHECKS: [&str; 5] = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
];

/// What never ends, and what would take the server away from the other requests.
const NOT_ASKED: [&str; 3] = ["/events/stream", "/hooks/runs", "/backup"];

#[test]
fn the_server_does_what_it_says() {
    let Some(mut schemathesis) = python("schemathesis") else { return };
    let server = Server::start();
    let api = server.client();
    for model in models() {
        api.post("/models", &model).expect(201);
    }
    for number in 0..3 {
        api.post("/models/order/instances", &json!({"id": format!("o-{number}"), "data": {"name": "n"}})).expect(201);
    }
    let folder = tempfile::tempdir().expect("a folder");
    schemathesis
        .current_dir(folder.path())
        .args(["run", &format!("http://{}/openapi.json", server.address())])
        .args(["--seed", SEED, "--max-examples", EXAMPLES, "--workers", "2", "--request-timeout", "60"])
        .args(["--phases", "examples,coverage,fuzzing", "--no-color", "--generation-database", "none"])
        .args(["--checks", &CHECKS.join(","), "--max-time", SECONDS_MAX]);
    for path in NOT_ASKED {
        schemathesis.args(["--exclude-path", path]);
    }
    let said = run(&mut schemathesis);
    // It has tried what there is.
    assert!(said.contains("createInstance") || said.contains("Test cases"), "{said}");
    api.get("/models/order/instances").expect(200);
}
