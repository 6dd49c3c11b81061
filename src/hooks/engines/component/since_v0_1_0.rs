//! The WIT package `snaphook:hook@0.1.0`: maps its functions to the session, which is the same for every version.

use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use snaphook_driver::{Json, time};
use wasmtime::component::{ComponentExportIndex, HasSelf, Instance, Linker};
use wasmtime::{AsContextMut, Result};

use super::wasi_http::Extra;
use crate::config::Phase;
use crate::hooks::access::{self, AccessCode};
use crate::hooks::context::{self, Failure, FailureCause, LogLevel, Outcome};
use crate::hooks::engines::wasm::{SandboxState, capability};
use crate::hooks::session::{HttpRequest, ProcessCommand, Redirect};

// The world with every import. The other world's export is called without generated code, because a component may have
// either.
wasmtime::component::bindgen!({
    path: "wit/since_v0_1_0",
    world: "post-hook",
    imports: { default: async | trappable },
    exports: { default: async },
});

use self::snaphook::hook::types::{
    self, AccessError, EventRef, Instance as HookInstance, ModelRef, Rejection, Verdict,
};
use self::snaphook::hook::{http, log, process, read, secret, write};

/// The version in import names.
pub(super) const VERSION: &str = "0.1.0";

/// The host state of a store.
type Host = SandboxState<Extra>;

/// Links everything that either world may import. The session rejects calls that the phase or the grants do not allow.
pub(super) fn link(linker: &mut Linker<Host>) -> Result<()> {
    PostHook::add_to_linker::<Host, HasSelf<Host>>(linker, |state| state)
}

/// Checks the handler's type.
pub(super) fn check(
    store: impl AsContextMut<Data = Host>,
    instance: &Instance,
    handler: &ComponentExportIndex,
    phase: Phase,
) -> Result<()> {
    if phase.is_pre() {
        instance.get_typed_func::<(Context,), (Result<Verdict, Rejection>,)>(store, handler).map(drop)
    } else {
        instance.get_typed_func::<(Context,), (Result<(), String>,)>(store, handler).map(drop)
    }
}

/// Calls the handler. Amended data is not checked here, so it may be invalid JSON.
pub(super) async fn call(
    mut store: impl AsContextMut<Data = Host> + Send,
    instance: &Instance,
    handler: &ComponentExportIndex,
    context: &context::Context,
) -> Result<Outcome> {
    let arguments = (to_guest(context),);
    if context.phase.is_pre() {
        let check = instance.get_typed_func::<(Context,), (Result<Verdict, Rejection>,)>(&mut store, handler)?;
        let (answer,) = check.call_async(&mut store, arguments).await?;
        return Ok(match answer {
            Ok(Verdict::Accept) => Outcome::Accept,
            Ok(Verdict::Amend(data)) => Outcome::Amend(Json::trusted(data)),
            Err(rejection) => rejected(rejection),
        });
    }
    let react = instance.get_typed_func::<(Context,), (Result<(), String>,)>(&mut store, handler)?;
    let (answer,) = react.call_async(&mut store, arguments).await?;
    Ok(match answer {
        Ok(()) => Outcome::Accept,
        Err(message) => failed(FailureCause::Exception, message),
    })
}

fn rejected(rejection: Rejection) -> Outcome {
    let fields = rejection.fields.into_iter();
    let fields = fields.map(|field| context::FieldError { pointer: field.pointer, message: field.message }).collect();
    Outcome::Reject(context::Rejection { message: rejection.message, fields })
}

fn failed(cause: FailureCause, message: String) -> Outcome {
    Outcome::Failed(Failure { cause, message, limit: None })
}

pub(super) fn to_guest(context: &context::Context) -> Context {
    let text = |json: &Option<Json>| json.as_ref().map(|json| json.as_str().to_owned());
    Context {
        phase: match context.phase {
            Phase::PreCreate => types::Phase::PreCreate,
            Phase::PostCreate => types::Phase::PostCreate,
            Phase::PreUpdate => types::Phase::PreUpdate,
            Phase::PostUpdate => types::Phase::PostUpdate,
            Phase::PreDelete => types::Phase::PreDelete,
            Phase::PostDelete => types::Phase::PostDelete,
        },
        model: ModelRef { id: context.model.clone(), version: context.model_version },
        id: context.instance.clone(),
        before: text(&context.before),
        after: text(&context.after),
        actor: context.actor_text(),
        request_id: context.request_id.clone(),
        time: time::format(context.time),
        event: context.event.as_ref().map(|event| EventRef { position: event.position, id: event.id.clone() }),
        attempt: context.attempt,
    }
}

impl From<access::AccessError> for AccessError {
    fn from(error: access::AccessError) -> Self {
        AccessError { code: error.code.as_str().into(), message: error.message }
    }
}

impl types::Host for Host {}

impl log::Host for Host {
    async fn write(&mut self, level: log::Level, message: String) -> Result<()> {
        let level = match level {
            log::Level::Debug => LogLevel::Debug,
            log::Level::Info => LogLevel::Info,
            log::Level::Warn => LogLevel::Warn,
            log::Level::Error => LogLevel::Error,
        };
        self.write_log(level, message)
    }
}

