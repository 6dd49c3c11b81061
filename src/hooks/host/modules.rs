//! Sandboxed server modules: components that take part in requests. The server manages the list of modules and their
//! order; this file calls their hooks with their grants.

use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::SemaphorePermit;

use super::said::{self, shown};
use crate::config::Config;
use crate::hooks::context::Failure;
use crate::hooks::engines::{
    Decided, Made, ModuleCall, ModuleCode, ModuleCodes, ModuleRequest, ModuleRequestChange, ModuleResponse,
    ModuleResponseChange,
};
use crate::hooks::grants::{Granted, Grantee};
use crate::hooks::places::Places;
use crate::hooks::session::{HOST_TIME_PRE_MAX, Services, Session};
use crate::telemetry::trace::{Span, SpanKind, scope};

/// Creates modules.
pub struct SandboxedModules {
    config: Arc<ArcSwap<Config>>,
    codes: ModuleCodes,
    services: OnceLock<Arc<Services>>,
}

/// One module.
pub struct SandboxedModule {
    name: Arc<str>,
    code: ModuleCode,
    config: Arc<ArcSwap<Config>>,
    services: Arc<Services>,
    granted: ArcSwapOption<Granted>,
    places: Places,
    /// JSON text.
    settings: RwLock<Arc<str>>,
}

impl SandboxedModules {
    pub(super) fn new(config: Arc<ArcSwap<Config>>) -> SandboxedModules {
        let codes = ModuleCodes::new(&config.load().hooks.cache);
        SandboxedModules { config, codes, services: OnceLock::new() }
    }

    /// Only the first call has an effect.
    pub(super) fn attach(&self, services: Arc<Services>) {
        let _ = self.services.set(services);
    }

    /// Creates a module from a component. `settings` is JSON text.
    pub async fn make(&self, name: &str, code: &[u8], settings: String) -> Result<SandboxedModule, String> {
        let services = self.services.get().ok_or_else(|| "the server is not ready to run modules".to_owned())?;
        let code = self.codes.prepare(code).await.map_err(|error| error.to_string())?;
        Ok(SandboxedModule {
            name: name.into(),
            code,
            config: Arc::clone(&self.config),
            services: Arc::clone(services),
            granted: ArcSwapOption::empty(),
            places: Places::default(),
            settings: RwLock::new(settings.into()),
        })
    }
}

impl SandboxedModule {
    /// The prepared code, which tells the module's hooks.
    pub fn code(&self) -> &ModuleCode {
        &self.code
    }

    /// Sets the settings, as JSON text, for calls that begin from now on.
    pub fn configure(&self, settings: String) {
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = settings.into();
    }

    pub async fn before_request(
        &self,
        by: &mut RequestNote,
        request: ModuleRequest,
    ) -> Result<Decided<ModuleRequestChange>, Failure> {
        let mut running = self.begin("before-request", by).await?;
        let called = self.code.before_request(&mut running.call, request).await;
        running.end(by, called)
    }

    pub async fn request(&self, by: &mut RequestNote, request: ModuleRequest) -> Result<Made<ModuleResponse>, Failure> {
        let mut running = self.begin("request", by).await?;
        let called = self.code.request(&mut running.call, request).await;
        running.end(by, called)
    }

    pub async fn request_error(
        &self,
        by: &mut RequestNote,
        request: ModuleRequest,
        response: ModuleResponse,
    ) -> Result<Made<ModuleResponseChange>, Failure> {
        let mut running = self.begin("request-error", by).await?;
        let called = self.code.request_error(&mut running.call, request, response).await;
        running.end(by, called)
    }

    pub async fn response(
        &self,
        by: &mut RequestNote,
        request: ModuleRequest,
        response: ModuleResponse,
    ) -> Result<Decided<ModuleResponseChange>, Failure> {
        let mut running = self.begin("response", by).await?;
        let called = self.code.response(&mut running.call, request, response).await;
        running.end(by, called)
    }

    /// How long its code may run in one call.
    pub fn timeout(&self) -> Duration {
        self.granted().limits.timeout
    }

    /// `hook` is its name in the WIT.
    async fn begin<'a>(&'a self, hook: &'static str, by: &mut RequestNote) -> Result<Running<'a>, Failure> {
        let mut span = Span::begin("module", SpanKind::Internal);
        span.name(|| format!("module {}", self.name));
        span.note("snaphook.module", || self.name.to_string());
        span.note("snaphook.hook", || hook);
        let granted = self.granted();
        let place = self.places.take(granted.config().hooks.concurrency).await?;
        let limits = granted.limits;
        let begin = || Session::of_request(&self.services, granted, by.request_id.clone(), HOST_TIME_PRE_MAX);
        let session = scope::on_thread(span.scope_or_current(), begin);
        let settings = Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner));
        let call = ModuleCall { session, limits, settings, note: std::mem::take(&mut by.note) };
        Ok(Running { module: self, request_id: by.request_id.clone(), call, span, _place: place })
    }

    fn log(&self, failure: &Failure, request_id: &str) {
        // The messages of limits mention hooks; adapt them.
        let message = shown(&failure.message.replace("the hook", "the module"));
        tracing::error!(module = &*self.name, request_id, "failed ({}): {message}", failure.cause.as_str());
    }

    /// What the current configuration grants it.
    fn granted(&self) -> Arc<Granted> {
        let config = self.config.load();
        if let Some(granted) = &*self.granted.load()
            && granted.is_current(&config)
        {
            return Arc::clone(granted);
        }
        let granted = Arc::new(Granted::resolve(&config, Grantee::Module(Arc::clone(&self.name))));
        self.granted.store(Some(Arc::clone(&granted)));
        granted
    }
}

/// The module's state of one request: the request's id, and the note that the module's hooks pass on.
#[derive(Default)]
pub struct RequestNote {
    request_id: Option<String>,
    note: Vec<u8>,
}

impl RequestNote {
    pub fn of(request_id: Option<String>) -> RequestNote {
        RequestNote { request_id, note: Vec::new() }
    }
}

/// One call. The guest's log lines are written when it ends, even if the client disconnected.
struct Running<'a> {
    module: &'a SandboxedModule,
    request_id: Option<String>,
    call: ModuleCall,
    span: Span,
    _place: SemaphorePermit<'a>,
}

impl Running<'_> {
    fn end<T>(mut self, by: &mut RequestNote, called: Result<T, Failure>) -> Result<T, Failure> {
        by.note = std::mem::take(&mut self.call.note);
        let called = called.map_err(|failure| self.call.session.masked_failure(failure));
        if let Err(failure) = &called {
            self.span.fail(|| failure.message.clone());
            self.module.log(failure, self.request_id.as_deref().unwrap_or_default());
        }
        called
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        said::tell(&self.call.session, self.request_id.as_deref().unwrap_or_default());
    }
}
