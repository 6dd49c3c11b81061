//! Native libraries that cannot be loaded: none of them stops the server, and each is named.
#![cfg(unix)]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Server, ServerOptions, eventually, skip};
use crate::workbench::{create, open_model};

const ENDLESS: &str =
    "__attribute__((constructor)) static void start(void) { for (;;) ; }\nvoid *snaphook_hook(void) { return 0; }";
const CRASHES: &str = "__attribute__((constructor)) static void start(void) { *(volatile int *)0 = 1; }\nvoid *snaphook_hook(void) { return 0; }";
const ENDS: &str = "#include <stdlib.h>\n__attribute__((constructor)) static void start(void) { exit(0); }\nvoid *snaphook_hook(void) { return 0; }";
const DATA: &str = "int snaphook_hook[4] = {1, 2, 3, 4};";
const NO_DESCRIPTOR: &str = "void *snaphook_hook(void) { return (void *)8; }";

/// Prints a message and returns `false` if there is no compiler.
fn compile(hooks: &Path, library: &str, source: &str) -> bool {
    let file = hooks.join(format!("{library}.c"));
    std::fs::write(&file, source).expect("written");
    let new = hooks.join(format!("{library}.new"));
    match Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&new).arg(&file).output() {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => {
            skip("libraries in C", &format!("no C compiler `cc`: {error}"));
            return false;
        }
    }
    std::fs::remove_file(file).expect("removed");
    std::fs::rename(new, hooks.join(library)).expect("a library");
    true
}

#[test]
fn each_is_refused_with_its_name_and_the_server_ends_when_it_is_asked_to() {
    let mut server = Server::start();
    let api = server.client();
    open_model(&api, "order");
    let hooks = server.directory().join("hooks");
    for (library, source, says) in [
        ("data.so", DATA, "is data, expected a function"),
        ("crashes.so", CRASHES, "loading the library failed (signal: 11"),
        ("descriptor.so", NO_DESCRIPTOR, "loading the library failed (signal: 11"),
        ("ends.so", ENDS, "loading the library failed (exit status: 0)"),
        ("endless.so", ENDLESS, "was not loaded within 10 s"),
    ] {
        if !compile(&hooks, library, source) {
            return;
        }
        let chain = json!({"chain": [{"engine": "native", "library": library}]});
        let problem = api.put("/models/order/hooks/preCreate", &chain).expect_problem(422, "invalid");
        let detail = problem["detail"].as_str().expect("a text");
        assert!(detail.contains(says) && detail.contains(&format!("`{library}`")), "{library}: {detail}");
        create(&api, "order", &json!({})).expect(201);
    }
    assert!(server.log().iter().any(|line| line.contains("loading native library `endless.so`")), "{:?}", server.log());
    let asked = Instant::now();
    assert!(server.stop().success());
    assert!(asked.elapsed() < Duration::from_secs(8), "{:?}", asked.elapsed());
}

/// With `apply = true` the start fails and names the file.
#[test]
fn a_start_says_which_library_it_waits_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let hooks = folder.path().join("hooks");
    std::fs::create_dir_all(hooks.join("order")).expect("a folder");
    std::fs::write(hooks.join("order/model.json"), r#"{"schema": {"type": "object"}}"#).expect("written");
    std::fs::write(hooks.join("order/preCreate.toml"), "[[chain]]\nlibrary = 'endless.so'\n").expect("written");
    let config = "[server]\nmount-address = '127.0.0.1:0'\n[auth]\nmode = 'open'\n[hooks]\napply = true\n";
    std::fs::write(folder.path().join("config.toml"), config).expect("written");
    if !compile(&hooks, "endless.so", ENDLESS) {
        return;
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_snaphook"));
    command.arg("serve").current_dir(folder.path()).stdin(Stdio::null());
    let output = command.output().expect("the server");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{text}");
    assert!(text.contains("loading native library `endless.so`"), "{text}");
    assert!(text.contains("`endless.so`: the library was not loaded within 10 s"), "{text}");
}

/// If a library is replaced by one that does not load, calls continue with the old one.
#[test]
fn calls_do_not_wait_for_a_library_that_is_replaced() {
    let good = Path::new(env!("CARGO_MANIFEST_DIR")).join("sdk/c/examples/check.c");
    let server =
        Server::start_with(ServerOptions { hooks: "timeout = '300 ms'".to_owned(), ..ServerOptions::default() });
    let api = server.client();
    open_model(&api, "order");
    let hooks = server.directory().join("hooks");
    let source = std::fs::read_to_string(&good).expect("an example");
    let header = Path::new(env!("CARGO_MANIFEST_DIR")).join("sdk/c/snaphook_hook.h");
    let source = source.replace("#include \"snaphook_hook.h\"", &format!("#include \"{}\"", header.display()));
    if !compile(&hooks, "check.so", &source) {
        return;
    }
    let chain = json!({"chain": [{"engine": "native", "library": "check.so"}]});
    api.put("/models/order/hooks/preCreate", &chain).expect(200);
    create(&api, "order", &json!({"total": 5})).expect(201);
    assert!(compile(&hooks, "check.so", ENDLESS));
    // Until the server finds it: a file that may still be written to is not loaded.
    eventually("it is loaded", || {
        let started = Instant::now();
        create(&api, "order", &json!({"total": 5})).expect(201);
        assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
        server.log().iter().any(|line| line.contains("`check.so` is still being loaded")).then_some(())
    });
    let answer = create(&api, "order", &json!({"total": 5}));
    assert!([201, 502].contains(&answer.status), "{}", answer.text());
}

/// A pipe in place of a file does not block the server.
#[test]
fn pipes_are_no_files() {
    let server = Server::start();
    let api = server.client();
    open_model(&api, "order");
    let hooks = server.directory().join("hooks");
    for name in ["pipe", "pipe.so"] {
        let made = Command::new("mkfifo").arg(hooks.join(name)).status().expect("`mkfifo`");
        assert!(made.success());
    }
    for (chain, says) in [
        (json!({"engine": "component", "artifact": "pipe"}), "not a regular file"),
        (json!({"engine": "quickjs", "artifact": "pipe"}), "not a regular file"),
        (json!({"engine": "native", "library": "pipe.so"}), "is not a file"),
    ] {
        let problem =
            api.put("/models/order/hooks/preCreate", &json!({"chain": [chain]})).expect_problem(422, "invalid");
        assert!(problem["detail"].as_str().expect("a text").contains(says), "{problem}");
    }
    // A pipe in a folder of models and hooks.
    let order = hooks.join("shop");
    std::fs::create_dir(&order).expect("a folder");
    std::fs::write(order.join("model.json"), r#"{"schema": {"type": "object"}}"#).expect("written");
    assert!(Command::new("mkfifo").arg(order.join("preCreate.js")).status().expect("`mkfifo`").success());
    let mut check = Command::new(env!("CARGO_BIN_EXE_snaphook"));
    let output = check.arg("apply").arg("--plan").current_dir(server.directory()).stdin(Stdio::null()).output();
    let output = output.expect("a command");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("preCreate.js") && text.contains("not a regular file"), "{text}");
}
