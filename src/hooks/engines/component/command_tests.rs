//! Commands: what a module for WASI preview 1 in C gets, says and must not have. Javy's modules run the suite: tests.rs.

use super::*;
use crate::hooks::context::{FailureCause, Rejection};
use crate::hooks::engines::testing::{Called, Case, cache, guest_file};
use crate::hooks::testing::skip;

/// A call of the command in C with a word that says what to do; `None` if it was not built.
async fn command(phase: Phase, word: &'static str) -> Option<Called> {
    let code = guest_file("command_c.wasm").map_err(|reason| skip("a command in C", &reason)).ok()?;
    let mut case = Case::new(Arc::new(ComponentEngine::new(CodeCache::new(&cache()))), phase);
    case.after = Some(r#"{"n":9007199254740993.1}"#);
    case.actor = Some(word);
    Some(case.run(&code).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_in_c_decides() {
    let Some(accepted) = command(Phase::PreCreate, "accept").await else { return };
    assert_eq!(accepted.report.outcome, Outcome::Accept);
    let [line] = &accepted.lines()[..] else { panic!("{:?}", accepted.lines()) };
    assert!(line.ends_with(" bytes of context"), "{line}");
    let amended = command(Phase::PreCreate, "amend").await.unwrap();
    assert_eq!(amended.amended(), r#"{"n":9007199254740993.10}"#);
    let Outcome::Reject(Rejection { message, fields }) =
        command(Phase::PreCreate, "reject").await.unwrap().report.outcome
    else {
        panic!("not refused");
    };
    assert_eq!((message.as_str(), fields[0].pointer.as_str(), fields[0].message.as_str()), ("no", "/a", "bad"));
    // `exit(0)` is an end like any other.
    assert_eq!(command(Phase::PreCreate, "zero").await.unwrap().report.outcome, Outcome::Accept);
}

#[tokio::test(flavor = "multi_thread")]
async fn how_a_command_fails() {
    let Some(ended) = command(Phase::PreCreate, "exit").await else { return };
    assert_eq!(ended.failure().cause, FailureCause::Exception);
    let message = &ended.failure().message;
    assert!(
        message.starts_with("the command ended with an exit code that is not 0: ") && message.ends_with("the reason"),
        "{message}"
    );
    assert_eq!(ended.lines().last().unwrap(), "the reason", "an unfinished line is a line too");
    let silent = command(Phase::PreCreate, "nothing").await.unwrap();
    assert!(silent.failure().message.contains("wrote nothing"), "{}", silent.failure().message);
    assert_eq!(command(Phase::PostCreate, "nothing").await.unwrap().report.outcome, Outcome::Accept);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_has_no_files_arguments_and_environment() {
    let Some(looked) = command(Phase::PreCreate, "look").await else { return };
    let Outcome::Reject(rejection) = looked.report.outcome else { panic!("{:?}", looked.report.outcome) };
    assert_eq!(rejection.message, "0 arguments, no environment, no file, nothing made");
}
