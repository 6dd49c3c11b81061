//! Cases of the engine: components written as text, each for one thing that must hold.

use super::guest::{check, component, foreign, package, react};
use super::*;
use crate::hooks::context::FailureCause;
use crate::hooks::engines::conformance::{Subject, conformance};
use crate::hooks::engines::testing::{Called, Case, cache, guest_file};

fn engine() -> Arc<dyn HookEngine> {
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
    wasip2,
    Subject {
        name: "component (Rust, snaphook-hook, wasm32-wasip2)",
        engine: || Ok(engine()),
        hook: |_| guest_file("suite_sdk_wasip2.wasm"),
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

conformance!(
    c,
    Subject { name: "component (C)", engine: || Ok(engine()), hook: |_| guest_file("suite_c.wasm"), without: &[] }
);

conformance!(
    python,
    Subject {
        name: "component (Python)",
        engine: || Ok(engine()),
        hook: |_| guest_file("suite_python.wasm"),
        without: &[],
    }
);

conformance!(
    javy,
    Subject {
        name: "component (Javy)",
        engine: || Ok(engine()),
        hook: |_| guest_file("suite_javy.wasm"),
        without: &[
            ("log/levels", "a command has one stream for its log, so all lines have one level"),
            ("read/*", "a command has no capabilities"),
            ("write/*", "a command has no capabilities"),
            ("http/*", "a command has no capabilities"),
            ("process/*", "a command has no capabilities"),
            ("secret/*", "a command has no capabilities"),
            ("limit/host-calls", "a command makes no host calls"),
            ("numbers/*", "Javy's JSON rounds numbers as JavaScript does; the digits are on its standard input"),
            ("hostile/spellings-*", "as for numbers: what JavaScript cannot hold its JSON does not read"),
            ("state/reuse", "a command ends with its call"),
        ],
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
    assert!(message.starts_with("the file is not a valid component: "), "{message}");
    let random: Vec<u8> = (0_u32..1000).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    assert!(refused(Phase::PreCreate, &random).await.contains("is not WebAssembly"));
    assert!(refused(Phase::PreCreate, b"").await.contains("is not WebAssembly"));
    assert!(refused(Phase::PreCreate, &vec![0; 100 << 20]).await.contains("100.0 MiB, at most 32 MiB"));
    let module = wat::parse_str("(module)").unwrap();
    let message = refused(Phase::PreCreate, &module).await;
    assert!(message.contains("without a world and without `_start`"), "{message}");
    // What `javy build -C dynamic` makes.
    let plugin = r#"(module (import "javy-default-plugin-v3" "cabi_realloc" (func (param i32 i32 i32 i32) (result i32)))
        (import "javy-default-plugin-v3" "invoke" (func (param i32 i32 i32 i32 i32)))
        (import "javy-default-plugin-v3" "memory" (memory 0)) (func (export "_start")))"#;
    let message = refused(Phase::PreCreate, &wat::parse_str(plugin).unwrap()).await;
    assert!(message.contains("linked dynamically") && message.contains("build it statically"), "{message}");
    let odd = r#"(module (import "env" "now" (func)) (memory (export "memory") 1) (func (export "_start")))"#;
    let message = refused(Phase::PreCreate, &wat::parse_str(odd).unwrap()).await;
    assert!(message.contains("imports `now` of `env`"), "{message}");
    let mut garbled = good.clone();
    let end = garbled.len() - 40;
    garbled[end..].fill(0xff);
    assert!(refused(Phase::PreCreate, &garbled).await.contains("not a valid component"));
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
    assert!(message.contains("`snaphook:hook@0.2.0`, this server supports 0.1.0"), "{message}");

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

/// A component of an older version gets its own types, and what it asks for ends in the same session.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_version_of_the_package_works_beside_the_newest() {
    let imports = r#"(import "snaphook:hook/read@0.0.9" "get" (func $get (param i32 i32 i32 i32 i32)))
        (import "snaphook:hook/log@0.0.9" "write" (func $log (param i32 i32 i32)))"#;
    // Logs the model, then the data of `item/1` or the code of the refusal; then refuses with its first two bytes.
    let body = check(
        "(call $log (i32.const 1) (i32.load offset=4 (local.get $context)) (i32.load offset=8 (local.get $context)))
         (call $get (i32.const 2048) (i32.const 4) (i32.const 2052) (i32.const 1) (i32.const 4096))
         (if (i32.load8_u (i32.const 4096))
           (then (call $log (i32.const 2) (i32.load offset=4 (i32.const 4096)) (i32.load offset=8 (i32.const 4096))))
           (else (call $log (i32.const 1) (i32.load offset=8 (i32.const 4096)) (i32.load offset=12 (i32.const 4096)))))
         (i32.store8 (i32.const 1024) (i32.const 1))
         (i32.store (i32.const 1028) (i32.const 2048)) (i32.store (i32.const 1032) (i32.const 2))",
    );
    let wit = include_str!("../../../../tests/guests/wit/since_v0_0_9/hook.wit");
    let code = foreign(wit, "pre-hook", imports, &format!(r#"{body} (data (i32.const 2048) "item1")"#));
    let mut case = case(Phase::PreCreate);
    case.bench = case.bench.with_instance("item", "1", r#"{"a":1}"#);
    for (grants, line) in [("read = ['item']", r#"{"a":1}"#), ("", "denied")] {
        case.grants = grants;
        let called = case.run(&code).await;
        let lines = called.lines();
        assert_eq!((lines.first().map(String::as_str), lines.last().map(String::as_str)), (Some("item"), Some(line)));
        let Outcome::Reject(rejection) = called.report.outcome else { panic!("{:?}", called.report.outcome) };
        assert_eq!(rejection.message, "it");
    }
    // It has nothing after a change.
    let message = refused(Phase::PostCreate, &code).await;
    assert!(message.contains("no handler for `postCreate`"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_handed_over_is_bounded() {
    for (bytes, says) in [(17_000_000, "is 16.2 MiB long"), (20_000_000, "is too long"), (60_000_000, "is too long")] {
        let grown = "(drop (memory.grow (i32.const 980)))";
        let amends = format!("{grown} (return (call $amend (i32.const 1048576) (i32.const {bytes})))");
        let failure = pre(&check(&amends), "{}").await.failure().clone();
        assert_eq!((failure.cause, failure.limit.as_deref()), (FailureCause::Output, Some("output 16 MiB")));
        assert!(failure.message.contains(says), "{}", failure.message);
    }
    // What a host function is given, too.
    let log = r#"(import "snaphook:hook/log@0.1.0" "write" (func $log (param i32 i32 i32)))"#;
    let says = check(
        "(drop (memory.grow (i32.const 980))) (call $log (i32.const 1) (i32.const 1048576) (i32.const 20000000))",
    );
    let failure = case(Phase::PreCreate).run(&component("pre-hook", log, &says)).await.failure().clone();
    assert_eq!(failure.cause, FailureCause::Output, "{}", failure.message);
    assert!(
        failure.message.starts_with("what the hook handed to the server at once is too long"),
        "{}",
        failure.message
    );
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
    let engine = || -> Arc<dyn HookEngine> { Arc::new(ComponentEngine::new(CodeCache::new(&cache))) };
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
