//! Sandboxed server modules: components that take part in requests with the hooks of `snaphook:module@0.1.0`.
//!
//! Each call of a hook gets a new sandbox. A sandbox kept between the hooks of a request would wait for the client: a
//! few hundred slow clients would occupy all sandboxes.

use std::sync::Arc;

use wasmtime::Result;
use wasmtime::component::{Component, ComponentExportIndex, ComponentNamedList, HasSelf, InstancePre, Lift, Lower};

use super::inspect::{INTERFACES, Kind, WASI_PACKAGES, check_bytes, kind};
use super::linking::{digest, linker};
use super::versions::Version;
use super::wasi_http::{Extra, ForModule};
use crate::config::Limits;
use crate::hooks::context::{Failure, FailureCause};
use crate::hooks::engines::engine::PrepareError;
use crate::hooks::engines::limits::{Broken, CHECK_LIMITS};
use crate::hooks::engines::wasm::{self, CodeCache, Runtime, Sandbox, SandboxState};
use crate::hooks::session::Session;

wasmtime::component::bindgen!({
    path: ["wit/since_v0_1_0", "wit/module/since_v0_1_0"],
    world: "snaphook:module/imports",
    with: { "snaphook:hook": super::since_v0_1_0::snaphook::hook },
    imports: { default: async | trappable },
    exports: { default: async },
});

pub use self::snaphook::module::types::{
    Decision, Header, HeaderChange, Request, RequestChange, Response, ResponseChange,
};
use self::snaphook::module::{config, note, types};

/// The version in the names of exports.
const VERSION: &str = "0.1.0";

/// Largest note of a request. The server keeps it until the request ends.
const NOTE_BYTES_MAX: usize = 4 << 10;

/// The interfaces that a module may import from its own package.
const OWN_INTERFACES: [&str; 3] = ["types", "config", "note"];

/// The result of `before-request` and `response`. The error is a status from 400 to 599.
pub type Decided<T> = std::result::Result<(Decision, T), u16>;

/// The result of `request` and `request-error`.
pub type Made<T> = std::result::Result<Option<T>, u16>;

/// Prepares modules.
pub struct ModuleCodes {
    cache: CodeCache,
}

/// A prepared component that can take part in requests.
pub struct ModuleCode {
    code: InstancePre<SandboxState<Extra>>,
    hooks: Hooks,
    bodies: WholeBodies,
    runtime: &'static Runtime,
}

/// The exported functions of the hooks.
#[derive(Clone, Copy)]
struct Hooks {
    before_request: Option<ComponentExportIndex>,
    request: Option<ComponentExportIndex>,
    request_error: Option<ComponentExportIndex>,
    response: Option<ComponentExportIndex>,
    bodies: Option<ComponentExportIndex>,
}

wasmtime::component::flags! {
    WholeBodies {
        #[component(name = "request")]
        const REQUEST;
        #[component(name = "response")]
        const RESPONSE;
    }
}

/// The inputs of a call besides its arguments, and the state that it leaves.
pub struct ModuleCall {
    pub session: Arc<Session>,
    pub limits: Limits,
    /// The module's own configuration table as JSON text.
    pub settings: Arc<str>,
    /// The request's note; a hook may replace it.
    pub note: Vec<u8>,
}

impl ModuleCodes {
    /// `cache` is the folder of compiled code.
    pub fn new(cache: &std::path::Path) -> ModuleCodes {
        ModuleCodes { cache: CodeCache::new(cache) }
    }

    /// Checks and prepares a component.
    pub async fn prepare(&self, code: &[u8]) -> std::result::Result<ModuleCode, PrepareError> {
        check_bytes(code).map_err(PrepareError::plain)?;
        if kind(code).map_err(PrepareError::plain)? == Kind::CoreModule {
            let message = "the file is a core module, expected a component with hooks of `snaphook:module`";
            return Err(PrepareError::plain(message));
        }
        let runtime = wasm::runtime().map_err(PrepareError::plain)?;
        let component = self.cache.component(runtime, &digest(code), code).await?;
        let made = tokio::task::spawn_blocking(move || link(runtime, &component));
        let made = made.await.unwrap_or_else(|error| Err(format!("the component could not be linked: {error}")));
        let mut module = made.map_err(PrepareError::plain)?;
        module.bodies = module.check().await.map_err(PrepareError::plain)?;
        Ok(module)
    }
}

