//! The first start: folders that only their owner can read, and hooks that are compiled before anybody waits for them.
#![cfg(unix)]

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use crate::support::{Server, ServerOptions, guest};
use crate::workbench::{create, open_model};

/// The subfolders that others can access.
fn open_folders(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mode = std::fs::metadata(folder).expect("a folder").permissions().mode() & 0o777;
    if mode != 0o700 {
        found.push(format!("{} {mode:o}", folder.display()));
    }
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(open_folders(&path));
        }
    }
    found
}

#[test]
fn folders_of_data_are_for_their_owner_alone() {
    let files = |store: &str| format!("[driver-{store}-storage]\ndriver = 'file'\npath = 'data/deep/er/{store}'\n");
    for tables in [String::new(), ["event", "model", "error"].map(files).concat()] {
        let server = Server::start_with(ServerOptions {
            tables,
            auth: "mode = 'tokens'",
            cache: Some("data/cache/deep".into()),
            ..ServerOptions::default()
        });
        let token = std::fs::read_to_string(server.directory().join("data/admin.token")).expect("a token");
        let api = server.client();
        let ask = |method: &str, path: &str| {
            api.request(method, path).header("Authorization", &format!("Bearer {}", token.trim_end()))
        };
        ask("POST", "/models").json(&json!({"id": "js", "schema": {"type": "object"}})).send().expect(201);
        let hook = ask("PUT", "/models/js/hooks/preCreate").body("text/javascript", "export default () => {}");
        hook.send().expect(200);
        ask("POST", "/models/js/instances").json(&json!({"data": {}})).send().expect(201);
        ask("PUT", "/secrets/key").body("text/plain", "hunter2").send().expect(204);
        assert_eq!(open_folders(&server.directory().join("data")), Vec::<String>::new());
    }
}

#[test]
fn a_folder_that_others_can_read_is_warned_of() {
    let mut server = Server::start();
    server.stop();
    let data = server.directory().join("data");
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    let server = server.restart_ended();
    let warned = |line: &&String| line.contains("WARN") && line.contains("data` has mode 755: other users");
    assert!(server.log().iter().any(|line| warned(&line)), "{:?}", server.log());
    // The server leaves the mode unchanged.
    let mode = std::fs::metadata(&data).expect("a folder").permissions().mode();
    assert_eq!(mode & 0o777, 0o755);
}

#[test]
fn what_hooks_need_is_compiled_before_the_port_opens() {
    let Some(component) = guest("check.wasm") else { return };
    let mut server = Server::start_with(ServerOptions { cache: Some("data/cache".into()), ..ServerOptions::default() });
    let api = server.client();
    open_model(&api, "js");
    open_model(&api, "wasm");
    api.put_javascript("js", "preCreate", "export default () => {}").expect(200);
    api.request("PUT", "/models/wasm/hooks/preCreate").body("application/wasm", component).send().expect(200);
    server.stop();
    // As on another machine or after an upgrade: there is no compiled code.
    std::fs::remove_dir_all(server.directory().join("data/cache")).expect("removed");
    let mut server = server.restart_ended();
    let position = |log: &[String], text: &str| log.iter().position(|line| line.contains(text));
    let log = server.log();
    for text in [
        "compiling the code of 2 hooks",
        "compiled `js.preCreate/",
        "compiled `wasm.preCreate/",
        "of hooks is compiled, ",
    ] {
        let at = position(&log, text).unwrap_or_else(|| panic!("{text}: {log:?}"));
        assert!(at < position(&log, "started in ").expect("a start"), "{text}: {log:?}");
    }
    create(&server.client(), "js", &json!({})).expect(201);
    let compiled = |log: &[String]| log.iter().filter(|line| line.contains("compil")).count();
    assert_eq!(compiled(&server.log()), compiled(&log), "{:?}", server.log());
    // The next start finds everything compiled.
    server.stop();
    let server = server.restart_ended();
    assert_eq!(compiled(&server.log()), 0, "{:?}", server.log());
}

/// The compilers of a server that is started in this folder: their number, and the maximum at once.
struct Compilers {
    ended: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<(usize, usize)>,
}

impl Compilers {
    fn watch(folder: &Path) -> Compilers {
        let (ended, folder) = (Arc::new(AtomicBool::new(false)), folder.canonicalize().expect("a folder"));
        let is_over = Arc::clone(&ended);
        let thread = std::thread::spawn(move || {
            let (mut all, mut peak) = (BTreeSet::new(), 0);
            while !is_over.load(Ordering::Relaxed) {
                let running: BTreeSet<String> = std::fs::read_dir("/proc")
                    .expect("processes")
                    .flatten()
                    .filter(|process| {
                        std::fs::read_link(process.path().join("cwd")).is_ok_and(|cwd| cwd == folder)
                            && std::fs::read(process.path().join("cmdline"))
                                .is_ok_and(|line| line.ends_with(b"\0worker\0"))
                    })
                    .filter_map(|process| process.file_name().into_string().ok())
                    .collect();
                peak = peak.max(running.len());
                all.extend(running);
            }
            (all.len(), peak)
        });
        Compilers { ended, thread }
    }

    fn counts(self) -> (usize, usize) {
        self.ended.store(true, Ordering::Relaxed);
        self.thread.join().expect("no panic")
    }
}

#[test]
fn several_hooks_are_compiled_at_once_and_the_same_code_only_once() {
    let [Some(first), Some(second)] = ["check.wasm", "check_c.wasm"].map(guest) else { return };
    let mut server = Server::start_with(ServerOptions { cache: Some("data/cache".into()), ..ServerOptions::default() });
    let api = server.client();
    let hooks = [("a", &first), ("b", &second), ("c", &second), ("d", &first), ("e", &first)];
    for (model, code) in hooks {
        open_model(&api, model);
        api.request("PUT", &format!("/models/{model}/hooks/preCreate"))
            .body("application/wasm", code.clone())
            .send()
            .expect(200);
    }
    server.stop();
    std::fs::remove_dir_all(server.directory().join("data/cache")).expect("removed");
    let compilers = Compilers::watch(server.directory());
    let server = server.restart_ended();
    let (all, peak) = compilers.counts();
    let log = server.log();
    // A compilation that gets no processor time on a busy machine is retried.
    assert!(all < hooks.len() && peak >= 2, "{all} compilers, {peak} at once: {log:?}");
    for (model, _) in hooks {
        let line = format!("compiled `{model}.preCreate/");
        assert!(log.iter().any(|said| said.contains(&line)), "{line}: {log:?}");
    }
    assert!(log.iter().any(|line| line.contains(", 5 of 5")), "{log:?}");
}
