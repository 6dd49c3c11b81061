//! The cases that every engine must pass. An engine brings a hook for each [`Task`] in its own language; what must come
//! of it stands here, once.

use std::sync::Arc;
use std::time::Duration;

use super::Engine;
use super::testing::{Called, Case};
use crate::config::{Isolation, Phase};
use crate::hooks::context::{FailureCause, Outcome};

/// What a hook is to do. All but [`Task::Fail`] are for `preCreate`.
#[derive(Clone, Copy, Debug)]
pub(super) enum Task {
    Accept,
    /// Gives back `{"n":1}`.
    Amend,
    /// Refuses with `no`, and `bad` for the field `/a`.
    Reject,
    /// After a creation: fails with `oops`.
    Fail,
    /// Logs the data of `item/1`, or the code and then the message of the refusal.
    Read,
    /// Gives back `{"n":N}` at the Nth call of its sandbox; the third never ends.
    Count,
    Loop,
    /// Takes memory without end.
    Grow,
    Recurse,
    /// Gives back more than 16 MiB.
    Flood,
    /// Logs without end.
    Talk,
    /// Reads without end, whatever comes of it.
    Ask,
}

/// An engine under test.
pub(super) struct Subject {
    pub(super) engine: fn() -> Arc<dyn Engine>,
    pub(super) hook: fn(Task) -> Vec<u8>,
}

/// A test for each case.
macro_rules! conformance {
    ($subject:expr) => {
        mod conformance {
            #[allow(unused_imports, reason = "the subject may be named from the parent module")]
            use super::*;

            crate::hooks::engines::conformance::conformance!(
                $subject; decides, reads_what_is_granted, ends_at_each_limit, remembers_only_if_it_may
            );
        }
    };
    ($subject:expr; $($case:ident),*) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                crate::hooks::engines::conformance::$case(&$subject).await;
            }
        )*
    };
}
pub(super) use conformance;

impl Subject {
    fn case(&self, phase: Phase) -> Case {
        Case::new((self.engine)(), phase)
    }

    async fn pre(&self, task: Task) -> Called {
        self.case(Phase::PreCreate).run(&(self.hook)(task)).await
    }
}

pub(super) async fn decides(subject: &Subject) {
    assert_eq!(subject.pre(Task::Accept).await.report.outcome, Outcome::Accept);
    assert_eq!(subject.pre(Task::Amend).await.amended(), r#"{"n":1}"#);
    match subject.pre(Task::Reject).await.report.outcome {
        Outcome::Reject(rejection) => {
            assert_eq!(rejection.message, "no");
            let fields = rejection.fields.iter().map(|field| (field.pointer.as_str(), field.message.as_str()));
            assert_eq!(fields.collect::<Vec<_>>(), [("/a", "bad")]);
        }
        other => panic!("{other:?}"),
    }
    let failed = subject.case(Phase::PostCreate).run(&(subject.hook)(Task::Fail)).await;
    let failure = failed.failure();
    assert_eq!((failure.cause, failure.message.contains("oops")), (FailureCause::Exception, true), "{failure:?}");
}

pub(super) async fn reads_what_is_granted(subject: &Subject) {
    let mut case = subject.case(Phase::PreCreate);
    case.bench = case.bench.with_instance("item", "1", r#"{"a":1}"#);
    case.grants = "read = ['item']";
    assert_eq!(case.run(&(subject.hook)(Task::Read)).await.lines(), [r#"{"a":1}"#]);
    for grants in ["", "read = ['other']"] {
        case.grants = grants;
        let called = case.run(&(subject.hook)(Task::Read)).await;
        let lines = called.lines();
        assert!(lines.contains(&"denied".to_owned()), "{lines:?}");
        assert!(lines.iter().any(|line| line.contains("read = ['item']")), "{lines:?}");
    }
}

pub(super) async fn ends_at_each_limit(subject: &Subject) {
    for (task, cause, limit) in [
        (Task::Loop, FailureCause::Timeout, "timeout 300 ms"),
        (Task::Grow, FailureCause::Memory, "memory 64 MiB"),
        (Task::Recurse, FailureCause::Stack, "stack 1 MiB"),
        (Task::Flood, FailureCause::Output, "output 16 MiB"),
        (Task::Talk, FailureCause::Output, "log 1000 lines"),
        (Task::Ask, FailureCause::HostCalls, "host calls 10000"),
    ] {
        let mut case = subject.case(Phase::PreCreate);
        case.grants = "read = ['*']";
        // All but the loop end by themselves, on a busy machine too.
        let is_loop = matches!(task, Task::Loop);
        case.settings.limits.timeout = Duration::from_millis(if is_loop { 300 } else { 30_000 });
        if matches!(task, Task::Flood) {
            case.settings.limits.memory_bytes = 1 << 30;
        }
        let called = case.run(&(subject.hook)(task)).await;
        let failure = called.failure();
        assert_eq!(failure.cause, cause, "{task:?}: {}", failure.message);
        assert_eq!(failure.limit.as_deref(), Some(limit), "{task:?}: {}", failure.message);
        if matches!(task, Task::Talk) {
            assert_eq!(called.log.len(), 1000);
        }
    }
}

pub(super) async fn remembers_only_if_it_may(subject: &Subject) {
    let mut case = subject.case(Phase::PreCreate);
    case.settings.limits.timeout = Duration::from_secs(1);
    let hook = case.prepare(&(subject.hook)(Task::Count)).await.unwrap_or_else(|error| panic!("{error:?}"));
    for _ in 0..3 {
        assert_eq!(case.call(&*hook).await.amended(), r#"{"n":1}"#);
    }
    case.settings.isolation = Isolation::Reuse;
    assert_eq!(case.call(&*hook).await.amended(), r#"{"n":1}"#);
    assert_eq!(case.call(&*hook).await.amended(), r#"{"n":2}"#);
    assert_eq!(case.call(&*hook).await.failure().cause, FailureCause::Timeout);
    // A sandbox that was ended is never used again.
    assert_eq!(case.call(&*hook).await.amended(), r#"{"n":1}"#);
}
