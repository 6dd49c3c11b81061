//! Post hooks: at least once, in order per instance, concurrent across instances; failures and loops end in the error
//! store.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::gate::Gate;
use crate::support::{Client, Server, ServerOptions, eventually};

/// A grant for post hooks of a model.
fn grant(model: &str, lines: &str) -> String {
    format!("[[grants]]\nmodel = '{model}'\nphase = ['postCreate', 'postUpdate', 'postDelete']\n{lines}\n")
}

#[track_caller]
fn server(tables: &str, hooks: &str) -> Server {
    let options = ServerOptions { tables: tables.to_owned(), hooks: hooks.to_owned(), ..ServerOptions::default() };
    Server::start_with(options)
}

/// Models that accept any object.
#[track_caller]
fn models(api: &Client, ids: &[&str]) {
    for id in ids {
        api.post("/models", &json!({"id": id, "schema": {"type": "object"}})).expect(201);
    }
}

#[track_caller]
fn create(api: &Client, model: &str, id: &str, data: Value) -> Value {
    api.post(&format!("/models/{model}/instances"), &json!({"id": id, "data": data})).expect(201).json()
}

#[track_caller]
fn items(api: &Client, path: &str) -> Vec<Value> {
    match api.get(path).expect(200).json()["items"].take() {
        Value::Array(items) => items,
        other => panic!("no list: {other}"),
    }
}

/// Waits until there are this many errors.
#[track_caller]
fn errors(api: &Client, count: usize) -> Vec<Value> {
    eventually(&format!("{count} errors"), || {
        let errors = items(api, "/errors?limit=1000");
        assert!(errors.len() <= count, "{errors:?}");
        (errors.len() == count).then_some(errors)
    })
}

/// Appends what it receives to `log`.
const LOGGER: &str = r#"
    export default async ({ phase, id, event, before, after, attempt, write }) => {
      await write.create("log", { id, phase, position: event.position, before: before ?? null, after: after ?? null, attempt });
    };"#;

#[test]
fn hooks_see_each_instance_in_order() {
    let server = server(&grant("task", "write = ['log']"), "");
    let api = server.client();
    models(&api, &["task", "log"]);
    for phase in ["postCreate", "postUpdate", "postDelete"] {
        api.put_javascript("task", phase, LOGGER).expect(200);
    }
    std::thread::scope(|scope| {
        for number in 0..8 {
            let api = server.client();
            scope.spawn(move || {
                let (id, path) = (format!("t{number}"), format!("/models/task/instances/t{number}"));
                create(&api, "task", &id, json!({"n": 0}));
                for n in 1..12 {
                    api.patch(&path, &json!({"n": n})).expect(200);
                }
                api.delete(&path).expect(204);
            });
        }
    });
    let runs = eventually("every hook ran", || {
        Some(items(&api, "/events?model=log&type=instance.created&limit=1000")).filter(|runs| runs.len() == 8 * 13)
    });
    let mut by_instance: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for run in &runs {
        let data = &run["data"];
        assert_eq!(data["attempt"], 1, "{run}");
        let cause = json!({"position": data["position"], "hook": run["cause"]["hook"], "depth": 1});
        assert_eq!(run["cause"], cause, "{run}");
        let phase = data["phase"].as_str().expect("a phase");
        assert!(run["cause"]["hook"].as_str().is_some_and(|hook| hook.starts_with(&format!("task.{phase}/"))), "{run}");
        by_instance.entry(data["id"].as_str().expect("an id").to_owned()).or_default().push(data.clone());
    }
    for (id, runs) in by_instance {
        let seen: Vec<(Value, Value, Value)> = runs
            .iter()
            .map(|run| (run["phase"].clone(), run["before"]["n"].clone(), run["after"]["n"].clone()))
            .collect();
        let update = |n: i32| (json!("postUpdate"), json!(n - 1), json!(n));
        let expected: Vec<_> = std::iter::once((json!("postCreate"), Value::Null, json!(0)))
            .chain((1..12).map(update))
            .chain([(json!("postDelete"), json!(11), Value::Null)])
            .collect();
        assert_eq!(seen, expected, "{id}");
    }
}

