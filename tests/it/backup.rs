//! `snaphook backup` and `snaphook restore`: nothing is lost, repeated or mixed up.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::support::{Client, Server, ServerOptions, eventually};

/// Post hooks of `task` may write to `log`.
pub(crate) fn options() -> ServerOptions {
    let tables = "[[grants]]\nmodel = 'task'\nphase = 'postCreate'\nwrite = ['log']\n";
    ServerOptions { tables: tables.into(), hooks: "max-attempts = 1".into(), ..ServerOptions::default() }
}

/// Records each run in `log`, and fails for some instances.
const LOGGER: &str = r#"
    export default async ({ id, event, after, write }) => {
      if (after.fails) throw new Error("it was told to");
      await write.create("log", { id, position: event.position });
    };"#;

/// A server with unique names, a hook, secrets, and an error record.
pub(crate) fn start() -> Server {
    let server = Server::start_with(options());
    let api = server.client();
    let schema = json!({"type": "object", "properties": {"name": {"type": "string"}}});
    api.post("/models", &json!({"id": "task", "schema": schema, "unique": [["name"]]})).expect(201);
    api.post("/models", &json!({"id": "log", "schema": {"type": "object"}})).expect(201);
    api.put_javascript("task", "postCreate", LOGGER).expect(200);
    api.request("PUT", "/secrets/mail-key").body("text/plain", "hunter2hunter2").send().expect(204);
    server
}

#[track_caller]
pub(crate) fn create(api: &Client, id: &str) -> Value {
    api.post("/models/task/instances", &json!({"id": id, "data": {"name": id}})).expect(201).json()
}

#[track_caller]
fn count(api: &Client, model: &str) -> u64 {
    let page = api.get(&format!("/models/{model}/instances?limit=1&count=true")).expect(200).json();
    page["count"].as_u64().expect("a number")
}

#[track_caller]
pub(crate) fn wait_for(api: &Client, model: &str, wanted: u64) {
    eventually(&format!("{wanted} of `{model}`"), || {
        let found = count(api, model);
        assert!(found <= wanted, "{found} of `{model}`, expected {wanted}");
        (found == wanted).then_some(())
    });
}

pub(crate) struct Ended {
    code: Option<i32>,
    said: String,
}

impl Ended {
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{}", self.said);
        self.said
    }

    #[track_caller]
    pub(crate) fn fails(self, words: &[&str]) {
        assert_eq!(self.code, Some(1), "{}", self.said);
        for word in words {
            assert!(self.said.contains(word), "`{word}` is missing: {}", self.said);
        }
    }
}

pub(crate) fn snaphook(directory: &Path, args: &[&str]) -> Ended {
    let mut command = Command::new(env!("CARGO_BIN_EXE_snaphook"));
    command.args(args).current_dir(directory).stdin(Stdio::null());
    for name in ["SNAPHOOK_CONFIG", "SNAPHOOK_LOG", "SNAPHOOK_URL"] {
        command.env_remove(name);
    }
    let output = command.output().expect("it runs");
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    Ended { code: output.status.code(), said }
}

/// Backs up a running server.
fn backup(server: &Server, file: &Path) -> Ended {
    let url = format!("http://{}", server.address());
    snaphook(server.directory(), &["--url", &url, "backup", &file.display().to_string()])
}

/// A folder that contains only a configuration.
fn empty() -> Arc<tempfile::TempDir> {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("hooks")).expect("a folder");
    let config = "[server]\nmount-address = '127.0.0.1:0'\n[auth]\nmode = 'open'\n";
    std::fs::write(folder.path().join("config.toml"), config).expect("a config");
    Arc::new(folder)
}

/// Restores a file into an empty folder, copies the key there, and starts a server.
#[track_caller]
fn restore(from: &Server, file: &Path) -> Server {
    let folder = empty();
    let said = snaphook(folder.path(), &["restore", &file.display().to_string()]).ok();
    assert!(said.contains("compared"), "{said}");
    let key = Path::new("data/secret.key");
    std::fs::copy(from.directory().join(key), folder.path().join(key)).expect("the key");
    Server::start_in(folder, options())
}

fn file() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("shop.backup");
    (folder, file)
}

pub(crate) fn all(api: &Client, path: &str) -> Value {
    api.get(&format!("{path}?limit=1000")).expect(200).json()["items"].take()
}

