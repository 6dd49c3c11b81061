//! A hook's whole memory as a copy-on-write image: a fresh sandbox copies a page when it first writes to it, so the
//! cost of a run does not depend on the size of the state after the top level.
//!
//! The image is a separate module with only a memory, which the runner's module imports. So all hooks share the code.
//! If little changed, copying the changes (delta.rs) takes less time, and less memory per hook.

use wasm_encoder::{
    ConstExpr, DataSection, EntityType, ExportKind, ExportSection, ImportSection, MemorySection, MemoryType, RawSection,
};
use wasmparser::{ExternalKind, Parser, Payload, TypeRef};
use wasmtime::{Extern, Instance, InstancePre, Linker, Memory, Module, ModuleExport, Store};

use super::host::{self, Extra};
use super::instance::{Exports, WASM_PAGE_BYTES};
use crate::hooks::engines::wasm::{Runtime, SandboxState};

/// The name of the memory in both modules.
const MEMORY: &str = "memory";

/// The module name of the import.
const IMAGE: &str = "image";

/// Blocks of zeros of this size are omitted; it is the kernel's page size.
const PAGE_BYTES: usize = 4096;

/// The runner's module without its memory, linked for one runtime.
pub(super) struct Apart {
    module: Module,
    linker: Linker<SandboxState<Extra>>,
    pub(super) exports: Exports,
}

/// The memory image of a hook.
pub(super) struct Image {
    holder: InstancePre<SandboxState<Extra>>,
    memory: ModuleExport,
    bytes: Vec<u8>,
}

impl Apart {
    pub(super) fn new(runtime: &Runtime, module: Module) -> wasmtime::Result<Apart> {
        let mut linker = Linker::new(&runtime.engine);
        host::link(&mut linker)?;
        let exports = Exports::of(&module)?;
        Ok(Apart { module, linker, exports })
    }

    /// An instance of the runner with a fresh copy of the image.
    pub(super) async fn instance(
        &self,
        store: &mut Store<SandboxState<Extra>>,
        image: &Image,
    ) -> wasmtime::Result<(Instance, Memory)> {
        let holder = image.holder.instantiate_async(&mut *store).await?;
        let memory = holder.get_module_export(&mut *store, &image.memory).and_then(Extern::into_memory);
        let memory = memory.ok_or_else(|| wasmtime::format_err!("the image has no memory"))?;
        let mut imports = Vec::with_capacity(self.module.imports().len());
        for import in self.module.imports() {
            imports.push(match import.module() {
                IMAGE => memory.into(),
                _ => self.linker.get_by_import(&mut *store, &import).ok_or_else(|| {
                    wasmtime::format_err!("nothing is linked for `{}` of `{}`", import.name(), import.module())
                })?,
            });
        }
        Ok((Instance::new_async(&mut *store, &self.module, &imports).await?, memory))
    }
}

impl Image {
    /// Creates the image of a memory. Takes some milliseconds.
    pub(super) fn new(runtime: &Runtime, bytes: Vec<u8>) -> wasmtime::Result<Image> {
        let module = Module::new(&runtime.engine, holder(&bytes))?;
        module.initialize_copy_on_write_image()?;
        let memory = module.get_export_index(MEMORY);
        let memory = memory.ok_or_else(|| wasmtime::format_err!("the image has no memory"))?;
        Ok(Image { holder: Linker::new(&runtime.engine).instantiate_pre(&module)?, memory, bytes })
    }

    /// All of the memory.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// A module that consists of a memory with this content.
fn holder(bytes: &[u8]) -> Vec<u8> {
    const NOTHING: [u8; PAGE_BYTES] = [0; PAGE_BYTES];
    let mut memories = MemorySection::new();
    memories.memory(memory_type((bytes.len() / WASM_PAGE_BYTES) as u64, None));
    let mut exports = ExportSection::new();
    exports.export(MEMORY, ExportKind::Memory, 0);
    let mut data = DataSection::new();
    let is_empty = |page: &[u8]| page == &NOTHING[..page.len()];
    let mut pages = bytes.chunks(PAGE_BYTES).enumerate().peekable();
    while let Some((first, page)) = pages.next() {
        if is_empty(page) {
            continue;
        }
        let mut end = first * PAGE_BYTES + page.len();
        while let Some((_, page)) = pages.next_if(|(_, page)| !is_empty(page)) {
            end += page.len();
        }
        let first = first * PAGE_BYTES;
        data.active(0, &ConstExpr::i32_const(first as i32), bytes[first..end].iter().copied());
    }
    let mut module = wasm_encoder::Module::new();
    module.section(&memories).section(&exports).section(&data);
    module.finish()
}

/// The runner's module without its memory: it imports one, and has no data.
pub(super) fn apart(wasm: &[u8]) -> Result<Vec<u8>, String> {
    rewritten(wasm).map_err(|error| format!("the JavaScript runner does not fit this server: {error}"))
}

fn rewritten(wasm: &[u8]) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let payloads: Vec<Payload<'_>> = Parser::new(0).parse_all(wasm).collect::<Result<_, _>>()?;
    let memories = payloads.iter().find_map(|payload| match payload {
        Payload::MemorySection(memories) => Some(memories.clone()),
        _ => None,
    });
    let memory = memories.and_then(|memories| memories.into_iter().next()).ok_or("it has no memory")??;
    let mut module = wasm_encoder::Module::new();
    for payload in &payloads {
        match payload {
            Payload::ImportSection(section) => {
                let mut imports = ImportSection::new();
                for import in section.clone().into_imports() {
                    let import = import?;
                    let TypeRef::Func(index) = import.ty else {
                        return Err("it imports something other than a function".into());
                    };
                    imports.import(import.module, import.name, EntityType::Function(index));
                }
                imports.import(IMAGE, MEMORY, memory_type(memory.initial, memory.maximum));
                module.section(&imports);
            }
            Payload::ExportSection(section) => {
                let mut exports = ExportSection::new();
                for export in section.clone() {
                    let export = export?;
                    let kind = match export.kind {
                        ExternalKind::Func => ExportKind::Func,
                        ExternalKind::Global => ExportKind::Global,
                        ExternalKind::Memory => ExportKind::Memory,
                        ExternalKind::Table => ExportKind::Table,
                        _ => return Err("it exports something of an unknown kind".into()),
                    };
                    exports.export(export.name, kind, export.index);
                }
                module.section(&exports);
            }
            Payload::MemorySection(_) | Payload::DataSection(_) | Payload::DataCountSection { .. } => {}
            Payload::CustomSection(_) => {}
            other => {
                if let Some((id, range)) = other.as_section() {
                    module.section(&RawSection { id, data: &wasm[range.start as usize..range.end as usize] });
                }
            }
        }
    }
    Ok(module.finish())
}

fn memory_type(minimum: u64, maximum: Option<u64>) -> MemoryType {
    MemoryType { minimum, maximum, memory64: false, shared: false, page_size_log2: None }
}
