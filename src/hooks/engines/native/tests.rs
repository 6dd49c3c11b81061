//! Cases of the engine: libraries in C, made by the machine's compiler, that keep the rules and that break them.

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use snaphook_driver::{Actor, ActorKind};

use super::given_up::GIVEN_UP_MAX;
use super::*;
use crate::config::Limits;
use crate::hooks::context::FailureCause;
use crate::hooks::engines::arguments::misfit;
use crate::hooks::engines::conformance::{Subject, conformance};
use crate::hooks::engines::testing::{Case, cache, guest_file};
use crate::hooks::session::Redirect;
use crate::hooks::testing::skip;

/// What `cc` makes of a file of tests/guests/native. `Err`: there is no compiler.
fn compiled(file: &str, flags: &[&str]) -> Result<Vec<u8>, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let source = match file {
        "check.c" => root.join("sdk/c/examples/check.c"),
        other => root.join("tests/guests/native").join(other),
    };
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("library.so");
    let mut command = Command::new("cc");
    command.args(["-shared", "-fPIC", "-fexceptions", "-O1", "-Wall", "-Wextra", "-Werror"]).args(flags);
    command.arg("-I").arg(root.join("sdk/c")).arg("-o").arg(&library).arg(&source);
    let output = command.output().map_err(|error| format!("no C compiler `cc`: {error}"))?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(std::fs::read(library).unwrap())
}

/// The suite's library, compiled once.
fn suite() -> Result<Vec<u8>, String> {
    static SUITE: Mutex<Option<Result<Vec<u8>, String>>> = Mutex::new(None);
    SUITE.lock().unwrap().get_or_insert_with(|| compiled("suite.c", &[])).clone()
}

/// A library of its own for each, so that none meets the memory of another.
fn hostile(flags: &[&str]) -> Option<Vec<u8>> {
    compiled("hostile.c", flags).map_err(|reason| skip("hostile native libraries", &reason)).ok()
}

fn engine() -> Arc<dyn HookEngine> {
    Arc::new(NativeEngine::new(&cache()))
}

/// What has no sandbox has no bounds but time.
const WITHOUT: &[(&str, &str)] = &[
    ("limit/memory", "a library's memory is the server's, and nobody holds it back"),
    ("limit/stack", "a library that uses up its thread's stack ends the server"),
    ("state/*", "a library lives as long as the server and keeps what it likes"),
];

conformance!(c, Subject { name: "native (C)", engine: || Ok(engine()), hook: |_| suite(), without: WITHOUT });

/// With `snaphook-hook`, from the source that is a component too.
fn rust() -> Result<Vec<u8>, String> {
    guest_file(&format!("suite_sdk{}", std::env::consts::DLL_SUFFIX))
        .map_err(|error| error.replace("xtask guests", "xtask native"))
}

conformance!(
    sdk,
    Subject { name: "native (Rust, snaphook-hook)", engine: || Ok(engine()), hook: |_| rust(), without: WITHOUT }
);

/// A panic's words reach whoever looks into what became of the call.
#[tokio::test(flavor = "multi_thread")]
async fn a_panic_is_told() {
    let code = match rust() {
        Ok(code) => code,
        Err(reason) => return skip("panics of native libraries", &reason),
    };
    let case = Case::new(engine(), Phase::PreCreate);
    let hook = case.prepare(&code).await.unwrap();
    let mut context = case.context();
    context.actor = Some(actor("crash"));
    for _ in 0..3 {
        let report = hook.call(&context, &case.settings, &case.session()).await;
        let Outcome::Failed(failure) = report.outcome else { panic!("{report:?}") };
        assert_eq!((failure.cause, &*failure.message), (FailureCause::Exception, "the hook panicked: crashed"));
    }
}

fn actor(id: &str) -> Arc<Actor> {
    Arc::new(Actor::new(ActorKind::Token, id))
}

