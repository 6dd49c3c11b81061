//! Instances in json-server, a third-party REST API: <https://github.com/typicode/json-server/tree/v0.17.4>. It
//! responds with 500 if a record to create already exists, and with 404 if a record does not exist.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use snaphook_crud::DRIVER;
use snaphook_driver::{CarryOver, ErrorKind, Event, EventKind, ModelStore, OpenContext};
use snaphook_driver_peer::{Method, Peer};
use snaphook_driver_testkit::sample::{change, created, shape};
use tempfile::TempDir;

const DEADLINE: Duration = Duration::from_secs(30);

/// The server, with its own folder for its file.
struct JsonServer {
    program: PathBuf,
    folder: TempDir,
    port: u16,
    process: Child,
    peer: Peer,
}

impl Drop for JsonServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl JsonServer {
    /// `None` if json-server is not installed.
    async fn start(collections: &[&str]) -> Option<JsonServer> {
        let packages = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/json-server");
        let program = packages.join("node_modules/json-server/lib/cli/bin.js");
        if !program.is_file() {
            assert!(std::env::var_os("CI").is_none(), "json-server is not installed");
            eprintln!("skipped: no json-server; `cargo xtask test` installs it, or `npm ci` in {}", packages.display());
            return None;
        }
        let folder = TempDir::new().unwrap();
        let empty: BTreeMap<&str, [(); 0]> = collections.iter().map(|name| (*name, [])).collect();
        std::fs::write(folder.path().join("db.json"), json!(empty).to_string()).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let process = run(&program, &folder, port);
        let peer = Peer::new(&format!("http://127.0.0.1:{port}"), None, DEADLINE).unwrap();
        let server = JsonServer { program, folder, port, process, peer };
        server.wait().await;
        Some(server)
    }

