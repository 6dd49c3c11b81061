//! Commands that talk to a server: events, errors, secrets, hooks.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::{Value, json};

use super::{Background, START, ask, ask_with, command, folder, run, run_with, write};
use crate::support::{Server, ServerOptions, eventually};
use crate::workbench::{create_and_wait, failure_of, grant, once, open_model};

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

#[test]
fn events() {
    let server = Server::start();
    let api = server.client();
    for model in ["one", "two"] {
        open_model(&api, model);
        for id in ["a", "b"] {
            api.post(&format!("/models/{model}/instances"), &json!({"id": id, "data": {}})).expect(201);
        }
    }
    api.delete("/models/one/instances/a").expect(204);
    let all = api.get("/events?limit=1000").expect(200).json()["items"].clone();
    let of = |args: &[&str]| {
        let mut command = vec!["events"];
        command.extend(args);
        lines(&ask(&server, &command).ok())
    };
    assert_eq!(json!(of(&[])), all);
    let position = all[2]["position"].to_string();
    assert_eq!(json!(of(&["--after", &position])), json!(all.as_array().expect("a list")[3..]));
    assert_eq!(of(&["--limit", "2"]).len(), 2);
    assert_eq!(of(&["-n", "0"]).len(), 0);
    let kinds: Vec<Value> =
        of(&["--model", "one", "--instance", "a"]).iter().map(|event| event["type"].clone()).collect();
    assert_eq!(kinds, ["instance.created", "instance.deleted"]);
    assert_eq!(of(&["--model", "two", "--type", "model.created,instance.created"]).len(), 3);
    let said = ask(&server, &["events", "--type", "instance.exploded"]).fails();
    assert!(said.contains("instance.exploded"), "{said}");
    assert_eq!(ask(&server, &["events", "--instance", "a"]).code, Some(2));
}

#[test]
fn more_events_than_one_page() {
    let server = Server::start();
    let api = server.client();
    open_model(&api, "many");
    let body: String = (0..1500).map(|n| format!("{{\"id\":\"i{n}\",\"data\":{{}}}}\n")).collect();
    api.request("POST", "/models/many/import").body("application/x-ndjson", body).send().expect(200);
    let events = lines(&ask(&server, &["events"]).ok());
    assert_eq!(events.len(), 1501);
    let positions: Vec<u64> = events.iter().map(|event| event["position"].as_u64().expect("a number")).collect();
    assert!(positions.is_sorted_by(|a, b| a < b));
    assert_eq!(ask(&server, &["events", "--limit", "1200"]).ok().lines().count(), 1200);
}

#[test]
fn events_as_they_happen() {
    let server = Server::start();
    let api = server.client();
    open_model(&api, "one");
    let url = format!("http://{}", server.address());
    let mut command =
        command(server.directory(), &["--url", &url, "events", "--follow", "--after", "0", "--limit", "4"]);
    let mut child = Background(
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the binary starts"),
    );
    let mut seen = BufReader::new(child.0.stdout.take().expect("a pipe")).lines();
    let mut next = || -> Value { serde_json::from_str(&seen.next().expect("a line").expect("text")).expect("JSON") };
    assert_eq!(next()["type"], "model.created");
    for id in ["a", "b", "c"] {
        api.post("/models/one/instances", &json!({"id": id, "data": {}})).expect(201);
        assert_eq!(next()["instance"], id);
    }
    // Four events were requested.
    let ended = eventually("it ends", || child.0.try_wait().expect("a child"));
    assert!(ended.success());
}

#[test]
fn errors() {
    let server = Server::start_with(once(""));
    let api = server.client();
    for model in ["one", "two"] {
        open_model(&api, model);
        api.put_javascript(
            model,
            "postCreate",
            "export default ({ after, log }) => { log.info('trying'); throw new Error(`no ${after.n}\\nmore`) }",
        )
        .expect(200);
    }
    assert_eq!(ask(&server, &["errors", "list"]).ok(), "no errors\n");
    let mut ids = Vec::new();
    for (model, n) in [("one", 1), ("one", 2), ("two", 3)] {
        let instance = create_and_wait(&api, model, &json!({"n": n}));
        ids.push(failure_of(&api, model, &instance)["id"].as_str().expect("a text").to_owned());
    }
    let table = ask(&server, &["errors", "list"]).ok();
    let rows: Vec<&str> = table.lines().collect();
    assert_eq!(rows.len(), 4, "{table}");
    assert!(
        rows[0].starts_with("ID ")
            && rows[1].contains("one.postCreate/postCreate")
            && rows[1].contains("threw at line 1, column 80: Error: no 1"),
        "{table}"
    );
    assert_eq!(ask(&server, &["errors", "list", "--model", "two"]).ok().lines().count(), 2);
    let records = lines(&ask(&server, &["errors", "list", "--json"]).ok());
    assert_eq!(
        (records.len(), &records[0]["event"]["data"], &records[0]["log"]),
        (3, &json!({"n": 1}), &json!(["info trying"]))
    );

    let said = ask(&server, &["errors", "retry"]).fails();
    assert!(said.contains("`--all`"), "{said}");
    assert_eq!(ask(&server, &["errors", "retry", "--all", "--dry-run"]).ok(), "3 would be retried\n");
    let again = ask(&server, &["errors", "retry", &ids[0]]);
    assert_eq!(again.code, Some(1), "{}", again.stdout);
    assert!(
        again.stdout.contains("failed again: threw at line 1, column 80: Error: no 1")
            && again.stdout.contains("1 retried, 0 succeeded"),
        "{}",
        again.stdout
    );
    api.put_javascript("one", "postCreate", "export default () => {}").expect(200);
    assert_eq!(ask(&server, &["errors", "retry", "--model", "one"]).ok(), "2 retried, 2 succeeded\n");
    assert_eq!(ask(&server, &["errors", "list"]).ok().lines().count(), 2);
    let said = ask(&server, &["errors", "drop", &ids[0]]).fails();
    assert!(said.contains("there is no error"), "{said}");
    assert_eq!(ask(&server, &["errors", "drop", "--all"]).ok(), "1 dropped\n");
    assert_eq!(ask(&server, &["errors", "list"]).ok(), "no errors\n");
}

