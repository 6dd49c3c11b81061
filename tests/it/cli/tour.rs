//! A tour: the output and exit code of each command, with and without a server.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{Background, Ended, ask, command, folder, run, run_with, write};
use crate::support::{PATIENCE, Server, ServerOptions, create_orders, eventually, order_schema};

/// A configuration for a folder without a server: no server listens at its address.
const LOCAL: &str = "[server]\nmount-address = '127.0.0.1:1'\n[auth]\nmode = 'open'\n";

/// Waits for the command to end.
fn finish(child: Child) -> Ended {
    let output = child.wait_with_output().expect("the command ends");
    output.into()
}

/// A command whose output is read while it runs.
fn piped(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = command(directory, arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn help_teaches() {
    let folder = folder(LOCAL);
    let help = run(folder.path(), &["--help"]).ok();
    for command in ["serve", "check", "rebuild", "events", "errors", "secret", "hook", "apply"] {
        assert!(help.contains(&format!("\n  {command} ")), "{command}: {help}");
        assert!(!run(folder.path(), &["help", command]).ok().is_empty());
    }
    assert!(help.contains("Examples:"), "{help}");
    assert_eq!(run(folder.path(), &["serv"]).code, Some(2));
}

#[test]
fn check_tells_all_faults_at_once() {
    let broken = folder(&format!(
        "{LOCAL}[hooks]\ntimeout = '0 s'\nmemry = '1 MiB'\n[driver-event-storage]\ndriver = 'sqlit'\n[[grants]]\nmodel = 'a'\n\
         phase = 'preCreate'\nhttp = ['https://example.com/*']\n"
    ));
    let expected = [
        "config.toml:6: `hooks.timeout` is `0 s`, expected 1 ms to 10 m, such as '500 ms'",
        "config.toml:7: unknown key `hooks.memry`, did you mean `hooks.memory`?",
        "config.toml:9: `driver-event-storage.driver`: there is no driver `sqlit`, did you mean `sqlite`?; registered: `memory` \
         (secure, event, model, error), `file` (secure, event, model, error), `sqlite` (event, model, error), `stdout` \
         (error), `remote` (secure, event, model, error), `http` (error), `crud` (model), `postgres` (event, model, error), \
         `redis` (secure), `nats` (secure, event)",
        "config.toml:13: `grants.http` can never be used by `preCreate`: only post phases have it",
    ];
    for arguments in [&["check"][..], &["serve"], &[], &["rebuild"], &["secret", "list"]] {
        assert_eq!(run(broken.path(), arguments).fails().lines().collect::<Vec<_>>(), expected, "{arguments:?}");
    }
    let entries = std::fs::read_dir(broken.path()).expect("a folder").count();
    assert_eq!(entries, 1, "a refused configuration must leave nothing behind");

    assert_eq!(
        run(folder(LOCAL).path(), &["check"]).ok(),
        "config.toml is fine: serves at http://127.0.0.1:1, no grants\n"
    );
    let elsewhere = tempfile::tempdir().expect("a folder");
    let named = broken.path().join("config.toml");
    let named = named.to_str().expect("UTF-8");
    assert!(run(elsewhere.path(), &["check", "--config", named]).fails().starts_with(&format!("{named}:6: ")));
}

#[test]
fn without_a_file_it_serves_this_machine_and_says_so() {
    let empty = tempfile::tempdir().expect("a folder");
    // If another process has the port, the command ends as below.
    let mut child = piped(empty.path(), &[]).spawn().map(Background).expect("the binary starts");
    let stderr = child.0.stderr.take().expect("a pipe");
    let mut lines = BufReader::new(stderr).lines().map_while(Result::ok);
    if lines.by_ref().any(|line| line.contains("started in ") && line.ends_with(" ms")) {
        TcpStream::connect("127.0.0.1:1337").expect("the server listens");
        let mode = std::fs::metadata(empty.path().join("data")).expect("a folder").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
    drop(child);
    // The port is taken, by this test or by another process: the command prints the address and ends.
    let _taken = std::net::TcpListener::bind("127.0.0.1:1337");
    for arguments in [&[][..], &["serve"]] {
        let said = run(empty.path(), arguments).fails();
        let line = "no config.toml here: serving this machine alone, at 127.0.0.1:1337, without authentication, and with the \
                    defaults for the rest";
        assert_eq!(said.matches(line).count(), 1, "{said}");
        assert!(said.contains("`server.mount-address` is `127.0.0.1:1337`, which cannot be listened on"), "{said}");
    }
}

#[test]
fn an_open_address_is_refused() {
    let open = folder("[server]\nmount-address = '0.0.0.0:0'\n[auth]\nmode = 'open'\n");
    let refused = run(open.path(), &["serve"]).fails();
    assert!(
        refused.starts_with("config.toml:2: `server.mount-address` is `0.0.0.0:0` and `auth.mode` is 'open': "),
        "{refused}"
    );
}

#[test]
fn a_step_that_fails_stops_the_start() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address");
    let config = format!("[server]\nmount-address = '{address}'\n[auth]\nmode = 'open'\n");
    let error = run(folder(&config).path(), &["--log", "error"]).fails();
    assert!(
        error.starts_with(&format!("error: `server.mount-address` is `{address}`, which cannot be listened on: ")),
        "{error}"
    );

    let misspelt = folder(&format!("{LOCAL}[driver-model-storage]\npath = 'data/m.db'\nsync = true\n"));
    let error = run(misspelt.path(), &["serve", "--log", "error"]).fails();
    assert!(error.starts_with("config.toml:7: unknown key `driver-model-storage.sync`"), "{error}");

    let faulty = folder(&format!("{}[hooks]\napply = true\n", LOCAL.replace(":1'", ":0'")));
    write(faulty.path(), "hooks/a/model.json", "{\"shema\": 1}");
    let error = run(faulty.path(), &["serve", "--log", "error"]).fails();
    assert!(error.contains("model.json: unknown member `shema`: did you mean `schema`?"), "{error}");
}

#[test]
fn one_server_per_folder() {
    let server = Server::start();
    let error = run(server.directory(), &["serve", "--log", "error"]).fails();
    assert!(error.contains("`driver-secure-storage`") && error.contains("in use"), "{error}");
    // The first server is unaffected.
    server.client().get("/readyz").expect(200);
}

#[test]
fn secrets_without_a_server() {
    let folder = folder(LOCAL);
    let run = |arguments: &[&str]| run(folder.path(), arguments);
    assert_eq!(run_with(folder.path(), &["secret", "set", "mail-key"], "hunter2\n").ok(), "secret `mail-key` is set\n");
    write(folder.path(), "value", "two\nlines\n");
    run(&["secret", "set", "file.key", "--file", "value"]).ok();
    assert_eq!(run(&["secret", "list"]).ok(), "file.key\nmail-key\n");
    assert_eq!(run(&["secret", "rm", "file.key"]).ok(), "secret `file.key` is removed\n");
    assert_eq!(run(&["secret", "rm", "file.key"]).fails(), "error: there is no secret `file.key`\n");
    assert_eq!(run(&["secret", "list"]).ok(), "mail-key\n");
    assert!(run(&["secret", "set", "a b"]).fails().contains("is not a valid secret name"));
    assert!(run(&["secret", "set", "empty"]).fails().contains("is empty"));
    assert!(run(&["--url", "http://127.0.0.1:1", "secret", "list"]).fails().contains("no server responds"));
    // The secret is not readable on disk.
    for entry in std::fs::read_dir(folder.path().join("data/secrets")).expect("the storage") {
        let bytes = std::fs::read(entry.expect("an entry").path()).expect("a file");
        assert!(!bytes.windows(7).any(|window| window == b"hunter2"));
    }
    // Without the key the secret is unreadable, and the command reports it.
    std::fs::remove_file(folder.path().join("data/secret.key")).expect("the key");
    assert!(run(&["secret", "list"]).fails().contains("restore the file"));
}

#[test]
fn secrets_of_a_server() {
    let server = Server::start();
    let url = format!("http://{}", server.address());
    run_with(server.directory(), &["--url", &url, "secret", "set", "k"], "v").ok();
    assert_eq!(server.client().get("/secrets").expect(200).json()["items"], json!(["k"]));
    assert_eq!(ask(&server, &["secret", "list"]).ok(), "k\n");
    ask(&server, &["secret", "rm", "k"]).ok();
    assert_eq!(ask(&server, &["secret", "list"]).ok(), "");
}

#[test]
fn what_needs_a_server_says_so() {
    let folder = folder(LOCAL);
    for arguments in
        [&["events"][..], &["events", "--follow"], &["errors", "list"], &["hook", "list"], &["errors", "drop", "x"]]
    {
        assert_eq!(
            run(folder.path(), arguments).fails(),
            "error: no server responds at http://127.0.0.1:1; start one with `snaphook serve`, or name another with \
             `--url`\n"
        );
    }
    assert!(run(folder.path(), &["--url", "localhost", "events"]).fails().contains("expected such as"));
}

#[test]
fn apply_makes_a_server_match() {
    let server = Server::start();
    let api = server.client();
    create_orders(&api, "other");
    let files = server.directory();
    write(files, "hooks/order/model.json", &json!({"schema": order_schema()}).to_string());
    write(
        files,
        "hooks/order/preCreate.ts",
        "export function preCreate({ after }: { after: any }) { if (!after.total) throw new Reject('no total'); }",
    );
    write(
        files,
        "hooks/order/postCreate.toml",
        "[[chain]]\nname = 'one'\nfile = 'one.js'\n[[chain]]\nname = 'two'\nfile = 'two.js'\n",
    );
    write(files, "hooks/order/one.js", "export function postCreate() {}");
    write(files, "hooks/order/two.js", "export default function () {}");
    write(files, "hooks/examples/preCreate.js", "not meant for anyone");
    let steps = "create model `order`\ncreate hook `order.preCreate`: quickjs (preCreate.ts)\n\
                 create hook `order.postCreate`: one (quickjs, one.js), two (quickjs, two.js)\n";
    assert_eq!(ask(&server, &["apply", "--plan"]).ok(), steps);
    api.get("/models/order").expect(404);
    assert_eq!(ask(&server, &["apply"]).ok(), steps);
    assert_eq!(ask(&server, &["apply", "hooks"]).ok(), "nothing to do, 1 model up to date\n");
    api.post("/models/order/instances", &json!({"data": {"name": "a"}})).expect(422);
    api.post("/models/order/instances", &json!({"data": {"name": "a", "total": 1}})).expect(201);
    let hooks = api.get("/models/order/hooks").expect(200).json();
    assert_eq!(hooks["postCreate"].as_array().expect("a chain").len(), 2);

    // A change, a removal, and a model without a file.
    let mut schema = order_schema();
    schema["properties"]["note"] = json!({"type": "string"});
    write(files, "hooks/order/model.json", &json!({"schema": schema, "indexes": [["total"]]}).to_string());
    std::fs::remove_file(files.join("hooks/order/preCreate.ts")).expect("a file");
    write(files, "hooks/order/one.js", "export function postCreate() { return }");
    assert_eq!(
        ask(&server, &["apply"]).ok(),
        "change model `order`: schema, indexes\nremove hook `order.preCreate`: preCreate, no file names it\n\
         change hook `order.postCreate`: one (quickjs, one.js), two (quickjs, two.js)\n"
    );
    api.post("/models/order/instances", &json!({"data": {"name": "a", "note": "x"}})).expect(201);
    api.get("/models/other").expect(200);

    // A failed step is reported, and later steps do not run.
    write(files, "hooks/order/one.js", "export function postCreate() {");
    let error = ask(&server, &["apply"]).fails();
    assert!(error.contains("the steps after this one were not taken"), "{error}");
    write(files, "hooks/order/model.json", "{");
    let error = ask(&server, &["apply"]).fails();
    assert!(
        error.starts_with("error: nothing was applied:\n")
            && error.contains("hooks/order/model.json:1: not valid JSON"),
        "{error}"
    );
    assert!(ask(&server, &["apply", "nowhere"]).fails().contains("`nowhere` is not a folder"));
}

#[test]
fn apply_at_start() {
    let options = ServerOptions { hooks: "apply = true".to_owned(), ..ServerOptions::default() };
    let server = Server::start_with(options);
    write(server.directory(), "hooks/order/model.json", &json!({"schema": order_schema()}).to_string());
    write(server.directory(), "hooks/order/preCreate.js", "export function preCreate() {}");
    let server = server.restart();
    let model = server.client().get("/models/order").expect(200).json();
    assert_eq!(model["hooks"]["preCreate"], json!(["preCreate"]));
    let server = server.restart();
    assert_eq!(server.client().get("/models/order").expect(200).json(), model, "what is so already is left alone");
}

#[test]
fn hooks_are_bound_and_listed() {
    let server = Server::start();
    create_orders(&server.client(), "order");
    assert_eq!(ask(&server, &["hook", "list"]).ok(), "no hooks\n");
    write(server.directory(), "check.js", "export function preCreate() {}");
    let put = ["hook", "put", "check.js", "--model", "order", "--phase", "preCreate", "--name", "check"];
    assert!(ask(&server, &put).ok().starts_with("order.preCreate/check is bound: quickjs, sha256:"));
    let list = ask(&server, &["hook", "list", "order"]).ok();
    let rows: Vec<Vec<&str>> = list.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["PHASE", "NAME", "ENGINE", "MODE", "BYTES", "ORIGIN", "ARTIFACT"]);
    assert_eq!(rows[1][..5], ["order.preCreate", "check", "quickjs", "enforce", "30"]);
    ask(&server, &[&put[..], &["--shadow"]].concat()).ok();
    assert!(ask(&server, &["hook", "list"]).ok().contains("shadow"));

    write(server.directory(), "broken.js", "export function preCreate( {");
    let error = ask(&server, &["hook", "put", "broken.js", "--model", "order", "--phase", "preCreate"]).fails();
    assert!(error.contains("\nerror: "), "{error}");
    assert!(ask(&server, &["hook", "put", "check.js", "--model", "order"]).fails().contains("`check` is not a phase"));
    assert_eq!(ask(&server, &["hook", "put", "check.js", "--phase", "precreate"]).code, Some(2));
}

#[test]
fn a_hook_is_tried_without_a_server() {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache");
    let folder = folder(&format!(
        "{LOCAL}[hooks]\ncache = '{}'\n[[grants]]\nmodel = 'order'\nphase = 'preCreate'\namend = true\nread = ['order']\n",
        cache.display()
    ));
    let path = folder.path();
    write(path, "hooks/order/model.json", &json!({"schema": order_schema()}).to_string());
    write(
        path,
        "hooks/order/preCreate.ts",
        "export async function preCreate({ after, read, log }: any) {
           log.info('looking at ' + after.name);
           if (after.name === 'bad') throw new Reject('bad name', { '/name': 'is bad' });
           if (after.name === 'worse') throw new Error('oh no');
           const one = await read.get('order', 'nobody');
           try { await read.get('customer', 'x') } catch (error) { log.warn(error.code) }
           return { ...after, status: one === null ? 'alone' : 'not alone' };
         }",
    );
    write(path, "good.json", r#"{"name": "good", "total": 9007199254740993}"#);
    write(path, "bad.json", r#"{"name": "bad"}"#);
    write(path, "worse.json", r#"{"name": "worse"}"#);
    let test = |after: &str, more: &[&str]| {
        run(path, &[&["hook", "test", "hooks/order/preCreate.ts", "--after", after], more].concat())
    };
    let good = test("good.json", &[]).ok();
    for part in [
        "verdict: amend\n",
        "\"total\": 9007199254740993",
        "\"status\": \"alone\"",
        "log: info: looking at good\n",
        "log: warn: denied\n",
        "asked for read `order`: granted\n",
        "asked for read `customer`: denied\n",
        "\ntime: ",
        "\nmemory: ",
    ] {
        assert!(good.contains(part), "{part}: {good}");
    }
    let document: Value = serde_json::from_str(&test("good.json", &["--json"]).ok()).expect("JSON");
    assert_eq!((&document["verdict"], &document["data"]["status"]), (&json!("amend"), &json!("alone")));
    assert!(test("bad.json", &[]).ok().starts_with("verdict: reject: bad name\n  /name: is bad\n"));
    let worse = test("worse.json", &[]);
    assert!(worse.stdout.starts_with("failed (exception): ") && worse.stdout.contains("oh no"), "{}", worse.stdout);
    assert_eq!(worse.fails(), "error: the hook failed\n");
    // Only `order` has the grant.
    let other = test("good.json", &["--model", "other"]);
    assert!(other.stdout.contains("[[grants]]"), "{}", other.stdout);
    other.fails();
    assert!(run(path, &["hook", "test", "hooks/order/preCreate.ts"]).fails().contains("`preCreate` needs `--after`"));
    assert!(!path.join("data").exists(), "a trial must leave nothing behind");
}

#[test]
fn events_are_listed_and_followed() {
    let server = Server::start();
    let api = server.client();
    create_orders(&api, "order");
    for name in ["a", "b", "c"] {
        api.post("/models/order/instances", &json!({"id": name, "data": {"name": name}})).expect(201);
    }
    let instances = |text: &str| -> Vec<String> {
        let events = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("one document per line"));
        events.map(|event| event["instance"].as_str().unwrap_or("-").to_owned()).collect()
    };
    assert_eq!(instances(&ask(&server, &["events"]).ok()), ["-", "a", "b", "c"]);
    assert_eq!(instances(&ask(&server, &["events", "--model", "order", "--instance", "b"]).ok()), ["b"]);
    assert_eq!(instances(&ask(&server, &["events", "--type", "instance.created", "-n", "2"]).ok()), ["a", "b"]);
    assert!(ask(&server, &["events", "--type", "created"]).fails().contains("expected some of model.created"));

    let url = format!("http://{}", server.address());
    let follow = ["--url", &url, "events", "--follow", "--after", "0", "-n", "6"];
    let mut child = piped(server.directory(), &follow).spawn().expect("the binary starts");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let mut next = || instances(&lines.next().expect("a line").expect("UTF-8")).remove(0);
    assert_eq!([next(), next(), next(), next()], ["-", "a", "b", "c"]);
    api.delete("/models/order/instances/a").expect(204);
    assert_eq!(next(), "a");
    api.delete("/models/order/instances/b").expect(204);
    assert_eq!(next(), "b");
    assert_eq!(finish(child).code, Some(0));

    // Without a start position only new events are shown.
    let mut child =
        piped(server.directory(), &["--url", &url, "events", "--follow", "-n", "1"]).spawn().expect("a start");
    let mut late = 0;
    eventually("it has seen one", || {
        late += 1;
        let id = format!("late-{late}");
        api.post("/models/order/instances", &json!({"id": id, "data": {"name": id}})).expect(201);
        child.try_wait().expect("a child")
    });
    let seen = instances(&finish(child).stdout).remove(0);
    assert!(seen.starts_with("late-"), "{seen}");

    // A closed output pipe is not an error.
    let mut child =
        piped(server.directory(), &["--url", &url, "events", "--follow", "--after", "0"]).spawn().expect("a start");
    drop(child.stdout.take());
    assert_eq!(finish(child).code, Some(0));
}

#[test]
fn errors_are_retried_and_dropped() {
    let server = Server::start_with(ServerOptions { hooks: "max-attempts = 1".into(), ..ServerOptions::default() });
    let api = server.client();
    create_orders(&api, "order");
    let bind = |source: &str| {
        api.request("PUT", "/models/order/hooks/postCreate?name=print")
            .body("text/javascript", source)
            .send()
            .expect(200);
    };
    bind("export function postCreate({ after }) { throw new Error('no paper: ' + after.name) }");
    assert_eq!(ask(&server, &["errors", "list"]).ok(), "no errors\n");
    for name in ["a", "b", "c"] {
        api.post("/models/order/instances", &json!({"data": {"name": name}})).expect(201);
    }
    let documents = eventually("the errors are recorded", || {
        let text = ask(&server, &["errors", "list", "--json"]).ok();
        let documents: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        (documents.len() == 3).then_some(documents)
    });
    let list = ask(&server, &["errors", "list", "--hook", "print"]).ok();
    assert!(list.contains("order.postCreate/print") && list.contains("no paper"), "{list}");
    assert_eq!(list.lines().count(), 4, "{list}");

    assert!(ask(&server, &["errors", "retry"]).fails().contains("name the ids of errors"));
    assert_eq!(ask(&server, &["errors", "retry", "--model", "order", "--dry-run"]).ok(), "3 would be retried\n");
    let id = documents[0]["id"].as_str().expect("an id");
    let again = ask(&server, &["errors", "retry", id]);
    assert!(
        again.stdout.contains("failed again: ") && again.stdout.contains("1 retried, 0 succeeded"),
        "{}",
        again.stdout
    );
    again.fails();
    assert_eq!(ask(&server, &["errors", "drop", id]).ok(), "1 dropped\n");

    bind("export function postCreate() {}");
    assert_eq!(ask(&server, &["errors", "retry", "--all"]).ok(), "2 retried, 2 succeeded\n");
    assert_eq!(ask(&server, &["errors", "list"]).ok(), "no errors\n");
}

#[test]
fn rebuild_with_and_without_a_server() {
    let mut server = Server::start();
    let api = server.client();
    create_orders(&api, "order");
    for name in ["a", "b"] {
        api.post("/models/order/instances", &json!({"id": name, "data": {"name": name}})).expect(201);
    }
    let before = api.get("/models/order/instances/a").expect(200).json();
    assert_eq!(ask(&server, &["rebuild"]).ok(), "the model store is rebuilt from 3 events\n");
    assert_eq!(api.get("/models/order/instances/a").expect(200).json(), before);
    // Not while a server is running.
    let error = run(server.directory(), &["rebuild"]).fails();
    assert!(error.contains("storage"), "{error}");

    server.stop();
    std::fs::remove_file(server.directory().join("data/models.db")).expect("the model store");
    assert_eq!(run(server.directory(), &["rebuild"]).ok(), "the model store is rebuilt from 3 events\n");
    let server = server.restart_ended();
    assert_eq!(server.client().get("/models/order/instances/a").expect(200).json(), before);
}

#[test]
fn the_configuration_is_loaded_again() {
    let server = Server::start();
    let api = server.client();
    create_orders(&api, "order");
    api.put_javascript(
        "order",
        "preCreate",
        "export function preCreate({ after }) { return { ...after, status: 'seen' } }",
    )
    .expect(200);
    let create = || api.post("/models/order/instances", &json!({"data": {"name": "a"}}));
    create().expect(502);
    let lines = api.get("/models/order/hooks/preCreate/log").expect(200).json();
    let mut messages = lines["items"].as_array().expect("lines").iter().filter_map(|line| line["message"].as_str());
    let (_, grant) =
        messages.find_map(|said| said.split_once("config.toml:\n")).expect("the lines that would grant it");

    let file = server.directory().join("config.toml");
    let before = std::fs::read_to_string(&file).expect("the configuration");
    let logged = |part: &str| eventually(part, || server.log().iter().any(|line| line.contains(part)).then_some(()));

    // Pasting the lines of the denial into the file is enough, also when an editor replaces the file.
    let new = server.directory().join("config.new");
    std::fs::write(&new, format!("{before}\n{grant}\n")).expect("a file");
    std::fs::rename(&new, &file).expect("a file");
    logged("now in force: grants");
    assert_eq!(create().expect(201).json()["data"]["status"], "seen");

    // A rejected configuration changes nothing.
    std::fs::write(&file, format!("{before}\n{grant}\n[[grants]]\nmodel = 'x'\n")).expect("a file");
    logged("the previous configuration stays in force");
    create().expect(201);

    // Settings that need a restart are named; the others take effect. SIGHUP does the same.
    let changed = before.replace("[auth]", "workers = 3\nmax-body = '1 KiB'\n[auth]");
    std::fs::write(&file, format!("{changed}\n{grant}\n")).expect("a file");
    logged("`server.workers` has changed and needs a restart");
    logged("now in force: server.max-body");
    api.post("/models/order/instances", &json!({"data": {"name": "a".repeat(2000)}})).expect(413);
    let lines = server.log().len();
    server.signal(Signal::HUP);
    eventually("it is loaded again", || {
        server.log()[lines..].iter().any(|line| line.contains("reloaded")).then_some(())
    });
}

#[test]
fn signals() {
    let mut server = Server::start();
    let status = server.stop();
    assert_eq!(status.code(), Some(0));
    assert!(server.log().iter().any(|line| line.contains("stopped")), "{:?}", server.log());

    // A running request delays the shutdown; a second signal ends the wait.
    let mut server = Server::start();
    create_orders(&server.client(), "order");
    let mut slow = TcpStream::connect(server.address()).expect("the server listens");
    slow.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    slow.write_all(
        b"POST /models/order/instances HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\
          Expect: 100-continue\r\n\r\n",
    )
    .expect("the server reads");
    let mut line = String::new();
    BufReader::new(&slow).read_line(&mut line).expect("an answer");
    assert_eq!(line, "HTTP/1.1 100 Continue\r\n", "the server waits for the body now");
    server.signal(Signal::INT);
    eventually("it stops", || server.log().iter().any(|line| line.contains("a second signal, ")).then_some(()));
    assert_eq!(server.end_by(Signal::TERM).code(), Some(143));
}
