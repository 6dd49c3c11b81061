//! Checks code in the same way as a server.

use std::sync::Arc;

use crate::cli::failure::{Failure, Result};
use crate::cli::output;
use crate::config::{Config, ConfigHandle};
use crate::hooks::engines::{self, Candidate, PreparedCode};
use crate::hooks::host::{HookHost, NOT_SANDBOXED};

/// A host that can check code; nothing runs on it until it is attached to data.
pub(super) fn host(config: &Config) -> HookHost {
    HookHost::new(engines::all(config), ConfigHandle::new(config.clone()).shared())
}

/// Checks code as a server does when it is bound.
pub(super) async fn prepare(host: &HookHost, engine: &str, candidate: Candidate<'_>) -> Result<Arc<dyn PreparedCode>> {
    if host.code.is_native(engine) {
        // Warn first, because loading the code may end this process.
        output::warn(format!(
            "native code is {NOT_SANDBOXED}: it is loaded into this process and can do whatever you can"
        ));
    }
    host.code.prepare(engine, candidate).await.map_err(|error| {
        let place = match (error.line, error.column) {
            (Some(line), Some(column)) => format!(" (line {line}, column {column})"),
            (Some(line), None) => format!(" (line {line})"),
            _ => String::new(),
        };
        Failure::new(format!("the hook cannot be bound: {}{place}", error.message))
    })
}
