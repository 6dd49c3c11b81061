//! Custom endpoints: components that handle requests with `wasi:http/incoming-handler`.
//!
//! A run gets a new sandbox. Its response arrives before the run ends, and the body continues as the guest writes it,
//! so the caller must poll both.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Body;
use tokio::sync::oneshot;
use wasmtime::component::{Component, InstancePre};
use wasmtime_wasi_http::p2::bindings::ProxyIndices;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme};
use wasmtime_wasi_http::{Error, WasiBody, WasiHttpView};

use super::inspect::{INTERFACES, Kind, WASI_PACKAGES, check_bytes, kind};
use super::linking::{digest, linker};
use super::versions::Version;
use super::wasi_http::Extra;
use crate::config::Limits;
use crate::hooks::context::Failure;
use crate::hooks::engines::engine::PrepareError;
use crate::hooks::engines::limits::CHECK_LIMITS;
use crate::hooks::engines::wasm::{self, CodeCache, Runtime, Sandbox, SandboxState};
use crate::hooks::session::Session;

/// Prepares components that handle requests.
pub struct Proxies {
    cache: CodeCache,
}

/// A prepared component that can handle requests.
pub struct Proxy {
    code: InstancePre<SandboxState<Extra>>,
    indices: ProxyIndices,
    runtime: &'static Runtime,
}

/// One run: the guest, which only runs while it is polled, and the response that it sets.
pub struct ProxyRun {
    guest: Pin<Box<dyn Future<Output = ProxyEnd> + Send>>,
    pub head: oneshot::Receiver<Result<hyper::Response<WasiBody>, ErrorCode>>,
}

/// How a guest ended. It keeps the guest's remaining state: when that is dropped, a body that the guest did not finish
/// ends as if it were complete.
pub struct ProxyEnd {
    pub failure: Option<Failure>,
    pub cpu: Duration,
    pub memory_bytes: u64,
    sandbox: Option<Sandbox<Extra>>,
}

impl Proxies {
    /// `cache` is the folder of compiled code.
    pub fn new(cache: &std::path::Path) -> Proxies {
        Proxies { cache: CodeCache::new(cache) }
    }

    /// Checks and prepares a component.
    pub async fn prepare(&self, code: &[u8]) -> Result<Proxy, PrepareError> {
        check_bytes(code).map_err(PrepareError::plain)?;
        if kind(code).map_err(PrepareError::plain)? == Kind::CoreModule {
            return Err(PrepareError::plain("the file is a core module, expected a component for `wasi:http/proxy`"));
        }
        let runtime = wasm::runtime().map_err(PrepareError::plain)?;
        let component = self.cache.component(runtime, &digest(code), code).await?;
        let made = tokio::task::spawn_blocking(move || link(runtime, &component));
        let proxy = made.await.unwrap_or_else(|error| Err(format!("the component could not be linked: {error}")));
        let proxy = proxy.map_err(PrepareError::plain)?;
        proxy.check().await.map_err(PrepareError::plain)?;
        Ok(proxy)
    }
}

fn link(runtime: &'static Runtime, component: &Component) -> Result<Proxy, String> {
    check_imports(runtime, component)?;
    let linked = linker(runtime, Some(Version::NEWEST)).and_then(|linker| linker.instantiate_pre(component));
    let code = linked.map_err(|error| format!("the component does not fit this server: {error:#}"))?;
    let indices = ProxyIndices::new(&code).map_err(|error| {
        format!("the component handles no requests, expected the export `wasi:http/incoming-handler@0.2`: {error:#}")
    })?;
    Ok(Proxy { code, indices, runtime })
}

fn check_imports(runtime: &Runtime, component: &Component) -> Result<(), String> {
    let kind = component.component_type();
    let names = kind.imports(&runtime.engine).map(|(name, _)| name);
    let unknown: Vec<_> = names.filter(|name| !is_known(name)).map(|name| format!("`{name}`")).collect();
    match unknown.is_empty() {
        true => Ok(()),
        false => Err(format!(
            "the component imports {}, which no endpoint has; it may import `snaphook:hook@{}`, `wasi:http` and WASI 0.2",
            unknown.join(", "),
            Version::NEWEST.as_str()
        )),
    }
}