fn link(runtime: &'static Runtime, component: &Component) -> std::result::Result<ModuleCode, String> {
    check_imports(runtime, component)?;
    let hooks = Hooks::of(component);
    if !hooks.any() {
        return Err(format!(
            "the component exports no hook, expected one of `before-request`, `request`, `request-error` and `response` of \
             `snaphook:module@{VERSION}`"
        ));
    }
    let linked = linker(runtime, Some(Version::NEWEST)).and_then(|mut linker| {
        types::add_to_linker::<SandboxState<Extra>, HasSelf<SandboxState<Extra>>>(&mut linker, |state| state)?;
        config::add_to_linker::<SandboxState<Extra>, HasSelf<SandboxState<Extra>>>(&mut linker, |state| state)?;
        note::add_to_linker::<SandboxState<Extra>, HasSelf<SandboxState<Extra>>>(&mut linker, |state| state)?;
        linker.instantiate_pre(component)
    });
    let code = linked.map_err(|error| format!("the component does not fit this server: {error:#}"))?;
    Ok(ModuleCode { code, hooks, bodies: WholeBodies::empty(), runtime })
}

fn check_imports(runtime: &Runtime, component: &Component) -> std::result::Result<(), String> {
    let kind = component.component_type();
    let names = kind.imports(&runtime.engine).map(|(name, _)| name);
    let unknown: Vec<_> = names.filter(|name| !is_known(name)).map(|name| format!("`{name}`")).collect();
    match unknown.is_empty() {
        true => Ok(()),
        false => Err(format!(
            "the component imports {}, which no module has; it may import `snaphook:module@{VERSION}`, `snaphook:hook@{}`, \
             `wasi:http/outgoing-handler` and WASI 0.2",
            unknown.join(", "),
            Version::NEWEST.as_str()
        )),
    }
}

fn is_known(import: &str) -> bool {
    let (path, version) = import.split_once('@').unwrap_or((import, ""));
    let Some((package, interface)) = path.split_once('/') else { return false };
    match package {
        "wasi:http" => ["types", "outgoing-handler"].contains(&interface) && version.starts_with("0.2."),
        "snaphook:module" => version == VERSION && OWN_INTERFACES.contains(&interface),
        "snaphook:hook" => {
            version == Version::NEWEST.as_str() && INTERFACES.iter().any(|(known, _)| *known == interface)
        }
        _ => {
            let wasi = package.strip_prefix("wasi:");
            wasi.is_some_and(|wasi| WASI_PACKAGES.contains(&wasi)) && version.starts_with("0.2.")
        }
    }
}

impl Hooks {
    fn of(component: &Component) -> Hooks {
        let find = |interface: &str, function: &str| {
            let instance = component.get_export_index(None, format!("snaphook:module/{interface}@{VERSION}"))?;
            component.get_export_index(Some(&instance), function)
        };
        Hooks {
            before_request: find("before-request", "handle"),
            request: find("request", "handle"),
            request_error: find("request-error", "handle"),
            response: find("response", "handle"),
            bodies: find("bodies", "whole"),
        }
    }

    fn any(&self) -> bool {
        let Hooks { before_request, request, request_error, response, bodies: _ } = self;
        [before_request, request, request_error, response].iter().any(|hook| hook.is_some())
    }
}

impl ModuleCode {
    pub fn has_before_request(&self) -> bool {
        self.hooks.before_request.is_some()
    }

    pub fn has_request(&self) -> bool {
        self.hooks.request.is_some()
    }

    pub fn has_request_error(&self) -> bool {
        self.hooks.request_error.is_some()
    }

    pub fn has_response(&self) -> bool {
        self.hooks.response.is_some()
    }

    /// Whether it needs complete request bodies.
    pub fn wants_whole_requests(&self) -> bool {
        self.bodies.contains(WholeBodies::REQUEST)
    }

    /// Whether it needs complete response bodies.
    pub fn wants_whole_responses(&self) -> bool {
        self.bodies.contains(WholeBodies::RESPONSE)
    }

    pub async fn before_request(
        &self,
        call: &mut ModuleCall,
        request: Request,
    ) -> std::result::Result<Decided<RequestChange>, Failure> {
        self.call(call, self.hooks.before_request, (request,)).await
    }

    pub async fn request(
        &self,
        call: &mut ModuleCall,
        request: Request,
    ) -> std::result::Result<Made<Response>, Failure> {
        self.call(call, self.hooks.request, (request,)).await
    }

    pub async fn request_error(
        &self,
        call: &mut ModuleCall,
        request: Request,
        response: Response,
    ) -> std::result::Result<Made<ResponseChange>, Failure> {
        self.call(call, self.hooks.request_error, (request, response)).await
    }

