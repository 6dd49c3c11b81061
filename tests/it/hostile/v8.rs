//! Hostile sources in the engine `v8`: code that ends V8, that cannot be stopped from inside, or that tries to leave
//! something behind.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::{Arena, Attack};
use crate::support::{ServerOptions, eventually, skip};
use crate::workbench::create;

/// The plugin configuration with V8. `None` if it is missing: this prints a message, and fails in CI.
pub(crate) fn v8_plugins() -> Option<String> {
    let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins");
    if !plugins.join("v8/libmini_racer.so").is_file() {
        skip("the engine v8", "V8 is not in plugins/v8; `cargo xtask v8` fetches it");
        return None;
    }
    Some(format!("[plugins]\ndirectory = '{}'\n", plugins.display()))
}

/// `None` if V8 is missing.
pub(super) fn arena(hooks: &str) -> Option<Arena> {
    let options = ServerOptions { hooks: hooks.to_owned(), tables: v8_plugins()?, ..ServerOptions::default() };
    Some(Arena { engine: "v8", ..Arena::with(options) })
}

/// The server's child processes and their children.
pub(super) fn workers(server: u32) -> Vec<u32> {
    children(server).into_iter().flat_map(|zygote| [vec![zygote], children(zygote)].concat()).collect()
}

/// The processes that run calls, without the zygote and the processes that parse sources.
fn calls_workers(server: u32) -> Vec<u32> {
    children(server).into_iter().flat_map(children).collect()
}