#[test]
fn secrets_of_a_server() {
    let tables = grant("js", "preCreate", "secret = ['*']\namend = true");
    let server = Server::start_with(ServerOptions { tables, ..ServerOptions::default() });
    let api = server.client();
    open_model(&api, "js");
    assert_eq!(ask(&server, &["secret", "list"]).ok(), "");
    assert_eq!(ask_with(&server, &["secret", "set", "mail-key"], "s3cret\n").ok(), "secret `mail-key` is set\n");
    write(server.directory(), "value", "from a file\n");
    ask(&server, &["secret", "set", "other", "--file", "value"]).ok();
    assert_eq!(ask(&server, &["secret", "list"]).ok(), "mail-key\nother\n");
    // A trailing line break is removed from typed input, but not from a file.
    for (name, value) in [("mail-key", "s3cret"), ("other", "from a file\n")] {
        assert_eq!(crate::workbench::pre_value(&api, "js", &format!("return secret('{name}');")), value);
    }
    for (args, stdin, says) in [
        (&["secret", "set", "empty"][..], "", "is empty"),
        (&["secret", "set", "a/b"], "x", "is not a valid secret name"),
        (&["secret", "set", "x", "--file", "missing"], "", "`missing` cannot be read"),
        (&["secret", "rm", "nobody"], "", "there is no secret `nobody`"),
    ] {
        let said = ask_with(&server, args, stdin).fails();
        assert!(said.contains(says), "{args:?}: {said}");
    }
    assert_eq!(ask(&server, &["secret", "rm", "mail-key", "other"]).ok().lines().count(), 2);
    assert_eq!(ask(&server, &["secret", "list"]).ok(), "");
    assert!(!server.log().iter().any(|line| line.contains("s3cret")));
}

#[test]
fn secrets_without_a_server() {
    let directory = folder(START);
    run_with(directory.path(), &["secret", "set", "key"], "hidden-value").ok();
    assert_eq!(run(directory.path(), &["secret", "list"]).ok(), "key\n");
    // The secret is encrypted at rest, and only the owner may read the key.
    let mut files = vec![directory.path().join("data")];
    let mut seen = 0;
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(std::fs::read_dir(path).expect("a folder").map(|entry| entry.expect("an entry").path()));
            continue;
        }
        seen += 1;
        let bytes = std::fs::read(&path).expect("a file");
        assert!(!bytes.windows(12).any(|window| window == b"hidden-value"), "{}", path.display());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(&path).expect("a file").permissions().mode();
            assert_eq!(mode & 0o077, 0, "{}: {mode:o}", path.display());
        }
    }
    assert!(seen >= 2, "a key and a value");
    run(directory.path(), &["secret", "rm", "key"]).ok();
    assert_eq!(run(directory.path(), &["secret", "list"]).ok(), "");
}

