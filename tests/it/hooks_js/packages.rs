//! npm packages in hooks: bundled as authors do it, run on data in both engines, and compared with Node's results.
//! tests/packages contains the hooks, the data and the versions.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::cli::{authoring::build, authoring::sdk_js};
use crate::support::{Client, Server, ServerOptions, skip};
use crate::workbench::{create, grant, open_model};

macro_rules! packages {
    ($($test:ident: $name:literal;)*) => {$(
        #[test]
        fn $test() {
            check($name);
        }
    )*};
}

packages! {
    zod: "zod";
    date_fns: "date-fns";
    lodash_es: "lodash-es";
    luxon: "luxon";
    jose: "jose";
    handlebars: "handlebars";
    faker: "faker";
}

#[track_caller]
fn check(name: &str) {
    let (Some(sdk), Some(packages)) = (sdk_js(), packages()) else { return };
    let place = tempfile::tempdir().expect("a folder");
    let bundle = place.path().join("preCreate.js");
    let source = packages.join("src").join(name).with_extension("js");
    let said = build(
        place.path(),
        Some(&sdk),
        &["hook", "build", &source.to_string_lossy(), "--phase", "preCreate", "--out", &bundle.to_string_lossy()],
    );
    let said = said.ok();
    let bytes = std::fs::read(&bundle).expect("a bundle");
    assert!(said.contains(&format!("quickjs for preCreate, {} bytes", bytes.len())), "{said}");

    let node = Command::new("node").args(["node.mjs", name]).env("TZ", "UTC").current_dir(&packages).output();
    let node = node.expect("node runs");
    assert!(node.status.success(), "{}", String::from_utf8_lossy(&node.stderr));
    let expected: Vec<Value> = serde_json::from_slice(&node.stdout).expect("JSON");
    let data = std::fs::read(packages.join("data.json")).expect("data");
    let data: Value = serde_json::from_slice(&data).expect("JSON");
    let given = data[name].as_array().expect("a list");
    assert!(!given.is_empty() && given.len() == expected.len());

    for engine in ["quickjs", "v8"] {
        let Some((_server, api)) = server(engine) else { continue };
        let path = format!("/models/js/hooks/preCreate?engine={engine}");
        api.request("PUT", &path).body("text/javascript", bytes.clone()).send().expect(200);
        for (given, expected) in given.iter().zip(&expected) {
            // Twice: the second call must see the same state as the first.
            for _ in 0..2 {
                let made = create(&api, "js", &json!({"given": given})).expect(201).json();
                assert_eq!(made["data"]["made"], *expected, "{name} in {engine}");
            }
        }
    }
}

/// A server with that engine, if it is installed.
fn server(engine: &str) -> Option<(Server, Client)> {
    let mut tables = grant("*", "*", "amend = true\ntimeout = '5 s'\nmemory = '256 MiB'");
    if engine == "v8" {
        tables.push_str(&crate::hostile::v8_plugins()?);
    }
    let server = Server::start_with(ServerOptions { tables, ..ServerOptions::default() });
    let api = server.client();
    open_model(&api, "js");
    Some((server, api))
}

/// The folder, with the packages installed.
pub(crate) fn packages() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/packages");
    if ["zod", "standardwebhooks"].iter().all(|name| folder.join("node_modules").join(name).is_dir()) {
        return Some(folder);
    }
    skip("packages of npm", "no packages in tests/packages; `cargo xtask test` installs them, or `npm ci` there");
    None
}
