//! Native hooks from outside: libraries in C, bound over REST, changed while they run.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::support::{Server, ServerOptions, create_orders, eventually, guest, skip};

/// Compiles a file of the repository into the server's hooks folder, atomically. Prints a message and returns `false`
/// if there is no compiler.
fn compile(server: &Server, library: &str, source: &str, flags: &[&str]) -> bool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let hooks = server.directory().join("hooks");
    let new = hooks.join(format!("{library}.new"));
    let mut command = Command::new("cc");
    command.args(["-shared", "-fPIC", "-fexceptions", "-O1"]).args(flags).arg("-I").arg(root.join("sdk/c"));
    match command.arg("-o").arg(&new).arg(root.join(source)).output() {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => {
            skip("libraries in C", &format!("no C compiler `cc`: {error}"));
            return false;
        }
    }
    std::fs::rename(new, hooks.join(library)).expect("a library");
    true
}

const CHECK: &str = "sdk/c/examples/check.c";
const TELLS: &str = "tests/guests/native/tells.c";
const PATH: &str = "/models/order/hooks/preCreate";

fn server(tables: &str) -> Server {
    let server = Server::start_with(ServerOptions { tables: tables.into(), ..ServerOptions::default() });
    create_orders(&server.client(), "order");
    server
}

fn binding(library: &str) -> Value {
    json!({"chain": [{"engine": "native", "library": library}]})
}

fn create(server: &Server, total: f64) -> (u16, Value) {
    let answer = server.client().post("/models/order/instances", &json!({"data": {"name": "a", "total": total}}));
    (answer.status, answer.json())
}

#[test]
fn a_library_is_bound_runs_and_is_told_to_be_without_a_sandbox() {
    let mut server = server("");
    if !compile(&server, "check.so", CHECK, &[]) {
        return;
    }
    let api = server.client();
    let bound = api.put(PATH, &binding("check.so")).expect(200).json();
    let hook = &bound[0];
    assert_eq!(
        (&hook["name"], &hook["engine"], &hook["library"], &hook["sandbox"]),
        (&json!("check"), &json!("native"), &json!("check.so"), &json!("not sandboxed"))
    );
    assert_eq!(api.get("/models/order/hooks").expect(200).json()["preCreate"], bound);
    assert!(list(&server).contains("native (not sandboxed)"), "{}", list(&server));

    let (status, accepted) = create(&server, 5.0);
    assert_eq!(status, 201, "{accepted}");
    let (status, refused) = create(&server, 2e6);
    assert_eq!((status, &refused["hook"]), (422, &json!("check")));
    assert_eq!(refused["errors"], json!([{"pointer": "/data/total", "message": "at most a million"}]));
    let event = api.get(&format!("/events?after={}&limit=1", accepted["position"].as_u64().unwrap_or(1) - 1));
    let event = &event.expect(200).json()["items"][0];
    assert_eq!((&event["hooks"][0]["engine"], &event["hooks"][0]["artifact"]), (&json!("native"), &hook["artifact"]));

    // The library cannot be downloaded, and binding it again changes nothing.
    api.request("GET", PATH).header("Accept", "application/wasm").send().expect_problem(404, "not-found");
    let version = |api: &crate::support::Client| api.get("/models/order").expect(200).json()["version"].clone();
    let before = version(&api);
    assert_eq!(api.put(PATH, &binding("check.so")).expect(200).json(), bound);
    assert_eq!(version(&api), before);

    // After a restart it is loaded again, and the log reports this.
    server = server.restart();
    let told = |line: &String| line.contains("native library `check.so`") && line.contains("not sandboxed");
    eventually("the log says it", || server.log().iter().any(told).then_some(()));
    assert_eq!(create(&server, 2e6).0, 422);
}

