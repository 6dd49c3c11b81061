//! The suites of JavaScript run against this engine, and what only QuickJS in WebAssembly can get wrong.

#[allow(clippy::duplicate_mod, reason = "the suite of each engine that runs JavaScript")]
#[path = "../javascript/contract_tests.rs"]
mod contract;
#[allow(clippy::duplicate_mod, reason = "as above")]
#[path = "../javascript/hostile_tests.rs"]
mod hostile;

use std::time::Duration;

use self::contract::pre;
use super::*;
use crate::hooks::context::FailureCause;
use crate::hooks::engines::conformance::javascript::source;
use crate::hooks::engines::conformance::{Subject, conformance};
use crate::hooks::engines::testing::{Case, cache};

fn engine() -> Arc<dyn Engine> {
    Arc::new(QuickJs::new(CodeCache::new(&cache())))
}

fn case(phase: Phase) -> Case {
    Case::new(engine(), phase)
}

conformance!(conformance, Subject { name: "quickjs", engine: || Ok(engine()), hook: source, without: &[] });

#[tokio::test(flavor = "multi_thread")]
async fn sandboxes_made_ahead_keep_within_the_calls_own_memory() {
    let mut case = case(Phase::PreCreate);
    let hook = case.prepare(b"export default () => {}").await.unwrap();
    for memory_bytes in [64 << 20, 1 << 20, 64 << 20, 1 << 20] {
        case.settings.limits.memory_bytes = memory_bytes;
        let outcome = case.call(&*hook).await.report.outcome;
        match memory_bytes {
            // Less than the runner has before any source.
            1_048_576 => assert!(
                matches!(&outcome, Outcome::Failed(failure) if failure.cause == FailureCause::Memory),
                "{outcome:?}"
            ),
            _ => assert_eq!(outcome, Outcome::Accept),
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
        "export default () => ({ names: Reflect.ownKeys(globalThis).filter((n) => /cqjs|wit|host|handlers|pending/.test(String(n))),
            frozen: Object.isFrozen(globalThis.__cqjs ?? Object.freeze({})) })",
        "{}",
    )
    .await;
    assert_eq!(seen.amended(), r#"{"names":["__cqjs"],"frozen":true}"#);
    for body in [
        "for (const k of Reflect.ownKeys(globalThis)) { try { delete globalThis[k] } catch {} } return { a: 1 }",
        "for (const k of Reflect.ownKeys(__cqjs)) { try { __cqjs[k] = () => { throw 1 } } catch {} } return { a: 1 }",
        "delete globalThis.__cqjs; return { a: 1 }",
        "try { __cqjs.asyncExports.settle = null } catch {} return { a: 1 }",
    ] {
        let source =
            format!("export default async () => {{ 'use strict'; try {{ {body} }} catch {{ return {{ a: 1 }} }} }}");
        assert_eq!(pre(&source, "{}").await.amended(), r#"{"a":1}"#, "{body}");
    }
    // Calling into the runtime by hand is the hook's own trap, nothing more.
    let called =
        pre("export default () => { __cqjs.makeStream?.(99); __cqjs.makeFuture?.(99); return { a: 1 } }", "{}").await;
    assert!(matches!(called.report.outcome, Outcome::Failed(_) | Outcome::Amend(_)));
    assert_eq!(pre("export default () => ({ a: 1 })", "{}").await.amended(), r#"{"a":1}"#);
}
