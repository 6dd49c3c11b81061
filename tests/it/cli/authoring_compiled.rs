//! Templates of languages whose compilers take seconds: from `hook new` to a bound hook, and under `snaphook dev`.
//!
//! These tests are a separate set from `cli::authoring`, because compilers take cores from tests that measure time.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::dev::{Dev, project};
use super::{Ended, ask, command, folder, replay, run, write};
use crate::docs::needs;
use crate::plugins;
use crate::support::{Server, ServerOptions, create_orders, guest, skip};

/// A component with CPython has 18 MB: the build takes ten seconds and compiling it twenty, more on a busy machine.
const COMPILING: Duration = Duration::from_secs(240);

/// A configuration with an address where no server listens. The cache of compiled code is shared between runs.
fn alone() -> String {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache");
    format!("[server]\nmount-address = '127.0.0.1:1'\n[auth]\nmode = 'open'\n[hooks]\ncache = '{}'\n", cache.display())
}

/// Whether a compiler is available; prints a message if not.
fn has(compiler: &str) -> bool {
    match needs::environment(&[compiler.to_owned()]) {
        Ok(_) => true,
        Err(missing) => {
            skip(&format!("hooks built with `{compiler}`"), &missing);
            false
        }
    }
}

/// Runs a command with the tests' compilers on its `PATH`.
#[track_caller]
fn with_tools(directory: &Path, args: &[&str]) -> Ended {
    command(directory, args).env("PATH", needs::path(directory)).output().expect("the binary runs").into()
}

