//! `/healthz`, `/readyz`, `/metrics`: for monitoring and orchestration.

use std::env::consts;

use hyper::StatusCode;
use hyper::header::{ACCEPT, CONTENT_TYPE};

use super::accept;
use super::modules::request::Unguarded;
use super::problem::{Problem, ProblemType, Result};
use super::reply::{Reply, Response};
use super::request::Call;
use crate::engine::Readiness;
use crate::telemetry::exposition::{Exposition, Format};
use crate::telemetry::process;
use crate::telemetry::trace::tracer;

/// Whether the process responds.
pub(super) async fn healthz(call: &Call) -> Result<Response> {
    call.no_query()?;
    Ok(Reply::ok().json(br#"{"status":"ok"}"#.to_vec()))
}

/// Whether every store works, every model is available, and the server is not stopping.
pub(super) async fn readyz(call: &Call) -> Result<Response> {
    call.no_query()?;
    if *call.app.stopping.borrow() {
        return Err(Problem::new(ProblemType::Unavailable, "the server is stopping"));
    }
    let deactivated = call.app.modules.deactivated();
    let of_kind = |optional| -> serde_json::Map<String, serde_json::Value> {
        let of_kind = deactivated.iter().filter(|(_, _, is_optional)| *is_optional == optional);
        of_kind.map(|(name, reason, _)| (name.clone(), reason.clone().into())).collect()
    };
    let (mut needed, mut optional) = (of_kind(false), of_kind(true));
    if let Some(zia) = &call.app.zia {
        let (refused, skipped) = zia.troubles();
        needed.extend(refused);
        optional.extend(skipped);
    }
    if !needed.is_empty() {
        let body = serde_json::json!({ "status": "unavailable", "modules": needed });
        return Reply::new(StatusCode::SERVICE_UNAVAILABLE).serialize(&body);
    }
    let Readiness { stores, models } = call.engine().operations.readiness().await;
    if !stores.is_empty() {
        let body = serde_json::json!({ "status": "unavailable", "stores": stores });
        return Reply::new(StatusCode::SERVICE_UNAVAILABLE).serialize(&body);
    }
    if !models.is_empty() {
        return Reply::ok().serialize(&serde_json::json!({ "status": "degraded", "models": models }));
    }
    if !optional.is_empty() {
        return Reply::ok().serialize(&serde_json::json!({ "status": "degraded", "modules": optional }));
    }
    Ok(Reply::ok().json(br#"{"status":"ready"}"#.to_vec()))
}

/// All metrics, as Prometheus text or OpenMetrics; only those of modules while a module is missing that may protect the
/// rest.
pub(super) async fn metrics(call: &Call) -> Result<Response> {
    call.no_query()?;
    let format = match accept::takes_open_metrics(call.headers().get_all(ACCEPT)) {
        true => Format::OpenMetrics,
        false => Format::Prometheus,
    };
    let mut out = Exposition::new(format);
    call.app.modules.write_metrics(&mut out);
    if let Some(zia) = &call.app.zia {
        zia.write_metrics(&mut out);
    }
    if call.head.extensions.get::<Unguarded>().is_none() {
        rest(call, &mut out).await;
    }
    Ok(Reply::ok().fixed(CONTENT_TYPE, format.content_type()).bytes(out.finish()))
}

/// The metrics that a module may protect.
async fn rest(call: &Call, out: &mut Exposition) {
    let help = "What runs here";
    let labels = [("version", env!("CARGO_PKG_VERSION")), ("os", consts::OS), ("arch", consts::ARCH)];
    out.info("snaphook_build", help).sample(&labels, 1);
    if let Ok(Some(process)) = tokio::task::spawn_blocking(process::read).await {
        process.write(out);
    }
    call.engine().operations.metrics(out).await;
    call.app.metrics.write(out);
    call.engine().endpoints().write_metrics(out);
    if let Some(tracer) = tracer::tracer() {
        tracer.write_metrics(out);
    }
    let failed = call.app.identity.failed_attempts();
    out.counter("snaphook_authentication_failures", "Requests whose token was not valid").sample(&[], failed);
}
