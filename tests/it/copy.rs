//! `snaphook copy`: the other storage has the same content, also after an interrupted copy.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::backup::{all, create, options, snaphook, start, wait_for};
use crate::support::{Client, Server, ServerOptions, eventually};

/// Store tables for that driver below `folder`, relative to the configuration.
fn tables(driver: &str, folder: &str) -> String {
    let suffix = if driver == "sqlite" { ".db" } else { "" };
    let table = |store| format!("[driver-{store}-storage]\ndriver = '{driver}'\npath = '{folder}/{store}{suffix}'\n");
    let secure = format!("[driver-secure-storage]\ndriver = 'file'\npath = '{folder}/secrets'\n");
    secure + &["event", "model", "error"].map(table).concat()
}

/// Writes a configuration beside the server's own.
fn configure(server: &Server, name: &str, tables: &str) {
    let head = "[server]\nmount-address = '127.0.0.1:0'\n[auth]\nmode = 'open'\n";
    std::fs::write(server.directory().join(name), format!("{head}{tables}")).expect("a configuration");
}

/// What a client reads, except for the log's identity.
fn seen(api: &Client) -> Vec<Value> {
    let paths = ["/models/task/instances", "/models/log/instances", "/events", "/errors"];
    paths.iter().map(|path| all(api, path)).chain([api.get("/secrets").expect(200).json()]).collect()
}

/// A stopped server with data of every kind, and what its clients read.
fn filled() -> (Server, Vec<Value>) {
    let mut server = start();
    let api = server.client();
    (0..30).for_each(|index| drop(create(&api, &format!("t{index:02}"))));
    api.post("/models/task/instances", &json!({"id": "bad", "data": {"name": "bad", "fails": true}})).expect(201);
    api.delete("/models/task/instances/t03").expect(204);
    wait_for(&api, "log", 30);
    eventually("the error is recorded", || Some(all(&api, "/errors")).filter(|all| all[0].is_object()));
    let seen = seen(&api);
    server.stop();
    (server, seen)
}

#[test]
fn another_storage_holds_the_same() {
    let (server, before) = filled();
    configure(&server, "files.toml", &tables("file", "files"));
    configure(&server, "back.toml", &tables("sqlite", "back"));
    let folder = server.directory().to_owned();
    let said = snaphook(&folder, &["copy", "--to", "files.toml"]).ok();
    for words in
        ["1 recorded errors, 1 secrets", "the stores of files.toml contain the same data", "task", "private key"]
    {
        assert!(said.contains(words), "{said}");
    }
    // Existing content is not copied again, and nothing else is mixed in.
    let again = snaphook(&folder, &["copy", "--to", "files.toml"]).ok();
    assert!(again.contains("an earlier copy had reached position"), "{again}");
    snaphook(&folder, &["--config", "files.toml", "copy", "--to", "back.toml"]).ok();
    // Somebody changes an instance there, and reverts the change.
    let models = folder.join("back/model.db");
    let whole = std::fs::read(&models).expect("a database");
    let mut changed = whole.clone();
    let (name, other) = (br#"{"name":"t05"}"#, br#"{"name":"t55"}"#);
    let place = whole.windows(name.len()).position(|part| part == name).expect("an instance");
    changed[place..place + name.len()].copy_from_slice(other);
    std::fs::write(&models, changed).expect("a database");
    let again = ["--config", "files.toml", "copy", "--to", "back.toml"];
    snaphook(&folder, &again).fails(&["the model stores differ at `task/t05`"]);
    std::fs::write(&models, whole).expect("a database");
    snaphook(&folder, &again).ok();

    let options = ServerOptions { tables: options().tables + &tables("sqlite", "back"), ..options() };
    let copied = Server::start_in(server.folder(), options);
    let api = copied.client();
    assert_eq!(seen(&api), before);
    // Unique values, the progress of hooks, their code and secrets still work.
    api.post("/models/task/instances", &json!({"data": {"name": "t05"}})).expect_problem(409, "not-unique");
    create(&api, "new");
    wait_for(&api, "log", 31);
    // A server is using the stores now.
    snaphook(&folder, &["--config", "files.toml", "copy", "--to", "config.toml"]).fails(&["in use"]);
}

#[test]
fn only_empty_stores_are_filled() {
    let (server, _) = filled();
    let other = start();
    create(&other.client(), "x");
    let folder = server.directory();
    let place = other.directory().display().to_string();
    let mut other = other;
    wait_for(&other.client(), "log", 1);
    other.stop();
    let mut foreign = String::from("[driver-secure-storage]\ndriver = 'file'\npath = 'fresh/secrets'\n");
    for store in ["event", "model", "error"] {
        foreign.push_str(&format!("[driver-{store}-storage]\ndriver = 'sqlite'\npath = '{place}/data/{store}s.db'\n"));
    }
    configure(&server, "foreign.toml", &foreign);
    snaphook(folder, &["copy", "--to", "foreign.toml"]).fails(&["contains another log"]);
    let full =
        tables("sqlite", "fresh").replace("path = 'fresh/model.db'", &format!("path = '{place}/data/models.db'"));
    configure(&server, "full.toml", &full);
    snaphook(folder, &["copy", "--to", "full.toml"]).fails(&["the model storage to copy to contains data"]);
    let memory = tables("sqlite", "fresh").replace("driver = 'sqlite'\npath = 'fresh/event.db'", "driver = 'memory'");
    configure(&server, "memory.toml", &memory);
    snaphook(folder, &["copy", "--to", "memory.toml"]).fails(&["loses its data"]);
    snaphook(folder, &["copy", "--to", "nowhere.toml"]).fails(&["nowhere.toml"]);
    // The other server's data is unchanged.
    assert_eq!(all(&other.restart_ended().client(), "/models/task/instances")[0]["id"], "x");
}

/// A copy that is killed at any time resumes where it stopped.
#[test]
fn an_interrupted_copy_goes_on() {
    let (server, before) = {
        let mut server = start();
        let api = server.client();
        let lines: String =
            (0..1500).map(|index| format!("{}\n", json!({"id": format!("i{index}"), "data": {"n": index}}))).collect();
        api.request("POST", "/models/log/import").body("application/x-ndjson", lines).send().expect(200);
        let seen = seen(&api);
        server.stop();
        (server, seen)
    };
    for (driver, name) in [("file", "files"), ("sqlite", "databases")] {
        configure(&server, "to.toml", &tables(driver, name));
        let mut kills = 0;
        // Each round kills it later, until it finishes before the kill.
        let ended = (1..40).find_map(|round| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_snaphook"));
            command.args(["copy", "--to", "to.toml"]).current_dir(server.directory());
            let mut copy =
                command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it runs");
            std::thread::sleep(Duration::from_millis(10).mul_f64(1.3_f64.powi(round)));
            match copy.try_wait().expect("a process") {
                Some(status) => Some(status),
                None => {
                    copy.kill().expect("a process");
                    copy.wait().expect("a process");
                    kills += 1;
                    None
                }
            }
        });
        assert!(ended.expect("it ends").success() && kills > 3, "{kills} kills");
        let server = start_on(&server, driver, name);
        assert_eq!(seen(&server.client()), before, "{driver}");
    }
}

fn start_on(server: &Server, driver: &str, folder: &str) -> Server {
    let options = ServerOptions { tables: options().tables + &tables(driver, folder), ..options() };
    Server::start_in(server.folder(), options)
}
