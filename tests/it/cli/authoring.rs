//! From an empty folder to a bound hook: `init`, `hook new`, `build`, `test`, `deploy`, `types`.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{Background, Ended, ask, command, folder, run, write};
use crate::support::{Server, create_orders, skip};

/// A configuration with an address where no server listens.
const ALONE: &str = "[server]\nmount-address = '127.0.0.1:1'\n[auth]\nmode = 'open'\n";

/// The JavaScript SDK with its dependencies; prints a message and returns `None` without them.
pub(crate) fn sdk_js() -> Option<PathBuf> {
    let sdk = Path::new(env!("CARGO_MANIFEST_DIR")).join("sdk/js");
    if sdk.join("node_modules/.bin/esbuild").exists() {
        return Some(sdk);
    }
    skip("bundles", "no esbuild in sdk/js; `cargo xtask test` installs it, or `npm ci` there");
    None
}

/// Runs a command with esbuild on its `PATH`, or with an empty one.
#[track_caller]
pub(crate) fn build(directory: &Path, sdk: Option<&Path>, args: &[&str]) -> Ended {
    let mut command = command(directory, args);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path: Vec<PathBuf> = match sdk {
        Some(sdk) => std::iter::once(sdk.join("node_modules/.bin")).chain(std::env::split_paths(&path)).collect(),
        None => vec![directory.join("nothing")],
    };
    command.env("PATH", std::env::join_paths(path).expect("a path"));
    command.output().expect("the binary runs").into()
}

/// Each template contains its contracts and says how to build it.
#[test]
fn endpoints_and_modules_begin_in_three_languages() {
    let place = folder("");
    let here = place.path();
    for (language, build, component) in [
        ("rust", "cargo build --release --target wasm32-wasip2", "target/wasm32-wasip2/release/q_rust.wasm"),
        ("js", "npm install && npm run build", "q-js.wasm"),
        ("python", "componentize-py -d wit -w endpoint componentize app -o q-python.wasm", "q-python.wasm"),
    ] {
        let name = format!("q-{language}");
        let said = run(here, &["module", "new", &name, "--kind", "endpoint", "--language", language]).ok();
        assert!(said.contains(&format!("next: cd {name} && {build}\n")), "{said}");
        let table =
            format!("[[server.endpoints]]\nname = '{name}'\npath = '/{name}'\ncomponent = '{name}/{component}'\n");
        assert!(said.ends_with(&table), "{said}");
        let contract =
            std::fs::read_to_string(here.join(&name).join("wit/deps/snaphook-hook.wit")).expect("a contract");
        assert!(contract.contains("package snaphook:hook@0.1.0;"), "{contract}");
    }
    for language in ["rust", "js", "python"] {
        let name = format!("m-{language}");
        let said = run(here, &["module", "new", &name, "--kind", "module", "--language", language]).ok();
        assert!(said.contains(&format!("[[server.modules]]\nname = '{name}'\ncomponent = '{name}/")), "{said}");
        let contract = std::fs::read_to_string(here.join(&name).join("wit/deps/snaphook-module.wit"));
        assert!(contract.expect("a contract").contains("package snaphook:module@0.1.0;"));
    }
    let again = |name: &str| run(here, &["module", "new", name, "--kind", "endpoint", "--language", "js"]).fails();
    assert!(again("q-js").contains("already exists"));
    assert!(again("A b").contains("not a valid name for a module or an endpoint"));
}

#[test]
fn a_new_project_runs_at_once() {
    let place = tempfile::tempdir().expect("a folder");
    let said = run(place.path(), &["init", "shop"]).ok();
    assert!(said.contains("created shop/config.toml") && said.ends_with("next: cd shop && snaphook dev\n"), "{said}");
    let shop = place.path().join("shop");
    // The configuration stays as written, except for the port.
    let config = std::fs::read_to_string(shop.join("config.toml")).expect("a configuration");
    let cache = format!("[hooks]\ncache = '{}'\n", Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache").display());
    write(&shop, "config.toml", &config.replace(":1337", ":0").replace("[hooks]\n", &cache));
    assert!(run(&shop, &["check"]).ok().contains("1 model applied at start"));

    let mut child = command(&shop, &["serve"]).stdout(std::process::Stdio::piped()).spawn().expect("the binary starts");
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().expect("a pipe")));
    let _server = Background(child);
    let line = lines.next().expect("a line").expect("text");
    let address = line.rsplit("http://").next().expect("an address").trim_end_matches('/').parse().expect("an address");
    let api = crate::support::Client::new(address, "/");
    let created = api.post("/models/order/instances", &json!({"data": {"customer": "ada", "total": 42.5}}));
    let data = created.expect(201).json()["data"].clone();
    assert_eq!(data, json!({"customer": "ada", "total": 42.5, "status": "open", "currency": "EUR"}));
    let refused = api.post("/models/order/instances", &json!({"data": {"customer": "ada", "total": 1e7}}));
    refused.expect_problem(422, "rejected");

    let again = run(place.path(), &["init", "shop"]).fails();
    assert!(again.contains("`shop` already exists"), "{again}");
}