#[test]
fn a_hook_sees_the_instance_that_it_was_started_for() {
    // An event is in the log slightly before the model store has applied it.
    let server = server(&grant("task", "read = ['task']\nwrite = ['log']"), "max-attempts = 1");
    let api = server.client();
    models(&api, &["task", "log"]);
    let hook = r#"
        export default async ({ id, event, read }) => {
          const found = await read.get("task", id);
          if (!found || found.position < event.position) throw new Error(`sees ${found?.position}, not ${event.position}`);
        };"#;
    for phase in ["postCreate", "postUpdate"] {
        api.put_javascript("task", phase, hook).expect(200);
    }
    std::thread::scope(|scope| {
        for number in 0..16 {
            let api = server.client();
            scope.spawn(move || {
                for n in 0..40 {
                    let id = format!("t{number}-{n}");
                    create(&api, "task", &id, json!({}));
                    api.patch(&format!("/models/task/instances/{id}"), &json!({"n": n})).expect(200);
                }
            });
        }
    });
    let runs = |phase: &str| -> u64 {
        items(&api, &format!("/models/task/hooks/{phase}/stats"))[0]["runs"].as_u64().expect("a number")
    };
    eventually("every hook ran", || (runs("postCreate") + runs("postUpdate") == 2 * 16 * 40).then_some(()));
    assert_eq!(items(&api, "/errors"), Vec::<Value>::new());
}

#[test]
fn instances_do_not_wait_for_each_other_and_events_of_one_do() {
    let gate = Gate::closed();
    let server = server(&gate.grant("task", ""), "");
    let api = server.client();
    models(&api, &["task"]);
    let hook = format!("export default ({{ id, event }}) => fetch(`{}/${{id}}/${{event.position}}`);", gate.url());
    for phase in ["postCreate", "postUpdate"] {
        api.put_javascript("task", phase, &hook).expect(200);
    }
    let mut expected = Vec::new();
    for number in 0..5 {
        let id = format!("t{number}");
        let mut positions = vec![create(&api, "task", &id, json!({}))["position"].clone()];
        for n in 0..3 {
            let updated = api.patch(&format!("/models/task/instances/{id}"), &json!({"n": n})).expect(200).json();
            positions.push(updated["position"].clone());
        }
        expected.push(positions.iter().map(|position| format!("/{id}/{position}")).collect::<Vec<_>>());
    }
    let inside = gate.wait_for(5);
    for paths in &expected {
        assert!(inside.contains(&paths[0]), "{inside:?}");
    }
    // One instance continues alone while the others are blocked.
    for path in &expected[0] {
        eventually(&format!("{path} waits"), || gate.waiting().contains(path).then_some(()));
        assert_eq!(gate.waiting().len(), 5, "{:?}", gate.waiting());
        gate.let_in(path);
    }
    eventually("four wait", || (gate.waiting().len() == 4).then_some(()));
    assert_eq!(gate.seen().len(), 5 + 3, "an event did not wait for the one before: {:?}", gate.seen());
    gate.open();
    let seen = eventually("all were inside", || Some(gate.seen()).filter(|seen| seen.len() == 20));
    for paths in &expected {
        let own: Vec<&String> = seen.iter().filter(|path| paths.contains(path)).collect();
        assert_eq!(own, paths.iter().collect::<Vec<_>>());
    }
}

/// Fails until the instance `on` of the model `switch` exists.
const FAILING: &str = r#"
    export default async ({ id, event, attempt, read, write, log }) => {
      log.info(`attempt ${attempt}`);
      if (!(await read.get("switch", "on"))) throw new Error(`the switch is off for ${id}`);
      await write.create("log", { id, position: event.position, attempt });
    };"#;

#[track_caller]
fn failing() -> Server {
    let server = server(&grant("task", "read = ['switch']\nwrite = ['log']"), "max-attempts = 3");
    let api = server.client();
    models(&api, &["task", "switch", "log"]);
    api.request("PUT", "/models/task/hooks/postCreate?name=mail").body("text/javascript", FAILING).send().expect(200);
    server
}

