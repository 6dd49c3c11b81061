//! Retries of failed post hooks: each runs once and they run concurrently, however many clients ask; failures are
//! recorded once.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::gate::Gate;
use crate::support::{Client, Server, ServerOptions, eventually};

const FAILS: &str = "export default () => { throw new Error('not yet'); }";

/// A server whose hooks of `task` may call the gate; they fail permanently after the first attempt.
fn start(gate: &Gate) -> Server {
    let options =
        ServerOptions { tables: gate.grant("task", ""), hooks: "max-attempts = 1".into(), ..ServerOptions::default() };
    let server = Server::start_with(options);
    let api = server.client();
    api.post("/models", &json!({"id": "task", "schema": {"type": "object"}})).expect(201);
    for phase in ["postCreate", "postUpdate"] {
        api.put_javascript("task", phase, FAILS).expect(200);
    }
    server
}

/// From now on each run calls the gate, with the instance and the position of the event.
fn mend(api: &Client, gate: &Gate) {
    let source = format!("export default ({{ id, event }}) => fetch(`{}/${{id}}/${{event.position}}`);", gate.url());
    for phase in ["postCreate", "postUpdate"] {
        let path = format!("/models/task/hooks/{phase}?name={phase}");
        api.request("PUT", &path).body("text/javascript", source.as_str()).send().expect(200);
    }
}

#[track_caller]
fn create(api: &Client, id: &str) {
    api.post("/models/task/instances", &json!({"id": id, "data": {}})).expect(201);
}

#[track_caller]
fn errors(api: &Client, count: usize) -> Vec<Value> {
    eventually(&format!("{count} errors"), || {
        let page = api.get("/errors?limit=1000").expect(200).json();
        let items = page["items"].as_array().expect("items").clone();
        (items.len() == count).then_some(items)
    })
}

fn id(error: &Value) -> &str {
    error["id"].as_str().expect("an id")
}

#[track_caller]
fn start_job(api: &Client) -> String {
    api.request("POST", "/errors/retry").send().expect(202).json()["job"].as_str().expect("a job").to_owned()
}

fn job(api: &Client, id: &str) -> Value {
    api.get(&format!("/jobs/{id}")).expect(200).json()
}

#[track_caller]
fn ended(api: &Client, id: &str) -> Value {
    eventually("the job ends", || Some(job(api, id)).filter(|job| job["state"] != "running"))
}

#[test]
fn a_record_is_retried_by_one_at_a_time() {
    let gate = Gate::closed();
    let server = start(&gate);
    let api = server.client();
    create(&api, "a");
    let path = format!("/errors/{}", id(&errors(&api, 1)[0]));
    mend(&api, &gate);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| server.client().request("POST", &format!("{path}/retry")).send());
        gate.wait_for(1);
        // During a retry the record cannot be retried or deleted, and a bulk retry waits for it.
        api.request("POST", &format!("{path}/retry")).send().expect_problem(409, "conflict");
        api.delete(&path).expect_problem(409, "conflict");
        let started = start_job(&api);
        assert_eq!(job(&api, &started)["state"], "running");
        gate.open();
        assert_eq!(ended(&api, &started), json!({"id": started, "state": "done", "total": 0, "done": 0, "failed": 0}));
        let answer = first.join().expect("no panic").expect(200).json();
        assert_eq!(answer, json!({"matched": 1, "succeeded": 1}));
    });
    assert_eq!(gate.seen().len(), 1, "{:?}", gate.seen());
    api.request("POST", &format!("{path}/retry")).send().expect_problem(404, "not-found");
    errors(&api, 0);
}

#[test]
fn jobs_run_side_by_side_and_nothing_twice() {
    let gate = Gate::closed();
    let server = start(&gate);
    let api = server.client();
    for number in 0..12 {
        create(&api, &format!("i{number}"));
    }
    for number in 0..3 {
        api.patch(&format!("/models/task/instances/i{number}"), &json!({"n": 1})).expect(200);
    }
    errors(&api, 15);
    mend(&api, &gate);
    let (first, second) = (start_job(&api), start_job(&api));
    // All instances at once, one event each.
    let inside = gate.wait_for(12);
    let instances: BTreeSet<&str> = inside.iter().filter_map(|path| path.split('/').nth(1)).collect();
    assert_eq!(instances.len(), 12, "{inside:?}");
    assert_eq!(job(&api, &first)["state"], "running");
    gate.open();
    let (first, second) = (ended(&api, &first), ended(&api, &second));
    for job in [&first, &second] {
        assert_eq!((&job["state"], &job["failed"]), (&json!("done"), &json!(0)), "{job}");
    }
    assert_eq!(first["done"].as_u64().expect("a number") + second["done"].as_u64().expect("a number"), 15);
    let seen = gate.seen();
    assert_eq!((seen.len(), seen.iter().collect::<BTreeSet<_>>().len()), (15, 15), "{seen:?}");
    // Within an instance, in the order of the log.
    for number in 0..3 {
        let own: Vec<u64> =
            seen.iter().filter_map(|path| path.strip_prefix(&format!("/i{number}/"))?.parse().ok()).collect();
        assert!(own.len() == 2 && own.is_sorted(), "{own:?}");
    }
    errors(&api, 0);
}

