//! `/healthz`, `/readyz`, `/metrics`: for the machinery that runs servers.

use hyper::header::CONTENT_TYPE;

use super::problem::{Problem, ProblemType, Result};
use super::reply::{Reply, Response};
use super::request::{Call, Verb};

/// Whether the process answers.
pub(super) async fn healthz(call: &Call) -> Result<Response> {
    only_get(call)?;
    Ok(Reply::ok().json(br#"{"status":"ok"}"#.to_vec()))
}

/// Whether every store answers, and the server is not about to stop.
pub(super) async fn readyz(call: &Call) -> Result<Response> {
    only_get(call)?;
    if *call.app.stopping.borrow() {
        return Err(Problem::new(ProblemType::Unavailable, "the server is stopping"));
    }
    match call.engine().ready().await {
        Ok(()) => Ok(Reply::ok().json(br#"{"status":"ready"}"#.to_vec())),
        Err(faults) => {
            let faults: Vec<_> = faults.iter().map(|(store, reason)| format!("`{store}`: {reason}")).collect();
            Err(Problem::new(ProblemType::Storage, format!("not ready: {}", faults.join("; "))))
        }
    }
}

/// Prometheus text.
pub(super) async fn metrics(call: &Call) -> Result<Response> {
    only_get(call)?;
    let mut text = call.engine().metrics().await;
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    call.app.metrics.write(&mut text);
    Ok(Reply::ok().fixed(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8").bytes(text))
}

fn only_get(call: &Call) -> Result<()> {
    match call.verb() {
        Verb::Get => call.no_query(),
        _ => Err(Problem::method_not_allowed("GET, HEAD")),
    }
}
