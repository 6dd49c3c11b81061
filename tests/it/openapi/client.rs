//! A client generated from the document: it compiles, and runs the demo.

use std::process::Command;

use super::tools::{packages, run};
use super::{create_models, start_with_tokens};

#[test]
fn a_generated_client_compiles_and_passes_the_demo() {
    let Some(packages) = packages() else { return };
    let (server, token) = start_with_tokens("/api");
    let api = server.client();
    create_models(&api, &token);
    let document = api.request("GET", "/openapi.json").header("Authorization", &format!("Bearer {token}"));
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("openapi.json"), document.send().expect(200).body).expect("a file");
    for file in ["demo.ts", "tsconfig.json", "package.json"] {
        std::fs::copy(packages.join(file), folder.path().join(file)).expect("a file of the demo");
    }
    std::os::unix::fs::symlink(packages.join("node_modules"), folder.path().join("node_modules")).expect("a link");
    let node = |program: &str| {
        let mut node = Command::new("node");
        node.current_dir(folder.path()).arg(packages.join("node_modules").join(program));
        node
    };
    run(node("openapi-typescript/bin/cli.js").args(["openapi.json", "-o", "api.d.ts", "--default-non-nullable=false"]));
    run(&mut node("typescript/bin/tsc"));
    let url = format!("http://{}/api", server.address());
    let said = run(Command::new("node").current_dir(folder.path()).args(["demo.js", &url, &token]));
    assert!(said.contains("the demo has passed"), "{said}");
}
