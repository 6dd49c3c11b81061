//! The host with an engine whose code is a word that says what the call does.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use snaphook_driver::Json;

use super::super::places::{Places, QUEUE_PER_CALL};
use super::{Artifacts, Binding, BoundHook, HookHost, Mode};
use crate::config::{Config, ConfigHandle, Phase};
use crate::hooks::context::{Context, Failure, FailureCause, FieldError, LogLevel, Outcome, Rejection, Retry};
use crate::hooks::engines::engine::{CallReport, CallSettings, Candidate, HookEngine, PrepareError, PreparedCode};
use crate::hooks::grants::HookId;
use crate::hooks::session::Session;
use crate::hooks::testing::{Bench, config_text, context};

#[derive(Default)]
struct Words {
    prepared: AtomicUsize,
    /// How often the cache was read.
    looked: AtomicUsize,
    /// Digests of words that begin with `compiled` and were prepared.
    compiled: Mutex<BTreeSet<String>>,
}

struct Word {
    text: String,
    gate: Arc<tokio::sync::Semaphore>,
}

#[async_trait]
impl HookEngine for Words {
    fn name(&self) -> &'static str {
        "words"
    }

    async fn prepare(&self, candidate: Candidate<'_>) -> Result<Arc<dyn PreparedCode>, PrepareError> {
        let code = candidate.code;
        self.prepared.fetch_add(1, Ordering::Relaxed);
        let text = String::from_utf8(code.to_vec()).unwrap();
        if text == "bad" {
            return Err(PrepareError { line: Some(1), column: Some(2), ..PrepareError::plain("not a word") });
        }
        assert!(text != "panic-early", "prepare panics");
        if text == "compiled-never" {
            return Err(PrepareError { repeats: true, ..PrepareError::plain("too new") });
        }
        if text.starts_with("compiled") {
            self.compiled.lock().unwrap().insert(digest(&text)["sha256:".len()..].to_owned());
        }
        if text == "compiled" && candidate.phase == Phase::PreDelete {
            return Err(PrepareError::plain("it has no handler for the phase"));
        }
        Ok(Arc::new(Word { text, gate: Arc::new(tokio::sync::Semaphore::new(0)) }))
    }

    fn uncompiled(&self, digests: &[&str]) -> Vec<Option<String>> {
        self.looked.fetch_add(1, Ordering::Relaxed);
        let compiled = self.compiled.lock().unwrap();
        let must = |code: &str| word(&format!("sha256:{code}")).starts_with("compiled") && !compiled.contains(code);
        digests.iter().map(|code| must(code).then(|| (*code).to_owned())).collect()
    }
}

#[async_trait]
impl PreparedCode for Word {
    async fn call(&self, _context: &Context, settings: &CallSettings, session: &Arc<Session>) -> CallReport {
        let reject = |message: String| Outcome::Reject(Rejection { message, fields: Vec::new() });
        let outcome = match self.text.as_str() {
            "accept" | "compiled" => Outcome::Accept,
            "amend" => Outcome::Amend(Json::trusted(r#"{"a":1}"#)),
            "amend-much" => Outcome::Amend(Json::trusted(format!("\"{}\"", "x".repeat(9 << 20)))),
            "reject" => reject("no".into()),
            "reject-fields" => {
                let field = FieldError { pointer: String::new(), message: String::new() };
                Outcome::Reject(Rejection { message: String::new(), fields: vec![field; 1_001] })
            }
            "fail-much" => {
                let message = "ü".repeat(1 << 20);
                Outcome::Failed(Failure { cause: FailureCause::Exception, message, limit: None })
            }
            "reject-much" => reject("x".repeat(1 << 20)),
            "log" => {
                session.log(LogLevel::Info, "seen".into()).unwrap();
                Outcome::Accept
            }
            "limits" => reject(format!("{:?}", settings.limits)),
            "wait" => {
                self.gate.acquire().await.unwrap().forget();
                Outcome::Accept
            }
            "panic" => panic!("the engine panics"),
            other => panic!("unknown word {other}"),
        };
        CallReport { outcome, cpu: Duration::ZERO, memory_bytes: 1 << 20, retry: Retry::Usual }
    }
}

/// Artifacts whose digest is their code, in hex and filled up.
struct Named;

fn digest(word: &str) -> String {
    let hex: String = word.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex:0<64}")
}

fn word(digest: &str) -> String {
    let hex = digest.strip_prefix("sha256:").unwrap().trim_end_matches("00");
    hex.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap() as char)
        .collect()
}

#[async_trait]
impl Artifacts for Named {
    async fn code(&self, artifact: &str) -> Result<Bytes, String> {
        let code = word(artifact);
        if code == "lost" { Err("no such artifact".into()) } else { Ok(code.into()) }
    }
}

