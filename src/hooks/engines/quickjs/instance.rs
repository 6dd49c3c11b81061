//! The exports of the runner's module, and one instance of it.

use wasmtime::{Memory, Module, ModuleExport};

pub(super) const WASM_PAGE_BYTES: usize = 64 << 10;

/// Invalid UTF-8 is the guest's fault; it is replaced.
pub(super) fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

pub(super) fn outside() -> wasmtime::Error {
    wasmtime::format_err!("it named an address outside of its memory")
}

/// The indexes of the exports that each run uses.
pub(super) struct Exports {
    pub(super) memory: ModuleExport,
    pub(super) alloc: ModuleExport,
    pub(super) run: ModuleExport,
}

impl Exports {
    pub(super) fn of(module: &Module) -> wasmtime::Result<Exports> {
        let export = |name: &str| {
            module.get_export_index(name).ok_or_else(|| wasmtime::format_err!("it has no export `{name}`"))
        };
        Ok(Exports { memory: export("memory")?, alloc: export("alloc")?, run: export("run")? })
    }
}

/// An instance in a store.
#[derive(Clone, Copy)]
pub(super) struct Guest {
    pub(super) instance: wasmtime::Instance,
    pub(super) memory: Memory,
}
