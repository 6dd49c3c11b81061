//! `wasi:http/outgoing-handler` for post hooks: what a language's own HTTP library uses, under the rules of the
//! capability `http`. Every request ends in the session, as those of `snaphook:hook/http` do.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use tokio::sync::Semaphore;
use wasmtime::component::Linker;
use wasmtime_wasi_http::WasiHttpCtx;
use wasmtime_wasi_http::p2::bindings::http::types::ErrorCode;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;
use wasmtime_wasi_http::p2::types::{HostFutureIncomingResponse, IncomingResponse, OutgoingRequestConfig};
use wasmtime_wasi_http::p2::{HttpResult, WasiHttpCtxView, WasiHttpHooks, WasiHttpView, add_only_http_to_linker_async};

use crate::hooks::access::{AccessCode, AccessError};
use crate::hooks::engines::wasm::{OUTPUT_BYTES_MAX, State, fatal};
use crate::hooks::session::{HostError, HttpRequest, HttpResponse, Redirect, Session};

/// Requests of one call whose bodies are in the host's memory at once; more of them wait.
const REQUESTS_MAX: usize = 8;

/// What a component's sandbox keeps beside what every sandbox keeps.
pub(super) struct Extra {
    context: WasiHttpCtx,
    sender: Sender,
}

impl Default for Extra {
    fn default() -> Self {
        let sender = Sender { session: None, requests: Arc::new(Semaphore::new(REQUESTS_MAX)) };
        Extra { context: WasiHttpCtx::new(), sender }
    }
}

pub(super) fn link(linker: &mut Linker<State<Extra>>) -> wasmtime::Result<()> {
    add_only_http_to_linker_async(linker)
}

impl WasiHttpView for State<Extra> {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        self.extra.sender.session = self.session_if_any();
        let (Extra { context, sender }, table) = self.extra_and_table();
        WasiHttpCtxView { ctx: context, table, hooks: sender }
    }
}

struct Sender {
    session: Option<Arc<Session>>,
    requests: Arc<Semaphore>,
}

impl WasiHttpHooks for Sender {
    fn send_request(
        &mut self,
        request: hyper::Request<HyperOutgoingBody>,
        config: OutgoingRequestConfig,
    ) -> HttpResult<HostFutureIncomingResponse> {
        let (session, requests) = (self.session.clone(), Arc::clone(&self.requests));
        let task = wasmtime_wasi::runtime::spawn(async move {
            let Some(session) = session else { return Ok(Err(ErrorCode::HttpRequestDenied)) };
            // Nobody closes it; without a permit the request would only be unbounded.
            let _permit = requests.acquire_owned().await.ok();
            send(&session, request, &config).await
        });
        Ok(HostFutureIncomingResponse::pending(task))
    }
}

/// The outer error ends the guest, the inner one it can handle.
async fn send(
    session: &Session,
    request: hyper::Request<HyperOutgoingBody>,
    config: &OutgoingRequestConfig,
) -> wasmtime::Result<Result<IncomingResponse, ErrorCode>> {
    let (head, body) = request.into_parts();
    let body = match Limited::new(body, OUTPUT_BYTES_MAX).collect().await {
        Ok(body) => body.to_bytes().to_vec(),
        Err(error) => return Ok(Err(ErrorCode::InternalError(Some(format!("the body cannot be sent: {error}"))))),
    };
    let headers = head.headers.iter().filter(|(name, _)| *name != hyper::header::HOST);
    let headers =
        headers.map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
    let request = HttpRequest {
        method: head.method.to_string(),
        url: head.uri.to_string(),
        headers: headers.collect(),
        body,
        timeout: Some(config.connect_timeout.saturating_add(config.first_byte_timeout)),
        // Whoever speaks wasi:http follows redirects itself.
        redirect: Redirect::Manual,
    };
    match session.http_send(request).await {
        Ok(response) => Ok(answer(response, config.between_bytes_timeout)),
        Err(HostError::Access(error)) => Ok(Err(error_code(error))),
        Err(error) => Err(fatal(error)),
    }
}

fn answer(response: HttpResponse, between_bytes_timeout: Duration) -> Result<IncomingResponse, ErrorCode> {
    let mut builder = hyper::Response::builder().status(response.status);
    for (name, value) in &response.headers {
        builder = builder.header(name, value);
    }
    let body = Full::new(response.body.into()).map_err(|never: std::convert::Infallible| match never {});
    let resp = builder.body(body.boxed_unsync());
    let resp = resp.map_err(|error| ErrorCode::InternalError(Some(format!("the answer cannot be read: {error}"))))?;
    Ok(IncomingResponse { resp, worker: None, between_bytes_timeout })
}

fn error_code(error: AccessError) -> ErrorCode {
    match error.code {
        // The message, with the grant that is missing, is in the hook's log.
        AccessCode::Denied => ErrorCode::HttpRequestDenied,
        AccessCode::Timeout => ErrorCode::ConnectionReadTimeout,
        AccessCode::TooLarge => ErrorCode::HttpResponseBodySize(None),
        _ => ErrorCode::InternalError(Some(error.message)),
    }
}