#[test]
fn what_fails_is_tried_again_then_kept() {
    let server = failing();
    let api = server.client();
    let started = Instant::now();
    let task = create(&api, "task", "a", json!({"n": 1}));
    let error = errors(&api, 1).remove(0);
    // Two delays of 0.2 s and 0.4 s, each with up to half of it random.
    assert!(started.elapsed() >= Duration::from_millis(300), "no backoff: {:?}", started.elapsed());
    let binding = api.get("/models/task/hooks/postCreate").expect(200).json()[0].take();
    for (name, expected) in [
        ("model", json!("task")),
        ("phase", json!("postCreate")),
        ("hook", json!("mail")),
        ("engine", json!("quickjs")),
        ("artifact", binding["artifact"].clone()),
        ("attempts", json!(3)),
        ("cause", json!("exception")),
    ] {
        assert_eq!(error[name], expected, "{name}: {error}");
    }
    assert_eq!(error["event"]["position"], task["position"]);
    assert_eq!(error["event"]["data"], json!({"n": 1}));
    let message = error["message"].as_str().expect("a message");
    assert!(message.contains("the switch is off for a"), "{message}");
    let log = error["log"].to_string();
    assert!(log.contains("attempt 3"), "{log}");
    let lines: Vec<String> =
        items(&api, "/models/task/hooks/postCreate/log").iter().map(|line| line["message"].to_string()).collect();
    for attempt in 1..=3 {
        let said = lines.iter().filter(|line| line.contains(&format!("attempt {attempt}"))).count();
        assert_eq!(said, 1, "{lines:?}");
    }
    let id = error["id"].as_str().expect("an id");
    assert_eq!(api.get(&format!("/errors/{id}")).expect(200).json(), error);
    // The change stays stored, and the next event of the instance is processed.
    api.get("/models/task/instances/a").expect(200);

    // Retry while the switch is still off: the record is updated.
    let again = api.request("POST", &format!("/errors/{id}/retry")).send().expect(200).json();
    assert_eq!((&again["matched"], &again["succeeded"]), (&json!(1), &json!(0)), "{again}");
    assert_eq!(api.get(&format!("/errors/{id}")).expect(200).json()["attempts"], 4);

    create(&api, "switch", "on", json!({}));
    let again = api.request("POST", &format!("/errors/{id}/retry")).send().expect(200).json();
    assert_eq!((&again["matched"], &again["succeeded"]), (&json!(1), &json!(1)), "{again}");
    api.get(&format!("/errors/{id}")).expect_problem(404, "not-found");
    let done = items(&api, "/events?model=log&type=instance.created");
    assert_eq!(done.len(), 1);
    assert_eq!(done[0]["data"], json!({"id": "a", "position": task["position"], "attempt": 5}));
    assert_eq!(done[0]["cause"]["hook"], "task.postCreate/mail");
}

