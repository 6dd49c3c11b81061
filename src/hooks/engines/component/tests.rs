//! Cases of the engine: components written as text, each for one thing that must hold.

use super::guest::{check, component, foreign, package, react};
use super::*;
use crate::hooks::context::FailureCause;
use crate::hooks::engines::conformance::{Subject, conformance};
use crate::hooks::engines::testing::{Called, Case, cache, guest_file};

fn engine() -> Arc<dyn Engine> {
    Arc::new(ComponentEngine::new(CodeCache::new(&cache())))
}

fn case(phase: Phase) -> Case {
    Case::new(engine(), phase)
}

async fn pre(functions: &str, after: &'static str) -> Called {
    let mut case = case(Phase::PreCreate);
    case.after = Some(after);
    case.run(&component("pre-hook", "", functions)).await
}

async fn refused(phase: Phase, code: &[u8]) -> String {
    match case(phase).prepare(code).await {
        Ok(_) => panic!("it was taken"),
        Err(error) => error.message,
    }
}

/// Where the text of `after` is: pointer and length.
const AFTER: &str = "(i32.load offset=48 (local.get $context)) (i32.load offset=52 (local.get $context))";

conformance!(
    sdk,
    Subject {
        name: "component (Rust, snaphook-hook)",
        engine: || Ok(engine()),
        hook: |_| guest_file("suite_sdk.wasm"),
        without: &[],
    }
);

conformance!(
    rust,
    Subject {
        name: "component (Rust)",
        engine: || Ok(engine()),
        hook: |_| guest_file("suite_rust.wasm"),
        without: &[],
    }
);

