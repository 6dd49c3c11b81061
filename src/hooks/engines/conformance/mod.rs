//! One suite for every engine: the same table of cases (cases.rs), the same outcomes, whatever runs the code.
//!
//! A [`Subject`] is an engine with a hook for each [`Task`] in one language. A hook that is one artifact for all tasks
//! (a component, a library) finds the word of its task in the context's `actor`, and what the task needs beside the data
//! in the context's `id`. Each case goes the way of a real call: configuration, hook host, engine, session.
//!
//! A subject names the cases that cannot apply to it, with the reason, which is printed. One whose engine or hook is not
//! there is skipped, visibly; with `CI=true` that is a failure.

mod cases;
pub(super) mod javascript;
mod stage;
mod subject;

use std::sync::Arc;

use self::cases::{CAPABILITIES, DATA, LIMITS, Row, VERDICTS};
use self::stage::Stage;
pub(super) use self::subject::{Subject, Task};
use crate::config::{Isolation, Phase};
use crate::hooks::context::{FailureCause, Outcome};
use crate::hooks::testing::{say, skip};

/// A test for each group of cases, in a module of that name.
macro_rules! conformance {
    ($module:ident, $subject:expr) => {
        mod $module {
            #[allow(unused_imports, reason = "the subject may be named from the parent module")]
            use super::*;

            crate::hooks::engines::conformance::conformance!(
                $subject; verdicts, capabilities, limits, data, concurrency, state
            );
        }
    };
    ($subject:expr; $($group:ident),*) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $group() {
                crate::hooks::engines::conformance::$group(&$subject).await;
            }
        )*
    };
}
pub(super) use conformance;

pub(super) async fn verdicts(subject: &Subject) {
    table(subject, VERDICTS).await;
}

pub(super) async fn capabilities(subject: &Subject) {
    table(subject, CAPABILITIES).await;
}

pub(super) async fn limits(subject: &Subject) {
    table(subject, LIMITS).await;
}

pub(super) async fn data(subject: &Subject) {
    table(subject, DATA).await;
}

/// 64 calls of one hook at once: each gets the answer to its own data.
pub(super) async fn concurrency(subject: &Subject) {
    const NAME: &str = "concurrency";
    let Some(stage) = subject.stage(&[NAME]).await else { return };
    let stage = Arc::new(stage);
    let hook = stage.bind(subject, Task::Add, Phase::PreCreate).await.unwrap_or_else(|error| panic!("{error}"));
    stage.grant("amend = true", "60 s", "64 MiB", Isolation::Call);
    let calls = (0..64).map(|index| {
        let (stage, hook) = (Arc::clone(&stage), Arc::clone(&hook));
        tokio::spawn(async move {
            let context =
                stage.context(Task::Add, Phase::PreCreate, &format!("i-{index}"), &format!(r#"{{"n":{index}}}"#));
            (index, stage.host.runs.run(&hook, &context).await.outcome)
        })
    });
    for call in calls.collect::<Vec<_>>() {
        let (index, outcome) = call.await.unwrap();
        let Outcome::Amend(data) = &outcome else { panic!("{}: call {index}: {outcome:?}", subject.name) };
        assert!(
            stage::same_json(data, &format!(r#"{{"n":{index},"x":1}}"#)),
            "{}: call {index}: {data:?}",
            subject.name
        );
    }
}

/// What a call leaves in its sandbox reaches the next one only with `isolation = 'reuse'`.
pub(super) async fn state(subject: &Subject) {
    let Some(stage) = subject.stage(&["state/call", "state/reuse"]).await else { return };
    let hook = stage.bind(subject, Task::Count, Phase::PreCreate).await.unwrap_or_else(|error| panic!("{error}"));
    let context = stage.context(Task::Count, Phase::PreCreate, "i-1", "{}");
    let count = async || match stage.host.runs.run(&hook, &context).await.outcome {
        Outcome::Amend(data) => data.as_str().replace(' ', ""),
        Outcome::Failed(failure) => failure.cause.as_str().to_owned(),
        other => format!("{other:?}"),
    };
    if subject.applies("state/call") {
        stage.grant("amend = true", "30 s", "64 MiB", Isolation::Call);
        for _ in 0..3 {
            assert_eq!(count().await, r#"{"n":1}"#, "{}", subject.name);
        }
    }
    if subject.applies("state/reuse") {
        stage.grant("amend = true", "2 s", "64 MiB", Isolation::Reuse);
        let timeout = FailureCause::Timeout.as_str();
        // What was ended is never used again.
        for expected in [r#"{"n":1}"#, r#"{"n":2}"#, timeout, r#"{"n":1}"#] {
            assert_eq!(count().await, expected, "{}", subject.name);
        }
    }
}

/// Runs all rows and tells of all that failed.
async fn table(subject: &Subject, rows: &[Row]) {
    subject.check_names();
    let names: Vec<&str> = rows.iter().map(|row| row.name).collect();
    let Some(stage) = subject.stage(&names).await else { return };
    let mut wrong = Vec::new();
    for row in rows.iter().filter(|row| subject.applies(row.name)) {
        if let Err(message) = stage.check(subject, row).await {
            wrong.push(format!("{}: {message}", row.name));
        }
    }
    assert!(wrong.is_empty(), "{}: {} of {} cases\n{}", subject.name, wrong.len(), rows.len(), wrong.join("\n"));
}

impl Subject {
    /// Where its hooks run; `None` if they cannot, or if none of `cases` applies.
    async fn stage(&self, cases: &[&str]) -> Option<Stage> {
        for case in cases {
            if let Some(reason) = self.reason(case) {
                say(&format!("{}: `{case}` does not apply: {reason}", self.name));
            }
        }
        if !cases.iter().any(|case| self.applies(case)) {
            return None;
        }
        let engine = match (self.engine)().and_then(|engine| (self.hook)(Task::Accept).map(|_| engine)) {
            Ok(engine) => engine,
            Err(reason) => {
                skip(self.name, &reason);
                return None;
            }
        };
        Some(Stage::new(engine).await)
    }

    fn applies(&self, case: &str) -> bool {
        self.reason(case).is_none()
    }

    fn reason(&self, case: &str) -> Option<&'static str> {
        self.without.iter().find(|(pattern, _)| fits(pattern, case)).map(|(_, reason)| *reason)
    }

    fn check_names(&self) {
        let rows = [VERDICTS, CAPABILITIES, LIMITS, DATA].into_iter().flatten().map(|row| row.name);
        let all: Vec<&str> = rows.chain(["concurrency", "state/call", "state/reuse"]).collect();
        for (pattern, _) in self.without {
            assert!(all.iter().any(|case| fits(pattern, case)), "{}: no case `{pattern}`", self.name);
        }
    }
}

fn fits(pattern: &str, case: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == case, |start| case.starts_with(start))
}
