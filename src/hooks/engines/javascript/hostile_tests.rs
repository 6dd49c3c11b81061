//! Code that means harm: each case ends in its own failure, within its limits, and the next call knows nothing of it. Part
//! of the tests of each engine that runs JavaScript.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::case;
use super::contract::pre;
use crate::config::{Isolation, Phase};
use crate::hooks::context::{FailureCause, Outcome};

async fn ends(source: &str, cause: FailureCause, message: &str) {
    ends_before(Duration::from_millis(200), source, cause, message).await;
}

/// With time enough on a machine that is busy for what ends by itself.
pub(super) async fn ends_before(timeout: Duration, source: &str, cause: FailureCause, message: &str) {
    let mut case = case(Phase::PreCreate);
    case.settings.limits.timeout = timeout;
    case.grants = "read = ['*']";
    let started = Instant::now();
    let called = case.run(source.as_bytes()).await;
    let failure = called.failure();
    assert_eq!(failure.cause, cause, "{source}\n{}", failure.message);
    assert!(failure.message.contains(message), "{source}\n{}", failure.message);
    assert!(started.elapsed() < Duration::from_secs(10), "{source}");
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_work_ends_at_the_deadline() {
    for body in [
        "for (;;);",
        "/^(a+)+$/.test('a'.repeat(60) + '!')",
        "JSON.parse('[' + '1,'.repeat(1e6) + '1]'); for (;;) JSON.parse('[' + '1,'.repeat(1e5) + '1]')",
        "[3, 1, 2].sort(() => { for (;;); })",
        "return { get then() { for (;;); } }",
        "return { toJSON() { for (;;); } }",
        "return new Proxy({}, { ownKeys() { for (;;); } })",
        "throw { get message() { for (;;); } }",
        "throw { get name() { for (;;); } }",
        "const again = () => Promise.resolve().then(again); return again()",
        "const again = () => queueMicrotask(again); again(); return new Promise(() => {})",
        "setInterval(() => {}, 1); return new Promise(() => {})",
        "return new Promise((resolve) => setTimeout(resolve, 1e9))",
        "'x'.repeat(1e6).replace(/(x+)+y/, '')",
        "return { then() { for (;;); } }",
        "Object.defineProperty(Object.prototype, 'toJSON', { value() { for (;;); } }); return { a: 1 }",
        "for (;;) { try { for (;;); } catch {} finally { continue } }",
    ] {
        ends(&format!("export default () => {{ {body} }}"), FailureCause::Timeout, "the limit `timeout` is 200 ms")
            .await;
    }
    ends("for (;;); export default 1", FailureCause::Timeout, "200 ms").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_bounded() {
    for body in [
        "const a = []; for (;;) a.push(new Array(1000).fill(1))",
        "new Array(1e9).fill(0)",
        "const m = new Map(); for (let i = 0; ; i++) m.set(i, { i })",
        "return { a: new Array(5e7).fill(1) }",
        "const grow = (a) => grow([a, a.concat(a)]); let a = [1]; for (;;) a = a.concat(a)",
        "new Uint8Array(100 * 1024 * 1024)",
        "try { const a = []; for (;;) a.push('x'.repeat(1e6) + Math.random()) } finally { throw null }",
    ] {
        let source = format!("export default () => {{ {body} }}");
        let mut case = case(Phase::PreCreate);
        case.settings.limits.timeout = Duration::from_secs(120);
        let called = case.run(source.as_bytes()).await;
        let failure = called.failure();
        assert_eq!(failure.cause, FailureCause::Memory, "{body}: {}", failure.message);
        assert_eq!(failure.limit.as_deref(), Some("memory 64 MiB"));
        assert!(called.report.memory_bytes <= 64 << 20, "{body}");
    }
    // Caught and given up: the hook goes on.
    let called = pre(
        "export default () => { try { 'x'.repeat(2 ** 29).split('') } catch (e) { return { e: e.message } } }",
        "{}",
    )
    .await;
    let expected = [r#"{"e":"out of memory"}"#, r#"{"e":"Invalid string length"}"#];
    assert!(expected.contains(&called.amended()), "{}", called.amended());
}

#[tokio::test(flavor = "multi_thread")]
async fn recursion_is_bounded() {
    for body in [
        "const deep = () => deep() + 1; deep()",
        "const deep = async () => { await deep() }; return deep()",
        "const o = { toString() { return `${o}` } }; `${o}`",
    ] {
        let source = format!("export default () => {{ {body} }}");
        ends_before(Duration::from_secs(5), &source, FailureCause::Stack, "stack of 1 MiB").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn output_log_and_host_calls_are_bounded() {
    let mut case = case(Phase::PreCreate);
    case.settings.limits = crate::config::Limits { timeout: Duration::from_secs(120), memory_bytes: 1 << 30 };
    case.grants = "read = ['*']\nmemory = '1 GiB'";
    let huge = case.run(b"export default () => ({ a: 'x'.repeat(100 * 1024 * 1024) })").await;
    assert_eq!(huge.failure().cause, FailureCause::Output, "{}", huge.failure().message);
    assert!(huge.failure().message.contains("100.0 MiB long"));
    let flood = case.run(b"export default ({ log }) => { for (;;) log.info('x') }").await;
    assert_eq!((flood.failure().cause, flood.log.len()), (FailureCause::Output, 1000));
    let calls = case
        .run(b"export default ({ read }) => { for (let i = 0; i < 100000; i++) try { read.get('a', 'b') } catch {} }")
        .await;
    assert_eq!(calls.failure().cause, FailureCause::HostCalls);
    let waits = case.run(b"export default async () => { for (;;) await new Promise((r) => setTimeout(r, 0)) }").await;
    assert_eq!(waits.failure().cause, FailureCause::HostCalls, "{}", waits.failure().message);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interval_that_nobody_clears_ends_with_the_time() {
    for is_async in ["", "async "] {
        let source = format!("export default {is_async}() => {{ setInterval(() => {{}}, 5); return {{ a: 1 }} }}");
        ends(&source, FailureCause::Timeout, "200 ms").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promise_that_never_settles_says_so() {
    for body in
        ["return new Promise(() => {})", "return { then() {} }", "return (async () => { await { then() {} } })()"]
    {
        ends(&format!("export default () => {{ {body} }}"), FailureCause::Exception, "never settles").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_throws_are_reported() {
    for (thrown, message) in [
        ("undefined", "threw undefined, which is not an Error"),
        ("null", "threw null, which is not an Error"),
        ("42", "threw 42, which is not an Error"),
        ("'text'", "threw text, which is not an Error"),
        ("Symbol('s')", "threw Symbol(s), which is not an Error"),
        ("10n", "threw 10n, which is not an Error"),
        ("() => 1", "threw [function (anonymous)], which is not an Error"),
        ("[1, [2]]", "threw [1, [2]], which is not an Error"),
        ("(() => { const a = {}; a.a = a; return a })()", "threw {\"a\": [circular]}, which is not an Error"),
        ("{ get message() { throw 1 }, get stack() { throw 2 } }", "threw a value that cannot be read"),
        (
            "new Proxy({}, { get() { throw 1 }, ownKeys() { throw 2 }, getPrototypeOf() { throw 3 } })",
            "threw a value that cannot be read",
        ),
        ("new Proxy(new Error('p'), {})", "Error: p"),
        ("Object.assign(new Error('a'), { name: { toString() { throw 1 } } })", "threw Error: a"),
        ("Object.create(null)", "threw {}, which is not an Error"),
        ("new Error('\\ud800')", "threw Error: "),
        ("Object.setPrototypeOf({}, Reject.prototype)", "threw "),
        ("Promise.reject(1)", "threw "),
        ("new AggregateError([new Error('b')], 'all')", "threw AggregateError: all"),
    ] {
        for handler in ["() =>", "async () =>"] {
            let source = format!("export default {handler} {{ throw ({thrown}) }}");
            ends(&source, FailureCause::Exception, message).await;
        }
    }
    let long = pre("export default () => { throw new Error('x'.repeat(1e6)) }", "{}").await;
    assert!(long.failure().message.len() < 10_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn tampering_changes_only_the_hooks_own_world() {
    let tamper = "
        const evil = () => { throw new Error('evil') };
        const { ownKeys } = Reflect, { defineProperty } = Object;
        JSON.stringify = JSON.parse = evil;
        Object.keys = Object.defineProperty = Object.getOwnPropertyNames = evil;
        const types = [Object, Array, String, Map, Set, Promise, Function, Error, RegExp, Number];
        for (let i = 0; i < types.length; i++) {
            const names = ownKeys(types[i].prototype);
            for (let j = 0; j < names.length; j++) {
                if (names[j] === 'constructor') continue;
                try { types[i].prototype[names[j]] = evil } catch {}
            }
        }
        Array.prototype[Symbol.iterator] = evil;
        defineProperty(Object.prototype, 'then', { get: undefined, set: evil });
        globalThis.Promise = globalThis.Object = globalThis.JSON = globalThis.Error = globalThis.Reflect = undefined;
        globalThis.Reject = globalThis.setTimeout = globalThis.URL = globalThis.Function = undefined;
    ";
    let mut case = case(Phase::PreCreate);
    case.after = Some(r#"{"a":1}"#);
    case.bench = case.bench.with_instance("item", "1", r#"{"n":1}"#);
    case.grants = "read = ['item']";
    let source = format!(
        "const R = Reject; export default ({{ after, read, log }}) => {{ {tamper};
            log.info('works'); const found = read.get('item', '1');
            if (after.a === 2) throw new R('refused'); return {{ a: after.a, n: found.data.n }} }}"
    );
    let hook = case.prepare(source.as_bytes()).await.unwrap();
    for isolation in [Isolation::Call, Isolation::Reuse, Isolation::Call] {
        case.settings.isolation = isolation;
        let called = case.call(&*hook).await;
        assert_eq!(called.amended(), r#"{"a":1,"n":1}"#);
        assert_eq!(called.lines(), ["works"]);
    }
    case.settings.isolation = Isolation::Call;
    case.after = Some(r#"{"a":2}"#);
    assert!(matches!(case.call(&*hook).await.report.outcome, Outcome::Reject(_)));
    // Another hook, right after: a world of its own.
    case.settings.isolation = Isolation::Reuse;
    let clean = case
        .run(b"export default async ({ after }) => JSON.parse(JSON.stringify({ ...after, ok: [1].map(String) }))")
        .await;
    assert_eq!(clean.amended(), r#"{"a":2,"ok":["1"]}"#);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loops_do_not_keep_others_waiting() {
    let mut looping = case(Phase::PreCreate);
    looping.settings.limits.timeout = Duration::from_millis(1_500);
    let hook = looping.prepare(b"export default () => { for (;;); }").await.unwrap();
    let looping = Arc::new(looping);
    let loops: Vec<_> = (0..32)
        .map(|_| {
            let (looping, hook) = (Arc::clone(&looping), Arc::clone(&hook));
            tokio::spawn(async move { looping.call(&*hook).await.failure().cause })
        })
        .collect();
    let quick = case(Phase::PreCreate);
    let other = quick.prepare(b"export default () => ({ a: 1 })").await.unwrap();
    let mut times = Vec::new();
    while !loops.iter().all(|task| task.is_finished()) {
        let started = Instant::now();
        assert_eq!(quick.call(&*other).await.amended(), r#"{"a":1}"#);
        times.push(started.elapsed());
        tokio::task::yield_now().await;
    }
    for task in loops {
        assert_eq!(task.await.unwrap(), FailureCause::Timeout);
    }
    times.sort_unstable();
    // Not a measurement: without the lane of their own, 32 loops on two threads would make it hundreds of milliseconds.
    let median = times[times.len() / 2];
    assert!(median < Duration::from_millis(250), "{median:?} of {} calls", times.len());
}