fn list(server: &Server) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_snaphook"));
    let url = format!("http://{}", server.address());
    let output = command.args(["--url", &url, "hook", "list"]).output().expect("a list");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_dry_run_tells_that_it_loaded_the_library() {
    let server = server("");
    if !compile(&server, "tells.so", TELLS, &["-DSAYS=one"]) {
        return;
    }
    let api = server.client();
    let tried = api.put(&format!("{PATH}?dry-run=true"), &binding("tells.so")).expect(200).json();
    let warning = tried["warnings"][0].as_str().unwrap_or_default();
    assert!(warning.contains("native library `tells.so` (sha256:"), "{tried}");
    assert!(warning.contains("was loaded into the server to be checked: not sandboxed"), "{warning}");
    assert_eq!(api.get(PATH).expect(200).json(), json!([]), "nothing is bound");
    let metrics = api.get("/metrics").expect(200).text();
    assert!(metrics.contains("snaphook_libraries_loaded{library=\"tells.so\"} 1\n"), "{metrics}");
    let told = |line: &String| line.contains("a dry run has a lasting effect") && line.contains(warning);
    eventually("the log says it", || server.log().iter().any(told).then_some(()));

    // Bind a changed file: the version that was only tried is still loaded.
    assert!(compile(&server, "tells.so", TELLS, &["-DSAYS=two"]));
    let bound = api.put(PATH, &binding("tells.so")).expect(200).json();
    let stays = bound[0]["still_loaded"][0].as_str().unwrap_or_default();
    assert!(!stays.is_empty() && warning.contains(stays), "{bound}");
    // Sandboxed code leaves nothing behind.
    let source = json!({"chain": [{"engine": "quickjs", "source": "export default () => {}"}]});
    let tried = api.put(&format!("{PATH}?dry-run=true"), &source).expect(200).json();
    assert!(tried["event"].is_object() && tried.get("warnings").is_none(), "{tried}");
    // A rejected library was loaded nevertheless.
    api.put("/models/order/hooks/postCreate", &binding("tells.so")).expect_problem(422, "invalid");
    let told = |line: &String| line.contains("was rejected, but stays loaded") && line.contains("not sandboxed");
    eventually("the log says it", || server.log().iter().any(told).then_some(()));
}

#[test]
fn a_trial_at_the_shell_tells_that_nothing_holds_the_library() {
    let server = server("");
    if !compile(&server, "check.so", CHECK, &[]) {
        return;
    }
    let folder = server.directory();
    std::fs::write(folder.join("after.json"), r#"{"name": "a", "total": 2e6}"#).expect("a file");
    let trial = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_snaphook"));
        command.current_dir(folder).args(["hook", "test", "hooks/check.so", "--phase", "preCreate"]);
        let output = command.args(["--after", "after.json"]).args(more).output().expect("a trial");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{stderr}");
        assert!(stderr.contains("warning: native code is not sandboxed"), "{stderr}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let text = trial(&[]);
    assert!(text.contains("verdict: reject") && text.contains("sandbox: not sandboxed"), "{text}");
    let document: Value = serde_json::from_str(&trial(&["--json"])).expect("JSON");
    assert_eq!((&document["verdict"], &document["sandbox"]), (&json!("reject"), &json!("not sandboxed")));
}

#[test]
fn what_cannot_work_is_refused_with_the_way_out() {
    let server = server("");
    if !compile(&server, "check.so", CHECK, &[]) {
        return;
    }
    let hooks = server.directory().join("hooks");
    std::fs::write(hooks.join("text.so"), "no library at all").expect("a file");
    std::fs::write(server.directory().join("outside.so"), "x").expect("a file");
    compile(&server, "other.so", "tests/guests/native/hostile.c", &["-DVERSION=9"]);
    compile(&server, "nothing.so", "tests/guests/native/hostile.c", &["-DSYMBOL=other"]);
    let api = server.client();
    for (path, body, part) in [
        (PATH, binding("missing.so"), "there is no library `missing.so` in the hooks directory"),
        (PATH, binding("../outside.so"), "is not the name of a file in the hooks directory"),
        (PATH, binding("/etc/passwd"), "is not the name of a file in the hooks directory"),
        (PATH, binding(""), "is not the name of a file in the hooks directory"),
        (PATH, binding("text.so"), "hook `text` cannot be bound: `text.so`: the file is not a shared library"),
        (PATH, binding("other.so"), "hook `other` cannot be bound: `other.so`: the library uses version 9"),
        (PATH, binding("nothing.so"), "`nothing.so`: the library does not export `snaphook_hook`"),
        ("/models/order/hooks/postCreate", binding("check.so"), "has no function `react`, which `postCreate` needs"),
        (PATH, json!({"chain": [{"engine": "native", "source": "x"}]}), "name it in `library`"),
        (PATH, json!({"chain": [{"engine": "native", "artifact": "check.so"}]}), "name it in `library`"),
        (PATH, json!({"chain": [{"engine": "quickjs", "library": "check.so"}]}), "`library` is for engine `native`"),
    ] {
        let problem = api.put(path, &body).expect_problem(422, "invalid");
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert!(detail.contains(part), "{body}: {detail}");
    }
    let library = std::fs::read(hooks.join("check.so")).expect("a library");
    let sent = api.request("PUT", &format!("{PATH}?engine=native")).body("application/wasm", library).send();
    sent.expect_problem(422, "invalid");
    assert_eq!(api.get("/models/order").expect(200).json()["version"], 1);
    assert_eq!(api.get("/events?type=hook.updated").expect(200).json()["items"], json!([]));
    assert_eq!(create(&server, 1.0).0, 201);
}

fn said(server: &Server) -> String {
    let (status, answer) = create(server, 1.0);
    assert_eq!(status, 422, "{answer}");
    answer["detail"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_changed_file_runs_without_a_restart_and_calls_under_way_finish() {
    let server = server("");
    if !compile(&server, "tells.so", TELLS, &["-DSAYS=one"]) {
        return;
    }
    let api = server.client();
    let first = api.put(PATH, &binding("tells.so")).expect(200).json()[0].clone();
    assert_eq!(said(&server), "one");

    // During continuous calls, each is served by the old or the new code.
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let said = said(&server);
                    assert!(["one", "two", "three"].contains(&said.as_str()), "{said}");
                }
            });
        }
        for says in ["two", "three"] {
            assert!(compile(&server, "tells.so", TELLS, &[&format!("-DSAYS={says}")]));
            eventually("the new library runs", || (said(&server) == says).then_some(()));
        }
        stop.store(true, Ordering::Relaxed);
    });
    let now = api.get(PATH).expect(200).json()[0].clone();
    assert_ne!(now["artifact"], first["artifact"], "the artifact is that of the code that runs");
    // Nothing is unloaded, and the libraries that stay are reported.
    let stay = now["still_loaded"].as_array().expect("what was replaced");
    assert!(stay.len() == 2 && stay[0] == first["artifact"] && !stay.contains(&now["artifact"]), "{now}");
    let list = list(&server);
    assert!(list.contains("native (not sandboxed, 2 more still loaded)"), "{list}");
    let told = |line: &String| line.contains("not sandboxed") && line.contains("2 other contents of this file stay");
    eventually("the log says it", || server.log().iter().any(told).then_some(()));
    assert_eq!(now["position"], first["position"], "nothing was bound anew");
    let metrics = api.get("/metrics").expect(200).text();
    assert!(metrics.contains("snaphook_libraries_loaded{library=\"tells.so\"} 3\n"), "{metrics}");

    // A file that does not load makes calls fail with a message, until it is replaced.
    std::fs::write(server.directory().join("hooks/tells.so"), "broken").expect("a file");
    let failed = eventually("the broken library is seen", || {
        let (status, answer) = create(&server, 1.0);
        (status == 502).then_some(answer)
    });
    let detail = failed["detail"].as_str().unwrap_or_default();
    assert!(
        detail.contains("failed (load)") && detail.contains("`tells.so`: the file is not a shared library"),
        "{detail}"
    );
    assert!(compile(&server, "tells.so", TELLS, &["-DSAYS=four"]));
    eventually("the new library runs", || (create(&server, 1.0).1["detail"] == "four").then_some(()));
}