#[test]
fn errors_are_retried_in_bulk_and_dropped() {
    let server = failing();
    let api = server.client();
    models(&api, &["other"]);
    api.put_javascript("other", "postCreate", "export default () => { throw new Error('always'); }").expect(200);
    for number in 0..12 {
        create(&api, "task", &format!("t{number}"), json!({}));
    }
    create(&api, "other", "o", json!({}));
    errors(&api, 13);
    let first = items(&api, "/errors?model=task&limit=5");
    assert_eq!(first.len(), 5);
    let page = api.get("/errors?model=task&limit=5").expect(200).json();
    let next = page["next"].as_str().expect("a next page").to_owned();
    assert_eq!(items(&api, &format!("/errors?model=task&limit=100&after={next}")).len(), 7);
    assert_eq!(items(&api, "/errors?hook=mail&limit=100").len(), 12);
    assert_eq!(items(&api, "/errors?hook=nope").len(), 0);

    let retry = |query: &str| {
        let answer = api.request("POST", &format!("/errors/retry?{query}")).send().expect(200).json();
        (answer["matched"].as_u64().expect("a number"), answer["succeeded"].as_u64().expect("a number"))
    };
    assert_eq!(retry("dry-run=true"), (13, 0));
    assert_eq!(retry("model=task&dry-run=true"), (12, 0));
    create(&api, "switch", "on", json!({}));
    assert_eq!(retry("model=task&dry-run=true"), (12, 0));
    assert_eq!(items(&api, "/events?model=log&type=instance.created").len(), 0, "a dry run ran something");
    assert_eq!(errors(&api, 13).len(), 13);

    // The records survive a restart.
    let server = server.restart();
    let api = server.client();
    assert_eq!(errors(&api, 13).len(), 13);
    let started = api.request("POST", "/errors/retry?model=task&hook=mail").send().expect(202).json();
    let job = eventually("the job ends", || {
        let job = api.get(&format!("/jobs/{}", started["job"].as_str().expect("a job"))).expect(200).json();
        (job["state"] != "running").then_some(job)
    });
    assert_eq!((&job["state"], &job["total"], &job["done"]), (&json!("done"), &json!(12), &json!(12)), "{job}");
    assert_eq!(items(&api, "/events?model=log&type=instance.created").len(), 12);
    let left = errors(&api, 1).remove(0);
    assert_eq!(left["model"], "other");
    let path = format!("/errors/{}", left["id"].as_str().expect("an id"));
    // Retrying a removed hook returns 404.
    api.delete("/models/other/hooks/postCreate").expect(204);
    api.request("POST", &format!("{path}/retry")).send().expect_problem(404, "not-found");
    api.delete(&path).expect(204);
    api.delete(&path).expect_problem(404, "not-found");
    assert_eq!(items(&api, "/errors"), Vec::<Value>::new());
}

#[test]
fn a_hook_that_waits_for_its_next_try_is_tried_after_a_crash() {
    let server = failing();
    let api = server.client();
    create(&api, "task", "a", json!({}));
    let tried = |api: &Client| items(api, "/models/task/hooks/postCreate/log").len() >= 2;
    eventually("the hook was tried twice", || tried(&api).then_some(()));
    let server = server.kill_and_restart();
    let api = server.client();
    let error = errors(&api, 1).remove(0);
    assert!(error["attempts"].as_u64().is_some_and(|attempts| attempts <= 3), "{error}");
}

#[test]
fn hooks_that_a_crash_interrupts_run_again() {
    let gate = Gate::closed();
    let server = server(&gate.grant("task", "write = ['log']"), "");
    let api = server.client();
    models(&api, &["task", "log"]);
    let hook = format!(
        "export default async ({{ id, event, attempt, write }}) => {{
           await fetch(`{}/${{id}}`);
           await write.create('log', {{ id, position: event.position, attempt }});
         }};",
        gate.url()
    );
    api.put_javascript("task", "postCreate", &hook).expect(200);
    for number in 0..3 {
        create(&api, "task", &format!("t{number}"), json!({}));
    }
    gate.wait_for(3);
    let server = server.kill_and_restart();
    let api = server.client();
    eventually("they came again", || (gate.seen().len() == 6).then_some(()));
    gate.open();
    let done = eventually("all are done", || {
        Some(items(&api, "/events?model=log&type=instance.created")).filter(|done| done.len() == 3)
    });
    for run in done {
        assert_eq!(run["data"]["attempt"], 2, "{run}");
    }
    assert_eq!(items(&api, "/errors"), Vec::<Value>::new());
}

#[test]
fn the_hooks_of_a_chain_run_in_order_and_only_the_failed_one_again() {
    let server = server(&grant("task", "read = ['switch']\nwrite = ['log']"), "max-attempts = 50");
    let api = server.client();
    models(&api, &["task", "log", "switch"]);
    let source = |name: &str| {
        format!("export default async ({{ id, write }}) => {{ await write.create('log', {{ name: '{name}', id }}); }};")
    };
    let chain = json!({"chain": [
        {"name": "first", "engine": "quickjs", "source": source("first")},
        {"name": "second", "engine": "quickjs", "source": FAILING},
        {"name": "third", "engine": "quickjs", "source": source("third")},
    ]});
    api.put("/models/task/hooks/postCreate", &chain).expect(200);
    create(&api, "task", "a", json!({}));
    eventually("the second failed twice", || {
        (items(&api, "/models/task/hooks/postCreate/log").len() >= 2).then_some(())
    });
    create(&api, "switch", "on", json!({}));
    let done = eventually("the chain is done", || {
        Some(items(&api, "/events?model=log&type=instance.created")).filter(|done| done.len() == 3)
    });
    let names: Vec<&Value> = done.iter().map(|run| &run["cause"]["hook"]).collect();
    assert_eq!(names, ["task.postCreate/first", "task.postCreate/second", "task.postCreate/third"]);
}