    async fn kill_and_start_again(&mut self) {
        self.kill();
        self.process = run(&self.program, &self.folder, self.port);
        self.wait().await;
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Waits until the file contains the current data, because json-server writes it slightly later.
    async fn written(&self) {
        let started = Instant::now();
        let parse = |bytes: &[u8]| snaphook_driver::json::parse_bytes(bytes).ok();
        loop {
            let response = self.peer.send(Method::GET, "/db", None, 10 << 20).await.unwrap();
            let file = std::fs::read(self.folder.path().join("db.json")).unwrap();
            if parse(&file).is_some_and(|file| Some(file) == parse(&response.body)) {
                return;
            }
            assert!(started.elapsed() < DEADLINE, "json-server does not write its file");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn wait(&self) {
        let started = Instant::now();
        while self.peer.send(Method::GET, "/db", None, 0).await.is_err() {
            assert!(started.elapsed() < DEADLINE, "json-server does not start");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The records of a collection, by id, without the fields that begin with `_`.
    async fn records(&self, collection: &str) -> BTreeMap<String, Value> {
        let response = self.peer.send(Method::GET, &format!("/{collection}"), None, 10 << 20).await.unwrap();
        assert!(response.is_whole && response.status == 200, "{}", response.complaint());
        let Value::Array(records) = snaphook_driver::json::parse_bytes(&response.body).unwrap() else { panic!() };
        let records = records.into_iter().map(|record| {
            let Value::Object(mut record) = record else { panic!("{record}") };
            record.retain(|name, _| !name.starts_with('_'));
            let Some(Value::String(id)) = record.remove("id") else { panic!("{record:?}") };
            (id, Value::Object(record))
        });
        records.collect()
    }
}

fn run(program: &Path, folder: &TempDir, port: u16) -> Child {
    Command::new("node")
        .arg(program)
        .args(["db.json", "--quiet", "--host", "127.0.0.1", "--port", &port.to_string()])
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("node starts")
}

async fn open(folder: &Path, server: &JsonServer) -> Arc<dyn ModelStore> {
    let settings = json!({ "url": format!("http://127.0.0.1:{}", server.port), "state": "state" });
    let Value::Object(settings) = settings else { unreachable!() };
    DRIVER.model.unwrap()(OpenContext::new(settings, folder)).await.unwrap()
}

fn expected(records: &[(&str, Value)]) -> BTreeMap<String, Value> {
    records.iter().map(|(id, data)| ((*id).to_owned(), data.clone())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_life_in_json_server() {
    let Some(mut server) = JsonServer::start(&["film", "star"]).await else { return };
    let folder = TempDir::new().unwrap();
    let store = open(folder.path(), &server).await;
    store.health().await.unwrap();
    let film = shape("film", 1, &[], &[]);
    store.define(0, None, &film, &CarryOver::default(), 1).await.unwrap();
    store.define(0, None, &shape("star", 1, &[], &[]), &CarryOver::default(), 2).await.unwrap();
    let events = [
        created(3, "film", "a", &json!({"title": "é", "id": "mine"})),
        created(4, "film", "b", &json!({"title": "two", "tags": [1, {"x": null}]})),
        created(5, "star", "a", &json!({"name": "x"})),
        created(6, "film", "c", &json!({})),
    ];
    store.apply(0, &events, 6).await.unwrap();
    assert_eq!(
        server.records("film").await,
        expected(&[
            ("a", json!({"title": "é"})),
            ("b", json!({"title": "two", "tags": [1, {"x": null}]})),
            ("c", json!({})),
        ])
    );
    let events = [
        change(EventKind::InstanceUpdated, 7, "film", "a", Some(r#"{"title":"new"}"#)),
        change(EventKind::InstanceDeleted, 8, "film", "b", None),
        change(EventKind::InstanceDeleted, 9, "film", "absent", None),
    ];
    store.apply(6, &events, 9).await.unwrap();
    let carry = CarryOver { renames: vec![("title".into(), "name".into())], defaults: vec![("n".into(), json!(1))] };
    store.define(9, Some(&film), &shape("film", 2, &[], &[]), &carry, 10).await.unwrap();
    let films = expected(&[("a", json!({"name": "new", "n": 1})), ("c", json!({"n": 1}))]);
    assert_eq!(server.records("film").await, films);

    // The peer stops and restarts: the same call then succeeds.
    server.written().await;
    server.kill();
    let events =
        [created(11, "film", "d", &json!({"n": 4})), change(EventKind::InstanceDeleted, 12, "film", "c", None)];
    let error = store.apply(10, &events, 12).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(store.health().await.is_err());
    server.kill_and_start_again().await;
    store.apply(10, &events, 12).await.unwrap();
    let films = expected(&[("a", json!({"name": "new", "n": 1})), ("d", json!({"n": 4}))]);
    assert_eq!(server.records("film").await, films);
    store.close().await.unwrap();
    drop(store);

    // A backup of the folder is restored, so the state is older than the peer.
    let store = open(folder.path(), &server).await;
    assert_eq!(store.checkpoint().await.unwrap(), 12);
    let journal = folder.path().join("state/journal");
    let before = std::fs::read(&journal).unwrap();
    let events =
        [created(13, "film", "e", &json!({"n": 5})), change(EventKind::InstanceDeleted, 14, "film", "d", None)];
    store.apply(12, &events, 14).await.unwrap();
    drop(store);
    std::fs::write(&journal, before).unwrap();
    let store = open(folder.path(), &server).await;
    assert_eq!(store.checkpoint().await.unwrap(), 12);
    store.apply(12, &events, 14).await.unwrap();
    let films = expected(&[("a", json!({"name": "new", "n": 1})), ("e", json!({"n": 5}))]);
    assert_eq!(server.records("film").await, films);

    store.drop_model(14, "star", 15).await.unwrap();
    assert_eq!(server.records("star").await, BTreeMap::new());
    store.reset("log").await.unwrap();
    assert_eq!(server.records("film").await, BTreeMap::new());
}

/// The process and the peer end in the middle of a call. Applying the events again leads both to the same state.
#[tokio::test(flavor = "multi_thread")]
async fn a_replay_after_a_kill() {
    let Some(mut server) = JsonServer::start(&["m"]).await else { return };
    let folder = TempDir::new().unwrap();
    let store = open(folder.path(), &server).await;
    store.define(0, None, &shape("m", 1, &[], &[]), &CarryOver::default(), 1).await.unwrap();
    let events: Vec<Event> = (0..200)
        .map(|n| match n % 5 {
            4 => change(EventKind::InstanceDeleted, 2 + n, "m", &format!("i{}", n - 4), None),
            _ => created(2 + n, "m", &format!("i{n}"), &json!({"n": n})),
        })
        .collect();
    {
        let call = store.apply(1, &events, 300);
        let some_arrived = async {
            while server.records("m").await.len() < 20 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! { result = call => result.unwrap(), () = some_arrived => {} }
    }
    drop(store);
    server.kill_and_start_again().await;
    let store = open(folder.path(), &server).await;
    let at = store.checkpoint().await.unwrap();
    store.apply(at, &events, 300).await.unwrap();
    let wanted: BTreeMap<String, Value> =
        (0..200_u64).filter(|n| !matches!(n % 5, 0 | 4)).map(|n| (format!("i{n}"), json!({"n": n}))).collect();
    assert_eq!(server.records("m").await, wanted);
}