    pub async fn response(
        &self,
        call: &mut ModuleCall,
        request: Request,
        response: Response,
    ) -> std::result::Result<Decided<ResponseChange>, Failure> {
        self.call(call, self.hooks.response, (request, response)).await
    }

    /// Instantiates it once to check that this works and that its hooks have the right types, and asks which bodies it
    /// needs.
    async fn check(&self) -> std::result::Result<WholeBodies, String> {
        let mut sandbox = Sandbox::new(self.runtime, Extra::default()).await.map_err(|failure| failure.message)?;
        let clock = sandbox.begin(None, &CHECK_LIMITS);
        let (code, hooks) = (self.code.clone(), self.hooks);
        let (checked, _) = wasm::run(self.runtime, clock, async move {
            let checked = async {
                let instance = sandbox.instance(&code).await?;
                let store = &mut sandbox.store;
                if let Some(hook) = &hooks.before_request {
                    instance.get_typed_func::<(Request,), (Decided<RequestChange>,)>(&mut *store, hook)?;
                }
                if let Some(hook) = &hooks.request {
                    instance.get_typed_func::<(Request,), (Made<Response>,)>(&mut *store, hook)?;
                }
                if let Some(hook) = &hooks.request_error {
                    instance.get_typed_func::<(Request, Response), (Made<ResponseChange>,)>(&mut *store, hook)?;
                }
                if let Some(hook) = &hooks.response {
                    instance.get_typed_func::<(Request, Response), (Decided<ResponseChange>,)>(&mut *store, hook)?;
                }
                let Some(bodies) = &hooks.bodies else { return Ok(WholeBodies::empty()) };
                let whole = instance.get_typed_func::<(), (WholeBodies,)>(&mut *store, bodies)?;
                let (whole,) = whole.call_async(&mut *store, ()).await?;
                Ok(whole)
            };
            let checked: Result<WholeBodies> = checked.await;
            sandbox.end(checked).map_err(|failure| failure.message)
        })
        .await;
        let checked = checked.unwrap_or_else(|broken| Err(broken.0.message));
        checked.map_err(|message| format!("the component cannot be used: {message}"))
    }

    async fn call<P, R>(
        &self,
        call: &mut ModuleCall,
        hook: Option<ComponentExportIndex>,
        arguments: P,
    ) -> std::result::Result<R, Failure>
    where
        P: ComponentNamedList + Lower + Send + Sync + 'static,
        R: Send + Sync + 'static,
        (R,): ComponentNamedList + Lift,
    {
        let hook = hook.ok_or_else(|| Failure {
            cause: FailureCause::Internal,
            message: "the module does not have this hook".to_owned(),
            limit: None,
        })?;
        let own = ForModule { settings: Arc::clone(&call.settings), note: std::mem::take(&mut call.note) };
        let mut sandbox = Sandbox::new(self.runtime, Extra::of_module(own)).await?;
        let clock = sandbox.begin(Some(Arc::clone(&call.session)), &call.limits);
        let code = self.code.clone();
        let (ended, _) = wasm::run(self.runtime, clock, async move {
            let called = async {
                let instance = sandbox.instance(&code).await?;
                let handle = instance.get_typed_func::<P, (R,)>(&mut sandbox.store, &hook)?;
                handle.call_async(&mut sandbox.store, arguments).await
            };
            let called = called.await;
            (sandbox.end(called), sandbox)
        })
        .await;
        let (called, mut sandbox) = ended.map_err(|broken| broken.0)?;
        let note = std::mem::take(&mut sandbox.store.data_mut().extra.for_module().note);
        sandbox.discard();
        let (result,) = called?;
        call.note = note;
        Ok(result)
    }
}

impl types::Host for SandboxState<Extra> {}

impl config::Host for SandboxState<Extra> {
    async fn settings(&mut self) -> Result<String> {
        Ok(self.extra.for_module().settings.to_string())
    }
}

impl note::Host for SandboxState<Extra> {
    async fn get(&mut self) -> Result<Vec<u8>> {
        Ok(self.extra.for_module().note.clone())
    }

    async fn set(&mut self, bytes: Vec<u8>) -> Result<()> {
        if bytes.len() > NOTE_BYTES_MAX {
            return Err(wasmtime::Error::new(Broken(Failure {
                cause: FailureCause::Output,
                message: format!("the hook set a note of {} bytes, the limit is {NOTE_BYTES_MAX}", bytes.len()),
                limit: Some(format!("note {NOTE_BYTES_MAX}")),
            })));
        }
        self.extra.for_module().note = bytes;
        Ok(())
    }
}