#[test]
fn everything_comes_back_and_nothing_is_done_again() {
    let server = start();
    let api = server.client();
    (0..20).for_each(|index| drop(create(&api, &format!("t{index:02}"))));
    api.post("/models/task/instances", &json!({"id": "bad", "data": {"name": "bad", "fails": true}})).expect(201);
    api.delete("/models/task/instances/t03").expect(204);
    let key = "the-key";
    let keyed = |api: &Client| {
        let body = json!({"data": {"name": "keyed"}});
        api.request("POST", "/models/task/instances")
            .header("Idempotency-Key", key)
            .json(&body)
            .send()
            .expect(201)
            .json()
    };
    let first = keyed(&api);
    wait_for(&api, "log", 21);
    let errors = eventually("the error is recorded", || Some(all(&api, "/errors")).filter(|all| all[0].is_object()));
    let (_folder, file) = file();
    let said = backup(&server, &file).ok();
    assert!(said.contains("verified") && said.contains("1 recorded errors, 1 secrets"), "{said}");
    let bytes = std::fs::read(&file).expect("the file");
    assert!(!bytes.windows(7).any(|window| window == b"hunter2"));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(std::fs::metadata(&file).expect("a file").permissions().mode() & 0o077, 0, "others may read it");
    }

    let restored = restore(&server, &file);
    let back = restored.client();
    assert_eq!(back.get("/models").expect(200).json(), api.get("/models").expect(200).json());
    for path in ["/models/task/instances", "/models/log/instances", "/events"] {
        assert_eq!(all(&back, path), all(&api, path), "{path}");
    }
    assert_eq!(all(&back, "/errors"), errors);
    assert_eq!(back.get("/secrets").expect(200).json()["items"], json!(["mail-key"]));
    // Without the members that exist only for loaded hooks.
    let hooks = |api: &Client| {
        let mut hooks = api.get("/models/task/hooks").expect(200).json();
        for hook in
            hooks.as_object_mut().expect("an object").values_mut().flat_map(|chain| chain.as_array_mut()).flatten()
        {
            hook.as_object_mut().expect("an object").remove("top_level");
        }
        hooks
    };
    assert_eq!(hooks(&back), hooks(&api));
    // Claims are restored: of unique values and of idempotency keys.
    back.post("/models/task/instances", &json!({"data": {"name": "t05"}})).expect_problem(409, "not-unique");
    assert_eq!(keyed(&back), first);
    // An unclaimed name is accepted and its hook runs; earlier hooks would have run again before it.
    back.post("/models/task/instances", &json!({"id": "t03", "data": {"name": "t03"}})).expect(201);
    create(&back, "new");
    wait_for(&back, "log", 23);
    let mut runs: Vec<String> = all(&back, "/models/log/instances")
        .as_array()
        .expect("a list")
        .iter()
        .map(|entry| entry["data"]["position"].to_string())
        .collect();
    runs.sort();
    runs.dedup();
    assert_eq!(runs.len(), 23, "a hook ran twice for an event");

    // The restored log has a new identity: positions of the old log are rejected.
    let place = api.get("/events?limit=1").expect(200).json()["next"].as_str().expect("a place").to_owned();
    back.get(&format!("/events?after={place}")).expect_problem(410, "position-unknown");
    let tag = api.get("/models/task/instances/t05").expect(200).header("etag").expect("a tag").to_owned();
    let stale = back.request("DELETE", "/models/task/instances/t05").header("If-Match", &tag).send();
    stale.expect_problem(412, "precondition-failed");
}

