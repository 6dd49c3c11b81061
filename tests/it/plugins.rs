//! Drivers as libraries in the plugins folder: they store data like the linked drivers, and a library that cannot be
//! loaded ends the start.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::support::{Server, ServerOptions, create_orders, skip};

/// The folder with the libraries.
const BUILT: &str = "SNAPHOOK_PLUGINS";

/// A folder with the libraries of these drivers; prints a message and returns `None` if there are none.
pub(crate) fn folder(drivers: &[&str]) -> Option<tempfile::TempDir> {
    if std::env::var_os(BUILT).is_none() {
        skip("drivers as libraries", "SNAPHOOK_PLUGINS is not set; `cargo xtask plugins` builds them");
        return None;
    }
    let folder = tempfile::tempdir().expect("a folder");
    put(drivers, folder.path());
    Some(folder)
}

/// Copies the libraries of these drivers into a folder.
pub(crate) fn put(drivers: &[&str], folder: &Path) {
    let built = PathBuf::from(std::env::var_os(BUILT).expect("`cargo xtask plugins` builds the libraries"));
    std::fs::create_dir_all(folder).expect("a folder");
    for driver in drivers {
        let file = format!("{}snaphook_{driver}{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
        std::fs::copy(built.join(driver).join(&file), folder.join(&file)).expect("it was built");
    }
}

/// The table that replaces the linked drivers with libraries.
pub(crate) fn table(folder: &Path) -> String {
    format!("[plugins]\ndirectory = '{}'\nreplace = ['sqlite', 'file']\n", folder.display())
}

#[test]
fn every_store_in_a_library() {
    let Some(folder) = folder(&["sqlite", "file"]) else { return };
    let mut server = Server::start_with(ServerOptions { tables: table(folder.path()), ..ServerOptions::default() });
    let api = server.client();
    let plugins = api.get("/plugins").expect(200).json();
    let names: Vec<_> = plugins["items"].as_array().expect("a list").iter().map(|plugin| &plugin["name"]).collect();
    assert_eq!(names, ["file", "sqlite"], "{plugins}");
    assert_eq!(plugins["items"][1]["drivers"], json!([{"name": "sqlite", "stores": ["event", "model", "error"]}]));
    let digest = plugins["items"][0]["sha256"].as_str().expect("a digest").to_owned();
    assert!(server.log().iter().any(|line| line.contains("plugin libsnaphook_file.so") && line.contains(&digest)));

    create_orders(&api, "order");
    api.put_javascript("order", "postCreate", "export function postCreate() { throw new Error('no'); }").expect(200);
    for name in ["b", "a"] {
        api.post("/models/order/instances", &json!({"id": name, "data": {"name": name}})).expect(201);
    }
    api.request("PUT", "/secrets/key").body("text/plain", "value").send().expect(204);
    let list = |server: &Server| server.client().get("/models/order/instances?sort=name").expect(200).json();
    let before = list(&server);
    assert!(api.get("/metrics").expect(200).text().contains("driver=\"sqlite\",operation=\"append\""));
    assert!(server.stop().success());
    // The linked driver reads the data that a library stored, and vice versa.
    let config = server.config_file();
    let text = std::fs::read_to_string(&config).expect("a config");
    let linked = text.replace(&table(folder.path()), "");
    assert_ne!(linked, text);
    std::fs::write(&config, linked).expect("a config");
    let output = Command::new(env!("CARGO_BIN_EXE_snaphook"))
        .args(["rebuild", "--config"])
        .arg(&config)
        .output()
        .expect("the binary starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let server = server.restart_ended();
    assert_eq!(list(&server), before);
}

/// The start fails with one line that names the file.
#[test]
fn what_cannot_be_loaded_ends_the_start() {
    let Some(folder) = folder(&["sqlite", "memory"]) else { return };
    let sqlite = folder.path().join("libsnaphook_sqlite.so");
    let memory = folder.path().join("libsnaphook_memory.so");
    let directory = tempfile::tempdir().expect("a folder");
    let start = |plugins: &str| {
        let config = format!(
            "[server]\nmount-address = '127.0.0.1:0'\n[auth]\nmode = 'open'\n[plugins]\ndirectory = '{}'\n{plugins}\n",
            folder.path().display()
        );
        std::fs::write(directory.path().join("config.toml"), config).expect("a config");
        let output = Command::new(env!("CARGO_BIN_EXE_snaphook"))
            .arg("serve")
            .current_dir(directory.path())
            .output()
            .expect("the binary starts");
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let refused = start("replace = ['memory']");
    assert!(
        refused.contains("libsnaphook_sqlite.so` provides the driver `sqlite`, which the binary contains"),
        "{refused}"
    );
    let refused = start(&format!("sha256 = ['{}']\nreplace = ['sqlite', 'memory']", "0".repeat(64)));
    for file in [&sqlite, &memory] {
        let line = format!("plugin `{}`: its digest ", file.display());
        assert!(refused.contains(&line) && refused.contains("is not in `plugins.sha256`"), "{refused}");
    }
    // Not a library despite its name; files in subfolders do not matter.
    std::fs::remove_file(&memory).expect("a file");
    std::fs::write(&sqlite, "#!/bin/sh\n").expect("a file");
    std::fs::create_dir(folder.path().join("v8")).expect("a folder");
    std::fs::write(folder.path().join("v8/libother.so"), "no library either").expect("a file");
    let refused = start("");
    let line = format!("plugin `{}`: it cannot be loaded as a library", sqlite.display());
    assert!(refused.contains(&line) && !refused.contains("libother"), "{refused}");
    assert!(!directory.path().join("data/events.db").exists(), "a store was opened");
}

#[test]
fn plugins_are_listed_without_a_server() {
    let Some(folder) = folder(&["stdout"]) else { return };
    let directory = tempfile::tempdir().expect("a folder");
    let config = format!(
        "[server]\nmount-address = '127.0.0.1:0'\n[auth]\nmode = 'open'\n[plugins]\ndirectory = '{}'\nreplace = ['stdout']\n",
        folder.path().display()
    );
    std::fs::write(directory.path().join("config.toml"), config).expect("a config");
    let list = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_snaphook"))
            .args(["plugin", "list"])
            .args(arguments)
            .current_dir(directory.path())
            .output()
            .expect("the binary starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    let text = list(&[]);
    assert!(text.starts_with("libsnaphook_stdout.so  stdout ") && text.contains("stdout (error)"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&list(&["--json"])).expect("JSON");
    assert_eq!((&json["items"][0]["file"], &json["items"][0]["abi"]), (&json!("libsnaphook_stdout.so"), &json!(1)));
}

/// From an empty folder to a driver that a server uses.
#[test]
fn a_plugin_in_c_from_its_template() {
    let folder = begun("c");
    let built = Command::new("make").current_dir(folder.path().join("my-store")).output().expect("make runs");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    serves(&folder.path().join("my-store/libmy-store.so"));
}

/// A folder in which `snaphook plugin new` was run.
pub(crate) fn begun(language: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let new = |name: &str| {
        Command::new(env!("CARGO_BIN_EXE_snaphook"))
            .args(["plugin", "new", name, "--language", language])
            .current_dir(folder.path())
            .output()
            .expect("the binary runs")
    };
    let made = new("my-store");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    assert!(String::from_utf8_lossy(&made.stdout).contains("next: cd my-store && "));
    for (name, fault) in
        [("my-store", "already exists"), ("../x", "not a valid driver name"), ("-x", "unexpected argument")]
    {
        let refused = new(name);
        assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains(fault), "{name}");
    }
    folder
}

/// Starts a server that stores its secrets with the driver `my-store` of a library.
#[track_caller]
pub(crate) fn serves(library: &Path) {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::copy(library, folder.path().join(library.file_name().expect("a name"))).expect("a library");
    let tables =
        format!("[plugins]\ndirectory = '{}'\n[driver-secure-storage]\ndriver = 'my-store'\n", folder.path().display());
    let server = Server::start_with(ServerOptions { tables, ..ServerOptions::default() });
    let api = server.client();
    api.request("PUT", "/secrets/key").body("text/plain", "value").send().expect(204);
    assert_eq!(api.get("/secrets").expect(200).json()["items"], json!(["key"]));
    assert_eq!(api.get("/plugins").expect(200).json()["items"][0]["drivers"][0]["name"], "my-store");
}
