//! Several hooks in one phase, shadow hooks, and reused sandboxes.

use serde_json::{Value, json};

use super::{server, server_with};
use crate::support::Client;
use crate::workbench::{create, create_and_wait, log_of};

#[track_caller]
fn put_chain(api: &Client, phase: &str, chain: Value) -> Value {
    api.put(&format!("/models/js/hooks/{phase}"), &json!({"chain": chain})).expect(200).json()
}

fn adds(word: &str) -> Value {
    json!({"name": word, "engine": "quickjs", "source": format!("export default ({{ after, log }}) => {{ log.info('{word}'); return {{ ...after, seen: [...(after.seen ?? []), '{word}'] }}; }}")})
}

#[test]
fn a_chain_runs_in_order() {
    let (_server, api) = server("");
    let bound = put_chain(&api, "preCreate", json!([adds("first"), adds("second"), adds("third")]));
    let names: Vec<_> = bound.as_array().expect("a list").iter().map(|hook| hook["name"].clone()).collect();
    assert_eq!(names, ["first", "second", "third"]);
    let made = create(&api, "js", &json!({"n": 1})).expect(201).json();
    assert_eq!(made["data"], json!({"n": 1, "seen": ["first", "second", "third"]}));
    let events = api.get("/events?model=js&type=instance.created").expect(200).json();
    let hooks = events["items"][0]["hooks"].as_array().expect("a list").clone();
    assert_eq!(hooks.iter().map(|hook| hook["name"].clone()).collect::<Vec<_>>(), ["first", "second", "third"]);
    for (hook, info) in hooks.iter().zip(bound.as_array().expect("a list")) {
        assert_eq!((&hook["engine"], &hook["artifact"]), (&json!("quickjs"), &info["artifact"]));
        assert!(hook["ms"].as_f64().is_some_and(|ms| ms > 0.0), "{hook}");
    }
    put_chain(&api, "preCreate", json!([adds("third"), adds("first")]));
    let made = create(&api, "js", &json!({})).expect(201).json();
    assert_eq!(made["data"]["seen"], json!(["third", "first"]));
}

#[test]
fn the_first_refusal_ends_a_chain() {
    let (_server, api) = server("");
    let refuses = json!({"name": "refuses", "engine": "quickjs", "source": "export default ({ after }) => { throw new Reject(`after ${after.seen}`) }"});
    put_chain(&api, "preCreate", json!([adds("first"), refuses, adds("never")]));
    let problem = create(&api, "js", &json!({})).expect_problem(422, "rejected");
    assert_eq!((&problem["detail"], &problem["hook"]), (&json!("after first"), &json!("refuses")));
    let log = api.get("/models/js/hooks/preCreate/log").expect(200).text();
    assert!(log.contains("\"first\"") && !log.contains("\"never\""), "{log}");

    let fails =
        json!({"name": "fails", "engine": "quickjs", "source": "export default () => { throw new Error('broken') }"});
    put_chain(&api, "preCreate", json!([adds("first"), fails, adds("never")]));
    let problem = create(&api, "js", &json!({})).expect_problem(502, "hook-failed");
    assert_eq!(problem["hook"], "fails");
    assert_eq!(api.get("/models/js/instances").expect(200).json()["items"], json!([]));
}

/// A post hook that fails permanently does not prevent the next from running, and completed hooks do not run again.
#[test]
fn post_hooks_of_a_chain_are_tried_each_for_itself() {
    let (_server, api) = server_with("", "");
    let says = |name: &str, then: &str| json!({"name": name, "engine": "quickjs", "source": format!("export default ({{ log }}) => {{ log.info('{name}'); {then} }}")});
    put_chain(&api, "postCreate", json!([says("first", ""), says("fails", "throw new Error('no')"), says("last", "")]));
    let id = create_and_wait(&api, "js", &json!({}));
    let lines = log_of(&api, "js", "postCreate", &id);
    let said: Vec<_> = lines.iter().filter(|line| ["first", "fails", "last"].contains(&line.as_str())).collect();
    assert_eq!(said, ["first", "fails", "last"]);
    let record = crate::workbench::failure_of(&api, "js", &id);
    assert_eq!((&record["hook"], &record["attempts"]), (&json!("fails"), &json!(1)));
}