#[test]
fn a_loop_of_hooks_ends_with_the_cycle_spelled_out() {
    let tables = grant("a", "write = ['*']") + &grant("b", "write = ['*']") + &grant("self", "write = ['*']");
    let server = server(&tables, "max-attempts = 3");
    let api = server.client();
    models(&api, &["a", "b", "self"]);
    api.put_javascript("a", "postCreate", "export default ({ write }) => write.create('b', {});").expect(200);
    api.put_javascript("b", "postCreate", "export default ({ write }) => write.create('a', {});").expect(200);
    create(&api, "a", "start", json!({}));
    let error = errors(&api, 1).remove(0);
    let message = error["message"].as_str().expect("a message");
    assert!(message.contains("a.postCreate > b.postCreate > a.postCreate"), "{message}");
    assert_eq!((&error["cause"], &error["attempts"]), (&json!("depth"), &json!(1)), "{error}");
    // Eight writes by hooks, each caused by the previous one; the ninth was rejected.
    let events: Vec<Value> = items(&api, "/events?type=instance.created&limit=100");
    assert_eq!(events.len(), 9, "{events:?}");
    for (depth, pair) in events.windows(2).enumerate() {
        let hook = if depth % 2 == 0 { "a.postCreate/postCreate" } else { "b.postCreate/postCreate" };
        let cause = json!({"position": pair[0]["position"], "hook": hook, "depth": depth + 1});
        assert_eq!(pair[1]["cause"], cause, "{}", pair[1]);
    }
    assert_eq!(events[0]["cause"], Value::Null);

    // An instance that updates itself.
    let hook = "export default ({ id, after, write }) => write.update('self', id, { n: after.n + 1 });";
    api.put_javascript("self", "postUpdate", hook).expect(200);
    create(&api, "self", "s", json!({"n": 0}));
    api.patch("/models/self/instances/s", &json!({"n": 1})).expect(200);
    let errors = errors(&api, 2);
    let message = errors[1]["message"].as_str().expect("a message");
    assert!(message.contains("self.postUpdate > self.postUpdate"), "{message}");
    assert_eq!(api.get("/models/self/instances/s").expect(200).json()["data"]["n"], 9);
    // A client's change starts a new chain: the depth counts causes, not changes of the instance.
    api.patch("/models/self/instances/s", &json!({"n": 0})).expect(200);
    eventually("eight more", || {
        (api.get("/models/self/instances/s").expect(200).json()["data"]["n"] == 8).then_some(())
    });
}

#[test]
fn a_client_can_wait_for_the_hooks() {
    let gate = Gate::closed();
    let server = server(&(gate.grant("slow", "") + &grant("task", "write = ['log']")), "max-attempts = 1");
    let api = server.client();
    models(&api, &["task", "log", "slow", "bare"]);
    api.put_javascript("task", "postCreate", LOGGER).expect(200);
    api.put_javascript("slow", "postCreate", &format!("export default () => fetch('{}/x');", gate.url())).expect(200);
    let wait = |model: &str, seconds: &str| {
        let started = Instant::now();
        let request = api.request("POST", &format!("/models/{model}/instances")).header("Prefer", seconds);
        let response = request.json(&json!({"data": {}})).send().expect(201);
        (response, started.elapsed())
    };
    for count in 1..=20 {
        let (response, _) = wait("task", "wait=30");
        assert!(response.header("preference-applied").is_some_and(|applied| applied.contains("wait=30")));
        assert_eq!(items(&api, "/models/log/instances?limit=100").len(), count, "the hook had not run");
    }
    // Without hooks there is nothing to wait for.
    let (_, elapsed) = wait("bare", "wait=30");
    assert!(elapsed < Duration::from_secs(20), "{elapsed:?}");
    // The wait ends after that time, and the hook continues.
    let (_, elapsed) = wait("slow", "wait=1");
    assert!(elapsed >= Duration::from_secs(1) && elapsed < Duration::from_secs(20), "{elapsed:?}");
    assert_eq!(gate.waiting().len(), 1);
    gate.open();
    // A hook that failed permanently has ended too, and the request still succeeds.
    api.put_javascript("task", "postCreate", "export default () => { throw new Error('no'); }").expect(200);
    let (_, elapsed) = wait("task", "wait=30");
    assert!(elapsed < Duration::from_secs(20), "{elapsed:?}");
    errors(&api, 1);
}