/// An instance as the session serialises it.
#[derive(Deserialize)]
struct Stored<'a> {
    id: String,
    model: String,
    model_version: u64,
    revision: u64,
    position: u64,
    created_at: String,
    updated_at: String,
    #[serde(borrow)]
    data: &'a RawValue,
}

impl From<Stored<'_>> for HookInstance {
    fn from(stored: Stored<'_>) -> Self {
        HookInstance {
            id: stored.id,
            model: stored.model,
            model_version: stored.model_version,
            revision: stored.revision,
            position: stored.position,
            created_at: stored.created_at,
            updated_at: stored.updated_at,
            data: stored.data.get().to_owned(),
        }
    }
}

fn instance(text: &str) -> Result<HookInstance, AccessError> {
    snaphook_driver::json::typed::<Stored<'_>>(text).map(HookInstance::from).map_err(unreadable)
}

/// The error for the session's own JSON: this only happens if the server has a bug.
fn unreadable(error: serde_json::Error) -> AccessError {
    access::AccessError::new(AccessCode::Failed, format!("the server's response cannot be read: {error}")).into()
}

impl read::Host for Host {
    async fn get(&mut self, model: String, id: String) -> Result<Result<Option<HookInstance>, AccessError>> {
        let found = capability(self, async |session| session.read_get(&model, &id).await).await?;
        Ok(match found {
            Ok(found) => found.as_deref().map(instance).transpose(),
            Err(error) => Err(error.into()),
        })
    }

    async fn query(&mut self, model: String, query: String) -> Result<Result<read::Page, AccessError>> {
        #[derive(Deserialize)]
        struct QueryPage<'a> {
            #[serde(borrow)]
            items: Vec<Stored<'a>>,
            next: Option<String>,
        }
        let found = capability(self, async |session| session.read_query(&model, &query).await).await?;
        Ok(found.map_err(AccessError::from).and_then(|text| {
            let QueryPage { items, next } = snaphook_driver::json::typed(&text).map_err(unreadable)?;
            Ok(read::Page { items: items.into_iter().map(HookInstance::from).collect(), next })
        }))
    }

    async fn event(&mut self, position: u64) -> Result<Result<Option<String>, AccessError>> {
        let found = capability(self, async |session| session.read_event(position).await).await?;
        Ok(found.map_err(AccessError::from))
    }
}

impl write::Host for Host {
    async fn create(
        &mut self,
        model: String,
        id: Option<String>,
        data: String,
        expected: Option<u64>,
    ) -> Result<Result<HookInstance, AccessError>> {
        if expected.is_some_and(|expected| expected > 0) {
            let message = "an instance that is created has no position yet, so only 0 can be expected";
            return Ok(Err(access::AccessError::new(AccessCode::Invalid, message).into()));
        }
        let written = capability(self, async |session| session.write_create(&model, id.as_deref(), &data).await);
        Ok(written.await?.map_err(AccessError::from).and_then(|text| instance(&text)))
    }

    async fn update(
        &mut self,
        model: String,
        id: String,
        data: String,
        expected: Option<u64>,
    ) -> Result<Result<HookInstance, AccessError>> {
        let written = capability(self, async |session| session.write_update(&model, &id, &data, expected).await);
        Ok(written.await?.map_err(AccessError::from).and_then(|text| instance(&text)))
    }

    async fn delete(
        &mut self,
        model: String,
        id: String,
        expected: Option<u64>,
    ) -> Result<Result<HookInstance, AccessError>> {
        let written = capability(self, async |session| session.write_delete(&model, &id, expected).await);
        Ok(written.await?.map_err(AccessError::from).and_then(|text| instance(&text)))
    }
}

impl http::Host for Host {
    async fn send(&mut self, request: http::Request) -> Result<Result<http::Response, AccessError>> {
        let request = HttpRequest {
            method: request.method,
            url: request.url,
            headers: request.headers,
            body: request.body,
            timeout: request.timeout_ms.map(Duration::from_millis),
            redirect: match request.redirect {
                http::Redirect::Follow => Redirect::Follow,
                http::Redirect::Manual => Redirect::Manual,
                http::Redirect::Error => Redirect::Error,
            },
        };
        let answer = capability(self, async |session| session.http_send(request).await).await?;
        Ok(answer.map_err(AccessError::from).map(|response| http::Response {
            status: response.status,
            url: response.url,
            redirected: response.redirected,
            headers: response.headers,
            body: response.body,
        }))
    }
}

impl process::Host for Host {
    async fn run(&mut self, command: process::Command) -> Result<Result<process::Output, AccessError>> {
        let command = ProcessCommand {
            program: command.program,
            args: command.args,
            stdin: command.stdin,
            env: command.env,
            timeout: command.timeout_ms.map(Duration::from_millis),
        };
        let output = capability(self, async |session| session.process_run(command).await).await?;
        Ok(output.map_err(AccessError::from).map(|output| process::Output {
            code: output.code,
            stdout: output.stdout,
            stderr: output.stderr,
        }))
    }
}

impl secret::Host for Host {
    async fn get(&mut self, name: String) -> Result<Result<String, AccessError>> {
        let value = capability(self, async |session| session.secret_get(&name).await).await?;
        Ok(value.map_err(AccessError::from))
    }
}
