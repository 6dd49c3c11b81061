//! Hooks and models of a running server, read and changed from the command line:
//! `snaphook hook log|stats|source|history|rollback|remove` and `snaphook model list|show|pull`.

use serde_json::{Value, json};

use super::{Ended, ask, folder, run, write};
use crate::support::{Server, ServerOptions, create_orders};

fn version(number: u64) -> String {
    format!("export function preCreate({{ log }}) {{ log.info('version {number}'); }}\n")
}

/// Binds a source and returns the abbreviated digest that is shown.
#[track_caller]
fn deploy(server: &Server, source: &str) -> String {
    write(server.directory(), "check.js", source);
    let said =
        ask(server, &["hook", "deploy", "check.js", "--model", "order", "--phase", "preCreate", "--name", "check"]);
    let said = said.ok();
    let digest = said.split("is bound: quickjs, ").nth(1).expect("a digest");
    digest[.."sha256:".len() + 12].to_owned()
}

#[test]
fn a_hook_is_read_and_rolled_back() {
    let server = Server::start();
    let api = server.client();
    create_orders(&api, "order");
    let digests: Vec<String> = (1..=3).map(|number| deploy(&server, &version(number))).collect();
    let runs = |number: u64| {
        api.post("/models/order/instances", &json!({"data": {"name": "a"}})).expect(201);
        let log = ask(&server, &["hook", "log", "order.preCreate"]).ok();
        let last = log.lines().last().expect("a line").to_owned();
        assert!(last.contains(" info check ") && last.ends_with(&format!(": version {number}")), "{log}");
    };
    runs(3);

    // All versions, newest first.
    let history = ask(&server, &["hook", "history", "order.preCreate"]).ok();
    let rows: Vec<&str> = history.lines().skip(1).collect();
    assert_eq!(rows.len(), 3, "{history}");
    for (row, digest) in rows.iter().zip(digests.iter().rev()) {
        assert!(row.ends_with(&format!("check (quickjs, {digest})")), "{row}: {digest}");
    }
    assert_eq!(ask(&server, &["hook", "history", "order.preCreate", "-n", "1"]).ok().lines().count(), 2);
    let json = ask(&server, &["hook", "history", "order.preCreate", "--json"]).ok();
    let oldest: Value = serde_json::from_str(json.lines().last().expect("a line")).expect("JSON");
    let first = oldest["position"].as_u64().expect("a position");
    assert_eq!((&oldest["actor"]["kind"], &oldest["chain"][0]["name"]), (&json!("anonymous"), &json!("check")));

    // The code of each version, by its abbreviated digest.
    assert_eq!(ask(&server, &["hook", "source", "order.preCreate"]).ok(), version(3));
    for (number, digest) in (1..).zip(&digests) {
        let args = ["hook", "source", "order.preCreate/check", "--artifact", digest];
        assert_eq!(ask(&server, &args).ok(), version(number));
        assert_eq!(
            ask(&server, &["hook", "source", "order.preCreate", "--artifact", &digest[7..12]]).ok(),
            version(number)
        );
    }
    ask(&server, &["hook", "source", "order.preCreate", "--out", "kept.js"]).ok();
    assert_eq!(std::fs::read_to_string(server.directory().join("kept.js")).expect("a file"), version(3));

    // Roll back to the previous version, to a position, and to a digest; each is an ordinary change.
    let said = ask(&server, &["hook", "rollback", "order.preCreate"]).ok();
    assert!(said.contains(&format!("check (quickjs, {}) (was check (quickjs, {}))", digests[1], digests[2])), "{said}");
    runs(2);
    ask(&server, &["hook", "rollback", "order.preCreate", "--to", &first.to_string()]).ok();
    runs(1);
    ask(&server, &["hook", "rollback", "order.preCreate", "--to", &digests[2]]).ok();
    runs(3);
    assert_eq!(ask(&server, &["hook", "history", "order.preCreate"]).ok().lines().count(), 1 + 6);

    let stats = ask(&server, &["hook", "stats", "order.preCreate"]).ok();
    let cells: Vec<&str> = stats.lines().nth(1).expect("a row").split_whitespace().collect();
    assert_eq!(cells[..6], ["order.preCreate", "check", "1", "0", "0", "0"], "{stats}");
    let stats: Value = serde_json::from_str(&ask(&server, &["hook", "stats", "--json"]).ok()).expect("JSON");
    assert_eq!((&stats["model"], &stats["phase"], &stats["runs"]), (&json!("order"), &json!("preCreate"), &json!(1)));

    // Removed, and restored.
    let said = ask(&server, &["hook", "remove", "order.preCreate"]).ok();
    assert!(said.starts_with("order.preCreate/check is removed (was quickjs, sha256:"), "{said}");
    assert_eq!(api.get("/models/order/hooks/preCreate").expect(200).json(), json!([]));
    ask(&server, &["hook", "rollback", "order.preCreate"]).ok();
    runs(3);
    let fails = |args: &[&str], says: &str| {
        let said = ask(&server, args).fails();
        assert!(said.contains(says), "{args:?}: {said}");
    };
    fails(&["hook", "remove", "order.preUpdate"], "nothing is bound to `order.preUpdate`");
    fails(&["hook", "rollback", "order.preUpdate"], "nothing was ever bound");
    fails(
        &["hook", "rollback", "order.preCreate", "--to", "sha256:ffffffffffff"],
        "had nothing at `sha256:ffffffffffff`",
    );
    fails(&["hook", "source", "order.preUpdate"], "`order.preUpdate` has no hooks");
    fails(&["hook", "source", "order.preCreate", "--artifact", "sha256:x"], "is not a digest");
    fails(&["hook", "log", "nobody.preCreate"], "no model `nobody`");
    assert_eq!(ask(&server, &["hook", "log", "order.precreate"]).code, Some(2));
}

