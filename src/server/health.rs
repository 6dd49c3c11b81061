//! `/healthz`, `/readyz`, `/metrics`: for the machinery that runs servers.

use hyper::StatusCode;
use hyper::header::CONTENT_TYPE;

use super::problem::{Problem, ProblemType, Result};
use super::reply::{Reply, Response};
use super::request::Call;
use crate::engine::Readiness;

/// Whether the process answers.
pub(super) async fn healthz(call: &Call) -> Result<Response> {
    call.no_query()?;
    Ok(Reply::ok().json(br#"{"status":"ok"}"#.to_vec()))
}

/// Whether every store works, every model can be used, and the server is not about to stop.
pub(super) async fn readyz(call: &Call) -> Result<Response> {
    call.no_query()?;
    if *call.app.stopping.borrow() {
        return Err(Problem::new(ProblemType::Unavailable, "the server is stopping"));
    }
    let Readiness { stores, models } = call.engine().operations.readiness().await;
    if !stores.is_empty() {
        let body = serde_json::json!({ "status": "unavailable", "stores": stores });
        return Reply::new(StatusCode::SERVICE_UNAVAILABLE).serialize(&body);
    }
    if !models.is_empty() {
        return Reply::ok().serialize(&serde_json::json!({ "status": "degraded", "models": models }));
    }
    Ok(Reply::ok().json(br#"{"status":"ready"}"#.to_vec()))
}

/// Prometheus text.
pub(super) async fn metrics(call: &Call) -> Result<Response> {
    call.no_query()?;
    let mut text = call.engine().operations.metrics().await;
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    call.app.metrics.write(&mut text);
    call.engine().endpoints().write_metrics(&mut text);
    let failed = call.app.identity.failed_attempts();
    text.push_str("# HELP snaphook_authentication_failures_total Requests whose token was not valid.\n");
    text.push_str("# TYPE snaphook_authentication_failures_total counter\n");
    text.push_str(&format!("snaphook_authentication_failures_total {failed}\n"));
    Ok(Reply::ok().fixed(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8").bytes(text))
}