#[test]
fn a_job_is_cancelled_and_keeps_what_it_did_not_do() {
    let gate = Gate::closed();
    let server = start(&gate);
    let api = server.client();
    for number in 0..80 {
        create(&api, &format!("i{number}"));
    }
    errors(&api, 80);
    mend(&api, &gate);
    let started = start_job(&api);
    gate.wait_for(8);
    assert_eq!(job(&api, &started)["total"], 80);
    api.delete(&format!("/jobs/{started}")).expect(204);
    gate.open();
    let ended = ended(&api, &started);
    assert_eq!(ended["state"], "cancelled", "{ended}");
    let done = ended["done"].as_u64().expect("a number");
    assert!((1..80).contains(&done), "{ended}");
    assert_eq!(errors(&api, 80 - done as usize).len() as u64, 80 - done);
    // The job has ended: cancelling it again changes nothing.
    api.delete(&format!("/jobs/{started}")).expect(204);
    assert_eq!(job(&api, &started), ended);
}

#[test]
fn what_fails_again_stays_and_is_counted() {
    let gate = Gate::closed();
    let server = start(&gate);
    let api = server.client();
    create(&api, "a");
    create(&api, "b");
    let before = errors(&api, 2);
    let started = start_job(&api);
    let ended = ended(&api, &started);
    assert_eq!((&ended["total"], &ended["done"], &ended["failed"]), (&json!(2), &json!(0), &json!(2)), "{ended}");
    let after = errors(&api, 2);
    assert_eq!(before.iter().map(id).collect::<Vec<_>>(), after.iter().map(id).collect::<Vec<_>>());
    assert_eq!(after[0]["attempts"], 2);
}

#[test]
fn kills_leave_each_failure_once() {
    const EVENTS: usize = 600;
    let gate = Gate::closed();
    let mut server = start(&gate);
    let lines: String = (0..EVENTS).map(|n| format!("{{\"id\":\"i{n}\",\"data\":{{}}}}\n")).collect();
    server.client().request("POST", "/models/task/import").body("application/x-ndjson", lines).send().expect(200);
    // The exact moment does not matter, as long as some are recorded and some are not.
    for part in 1..6 {
        let api = server.client();
        eventually("some more are recorded", || {
            let page = api.get("/errors?limit=1000").expect(200).json();
            (page["items"].as_array().expect("items").len() >= part * EVENTS / 8).then_some(())
        });
        server = server.kill_and_restart();
    }
    let api = server.client();
    let backlog = || metric(&api, "snaphook_post_hook_backlog{model=\"task\"}");
    eventually("all are dealt with", || (backlog() == Some(0)).then_some(()));
    let errors = errors(&api, EVENTS);
    let instances: BTreeSet<&str> =
        errors.iter().map(|error| error["event"]["instance"].as_str().expect("an id")).collect();
    assert_eq!(instances.len(), EVENTS);
    // Oldest first means in the order of the log.
    assert!(errors.is_sorted_by_key(|error| error["event"]["position"].as_u64()));
}

fn metric(api: &Client, name: &str) -> Option<u64> {
    let text = api.get("/metrics").expect(200).text();
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

#[test]
fn what_waits_is_measured() {
    let gate = Gate::closed();
    let server = start(&gate);
    let api = server.client();
    assert_eq!(metric(&api, "snaphook_errors "), Some(0));
    assert_eq!(metric(&api, "snaphook_listeners "), Some(0));
    create(&api, "bad");
    errors(&api, 1);
    eventually("it is counted", || (metric(&api, "snaphook_errors ") == Some(1)).then_some(()));
    mend(&api, &gate);
    create(&api, "a");
    create(&api, "b");
    gate.wait_for(2);
    let backlog = || metric(&api, "snaphook_post_hook_backlog{model=\"task\"}");
    eventually("both are counted", || (backlog() == Some(2)).then_some(()));
    let streams: Vec<_> = (0..3).map(|_| api.stream("/events/stream", &[])).collect();
    eventually("they listen", || (metric(&api, "snaphook_listeners ") == Some(3)).then_some(()));
    drop(streams);
    // A closed connection is noticed on the next write to it.
    eventually("they are gone", || {
        create(&api, &format!("c{}", api.get("/events?limit=1").expect(200).json()["head"]));
        (metric(&api, "snaphook_listeners ") == Some(0)).then_some(())
    });
    gate.open();
    eventually("nothing waits", || {
        (metric(&api, "snaphook_post_hook_backlog{model=\"task\"}") == Some(0)).then_some(())
    });
}