struct Stage {
    host: Arc<HookHost>,
    engine: Arc<Words>,
    config: Arc<ConfigHandle>,
    directory: tempfile::TempDir,
}

impl Stage {
    fn new(toml: &str) -> Self {
        let engine = Arc::new(Words::default());
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config.toml");
        std::fs::write(&file, config_text(toml)).unwrap();
        let config = ConfigHandle::new(Config::load(Some(&file)).unwrap());
        let host = HookHost::new(vec![Arc::clone(&engine) as Arc<dyn HookEngine>], config.shared());
        host.attach_services(Bench::new().services(), Arc::new(Named));
        Stage { host: Arc::new(host), engine, config, directory }
    }

    /// Another configuration comes into force.
    fn reload(&self, toml: &str) {
        std::fs::write(self.directory.path().join("config.toml"), config_text(toml)).unwrap();
        self.config.reload(|_| Ok(())).unwrap();
    }

    fn bind(&self, phase: Phase, word: &str, mode: Mode) -> Arc<BoundHook> {
        let id = HookId { model: "invoice".into(), phase, name: "h".into(), artifact: digest(word) };
        let binding = Binding {
            id,
            engine: "words".into(),
            size: 1,
            mode,
            position: 1,
            library: None,
            language: None,
            as_actor: false,
            origin: crate::catalog::HookOrigin::Rest,
        };
        self.host.bind(binding, None)
    }

    async fn run(&self, phase: Phase, word: &str) -> Outcome {
        self.host.runs.run(&self.bind(phase, word, Mode::Enforce), &context("invoice", phase)).await.outcome
    }
}

#[track_caller]
fn cause(outcome: &Outcome) -> FailureCause {
    match outcome {
        Outcome::Failed(failure) => failure.cause,
        other => panic!("not a failure: {other:?}"),
    }
}

#[tokio::test]
async fn outcomes_and_their_limits() {
    let stage = Stage::new("");
    assert_eq!(stage.run(Phase::PreCreate, "accept").await, Outcome::Accept);
    assert!(matches!(stage.run(Phase::PreCreate, "reject").await, Outcome::Reject(_)));
    for (phase, word, expected) in [
        (Phase::PreCreate, "amend", FailureCause::Amend),
        (Phase::PreCreate, "reject-much", FailureCause::Output),
        (Phase::PreCreate, "reject-fields", FailureCause::Output),
        (Phase::PostCreate, "reject", FailureCause::Exception),
        (Phase::PreCreate, "panic", FailureCause::Internal),
        (Phase::PreCreate, "panic-early", FailureCause::Load),
        (Phase::PreCreate, "bad", FailureCause::Load),
        (Phase::PreCreate, "lost", FailureCause::Load),
    ] {
        assert_eq!(cause(&stage.run(phase, word).await), expected, "{word}");
    }
    match stage.run(Phase::PostCreate, "fail-much").await {
        Outcome::Failed(failure) => {
            assert!(failure.message.starts_with("üü"), "{:?}", failure.message.len());
            assert!(failure.message.len() < 4_200);
        }
        other => panic!("{other:?}"),
    }
    let stage = Stage::new("[[grants]]\nmodel = '*'\nphase = '*'\nhook = '*'\namend = true");
    assert!(matches!(stage.run(Phase::PreCreate, "amend").await, Outcome::Amend(_)));
    assert_eq!(cause(&stage.run(Phase::PreCreate, "amend-much").await), FailureCause::Output);
    assert_eq!(cause(&stage.run(Phase::PreDelete, "amend").await), FailureCause::Amend);
}

#[tokio::test]
async fn grants_follow_the_configuration() {
    let stage = Stage::new("");
    let hook = stage.bind(Phase::PreCreate, "amend", Mode::Enforce);
    let context = context("invoice", Phase::PreCreate);
    let Outcome::Failed(failure) = stage.host.runs.run(&hook, &context).await.outcome else { panic!() };
    let (_, lines) = failure.message.split_once(":\n").unwrap();
    stage.reload(lines);
    assert!(matches!(stage.host.runs.run(&hook, &context).await.outcome, Outcome::Amend(_)));
    stage.reload("");
    assert_eq!(cause(&stage.host.runs.run(&hook, &context).await.outcome), FailureCause::Amend);
}