fn children(parent: u32) -> Vec<u32> {
    let output = Command::new("ps").args(["-o", "pid=", "--ppid", &parent.to_string()]).output().expect("`ps`");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

fn is_alive(pid: u32) -> bool {
    // A zombie has no memory.
    std::fs::read_to_string(format!("/proc/{pid}/statm")).is_ok_and(|statm| !statm.starts_with("0 "))
}

#[test]
fn without_end() {
    let Some(arena) = arena("timeout = '300 ms'") else { return };
    let says = "did not end, the limit `timeout` is 300 ms; raise it in `[hooks]` or in a grant";
    for (name, source) in [
        ("loop", "export function preCreate() { for (;;); }"),
        ("regexp", "export function preCreate() { /^(a+)+$/.test('a'.repeat(60) + '!'); }"),
        ("microtasks", "export async function preCreate() { for (;;) await null; }"),
        ("sort", "export function preCreate() { [3, 1, 2].sort(() => { for (;;); }); }"),
        (
            "timers",
            "export async function preCreate() { const f = () => setTimeout(f, 0); f(); await new Promise(() => {}); }",
        ),
        ("atomics", "export function preCreate() { Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0); }"),
    ] {
        arena.refuses(&Attack { name, source, causes: &["timeout", "host-calls"], says });
    }
}

#[test]
fn memory_and_stack() {
    let Some(arena) = arena("timeout = '110 s'") else { return };
    for (name, source) in [
        ("heap", "export function preCreate() { const a = []; for (;;) a.push(new Array(1000).fill(1)); }"),
        ("strings", "export function preCreate() { const a = []; for (;;) a.push('x'.repeat(1e6) + a.length); }"),
        ("buffer", "export function preCreate() { new Uint8Array(200 * 1024 * 1024).fill(1); }"),
    ] {
        arena.refuses(&Attack { name, source, causes: &["memory"], says: "the limit `memory` is 64 MiB" });
    }
    let source = "export function preCreate() { const f = () => f() + 1; f(); }";
    arena.refuses(&Attack { name: "deep", source, causes: &["stack"], says: "stack of 1 MiB" });
}

/// V8 ends its process; the server and the other hooks continue. The cause is the memory limit, so the next call runs.
#[test]
fn what_ends_v8() {
    let Some(arena) = arena("timeout = '110 s'") else { return };
    let model = arena.victim();
    let source = "export function preCreate({ after }) { if (after.n) new Array(1e9).fill(0); }";
    arena.bind(&model, "abort", source).expect(200);
    arena.bystander.stays_calm("abort", || {
        for answer in arena.calls(&model) {
            let problem = answer.expect_problem(502, "hook-failed");
            let detail = problem["detail"].as_str().expect("a text");
            assert!(detail.contains("the limit `memory` is 64 MiB"), "{detail}");
        }
    });
    let state = arena.api.get(&format!("/models/{model}/hooks/preCreate")).expect(200).json();
    assert_eq!(state[0]["state"], "ok", "{state}");
    arena.is_empty(&model);
    create(&arena.api, &model, &json!({})).expect(201);
    arena.works_again(&model);
}

/// Calls that end a process without exceeding a limit are held back, as narrowly as possible: first the same data, then
/// an actor that sends several such changes. The state shows this, and it ends automatically.
#[test]
fn what_ends_a_process_backs_off() {
    let Some(arena) = arena("timeout = '30 s'") else { return };
    let model = arena.victim();
    let source = "export function preCreate({ after }) { if (after.n) for (;;); }";
    arena.bind(&model, "ends", source).expect(200);
    create(&arena.api, &model, &json!({})).expect(201);
    let path = format!("/models/{model}/hooks");
    let state = || arena.api.get(&path).expect(200).json()["preCreate"][0].clone();
    let refused = |data| {
        let answer = create(&arena.api, &model, &data);
        (answer.status == 502).then(|| answer.json()["detail"].as_str().expect("a text").to_owned())
    };
    assert_eq!((&state()["state"], state().get("retry_at")), (&json!("ok"), None));
    // On a busy machine a pause may end before the test has looked; the next one is twice as long.
    let held = |number: u64, actors: u64, data: serde_json::Value, message: &str| {
        eventually("it is held back", || {
            end_process_of_a_call(&arena, &model, number)?;
            let now = state();
            let is_told = now["state"] == "backing-off" && now["held_back"]["actors"] == actors;
            assert!(!is_told || now["retry_at"].as_str().is_some_and(|time| time.ends_with('Z')), "{now}");
            (is_told && refused(data.clone())?.contains(message)).then_some(())
        });
    };
    held(1, 0, json!({"n": 1}), "this change ended the hook's V8 process");
    create(&arena.api, &model, &json!({})).expect(201);
    eventually("it runs again by itself", || (state()["state"] == "ok").then_some(()));
    end_process_of_a_call(&arena, &model, 2);
    held(3, 1, json!({}), "changes of this actor ended the hook's V8 process");
    eventually("it runs again by itself", || (state()["state"] == "ok").then_some(()));
    create(&arena.api, &model, &json!({})).expect(201);
    held(3, 1, json!({}), "changes of this actor");
    arena.bind(&model, "ends", source).expect(200);
    assert_eq!(state()["state"], "ok");
    create(&arena.api, &model, &json!({})).expect(201);
}

/// Kills the worker of a call with this data. `None` if the call was held back.
fn end_process_of_a_call(arena: &Arena, model: &str, number: u64) -> Option<()> {
    use rustix::process::{Pid, Signal, kill_process};

    let used = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(')')?.1.split_whitespace().nth(11)?.parse::<u64>().ok()
    };
    let used_before: HashMap<u32, u64> =
        calls_workers(arena.server.pid()).into_iter().filter_map(|pid| Some((pid, used(pid)?))).collect();
    let client = arena.server.client();
    let answer = std::thread::scope(|scope| {
        let call = scope.spawn(|| create(&client, model, &json!({"n": number})));
        // The busy worker: no other worker uses a core for long, whatever earlier calls used.
        let busy = eventually("a worker that computes, or an answer", || {
            let computes = |pid: &u32| {
                used(*pid).is_some_and(|ticks| ticks > 20 + used_before.get(pid).copied().unwrap_or_default())
            };
            let busy = calls_workers(arena.server.pid()).into_iter().find(computes);
            (busy.is_some() || call.is_finished()).then_some(busy)
        });
        if let Some(pid) = busy.and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) {
            // It may have ended in the meantime.
            let _ = kill_process(pid, Signal::KILL);
        }
        call.join().expect("an answer")
    });
    let problem = answer.expect_problem(502, "hook-failed");
    problem["detail"].as_str().expect("a text").contains("V8 ended the process of the call").then_some(())
}