#[tokio::test(flavor = "multi_thread")]
async fn what_is_handed_back_is_data() {
    let amends = check("(return (call $amend (i32.const 2048) (i32.const 25)))");
    let data = r#"(data (i32.const 2048) "{\"n\":9007199254740993.10}")"#;
    assert_eq!(pre(&format!("{amends}{data}"), "{}").await.amended(), r#"{"n":9007199254740993.10}"#);
    let same = check(&format!("(return (call $amend {AFTER}))"));
    assert_eq!(pre(&same, r#"{"a": 1}"#).await.report.outcome, Outcome::Accept);
    let broken = check("(return (call $amend (i32.const 2048) (i32.const 3)))");
    let failure = pre(&format!("{broken}(data (i32.const 2048) \"{{]}}\")"), "{}").await.failure().clone();
    assert_eq!(failure.cause, FailureCause::Amend, "{}", failure.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_work_is_refused_when_it_is_bound() {
    let good = component("pre-hook", "", &check(""));
    let message = refused(Phase::PostCreate, &good).await;
    assert!(message.contains("no handler for `postCreate`") && message.contains("`react`"), "{message}");
    let message = refused(Phase::PreCreate, &good[..good.len() / 2]).await;
    assert!(message.starts_with("the file is no valid component: "), "{message}");
    let random: Vec<u8> = (0_u32..1000).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    assert!(refused(Phase::PreCreate, &random).await.contains("is no WebAssembly"));
    assert!(refused(Phase::PreCreate, b"").await.contains("is no WebAssembly"));
    assert!(refused(Phase::PreCreate, &vec![0; 100 << 20]).await.contains("100.0 MiB, at most 32 MiB"));
    let module = wat::parse_str("(module)").unwrap();
    assert!(refused(Phase::PreCreate, &module).await.contains("not supported yet"));
    let mut garbled = good.clone();
    let end = garbled.len() - 40;
    garbled[end..].fill(0xff);
    assert!(refused(Phase::PreCreate, &garbled).await.contains("no valid component"));
}

#[tokio::test(flavor = "multi_thread")]
async fn imports_are_checked_by_name_version_and_phase() {
    let with_http = package().replace(
        "world pre-hook {\n  use types.{context, verdict, rejection};",
        "world pre-hook {\n  use types.{context, verdict, rejection};\n  import http;",
    );
    let import = r#"(import "snaphook:hook/http@0.1.0" "send" (func $send (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i64 i32 i32)))"#;
    let code = foreign(&with_http, "pre-hook", import, &check(""));
    let message = refused(Phase::PreCreate, &code).await;
    assert!(message.contains("`snaphook:hook/http@0.1.0`") && message.contains("never has"), "{message}");

    // Built for both worlds: bound to either, and the session refuses what the phase does not have.
    let both = package()
        + "world both { use types.{context, verdict, rejection}; import http;
            export check: func(ctx: context) -> result<verdict, rejection>; export react: func(ctx: context) -> result<_, string>; }";
    let code = foreign(&both, "both", import, &format!("{}{}", check(""), react("").replace("$context", "$c")));
    assert_eq!(case(Phase::PreCreate).run(&code).await.report.outcome, Outcome::Accept);
    assert_eq!(case(Phase::PostUpdate).run(&code).await.report.outcome, Outcome::Accept);

    let newer = package().replace("@0.1.0", "@0.2.0");
    let import = r#"(import "snaphook:hook/log@0.2.0" "write" (func $log (param i32 i32 i32)))"#;
    let message = refused(Phase::PreCreate, &foreign(&newer, "pre-hook", import, &check(""))).await;
    assert!(message.contains("`snaphook:hook@0.2.0`, this server speaks 0.1.0"), "{message}");

    let odd = package()
        + "interface disk { wipe: func(); }\nworld odd { include pre-hook; import disk; import clock: func(); }";
    let import = r#"(import "snaphook:hook/disk@0.1.0" "wipe" (func $wipe)) (import "$root" "clock" (func $clock))"#;
    let message = refused(Phase::PreCreate, &foreign(&odd, "odd", import, &check(""))).await;
    assert!(message.contains("`snaphook:hook/disk@0.1.0`") && message.contains("`clock`"), "{message}");

    let other = package()
        .replace("export check: func(ctx: context) -> result<verdict, rejection>", "export check: func(ctx: string)");
    let other = other.replace("use types.{context, verdict, rejection};", "");
    let code = foreign(&other, "pre-hook", "", "(func (export \"check\") (param i32 i32))");
    let message = refused(Phase::PreCreate, &code).await;
    assert!(message.contains("`check` has another type"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn traps_and_small_limits() {
    let traps = pre(&check("(unreachable)"), "{}").await;
    assert_eq!(traps.failure().cause, FailureCause::Trap);
    assert!(traps.failure().message.contains("unreachable"), "{}", traps.failure().message);

    let odd = pre(&check("(return (call $amend (i32.const 0x7fffffff) (i32.const 9)))"), "{}").await;
    assert_eq!(odd.failure().cause, FailureCause::Trap);

    // A small limit is passed before the first instruction runs.
    let mut small = case(Phase::PreCreate);
    small.settings.limits.memory_bytes = 64 << 10;
    assert_eq!(small.run(&component("pre-hook", "", &check(""))).await.failure().cause, FailureCause::Memory);
}

#[tokio::test(flavor = "multi_thread")]
async fn compiled_code_is_cached_and_a_damaged_file_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let engine = || -> Arc<dyn Engine> { Arc::new(ComponentEngine::new(CodeCache::new(&cache))) };
    let code = component("pre-hook", "", &check(""));
    let works = async || Case::new(engine(), Phase::PreCreate).run(&code).await.report.outcome;
    assert_eq!(works().await, Outcome::Accept);
    let files = || std::fs::read_dir(&cache).unwrap().map(|file| file.unwrap().path()).collect::<Vec<_>>();
    let [file] = &files()[..] else { panic!("{:?}", files()) };
    let whole = std::fs::read(file).unwrap();
    for damage in [whole[..whole.len() / 2].to_vec(), Vec::new(), vec![0; 4096], {
        let mut flipped = whole.clone();
        let middle = flipped.len() / 2;
        flipped[middle] ^= 1;
        flipped
    }] {
        std::fs::write(file, damage).unwrap();
        assert_eq!(works().await, Outcome::Accept);
        assert_eq!(std::fs::read(file).unwrap().len(), whole.len(), "it was made again");
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&cache), mode(file)), (0o700, 0o600));
        // What others may write is not loaded, and not written either.
        std::fs::set_permissions(&cache, std::fs::Permissions::from_mode(0o777)).unwrap();
        std::fs::write(file, b"evil").unwrap();
        assert_eq!(works().await, Outcome::Accept);
        assert_eq!(std::fs::read(file).unwrap(), b"evil");
    }
}