#[test]
fn javascript_from_new_to_bound() {
    let Some(sdk) = sdk_js() else { return };
    for (language, source) in [("js", "src/index.js"), ("ts", "src/index.ts")] {
        let server = Server::start();
        let api = server.client();
        create_orders(&api, "order");
        let place = folder(ALONE);
        let here = place.path();
        let said = run(here, &["hook", "new", "check", "--language", language]).ok();
        assert!(said.contains(&format!("created check/{source}")), "{said}");
        let hook = here.join("check");
        // Laid out as `npm install` does it, without a registry.
        let modules = hook.join("node_modules");
        std::fs::create_dir_all(modules.join("@snaphook")).expect("a folder");
        std::os::unix::fs::symlink("../../snaphook", modules.join("@snaphook/hook")).expect("a link");
        if language == "ts" {
            let mut node = std::process::Command::new("node");
            let output =
                node.arg(sdk.join("node_modules/typescript/bin/tsc")).current_dir(&hook).output().expect("node");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        }

        // Nothing can be bound before the build. The build bundles the imported file.
        let missing = ask(&server, &["hook", "deploy", hook.to_str().expect("text"), "--model", "order"]).fails();
        assert!(missing.contains("dist/preCreate.js` cannot be read"), "{missing}");
        write(&hook, "src/limit.js", "// A rule.\nexport const LIMIT = 7;\n");
        let text = std::fs::read_to_string(hook.join(source)).expect("a source");
        let changed = format!(
            "import {{ LIMIT }} from \"./limit.js\";\n{}",
            text.replace("  log.info(", "  if (data.total > LIMIT) throw new Reject(`at most ${LIMIT}`);\n  log.info(")
        );
        assert_eq!(changed.lines().count(), text.lines().count() + 2, "the template has the line that is changed");
        write(&hook, source, &changed);
        let said = build(here, Some(&sdk), &["hook", "build", "check"]).ok();
        assert!(said.starts_with("check/dist/preCreate.js: quickjs for preCreate, "), "{said}");

        // In the hook's folder no argument is needed.
        let tried = build(&hook, Some(&sdk), &["hook", "test", "--json"]);
        assert!(tried.stderr.contains("dist/preCreate.js: quickjs for preCreate, "), "{}", tried.stderr);
        let tried: Value = serde_json::from_str(&tried.ok()).expect("one document");
        assert_eq!((tried["verdict"].as_str(), tried["message"].as_str()), (Some("reject"), Some("at most 7")));

        // In the real engine, without a server.
        write(here, "new.json", r#"{"total": 8}"#);
        let tried = run(here, &["hook", "test", "check/dist/preCreate.js", "--after", "new.json", "--json"]).ok();
        let tried: Value = serde_json::from_str(&tried).expect("one document");
        assert_eq!((tried["verdict"].as_str(), tried["message"].as_str()), (Some("reject"), Some("at most 7")));

        // Bind it, bind the same again, and bind a change.
        let deploy = ["hook", "deploy", hook.to_str().expect("text"), "--model", "order"];
        let said = ask(&server, &deploy).ok();
        assert!(said.starts_with("order.preCreate/check is bound: quickjs, sha256:"), "{said}");
        assert_eq!(ask(&server, &deploy).ok(), "order.preCreate/check is bound already, unchanged\n");
        api.post("/models/order/instances", &json!({"data": {"name": "a", "total": 8}}))
            .expect_problem(422, "rejected");
        write(&hook, "src/limit.js", "// A rule.\nexport const LIMIT = 9;\n");
        build(here, Some(&sdk), &["hook", "build", "check"]).ok();
        assert!(ask(&server, &deploy).ok().contains("(was quickjs, sha256:"));
        api.post("/models/order/instances", &json!({"data": {"name": "a", "total": 8}})).expect(201);
        let file = hook.join("dist/preCreate.js");
        let renamed = ["hook", "put", file.to_str().expect("text"), "--model", "order", "--name", "other"];
        let said = ask(&server, &renamed).ok();
        assert!(said.contains("order.preCreate/other is bound") && said.contains("check is no longer bound"), "{said}");
    }
}

#[test]
fn what_cannot_be_built_is_said() {
    let place = folder(ALONE);
    let here = place.path();
    let fails = |sdk: Option<&Path>, args: &[&str]| build(here, sdk, args).fails();
    assert!(fails(None, &["hook", "build"]).contains("has no `hook.toml`"));
    // For each missing tool: its name, and how to install it.
    for (language, tool, way) in [
        ("js", "esbuild", "`npm install --save-dev esbuild`"),
        ("rust", "rustc", "https://rustup.rs"),
        ("c", "clang", "`apt install clang"),
        ("python", "componentize-py", "`pip install componentize-py`"),
    ] {
        run(here, &["hook", "new", language, "--language", language]).ok();
        for args in [&["hook", "build", language][..], &["hook", "test", language]] {
            let said = build(here, None, args).lacks();
            assert!(
                said.contains(&format!("`{tool}`, which builds the hook, is not installed")) && said.contains(way),
                "{said}"
            );
        }
    }
    for language in ["rust", "c"] {
        let name = format!("{language}-native");
        run(here, &["hook", "new", &name, "--language", language, "--native"]).ok();
        let said = build(here, None, &["hook", "build", &name]).lacks();
        assert!(said.contains(", which builds the hook, is not installed; "), "{said}");
    }
    let name = run(here, &["hook", "new", "x", "--language", "js", "--native"]).fails();
    assert!(name.contains("native hooks are in Rust or C"), "{name}");
    let name = run(here, &["hook", "new", "a b", "--language", "js"]).fails();
    assert!(name.contains("`a b` is not a hook name"), "{name}");
    assert_eq!(run(here, &["hook", "new", "x", "--language", "cobol"]).code, Some(2));

    let Some(sdk) = sdk_js() else { return };
    // Errors in the source have a location; the previous build stays.
    write(here, "js/dist/preCreate.js", "before");
    for (source, expected) in [
        ("export const preCreate = () => {\n  let a = ;\n};\n", "src/index.js:2:10"),
        ("import \"node:fs\";\nexport const preCreate = () => {};\n", "node:fs"),
        ("export const preCraete = () => {};\n", "exports no handler for `preCreate`"),
    ] {
        write(here, "js/src/index.js", source);
        let said = fails(Some(&sdk), &["hook", "build", "js"]);
        assert!(said.contains(expected), "{said}");
        assert_eq!(std::fs::read_to_string(here.join("js/dist/preCreate.js")).expect("a file"), "before");
    }
    // Too large: the message has the size, the limit, and the largest parts.
    write(here, "js/src/large.js", &format!("export const text = \"{}\";\n", "x".repeat(1 << 20)));
    write(here, "js/src/index.js", "import { text } from './large.js';\nexport const preCreate = () => ({ text });\n");
    let said = fails(Some(&sdk), &["hook", "build", "js"]);
    assert!(said.contains("at most 1048576 are possible") && said.contains("src/large.js"), "{said}");
    assert!(said.contains("nothing was written to `js/dist/preCreate.js`"), "{said}");
}

#[test]
fn typescript_that_cannot_be_stripped_has_its_line() {
    let server = Server::start();
    create_orders(&server.client(), "order");
    let source = "type Total = number;\nexport function preCreate({ after }: { after: { total: Total } }) {\n  const a: = 5;\n}\n";
    write(server.directory(), "preCreate.ts", source);
    let said = ask(&server, &["hook", "deploy", "preCreate.ts", "--model", "order"]).fails();
    assert!(said.contains("line 3"), "{said}");
    write(server.directory(), "new.json", "{}");
    let said = run(server.directory(), &["hook", "test", "preCreate.ts", "--after", "new.json"]).fails();
    assert!(said.contains("line 3, column"), "{said}");
    assert_eq!(server.client().get("/models/order/hooks/preCreate").expect(200).json(), json!([]));
}

#[test]
fn types_of_a_model_hold() {
    let server = Server::start();
    create_orders(&server.client(), "order");
    let said = ask(&server, &["hook", "types", "order"]).ok();
    assert_eq!(said, "wrote order.d.ts\nwrote snaphook-hook.d.ts\n");
    let here = server.directory();
    let types = std::fs::read_to_string(here.join("order.d.ts")).expect("types");
    assert!(types.contains("  name: string;\n  total?: number;\n"), "{types}");
    let unknown = ask(&server, &["hook", "types", "nothing"]).fails();
    assert!(unknown.contains("nothing"), "{unknown}");

    let Some(sdk) = sdk_js() else { return };
    let compiler = json!({"target": "es2023", "lib": ["es2023"], "types": [], "module": "esnext", "strict": true,
        "moduleResolution": "bundler", "noEmit": true, "skipLibCheck": false});
    let project = json!({"compilerOptions": compiler, "include": ["*.ts"]});
    write(here, "tsconfig.json", &project.to_string());
    let check = |body: &str| {
        write(here, "hook.ts", &format!("import type {{ PreCreate, PostUpdate }} from \"./order\";\n{body}\n"));
        let mut node = std::process::Command::new("node");
        let output = node.arg(sdk.join("node_modules/typescript/bin/tsc")).current_dir(here).output().expect("node");
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let good = "export const preCreate: PreCreate = ({ after, log }) => {\n  log.info(after.customer?.city);\n  \
        if ((after.total ?? 0) > 5) throw new Reject(\"no\", { \"/total\": \"too much\" });\n  return { ...after, paid: true };\n};\n\
        export const postUpdate: PostUpdate = async ({ before, after, write, event }) => {\n  \
        if (before.name !== after.name) write.create(\"audit\", { name: after.name, at: event.position });\n};";
    let (fits, said) = check(good);
    assert!(fits, "{said}");
    // Every global of the engines is declared, and every declared global exists.
    let declared = globals(&std::fs::read_to_string(sdk.join("index.d.ts")).expect("types"));
    for name in ["console", "fetch", "URL", "setTimeout", "Response", "crypto", "performance", "structuredClone"] {
        assert!(declared.iter().any(|known| known == name), "{name}: {declared:?}");
    }
    let uses: Vec<String> = declared.iter().map(|name| format!("typeof {name}")).collect();
    let (fits, said) =
        check(&format!("export const preCreate: PreCreate = ({{ log }}) => log.info([{}]);", uses.join(", ")));
    assert!(fits, "{said}");
    let names = serde_json::to_string(&declared).expect("JSON");
    write(
        here,
        "look.js",
        &format!(
            "export default ({{ log }}) => log.info('missing:', ...{names}.filter((name) => !(name in globalThis)), '.');"
        ),
    );
    write(here, "new.json", "{}");
    let said = run(here, &["hook", "test", "look.js", "--phase", "preCreate", "--after", "new.json"]).ok();
    assert!(said.contains("log: info: missing: .\n"), "{said}");
    for bad in [
        "export const preCreate: PreCreate = ({ log }) => log.info(new Blob());",
        "export const preCreate: PreCreate = ({ log }) => log.info(new URL('https://a.example').hots);",
        "export const preCreate: PreCreate = ({ after }) => { after.nmae; };",
        "export const preCreate: PreCreate = ({ after }) => ({ ...after, paid: 1 });",
        "export const preCreate: PreCreate = ({ write }) => {};",
    ] {
        let (fits, said) = check(bad);
        assert!(!fits && said.contains("hook.ts(2,"), "{bad}: {said}");
    }
    // A project's own types apply to its own hook.
    let place = tempfile::tempdir().expect("a folder");
    run(place.path(), &["init", "shop"]).ok();
    let shop = place.path().join("shop");
    let mut node = std::process::Command::new("node");
    let output = node.arg(sdk.join("node_modules/typescript/bin/tsc")).current_dir(&shop).output().expect("node");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let again = run(&shop, &["hook", "types", "order"]).ok();
    assert_eq!(again, "wrote hooks/order/order.d.ts\nwrote hooks/snaphook-hook.d.ts\n");
}

/// The names of the globals that the types declare as values.
fn globals(types: &str) -> Vec<String> {
    let (_, global) = types.split_once("declare global {").expect("globals");
    let name = |line: &str| {
        let rest = ["var ", "function ", "class "].into_iter().find_map(|word| line.trim_start().strip_prefix(word))?;
        Some(rest.split(|char: char| !char.is_ascii_alphanumeric()).next()?.to_owned())
    };
    global.lines().filter_map(name).collect()
}

#[test]
fn the_rust_template_is_a_hook() {
    let environment = match crate::docs::needs::environment(&["wasm32".to_owned()]) {
        Ok(environment) => environment,
        Err(missing) => {
            return skip("the template in Rust", &missing);
        }
    };
    let place = folder(ALONE);
    let here = place.path();
    run(here, &["hook", "new", "check", "--language", "rust"]).ok();
    // An error returned by `?` and a panic both reach the caller.
    let source = here.join("check/src/lib.rs");
    let text = std::fs::read_to_string(&source).expect("a source");
    let changed = text.replace(
        "        if data.total < 0.0 {",
        "        if data.total > 1e6 {\n            snaphook_hook::read::get::<Data>(\"secret\", \"x\")?;\n        }\n        \
         assert!(data.total < 1000.0, \"a total of {}\", data.total);\n        if data.total < 0.0 {",
    );
    assert_ne!(changed, text);
    std::fs::write(&source, changed).expect("written");
    let mut building = command(here, &["hook", "build", "check"]);
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("rust-template");
    for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"] {
        building.env_remove(name);
    }
    let output = building.envs(environment).env("CARGO_TARGET_DIR", target).output().expect("the binary runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.starts_with("check/dist/preCreate.wasm: component for preCreate, "), "{said}");
    for (data, verdict) in [(r#"{"total": 1}"#, "accept"), (r#"{"total": -1}"#, "reject")] {
        write(here, "new.json", data);
        let tried = run(here, &["hook", "test", "check/dist/preCreate.wasm", "--after", "new.json", "--json"]).ok();
        let tried: Value = serde_json::from_str(&tried).expect("one document");
        assert_eq!(
            (tried["verdict"].as_str(), tried["log"].as_array().map(Vec::len)),
            (Some(verdict), Some(1)),
            "{tried}"
        );
    }
    for (data, says) in [
        (r#"{"total": 5000}"#, "the hook gave up: panicked at src/lib.rs:"),
        (r#"{"total": 5e6}"#, "asked for read of model `secret`, which no grant opens; to allow it, add to "),
    ] {
        write(here, "new.json", data);
        let tried = run(here, &["hook", "test", "check/dist/preCreate.wasm", "--after", "new.json", "--json"]);
        let tried: Value = serde_json::from_str(&tried.stdout).expect("one document");
        let message = tried["message"].as_str().unwrap_or_default();
        assert!(message.contains(says), "{says}: {tried}");
        // The message ends with the lines that grant it, for the hook as it is bound.
        if let Some((_, lines)) = message.split_once("[[grants]]") {
            let table: toml::Table = format!("[[grants]]{lines}").parse().expect("TOML");
            assert_eq!(table["grants"][0]["hook"].as_str(), Some("check"), "{message}");
        }
    }
}

/// A library for this machine, from its template to a bound hook.
#[test]
fn native_hooks_from_new_to_bound() {
    for (language, tool, message) in [("c", "cc", "a name is missing"), ("rust", "cargo", "a total below zero")] {
        if let Err(missing) = crate::docs::needs::environment(&[tool.to_owned()]) {
            skip(&format!("native hooks in {language}"), &missing);
            continue;
        }
        let server = Server::start();
        let api = server.client();
        api.post("/models", &json!({"id": "note", "schema": {"type": "object"}})).expect(201);
        let place = folder(ALONE);
        let here = place.path();
        run(here, &["hook", "new", "check", "--language", language, "--native"]).ok();
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("native-template");
        let library = format!("check.{}", std::env::consts::DLL_EXTENSION);
        let bound = server.directory().join("hooks").join(&library);
        std::fs::create_dir_all(bound.parent().expect("a folder")).expect("a folder");
        let mut building = command(here, &["hook", "build", "check", "--out", bound.to_str().expect("text")]);
        let built: Ended = building.env("CARGO_TARGET_DIR", &target).output().expect("the binary runs").into();
        assert!(built.stderr.contains("native code is not sandboxed"), "{}", built.stderr);
        assert!(built.ok().contains(&format!("{library}: native for preCreate, ")));
        let data = r#"{"total": -1}"#;
        write(here, "new.json", data);
        let mut trying = command(&here.join("check"), &["hook", "test", "--after", "../new.json", "--json"]);
        let tried: Ended = trying.env("CARGO_TARGET_DIR", &target).output().expect("the binary runs").into();
        let tried: Value = serde_json::from_str(&tried.ok()).expect("one document");
        assert_eq!((&tried["verdict"], &tried["message"]), (&json!("reject"), &json!(message)), "{tried}");
        // A server loads no library from the project's folder.
        let elsewhere = here.join("check");
        let said = ask(&server, &["hook", "deploy", elsewhere.to_str().expect("text"), "--model", "note"]).fails();
        let build = format!("snaphook hook build {} --out hooks/{library}\n", elsewhere.display());
        let bind = format!("snaphook hook deploy hooks/{library} --model note --phase preCreate\n");
        assert!(said.contains(&build) && said.contains(&bind), "{said}");
        let deploy = ["hook", "deploy", bound.to_str().expect("text"), "--model", "note", "--phase", "preCreate"];
        assert!(ask(&server, &deploy).ok().starts_with("note.preCreate/check is bound: native, "));
        let refused =
            api.post("/models/note/instances", &json!({"data": {"total": -1}})).expect_problem(422, "rejected");
        assert_eq!(refused["detail"], message);
    }
}

/// `hook test` passes the data that a server would pass: it must match the model's schema and gets the schema's
/// defaults. For a hook folder beside the model's files, the schema and the configuration are found automatically.
#[test]
fn a_trial_is_of_data_that_fits() {
    let Some(sdk) = sdk_js() else { return };
    let place =
        folder(&format!("{ALONE}[[grants]]\nmodel = 'order'\nhook = 'check'\nphase = 'preCreate'\namend = true\n"));
    let here = place.path();
    let schema = json!({"schema": {"type": "object", "required": ["total"], "properties": {
        "total": {"type": "number", "maximum": 100}, "status": {"type": "string", "default": "open"}}}});
    write(here, "hooks/order/model.json", &schema.to_string());
    run(here, &["hook", "new", "check", "--language", "js", "--in", "hooks/order"]).ok();
    let hook = here.join("hooks/order/check");
    write(&hook, "src/index.js", "export const preCreate = ({ after }) => ({ ...after, seen: after.status });\n");
    let test = |more: &[&str]| build(&hook, Some(&sdk), &[&["hook", "test"], more].concat());
    let tried: Value = serde_json::from_str(&test(&["--json"]).ok()).expect("one document");
    assert_eq!(
        (&tried["verdict"], &tried["data"]),
        (&json!("amend"), &json!({"total": 42, "status": "open", "seen": "open"})),
        "{tried}"
    );
    write(&hook, "test/data.json", r#"{"total": 1000, "status": 7}"#);
    let said = test(&[]).fails();
    assert!(said.contains("the data does not fit the model `order`"), "{said}");
    assert!(said.contains("\n  /total: ") && said.contains("\n  /status: "), "{said}");
    // The same for a file in the model's folder.
    write(here, "hooks/order/preCreate.js", "export const preCreate = ({ after, log }) => log.info(after.status);\n");
    write(here, "new.json", r#"{"total": 1}"#);
    let said = build(here, None, &["hook", "test", "hooks/order/preCreate.js", "--after", "new.json"]).ok();
    assert!(said.contains("log: info: open\n"), "{said}");
    assert!(!here.join("data").exists());
}

/// The package's own tests, with this build's binary.
#[test]
fn the_javascript_package() {
    let Some(sdk) = sdk_js() else { return };
    let mut node = std::process::Command::new("node");
    node.args(["--test", "test/package.test.js"]).current_dir(&sdk).env("SNAPHOOK", env!("CARGO_BIN_EXE_snaphook"));
    node.env_remove("SNAPHOOK_CONFIG").env_remove("SNAPHOOK_URL").env_remove("NODE_TEST_CONTEXT");
    let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins");
    match plugins.join("v8/libmini_racer.so").is_file() {
        true => drop(node.env("SNAPHOOK_PLUGINS", plugins)),
        false => skip("the JavaScript package with v8", "V8 is not in plugins/v8; `cargo xtask v8` fetches it"),
    }
    let output = node.output().expect("node");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// What an author sees of a bundle: its size, source locations in errors, and a warning about slow top-level code.
#[test]
fn bundles_are_small_and_lead_back() {
    let Some(sdk) = sdk_js() else { return };
    let place = folder(ALONE);
    let (lib, text) = (place.path().join("node_modules/lib"), "x".repeat(50));
    std::fs::create_dir_all(&lib).expect("a folder");
    write(&lib, "package.json", r#"{"name": "lib", "version": "1.0.0", "type": "module", "main": "index.js"}"#);
    write(
        &lib,
        "index.js",
        "export function check(value) {\n  if (value === 3) throw new Error('in the package');\n}\n",
    );
    std::fs::create_dir_all(place.path().join("src")).expect("a folder");
    write(
        place.path(),
        "src/limits.ts",
        "export const LIMIT: number = 2;\n\nexport function refuse(value: number): never {\n  throw new Error(`too much: ${value}`);\n}\n",
    );
    let entry = format!(
        "// {text}\nimport {{ check }} from 'lib';\nimport {{ LIMIT, refuse }} from './limits';\n\nconst longName: string = '{text}';\n\n\
         export const preCreate = ({{ after }}: any) => {{\n  if (after.n > LIMIT && after.n !== 3) refuse(after.n);\n  check(after.n);\n  after.text = longName;\n}};\n"
    );
    write(place.path(), "src/index.ts", &entry);
    let built = |flags: &[&str]| {
        let args =
            [&["hook", "build", "src/index.ts", "--phase", "preCreate", "--out", "preCreate.js"], flags].concat();
        let said = build(place.path(), Some(&sdk), &args).ok();
        let bundle = std::fs::read_to_string(place.path().join("preCreate.js")).expect("a bundle");
        assert!(said.contains(&format!("{} bytes", bundle.len())), "{said}");
        let (code, map) = bundle.split_once("\n//# sourceMappingURL=").expect("a source map");
        assert!(map.len() < 1000, "only of the author's files: {}", map.len());
        code.to_owned()
    };
    let (small, large) = (built(&[]), built(&["--no-minify"]));
    assert!(!small.contains("longName") && large.contains("longName") && small.len() < large.len());
    for flags in [&[][..], &["--no-minify"]] {
        built(flags);
        for (n, says) in [
            (9, "threw Error: too much: 9 (limits.ts, line 4, column "),
            // The innermost location in the author's own files.
            (3, "threw Error: in the package (index.ts, line 9, column "),
        ] {
            write(place.path(), "after.json", &json!({"n": n}).to_string());
            let said = run(place.path(), &["hook", "test", "preCreate.js", "--after", "after.json"]);
            assert!(said.stdout.contains(says), "{flags:?}\n{}\n{}", said.stdout, said.stderr);
        }
        write(place.path(), "after.json", r#"{"n": 1}"#);
        let said = run(place.path(), &["hook", "test", "preCreate.js", "--after", "after.json"]).ok();
        assert!(said.contains("`after` was changed and not returned"), "{said}");
    }
    // Takes more than 5 ms on any machine.
    let slow = "let sum = 0; for (let i = 0; i < 3e6; i++) sum += i;";
    for (head, says) in [("", "runs it once, when the hook is bound"), ("Date.now();", "since it asks for the time")] {
        write(place.path(), "slow.js", &format!("{head} {slow}\nexport default () => {{ if (sum < 0) throw 1 }};\n"));
        let ended =
            build(place.path(), Some(&sdk), &["hook", "build", "slow.js", "--phase", "preCreate", "--out", "x.js"]);
        let said = ended.stderr.clone();
        ended.ok();
        assert!(said.contains("warning: its top level") && said.contains(says), "{says}: {said}");
    }
}
