//! How the server and a component communicate.

use wasmtime::component::{Component, ComponentExportIndex};

use super::command;
use super::versions::{Version, handler_name};
use crate::config::Phase;

/// The interface between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speech {
    /// Through the functions of a version of the WIT package.
    Package(Version),
    /// Through JSON on standard input and output: command.rs.
    Command,
}

impl Speech {
    pub(super) fn name(self) -> String {
        match self {
            Speech::Package(version) => format!("`snaphook:hook@{}`", version.as_str()),
            Speech::Command => "`wasi:cli/run`".to_owned(),
        }
    }

    pub(super) fn handler(self, component: &Component, phase: Phase) -> Option<ComponentExportIndex> {
        match self {
            Speech::Package(_) => component.get_export_index(None, handler_name(phase)),
            Speech::Command => command::handler(component),
        }
    }
}
