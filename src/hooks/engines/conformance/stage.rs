//! Where a case runs: a hook host with one engine, a server's data in memory, an HTTP server to talk to.

use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use snaphook_driver::limits::NESTING_MAX;
use snaphook_driver::{Actor, ActorKind, Json, PAYLOAD_BYTES_MAX};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Mutex;

use super::cases::{DEEP, Expected, LARGE, Row};
use super::subject::{Subject, Task};
use crate::config::{Config, Isolation, Phase};
use crate::hooks::context::{Context, LogLevel, Outcome, Run};
use crate::hooks::engines::engine::{Candidate, HookEngine};
use crate::hooks::grants::HookId;
use crate::hooks::host::{Artifacts, Binding, BoundHook, HookHost, Mode};
use crate::hooks::testing::{self, Bench};

pub(super) struct Stage {
    pub(super) host: HookHost,
    engine: &'static str,
    config: Arc<ArcSwap<Config>>,
    /// Of the HTTP server.
    url: String,
    /// A program without symbolic links on its path, as a grant must name it.
    cat: String,
}

impl Stage {
    pub(super) async fn new(engine: Arc<dyn HookEngine>) -> Self {
        let config = Arc::new(ArcSwap::from_pointee(testing::config("")));
        let name = engine.name();
        let host = HookHost::new(vec![engine], Arc::clone(&config));
        let bench = Bench::new().with_instance("item", "1", r#"{"a":1}"#).with_instance("item", "2", r#"{"a":2}"#);
        host.attach_services(bench.with_secret("key", b"hush").services(), Arc::new(Nothing));
        let cat = std::fs::canonicalize("/bin/cat").unwrap_or_default().to_string_lossy().into_owned();
        Stage { host, engine: name, config, url: echo().await, cat }
    }

    /// A hook for the task, ready to run.
    pub(super) async fn bind(&self, subject: &Subject, task: Task, phase: Phase) -> Result<Arc<BoundHook>, String> {
        // Compiling takes all cores: two tests that compile the same artifact at once would only do it twice.
        static PREPARE: Mutex<()> = Mutex::const_new(());
        let code = (subject.hook)(task)?;
        let prepared = {
            let _turn = PREPARE.lock().await;
            self.host
                .code
                .prepare(self.engine, Candidate { code: &code, phase, name: "test", language: None })
                .await
                .map_err(|error| error.to_string())?
        };
        let id = HookId { model: "item".into(), phase, name: "test".into(), artifact: "sha256:00".into() };
        let binding = Binding {
            id,
            engine: self.engine.into(),
            size: code.len() as u64,
            mode: Mode::Enforce,
            position: 1,
            library: None,
            language: None,
            as_actor: false,
            origin: crate::catalog::HookOrigin::Rest,
        };
        Ok(self.host.bind(binding, Some(prepared)))
    }

    /// What the hook may do from now on.
    pub(super) fn grant(&self, lines: &str, timeout: &str, memory: &str, isolation: Isolation) {
        let isolation = if isolation == Isolation::Reuse { "reuse" } else { "call" };
        let config = testing::config(&format!(
            "[hooks]\nisolation = '{isolation}'\nconcurrency = 64\n\
             [[grants]]\nmodel = '*'\nphase = '*'\nhook = '*'\ntimeout = '{timeout}'\nmemory = '{memory}'\n{}",
            self.filled(lines)
        ));
        self.config.store(Arc::new(config));
    }

    pub(super) fn context(&self, task: Task, phase: Phase, id: &str, after: &str) -> Context {
        let mut context = testing::context("item", phase);
        context.actor = Some(Arc::new(Actor::new(ActorKind::Token, task.word())));
        context.instance = self.filled(id);
        context.after = Some(Json::trusted(after));
        context
    }

    fn filled(&self, text: &str) -> String {
        text.replace("{url}", &self.url).replace("{cat}", &self.cat)
    }

    /// Runs one case; the error says what came of it instead.
    pub(super) async fn check(&self, subject: &Subject, row: &Row) -> Result<(), String> {
        let hook = self.bind(subject, row.task, row.phase).await?;
        self.grant(row.grants, row.timeout, row.memory, Isolation::Call);
        let after = row.after.map(|after| match after {
            LARGE => large(),
            DEEP => deep(),
            text => text.to_owned(),
        });
        let mut context = self.context(row.task, row.phase, row.id, "");
        context.before = row.before.map(Json::trusted);
        context.after = after.as_deref().map(Json::trusted);
        let run = self.host.runs.run(&hook, &context).await;
        let fits = is_expected(&row.expected, &run, after.as_deref());
        fits.then_some(()).ok_or_else(|| shown(&run))
    }
}

fn is_expected(expected: &Expected, run: &Run, after: Option<&str>) -> bool {
    let accepted = run.outcome == Outcome::Accept;
    let lines = || run.log.iter().map(|line| line.message.as_str());
    match (expected, &run.outcome) {
        (Expected::Accept, Outcome::Accept) => true,
        (Expected::Amend(data), Outcome::Amend(amended)) => same_json(amended, data),
        (Expected::Added, Outcome::Amend(amended)) => {
            let whole = after.unwrap_or_default().trim_end();
            same_json(amended, &format!("{},\"x\":1}}", &whole[..whole.len() - 1]))
        }
        (Expected::Reject(message, fields), Outcome::Reject(rejection)) => {
            let found = rejection.fields.iter().map(|field| (field.pointer.as_str(), field.message.as_str()));
            rejection.message == *message && found.eq(fields.iter().copied())
        }
        (Expected::Failed(causes, part), Outcome::Failed(failure)) => {
            causes.contains(&failure.cause) && failure.message.contains(part)
        }
        (Expected::Limit(cause, limit), Outcome::Failed(failure)) => {
            failure.cause == *cause && failure.limit.as_deref() == Some(limit)
        }
        (Expected::Log(expected), _) => accepted && lines().eq(expected.iter().copied()),
        (Expected::Levels(expected), _) => {
            let found = run.log.iter().map(|line| (line.level, line.message.as_str()));
            accepted && found.eq(expected.iter().copied())
        }
        (Expected::Refused(code), _) => accepted && lines().any(|line| line == *code),
        (Expected::Denied(words), _) => {
            // The session's own line is for whoever grants; the two that the hook wrote show that it could go on.
            let told = run.log.iter().any(|line| line.level == LogLevel::Warn && line.message.contains(words));
            accepted && told && lines().any(|line| line == "denied") && run.asked.iter().any(|asked| !asked.granted)
        }
        _ => false,
    }
}

/// Compared as values, whatever the order of members and the spacing; numbers digit for digit.
pub(super) fn same_json(found: &Json, expected: &str) -> bool {
    let found = snaphook_driver::json::parse(found);
    let expected = snaphook_driver::json::parse(expected).unwrap_or_else(|error| panic!("{error}"));
    found.is_ok_and(|found| found == expected)
}

fn shown(run: &Run) -> String {
    let log: Vec<String> =
        run.log.iter().take(12).map(|line| format!("{} {}", line.level.as_str(), line.message)).collect();
    let outcome = format!("{:?}", run.outcome);
    let short: String = outcome.chars().take(600).collect();
    format!("{short}, log {log:#?}")
}

/// As large as data may be, less what the tasks add.
fn large() -> String {
    let mut text = String::with_capacity(PAYLOAD_BYTES_MAX);
    text.push_str(r#"{"long":""#);
    text.extend(std::iter::repeat_n("äb😀 ", 400_000));
    text.push_str(r#"","list":["#);
    let mut index = 0;
    while text.len() < PAYLOAD_BYTES_MAX - 1200 {
        text.push_str(&format!(r#"{{"n":{index},"text":"{:0>1000}"}},"#, index));
        index += 1;
    }
    text.push_str("null]}");
    text
}

/// As deep as data may be.
fn deep() -> String {
    let pairs = NESTING_MAX / 2;
    format!("{}{}", r#"{"d":["#.repeat(pairs), "]}".repeat(pairs))
}

/// Answers each request with its method, path, header `x-a` and body.
async fn echo() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\nhi") {
                    let mut buffer = [0; 4096];
                    match stream.read(&mut buffer).await {
                        Ok(0) | Err(_) => return,
                        Ok(count) => request.extend_from_slice(&buffer[..count]),
                    }
                }
                let request = String::from_utf8_lossy(&request).into_owned();
                let mut words = request.split(' ');
                let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
                let header =
                    request.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("x-a: ").map(str::to_owned));
                let body = format!("{method} {path} {} hi", header.unwrap_or_default());
                let head =
                    format!("HTTP/1.1 201 Created\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
                let _ = stream.write_all((head + &body).as_bytes()).await;
            });
        }
    });
    url
}

/// All hooks of the suite are bound ready.
struct Nothing;

#[async_trait]
impl Artifacts for Nothing {
    async fn code(&self, artifact: &str) -> Result<Bytes, String> {
        Err(format!("no artifact `{artifact}`"))
    }
}