#[test]
fn a_backup_under_load_is_of_one_moment() {
    let server = start();
    let (_folder, place) = file();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let (api, stop) = (server.client(), &stop);
            scope.spawn(move || {
                for index in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let id = format!("w{writer}-{index}");
                    create(&api, &id);
                    if index % 3 == 0 {
                        let change = json!({"name": format!("{id}-changed")});
                        api.patch(&format!("/models/task/instances/{id}"), &change).expect(200);
                    }
                }
            });
        }
        eventually("some are there", || (count(&server.client(), "task") > 100).then_some(()));
        for round in 0..3 {
            let file = place.with_extension(round.to_string());
            let done = backup(&server, &file);
            if round == 2 {
                stop.store(true, Ordering::Relaxed);
            }
            done.ok();
        }
    });
    let api = server.client();
    for round in 0..3 {
        let restored = restore(&server, &place.with_extension(round.to_string()));
        let back = restored.client();
        // Its log is a prefix of the original log, and its instances match that log.
        let (mut after, mut events) = ("0".to_owned(), Vec::new());
        loop {
            // Hooks that were running during the backup run again and write, so compare only the restored part.
            let page = back.get(&format!("/events?limit=1000&after={after}")).expect(200).json();
            events.extend(page["items"].as_array().expect("items").clone());
            match page["next"].as_str() {
                Some(next) => after = next.to_owned(),
                None => break,
            }
        }
        let (mut after, mut position) = ("0".to_owned(), 0);
        'log: loop {
            let page = api.get(&format!("/events?limit=1000&after={after}")).expect(200).json();
            for event in page["items"].as_array().expect("items") {
                let Some(found) = events.get(position) else { break 'log };
                if found != event {
                    assert_eq!(found["type"], "instance.created", "{found} for {event}");
                    assert_eq!(found["model"], "log", "{found} for {event}");
                    break 'log;
                }
                position += 1;
            }
            match page["next"].as_str() {
                Some(next) => after = next.to_owned(),
                None => break,
            }
        }
        assert!(position > 100, "{position}");
        // Each task has one entry in `log`; only hooks that were running during the backup may have written two.
        let tasks =
            events.iter().filter(|event| event["type"] == "instance.created" && event["model"] == "task").count();
        eventually("every hook ran", || (count(&back, "log") >= tasks as u64).then_some(()));
        assert!(count(&back, "log") <= tasks as u64 + 32);
        // Unique values are claimed as the instances have them.
        let some = all(&back, "/models/task/instances")[0]["data"]["name"].clone();
        back.post("/models/task/instances", &json!({"data": {"name": some}})).expect_problem(409, "not-unique");
    }
}

#[test]
fn a_backup_without_a_server_reads_the_stores() {
    let mut server = start();
    create(&server.client(), "a");
    wait_for(&server.client(), "log", 1);
    let (_folder, file) = file();
    // The stores are in use and no server responds at the configured address: the command fails instead of reading the
    // stores.
    snaphook(server.directory(), &["backup", &file.display().to_string()]).fails(&["in use"]);
    assert!(!file.exists());
    server.stop();
    snaphook(server.directory(), &["backup", &file.display().to_string()]).ok();
    let restored = restore(&server, &file);
    assert_eq!((count(&restored.client(), "task"), count(&restored.client(), "log")), (1, 1));
}

#[test]
fn settings_that_name_secrets_are_restored_with_the_private_key() {
    let mut server = start();
    create(&server.client(), "a");
    wait_for(&server.client(), "log", 1);
    server.client().request("PUT", "/secrets/where").body("text/plain", "data/elsewhere.db").send().expect(204);
    let (_folder, file) = file();
    let shown = file.display().to_string();
    backup(&server, &file).ok();
    let to = |secret: &str| {
        let folder = empty();
        let config = format!(
            "[server]\nmount-address = '127.0.0.1:0'\n[auth]\nmode = 'open'\n\
             [driver-error-storage]\ndriver = 'sqlite'\npath = 'secret:{secret}'\n"
        );
        std::fs::write(folder.path().join("config.toml"), config).expect("a config");
        folder
    };
    let key = |folder: &tempfile::TempDir| {
        std::fs::create_dir_all(folder.path().join("data")).expect("a folder");
        std::fs::copy(server.directory().join("data/secret.key"), folder.path().join("data/secret.key"))
            .expect("a key");
    };
    let target = to("where");
    let without_key = [
        "config.toml:6: `driver-error-storage`",
        "`secret:where`",
        "data/secret.key` does not exist",
        "write the setting out",
    ];
    snaphook(target.path(), &["restore", &shown]).fails(&without_key);
    // Nothing was written, so copying the key is enough.
    key(&target);
    let said = snaphook(target.path(), &["restore", &shown]).ok();
    assert!(said.contains("compared"), "{said}");
    assert!(target.path().join("data/elsewhere.db").exists() && !target.path().join("data/errors.db").exists());
    let target_options = ServerOptions {
        tables: format!("{}[driver-error-storage]\ndriver = 'sqlite'\npath = 'secret:where'\n", options().tables),
        ..options()
    };
    let mut restored = Server::start_in(target, target_options);
    assert_eq!(count(&restored.client(), "task"), 1);
    assert_eq!(restored.client().get("/secrets").expect(200).json()["items"], json!(["mail-key", "where"]));

    // Restored stores can be backed up without a server.
    restored.stop();
    let again = file.with_extension("again");
    snaphook(restored.directory(), &["backup", &again.display().to_string()]).ok();

    let missing = to("nowhere");
    key(&missing);
    let words = ["`secret:nowhere` names a secret that the backup does not have", "write the setting out"];
    snaphook(missing.path(), &["restore", &shown]).fails(&words);
    server.stop();
}