async fn failure(case: &Case, code: &[u8]) -> Failure {
    case.run(code).await.failure().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_the_rules_fails_the_call() {
    for (name, phase, cause, part) in [
        ("answers_twice", Phase::PreCreate, FailureCause::Trap, "it answered twice: `accept`, then `amend`"),
        ("never_answers", Phase::PreCreate, FailureCause::Trap, "it returned without an answer"),
        ("never_answers", Phase::PostCreate, FailureCause::Trap, "it returned without an answer"),
        ("wrong_kind", Phase::PreCreate, FailureCause::Trap, "it answered with kind 77"),
        ("no_utf8", Phase::PreCreate, FailureCause::Trap, "`amend` is not UTF-8, from byte 6 on"),
        ("no_json", Phase::PreCreate, FailureCause::Amend, "not valid JSON"),
        (
            "no_rejection",
            Phase::PreCreate,
            FailureCause::Trap,
            "the payload of its answer `reject` is not JSON: expected a value at line 1 column 1",
        ),
        ("null_payload", Phase::PreCreate, FailureCause::Trap, "it passed 5 bytes at 0x0 for the payload"),
        ("rejects_after", Phase::PostCreate, FailureCause::Trap, "in a post phase"),
        ("releases_twice", Phase::PreCreate, FailureCause::Trap, "it released the buffer 1 twice"),
        (
            "releases_unknown",
            Phase::PreCreate,
            FailureCause::Trap,
            "it released the buffer 99, which it was never given",
        ),
        ("null_text", Phase::PreCreate, FailureCause::Trap, "it passed 3 bytes at 0x0 for a log message"),
        ("null_out", Phase::PreCreate, FailureCause::Trap, "it passed null for a buffer"),
        ("odd_level", Phase::PreCreate, FailureCause::Trap, "it logged with level 9"),
        ("hoards", Phase::PreCreate, FailureCause::Memory, "release what is no longer used"),
        ("throws", Phase::PreCreate, FailureCause::Trap, "panicked or threw an exception"),
    ] {
        let Some(code) = hostile(&[&format!("-DCASE={name}")]) else { return };
        let mut case = Case::new(engine(), phase);
        case.bench = case.bench.with_instance("item", "i-1", &format!(r#"{{"text":"{}"}}"#, "x".repeat(100_000)));
        case.grants = "read = ['item']";
        case.settings.limits.timeout = Duration::from_secs(30);
        let failure = failure(&case, &code).await;
        assert_eq!((failure.cause, failure.message.contains(part)), (cause, true), "{name}: {}", failure.message);
    }
}

/// The words of the JSON parser, which name types of this program, never reach an author.
#[test]
fn malformed_arguments_are_described() {
    let request = |text: &str| table::request_of(text, Vec::new());
    let request_fault = |text: &str| misfit("the request", &request(text).unwrap_err());
    for (text, expected) in [
        ("", "the request is not JSON: the text ends inside a value at line 1 column 1"),
        ("[]", "the request is an array, expected an object"),
        ("{}", "the request does not fit: `/url` is missing, expected a string"),
        (r#"{"url":1}"#, "the request does not fit: `/url` is a number, expected a string"),
        (r#"{"url":"u","method":null}"#, "the request does not fit: `/method` is null, expected a string"),
        (r#"{"url":"u","headers":{}}"#, "the request does not fit: `/headers` is an object, expected a list of pairs"),
        (r#"{"url":"u","headers":[["a"]]}"#, "the request does not fit: `/headers/0` is not a pair of strings"),
        (
            r#"{"url":"u","headers":[["a","b"],["c",2]]}"#,
            "the request does not fit: `/headers/1/1` is a number, expected a string",
        ),
        (
            r#"{"url":"u","timeout_ms":"1"}"#,
            "the request does not fit: `/timeout_ms` is a string, expected a whole number from 0",
        ),
        (
            r#"{"url":"u","redirect":"no"}"#,
            "the request does not fit: `/redirect` is `no`, expected `follow`, `manual` or `error`",
        ),
        (
            r#"{"url":"u","body":""}"#,
            "the request does not fit: `/body` is unknown, expected `method`, `url`, `headers`, `timeout_ms` or `redirect`",
        ),
    ] {
        assert_eq!(request_fault(text), expected, "{text}");
    }
    let whole = request(r#"{"url":"u","headers":[["a","b"]],"timeout_ms":9,"redirect":"manual"}"#).unwrap();
    assert_eq!((whole.method.as_str(), whole.url.as_str(), whole.redirect), ("GET", "u", Redirect::Manual));
    assert_eq!((whole.headers.len(), whole.timeout), (1, Some(Duration::from_millis(9))));
    assert_eq!(request(r#"{"url":"u","timeout_ms":null}"#).unwrap().timeout, None);

    let command = |text: &str| table::command_of(text, Vec::new());
    let command_fault = |text: &str| misfit("the command", &command(text).unwrap_err());
    assert_eq!(command_fault("{}"), "the command does not fit: `/program` is missing, expected a string");
    assert_eq!(
        command_fault(r#"{"program":"/p","args":["a",1]}"#),
        "the command does not fit: `/args/1` is a number, expected a string"
    );
    let whole = command(r#"{"program":"/p","args":["a"],"env":[["A","b"]]}"#).unwrap();
    assert_eq!((whole.program.as_str(), whole.args.len(), whole.env.len()), ("/p", 1, 1));

    let fault = |text: &str| misfit("it", &call::rejection(text).unwrap_err());
    assert_eq!(fault("{}"), "it does not fit: `/message` is missing, expected a string");
    assert_eq!(
        fault(r#"{"message":"no","fields":[{"pointer":"/a"}]}"#),
        "it does not fit: `/fields/0/message` is missing, expected a string"
    );
    let rejection = call::rejection(r#"{"message":"no","fields":[{"message":"bad"}],"more":1}"#).unwrap();
    assert_eq!((rejection.message.as_str(), rejection.fields.len()), ("no", 1));
    assert_eq!(rejection.fields[0].pointer, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn exceptions_do_not_wear_the_server_out() {
    let Some(code) = hostile(&["-DCASE=throws"]) else { return };
    let case = Case::new(engine(), Phase::PreCreate);
    let hook = case.prepare(&code).await.unwrap();
    for _ in 0..100 {
        assert_eq!(case.call(&*hook).await.failure().cause, FailureCause::Trap);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_over_is_not_found() {
    let Some(code) = hostile(&["-DCASE=late"]) else { return };
    let case = Case::new(engine(), Phase::PreCreate);
    let hook = case.prepare(&code).await.unwrap();
    for _ in 0..3 {
        let called = case.call(&*hook).await;
        assert_eq!((called.report.outcome, called.log.len()), (Outcome::Accept, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_that_does_not_return_is_kept_out_until_it_is_bound_anew() {
    let Some(code) = hostile(&["-DCASE=never_returns"]) else { return };
    let mut case = Case::new(engine(), Phase::PreCreate);
    case.settings.limits.timeout = Duration::from_millis(50);
    let hook = case.prepare(&code).await.unwrap();
    for _ in 0..given_up::GIVEN_UP_MAX {
        let failure = case.call(&*hook).await.failure().clone();
        assert_eq!((failure.cause, failure.limit.as_deref()), (FailureCause::Timeout, Some("timeout 50 ms")));
        assert!(failure.message.contains("its thread is given up"), "{}", failure.message);
    }
    case.settings.limits.timeout = Duration::from_secs(60);
    let start = Instant::now();
    let failure = case.call(&*hook).await.failure().clone();
    assert!(failure.message.contains("the hook is disabled: 3 of its calls"), "{}", failure.message);
    assert!(start.elapsed() < Duration::from_secs(20), "it fails at once");
    case.settings.limits.timeout = Duration::from_millis(50);
    hook.bound_anew("item");
    assert!(case.call(&*hook).await.failure().message.contains("its thread is given up"));
}

/// Quick calls run on the runtime's threads. When some do not return, half of those threads are left.
#[test]
fn a_quick_hook_that_holds_threads_of_the_runtime_does_not_stop_it() {
    let Some(code) = hostile(&["-DCASE=quick_then_stuck"]) else { return };
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(4).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut case = Case::new(engine(), Phase::PreCreate);
        case.settings.limits.timeout = Duration::from_millis(300);
        let hook = case.prepare(&code).await.unwrap();
        let case = Arc::new(case);
        let mut inline = std::collections::HashSet::new();
        for _ in 0..100 {
            let called = case.call(&*hook).await;
            assert_eq!(called.report.outcome, Outcome::Accept);
            inline.extend(called.lines());
        }
        assert!(inline.contains("tokio"), "none of the calls ran on the runtime: {inline:?}");
        // Two hold threads of the runtime, the third one of its own.
        let stuck: Vec<_> = (0..3)
            .map(|_| {
                let (case, hook) = (Arc::clone(&case), Arc::clone(&hook));
                tokio::spawn(async move {
                    let mut context = case.context();
                    context.actor = Some(actor("stuck"));
                    hook.call(&context, &case.settings, &case.session()).await.outcome
                })
            })
            .collect();
        // The runtime goes on meanwhile.
        for _ in 0..20 {
            tokio::spawn(tokio::time::sleep(Duration::from_millis(1))).await.unwrap();
        }
        for call in stuck {
            let outcome = call.await.unwrap();
            let Outcome::Failed(failure) = &outcome else { panic!("{outcome:?}") };
            assert_eq!(failure.limit.as_deref(), Some("timeout 300 ms"), "{}", failure.message);
        }
        assert!(case.call(&*hook).await.failure().message.contains("is disabled"));
        for _ in 0..20 {
            tokio::spawn(tokio::task::yield_now()).await.unwrap();
        }
    });
    runtime.shutdown_background();
}

/// The thread that looks after the sockets is the one that takes a request: when a quick hook does not return there, another
/// one looks after them.
#[test]
fn a_quick_hook_that_holds_the_only_busy_thread_keeps_no_socket_waiting() {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let Some(code) = hostile(&["-DCASE=quick_then_stuck"]) else { return };
    // Calls of other tests that do not return hold some.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(16).enable_all().build().unwrap();
    let (case, hook) = runtime.block_on(async {
        let mut case = Case::new(engine(), Phase::PreCreate);
        case.settings.limits.timeout = Duration::from_secs(30);
        let hook = case.prepare(&code).await.unwrap();
        (Arc::new(case), hook)
    });
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    // What a client sends is `p`, to have it back, `q` for a call before that, or `s` for a call that does not return.
    runtime.spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (case, hook) = (Arc::clone(&case), Arc::clone(&hook));
            tokio::spawn(async move {
                while let Ok(sent) = stream.read_u8().await {
                    let mut context = case.context();
                    context.actor = (sent == b's').then(|| actor("stuck"));
                    if sent != b'p' {
                        hook.call(&context, &case.settings, &case.session()).await;
                    }
                    stream.write_u8(sent).await.unwrap();
                }
            });
        }
    });
    let [mut one, mut other] = [(); 2].map(|()| TcpStream::connect(address).unwrap());
    other.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let ask = |stream: &mut TcpStream, what: u8| {
        stream.write_all(&[what]).unwrap();
        let mut answer = [0];
        stream.read_exact(&mut answer).map(|()| assert_eq!(answer, [what]))
    };
    for _ in 0..50 {
        ask(&mut one, b'q').unwrap();
        ask(&mut other, b'p').unwrap();
    }
    // Nothing tells when all threads are at rest, one of them with the sockets, nor when that one is held. What comes before
    // comes with the call, and has another thread woken for it.
    let settle = || std::thread::sleep(Duration::from_millis(100));
    settle();
    one.write_all(b"s").unwrap();
    settle();
    let goes_on = (0..10).all(|_| ask(&mut other, b'p').is_ok());
    runtime.shutdown_background();
    assert!(goes_on, "the other connection waits for the call");
}

#[tokio::test]
async fn a_call_that_has_returned_is_not_given_up() {
    let case = Case::new(engine(), Phase::PreCreate);
    let limits = Limits { timeout: Duration::ZERO, ..case.settings.limits };
    let hook = Arc::<GivenUp>::default();
    let (call, ended) = Call::new(&case.session(), true, limits, &hook, false);
    call.begin();
    call.answer(snaphook_hook_abi::ANSWER_ACCEPT, b"").unwrap();
    assert!(!call.returned(false), "it was given up before it returned");
    assert!(!call.expire(), "it returned and was given up");
    assert_eq!(ended.await.unwrap().0, Outcome::Accept);
}

#[test]
fn three_threads_are_the_limit_also_after_a_hook_was_bound_anew() {
    let hook = GivenUp::default();
    for _ in 0..2 {
        (0..GIVEN_UP_MAX).for_each(|_| hook.gave_up());
        assert!(hook.kept_out().is_some());
        hook.forgive();
        assert!(hook.kept_out().is_none());
        (0..GIVEN_UP_MAX).for_each(|_| hook.came_back());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_work_is_refused_when_it_is_bound() {
    let refused = async |phase: Phase, code: Vec<u8>| match Case::new(engine(), phase).prepare(&code).await {
        Ok(_) => panic!("it was taken"),
        Err(error) => error.message,
    };
    let whole = match compiled("check.c", &[]) {
        Ok(library) => library,
        Err(reason) => return skip("native libraries", &reason),
    };
    let message = refused(Phase::PreCreate, b"just text".to_vec()).await;
    assert!(message.contains("not a shared library for this machine: it begins with `just text`"), "{message}");
    let message = refused(Phase::PreCreate, whole[..whole.len() / 2].to_vec()).await;
    assert!(message.contains("is truncated"), "{message}");
    let message = refused(Phase::PostCreate, whole).await;
    assert!(message.contains("`check` has no function `react`, which `postCreate` needs"), "{message}");
    for (flags, part) in [
        (&["-DVERSION=7"][..], "uses version 7 of the interface, this server supports 1; build it with"),
        (&["-DSIZE=8"], "descriptor has 8 bytes"),
        (&["-DSYMBOL=other_name"], "does not export `snaphook_hook`"),
        (&["-DNO_DESCRIPTOR"], "returned no descriptor"),
        (&["-DWITHOUT_CHECK"], "`hostile` has no function `check`, which `preCreate` needs"),
        (&["-DNEEDS=not_there"], "cannot be loaded: it: undefined symbol: not_there"),
    ] {
        let Some(code) = hostile(flags) else { return };
        let message = refused(Phase::PreCreate, code).await;
        assert!(message.contains(part), "{flags:?}: {message}");
    }
}