#[test]
fn a_hook_in_shadow_decides_nothing() {
    let (_server, api) = server("");
    let shadow = |name: &str, body: &str| json!({"name": name, "engine": "quickjs", "mode": "shadow", "source": format!("export default ({{ after }}) => {{ {body} }}")});
    let bound = put_chain(
        &api,
        "preCreate",
        json!([
            shadow("refuses", "throw new Reject('I would reject')"),
            shadow("amends", "return { ...after, extra: 1 }"),
            shadow("fails", "throw new Error('I would fail')"),
            shadow("loops", "for (;;);"),
            adds("real"),
        ]),
    );
    let modes: Vec<_> = bound.as_array().expect("a list").iter().map(|hook| hook["mode"].clone()).collect();
    assert_eq!(modes, ["shadow", "shadow", "shadow", "shadow", "enforce"]);
    let made = create(&api, "js", &json!({"n": 1})).expect(201).json();
    assert_eq!(made["data"], json!({"n": 1, "seen": ["real"]}));
    let lines = log_of(&api, "js", "preCreate", made["id"].as_str().expect("a text"));
    for says in ["would reject: I would reject", r#"would amend: {"n":1,"extra":1}"#, "I would fail", "`timeout`"] {
        assert!(lines.iter().any(|line| line.contains(says)), "{says}: {lines:?}");
    }
    let stats = api.get("/models/js/hooks/preCreate/stats").expect(200).json();
    let of = |name: &str| {
        stats["items"].as_array().expect("a list").iter().find(|stats| stats["name"] == name).cloned().expect("stats")
    };
    assert_eq!((&of("refuses")["shadow"]["refusals"], &of("refuses")["refusals"]), (&json!(1), &json!(0)));
    assert_eq!((&of("amends")["shadow"]["amendments"], &of("amends")["amendments"]), (&json!(1), &json!(0)));
    assert_eq!((&of("fails")["shadow"]["failures"], &of("loops")["shadow"]["failures"]), (&json!(1), &json!(1)));
    assert_eq!((&of("real")["runs"], &of("real")["amendments"]), (&json!(1), &json!(1)));
    // Post phases decide nothing, so shadow hooks are rejected there.
    let chain = json!({"chain": [shadow("x", "")]});
    api.put("/models/js/hooks/postCreate", &chain).expect_problem(422, "invalid");
}

const COUNTS: &str = "let calls = 0; globalThis.total ??= 0;\n\
    export async function preCreate({ after }) { calls++; globalThis.total++; \
      if (after.way === 'throw') throw new Error('no'); \
      if (after.way === 'loop') for (;;); \
      if (after.way === 'timer') setInterval(() => {}, 1000); \
      await null; return { calls, total: globalThis.total }; }";

#[test]
fn what_is_loaded_once_is_told() {
    let (_server, api) = server("");
    let told = |source: &str| {
        api.put_javascript("js", "preCreate", source).expect(200);
        let hooks = api.get("/models/js/hooks").expect(200).json();
        let hook = &hooks["preCreate"][0];
        (hook["top_level"].clone(), hook["top_level_reason"].clone())
    };
    assert_eq!(told(COUNTS), (json!("captured"), Value::Null));
    let clock = "const started = Date.now(); export default () => ({ age: Date.now() - started })";
    assert_eq!(told(clock), (json!("each-call"), json!("asks for the time")));
    assert!(create(&api, "js", &json!({})).expect(201).json()["data"]["age"].is_u64());
}

#[test]
fn a_fresh_sandbox_for_each_call() {
    let (_server, api) = server("");
    api.put_javascript("js", "preCreate", COUNTS).expect(200);
    for _ in 0..5 {
        assert_eq!(create(&api, "js", &json!({})).expect(201).json()["data"], json!({"calls": 1, "total": 1}));
    }
}

#[test]
fn a_sandbox_that_is_used_again() {
    let (_server, api) = server_with("", "isolation = 'reuse'");
    api.put_javascript("js", "preCreate", COUNTS).expect(200);
    let calls = |way: &str| create(&api, "js", &json!({"way": way}));
    for n in 1..=5 {
        assert_eq!(calls("").expect(201).json()["data"], json!({"calls": n, "total": n}));
    }
    // A throw is an ordinary result; the sandbox is kept.
    calls("throw").expect_problem(502, "hook-failed");
    assert_eq!(calls("").expect(201).json()["data"]["calls"], 7);
    // A sandbox that was stopped, or that has unfinished work, is not reused.
    calls("loop").expect_problem(502, "hook-failed");
    assert_eq!(calls("").expect(201).json()["data"]["calls"], 1);
    // An interval that is never cleared runs until the timeout.
    calls("timer").expect_problem(502, "hook-failed");
    assert_eq!(calls("").expect(201).json()["data"]["calls"], 1);
    // Changed code is a new hook.
    api.put_javascript("js", "preCreate", &format!("{COUNTS}\n// changed")).expect(200);
    assert_eq!(calls("").expect(201).json()["data"], json!({"calls": 1, "total": 1}));
}

#[test]
fn a_dry_run_tells_what_each_hook_decides() {
    let (_server, api) = server("");
    let shadow = json!({"name": "looks-on", "engine": "quickjs", "mode": "shadow", "source": "export default () => { throw new Reject('no') }"});
    put_chain(&api, "preCreate", json!([adds("first"), shadow]));
    put_chain(&api, "postCreate", json!([{"name": "after", "engine": "quickjs", "source": "export default () => {}"}]));
    let answer =
        api.post("/models/js/instances?dry-run=true", &json!({"id": "a", "data": {"n": 1}})).expect(200).json();
    assert_eq!(answer["event"]["data"], json!({"n": 1, "seen": ["first"]}));
    assert_eq!(answer["post_hooks"], json!(["after"]));
    let decisions: Vec<_> = answer["hooks"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|hook| (hook["name"].clone(), hook["decision"].clone(), hook["shadow"].clone()))
        .collect();
    assert_eq!(decisions[0], (json!("first"), json!("amend"), json!(false)));
    assert_eq!((&decisions[1].0, &decisions[1].2), (&json!("looks-on"), &json!(true)));
    api.get("/models/js/instances/a").expect_problem(404, "not-found");
}