#[test]
fn events_tell_which_code_let_them_pass() {
    let tables = "[[grants]]\nmodel = 'task'\nphase = 'preCreate'\namend = true\n".to_owned()
        + &grant("task", "write = ['log']");
    let server = server(&tables, "");
    let api = server.client();
    models(&api, &["task", "log"]);
    let chain = json!({"chain": [
        {"name": "one", "engine": "quickjs", "source": "export default () => {}"},
        {"name": "two", "engine": "quickjs", "source": "export default ({ after }) => ({ ...after, n: 2 })"},
        {"name": "look", "engine": "quickjs", "source": "export default () => { throw new Reject('never'); }", "mode": "shadow"},
    ]});
    let bound = api.put("/models/task/hooks/preCreate", &chain).expect(200).json();
    api.put_javascript("task", "postCreate", LOGGER).expect(200);
    create(&api, "task", "a", json!({"n": 1}));
    let event = items(&api, "/models/task/instances/a/events").remove(0);
    assert_eq!(event["data"], json!({"n": 2}));
    let hooks = event["hooks"].as_array().expect("hooks");
    for (index, name) in ["one", "two"].into_iter().enumerate() {
        assert_eq!(hooks[index]["name"], name, "{event}");
        assert_eq!(hooks[index]["engine"], "quickjs");
        assert_eq!(hooks[index]["artifact"], bound[index]["artifact"]);
        assert!(hooks[index]["ms"].as_f64().is_some_and(|ms| ms > 0.0), "{event}");
    }
    assert_eq!(event["cause"], Value::Null);
    let written = eventually("the post hook wrote", || items(&api, "/events?model=log&type=instance.created").pop());
    assert_eq!(written["cause"]["position"], event["position"]);
    assert_eq!(written["request_id"], event["request_id"], "a request is followed through its hooks");
    assert!(written["actor"]["id"].as_str().is_some_and(|actor| actor.contains("task.postCreate")), "{written}");
}

#[test]
fn a_hook_in_shadow_mode_decides_nothing() {
    let tables = "[[grants]]\nmodel = 'task'\nphase = 'preCreate'\namend = true\n";
    let server = server(tables, "");
    let api = server.client();
    models(&api, &["task"]);
    let shadow = |source: &str| {
        let chain = json!({"chain": [{"name": "s", "engine": "quickjs", "source": source, "mode": "shadow"}]});
        let bound = api.put("/models/task/hooks/preCreate", &chain).expect(200).json();
        assert_eq!(bound[0]["mode"], "shadow");
    };
    let stats = || items(&api, "/models/task/hooks/preCreate/stats").remove(0);
    let log = || api.get("/models/task/hooks/preCreate/log").expect(200).text();

    shadow("export default ({ after }) => { if (after.n > 1) throw new Reject('too much', { '/n': 'at most 1' }); }");
    create(&api, "task", "a", json!({"n": 1}));
    create(&api, "task", "b", json!({"n": 2}));
    assert_eq!(
        (&stats()["runs"], &stats()["shadow"]["refusals"], &stats()["refusals"]),
        (&json!(2), &json!(1), &json!(0))
    );
    assert!(log().contains("too much"), "{}", log());
    shadow("export default ({ after }) => ({ ...after, n: 99 })");
    assert_eq!(create(&api, "task", "c", json!({"n": 1}))["data"], json!({"n": 1}));
    assert_eq!(stats()["shadow"]["amendments"], 1);
    shadow("export default () => { throw new Error('broken'); }");
    create(&api, "task", "d", json!({"n": 1}));
    assert_eq!(stats()["shadow"]["failures"], 1);
    assert!(log().contains("broken"), "{}", log());
    // Outside shadow mode the same hook decides.
    let chain = json!({"chain": [{"name": "s", "engine": "quickjs", "source": "export default () => { throw new Reject('no'); }"}]});
    api.put("/models/task/hooks/preCreate", &chain).expect(200);
    let problem = api.post("/models/task/instances", &json!({"data": {}})).expect_problem(422, "rejected");
    assert_eq!((&problem["detail"], &problem["hook"]), (&json!("no"), &json!("s")));
}

