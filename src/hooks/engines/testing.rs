//! What the tests of the engines share: prepare code, call it once, look at the report.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use snaphook_driver::{Actor, ActorKind, Json};

use super::engine::{CallReport, CallSettings, Candidate, HookEngine, PrepareError, PreparedCode};
use crate::catalog::SourceLanguage;
use crate::config::{Isolation, Limits, Phase};
use crate::hooks::context::{Context, Failure, LogLine, Outcome};
use crate::hooks::session::Session;
use crate::hooks::testing::{self, Bench};

/// Compiled code outlives a run of the tests: making the runner takes seconds.
pub(super) fn cache() -> PathBuf {
    target().join("tmp/engines")
}

/// The target folder: the tests' binary is in `target/debug/deps`.
fn target() -> PathBuf {
    std::env::current_exe().unwrap().ancestors().nth(3).unwrap().to_owned()
}

/// A guest that `cargo xtask guests` built; the error says that it did not.
pub(super) fn guest_file(name: &str) -> Result<Vec<u8>, String> {
    let beside = || target().join("guests");
    let path = std::env::var_os("SNAPHOOK_GUESTS").map_or_else(beside, PathBuf::from).join(name);
    std::fs::read(&path).map_err(|error| format!("{}: {error}; `cargo xtask guests` builds it", path.display()))
}

/// One engine with what a call of it gets; each test states what differs.
pub(super) struct Case {
    pub(super) engine: Arc<dyn HookEngine>,
    pub(super) phase: Phase,
    pub(super) language: Option<SourceLanguage>,
    pub(super) before: Option<&'static str>,
    pub(super) after: Option<&'static str>,
    /// Its id.
    pub(super) actor: Option<&'static str>,
    pub(super) grants: &'static str,
    pub(super) settings: CallSettings,
    pub(super) bench: Bench,
}

/// A finished call.
pub(super) struct Called {
    pub(super) report: CallReport,
    pub(super) log: Vec<LogLine>,
}

impl Case {
    pub(super) fn new(engine: Arc<dyn HookEngine>, phase: Phase) -> Self {
        Case {
            engine,
            phase,
            language: None,
            before: None,
            after: Some("{}"),
            actor: None,
            grants: "",
            settings: CallSettings {
                limits: Limits { timeout: Duration::from_millis(2_000), memory_bytes: 64 << 20 },
                isolation: Isolation::Call,
            },
            bench: Bench::new(),
        }
    }

    pub(super) async fn prepare(&self, code: &[u8]) -> Result<Arc<dyn PreparedCode>, PrepareError> {
        self.engine.prepare(Candidate { code, phase: self.phase, name: "test", language: self.language }).await
    }

    pub(super) fn context(&self) -> Context {
        let mut context = testing::context("item", self.phase);
        context.before = self.before.map(Json::trusted);
        context.after = self.after.map(Json::trusted);
        context.actor = self.actor.map(|id| Arc::new(Actor::new(ActorKind::Token, id)));
        context
    }

    pub(super) fn session(&self) -> Arc<Session> {
        self.bench.session("item", self.phase, "test", self.grants)
    }

    pub(super) async fn call(&self, prepared: &dyn PreparedCode) -> Called {
        let session = self.session();
        let report = prepared.call(&self.context(), &self.settings, &session).await;
        Called { report, log: session.finish().0 }
    }

    /// Prepares and calls once.
    pub(super) async fn run(&self, code: &[u8]) -> Called {
        let prepared = self.prepare(code).await.unwrap_or_else(|error| panic!("{error:?}"));
        self.call(&*prepared).await
    }
}

impl Called {
    #[track_caller]
    pub(super) fn amended(&self) -> &str {
        match &self.report.outcome {
            Outcome::Amend(data) => data,
            other => panic!("expected amended data, got {other:?}"),
        }
    }

    #[track_caller]
    pub(super) fn failure(&self) -> &Failure {
        match &self.report.outcome {
            Outcome::Failed(failure) => failure,
            other => panic!("expected a failure, got {other:?}"),
        }
    }

    pub(super) fn lines(&self) -> Vec<String> {
        self.log.iter().map(|line| line.message.clone()).collect()
    }
}