#[test]
fn a_pinned_grant_holds_for_the_code_that_runs() {
    let server = server("");
    if !compile(&server, "reads.so", TELLS, &["-DREADS", "-DSAYS=one"]) {
        return;
    }
    let api = server.client();
    let artifact = api.put(PATH, &binding("reads.so")).expect(200).json()[0]["artifact"].clone();
    let config = std::fs::read_to_string(server.config_file()).expect("a config");
    let grant = format!("[[grants]]\nmodel = 'order'\nphase = 'preCreate'\nhook = {artifact}\nread = ['order']\n");
    std::fs::write(server.config_file(), format!("{config}\n{grant}")).expect("a config");
    eventually("the grant is in force", || (said(&server) == "one: 1").then_some(()));

    // A changed file is other code, even with the same name.
    assert!(compile(&server, "reads.so", TELLS, &["-DREADS", "-DSAYS=two"]));
    eventually("the new library runs without the grant", || (said(&server) == "two: 2").then_some(()));
    // Back to the reviewed version.
    assert!(compile(&server, "reads.so", TELLS, &["-DREADS", "-DSAYS=one"]));
    eventually("the reviewed library runs with the grant", || (said(&server) == "one: 1").then_some(()));
}

#[test]
fn a_library_that_never_returns_costs_its_calls_and_nothing_else() {
    let mut server = server("[[grants]]\nmodel = '*'\nphase = '*'\nhook = '*'\ntimeout = '100 ms'");
    if !compile(&server, "stuck.so", "tests/guests/native/hostile.c", &["-DCASE=never_returns"]) {
        return;
    }
    let api = server.client();
    create_orders(&api, "other");
    api.put(PATH, &binding("stuck.so")).expect(200);
    let mut kept_out = false;
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert_eq!(create(&server, 1.0).0, 502));
        }
    });
    for _ in 0..4 {
        let (status, answer) = create(&server, 1.0);
        assert_eq!(status, 502, "{answer}");
        kept_out |= answer["detail"].as_str().is_some_and(|detail| detail.contains("is disabled"));
        api.post("/models/other/instances", &json!({"data": {"name": "a"}})).expect(201);
    }
    assert!(kept_out);
    // The remedy: another file.
    assert!(compile(&server, "stuck.so", CHECK, &[]));
    eventually("the repaired library runs", || (create(&server, 1.0).0 == 201).then_some(()));
    assert!(server.stop().success(), "threads that are lost do not keep the server");
}

