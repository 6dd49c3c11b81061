//! A sandboxed module in the chain: implements a runner with the hooks of a component.

use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use hyper::HeaderMap;
use serde_json::{Map, Value};
use snaphook_modules::task::Guard;
use snaphook_modules::{
    Called, ConnectionHandler, ConnectionState, Exchange, Fault, Filtered, Handler, Impossible, Origin, RequestHook,
    Runner, Side, Verdict, Wants,
};

use crate::hooks::context::{Failure, FailureCause};
use crate::hooks::engines::{
    ModuleDecision, ModuleHeader, ModuleHeaderChange, ModuleRequest, ModuleRequestChange, ModuleResponse,
    ModuleResponseChange,
};
use crate::hooks::host::{RequestNote, SandboxedModule};
use crate::server::request_id::X_REQUEST_ID;

/// One module of the configuration.
pub(super) struct Sandboxed(Arc<SandboxedModule>);

impl Sandboxed {
    pub(super) fn new(module: SandboxedModule) -> Sandboxed {
        Sandboxed(Arc::new(module))
    }
}

/// A module's settings in its own format.
pub(super) fn text(settings: &Map<String, Value>) -> String {
    // Maps with text keys can always be serialized.
    serde_json::to_string(settings).unwrap_or_default()
}

impl Runner for Sandboxed {
    fn wants(&self) -> Wants {
        let code = self.0.code();
        Wants {
            before_request: code.has_before_request(),
            request: code.has_request(),
            request_error: code.has_request_error(),
            response: code.has_response(),
            connections: false,
            whole_request: code.wants_whole_requests(),
            whole_response: code.wants_whole_responses(),
        }
    }

    fn open<'a>(
        &'a self,
        _: Option<&'a ConnectionState>,
        exchange: Box<Exchange>,
        _: &'a Arc<Guard>,
    ) -> BoxFuture<'a, Called<Box<dyn Handler>>> {
        let id = exchange.request().headers.get(X_REQUEST_ID).and_then(|id| id.to_str().ok()).map(str::to_owned);
        let handler = SandboxedHandler { module: Arc::clone(&self.0), note: RequestNote::of(id) };
        let handler: Box<dyn Handler> = Box::new(handler);
        std::future::ready((Some(exchange), Ok(handler))).boxed()
    }

    fn connect<'a>(
        &'a self,
        _: &'a Origin,
        _: &'a Arc<Guard>,
    ) -> BoxFuture<'a, Result<Option<Box<dyn ConnectionHandler>>, Fault>> {
        std::future::ready(Ok(None)).boxed()
    }

    fn configure<'a>(&'a self, settings: &'a Map<String, Value>) -> BoxFuture<'a, Result<(), String>> {
        self.0.configure(text(settings));
        std::future::ready(Ok(())).boxed()
    }

    fn is_in_use(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    fn retire(&self) -> BoxFuture<'_, Result<(), String>> {
        std::future::ready(Ok(())).boxed()
    }
}

/// One request.
struct SandboxedHandler {
    module: Arc<SandboxedModule>,
    note: RequestNote,
}

impl Handler for SandboxedHandler {
    fn call<'a>(
        &'a mut self,
        hook: RequestHook,
        mut exchange: Box<Exchange>,
        _: &'a Arc<Guard>,
    ) -> BoxFuture<'a, Called<Verdict>> {
        async move {
            let Some((request, response)) = self.given(hook, &exchange) else {
                return (Some(exchange), Err(Fault::NoMemory));
            };
            let called = match self.ask(hook, request, response).await {
                Ok(asked) => asked.apply(&mut exchange),
                Err(failure) => Err(self.fault(failure)),
            };
            (Some(exchange), called)
        }
        .boxed()
    }

    fn filter<'a>(
        &'a mut self,
        _: Side,
        _: Bytes,
        _: bool,
        _: &'a Arc<Guard>,
    ) -> BoxFuture<'a, Result<Filtered, Fault>> {
        // It never subscribes to pieces of a body.
        std::future::ready(Ok(Filtered::Unchanged)).boxed()
    }
}

/// The decision of a hook.
enum Asked {
    Request(Verdict, ModuleRequestChange),
    Response(Verdict, ModuleResponseChange),
    Made(ModuleResponse),
    Verdict(Verdict),
}

impl SandboxedHandler {
    /// The input of the hook. `None`: not enough memory for the body, which is copied for the guest.
    fn given(&self, hook: RequestHook, exchange: &Exchange) -> Option<(ModuleRequest, ModuleResponse)> {
        let code = self.module.code();
        let body = |is_wanted: bool, side: Side| match exchange.body(side).filter(|_| is_wanted) {
            Some(body) => exchange.hold(body.len()).then(|| Some(body.to_vec())),
            None => Some(None),
        };
        let is_request = matches!(hook, RequestHook::BeforeRequest | RequestHook::Request);
        let request_body = body(is_request && code.wants_whole_requests(), Side::Request)?;
        let response_body = body(hook == RequestHook::Response && code.wants_whole_responses(), Side::Response)?;
        Some((request(exchange, request_body), response(exchange, response_body)))
    }

