//! What a subprocess does when the code is not what its author would write.

use super::*;
use crate::config::Phase;
use crate::hooks::engines::engine::PrepareErrorKind;

/// This test is the worker, when another test starts it as one.
pub(super) const WORKER_TEST: &str = "hooks::engines::subprocess::tests::worker_process";
pub(super) const WORKER: &str = "SNAPHOOK_WORKER";

#[test]
fn worker_process() {
    if std::env::var_os(WORKER).is_some() {
        worker::serve();
    }
}

async fn parse(source: &str) -> Result<Vec<u8>, PrepareError> {
    run(Job::Parse { phase: Phase::PreCreate, language: None }, source.as_bytes()).await
}

#[tokio::test]
async fn a_source_comes_back_parsed_or_refused_with_its_place() {
    let parsed = parse("export default () => {}").await.unwrap();
    assert!(String::from_utf8(parsed).unwrap().contains("$default"));
    let error = parse("export default () => {\n  let = 1 2\n}").await.unwrap_err();
    assert_eq!((error.kind, error.line), (PrepareErrorKind::Invalid, Some(2)), "{error}");
}

#[tokio::test]
async fn nesting_without_an_end_is_too_complex() {
    for source in [
        format!("export default {}1", "!".repeat(900_000)),
        format!("export default {}1", "a=>".repeat(300_000)),
        format!("export default {}1", "a?b:".repeat(200_000)),
        format!("export default {}1", "new ".repeat(200_000)),
        format!("export default () => {{ let x: {} }}", "A<".repeat(300_000)),
    ] {
        let error = parse(&source).await.unwrap_err();
        assert_eq!(error.kind, PrepareErrorKind::TooComplex, "{source:.30}: {error}");
    }
}
