//! Webhooks of a session: what they need, and names that lead where none may go. The rest is seen from outside.

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use snaphook_driver::{EventKind, Stream};
use snaphook_driver_testkit::sample;

use super::*;
use crate::config::{Isolation, Phase};
use crate::hooks::context::EventRef;
use crate::hooks::engines::limits::CHECK_LIMITS;
use crate::hooks::testing::{Bench, context};

const SETTINGS: CallSettings = CallSettings { limits: CHECK_LIMITS, isolation: Isolation::Call };

async fn prepare(phase: Phase, code: &[u8]) -> Result<Arc<dyn PreparedCode>, PrepareError> {
    WebhookEngine::default().prepare(Candidate { code, phase, name: "send", language: None }).await
}

async fn call(hook: &dyn PreparedCode, session: &Arc<Session>) -> CallReport {
    let event = sample::event(EventKind::InstanceCreated, &Stream::of_instance("order", "o-1"), Some("{}"));
    let event = EventRef { position: 7, id: event.id.clone(), record: Some(Arc::new(event)) };
    let context = Context { event: Some(event), attempt: 2, ..context("order", Phase::PostCreate) };
    hook.call(&context, &SETTINGS, session).await
}

#[track_caller]
fn failure(report: CallReport) -> String {
    match report.outcome {
        Outcome::Failed(failure) => failure.message,
        other => panic!("not a failure: {other:?}"),
    }
}

fn webhook(url: &str) -> Vec<u8> {
    Webhook { url: url.to_owned(), secret: "key".to_owned() }.code()
}

fn key() -> String {
    format!("whsec_{}", BASE64_STANDARD.encode([1; 32]))
}

#[tokio::test]
async fn what_cannot_work_is_not_bound() {
    for (phase, code, expected) in [
        (Phase::PreCreate, webhook("https://example.com/"), "bind it to `postCreate`"),
        (Phase::PostCreate, b"export default () => {}".to_vec(), "runs no code"),
        (Phase::PostCreate, webhook("https://example.com/a/%2e%2e%2fb"), "`url`: the path"),
        (Phase::PostCreate, webhook("gopher://example.com/"), "expected `https://`"),
    ] {
        let error = prepare(phase, &code).await.map(drop).unwrap_err();
        assert!(error.message.contains(expected), "{}", error.message);
    }
}

#[tokio::test]
async fn one_message_names_all_that_is_missing_and_its_lines_open_it() {
    let bench = Bench::new().with_names(&[("hooks.example.com", "93.184.215.14")]).with_secret("key", b"hunter2");
    let hook = prepare(Phase::PostCreate, &webhook("https://hooks.example.com/in?token=t")).await.unwrap();
    let session = bench.session_of("", "order", Phase::PostCreate, "send");
    let message = failure(call(&*hook, &session).await);
    let expected = "event 7, attempt 2: hook `order.postCreate/send` asked for http POST to `https://hooks.example.com/in` and \
                    secret `key`, which no grant opens; to allow it, add to config.toml:\n[[grants]]\nmodel = 'order'\n\
                    phase = 'postCreate'\nhook = 'send'\nhttp = ['POST https://hooks.example.com/in']\nsecret = ['key']";
    assert_eq!(message, expected);
    assert_eq!(bench.access.secret_reads(), 0);
    // Past the grants, it is the key that is wrong.
    let session = bench.session_after(&message, "order", Phase::PostCreate, "send");
    let message = failure(call(&*hook, &session).await);
    assert!(message.contains("secret `key` is not a webhook key: a key does not begin"), "{message}");
    assert!(!message.contains("hunter2"), "{message}");
    for (lines, missing) in [
        ("http = ['POST https://hooks.example.com/*']", "asked for secret `key`, which"),
        ("secret = ['k*']", "asked for http POST to `https://hooks.example.com/in`, which"),
        ("secret = ['k*']\nhttp = ['GET https://hooks.example.com/*']", "asked for http POST to"),
        ("secret = ['k*']\nhttp = ['https://hooks.example.com.evil.org/*']", "asked for http POST to"),
    ] {
        let message = failure(call(&*hook, &bench.session("order", Phase::PostCreate, "send", lines)).await);
        assert!(message.contains(missing), "{message}");
    }
}

#[tokio::test]
async fn names_that_lead_to_addresses_that_are_not_public() {
    let bench = Bench::new()
        .with_names(&[
            ("in.example.com", "127.0.0.1"),
            ("lan.example.com", "10.1.2.3"),
            ("meta.example.com", "169.254.169.254"),
        ])
        .with_secret("key", key().as_bytes());
    let session =
        bench.session("order", Phase::PostCreate, "send", "http = ['http://*.example.com:*/*']\nsecret = ['key']");
    for (url, address) in [
        ("http://in.example.com:9/", "127.0.0.1, a loopback"),
        ("http://lan.example.com/", "10.1.2.3, a private"),
        ("http://meta.example.com/latest", "169.254.169.254, a cloud metadata"),
    ] {
        let hook = prepare(Phase::PostCreate, &webhook(url)).await.unwrap();
        let report = call(&*hook, &session).await;
        assert_eq!(report.retry, Retry::Usual);
        let message = failure(report);
        assert!(
            message.contains(&format!("resolves to {address} address")) && message.contains("[[grants]]"),
            "{message}"
        );
    }
}