/// Removing one hook of a chain leaves the others unchanged.
#[test]
fn one_of_a_chain_is_removed() {
    let server = Server::start();
    let api = server.client();
    create_orders(&api, "order");
    let chain = json!({"chain": [
        {"name": "one", "engine": "quickjs", "source": "export default () => {}"},
        {"name": "two", "engine": "quickjs", "source": "export default (): void => {}", "language": "typescript",
            "mode": "shadow"},
        {"name": "three", "engine": "quickjs", "source": "export default () => { return }"},
    ]});
    let bound = api.put("/models/order/hooks/preCreate", &chain).expect(200).json();
    ask(&server, &["hook", "remove", "order.preCreate/one"]).ok();
    let left = api.get("/models/order/hooks/preCreate").expect(200).json();
    for (left, was) in [(&left[0], &bound[1]), (&left[1], &bound[2])] {
        for member in ["name", "artifact", "mode", "language", "position", "origin"] {
            assert_eq!(left[member], was[member], "{member}");
        }
    }
    let said = ask(&server, &["hook", "source", "order.preCreate"]).fails();
    assert!(said.contains("has 2 hooks, name one") && said.contains("two, three"), "{said}");
    assert_eq!(ask(&server, &["hook", "source", "order.preCreate/two"]).ok(), "export default (): void => {}");
}

#[test]
fn a_log_is_followed() {
    let server = Server::start();
    let api = server.client();
    create_orders(&api, "order");
    deploy(&server, &version(7));
    let url = format!("http://{}", server.address());
    let mut command =
        super::command(server.directory(), &["--url", &url, "hook", "log", "order.preCreate", "--follow"]);
    let following = super::dev::Dev::start_with(&mut command);
    api.post("/models/order/instances", &json!({"id": "a-1", "data": {"name": "a"}})).expect(201);
    following.says(" info check a-1: version 7");
    api.post("/models/order/instances", &json!({"id": "a-2", "data": {"name": "a"}})).expect(201);
    following.says(" info check a-2: version 7");
}