#[test]
fn runs_are_counted_and_their_log_is_kept() {
    let server = server("", "max-attempts = 1");
    let api = server.client();
    models(&api, &["task"]);
    let hook = r#"
        export default ({ after, log }) => {
          log.debug("d"); log.info("i", { a: [1] }); log.warn("w"); console.error("e");
          if (after.throws) throw new Error("thrown");
          for (;;) if (!after.loops) break;
        };"#;
    api.request("PUT", "/models/task/hooks/postCreate?name=h").body("text/javascript", hook).send().expect(200);
    let mut follower = api.stream("/models/task/hooks/postCreate/log", &[]);
    for number in 0..20 {
        create(&api, "task", &format!("t{number}"), json!({}));
    }
    create(&api, "task", "thrown", json!({"throws": true}));
    create(&api, "task", "loops", json!({"loops": true}));
    errors(&api, 2);
    let stats = items(&api, "/models/task/hooks/postCreate/stats").remove(0);
    assert_eq!((&stats["runs"], &stats["refusals"]), (&json!(22), &json!(0)), "{stats}");
    assert_eq!((&stats["failures"]["exception"], &stats["failures"]["timeout"]), (&json!(1), &json!(1)), "{stats}");
    for cost in ["wall_ms", "cpu_ms", "memory_bytes"] {
        let number = |name: &str| stats[cost][name].as_f64().unwrap_or_else(|| panic!("{cost}.{name}: {stats}"));
        assert!(number("p50") > 0.0 && number("p50") <= number("p99"), "{cost}: {stats}");
        // Histograms are a few per cent inaccurate.
        let share = number("p99") / number("limit");
        assert!((number("p99_share") - share).abs() < 0.01 + share / 10.0, "{cost}: {stats}");
    }
    let lines = items(&api, "/models/task/hooks/postCreate/log");
    let of = |id: &str| -> Vec<(String, String)> {
        let own = lines.iter().filter(|line| line["instance"] == id && line["hook"] == "h");
        own.map(|line| {
            (
                line["level"].as_str().unwrap_or_default().to_owned(),
                line["message"].as_str().unwrap_or_default().to_owned(),
            )
        })
        .collect()
    };
    let pair = |level: &str, message: &str| (level.to_owned(), message.to_owned());
    let expected = [pair("debug", "d"), pair("info", r#"i {"a": [1]}"#), pair("warn", "w"), pair("error", "e")];
    assert_eq!(of("t7"), expected, "{lines:?}");
    assert!(of("thrown").last().is_some_and(|(_, message)| message.contains("thrown")), "{:?}", of("thrown"));
    // A follower gets the same lines.
    let followed: Vec<Value> = (0..20).map(|_| follower.next().data).collect();
    assert_eq!(followed, lines[..20]);
    // At most 200 are kept.
    for number in 0..60 {
        create(&api, "task", &format!("u{number}"), json!({}));
    }
    // The order in which they end is random.
    eventually("every hook ran", || {
        (items(&api, "/models/task/hooks/postCreate/stats")[0]["runs"] == 82).then_some(())
    });
    assert_eq!(items(&api, "/models/task/hooks/postCreate/log").len(), 200);
}
