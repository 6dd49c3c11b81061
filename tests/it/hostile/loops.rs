//! Endless code: each kind is stopped by the timeout.

use super::{Arena, Attack};
use crate::support::ServerOptions;
use crate::workbench::grant;

const TIMEOUT: &str = "did not end, the limit `timeout` is 300 ms; raise it in `[hooks]` or in a grant";

#[track_caller]
fn all_time_out(sources: &[(&str, &str)]) {
    let options = ServerOptions { hooks: "timeout = '300 ms'".to_owned(), ..ServerOptions::default() };
    let arena = Arena::with(options);
    for (name, source) in sources {
        arena.refuses(&Attack { name, source, causes: &["timeout"], says: TIMEOUT });
    }
}

#[test]
fn loops_in_code() {
    all_time_out(&[
        ("plain", "export function preCreate() { for (;;); }"),
        ("caught", "export function preCreate() { for (;;) { try { for (;;); } catch {} finally { for (;;); } } }"),
        ("top-level", "for (;;);\nexport function preCreate() {}"),
        ("generator", "export function preCreate() { function* g() { for (;;) yield 1; } for (const x of g()); }"),
        ("async", "export async function preCreate() { await null; for (;;); }"),
    ]);
}

#[test]
fn loops_inside_the_engine() {
    all_time_out(&[
        ("regexp", "export function preCreate() { /^(a+)+$/.test('a'.repeat(60) + '!'); }"),
        ("regexp-replace", "export function preCreate() { ('x'.repeat(40) + 'y').replace(/(x+x+)+z/g, () => ''); }"),
        (
            "json-parse",
            "export function preCreate() { const text = '[' + '0,'.repeat(4e5) + '0]'; for (;;) JSON.parse(text); }",
        ),
        ("sort", "export function preCreate() { [3, 1, 2].sort(() => { for (;;); }); }"),
        (
            "sort-long",
            "export function preCreate() { for (;;) new Array(1e5).fill(0).sort(() => Math.random() - 0.5); }",
        ),
        (
            "index-of",
            "export function preCreate() { const a = 'a'.repeat(1e6); for (;;) a.indexOf(a.slice(0, 5e5) + 'b'); }",
        ),
        ("bigint", "export function preCreate() { let n = 3n; for (;;) n = n ** 3n % (2n ** 4000n); }"),
    ]);
}

#[test]
fn loops_in_promises() {
    all_time_out(&[
        ("microtasks", "export async function preCreate() { for (;;) await null; }"),
        // Each stack overflow is caught, and the next one is provoked.
        ("recursion", "export function preCreate() { const f = () => { try { f(); } finally { f(); } }; f(); }"),
        (
            "microtasks-chained",
            "export async function preCreate() { const f = () => { Promise.resolve().then(f); }; f(); await new Promise(() => {}); }",
        ),
        ("thenables", "export async function preCreate() { for (;;) await { then(resolve) { resolve(); } }; }"),
        ("then-getter", "export function preCreate() { return { get then() { for (;;); } }; }"),
        ("then", "export function preCreate() { return { then() { for (;;); } }; }"),
        (
            "queue-microtask",
            "export async function preCreate() { const f = () => queueMicrotask(f); f(); await new Promise(() => {}); }",
        ),
        (
            "async-generator",
            "export async function preCreate() { async function* g() { for (;;) yield 1; } for await (const x of g()); }",
        ),
    ]);
}

#[test]
fn loops_while_the_answer_is_read() {
    all_time_out(&[
        ("to-json", "export function preCreate() { return { toJSON() { for (;;); } }; }"),
        ("getter", "export function preCreate() { return { get a() { for (;;); } }; }"),
        ("proxy", "export function preCreate() { return new Proxy({}, { ownKeys() { for (;;); } }); }"),
        ("message", "export function preCreate() { throw { get message() { for (;;); } }; }"),
        ("thrown-proxy", "export function preCreate() { throw new Proxy({}, { get() { for (;;); } }); }"),
        (
            "stack-trace",
            "export function preCreate() { Error.prepareStackTrace = () => { for (;;); }; throw new Error('x'); }",
        ),
        (
            "reject-fields",
            "export function preCreate() { throw new Reject('x', new Proxy({}, { ownKeys() { for (;;); } })); }",
        ),
    ]);
}

#[test]
fn waiting_takes_the_hooks_own_time() {
    all_time_out(&[
        ("timer", "export async function preCreate() { await new Promise((done) => setTimeout(done, 60_000)); }"),
        ("interval", "export async function preCreate() { setInterval(() => {}, 0); await new Promise(() => {}); }"),
        (
            "in-timer",
            "export async function preCreate() { await new Promise(() => setTimeout(() => { for (;;); }, 1)); }",
        ),
    ]);
}

#[test]
fn a_promise_that_never_settles_is_told_at_once() {
    // Long enough that waiting for it would be noticed.
    let options = ServerOptions { hooks: "timeout = '20 s'".to_owned(), ..ServerOptions::default() };
    let arena = Arena::with(options);
    let started = std::time::Instant::now();
    for (name, source) in [
        ("never", "export function preCreate() { return new Promise(() => {}); }"),
        ("never-async", "export async function preCreate() { await new Promise(() => {}); }"),
        ("never-then", "export function preCreate() { return { then() {} }; }"),
    ] {
        arena.refuses(&Attack { name, source, causes: &["exception"], says: "never settles" });
    }
    assert!(started.elapsed() < std::time::Duration::from_secs(20), "{:?}", started.elapsed());
}

#[test]
fn a_grant_gives_more_time() {
    let options = ServerOptions {
        hooks: "timeout = '50 ms'".to_owned(),
        tables: grant("victim-1", "preCreate", "timeout = '20 s'"),
        ..ServerOptions::default()
    };
    let arena = Arena::with(options);
    let source = "export function preCreate() { const end = Date.now() + 200; while (Date.now() < end); }";
    arena.refuses(&Attack { name: "slow", source, causes: &["timeout"], says: "the limit `timeout` is 50 ms" });
    let granted = arena.victim();
    arena.bind(&granted, "slow", source).expect(200);
    crate::workbench::create(&arena.api, &granted, &serde_json::json!({})).expect(201);
}
