//! The only place that knows which versions of the WIT package exist, and selects one.
//!
//! Each version is a module with the same functions. Only the newest contains logic: an older one converts whatever
//! differs and calls the newest one's functions, so that all of them use the same session.

use wasmtime::component::{ComponentExportIndex, Instance, Linker};
use wasmtime::{AsContextMut, Result};

#[cfg(test)]
use super::since_v0_0_9;
use super::since_v0_1_0;
use super::wasi_http::Extra;
use crate::config::Phase;
use crate::hooks::context::{Context, Outcome};
use crate::hooks::engines::wasm::SandboxState;

/// A version of `snaphook:hook` that this build supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V0_1_0,
    /// Never released: it tests that older versions can be supported.
    #[cfg(test)]
    V0_0_9,
}

impl Version {
    /// Used for components that import nothing from the package and therefore name no version.
    pub(super) const NEWEST: Version = Version::V0_1_0;

    /// The newest first.
    const ALL: &[Version] = &[
        Version::V0_1_0,
        #[cfg(test)]
        Version::V0_0_9,
    ];

    /// The version in import names.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Version::V0_1_0 => since_v0_1_0::VERSION,
            #[cfg(test)]
            Version::V0_0_9 => since_v0_0_9::VERSION,
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Version> {
        Version::ALL.iter().copied().find(|version| version.as_str() == name)
    }

    /// All versions, for messages.
    pub(super) fn names() -> String {
        Version::ALL.iter().map(|version| version.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// Links its functions, for either world.
    pub(super) fn link(self, linker: &mut Linker<SandboxState<Extra>>) -> Result<()> {
        match self {
            Version::V0_1_0 => since_v0_1_0::link(linker),
            #[cfg(test)]
            Version::V0_0_9 => since_v0_0_9::link(linker),
        }
    }

    /// Checks the handler's type.
    pub(super) fn check(
        self,
        store: impl AsContextMut<Data = SandboxState<Extra>>,
        instance: &Instance,
        handler: &ComponentExportIndex,
        phase: Phase,
    ) -> Result<()> {
        match self {
            Version::V0_1_0 => since_v0_1_0::check(store, instance, handler, phase),
            #[cfg(test)]
            Version::V0_0_9 => since_v0_0_9::check(store, instance, handler),
        }
    }

    /// Calls the handler.
    pub(super) async fn call(
        self,
        store: impl AsContextMut<Data = SandboxState<Extra>> + Send,
        instance: &Instance,
        handler: &ComponentExportIndex,
        context: &Context,
    ) -> Result<Outcome> {
        match self {
            Version::V0_1_0 => since_v0_1_0::call(store, instance, handler, context).await,
            #[cfg(test)]
            Version::V0_0_9 => since_v0_0_9::call(store, instance, handler, context).await,
        }
    }
}

/// The function that handles a phase.
pub(super) const fn handler_name(phase: Phase) -> &'static str {
    if phase.is_pre() { "check" } else { "react" }
}

/// The world that exports it.
pub(super) const fn world_name(phase: Phase) -> &'static str {
    if phase.is_pre() { "pre-hook" } else { "post-hook" }
}
