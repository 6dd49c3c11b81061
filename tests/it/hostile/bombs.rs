//! Code that uses too much memory, stack, output, log lines, or host calls.

use serde_json::json;

use super::{Arena, Attack};
use crate::support::ServerOptions;
use crate::workbench::{create, grant};

const MEMORY: &str = "the limit `memory` is 32 MiB; raise it in `[hooks]` or in a grant";
const STACK: &str = "used up its stack of 1 MiB";

/// More than all sandboxes of one attack may use together, plus the server itself.
const RESIDENT_KIB_MAX: u64 = 1 << 20;

#[track_caller]
fn all_refused(arena: &Arena, causes: &[&str], says: &str, sources: &[(&str, &str)]) {
    for (name, source) in sources {
        arena.refuses(&Attack { name, source, causes, says });
    }
}

#[test]
fn memory() {
    let hooks = "timeout = '110 s'\nmemory = '32 MiB'".to_owned();
    let arena = Arena::with(ServerOptions { hooks, ..ServerOptions::default() });
    all_refused(
        &arena,
        &["memory"],
        MEMORY,
        &[
            ("arrays", "export function preCreate() { const all = []; for (;;) all.push(new Array(1000).fill(1)); }"),
            ("strings", "export function preCreate() { let s = 'x'; for (;;) s = (s + s).toUpperCase(); }"),
            (
                "maps",
                "export function preCreate() { const map = new Map(); for (let i = 0; ; i++) map.set(i, { i }); }",
            ),
            ("billion", "export function preCreate() { new Array(1e9).fill(0); }"),
            ("buffer", "export function preCreate() { new Uint8Array(2 ** 30).fill(1); }"),
            ("closures", "export function preCreate() { let f = () => 0; for (;;) { const g = f; f = () => g; } }"),
            ("promises", "export async function preCreate() { const p = []; for (;;) p.push(new Promise(() => {})); }"),
            ("json", "export function preCreate() { JSON.parse('[' + '{},'.repeat(1e7) + '{}]'); }"),
            (
                "bigints",
                "export function preCreate() { const all = []; for (let n = 1n; ; n++) all.push(n << 10_000n); }",
            ),
            ("result", "export function preCreate() { return { text: 'x'.repeat(100_000_000) }; }"),
        ],
    );
    if let Some(resident) = arena.kib("VmHWM") {
        assert!(resident < RESIDENT_KIB_MAX, "{resident} KiB");
    }
}

#[test]
fn stack() {
    let arena = Arena::with(ServerOptions { hooks: "timeout = '110 s'".to_owned(), ..ServerOptions::default() });
    all_refused(
        &arena,
        &["stack"],
        STACK,
        &[
            ("recursion", "export function preCreate() { const f = () => f() + 1; f(); }"),
            ("getter", "export function preCreate() { const o = { get a() { return this.a; } }; o.a; }"),
            ("to-string", "export function preCreate() { const o = { toString() { return `${o}`; } }; `${o}`; }"),
            (
                "proxy",
                "export function preCreate() { let p = {}; for (let i = 0; i < 1e5; i++) p = new Proxy(p, {}); p.a; }",
            ),
            (
                "nested",
                "export function preCreate() { let o = {}; for (let i = 0; i < 1e5; i++) o = { o }; return o; }",
            ),
            ("parse", "export function preCreate() { JSON.parse('['.repeat(1e6)); }"),
            ("source", "export function preCreate() { eval('('.repeat(1e5) + ')'.repeat(1e5)); }"),
            (
                "json",
                "export function preCreate() { const o = { toJSON() { return JSON.stringify(o); } }; JSON.stringify(o); }",
            ),
        ],
    );
}

#[test]
fn output() {
    let tables = grant("*", "*", "amend = true\nmemory = '1 GiB'\ntimeout = '110 s'");
    let arena = Arena::with(ServerOptions { tables, ..ServerOptions::default() });
    all_refused(
        &arena,
        &["output"],
        "the limit of what a hook returns is 16 MiB",
        &[
            ("text", "export function preCreate() { return { text: 'x'.repeat(40_000_000) }; }"),
            ("escapes", "export function preCreate() { return { text: '\\u0001'.repeat(3_000_000) }; }"),
            ("list", "export function preCreate() { return { list: new Array(1_100_000).fill(1234567890123456) }; }"),
        ],
    );
    all_refused(
        &arena,
        &["output"],
        "at most 8 MiB are allowed",
        &[("large", "export function preCreate() { return { text: 'x'.repeat(10_000_000) }; }")],
    );
    all_refused(
        &arena,
        &["output"],
        "at most 1000 are allowed",
        &[(
            "fields",
            "export function preCreate() { throw new Reject('x', Object.fromEntries(new Array(10_000).fill(0).map((_, i) => ['/' + i, 'no']))); }",
        )],
    );
    all_refused(
        &arena,
        &["output"],
        "at most 64 KiB are allowed",
        &[(
            "fields-text",
            "export function preCreate() { throw new Reject('x', Object.fromEntries(new Array(900).fill(0).map((_, i) => ['/' + i, 'no'.repeat(50)]))); }",
        )],
    );
    // A long message is truncated, and the change is still rejected.
    let model = arena.victim();
    arena.bind(&model, "long", "export function preCreate() { throw new Reject('x'.repeat(1_000_000)); }").expect(200);
    let problem = create(&arena.api, &model, &json!({})).expect(422).json();
    assert!(problem["type"].as_str().is_some_and(|kind| kind.ends_with("/problems/rejected")), "{problem}");
    assert_eq!(problem["detail"].as_str().map(|detail| detail.chars().count()), Some(4097));
    // Nested too deeply for JSON parsers.
    all_refused(
        &arena,
        &["amend"],
        "cannot be stored",
        &[("deep", "export function preCreate() { let o = {}; for (let i = 0; i < 1000; i++) o = { o }; return o; }")],
    );
}