#[test]
fn one_source_in_rust_is_a_component_and_a_library() {
    let (Some(component), Some(library)) = (guest("order.wasm"), guest("order.so")) else { return };
    let grants = "[[grants]]\nmodel = 'order'\nphase = 'preCreate'\nread = ['customer']\namend = true\n\
        [[grants]]\nmodel = 'order'\nphase = 'postCreate'\nwrite = ['note']\n";
    let server = Server::start_with(ServerOptions { tables: grants.into(), ..ServerOptions::default() });
    std::fs::write(server.directory().join("hooks/order.so"), library).expect("a library");
    let api = server.client();
    for id in ["order", "customer", "note"] {
        api.post("/models", &json!({"id": id, "schema": {"type": "object"}})).expect(201);
    }
    api.post("/models/customer/instances", &json!({"id": "ada", "data": {"currency": "GBP"}})).expect(201);
    for engine in ["component", "native"] {
        for phase in ["preCreate", "postCreate"] {
            let path = format!("/models/order/hooks/{phase}");
            match engine {
                "component" => api.request("PUT", &path).body("application/wasm", component.clone()).send(),
                _ => api.put(&path, &binding("order.so")),
            }
            .expect(200);
        }
        let body = r#"{"data": {"customer": "ada", "total": 0.10000000000000000001}}"#;
        let create = api.request("POST", "/models/order/instances").body("application/json", body.to_owned()).send();
        let text = create.expect(201).text();
        assert!(text.contains(r#""currency":"GBP""#) && text.contains("0.10000000000000000001"), "{engine}: {text}");
        let position = serde_json::from_str::<Value>(&text).expect("JSON")["position"].clone();
        eventually("the order is noted", || {
            (api.get(&format!("/models/note/instances/at-{position}")).status == 200).then_some(())
        });
        let refused = api.post("/models/order/instances", &json!({"data": {"customer": "bob"}}));
        let problem = refused.expect_problem(422, "rejected");
        assert_eq!(problem["errors"][0]["pointer"], "/data/customer", "{engine}: {problem}");
        let failed = api.post("/models/order/instances", &json!({"data": {"total": 1}}));
        assert_eq!(failed.status, 502, "{engine}: {}", failed.text());
    }
}

#[test]
fn a_call_under_way_ends_on_the_library_that_it_began_on() {
    let server = Server::start_with(ServerOptions { hooks: "timeout = '60 s'".into(), ..ServerOptions::default() });
    create_orders(&server.client(), "order");
    let waits = server.directory().join("waits");
    if !compile(&server, "tells.so", TELLS, &["-DSAYS=one", &format!("-DWAITS={}", waits.display())]) {
        return;
    }
    server.client().put(PATH, &binding("tells.so")).expect(200);
    let says = |answer: (u16, Value)| (answer.0, answer.1["detail"].as_str().unwrap_or_default().to_owned());
    std::thread::scope(|scope| {
        let under_way = scope.spawn(|| create(&server, 77.0));
        eventually("the call began", || waits.exists().then_some(()));
        compile(&server, "tells.so", TELLS, &["-DSAYS=two"]);
        eventually("the new library answers", || says(create(&server, 1.0)).1.contains("two").then_some(()));
        assert!(!under_way.is_finished(), "the first call did not wait");
        std::fs::remove_file(&waits).expect("the file of the first call");
        let (status, detail) = says(under_way.join().expect("an answer"));
        assert!(status == 422 && detail.contains("one"), "{status}: {detail}");
    });
}

#[test]
fn what_breaks_the_rules_is_one_clear_failure_and_stores_nothing() {
    let server = server("");
    let api = server.client();
    create_orders(&api, "other");
    for (case, part) in [
        ("answers_twice", "it answered twice: `accept`, then `amend`"),
        ("never_answers", "it returned without an answer"),
        ("releases_twice", "twice"),
        ("throws", "panicked or threw an exception"),
    ] {
        if !compile(&server, &format!("{case}.so"), "tests/guests/native/hostile.c", &[&format!("-DCASE={case}")]) {
            return;
        }
        api.put(PATH, &binding(&format!("{case}.so"))).expect(200);
        let (status, problem) = create(&server, 1.0);
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert!(status == 502 && detail.contains(part), "{case}: {problem}");
        assert_eq!(problem["hook"], case);
        assert_eq!(api.get("/models/order/instances").expect(200).json()["items"], json!([]), "{case}");
        api.post("/models/other/instances", &json!({"data": {"name": "a", "total": 1}})).expect(201);
    }
}
