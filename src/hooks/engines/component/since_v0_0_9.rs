//! A version of the package that only exists in tests: it shows how an old version keeps working. It converts whatever
//! differs and calls the newest version's functions; it makes no decisions.

use wasmtime::component::{ComponentExportIndex, HasSelf, Instance, Linker};
use wasmtime::{AsContextMut, Result};

use super::since_v0_1_0;
use super::since_v0_1_0::snaphook::hook as newest;
use super::wasi_http::Extra;
use crate::hooks::context::{self, Outcome, Rejection};
use crate::hooks::engines::wasm::SandboxState;

wasmtime::component::bindgen!({
    path: "tests/guests/wit/since_v0_0_9",
    world: "pre-hook",
    imports: { default: async | trappable },
    exports: { default: async },
});

use self::snaphook::hook::types::{self, AccessError, Phase};
use self::snaphook::hook::{log, read};

/// The version in import names.
pub(super) const VERSION: &str = "0.0.9";

type Host = SandboxState<Extra>;

/// The result of `check`.
type CheckResult = std::result::Result<Verdict, String>;

pub(super) fn link(linker: &mut Linker<Host>) -> Result<()> {
    PreHook::add_to_linker::<Host, HasSelf<Host>>(linker, |state| state)
}

pub(super) fn check(
    store: impl AsContextMut<Data = Host>,
    instance: &Instance,
    handler: &ComponentExportIndex,
) -> Result<()> {
    instance.get_typed_func::<(Context,), (CheckResult,)>(store, handler).map(drop)
}

pub(super) async fn call(
    mut store: impl AsContextMut<Data = Host> + Send,
    instance: &Instance,
    handler: &ComponentExportIndex,
    context: &context::Context,
) -> Result<Outcome> {
    let check = instance.get_typed_func::<(Context,), (CheckResult,)>(&mut store, handler)?;
    let (answer,) = check.call_async(&mut store, (to_guest(context),)).await?;
    Ok(match answer {
        Ok(Verdict::Accept) => Outcome::Accept,
        Ok(Verdict::Amend(data)) => Outcome::Amend(snaphook_driver::Json::trusted(data)),
        Err(message) => Outcome::Reject(Rejection { message, fields: Vec::new() }),
    })
}

/// Converts the newest context; the model is split into its parts.
fn to_guest(context: &context::Context) -> Context {
    let newest::types::Context { phase, model, id, before, after, actor, request_id, time, attempt, event: _ } =
        since_v0_1_0::to_guest(context);
    let phase = match phase {
        newest::types::Phase::PreCreate => Phase::PreCreate,
        newest::types::Phase::PostCreate => Phase::PostCreate,
        newest::types::Phase::PreUpdate => Phase::PreUpdate,
        newest::types::Phase::PostUpdate => Phase::PostUpdate,
        newest::types::Phase::PreDelete => Phase::PreDelete,
        newest::types::Phase::PostDelete => Phase::PostDelete,
    };
    let (model, model_version) = (model.id, model.version);
    Context { phase, model, model_version, id, before, after, actor, request_id, time, attempt }
}

impl types::Host for Host {}

impl log::Host for Host {
    async fn write(&mut self, level: log::Level, message: String) -> Result<()> {
        let level = match level {
            log::Level::Debug => newest::log::Level::Debug,
            log::Level::Info => newest::log::Level::Info,
            log::Level::Warn => newest::log::Level::Warn,
            log::Level::Error => newest::log::Level::Error,
        };
        newest::log::Host::write(self, level, message).await
    }
}

impl read::Host for Host {
    async fn get(&mut self, model: String, id: String) -> Result<std::result::Result<Option<String>, AccessError>> {
        let found = newest::read::Host::get(self, model, id).await?;
        let refused = |error: newest::types::AccessError| AccessError { code: error.code, message: error.message };
        Ok(found.map(|found| found.map(|instance| instance.data)).map_err(refused))
    }
}