#[test]
fn a_hundred_at_once() {
    let Some(arena) = arena("timeout = '500 ms'\nconcurrency = 100") else { return };
    let models: Vec<String> = [
        ("burns", "export function preCreate() { /^(a+)+$/.test('a'.repeat(60) + '!'); }"),
        ("fills", "export function preCreate() { const a = []; for (;;) a.push(new Array(1000).fill(1)); }"),
        ("aborts", "export function preCreate() { new Array(1e9).fill(0); }"),
        ("loops", "export function preCreate() { for (;;); }"),
        ("recurses", "export function preCreate() { const f = () => f() + 1; f(); }"),
        ("throws", "export function preCreate() { throw new Proxy({}, { get() { throw 1; } }); }"),
        ("tampers", "export function preCreate() { Object.prototype.then = Promise.prototype.then = () => { throw 1; }; throw 2; }"),
    ]
    .into_iter()
    .map(|(name, source)| {
        let model = arena.victim();
        arena.bind(&model, name, source).expect(200);
        model
    })
    .collect();
    arena.bystander.stays_calm("a hundred", || {
        std::thread::scope(|scope| {
            let create = |index: usize| create(&arena.server.client(), &models[index % models.len()], &json!({}));
            let calls: Vec<_> = (0..100).map(|index| scope.spawn(move || create(index))).collect();
            for call in calls {
                call.join().expect("an answer").expect_problem(502, "hook-failed");
            }
        });
    });
    for model in &models {
        arena.is_empty(model);
        arena.works_again(model);
    }
}

#[test]
fn odd_values_and_tampering() {
    let Some(arena) = arena("") else { return };
    for (name, source) in [
        ("null", "export function preCreate() { throw null; }"),
        ("symbol", "export function preCreate() { throw Symbol('x'); }"),
        ("proxy", "export function preCreate() { throw new Proxy({}, { get() { throw 1; } }); }"),
        ("getter", "export function preCreate() { throw { get message() { throw 1; } }; }"),
        (
            "prototypes",
            "export function preCreate() { for (const p of [Object, Array, String, Promise, Function, JSON, Reflect])
                for (const k of Reflect.ownKeys(p.prototype ?? p)) try { (p.prototype ?? p)[k] = () => { throw 'mine'; }; } catch {}
                throw new Error('tampered'); }",
        ),
    ] {
        arena.refuses(&Attack { name, source, causes: &["exception"], says: "threw" });
    }
    let model = arena.victim();
    let large = format!("export const preCreate = () => {{}}; // {}", "x".repeat(1 << 20));
    for (source, parts) in [
        ("export function preCreate() {\n  return )\n}", ["line 2", "`wrong`"]),
        ("import x from 'y';\nexport const preCreate = () => {}", ["snaphook hook build", "`wrong`"]),
        (&large, ["at most 1048576 are possible; import less", "`wrong`"]),
    ] {
        let problem = arena.bind(&model, "wrong", source).expect_problem(422, "invalid");
        assert!(parts.iter().all(|part| problem.to_string().contains(part)), "{problem}");
    }
}

/// No process is left behind, however the server ends.
#[test]
fn workers_end_with_the_server() {
    use rustix::process::Signal;
    for (signal, within) in
        [(Signal::KILL, "timeout = '60 s'"), (Signal::ABORT, "timeout = '60 s'"), (Signal::TERM, "timeout = '2 s'")]
    {
        workers_end_with(signal, within);
    }
}

/// A server that is asked to stop lets calls finish first.
fn workers_end_with(signal: rustix::process::Signal, hooks: &str) {
    let Some(mut arena) = arena(hooks) else { return };
    let model = arena.victim();
    arena.bind(&model, "endless", "export function preCreate() { for (;;); }").expect(200);
    let client = arena.server.client();
    std::thread::scope(|scope| {
        // The call need not get a response; the test checks what is left.
        let call = scope.spawn(|| {
            client
                .request("POST", &format!("/models/{model}/instances"))
                .body("application/json", r#"{"data":{}}"#)
                .try_send()
        });
        let busy = eventually("a worker that computes", || {
            let workers = workers(arena.server.pid());
            (workers.len() > 2).then_some(workers)
        });
        arena.server.signal(signal);
        arena.server.wait();
        let answered = call.join().expect("no panic").is_ok();
        assert!(!answered || signal == rustix::process::Signal::TERM, "a killed server answered");
        eventually("no worker is left", || (!busy.iter().any(|pid| is_alive(*pid))).then_some(()));
    });
}