#[test]
fn models_become_files() {
    let server = Server::start();
    let api = server.client();
    assert_eq!(ask(&server, &["model", "list"]).ok(), "no models\n");
    create_orders(&api, "order");
    api.post(
        "/models",
        &json!({"id": "note", "schema": {"type": "object", "properties": {"n": {}}}, "unique": [["n"]]}),
    )
    .expect(201);
    deploy(&server, &version(1));
    api.put_javascript("order", "preUpdate", "export default () => {}").expect(200);
    let chain = json!({"chain": [
        {"name": "one", "engine": "quickjs", "source": "export default () => {}", "language": "javascript"},
        {"name": "two", "engine": "quickjs", "source": "export default (): void => {}", "language": "typescript"},
    ]});
    api.put("/models/note/hooks/postCreate", &chain).expect(200);

    let list = ask(&server, &["model", "list"]).ok();
    let rows: Vec<Vec<&str>> = list.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["MODEL", "VERSION", "CHANGED", "HOOKS"]);
    assert_eq!((&rows[1][..2], &rows[1][3..]), (&["note", "2"][..], &["postCreate"][..]));
    assert_eq!((&rows[2][..2], &rows[2][3..]), (&["order", "3"][..], &["preCreate,", "preUpdate"][..]));
    let shown: Value = serde_json::from_str(&ask(&server, &["model", "show", "order"]).ok()).expect("JSON");
    assert_eq!(shown, api.get("/models/order").expect(200).json());
    let first: Value =
        serde_json::from_str(&ask(&server, &["model", "show", "order", "--version", "1"]).ok()).expect("JSON");
    assert_eq!(first["hooks"], json!({}));

    // In the layout that `apply` reads, so there is no difference.
    let said = ask(&server, &["model", "pull"]).ok();
    let expected = [
        "hooks/note/model.json",
        "hooks/note/postCreate-one.js",
        "hooks/note/postCreate-two.ts",
        "hooks/note/postCreate.toml",
        "hooks/order/model.json",
        "hooks/order/preCreate-check.js",
        "hooks/order/preCreate.toml",
        "hooks/order/preUpdate.js",
    ];
    let mut lines: Vec<&str> = said.lines().map(|line| line.strip_prefix("wrote ").expect("a file")).collect();
    lines.sort_unstable();
    assert_eq!(lines, expected);
    assert_eq!(ask(&server, &["apply", "--plan"]).ok(), "nothing to do, 2 models up to date\n");

    // Locally changed files are not overwritten unless requested.
    write(server.directory(), "hooks/order/preUpdate.js", "export default () => { return }");
    write(server.directory(), "hooks/note/model.json", "{}");
    let said = ask(&server, &["model", "pull", "order"]).fails();
    assert!(said.contains("nothing was written") && said.contains("  hooks/order/preUpdate.js\n"), "{said}");
    assert!(!said.contains("hooks/note"), "{said}");
    let said = ask(&server, &["model", "pull", "order", "--force"]).ok();
    assert!(
        said.contains("wrote hooks/order/preUpdate.js\n") && said.contains("unchanged hooks/order/model.json\n"),
        "{said}"
    );
    // Files of a phase without hooks are local changes too.
    write(server.directory(), "hooks/order/preDelete.js", "export default () => {}");
    assert!(ask(&server, &["model", "pull", "order"]).fails().contains("  hooks/order/preDelete.js\n"));
    assert!(ask(&server, &["model", "pull", "--force"]).ok().contains("removed hooks/order/preDelete.js\n"));
    assert_eq!(ask(&server, &["apply", "--plan"]).ok(), "nothing to do, 2 models up to date\n");
    assert!(ask(&server, &["model", "pull", "nobody"]).fails().contains("nobody"));
    // Ambiguous arguments are rejected.
    for (args, says) in [
        (&["hook", "history", "order.preCreate/check"][..], "whole chain"),
        (&["hook", "rollback", "order.preCreate", "--to", "abc"], "too short"),
    ] {
        assert!(ask(&server, args).fails().contains(says), "{args:?}");
    }
}