#[test]
fn log_floods() {
    let arena = Arena::with(ServerOptions { hooks: "timeout = '110 s'".to_owned(), ..ServerOptions::default() });
    all_refused(
        &arena,
        &["output"],
        "in one run, the limit is 1000 lines",
        &[
            ("lines", "export function preCreate({ log }) { for (;;) log.info('x'); }"),
            ("console", "export function preCreate() { for (;;) console.error(); }"),
            ("caught", "export function preCreate({ log }) { for (;;) try { log.debug('x'); } catch {} }"),
            (
                "timers",
                "export async function preCreate() { for (;;) { for (let i = 0; i < 100; i++) console.log(i); await null; } }",
            ),
        ],
    );
    all_refused(
        &arena,
        &["output"],
        "bytes together in one run, the limit is 64 KiB",
        &[("bytes", "export function preCreate({ log }) { for (;;) log.warn('x'.repeat(4000)); }")],
    );
    // However much is logged, only the last 200 lines are kept.
    let model = arena.victim();
    let source = "export function preCreate({ log }) { for (let i = 0; i < 900; i++) log.info(`line ${i}`); }";
    arena.bind(&model, "talkative", source).expect(200);
    for _ in 0..3 {
        create(&arena.api, &model, &json!({})).expect(201);
    }
    let log = arena.api.get(&format!("/models/{model}/hooks/preCreate/log")).expect(200).json();
    let lines = log["items"].as_array().expect("a list");
    assert_eq!((lines.len(), &lines[199]["message"]), (200, &json!("line 899")));
}

#[test]
fn host_calls() {
    let tables = grant("*", "*", "read = ['calm']\ntimeout = '110 s'");
    let arena = Arena::with(ServerOptions { tables, ..ServerOptions::default() });
    all_refused(
        &arena,
        &["host-calls"],
        "the hook made 10001 host calls in one run, the limit is 10000",
        &[
            (
                "reads",
                "export async function preCreate({ read }) { for (let i = 0; i < 100_000; i++) await read.get('calm', 'a'); }",
            ),
            (
                "denied",
                "export function preCreate({ secret }) { for (let i = 0; i < 100_000; i++) { try { secret('x'); } catch {} } }",
            ),
            (
                "mixed",
                "export async function preCreate({ read, secret }) { for (let i = 0; i < 100_000; i++) { \
                   try { i % 2 ? await read.query('calm', { limit: 1 }) : secret('x'); } catch {} } }",
            ),
        ],
    );
    // One less is within the limit.
    let model = arena.victim();
    let source =
        "export async function preCreate({ read }) { for (let i = 0; i < 10_000; i++) await read.get('calm', 'a'); }";
    arena.bind(&model, "busy", source).expect(200);
    create(&arena.api, &model, &json!({})).expect(201);
}

/// Too many calls of one hook: they queue, then are rejected with a time to retry, and other hooks do not wait.
#[test]
fn too_many_calls_at_once() {
    let options = ServerOptions { hooks: "concurrency = 1\ntimeout = '300 ms'".to_owned(), ..ServerOptions::default() };
    let arena = Arena::with(options);
    let model = arena.victim();
    arena.bind(&model, "slow", "export function preCreate() { for (;;); }").expect(200);
    let mut answers = Vec::new();
    arena.bystander.stays_calm("queue", || {
        std::thread::scope(|scope| {
            let calls: Vec<_> =
                (0..24).map(|_| scope.spawn(|| create(&arena.server.client(), &model, &json!({})))).collect();
            answers = calls.into_iter().map(|call| call.join().expect("an answer")).collect();
        });
    });
    let (overloaded, others): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 503);
    // One runs and 16 wait.
    assert!(!overloaded.is_empty() && others.len() >= 17, "{} and {}", overloaded.len(), others.len());
    for answer in overloaded {
        assert_eq!(answer.header("retry-after"), Some("1"));
        let problem = answer.expect_problem(503, "overloaded");
        let detail = problem["detail"].as_str().expect("a text");
        assert!(detail.contains("1 calls of this hook are running and 16 are already waiting"), "{detail}");
    }
    for answer in others {
        answer.expect_problem(502, "hook-failed");
    }
    arena.works_again(&model);
}
