//! `snaphook dev`: saved files are bound, runs are printed, and errors have a location.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::{Background, command, run, write};
use crate::support::{Client, PATIENCE, Server, eventually, skip};

/// A running `snaphook dev` and its output so far.
pub(super) struct Dev {
    process: Background,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Dev {
    pub(super) fn start(directory: &Path, args: &[&str]) -> Dev {
        Dev::start_with(&mut command(directory, args))
    }

    pub(super) fn start_with(command: &mut Command) -> Dev {
        let mut child: Child =
            command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().expect("the binary starts");
        let lines = Arc::new(Mutex::new(Vec::new()));
        let stdout = child.stdout.take().expect("a pipe");
        let collected = Arc::clone(&lines);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                collected.lock().expect("no panic while locked").push(line);
            }
        });
        Dev { process: Background(child), lines }
    }

    /// A client of the server that `dev` started.
    #[track_caller]
    pub(super) fn client(&self) -> Client {
        let printed = self.printed();
        let address = printed.lines().find_map(|line| line.strip_prefix("snaphook serves at http://"));
        Client::new(address.expect("an address").parse().expect("an address"), "/")
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.process.0.id()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, signal).expect("a process");
    }

    pub(super) fn printed(&self) -> String {
        self.lines.lock().expect("no panic while locked").join("\n")
    }

    /// Waits until the output contains the text.
    #[track_caller]
    pub(super) fn says(&self, text: &str) {
        self.says_within(PATIENCE, text);
    }

    /// The same with a longer timeout.
    #[track_caller]
    pub(super) fn says_within(&self, patience: Duration, text: &str) {
        let deadline = Instant::now() + patience;
        while !self.printed().contains(text) {
            assert!(Instant::now() < deadline, "`{text}` is not printed within {patience:?}; but:\n{}", self.printed());
            // A pause between two polls, not an estimate of the duration.
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(super) fn count(&self, text: &str) -> usize {
        self.printed().matches(text).count()
    }
}

/// A new project with a port and a cache of the test's choice.
pub(super) fn project(place: &Path) -> PathBuf {
    run(place, &["init", "shop"]).ok();
    let shop = place.join("shop");
    let config = std::fs::read_to_string(shop.join("config.toml")).expect("a configuration");
    let cache = format!("[hooks]\ncache = '{}'\n", Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache").display());
    write(&shop, "config.toml", &config.replace(":1337", ":0").replace("[hooks]\n", &cache));
    shop
}

#[test]
fn what_is_saved_is_bound_and_what_runs_is_printed() {
    let place = tempfile::tempdir().expect("a folder");
    let shop = project(place.path());
    let mut dev = Dev::start(&shop, &["dev"]);
    dev.says("watching ");
    dev.says("create hook `order.preCreate`: quickjs (preCreate.ts)");
    let printed = dev.printed();
    let address = printed.lines().find_map(|line| line.strip_prefix("snaphook serves at http://")).expect("an address");
    let api = Client::new(address.parse().expect("an address"), "/");
    let create = |id: &str, total: i64| {
        api.post("/models/order/instances", &json!({"id": id, "data": {"customer": "ada", "total": total}}))
    };
    create("a-1", 5).expect(201);
    dev.says("order.preCreate/preCreate a-1 amend ");
    dev.says("    info: an order of ada");
    create("a-2", 5_000_000).expect_problem(422, "rejected");
    dev.says("order.preCreate/preCreate a-2 reject ");
    dev.says("    /total: 5000000 is too much");

    // A saved hook is bound and applies to the next write.
    let hook = "hooks/order/preCreate.ts";
    write(
        &shop,
        hook,
        "export const preCreate = ({ after }) => { if (after.total > 3) throw new Reject('at most 3'); };\n",
    );
    dev.says("change hook `order.preCreate`: quickjs (preCreate.ts), ");
    create("a-3", 5).expect_problem(422, "rejected");
    dev.says("order.preCreate/preCreate a-3 reject ");

    // An error has a location, is printed once, and leaves the bound hook unchanged; other files are still bound.
    write(&shop, hook, "export const preCreate = ({ after }) => {\n  const a: = 1;\n};\n");
    write(&shop, "hooks/order/preDelete.js", "export function preDelete({ read }) { read.get('customer', 'ada'); }\n");
    dev.says("hooks/order/preCreate.ts:2:");
    dev.says("create hook `order.preDelete`: quickjs (preDelete.js), ");
    create("a-4", 5).expect_problem(422, "rejected");
    write(&shop, "hooks/audit/model.json", "{\n  \"schema\": {,\n}\n");
    dev.says("hooks/audit/model.json:2: not valid JSON");
    write(&shop, "hooks/audit/model.json", r#"{"schema": {"type": "object"}}"#);
    dev.says("create model `audit`, ");
    assert_eq!(dev.count("hooks/order/preCreate.ts:2:"), 1, "{}", dev.printed());

    // A missing grant is printed ready to paste.
    api.request("DELETE", "/models/order/instances/a-1").send().expect_problem(502, "hook-failed");
    dev.says("order.preDelete/preDelete a-1 failed (exception) ");
    dev.says("it lacked a grant; in config.toml:\n\n[[grants]]\nmodel = 'order'\nphase = 'preDelete'\nhook = 'preDelete'\nread = ['customer']\n");

    // A changed model, and a removed file.
    let model = std::fs::read_to_string(shop.join("hooks/order/model.json")).expect("a model");
    write(&shop, "hooks/order/model.json", &model.replace("\"minLength\": 1", "\"minLength\": 2"));
    dev.says("change model `order`: schema, ");
    std::fs::remove_file(shop.join("hooks/order/preDelete.js")).expect("a file");
    dev.says("remove hook `order.preDelete`");
    api.request("DELETE", "/models/order/instances/a-1").send().expect(204);

    dev.signal(Signal::INT);
    let status = eventually("it ends", || dev.process.0.try_wait().expect("a child"));
    assert!(status.success(), "{status}");
    assert!(std::net::TcpStream::connect(address).is_err(), "its server ends with it");
}

#[test]
fn a_server_that_runs_is_used() {
    let server = Server::start();
    let place = tempfile::tempdir().expect("a folder");
    let shop = project(place.path());
    let url = format!("http://{}", server.address());
    let mut dev = Dev::start(&shop, &["dev", "--url", &url]);
    dev.says("watching ");
    assert!(!dev.printed().contains("serves at"), "{}", dev.printed());
    let api = server.client();
    // The project's own configuration has no grant for the hook.
    let data = json!({"id": "a-1", "data": {"customer": "ada", "total": 5}});
    api.post("/models/order/instances", &data).expect_problem(502, "hook-failed");
    dev.says("order.preCreate/preCreate a-1 failed (amend) ");
    dev.says("amend = true");
    dev.signal(Signal::INT);
    eventually("it ends", || dev.process.0.try_wait().expect("a child"));
    api.get("/models/order").expect(200);

    let nobody = run(&shop, &["dev", "--url", "http://127.0.0.1:1"]).fails();
    assert!(nobody.contains("no server responds"), "{nobody}");
    let nothing = run(&shop, &["dev", "gone"]).fails();
    assert!(nothing.contains("`gone` is not a folder"), "{nothing}");
}

/// Other tests use the same cores, so it is enough that the fastest of several saves meets the limit.
#[test]
fn a_save_is_answered_within_a_second() {
    let place = tempfile::tempdir().expect("a folder");
    let shop = project(place.path());
    let dev = Dev::start(&shop, &["dev"]);
    dev.says("watching ");
    let mut quickest = Duration::MAX;
    for save in 1..=10 {
        let started = Instant::now();
        let source = format!("export const preCreate = () => {{ throw new Reject('save {save}'); }};\n");
        write(&shop, "hooks/order/preCreate.ts", &source);
        eventually("it is bound", || {
            (dev.count("change hook `order.preCreate`: quickjs (preCreate.ts), ") == save).then_some(())
        });
        quickest = quickest.min(started.elapsed());
        let data = json!({"data": {"customer": "ada", "total": 5}});
        let problem = dev.client().post("/models/order/instances", &data).expect_problem(422, "rejected");
        assert_eq!(problem["detail"], format!("save {save}"), "what was said to be bound decides");
        if quickest < Duration::from_secs(1) {
            return;
        }
    }
    panic!("the quickest of ten saves took {quickest:?}");
}

/// Builds a file of the repository as a library. The flags make its bytes differ.
fn library(shop: &Path, flags: &[&str]) -> bool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let new = shop.join("hooks/check.new");
    let mut command = Command::new("cc");
    command.args(["-shared", "-fPIC", "-fexceptions"]).args(flags).arg("-I").arg(root.join("sdk/c"));
    match command.arg("-o").arg(&new).arg(root.join("sdk/c/examples/check.c")).output() {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => {
            skip("a library in C under `snaphook dev`", &error.to_string());
            return false;
        }
    }
    std::fs::rename(new, shop.join("hooks/check.so")).expect("a library");
    true
}

#[test]
fn a_saved_library_is_loaded_and_said() {
    let place = tempfile::tempdir().expect("a folder");
    let shop = project(place.path());
    if !library(&shop, &["-O1"]) {
        return;
    }
    let dev = Dev::start(&shop, &["dev"]);
    dev.says("watching ");
    let loaded = "order.preUpdate/check: library `check.so` is loaded, not sandboxed (sha256:";
    write(&shop, "hooks/order/preUpdate.toml", "[[chain]]\nlibrary = 'check.so'\n");
    dev.says("create hook `order.preUpdate`: native (preUpdate.toml), ");
    let times = |times: usize| eventually("a library is said", || (dev.count(loaded) == times).then_some(()));
    times(1);
    // The hook is never called: only the save produces output.
    library(&shop, &["-O0"]);
    times(2);
    let fault = "order.preUpdate/check: library `check.so` is not loaded: ";
    std::fs::write(shop.join("hooks/check.new"), "no library at all").expect("a file");
    std::fs::rename(shop.join("hooks/check.new"), shop.join("hooks/check.so")).expect("a file");
    dev.says(fault);
    library(&shop, &["-O1"]);
    times(3);
    assert_eq!(dev.count(fault), 1, "{}", dev.printed());
}

#[test]
fn who_misses_runs_is_told() {
    let place = tempfile::tempdir().expect("a folder");
    let shop = project(place.path());
    // A fixed port, for a server that restarts.
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
    let config = std::fs::read_to_string(shop.join("config.toml")).expect("a configuration");
    let patient = config.replace(":0", &format!(":{port}")).replace("[hooks]\n", "[hooks]\ntimeout = '60 s'\n");
    write(&shop, "config.toml", &patient);
    let serve = || {
        let server = Background(command(&shop, &["serve"]).spawn().expect("the binary starts"));
        let address = format!("127.0.0.1:{port}");
        eventually("it serves", || std::net::TcpStream::connect(&address).ok());
        server
    };
    let server = serve();
    let dev = Dev::start(&shop, &["dev"]);
    dev.says("watching ");
    let api = Client::new(format!("127.0.0.1:{port}").parse().expect("an address"), "/");
    let create = |id: &str| {
        api.post("/models/order/instances", &json!({"id": id, "data": {"customer": "ada", "total": 5}})).expect(201)
    };
    create("first");
    dev.says("order.preCreate/preCreate first amend ");

    // The terminal stops reading, as when text is selected, until all buffers are full: 150 MB exceed them.
    let lines = "x".repeat(60_000);
    let source = format!("export const preCreate = ({{ log }}) => {{ log.info('{lines}'); }};\n");
    write(&shop, "hooks/order/preCreate.ts", &source);
    dev.says("change hook `order.preCreate`: quickjs (preCreate.ts), ");
    dev.signal(Signal::STOP);
    let line = format!("{}\n", json!({"data": {"customer": "ada", "total": 5}}));
    let made = api.request("POST", "/models/order/import").body("application/x-ndjson", line.repeat(2_500)).send();
    assert_eq!(made.expect(200).json()["failed"], 0);
    dev.signal(Signal::CONT);
    dev.says(" runs are missing here: they came faster than they could be printed");

    // The server stops and restarts.
    drop(server);
    dev.says("the connection to the server broke; runs are missing here until it is back");
    let _server = serve();
    dev.says("the connection to the server is back; runs of ");
    create("last");
    dev.says("order.preCreate/preCreate last accept ");
}