    async fn ask(
        &mut self,
        hook: RequestHook,
        request: ModuleRequest,
        response: ModuleResponse,
    ) -> Result<Asked, Failure> {
        let (module, note) = (&self.module, &mut self.note);
        Ok(match hook {
            RequestHook::BeforeRequest => match module.before_request(note, request).await? {
                Ok((decision, change)) => Asked::Request(verdict(decision), change),
                Err(status) => Asked::Verdict(Verdict::Status(status)),
            },
            RequestHook::Request => match module.request(note, request).await? {
                Ok(Some(response)) => Asked::Made(response),
                Ok(None) => Asked::Verdict(Verdict::Declined),
                Err(status) => Asked::Verdict(Verdict::Status(status)),
            },
            RequestHook::RequestError(_) => match module.request_error(note, request, response).await? {
                Ok(Some(change)) => Asked::Response(Verdict::Ok, change),
                Ok(None) => Asked::Verdict(Verdict::Declined),
                Err(status) => Asked::Verdict(Verdict::Status(status)),
            },
            RequestHook::Response => match module.response(note, request, response).await? {
                Ok((decision, change)) => Asked::Response(verdict(decision), change),
                Err(status) => Asked::Verdict(Verdict::Status(status)),
            },
        })
    }

    fn fault(&self, failure: Failure) -> Fault {
        match failure.cause {
            FailureCause::Exception | FailureCause::Trap | FailureCause::Stack => Fault::Threw,
            FailureCause::Timeout => Fault::Late(self.module.timeout()),
            // Not the module's fault.
            FailureCause::Overloaded | FailureCause::Internal => Fault::NoThread(failure.message),
            // The messages of limits mention hooks, because hooks share these limits.
            _ => Fault::Lied(failure.message.replace("the hook", "the module")),
        }
    }
}

impl Asked {
    /// An impossible change is the module's fault.
    fn apply(self, exchange: &mut Exchange) -> Result<Verdict, Fault> {
        let (verdict, done) = match self {
            Asked::Verdict(verdict) => (verdict, Ok(())),
            Asked::Request(verdict, change) => (verdict, change_request(exchange, change)),
            Asked::Response(verdict, change) => (verdict, change_response(exchange, change)),
            Asked::Made(response) => (Verdict::Ok, make(exchange, response)),
        };
        done.map_err(|what| Fault::Lied(format!("it set {what}, which the server does not accept")))?;
        match verdict {
            Verdict::Status(status) if !(400..=599).contains(&status) => {
                Err(Fault::Lied(format!("its error is {status}, which is not a status from 400 to 599")))
            }
            verdict => Ok(verdict),
        }
    }
}

const fn verdict(decision: ModuleDecision) -> Verdict {
    match decision {
        ModuleDecision::Declined => Verdict::Declined,
        ModuleDecision::Ok => Verdict::Ok,
    }
}

fn change_request(exchange: &mut Exchange, change: ModuleRequestChange) -> Result<(), &'static str> {
    let ModuleRequestChange { method, uri, headers, body } = change;
    method.map_or(Ok(()), |method| exchange.set_method(method.as_bytes())).map_err(|Impossible| "a method")?;
    uri.map_or(Ok(()), |uri| exchange.set_uri(uri.as_bytes())).map_err(|Impossible| "a path")?;
    change_headers(exchange, Side::Request, headers)?;
    body.map_or(Ok(()), |body| exchange.set_body(Side::Request, &body)).map_err(|Impossible| "a body")
}

fn change_response(exchange: &mut Exchange, change: ModuleResponseChange) -> Result<(), &'static str> {
    let ModuleResponseChange { status, headers, body } = change;
    status.map_or(Ok(()), |status| exchange.set_status(status.into())).map_err(|Impossible| "a status")?;
    change_headers(exchange, Side::Response, headers)?;
    body.map_or(Ok(()), |body| exchange.set_body(Side::Response, &body)).map_err(|Impossible| "a body")
}

fn make(exchange: &mut Exchange, response: ModuleResponse) -> Result<(), &'static str> {
    let ModuleResponse { status, headers, body } = response;
    let headers = headers.into_iter().map(ModuleHeaderChange::Add).collect();
    let body = Some(body.unwrap_or_default());
    change_response(exchange, ModuleResponseChange { status: Some(status), headers, body })
}

fn change_headers(exchange: &mut Exchange, side: Side, changes: Vec<ModuleHeaderChange>) -> Result<(), &'static str> {
    for change in changes {
        let changed = match change {
            ModuleHeaderChange::Set(header) => exchange.set_header(side, header.name.as_bytes(), &header.value),
            ModuleHeaderChange::Add(header) => exchange.add_header(side, header.name.as_bytes(), &header.value),
            ModuleHeaderChange::Remove(name) => exchange.remove_header(side, name.as_bytes()),
        };
        changed.map_err(|Impossible| "a header")?;
    }
    Ok(())
}

fn request(exchange: &Exchange, body: Option<Vec<u8>>) -> ModuleRequest {
    ModuleRequest {
        method: exchange.request().method.to_string(),
        uri: exchange.uri().to_owned(),
        protocol: exchange.protocol().to_owned(),
        host: String::from_utf8_lossy(exchange.host()).into_owned(),
        headers: headers(exchange.headers(Side::Request)),
        body,
        secure: exchange.origin().is_secure,
        peer: exchange.origin().peer.to_string(),
    }
}

fn response(exchange: &Exchange, body: Option<Vec<u8>>) -> ModuleResponse {
    ModuleResponse {
        status: exchange.response().map_or(500, |head| head.status.as_u16()),
        headers: headers(exchange.headers(Side::Response)),
        body,
    }
}

fn headers(headers: Option<&HeaderMap>) -> Vec<ModuleHeader> {
    let lines = headers.into_iter().flatten();
    lines.map(|(name, value)| ModuleHeader { name: name.to_string(), value: value.as_bytes().to_vec() }).collect()
}