fn is_known(import: &str) -> bool {
    let (path, version) = import.split_once('@').unwrap_or((import, ""));
    let Some((package, interface)) = path.split_once('/') else { return false };
    match package.strip_prefix("wasi:") {
        Some("http") => ["types", "outgoing-handler"].contains(&interface) && version.starts_with("0.2."),
        Some(wasi) => WASI_PACKAGES.contains(&wasi) && version.starts_with("0.2."),
        None => {
            package == "snaphook:hook"
                && version == Version::NEWEST.as_str()
                && INTERFACES.iter().any(|(known, _)| *known == interface)
        }
    }
}

impl Proxy {
    /// Instantiates it once to check that this works.
    async fn check(&self) -> Result<(), String> {
        let mut sandbox = Sandbox::new(self.runtime, Extra::default()).await.map_err(|failure| failure.message)?;
        let clock = sandbox.begin(None, &CHECK_LIMITS);
        let code = self.code.clone();
        let (started, _) = wasm::run(self.runtime, clock, async move {
            let started = sandbox.instance(&code).await;
            sandbox.end(started).map(drop).map_err(|failure| failure.message)
        })
        .await;
        let started = started.unwrap_or_else(|broken| Err(broken.0.message));
        started.map_err(|message| format!("the component cannot be started: {message}"))
    }

    /// Starts a run. Host calls go to the session, which checks the grants.
    pub fn start<B>(
        self: &Arc<Self>,
        request: hyper::Request<B>,
        is_secure: bool,
        limits: Limits,
        session: Arc<Session>,
    ) -> ProxyRun
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Error>,
    {
        let (sender, head) = oneshot::channel();
        let proxy = Arc::clone(self);
        let scheme = if is_secure { Scheme::Https } else { Scheme::Http };
        let guest = Box::pin(async move { proxy.run(request, scheme, limits, session, sender).await });
        ProxyRun { guest, head }
    }

    async fn run<B>(
        self: Arc<Self>,
        request: hyper::Request<B>,
        scheme: Scheme,
        limits: Limits,
        session: Arc<Session>,
        sender: oneshot::Sender<Result<hyper::Response<WasiBody>, ErrorCode>>,
    ) -> ProxyEnd
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Error>,
    {
        let runtime = self.runtime;
        let mut sandbox = match Sandbox::new(runtime, Extra::default()).await {
            Ok(sandbox) => sandbox,
            Err(failure) => return ProxyEnd::failed(failure, Duration::ZERO),
        };
        let clock = sandbox.begin(Some(session), &limits);
        let (ended, cpu) = wasm::run(runtime, clock, async move {
            let answered = async {
                let request = sandbox.store.data_mut().http().new_incoming_request(scheme, request)?;
                let outparam = sandbox.store.data_mut().http().new_response_outparam(sender)?;
                let instance = sandbox.instance(&self.code).await?;
                let guest = self.indices.load(&mut sandbox.store, &instance)?;
                guest.wasi_http_incoming_handler().call_handle(&mut sandbox.store, request, outparam).await
            };
            let answered = answered.await;
            (sandbox.end(answered), sandbox)
        })
        .await;
        match ended {
            Ok((answered, sandbox)) => ProxyEnd {
                failure: answered.err(),
                cpu,
                memory_bytes: sandbox.store.data().memory_peak() as u64,
                sandbox: Some(sandbox),
            },
            Err(broken) => ProxyEnd::failed(broken.0, cpu),
        }
    }
}

impl Future for ProxyRun {
    type Output = ProxyEnd;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<ProxyEnd> {
        self.guest.as_mut().poll(context)
    }
}

impl ProxyEnd {
    /// The end of a guest that was stopped or did not start.
    pub fn failed(failure: Failure, cpu: Duration) -> ProxyEnd {
        ProxyEnd { failure: Some(failure), cpu, memory_bytes: 0, sandbox: None }
    }

    /// Releases the guest's remaining state.
    pub fn discard(&mut self) {
        if let Some(sandbox) = self.sandbox.take() {
            sandbox.discard();
        }
    }
}
