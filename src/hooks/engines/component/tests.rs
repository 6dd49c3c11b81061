//! Cases of the engine: components written as text, each for one thing that must hold.

use std::time::{Duration, Instant};

use super::guest::{check, component, foreign, package, react};
use super::*;
use crate::hooks::context::FailureCause;
use crate::hooks::engines::testing::{Called, Case, cache};

fn case(phase: Phase) -> Case {
    Case::new(Arc::new(ComponentEngine::new(CodeCache::new(&cache()))), phase)
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

#[tokio::test(flavor = "multi_thread")]
async fn accepts_amends_and_rejects() {
    assert_eq!(pre(&check(""), "{}").await.report.outcome, Outcome::Accept);
    let amends = check("(return (call $amend (i32.const 2048) (i32.const 25)))");
    let data = r#"(data (i32.const 2048) "{\"n\":9007199254740993.10}")"#;
    assert_eq!(pre(&format!("{amends}{data}"), "{}").await.amended(), r#"{"n":9007199254740993.10}"#);
    let same = check(&format!("(return (call $amend {AFTER}))"));
    assert_eq!(pre(&same, r#"{"a": 1}"#).await.report.outcome, Outcome::Accept);

    // A rejection: 1, then message and one field of pointer and message.
    let rejects = check(
        "(i32.store8 (i32.const 1024) (i32.const 1))
         (i32.store (i32.const 1028) (i32.const 2048)) (i32.store (i32.const 1032) (i32.const 2))
         (i32.store (i32.const 1036) (i32.const 3072)) (i32.store (i32.const 1040) (i32.const 1))
         (i32.store (i32.const 3072) (i32.const 2050)) (i32.store (i32.const 3076) (i32.const 2))
         (i32.store (i32.const 3080) (i32.const 2052)) (i32.store (i32.const 3084) (i32.const 3))",
    );
    let called = pre(&format!("{rejects}(data (i32.const 2048) \"no/abad\")"), "{}").await;
    match called.report.outcome {
        Outcome::Reject(rejection) => {
            assert_eq!(rejection.message, "no");
            assert_eq!((rejection.fields[0].pointer.as_str(), rejection.fields[0].message.as_str()), ("/a", "bad"));
        }
        other => panic!("{other:?}"),
    }
    let broken = check("(return (call $amend (i32.const 2048) (i32.const 3)))");
    let failure = pre(&format!("{broken}(data (i32.const 2048) \"{{]}}\")"), "{}").await.failure().clone();
    assert_eq!(failure.cause, FailureCause::Amend, "{}", failure.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn capabilities_end_in_the_session() {
    let imports = r#"(import "snaphook:hook/read@0.1.0" "get" (func $get (param i32 i32 i32 i32 i32)))
        (import "snaphook:hook/log@0.1.0" "write" (func $log (param i32 i32 i32)))"#;
    // Reads item/1 into 4096 and logs the data of what it found, or the error's code and message.
    let functions = format!(
        r#"(data (i32.const 2048) "item1") {}"#,
        check(
            "(call $get (i32.const 2048) (i32.const 4) (i32.const 2052) (i32.const 1) (i32.const 4096))
             (if (i32.load8_u (i32.const 4096))
               (then (call $log (i32.const 2) (i32.load offset=8 (i32.const 4096)) (i32.load offset=12 (i32.const 4096)))
                     (call $log (i32.const 2) (i32.load offset=16 (i32.const 4096)) (i32.load offset=20 (i32.const 4096))))
               (else (call $log (i32.const 1) (i32.load offset=72 (i32.const 4096)) (i32.load offset=76 (i32.const 4096)))))"
        )
    );
    let code = component("pre-hook", imports, &functions);
    let mut case = case(Phase::PreCreate);
    case.bench = case.bench.with_instance("item", "1", r#"{"big":12345678901234567890.1}"#);
    case.grants = "read = ['item']";
    assert_eq!(case.run(&code).await.lines(), [r#"{"big":12345678901234567890.1}"#]);
    case.grants = "";
    let lines = case.run(&code).await.lines();
    assert!(lines.contains(&"denied".to_owned()), "{lines:?}");
    assert!(lines.iter().any(|line| line.contains("read = ['item']")), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn post_hooks_react() {
    let case = case(Phase::PostCreate);
    assert_eq!(case.run(&component("post-hook", "", &react(""))).await.report.outcome, Outcome::Accept);
    let fails = react(
        "(i32.store8 (i32.const 1024) (i32.const 1))
         (i32.store (i32.const 1028) (i32.const 2048)) (i32.store (i32.const 1032) (i32.const 4))",
    );
    let called = case.run(&component("post-hook", "", &format!("{fails}(data (i32.const 2048) \"oops\")"))).await;
    assert_eq!((called.failure().cause, called.failure().message.as_str()), (FailureCause::Exception, "oops"));
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
async fn each_limit_has_its_own_failure() {
    let endless = check("(loop $again (br $again))");
    let mut short = case(Phase::PreCreate);
    short.settings.limits.timeout = Duration::from_millis(100);
    let started = Instant::now();
    let called = short.run(&component("pre-hook", "", &endless)).await;
    let failure = called.failure();
    assert_eq!((failure.cause, failure.limit.as_deref()), (FailureCause::Timeout, Some("timeout 100 ms")));
    assert!(failure.message.contains("100 ms"), "{}", failure.message);
    assert!(started.elapsed() < Duration::from_secs(5));

    let bomb = check("(loop $again (br_if $again (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) (unreachable)");
    let failure = pre(&bomb, "{}").await.failure().clone();
    assert_eq!((failure.cause, failure.limit.as_deref()), (FailureCause::Memory, Some("memory 64 MiB")));
    assert!(failure.message.contains("1.0 MiB of memory"), "{}", failure.message);

    let deep = format!("(func $deep (call $deep)) {}", check("(call $deep)"));
    assert_eq!(pre(&deep, "{}").await.failure().cause, FailureCause::Stack);

    let traps = pre(&check("(unreachable)"), "{}").await;
    assert_eq!(traps.failure().cause, FailureCause::Trap);
    assert!(traps.failure().message.contains("unreachable"), "{}", traps.failure().message);

    let odd = pre(&check("(return (call $amend (i32.const 0x7fffffff) (i32.const 9)))"), "{}").await;
    assert_eq!(odd.failure().cause, FailureCause::Trap);

    let huge =
        check("(drop (memory.grow (i32.const 320))) (return (call $amend (i32.const 131072) (i32.const 20000000)))");
    let failure = pre(&huge, "{}").await.failure().clone();
    assert_eq!(failure.cause, FailureCause::Output, "{}", failure.message);

    // A small limit is passed before the first instruction runs.
    let mut small = case(Phase::PreCreate);
    small.settings.limits.memory_bytes = 64 << 10;
    assert_eq!(small.run(&component("pre-hook", "", &check(""))).await.failure().cause, FailureCause::Memory);
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_end_the_guest() {
    let import = r#"(import "snaphook:hook/log@0.1.0" "write" (func $log (param i32 i32 i32)))"#;
    let flood = check("(loop $again (call $log (i32.const 1) (i32.const 0) (i32.const 10)) (br $again))");
    let called = case(Phase::PreCreate).run(&component("pre-hook", import, &flood)).await;
    assert_eq!(called.failure().cause, FailureCause::Output);
    assert_eq!(called.log.len(), 1000);

    let import = r#"(import "snaphook:hook/read@0.1.0" "get" (func $get (param i32 i32 i32 i32 i32)))"#;
    let calls = check(
        "(loop $again (call $get (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 4096)) (br $again))",
    );
    let mut reader = case(Phase::PreCreate);
    reader.grants = "read = ['*']";
    reader.settings.limits.timeout = Duration::from_secs(20);
    let called = reader.run(&component("pre-hook", import, &calls)).await;
    assert_eq!(called.failure().cause, FailureCause::HostCalls, "{}", called.failure().message);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reused_sandbox_keeps_its_state_and_a_trapped_one_is_dropped() {
    // Counts its calls and traps at the third.
    let functions = format!(
        r#"(global $calls (mut i32) (i32.const 48)) {}"#,
        check(
            "(global.set $calls (i32.add (global.get $calls) (i32.const 1)))
             (i32.store8 (i32.const 2048) (global.get $calls))
             (if (i32.eq (global.get $calls) (i32.const 51)) (then (unreachable)))
             (return (call $amend (i32.const 2048) (i32.const 1)))"
        )
    );
    let mut case = case(Phase::PreCreate);
    case.settings.isolation = Isolation::Reuse;
    let hook = case.prepare(&component("pre-hook", "", &functions)).await.unwrap();
    assert_eq!(case.call(&*hook).await.amended(), "1");
    assert_eq!(case.call(&*hook).await.amended(), "2");
    assert_eq!(case.call(&*hook).await.failure().cause, FailureCause::Trap);
    assert_eq!(case.call(&*hook).await.amended(), "1");
    case.settings.isolation = Isolation::Call;
    assert_eq!(case.call(&*hook).await.amended(), "1");
    assert_eq!(case.call(&*hook).await.amended(), "1");
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
