//! The suites of JavaScript run against this engine, and what only QuickJS in WebAssembly can get wrong.

#[allow(clippy::duplicate_mod, reason = "the suite of each engine that runs JavaScript")]
#[path = "../javascript/calls_tests.rs"]
mod calls;
#[allow(clippy::duplicate_mod, reason = "as above")]
#[path = "../javascript/contract_tests.rs"]
mod contract;
#[allow(clippy::duplicate_mod, reason = "as above")]
#[path = "../javascript/hostile_tests.rs"]
mod hostile;

use std::time::Duration;

use self::contract::pre;
use super::load::Start;
use super::*;
use crate::config::Phase;
use crate::hooks::context::FailureCause;
use crate::hooks::engines::conformance::javascript::source;
use crate::hooks::engines::conformance::{Subject, conformance};
use crate::hooks::engines::testing::{Case, cache};

fn engine() -> Arc<dyn HookEngine> {
    Arc::new(QuickJs::new(CodeCache::new(&cache())))
}

fn case(phase: Phase) -> Case {
    Case::new(engine(), phase)
}

conformance!(conformance, Subject { name: "quickjs", engine: || Ok(engine()), hook: source, without: &[] });

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_below_what_the_runner_needs_is_a_failure_for_memory() {
    let mut case = case(Phase::PreCreate);
    let hook = case.prepare(b"export default () => {}").await.unwrap();
    for memory_bytes in [64 << 20, 1 << 20, 64 << 20, 1 << 20] {
        case.settings.limits.memory_bytes = memory_bytes;
        let outcome = case.call(&*hook).await.report.outcome;
        match memory_bytes {
            1_048_576 => assert!(
                matches!(&outcome, Outcome::Failed(failure) if failure.cause == FailureCause::Memory),
                "{outcome:?}"
            ),
            _ => assert_eq!(outcome, Outcome::Accept),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_below_what_the_top_level_left_is_a_failure_for_memory() {
    for (source, least) in [("new Uint8Array(8 << 20).fill(1)", 12 << 20), ("'x'.repeat(1000)", 3 << 20)] {
        let mut case = case(Phase::PreCreate);
        let source = format!("const big = {source}; export default () => ({{ length: big.length }})");
        let hook = case.prepare(source.as_bytes()).await.unwrap();
        for memory_bytes in [64 << 20, 1 << 20, least, 1 << 20] {
            case.settings.limits.memory_bytes = memory_bytes;
            match case.call(&*hook).await.report.outcome {
                Outcome::Amend(_) => assert!(memory_bytes >= least),
                Outcome::Failed(failure) => {
                    assert_eq!((failure.cause, memory_bytes), (FailureCause::Memory, 1 << 20), "{failure:?}");
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_that_quickjs_does_not_know_are_refused_when_bound() {
    // The parser takes it, QuickJS does not.
    let source = format!("export default () => /{}/", "()".repeat(300));
    let error = case(Phase::PreCreate).prepare(source.as_bytes()).await.err().unwrap();
    assert!(error.message.starts_with("SyntaxError: "), "{error:?}");
}

/// What QuickJS does by recursion of its own.
#[tokio::test(flavor = "multi_thread")]
async fn recursion_inside_quickjs_is_bounded() {
    for body in [
        "let a = []; for (let i = 0; i < 1e5; i++) a = [a]; JSON.stringify(a)",
        "let a = {}; for (let i = 0; i < 1e5; i++) a = { a }; return a",
        "JSON.parse('['.repeat(1e6))",
        "new RegExp('(?:'.repeat(1e5) + ')'.repeat(1e5))",
        "eval('('.repeat(1e5) + '1' + ')'.repeat(1e5))",
    ] {
        let source = format!("export default () => {{ {body} }}");
        hostile::ends_before(Duration::from_secs(5), &source, FailureCause::Stack, "stack of 1 MiB").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_runners_own_parts_are_out_of_reach() {
    let seen = pre(
        "const names = /host|handlers|pending|sleepers|awaited|arrived|intrinsic|snaphook/i;
         export default () => ({ names: Reflect.ownKeys(globalThis).filter((name) => names.test(String(name))) })",
        "{}",
    )
    .await;
    assert_eq!(seen.amended(), r#"{"names":[]}"#);
    for body in [
        "for (const k of Reflect.ownKeys(globalThis)) { try { delete globalThis[k] } catch {} } return { a: 1 }",
        "for (const k of Reflect.ownKeys(Promise.prototype)) delete Promise.prototype[k]; await 1; return { a: 1 }",
    ] {
        let source = format!("export default async () => {{ 'use strict'; {body} }}");
        assert_eq!(pre(&source, "{}").await.amended(), r#"{"a":1}"#, "{body}");
    }
}

/// The parser refuses `import`; code that is made at run time meets nothing that it could import.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_can_be_imported() {
    let source = "export default async () => {
        const seen = [];
        for (const name of ['snaphook', 'snaphook:runner/host', 'std', 'os', 'qjs:std', 'qjs:os', '<input>', '<runner>', './x.js', '']) {
            const text = JSON.stringify(name);
            const ways = [() => eval(`import(${text})`), () => new Function(`return import(${text})`)(),
                () => (0, eval)(`import(${text}, { with: { type: 'json' } })`)];
            for (const way of ways) {
                try { await way(); seen.push(name) } catch (error) { if (!(error instanceof Error)) seen.push(error) }
            }
        }
        return { seen } }";
    assert_eq!(pre(source, "{}").await.amended(), r#"{"seen":[]}"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_top_level_is_captured_where_nobody_can_see_it() {
    let cases = [
        ("export default () => {}", None),
        ("let n = 0; for (let i = 0; i < 1e5; i++) n += i; export default () => ({ n })", None),
        (
            "const url = new URL('a', 'http://x/'); const bytes = new TextEncoder().encode('\u{e4}'); export default () => {}",
            None,
        ),
        ("const old = new Date(0).toISOString(); export default () => {}", None),
        ("const ready = Promise.resolve(1); export default async () => { await ready }", None),
        ("const now = Date.now(); export default () => {}", Some("asks for the time")),
        ("const now = new Date(); export default () => {}", Some("asks for the time")),
        ("try { performance.now() } catch {} export default () => {}", Some("asks for the time")),
        ("const seed = Math.random(); export default () => {}", Some("asks for random numbers")),
        ("const id = crypto.randomUUID(); export default () => {}", Some("asks for random numbers")),
        ("console.log('hi'); export default () => {}", Some("writes to the log")),
        ("setTimeout(() => {}, 1); export default () => {}", Some("sets a timer")),
        ("fetch('http://x/').catch(() => {}); export default () => {}", Some("makes a host call")),
        ("const open = new Promise(() => {}); export default () => open", Some("leaves a promise open")),
        ("let a = 0; Promise.resolve().then(() => { a = 1 }); export default () => {}", Some("leaves a promise open")),
        (
            "const failed = (async () => { throw new Error('x') })(); export default () => failed",
            Some("leaves a promise open"),
        ),
        ("Promise.reject(new Error('x')); export default () => {}", Some("leaves a promise open")),
        ("const p = (async () => 1)(); export default () => p", None),
        ("export const big = new Uint8Array(8 << 20).fill(1); export default () => {}", None),
        ("throw new Error('top'); export default () => {}", Some("throws")),
        ("const f = () => f(); f(); export default () => {}", Some("throws")),
        ("const a = '[' .repeat(1e6); JSON.parse(a); export default () => {}", Some("breaks a limit")),
        (
            "export const big = new Uint8Array(20 << 20).fill(1); export default () => {}",
            Some("leaves more than 16 MiB"),
        ),
    ];
    for (source, reason) in cases {
        let hook = case(Phase::PreCreate).prepare(source.as_bytes()).await.unwrap();
        let expected = match reason {
            None => TopLevel::Captured,
            Some(reason) => TopLevel::EachCall { reason: reason.to_owned() },
        };
        assert_eq!(hook.top_level(), Some(expected), "{source}");
    }
}

/// Whether it is captured or not, each call finds what the top level left, and nothing that another call did to it.
#[tokio::test(flavor = "multi_thread")]
async fn each_call_starts_from_what_the_top_level_left() {
    for (head, loading) in [("", true), ("Date.now();", false)] {
        let source = format!(
            "{head} const seen = []; const big = 'x'.repeat(3e6); let n = 1; class A {{ static a = new Map([['k', 1]]); #p = 2; p() {{ return this.#p++ }} }}
             const a = new A(); function* numbers() {{ yield 1; yield 2 }} const it = numbers(); it.next(); globalThis.shared = {{ n: 0 }};
             export default async ({{ after }}) => {{ seen.push(after.n); n++; globalThis.shared.n++; A.a.set(after.n, 1);
                return {{ seen, n, p: a.p(), next: it.next().value, shared: globalThis.shared.n, size: A.a.size, long: big.length }} }}"
        );
        let mut case = case(Phase::PreCreate);
        let hook = case.prepare(source.as_bytes()).await.unwrap();
        assert_eq!(hook.top_level() == Some(TopLevel::Captured), loading, "{:?}", hook.top_level());
        for after in [r#"{"n":1}"#, r#"{"n":2}"#, r#"{"n":3}"#] {
            case.after = Some(after);
            let number = &after[5..6];
            let expected = format!(r#"{{"seen":[{number}],"n":2,"p":2,"next":2,"shared":1,"size":2,"long":3000000}}"#);
            assert_eq!(case.call(&*hook).await.amended(), expected);
        }
    }
}

/// Fills its memory with a word; the next sandboxes are looked through from end to end.
#[tokio::test(flavor = "multi_thread")]
async fn no_byte_of_a_call_reaches_the_next() {
    const SECRET: &str = "zq7Xw3kP9vRt5nLb";
    let source = "export default ({ after }) => {
        const all = [];
        for (let i = 0; i < 100_000; i++) all.push(after.secret + i);
        const bytes = new Uint8Array(1 << 20);
        for (let i = 0; i < bytes.length; i++) bytes[i] = after.secret.charCodeAt(i % 16);
        return { length: all.length + bytes.length } }";
    let mut case = case(Phase::PreCreate);
    let secret = format!("{{\"secret\":\"{SECRET}\"}}");
    case.settings.limits.timeout = Duration::from_secs(60);
    let hook = case.prepare(source.as_bytes()).await.unwrap();
    let cache = CodeCache::new(&cache());
    let runner = runner(&cache).await.unwrap();
    // The next of them starts from a copy of what changed, or from an image.
    let small = "export default () => {}";
    let large = "const all = Array.from({ length: 50_000 }, (_, i) => ({ i })); export default () => all.length";
    let mut starts = Vec::new();
    for (source, is_image) in [(small, false), (large, true)] {
        let source = Source::of(source.as_bytes(), Phase::PreCreate, None).await.unwrap();
        let Loaded { start, .. } = load(runner, &cache, &source).await.unwrap();
        assert_eq!(matches!(start, Start::Image(_)), is_image);
        starts.push(start);
    }
    let is_secret = |window: &[u8]| window == SECRET.as_bytes();
    for _ in 0..4 {
        case.after = Some(Box::leak(secret.clone().into_boxed_str()));
        assert_eq!(case.call(&*hook).await.amended(), r#"{"length":1148576}"#);
        let mut sandboxes = Vec::new();
        for index in 0..16 {
            let mut sandbox = Sandbox::new(runner.runtime, Extra::default()).await.unwrap_or_else(|f| panic!("{f:?}"));
            sandbox.begin(None, &crate::hooks::engines::limits::CHECK_LIMITS);
            let (guest, _) = starts[index % 2].guest(runner, &mut sandbox.store).await.unwrap();
            guest.grow(&mut sandbox.store, 16 << 20).await.unwrap();
            let memory = guest.bytes(&sandbox.store);
            assert!(memory.len() >= 16 << 20);
            assert!(!memory.windows(SECRET.len()).any(is_secret));
            sandboxes.push(sandbox);
        }
    }
}

/// Whatever a call did, the sandbox that the next call gets holds what a new one does, byte for byte.
#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_is_put_back_after_each_call() {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse::<u32>().unwrap_or(0));
    let can = (numbers.next().unwrap(), numbers.next().unwrap()) >= (6, 7);
    let cache = CodeCache::new(&cache());
    let runner = runner(&cache).await.unwrap();
    let handler = "export default async ({ after, read, log }) => {
        calls++;
        globalThis.left = after.word;
        Object.prototype.left = () => after.word;
        Array.prototype.map = RegExp.prototype.test = null;
        const all = [];
        for (let i = 0; i < after.n; i++) all.push({ word: after.word + i });
        const missing = await read.get('item', 'x');
        setTimeout(() => { globalThis.late = all }, 1);
        log.info(/(a+)+$/.exec(after.word)?.[0] ?? 'none');
        if (after.fails) throw new Error(after.word);
        return { calls, missing, n: all.length } }";
    for (before, is_image) in [
        ("let calls = 0;", false),
        ("let calls = 0; const table = Array.from({ length: 50_000 }, (_, i) => ({ i }));", true),
    ] {
        let source = format!("{before} {handler}");
        let engine = QuickJs::new(cache.clone());
        let idle = Arc::clone(&engine.idle);
        let mut case = Case::new(Arc::new(engine), Phase::PreCreate);
        case.grants = "read = ['*']";
        let hook = case.prepare(source.as_bytes()).await.unwrap();
        let source = Source::of(source.as_bytes(), Phase::PreCreate, None).await.unwrap();
        let Loaded { start, .. } = load(runner, &cache, &source).await.unwrap();
        assert_eq!(matches!(start, Start::Image(_)), is_image);
        let mut fresh = Sandbox::new(runner.runtime, Extra::default()).await.unwrap_or_else(|f| panic!("{f:?}"));
        fresh.begin(None, &crate::hooks::engines::limits::CHECK_LIMITS);
        let (guest, _) = start.guest(runner, &mut fresh.store).await.unwrap();
        for (n, fails) in [(0, false), (100, false), (1000, true), (3, false), (100, true), (100, false)] {
            let after = format!(r#"{{"word":"secret{n}","n":{n},"fails":{fails}}}"#);
            case.after = Some(Box::leak(after.into_boxed_str()));
            let called = case.call(&*hook).await;
            match fails {
                true => assert!(called.failure().message.contains(&format!("secret{n}"))),
                false => assert_eq!(called.amended(), format!(r#"{{"calls":1,"missing":null,"n":{n}}}"#)),
            }
            let Some((number, sandbox)) = idle.take_any() else {
                assert!(!can, "no sandbox was put back after a call with {n} objects");
                continue;
            };
            let extra = &sandbox.store.data().extra;
            assert!(extra.is_restored && extra.calls.is_idle());
            let (found, expected) = (extra.guest.unwrap().bytes(&sandbox.store), guest.bytes(&fresh.store));
            assert_eq!(found.len(), expected.len());
            let other = found.iter().zip(expected).position(|(found, expected)| found != expected);
            assert_eq!(other, None, "a byte that a call with {n} objects left");
            idle.put(number, "item", sandbox);
        }
    }
}

/// One that was kept as its call left it serves nobody who wants a fresh one, nor the other way round.
#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_serves_only_as_it_was_kept() {
    let mut case = case(Phase::PreCreate);
    let hook = case.prepare(b"let calls = 0; export default () => ({ calls: ++calls })").await.unwrap();
    let mut expected = 0;
    for isolation in
        [Isolation::Call, Isolation::Reuse, Isolation::Reuse, Isolation::Call, Isolation::Call, Isolation::Reuse]
    {
        case.settings.isolation = isolation;
        expected = if isolation == Isolation::Reuse && expected > 0 { expected + 1 } else { 1 };
        let called = case.call(&*hook).await;
        assert_eq!(called.amended(), format!(r#"{{"calls":{expected}}}"#), "{isolation:?}");
        if isolation == Isolation::Call {
            expected = 0;
        }
    }
}