#[test]
fn what_is_there_is_never_replaced_or_mixed() {
    let server = start();
    create(&server.client(), "a");
    let (folder, file) = file();
    let shown = file.display().to_string();
    backup(&server, &file).ok();
    let before = std::fs::read(&file).expect("the file");
    backup(&server, &file).fails(&["already", "never replaces"]);
    assert_eq!(std::fs::read(&file).expect("the file"), before);
    backup(&server, &folder.path().join("no/such/folder")).fails(&["cannot be written"]);
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1, "nothing half made is left");

    // The target stores are in use by a server, or contain data after it has stopped.
    snaphook(server.directory(), &["restore", &shown]).fails(&["not restored", "in use"]);
    let server = server.restart();
    snaphook(server.directory(), &["restore", &shown]).fails(&["in use"]);
    let mut server = server;
    server.stop();
    snaphook(server.directory(), &["restore", &shown]).fails(&["contains data", "empty stores only"]);
    let server = server.restart_ended();
    assert_eq!(count(&server.client(), "task"), 1);

    // A second restore into the same folder fails.
    let other = empty();
    snaphook(other.path(), &["restore", &shown]).ok();
    snaphook(other.path(), &["restore", &shown]).fails(&["contains data"]);
    // A server listens at the configured address, although it has other stores.
    let third = empty();
    let config = format!("[server]\nmount-address = '{}'\n[auth]\nmode = 'open'\n", server.address());
    std::fs::write(third.path().join("config.toml"), config).expect("a config");
    snaphook(third.path(), &["restore", &shown]).fails(&["a server runs", "stop it first"]);
    for wrong in ["no-such-file", "config.toml", "hooks"] {
        let ended = snaphook(empty().path(), &["restore", wrong]);
        assert_eq!(ended.code, Some(1), "{}", ended.said);
    }
    assert!(!third.path().join("data").exists());
}

#[test]
fn damage_is_found_before_anything_is_written() {
    let server = start();
    let api = server.client();
    (0..50).for_each(|index| drop(create(&api, &format!("t{index}"))));
    wait_for(&api, "log", 50);
    let (folder, file) = file();
    backup(&server, &file).ok();
    let bytes = std::fs::read(&file).expect("the file");
    let damaged = folder.path().join("damaged");
    let refused = |bytes: &[u8], word: &str| {
        std::fs::write(&damaged, bytes).expect("written");
        let other = empty();
        snaphook(other.path(), &["restore", &damaged.display().to_string()]).fails(&["at byte ", word]);
        assert!(!other.path().join("data").exists(), "something was written");
    };
    for part in 0..12 {
        let mut flipped = bytes.clone();
        let at = part * (bytes.len() - 1) / 11;
        flipped[at] ^= 0x10;
        refused(&flipped, "cannot be used");
    }
    refused(&bytes[..bytes.len() - 1], "cut short");
    refused(&bytes[..bytes.len() / 2], "cut short");
    refused(b"", "not a backup");
    refused(&[&bytes[..], b"x"].concat(), "follows the end");
}

#[test]
fn a_kill_leaves_no_backup_and_a_server_that_goes_on() {
    let server = start();
    let api = server.client();
    let lines: String = (0..20_000)
        .map(|n| format!("{{\"id\":\"i{n}\",\"data\":{{\"text\":\"{}\"}}}}\n", format!("{n:x}").repeat(40)))
        .collect();
    api.request("POST", "/models/log/import").body("application/x-ndjson", lines).send().expect(200);
    let (folder, file) = file();
    let url = format!("http://{}", server.address());
    for wait in [0, 5, 20, 60] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_snaphook"))
            .args(["--url", &url, "backup", &file.display().to_string()])
            .current_dir(server.directory())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        // The kill happens at a random time. A file with the final name is either complete or absent.
        std::thread::sleep(std::time::Duration::from_millis(wait));
        child.kill().expect("killed");
        child.wait().expect("its end");
        if file.exists() {
            snaphook(empty().path(), &["restore", &file.display().to_string()]).ok();
            std::fs::remove_file(&file).expect("removed");
        }
    }
    // The server notices that the client disconnected and accepts the next backup.
    eventually("a backup is made", || {
        let ended = backup(&server, &file);
        assert!(ended.code == Some(0) || ended.said.contains("already being created"), "{}", ended.said);
        (ended.code == Some(0)).then_some(())
    });
    assert!(folder.path().join("shop.backup").is_file());
    create(&api, "after");

    // The server is killed: the received part is not a valid backup.
    let second = folder.path().join("second");
    let child = Command::new(env!("CARGO_BIN_EXE_snaphook"))
        .args(["--url", &url, "backup", &second.display().to_string()])
        .current_dir(server.directory())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    drop(server);
    let ended = child.wait_with_output().expect("its end");
    assert!(ended.status.code() == Some(0) || !second.exists(), "{}", String::from_utf8_lossy(&ended.stderr));
}