#[tokio::test]
async fn grants_add_up_and_the_largest_limit_holds() {
    let stage = Stage::new(&format!(
        "[[grants]]\nmodel = 'inv*'\nphase = 'preCreate'\nhook = 'h'\nread = ['a']\ntimeout = '2 s'\n\
         [[grants]]\nmodel = '*'\nphase = ['preCreate', 'postCreate']\nhook = '{}'\nread = ['b', 'a']\n\
         timeout = '1 s'\nmemory = '32 MiB'\n\
         [[grants]]\nmodel = '*'\nphase = 'preCreate'\nhook = 'other'\nread = ['c']\n\
         [[grants]]\nmodel = '*'\nphase = 'preCreate'\nhook = '{}'\nread = ['c']\n\
         [[grants]]\nmodel = 'order'\nphase = 'preCreate'\nhook = '*'\nread = ['c']",
        digest("limits"),
        digest("other"),
    ));
    let Outcome::Reject(rejection) = stage.run(Phase::PreCreate, "limits").await else { panic!() };
    assert_eq!(rejection.message, "Limits { timeout: 2s, memory_bytes: 33554432 }");
    let info = stage.host.info(&stage.bind(Phase::PreCreate, "limits", Mode::Shadow));
    assert_eq!(
        serde_json::to_string(&info).unwrap(),
        format!(
            "{{\"name\":\"h\",\"engine\":\"words\",\"artifact\":\"{}\",\"size\":1,\"mode\":\"shadow\",\"grants\":\
             {{\"read\":[\"a\",\"b\"],\"timeout\":\"2 s\",\"memory\":\"32 MiB\"}},\"position\":1,\"origin\":\"rest\",\"state\":\"ok\"}}",
            digest("limits")
        )
    );
}

#[tokio::test]
async fn shadow_decides_nothing_but_is_counted_and_logged() {
    let stage = Stage::new("");
    let hook = stage.bind(Phase::PreCreate, "reject", Mode::Shadow);
    let run = stage.host.runs.run(&hook, &context("invoice", Phase::PreCreate)).await;
    assert_eq!(run.outcome, Outcome::Accept);
    assert_eq!(stage.host.stats(&hook)["shadow"]["refusals"], 1);
    assert_eq!(stage.host.stats(&hook)["refusals"], 0);
    let lines = stage.host.logs.phase("invoice", Phase::PreCreate).lines();
    assert_eq!(lines[0].message, "would reject: no");
}

#[tokio::test]
async fn the_log_of_the_phase_has_the_lines_of_its_runs() {
    let stage = Stage::new("");
    stage.run(Phase::PreCreate, "log").await;
    stage.run(Phase::PreCreate, "panic").await;
    let lines = stage.host.logs.phase("invoice", Phase::PreCreate).lines();
    assert_eq!((lines[0].message.as_str(), lines[0].instance.as_str()), ("seen", "i-1"));
    assert!(lines[1].message.starts_with("failed (internal): engine `words` failed: the engine panics"));
    assert!(stage.host.logs.phase("invoice", Phase::PostCreate).lines().is_empty());
}

#[tokio::test]
async fn the_same_code_is_prepared_once_while_it_is_used() {
    let stage = Stage::new("");
    let first = stage.host.code.prepare("words", candidate(b"accept", Phase::PreCreate, "h")).await.unwrap();
    let second = stage.host.code.prepare("words", candidate(b"accept", Phase::PreCreate, "h")).await.unwrap();
    assert!(Arc::ptr_eq(&first, &second));
    drop((first, second));
    stage.host.code.prepare("words", candidate(b"accept", Phase::PreCreate, "h")).await.unwrap();
    assert_eq!(stage.engine.prepared.load(Ordering::Relaxed), 2);
    let Err(error) = stage.host.code.prepare("swords", candidate(b"", Phase::PreCreate, "h")).await else { panic!() };
    assert_eq!(error.message, "no engine `swords` in this build; there are `words`");
}

#[tokio::test]
async fn code_that_cannot_load_is_not_tried_at_each_call() {
    let stage = Stage::new("");
    let hook = stage.bind(Phase::PreCreate, "bad", Mode::Enforce);
    let context = context("invoice", Phase::PreCreate);
    for _ in 0..10 {
        let Outcome::Failed(failure) = stage.host.runs.run(&hook, &context).await.outcome else { panic!() };
        assert_eq!(failure.message, "hook `invoice.preCreate/h` could not be loaded: not a word (line 1, column 2)");
    }
    assert_eq!(stage.engine.prepared.load(Ordering::Relaxed), 1);
}

/// Which hooks wait for the same compilation, by the words of their code.
fn groups(stage: &Stage, hooks: &[Arc<BoundHook>]) -> Vec<(String, usize)> {
    let groups = stage.host.runs.uncompiled(hooks.iter().cloned());
    groups.iter().map(|group| (word(&group[0].id().artifact), group.len())).collect()
}

