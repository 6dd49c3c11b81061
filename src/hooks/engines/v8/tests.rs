//! The suites of JavaScript run against this engine, and what only V8 in processes of its own can do.

#[allow(clippy::duplicate_mod, reason = "the suite of each engine that runs JavaScript")]
#[path = "../javascript/calls_tests.rs"]
mod calls;
#[allow(clippy::duplicate_mod, reason = "as above")]
#[path = "../javascript/contract_tests.rs"]
mod contract;
#[allow(clippy::duplicate_mod, reason = "as above")]
#[path = "../javascript/hostile_tests.rs"]
mod hostile;

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use self::contract::pre;
use super::*;
use crate::config::Phase;
use crate::hooks::context::Outcome;
use crate::hooks::engines::conformance::javascript::source;
use crate::hooks::engines::conformance::{Subject, conformance};
use crate::hooks::engines::testing::Case;

/// This test is the worker, when another test starts it as one.
pub(super) const WORKER_TEST: &str = "hooks::engines::v8::tests::worker_process";
pub(super) const WORKER_FOLDER: &str = "SNAPHOOK_V8_WORKER";

#[test]
fn worker_process() {
    if let Some(folder) = std::env::var_os(WORKER_FOLDER) {
        serve_as_worker(Path::new(&folder));
    }
}

fn plugins() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins")
}

/// One engine for each test: its sockets belong to the test's runtime. Those of the last tests are kept.
fn engine() -> Arc<dyn HookEngine> {
    static ENGINES: Mutex<Vec<(tokio::runtime::Id, Arc<V8>)>> = Mutex::new(Vec::new());
    let test = tokio::runtime::Handle::current().id();
    let mut engines = ENGINES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, engine)) = engines.iter().find(|(id, _)| *id == test) {
        return engine.clone();
    }
    let engine = Arc::new(V8::new(&plugins(), V8Reset::Auto));
    engines.push((test, engine.clone()));
    if engines.len() > 8 {
        engines.remove(0);
    }
    engine
}

fn available() -> Result<Arc<dyn HookEngine>, String> {
    Nursery::new(plugins().join(FOLDER), V8Reset::Auto).check()?;
    Ok(engine())
}

fn case(phase: Phase) -> Case {
    Case::new(engine(), phase)
}

conformance!(conformance, Subject { name: "v8", engine: available, hook: source, without: &[] });

/// One without restored memory.
fn forking() -> Result<Arc<dyn HookEngine>, String> {
    available()?;
    Ok(Arc::new(V8::new(&plugins(), V8Reset::Fork)))
}

conformance!(forked, Subject { name: "v8, reset = 'fork'", engine: forking, hook: source, without: &[] });

