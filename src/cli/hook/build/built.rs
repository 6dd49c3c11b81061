//! What is built.

// C libraries speak WASI preview 1.
use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME as ADAPTER, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
};

use crate::catalog::SourceLanguage;
use crate::cli::failure::{Failure, Result};

/// One hook.
pub(super) struct Built {
    pub(super) engine: &'static str,
    pub(super) bytes: Vec<u8>,
    pub(super) language: Option<SourceLanguage>,
    /// What takes the most room in it, for those who have to make it smaller.
    pub(super) largest: Vec<String>,
}

/// A library that runs in the server's process.
pub(super) fn native(bytes: Vec<u8>) -> Built {
    Built { engine: "native", bytes, language: None, largest: Vec::new() }
}

/// A component stays as it is, and so does a module that speaks WASI preview 1; a core module that carries its WIT world
/// becomes a component.
pub(super) fn component(module: Vec<u8>) -> Result<Built> {
    let is_core = module.get(4..8) == Some(&[1, 0, 0, 0]);
    let has_world = is_core && module.windows(15).any(|bytes| bytes.starts_with(b"component-type"));
    let bytes = match has_world {
        false => module,
        true => wit_component::ComponentEncoder::default()
            .validate(true)
            .module(&module)
            .and_then(|encoder| encoder.adapter(ADAPTER, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER))
            .and_then(|encoder| encoder.encode())
            .map_err(|error| Failure::new(format!("the module cannot be converted to a component: {error:#}")))?,
    };
    Ok(Built { engine: "component", bytes, language: None, largest: Vec::new() })
}