#[tokio::test]
async fn code_is_compiled_once_for_all_hooks_that_run_it() {
    let stage = Stage::new("");
    let phases = [Phase::PreDelete, Phase::PreCreate, Phase::PreUpdate];
    let mut hooks: Vec<_> = phases.iter().map(|phase| stage.bind(*phase, "compiled", Mode::Enforce)).collect();
    hooks.push(stage.bind(Phase::PreCreate, "accept", Mode::Enforce));
    assert_eq!(groups(&stage, &hooks), [("compiled".to_owned(), 3)]);
    assert_eq!(stage.engine.looked.load(Ordering::Relaxed), 1);
    let group = stage.host.runs.uncompiled(hooks.iter().cloned()).remove(0);
    let failed = stage.host.runs.compile(&group).await;
    // The code is compiled; what is wrong with one hook says nothing about the others.
    assert_eq!(failed.len(), 1);
    assert!(Arc::ptr_eq(&failed[0].0, &hooks[0]), "{}", failed[0].1);
    assert_eq!(failed[0].1, "hook `invoice.preDelete/h` could not be loaded: it has no handler for the phase");
    assert_eq!(stage.engine.prepared.load(Ordering::Relaxed), 1);
    assert_eq!(groups(&stage, &hooks), []);
    let run = stage.host.runs.run(&hooks[1], &context("invoice", Phase::PreCreate)).await;
    assert_eq!(run.outcome, Outcome::Accept);
}

#[tokio::test]
async fn code_that_cannot_be_compiled_is_not_tried_again() {
    let stage = Stage::new("");
    let phases = [Phase::PreCreate, Phase::PreUpdate];
    let hooks = phases.map(|phase| stage.bind(phase, "compiled-never", Mode::Enforce));
    let group = stage.host.runs.uncompiled(hooks.iter().cloned()).remove(0);
    let failed = stage.host.runs.compile(&group).await;
    let messages: Vec<&str> = failed.iter().map(|(_, message)| message.as_str()).collect();
    let expected = phases.map(|phase| format!("hook `invoice.{phase}/h` could not be loaded: too new"));
    assert_eq!(messages, expected);
    for hook in &hooks {
        let code = hook.code.load_full();
        assert_eq!(code.lasting_failure().as_deref(), Some("too new"));
        assert_eq!(stage.host.info(hook).state, "unavailable");
        let run = stage.host.runs.run(hook, &context("invoice", hook.binding().id.phase)).await;
        let Outcome::Failed(failure) = run.outcome else { panic!("{run:?}") };
        assert!(expected.contains(&failure.message), "{}", failure.message);
    }
    assert_eq!(groups(&stage, &hooks), []);
    assert_eq!(stage.engine.prepared.load(Ordering::Relaxed), 1);
    // Somebody who binds it again wants to know.
    stage.host.runs.bound_anew(&hooks[0]);
    let _ = stage.host.runs.run(&hooks[0], &context("invoice", Phase::PreCreate)).await;
    assert_eq!(stage.engine.prepared.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn calls_beyond_the_queue_are_refused() {
    let stage = Stage::new("");
    stage.reload("[hooks]\nconcurrency = 2");
    let hook = stage.bind(Phase::PreCreate, "wait", Mode::Enforce);
    let mut calls: Vec<_> = (0..2 + 2 * QUEUE_PER_CALL)
        .map(|_| {
            let (host, hook) = (Arc::clone(&stage.host), Arc::clone(&hook));
            tokio::spawn(async move { host.runs.run(&hook, &context("invoice", Phase::PreCreate)).await.outcome })
        })
        .collect();
    while hook.places.waiting.load(Ordering::Relaxed) < 2 * QUEUE_PER_CALL {
        tokio::task::yield_now().await;
    }
    let run = stage.host.runs.run(&hook, &context("invoice", Phase::PreCreate)).await;
    assert_eq!(cause(&run.outcome), FailureCause::Overloaded);
    // A call that is given up leaves the queue.
    calls.pop().unwrap().abort();
    while hook.places.waiting.load(Ordering::Relaxed) == 2 * QUEUE_PER_CALL {
        tokio::task::yield_now().await;
    }
    for call in &calls {
        call.abort();
    }
    for call in calls {
        let _ = call.await;
    }
    assert_eq!(hook.places.semaphore.available_permits(), 2);
}

#[tokio::test]
async fn places_follow_the_configuration() {
    let places = Places::default();
    let held = places.take(3).await.unwrap();
    assert_eq!(places.semaphore.available_permits(), 2);
    let more = places.take(3).await.unwrap();
    places.resize(1);
    // Two are held, so only one could be given up.
    assert_eq!(places.count.load(Ordering::Relaxed), 2);
    drop((held, more));
    drop(places.take(1).await);
    assert_eq!(places.semaphore.available_permits(), 1);
    drop(places.take(5).await);
    assert_eq!(places.semaphore.available_permits(), 5);
}

fn candidate<'a>(code: &'a [u8], phase: Phase, name: &'a str) -> Candidate<'a> {
    Candidate { code, phase, name, language: None }
}