#[tokio::test(flavor = "multi_thread")]
async fn the_way_back_is_told_and_is_the_one_that_was_asked_for() {
    // The kernels that can tell what a process has written.
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap(), numbers.next().unwrap());
    let can = version >= (6, 11) && cfg!(all(target_arch = "x86_64", target_env = "gnu"));
    for (reset, way) in [(V8Reset::Auto, if can { "memory" } else { "fork" }), (V8Reset::Fork, "fork")] {
        let engine = Arc::new(V8::new(&plugins(), reset));
        assert_eq!(engine.fact(), None, "nothing runs yet");
        let mut case = Case::new(Arc::clone(&engine) as Arc<dyn HookEngine>, Phase::PreCreate);
        case.after = Some("{}");
        let hook = case.prepare(b"let n = 0; export default () => ({ n: ++n })").await.unwrap();
        for _ in 0..20 {
            assert_eq!(case.call(&*hook).await.amended(), r#"{"n":1}"#);
        }
        assert_eq!(engine.fact().map(|fact| fact.label), Some(("way", way)), "{reset:?} {release}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ends_v8_ends_one_process() {
    let engine = engine();
    let mut case = Case::new(Arc::clone(&engine), Phase::PreCreate);
    case.settings.limits.timeout = Duration::from_secs(120);
    let hook = case.prepare(b"export default () => { new Array(1e9).fill(0) }").await.unwrap();
    let neighbour = case.prepare(b"export default () => ({ a: 1 })").await.unwrap();
    // Its memory limit foresaw that: it says nothing of the calls to come.
    for _ in 0..5 {
        let called = case.call(&*hook).await;
        let failure = called.failure();
        assert_eq!(failure.cause, FailureCause::Memory, "{}", failure.message);
        assert!(failure.message.contains("V8 ended its process: "), "{}", failure.message);
        assert_eq!(hook.state("item"), HookState::Ok);
        assert_eq!(case.call(&*neighbour).await.amended(), r#"{"a":1}"#);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_v8_does_without_recursion_may_be_deep() {
    for (body, message) in [
        ("let a = []; for (let i = 0; i < 1e5; i++) a = [a]; JSON.stringify(a)", ""),
        ("let a = {}; for (let i = 0; i < 1e5; i++) a = { a }; return a", "cannot be stored"),
        ("JSON.parse('['.repeat(1e6))", "SyntaxError"),
        ("new RegExp('(?:'.repeat(1e5) + ')'.repeat(1e5))", ""),
        ("eval('('.repeat(1e5) + '1' + ')'.repeat(1e5))", "stack of 1 MiB"),
    ] {
        let outcome = pre(&format!("export default () => {{ {body} }}"), "{}").await.report.outcome;
        match &outcome {
            Outcome::Failed(failure) => {
                assert!(!message.is_empty() && failure.message.contains(message), "{body}: {failure:?}")
            }
            other => assert!(message.is_empty() && *other == Outcome::Accept, "{body}: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_have_no_way_out() {
    let engine = engine();
    let case = Case::new(Arc::clone(&engine), Phase::PreCreate);
    let names = case
        .run(b"export default () => ({ names: Reflect.ownKeys(globalThis).filter((n) => /snaphook|host|shared|WebAssembly|handlers/i.test(String(n))).map(String) })")
        .await;
    assert_eq!(names.amended(), r#"{"names":["SharedArrayBuffer"]}"#);
    let nursery = Nursery::new(plugins().join(FOLDER), V8Reset::Auto);
    let worker = nursery.worker().await.unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", worker.pid())).unwrap();
    let field = |name: &str| {
        status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim).unwrap_or_default().to_owned()
    };
    assert_eq!((field("Seccomp:"), field("NoNewPrivs:"), field("Threads:")), ("2".into(), "1".into(), "1".into()));
    let entries = std::fs::read_dir(format!("/proc/{}/fd", worker.pid())).unwrap();
    let targets = entries.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
    let open: std::collections::BTreeSet<_> = targets.filter(|target| !target.starts_with("/dev/null")).collect();
    let own = ["maps", "pagemap"].map(|name| PathBuf::from(format!("/proc/{}/{name}", worker.pid())));
    let others = open.iter().filter(|path| !own.contains(path)).count();
    assert_eq!(others, 2, "its socket and the pipe of its last words: {open:?}");
}

/// Everything ends with the server, however it ends.
#[tokio::test(flavor = "multi_thread")]
async fn workers_end_with_their_zygote() {
    let engine = V8::new(&plugins(), V8Reset::Auto);
    let nursery = Arc::clone(&engine.nursery);
    let mut case = Case::new(Arc::new(engine), Phase::PreCreate);
    case.bench = case.bench.with_secret("begun", b"yes");
    case.grants = "secret = ['begun']";
    case.settings.limits.timeout = Duration::from_secs(120);
    let hook = case.prepare(b"export default ({ secret }) => { secret('begun'); for (;;); }").await.unwrap();
    let access = Arc::clone(&case.bench.access);
    let zygote_ends = async {
        while access.secret_reads() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        nursery.end_zygote().await;
        std::future::pending::<()>().await;
    };
    // It would loop for ever.
    let called = tokio::select! {
        called = case.call(&*hook) => called,
        () = zygote_ends => unreachable!("it waits"),
        () = tokio::time::sleep(Duration::from_secs(60)) => panic!("the worker goes on without its zygote"),
    };
    assert_eq!(called.failure().cause, FailureCause::Trap, "{}", called.failure().message);
}

/// What a handler left to promises is done in its own call.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_of_a_call_stays_out_of_the_next() {
    let mut case = case(Phase::PreCreate);
    case.settings.isolation = Isolation::Reuse;
    case.grants = "read = ['*']";
    let source = b"let seen = 'nothing'; let calls = 0;
        export default ({ read }) => {
            Promise.resolve().then(() => { try { read.get('item', '1') } catch (e) { seen = e.message } });
            return { calls: ++calls, seen };
        }";
    let hook = case.prepare(source).await.unwrap();
    let mut before = 0;
    for _ in 0..3 {
        let called = case.call(&*hook).await;
        let found: serde_json::Value = snaphook_driver::json::parse(called.amended()).unwrap();
        let calls = found["calls"].as_u64().unwrap();
        // A worker that does not come back in time is replaced by a new one.
        assert!(found["seen"] == "nothing" && (calls == before + 1 || calls == 1), "{found}");
        before = calls;
    }
}

/// A process serves call after call, and none finds anything of those before it: what they left in memory, had to do still,
/// or took from the system.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_is_put_back_after_each_call() {
    let engine = V8::new(&plugins(), V8Reset::Auto);
    let idle = Arc::clone(&engine.idle);
    let mut case = Case::new(Arc::new(engine), Phase::PreCreate);
    case.grants = "read = ['*']";
    let source = b"let calls = 0;
        const first = [Math.random(), Date.now()];
        export default async ({ after, read, log }) => {
            calls++;
            const found = { calls, left: globalThis.left ?? 'nothing', map: [1].map === after.constructor, first, id: crypto.randomUUID() };
            found.missing = (await read.get('item', '1')) ?? 'missing';
            globalThis.left = after;
            Array.prototype.map = after.constructor;
            setTimeout(() => log.info('late'), 5);
            Promise.resolve().then(() => { globalThis.left = 'late' });
            const junk = [];
            for (let index = 0; index < after.work; index++) junk.push({ index, text: 'x'.repeat(index % 100) + index });
            log.info('worked ' + junk.length);
            return found;
        }";
    let hook = case.prepare(source).await.unwrap();
    let mut pids = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    let mut last = 0.0;
    // Little work mostly, and in between enough for V8 to take and give back memory.
    for round in 0..120 {
        let work = if round % 8 == 7 { 400 << (round / 16) } else { round };
        case.after = Some(format!(r#"{{"work":{work}}}"#).leak());
        let called = case.call(&*hook).await;
        let found: serde_json::Value = snaphook_driver::json::parse(called.amended()).unwrap();
        assert_eq!((&found["calls"], &found["left"], &found["map"]), (&1.into(), &"nothing".into(), &false.into()));
        assert_eq!(found["missing"], "missing");
        assert!(seen.insert(found["id"].to_string()) && seen.insert(found["first"][0].to_string()), "{found}");
        let now = found["first"][1].as_f64().unwrap();
        assert!(now >= last, "{found}: a time that was");
        last = now;
        // The worker comes back a moment after its answer, or never.
        let deadline = Instant::now() + Duration::from_millis(if round % 8 == 7 { 20 } else { 2_000 });
        let worker = loop {
            match idle.take_any() {
                None if Instant::now() < deadline => tokio::task::yield_now().await,
                worker => break worker,
            }
        };
        if let Some((code, worker)) = worker {
            pids.push(worker.pid());
            idle.put(code, "item", worker);
        }
    }
    let others: std::collections::BTreeSet<_> = pids.iter().collect();
    // Elsewhere each process serves one call.
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let version: Vec<u32> = release.split(['.', '-']).take(2).filter_map(|part| part.trim().parse().ok()).collect();
    if version < vec![6, 11] || !cfg!(target_arch = "x86_64") {
        eprintln!("Linux {release}: no process is put back");
        return;
    }
    // Most do; how many depends on what the kernel does with the memory meanwhile.
    assert!(pids.len() >= 60, "of 105 small calls {} kept their process", pids.len());
    assert!(others.len() < pids.len() / 2, "{} processes", others.len());
}

/// Workers that ended before they were used cost nobody a call.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_gone_is_replaced() {
    let engine = V8::new(&plugins(), V8Reset::Auto);
    let nursery = Arc::clone(&engine.nursery);
    let case = Case::new(Arc::new(engine), Phase::PreCreate);
    let hook = case.prepare(b"export default () => ({ a: 1 })").await.unwrap();
    for _ in 0..3 {
        nursery.end_zygote().await;
        assert_eq!(case.call(&*hook).await.amended(), r#"{"a":1}"#);
    }
}

/// Post hooks that wait for others take no place from hooks that clients wait for.
#[tokio::test(flavor = "multi_thread")]
async fn pre_and_post_hooks_have_places_of_their_own() {
    let mut engine = V8::new(&plugins(), V8Reset::Auto);
    engine.room = Arc::new(Room::new(0));
    let room = Arc::clone(&engine.room);
    let engine: Arc<dyn HookEngine> = Arc::new(engine);
    let mut post = Case::new(Arc::clone(&engine), Phase::PostCreate);
    post.grants = "read = ['*']";
    let waiting = post.prepare(b"export default ({ read }) => { read.get('slow', '1') }").await.unwrap();
    let pre = Case::new(engine, Phase::PreCreate);
    let quick = pre.prepare(b"export default () => ({ a: 1 })").await.unwrap();
    let called = async {
        while room.is_empty(Phase::PostCreate) {
            tokio::task::yield_now().await;
        }
        pre.call(&*quick).await
    };
    tokio::select! {
        biased;
        ended = post.call(&*waiting) => panic!("it did not wait: {:?}", ended.report),
        called = called => assert_eq!(called.amended(), r#"{"a":1}"#),
    }
}