#[test]
fn hooks() {
    let server = Server::start();
    let api = server.client();
    open_model(&api, "movie");
    assert_eq!(ask(&server, &["hook", "list"]).ok(), "no hooks\n");
    write(server.directory(), "hooks/movie/model.json", r#"{"schema": {"type": "object"}}"#);
    write(
        server.directory(),
        "hooks/movie/preCreate.ts",
        "export default ({ after }: any) => { if (after.bad) throw new Reject('bad'); };",
    );
    let said = ask(&server, &["hook", "put", "hooks/movie/preCreate.ts"]).ok();
    assert!(said.starts_with("movie.preCreate/") && said.contains(" is bound: quickjs, sha256:"), "{said}");
    write(server.directory(), "any.js", "export default () => { throw new Reject('shadow'); };");
    ask(&server, &["hook", "put", "any.js", "--model", "movie", "--phase", "preUpdate", "--name", "watch", "--shadow"])
        .ok();
    let table = ask(&server, &["hook", "list", "movie"]).ok();
    let rows: Vec<&str> = table.lines().collect();
    assert_eq!(rows.len(), 3, "{table}");
    assert!(
        rows[1].starts_with("movie.preCreate") && rows[1].contains("quickjs") && rows[1].contains("enforce"),
        "{table}"
    );
    assert!(
        rows[2].starts_with("movie.preUpdate") && rows[2].contains("watch") && rows[2].contains("shadow"),
        "{table}"
    );
    api.post("/models/movie/instances", &json!({"id": "a", "data": {}})).expect(201);
    api.post("/models/movie/instances", &json!({"data": {"bad": true}})).expect_problem(422, "rejected");
    api.put("/models/movie/instances/a", &json!({"data": {}})).expect(200);
    write(server.directory(), "broken.js", "export default () => {\n  return 1 +;\n}");
    for (args, says) in [
        (&["hook", "put", "broken.js", "--model", "movie", "--phase", "preCreate"][..], "(line 2, column 13)"),
        (&["hook", "put", "any.js", "--model", "movie"], "`any` is not a phase"),
        (&["hook", "put", "any.js", "--phase", "preCreate"], "`--model`"),
        (&["hook", "put", "missing.js", "--model", "movie", "--phase", "preCreate"], "`missing.js` cannot be read"),
        (&["hook", "put", "config.toml", "--model", "movie", "--phase", "preCreate"], "expected `chain`"),
        (&["hook", "put", "any.js", "--model", "nobody", "--phase", "preCreate"], "nobody"),
        (&["hook", "list", "nobody"], "nobody"),
    ] {
        let said = ask(&server, args).fails();
        assert!(said.contains(says), "{args:?}: {said}");
    }
}

#[test]
fn a_hook_that_is_only_tried() {
    let directory = folder(&format!("{START}{}", grant("movie", "preCreate", "read = ['director']\namend = true")));
    let at = directory.path();
    write(at, "hooks/movie/model.json", r#"{"schema": {"type": "object"}}"#);
    write(at, "hooks/director/model.json", r#"{"schema": {"type": "object"}}"#);
    write(
        at,
        "hooks/movie/preCreate.js",
        "export default async ({ after, read, secret, log }) => { \
        log.info('looking'); \
        if (after.bad) throw new Reject('bad film', { '/bad': 'is bad' }); \
        if (after.broken) throw new TypeError('broken'); \
        const found = await read.get('director', 'x'); \
        try { secret('key'); } catch (error) { log.warn(error.code); } \
        if (after.amend) return { ...after, found, big: after.big }; };",
    );
    write(at, "good.json", r#"{"title": "x"}"#);
    write(at, "amend.json", r#"{"amend": true, "big": 9007199254740993}"#);
    write(at, "bad.json", r#"{"bad": true}"#);
    write(at, "broken.json", r#"{"broken": true}"#);
    let test = |file: &str, more: &[&str]| {
        let mut args = vec!["hook", "test", "hooks/movie/preCreate.js", "--after", file];
        args.extend(more);
        run(at, &args)
    };
    let said = test("good.json", &[]).ok();
    for says in [
        "verdict: accept",
        "log: info: looking",
        "log: warn: denied",
        "asked for read",
        "granted",
        "asked for secret `key`: denied",
        "top level: captured, ",
        "time: ",
        "memory: ",
    ] {
        assert!(said.contains(says), "`{says}` is missing in: {said}");
    }
    let said = test("amend.json", &[]).ok();
    assert!(said.contains("verdict: amend") && said.contains("9007199254740993"), "{said}");
    let said = test("bad.json", &[]).ok();
    assert!(said.contains("verdict: reject: bad film") && said.contains("/bad: is bad"), "{said}");
    let failed = test("broken.json", &[]);
    assert_eq!(failed.code, Some(1));
    assert!(
        failed.stdout.contains("failed (exception): threw TypeError: broken (line 1, column "),
        "{}",
        failed.stdout
    );
    let document: Value = serde_json::from_str(&test("amend.json", &["--json"]).ok()).expect("JSON");
    assert_eq!(
        (&document["verdict"], &document["data"]["big"].to_string()),
        (&json!("amend"), &"9007199254740993".to_owned())
    );
    assert_eq!(document["log"][0]["message"], "looking");
    assert!(document["asked"].as_array().is_some_and(|asked| asked.len() >= 2), "{document}");
    for (args, says) in [
        (&["hook", "test", "hooks/movie/preCreate.js"][..], "`preCreate` needs `--after`"),
        (
            &["hook", "test", "hooks/movie/preCreate.js", "--before", "good.json", "--after", "good.json"],
            "has no data for `--before`",
        ),
        (&["hook", "test", "hooks/movie/preCreate.js", "--after", "missing.json"], "`missing.json` cannot be read"),
        (&["hook", "test", "hooks/movie/preCreate.js", "--after", "hooks/movie/preCreate.js"], "is not valid JSON"),
    ] {
        let said = run(at, args).fails();
        assert!(said.contains(says), "{args:?}: {said}");
    }
    // The command left nothing in the folder except the configured cache of compiled code.
    assert!(!at.join("data/events.db").exists() && !at.join("data/secret.key").exists());
}