/// Creates a hook, builds it, tests it without a server, binds it, changes it and binds it again.
#[track_caller]
fn from_new_to_bound(language: &str, source: &str, rule: Option<(&str, &str)>) {
    let server = Server::start();
    let api = server.client();
    create_orders(&api, "order");
    // The template rejects a missing name; this model's schema does not require one, so the hook decides.
    api.post("/models", &json!({"id": "note", "schema": {"type": "object"}})).expect(201);
    let place = folder(&alone());
    let here = place.path();
    let said = run(here, &["hook", "new", "check", "--language", language]).ok();
    assert!(said.contains(&format!("created check/{source}")), "{said}");
    assert!(said.ends_with("next: cd check && snaphook hook test\n"), "{said}");
    let said = with_tools(here, &["hook", "build", "check"]).ok();
    assert!(said.starts_with("check/dist/preCreate.wasm: component for preCreate, "), "{said}");

    // With the template's own data, which has no name.
    let try_it = |data: &str| {
        let args = ["hook", "test", "check/dist/preCreate.wasm", "--after", data, "--json"];
        let tried = run(here, &args).ok();
        serde_json::from_str::<Value>(&tried).expect("one document")
    };
    let tried = try_it("check/test/data.json");
    assert_eq!(
        (&tried["verdict"], &tried["message"], &tried["fields"]),
        (&json!("reject"), &json!("a name is missing"), &json!([{"pointer": "/name", "message": "is missing"}])),
        "{tried}"
    );
    write(here, "named.json", r#"{"name": "a", "total": 5}"#);
    assert_eq!(try_it("named.json")["verdict"], "accept");

    let hook = here.join("check");
    let deploy = ["hook", "deploy", hook.to_str().expect("text"), "--model", "note"];
    let said = ask(&server, &deploy).ok();
    assert!(said.starts_with("note.preCreate/check is bound: component, sha256:"), "{said}");
    api.post("/models/note/instances", &json!({"data": {"name": "a"}})).expect(201);
    let problem = api.post("/models/note/instances", &json!({"data": {"total": 1}})).expect_problem(422, "rejected");
    assert_eq!(problem["errors"], json!([{"pointer": "/data/name", "message": "is missing"}]));

    // Compiler errors are reported, and the previous build stays.
    let built = std::fs::read(hook.join("dist/preCreate.wasm")).expect("a component");
    let text = std::fs::read_to_string(hook.join(source)).expect("a source");
    write(&hook, source, &format!("{text}\n((\n"));
    let said = with_tools(here, &["hook", "build", "check"]).fails();
    assert!(said.contains("failed (exit status: 1); see its output above"), "{said}");
    assert_eq!(std::fs::read(hook.join("dist/preCreate.wasm")).expect("a component"), built);

    // Change the rule.
    let Some((old, new)) = rule else { return };
    assert!(text.contains(old), "the template has what is changed");
    write(&hook, source, &text.replace(old, new));
    with_tools(here, &["hook", "build", "check"]).ok();
    assert!(ask(&server, &deploy).ok().contains("(was component, sha256:"));
    let problem = api.post("/models/note/instances", &json!({"data": {"name": "a"}})).expect_problem(422, "rejected");
    assert_eq!(problem["detail"], "another rule", "{problem}");
}

/// A missing verdict or an invalid tag fails with a message; neither counts as ACCEPT.
#[test]
fn a_verdict_in_c_fails_closed() {
    if !has("clang") {
        return;
    }
    let place = folder(&alone());
    let here = place.path();
    run(here, &["hook", "new", "check", "--language", "c"]).ok();
    let hook = here.join("check");
    let text = std::fs::read_to_string(hook.join("src/hook.c")).expect("a source");
    let accept = "ret->tag = SNAPHOOK_HOOK_TYPES_VERDICT_ACCEPT;";
    assert!(text.contains(accept), "the template has what is changed");
    write(here, "named.json", r#"{"name": "a"}"#);
    for verdict in ["(void)ret;", "ret->tag = 2;", "ret->tag = 200;"] {
        write(&hook, "src/hook.c", &text.replace(accept, verdict));
        with_tools(here, &["hook", "build", "check"]).ok();
        let tried = run(here, &["hook", "test", "check/dist/preCreate.wasm", "--after", "named.json", "--json"]);
        let tried: Value = serde_json::from_str(&tried.stdout).expect("one document");
        let message = "the hook gave up: the hook left a verdict whose tag is neither ACCEPT nor AMEND";
        assert_eq!((&tried["verdict"], &tried["message"]), (&json!("failed"), &json!(message)), "{verdict}");
    }
}

#[test]
fn c_from_new_to_bound() {
    if has("clang") {
        let old = "\"\\\"name\\\"\")) {\n        hook_string_dup(&err->message, \"a name is missing\")";
        let new = "\"\\\"other\\\"\")) {\n        hook_string_dup(&err->message, \"another rule\")";
        from_new_to_bound("c", "src/hook.c", Some((old, new)));
    }
}

#[test]
fn python_from_new_to_bound() {
    if has("componentize-py") {
        from_new_to_bound("python", "app.py", None);
    }
}

/// An endpoint from its template to a response.
#[test]
fn an_endpoint_in_python_from_new_to_an_answer() {
    if !has("componentize-py") {
        return;
    }
    let options = ServerOptions { auth: "mode = 'open'", ..ServerOptions::default() };
    let mut server = Server::start_with(options.clone());
    let place = server.folder();
    let said = run(place.path(), &["module", "new", "quote", "--kind", "endpoint", "--language", "python"]).ok();
    let build = said.lines().find_map(|line| line.strip_prefix("next: cd quote && ")).expect("how it is built");
    let (_, table) = said.split_once("then, in config.toml:\n").expect("what to configure");
    let mut words = build.split(' ');
    let built = std::process::Command::new("/usr/bin/env")
        .args([words.next().expect("a program"), "-q"])
        .args(words)
        .env("PATH", needs::path(place.path()))
        .current_dir(place.path().join("quote"))
        .status();
    assert!(built.expect("it starts").success(), "{build}");
    server.stop();
    let server = Server::start_in(place, ServerOptions { tables: table.to_owned(), ..options });
    let answer = server.client().get("/quote/a?b").expect(200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.json(), json!({"hello": "anonymous", "path": "/quote/a?b"}));
}

/// A project beside a model is built on each save: this is reported at once, and the hook is bound when the build ends.
#[track_caller]
fn built_at_each_save(language: &str, source: &str, rule: (&str, &str)) {
    let place = tempfile::tempdir().expect("a folder");
    let shop = project(place.path());
    let dev = Dev::start_with(command(&shop, &["dev"]).env("PATH", needs::path(&shop)));
    dev.says("watching ");
    let api = dev.client();
    let create = || api.post("/models/order/instances", &json!({"data": {"customer": "ada", "total": 5}}));
    create().expect(201);

    // The build would overwrite the existing hook.
    run(&shop, &["hook", "new", "check", "--language", language, "--in", "hooks/order"]).ok();
    dev.says("hooks/order/check: not built: `preCreate` has `preCreate.ts` already; remove one of the two");
    std::fs::remove_file(shop.join("hooks/order/preCreate.ts")).expect("a file");
    let building = format!("order.preCreate: building check ({language}) …");
    let built = format!("order.preCreate: built check ({language}), ");
    dev.says(&building);
    dev.says_within(COMPILING, &built);
    // The server reuses the code that the build compiled.
    dev.says_within(COMPILING, "hook `order.preCreate`: component (preCreate.wasm), ");
    create().expect_problem(422, "rejected");
    dev.says("    a name is missing");

    let project = shop.join("hooks/order/check");
    let text = std::fs::read_to_string(project.join(source)).expect("a source");
    write(&project, source, &format!("{text}\n((\n"));
    dev.says_within(COMPILING, "hooks/order/check: order.preCreate is not built, ");
    create().expect_problem(422, "rejected");
    assert!(text.contains(rule.0), "the template has what is changed");
    write(&project, source, &text.replace(rule.0, rule.1));
    dev.says_within(COMPILING, "change hook `order.preCreate`: component (preCreate.wasm), ");
    create().expect_problem(422, "rejected");
    dev.says("    another rule");

    let printed = dev.printed();
    let lines: Vec<&str> = printed.lines().collect();
    let at = |text: &str| lines.iter().position(|line| line.starts_with(text)).expect("a line");
    assert!(at(&building) < at(&built), "{printed}");
    // One build per save: the files that a build writes trigger none.
    assert_eq!((dev.count(&building), dev.count(&built)), (3, 2), "{printed}");
}

#[test]
fn dev_builds_c() {
    if has("clang") {
        built_at_each_save("c", "src/hook.c", ("\"a name is missing\"", "\"another rule\""));
    }
}

#[test]
fn dev_builds_python() {
    if has("componentize-py") {
        built_at_each_save("python", "app.py", ("\"a name is missing\"", "\"another rule\""));
    }
}

/// The repository's example, which takes as long to compile as any component with CPython.
#[test]
fn the_python_example_decides_again() {
    let Some(code) = guest("check_python.wasm") else { return };
    let amended = json!([{"pointer": "/currency", "stored": "eur", "now": "EUR"}]);
    let expected = [(1, "reject", json!("at most a million")), (2, "amend", amended)];
    replay::decides(replay::MAY_AMEND, &replay::totals(), "check_python.wasm", &code, &expected);
}

/// While a component compiles for many seconds, other saved hooks are bound.
#[test]
fn dev_binds_while_another_hook_compiles() {
    let Some(code) = guest("check_python.wasm") else { return };
    let place = tempfile::tempdir().expect("a folder");
    let shop = project(place.path());
    // An empty cache: nothing has been compiled there.
    let config = std::fs::read_to_string(shop.join("config.toml")).expect("a configuration");
    let shared = config.lines().find(|line| line.starts_with("cache = ")).expect("the tests' cache");
    write(&shop, "config.toml", &config.replace(shared, "cache = 'cache'"));
    let dev = Dev::start(&shop, &["dev"]);
    dev.says_within(COMPILING, "watching ");
    std::fs::write(shop.join("hooks/order/preUpdate.wasm"), &code).expect("written");
    let announced = format!("order.preUpdate: binding preUpdate.wasm (component, {} bytes) …", code.len());
    dev.says(&announced);
    write(&shop, "hooks/order/preDelete.js", "export const preDelete = () => {};\n");
    dev.says("create hook `order.preDelete`: quickjs (preDelete.js), ");
    let bound = "create hook `order.preUpdate`: component (preUpdate.wasm), ";
    assert!(!dev.printed().contains(bound), "the component took no time: {}", dev.printed());
    dev.says_within(COMPILING, bound);
    assert_eq!((dev.count(&announced), dev.count("preDelete.js")), (1, 1), "{}", dev.printed());
}

/// The SDK in the folder is the only part of Snaphook that the project needs.
#[test]
fn a_plugin_in_rust() {
    if !has("cargo") {
        return;
    }
    let folder = plugins::begun("rust");
    // Compiled dependencies are kept between runs.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("plugin-new");
    let cargo = |command: &str| {
        std::process::Command::new("cargo")
            .arg(command)
            .env("CARGO_TARGET_DIR", &target)
            .current_dir(folder.path().join("my-store"))
            .output()
            .expect("cargo runs")
    };
    let built = cargo("build");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    plugins::serves(&target.join("debug/libmy_store.so"));
    // The conformance suite, outside a checkout.
    let tested = cargo("test");
    let said = String::from_utf8_lossy(&tested.stdout);
    assert!(tested.status.success(), "{said}\n{}", String::from_utf8_lossy(&tested.stderr));
    assert!(said.contains("test secure::listing ... ok"), "{said}");
    // The suite finds an error in a driver.
    let source = folder.path().join("my-store/src/lib.rs");
    let text = std::fs::read_to_string(&source).expect("the driver");
    let wrong = text.replace("name.starts_with(prefix)", "!prefix.is_empty() && name.starts_with(prefix)");
    assert_ne!(wrong, text);
    std::fs::write(&source, wrong).expect("written");
    let tested = cargo("test");
    let said = String::from_utf8_lossy(&tested.stdout);
    assert!(!tested.status.success() && said.contains("test secure::listing ... FAILED"), "{said}");
}
