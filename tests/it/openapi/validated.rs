//! The document is valid, and the server behaves as it describes.

use std::path::Path;
use std::process::Command;

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

/// A fixed seed, and the number of examples per operation.
const SEED: &str = "1";
const EXAMPLES: &str = "6";

/// Predefined values, which take a fraction of a minute; a slow machine must try all of them too.
const LISTED: [&str; 4] = ["--phases", "examples,coverage", "--max-time", "120"];

/// Random values, as many as there is time for.
const RANDOM: [&str; 4] = ["--phases", "fuzzing", "--max-time", "20"];

const CHECKS: [&str; 5] = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
];

/// Operations that never end.
const NOT_ASKED: [&str; 2] = ["followEvents", "followHookRuns"];

/// Operations that change the described models during the test.
const CHANGES_OF_MODELS: [&str; 2] = ["updateModel", "deleteModel"];

#[test]
fn the_server_does_what_it_says() {
    try_all(&LISTED);
}

#[test]
fn the_server_does_what_it_says_of_random_requests() {
    try_all(&RANDOM);
}

/// Tries all operations except those that would interfere.
#[track_caller]
fn try_all(phases: &[&str]) {
    let Some(schemathesis) = python("schemathesis") else { return };
    let server = Server::start();
    let api = server.client();
    for model in models() {
        api.post("/models", &model).expect(201);
    }
    for number in 0..3 {
        api.post("/models/order/instances", &json!({"id": format!("o-{number}"), "data": {"name": "n"}})).expect(201);
    }
    let without = [NOT_ASKED, CHANGES_OF_MODELS].concat();
    // Models that the requests create have additional operations.
    let asked = operations(&server) - without.len();
    let which = without.iter().flat_map(|id| ["--exclude-operation-id", *id]);
    let said = attempt(schemathesis, &server, phases, which);
    assert!(said.contains(&format!("Tested: {asked}\n")), "not all {asked} operations were asked\n{said}");
    api.get("/models/order/instances").expect(200);
}

#[test]
fn changes_of_models_do_what_they_say() {
    let Some(schemathesis) = python("schemathesis") else { return };
    let server = Server::start();
    let which = CHANGES_OF_MODELS.iter().flat_map(|id| ["--include-operation-id", *id]);
    let said = attempt(schemathesis, &server, &LISTED, which);
    assert!(said.contains("Tested: 2\n"), "{said}");
}

/// The number of operations in the document.
fn operations(server: &Server) -> usize {
    let document = server.client().get("/openapi.json").expect(200).json();
    let paths = document["paths"].as_object().expect("paths");
    paths.values().map(|path| path.as_object().map_or(0, serde_json::Map::len)).sum()
}

/// Lets Schemathesis try the operations that `which` selects; it must find nothing.
#[track_caller]
fn attempt<'a>(
    mut schemathesis: Command,
    server: &Server,
    phases: &[&str],
    which: impl Iterator<Item = &'a str>,
) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    for file in ["schemathesis.toml", "hooks.py"] {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/openapi").join(file);
        std::fs::copy(source, folder.path().join(file)).expect("a file");
    }
    // Schemathesis would skip the operation that it reads the document from.
    let document = server.client().get("/openapi.json").expect(200).body;
    std::fs::write(folder.path().join("openapi.json"), document).expect("a file");
    schemathesis
        .current_dir(folder.path())
        .args(["run", "openapi.json", "--url", &format!("http://{}", server.address())])
        .args(["--seed", SEED, "--max-examples", EXAMPLES, "--workers", "1", "--request-timeout", "60"])
        .args(["--no-color", "--generation-database", "none", "--checks", &CHECKS.join(",")])
        .args(phases)
        .args(which);
    run(&mut schemathesis)
}