#[test]
fn an_interrupted_restore_is_no_store() {
    let server = start();
    let api = server.client();
    let lines: String = (0..20_000).map(|n| format!("{{\"id\":\"i{n}\",\"data\":{{\"n\":{n}}}}}\n")).collect();
    api.request("POST", "/models/log/import").body("application/x-ndjson", lines).send().expect(200);
    let (_folder, file) = file();
    backup(&server, &file).ok();
    let target = empty();
    let mut child = Command::new(env!("CARGO_BIN_EXE_snaphook"))
        .args(["restore", &file.display().to_string()])
        .current_dir(target.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    // The restore has started once the log contains bytes.
    let log = target.path().join("data/events.db-wal");
    let killed = eventually("it writes", || {
        let written = std::fs::metadata(&log).map_or(0, |log| log.len()) > 64 * 1024;
        let ended = child.try_wait().expect("a child").is_some();
        (written || ended).then_some(!ended)
    });
    child.kill().expect("killed");
    child.wait().expect("its end");
    if killed {
        let started = snaphook(target.path(), &["rebuild"]);
        // Unless the restore finished before the signal arrived.
        if started.code == Some(1) {
            started.fails(&["part of a log", "restore was interrupted"]);
            snaphook(target.path(), &["restore", &file.display().to_string()]).fails(&["restore was interrupted"]);
        }
    }
    std::fs::remove_dir_all(target.path().join("data")).expect("removed");
    snaphook(target.path(), &["restore", &file.display().to_string()]).ok();
}

#[test]
fn what_it_holds_counts_in_the_memory_budget() {
    let server = Server::start_with(ServerOptions {
        tables: format!("[server.limits]\nmemory = '16 MiB'\n{}", options().tables),
        ..options()
    });
    let api = server.client();
    api.post("/models", &json!({"id": "large", "schema": {"type": "object"}})).expect(201);
    let mut noise = 1_u64;
    for _ in 0..20 {
        // Incompressible text.
        let text: String = (0..500_000)
            .map(|_| {
                noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                char::from(b' ' + 1 + (noise >> 33) as u8 % 90)
            })
            .collect();
        api.post("/models/large/instances", &json!({"data": {"text": text}})).expect(201);
    }
    let held = || {
        let text = api.get("/metrics").expect(200).text();
        let held = text.lines().find_map(|line| line.strip_prefix("snaphook_memory_bytes ")).expect("a gauge");
        held.parse::<f64>().expect("a number") as u64
    };
    eventually("nothing is held", || (held() == 0).then_some(()));
    // A client that does not read the response.
    let mut stream = std::net::TcpStream::connect(server.address()).expect("the server listens");
    let head = format!("POST /backup HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\n\r\n", server.address());
    std::io::Write::write_all(&mut stream, head.as_bytes()).expect("written");
    eventually("it is counted", || (held() > 1 << 20).then_some(()));
    assert!(held() < 12 << 20, "{} bytes for records of half a megabyte", held());
    drop(stream);
    eventually("it is given back", || (held() == 0).then_some(()));
    let (_folder, file) = file();
    backup(&server, &file).ok();
    eventually("it is given back", || (held() == 0).then_some(()));
}

#[test]
fn only_a_post_of_our_own_starts_one() {
    let server = start();
    let api = server.client();
    api.get("/backup").expect_problem(405, "method-not-allowed");
    api.request("POST", "/backup?x=1").send().expect_problem(400, "bad-request");
    let foreign = api.request("POST", "/backup").header("Sec-Fetch-Site", "cross-site").send();
    foreign.expect_problem(403, "forbidden");
    let answer = api.request("POST", "/backup").send().expect(200);
    assert!(answer.body.starts_with(b"snaphook backup\n"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
}