/// The server checks the plan: the output lists what would fail, the exit code is distinct, and nothing changes.
#[test]
fn a_plan_is_tried() {
    let server = Server::start();
    let api = server.client();
    let at = server.directory();
    let reference = r#"{"schema": {"type": "object", "properties": {"of": {"type": "string", "x-references": {"model": "shop"}}}}}"#;
    write(at, "hooks/item/model.json", reference);
    write(at, "hooks/shop/model.json", r#"{"schema": {"type": "object"}}"#);
    write(at, "hooks/shop/preCreate.js", "export default () => {};");
    let steps = "create model `shop`\ncreate model `item`\ncreate hook `shop.preCreate`: quickjs (preCreate.js)\n";
    assert_eq!(ask(&server, &["apply", "--plan"]).ok(), steps);
    assert_eq!(api.get("/events").expect(200).json()["items"], json!([]));

    write(at, "hooks/shop/preCreate.js", "export default () => {\n  return 1 +;\n}");
    write(at, "hooks/item/model.json", &reference.replace("shop", "nowhere"));
    let failed = ask(&server, &["apply", "--plan"]);
    assert_eq!(failed.code, Some(3), "{}", failed.stderr);
    assert!(failed.stderr.contains("2 of 3 steps would fail; nothing was changed"), "{}", failed.stderr);
    for says in ["\n  would fail: there is no model `nowhere` to refer to", "(line 2, column 13)"] {
        assert!(failed.stdout.contains(says), "`{says}`: {}", failed.stdout);
    }
    assert_eq!(api.get("/events").expect(200).json()["items"], json!([]));

    // Existing models too: here the data does not match the new schema.
    create_orders(&api, "order");
    api.post("/models/order/instances", &json!({"data": {"name": "a"}})).expect(201);
    write(at, "only/order/model.json", r#"{"schema": {"type": "object", "properties": {"name": {"type": "number"}}}}"#);
    let failed = ask(&server, &["apply", "--plan", "only"]);
    assert_eq!((failed.code, failed.stdout.contains("  would fail: ")), (Some(3), true), "{}", failed.stdout);
    assert_eq!(api.get("/models/order").expect(200).json()["version"], 1);
}

/// `apply` does not remove hooks that were bound over REST.
#[test]
fn apply_keeps_what_was_bound_over_rest() {
    let options = ServerOptions { hooks: "apply = true".to_owned(), ..ServerOptions::default() };
    let mut server = Server::start_with(options);
    server.stop();
    let at = server.directory().to_owned();
    write(&at, "hooks/order/model.json", r#"{"schema": {"type": "object"}}"#);
    write(&at, "hooks/order/preCreate.js", "export default () => {};");
    write(&at, "hooks/order/preUpdate.js", "export default () => {};");
    let server = server.restart_ended();
    let api = server.client();
    api.put_javascript("order", "preDelete", "export default () => {}").expect(200);
    let origin = |phase: &str| {
        api.get(&format!("/models/order/hooks/{phase}")).expect(200).json()[0]["origin"].as_str().map(str::to_owned)
    };
    assert_eq!(["preUpdate", "preDelete"].map(origin), [Some("files".to_owned()), Some("rest".to_owned())]);
    // Binding the same code again does not change the origin.
    api.put_javascript("order", "preUpdate", "export default () => {};").expect(200);
    assert_eq!(origin("preUpdate").as_deref(), Some("files"));

    std::fs::remove_file(at.join("hooks/order/preCreate.js")).expect("a file");
    for args in [&["apply", "--plan"][..], &["apply"]] {
        let applied = ask(&server, args);
        assert!(
            applied
                .stderr
                .contains("warning: hook `order.preDelete`: preDelete was bound over REST and no file names it"),
            "{}",
            applied.stderr
        );
        assert_eq!(applied.ok(), "remove hook `order.preCreate`: preCreate, no file names it\n");
    }
    assert_eq!(origin("preDelete").as_deref(), Some("rest"));
    // A hook that `apply` bound is removed with its file, also at the start.
    std::fs::remove_file(at.join("hooks/order/preUpdate.js")).expect("a file");
    let mut server = server;
    server.stop();
    let server = server.restart_ended();
    let hooks = server.client().get("/models/order/hooks").expect(200).json();
    assert_eq!((&hooks["preUpdate"], hooks["preDelete"].as_array().map(Vec::len)), (&json!([]), Some(1)));
    ask(&server, &["hook", "remove", "order.preDelete"]).ok();
    assert!(ask(&server, &["apply"]).ok().starts_with("nothing to do"));
}

/// The server at the configured address may belong to another project.
#[test]
fn another_projects_server_is_not_changed() {
    let server = Server::start();
    create_orders(&server.client(), "order");
    let config = |address: &str| format!("[server]\nmount-address = '{address}'\n[auth]\nmode = 'open'\n");
    let other = folder(&config(&server.address().to_string()));
    write(other.path(), "hooks/order/model.json", r#"{"schema": {"type": "object"}}"#);
    write(other.path(), "hooks/order/preCreate.js", "export default () => {};");
    let commands: [&[&str]; 5] = [
        &["apply"],
        &["apply", "--plan"],
        &["dev"],
        &["hook", "deploy", "hooks/order/preCreate.js"],
        &["hook", "remove", "order.preCreate"],
    ];
    for args in commands {
        let said = run(other.path(), args).fails();
        assert!(said.contains("is another project's: its data is at `"), "{args:?}: {said}");
        assert!(said.contains("`--url http://") && said.contains(&*other.path().to_string_lossy()), "{args:?}: {said}");
    }
    assert_eq!(server.client().get("/models/order").expect(200).json()["version"], 1);
    // An explicit URL confirms the server; the output names the server in any case.
    let url = format!("http://{}", server.address());
    let applied: Ended = run(other.path(), &["--url", &url, "apply"]);
    let about = server.client().get("/server").expect(200).json();
    let line = format!(
        "server {url}, data {}, log {}\n",
        about["data"].as_str().expect("text"),
        about["log"].as_str().expect("text")
    );
    assert!(applied.stderr.contains(&line), "{}", applied.stderr);
    applied.ok();
    assert_eq!(server.client().get("/models/order").expect(200).json()["version"], 3);
}
