//! A full disk: the server reports it, its effects are bounded, and they end when there is space again.
//!
//! The disk is simulated by a limit on file sizes, which the test changes while the server runs.

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::json;

use crate::support::{Server, eventually};

/// From now on no file of the server may grow beyond this size.
fn limit_files(server: &Server, bytes: Option<u64>) {
    let pid = i32::try_from(server.pid()).ok().and_then(Pid::from_raw).expect("a process id");
    prlimit(Some(pid), Resource::Fsize, Rlimit { current: bytes, maximum: None }).expect("a limit");
}

fn errors(server: &Server) -> Vec<String> {
    server.log().into_iter().filter(|line| line.contains("ERROR")).collect()
}

#[test]
fn writes_are_503_and_come_back_by_themselves() {
    let server = Server::start();
    let api = server.client();
    api.post("/models", &json!({"id": "m", "schema": {"type": "object"}})).expect(201);
    api.post("/models/m/instances", &json!({"id": "before", "data": {}})).expect(201);
    for round in 0..2 {
        assert_eq!(errors(&server).len(), round, "{:?}", errors(&server));
        limit_files(&server, Some(1));
        for number in 0..20 {
            let body = json!({"id": format!("lost{round}-{number}"), "data": {}});
            api.post("/models/m/instances", &body).expect_problem(503, "storage");
            // Existing data can be read.
            api.get("/models/m/instances/before").expect(200);
        }
        api.post("/models", &json!({"id": "other", "schema": {"type": "object"}})).expect_problem(503, "storage");
        let ready = api.get("/readyz").expect(503).json();
        assert_eq!(
            (&ready["status"], &ready["stores"][0]["store"]),
            (&json!("unavailable"), &json!("event")),
            "{ready}"
        );
        assert!(ready["stores"][0]["reason"].as_str().is_some_and(|reason| reason.contains("disk")), "{ready}");
        api.get("/healthz").expect(200);
        assert_eq!(errors(&server).len(), round + 1, "{:?}", errors(&server));
        limit_files(&server, None);
        // The server becomes ready again without a write.
        eventually("the server is ready", || (api.get("/readyz").status == 200).then_some(()));
        api.post("/models/m/instances", &json!({"id": format!("after{round}"), "data": {}})).expect(201);
    }
    let again = server.log().iter().filter(|line| line.contains("the event store works again")).count();
    assert_eq!(again, 2, "{}", server.log().join("\n"));
    // The log and the model store agree, now and after a restart.
    let there = |server: &Server| {
        let api = server.client();
        let events = api.get("/events?model=m&type=instance.created&limit=1000").expect(200).json();
        let ids: Vec<_> =
            events["items"].as_array().expect("events").iter().map(|event| event["instance"].clone()).collect();
        let instances = api.get("/models/m/instances?limit=1000").expect(200).json();
        let mut sorted = ids.clone();
        sorted.sort_by_key(|id| id.as_str().map(str::to_owned));
        let found: Vec<_> =
            instances["items"].as_array().expect("items").iter().map(|item| item["id"].clone()).collect();
        assert_eq!(found, sorted);
        ids
    };
    let before = there(&server);
    let server = server.restart();
    assert_eq!(there(&server), before);
}
