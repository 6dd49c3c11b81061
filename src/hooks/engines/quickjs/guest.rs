//! One instance of the runner's module: its exports, and bounds-checked access to its memory.

use wasmtime::{Extern, InstancePre, Linker, Module, ModuleExport, Store, TypedFunc, WasmParams, WasmResults};

use super::delta::Delta;
use super::host::{self, Extra};
use super::image::{Apart, Image};
use super::instance::{Exports, Guest, WASM_PAGE_BYTES, outside, text};
use crate::hooks::context::{Failure, FailureCause};
use crate::hooks::engines::limits::{Broken, COPIED_BYTES_MAX, copied_failure};
use crate::hooks::engines::wasm::{Runtime, SandboxState};

/// Result of `run` if nothing is left that could settle the handler's promise.
const NEVER: u64 = 1;

/// If this bit of the length is set, `compile` returned an error.
const NOT_COMPILED: u64 = 1 << 31;

/// Size of the guest's input buffer; longer parts are allocated separately.
const INPUT_BYTES: usize = 64 << 10;

/// The module, linked for one runtime.
pub(super) struct Code {
    instance: InstancePre<SandboxState<Extra>>,
    pub(super) exports: Exports,
}

impl Code {
    pub(super) fn new(runtime: &Runtime, module: &Module) -> wasmtime::Result<Code> {
        let mut linker = Linker::new(&runtime.engine);
        host::link(&mut linker)?;
        Ok(Code { instance: linker.instantiate_pre(module)?, exports: Exports::of(module)? })
    }
}

type GuestStore = Store<SandboxState<Extra>>;

impl Guest {
    pub(super) async fn new(code: &Code, store: &mut GuestStore) -> wasmtime::Result<Guest> {
        let instance = code.instance.instantiate_async(&mut *store).await?;
        let memory = instance.get_module_export(&mut *store, &code.exports.memory).and_then(Extern::into_memory);
        let memory = memory.ok_or_else(|| wasmtime::format_err!("its memory is none"))?;
        Ok(Guest { instance, memory }.known(store))
    }

    /// An instance for a hook, with a copy of the changes from loading it.
    pub(super) async fn copied(code: &Code, store: &mut GuestStore, delta: &Delta) -> wasmtime::Result<Guest> {
        let guest = Guest::new(code, store).await?;
        let present = guest.memory.data_size(&*store);
        if delta.memory_bytes() > present {
            let pages = (delta.memory_bytes() - present) / WASM_PAGE_BYTES;
            guest.memory.grow_async(&mut *store, pages as u64).await?;
        }
        delta.apply(guest.memory.data_mut(store))?;
        Ok(guest)
    }

    /// The same, with an image.
    pub(super) async fn on_image(code: &Apart, store: &mut GuestStore, image: &Image) -> wasmtime::Result<Guest> {
        let (instance, memory) = code.instance(store, image).await?;
        Ok(Guest { instance, memory }.known(store))
    }

    /// Makes it available to the host's functions.
    fn known(self, store: &mut GuestStore) -> Guest {
        let extra = &mut store.data_mut().extra;
        (extra.memory, extra.guest) = (Some(self.memory), Some(self));
        self
    }

    pub(super) fn bytes<'a>(&self, store: &'a GuestStore) -> &'a [u8] {
        self.memory.data(store)
    }

    pub(super) fn bytes_mut<'a>(&self, store: &'a mut GuestStore) -> &'a mut [u8] {
        self.memory.data_mut(store)
    }

    /// Calls an export by its name.
    pub(super) async fn call<P: WasmParams + Sync, R: WasmResults + Sync>(
        &self,
        store: &mut GuestStore,
        name: &str,
        arguments: P,
    ) -> wasmtime::Result<R> {
        let function: TypedFunc<P, R> = self.instance.get_typed_func(&mut *store, name)?;
        function.call_async(store, arguments).await
    }

    /// Compiles a source. Returns its bytecode, or the error as JSON.
    pub(super) async fn compile(
        &self,
        store: &mut GuestStore,
        source: &str,
    ) -> wasmtime::Result<Result<Vec<u8>, String>> {
        let at = self.put(store, source.as_bytes()).await?;
        let out: u64 = self.call(store, "compile", (at, length(source.as_bytes())?)).await?;
        let bytes = self.take(store, out & !NOT_COMPILED)?;
        Ok(if out & NOT_COMPILED == 0 { Ok(bytes) } else { Err(text(bytes)) })
    }

    /// Loads the result of `compile`, without leaving a copy of it.
    pub(super) async fn load(&self, store: &mut GuestStore, bytecode: &[u8]) -> wasmtime::Result<bool> {
        let at = self.put(store, bytecode).await?;
        let loaded: u32 = self.call(store, "load", (at, length(bytecode)?)).await?;
        self.slice_mut(store, at, bytecode.len())?.fill(0);
        self.call::<_, ()>(store, "release", at).await?;
        Ok(loaded != 0)
    }

    /// The runner's answer for one run. `input`: the address of its input buffer.
    pub(super) async fn run(
        &self,
        store: &mut GuestStore,
        exports: &Exports,
        input: u32,
        [phase, context, marker]: [&str; 3],
    ) -> wasmtime::Result<String> {
        let parts = [phase, context, marker];
        // Each is terminated by a 0.
        let bytes = parts.iter().map(|part| part.len() + 1).sum::<usize>();
        let at: u32 = match bytes <= INPUT_BYTES {
            true => input,
            false => {
                let bytes = u32::try_from(bytes).map_err(|_| wasmtime::format_err!("the context is too long"))?;
                self.export(store, &exports.alloc)?.call_async(&mut *store, bytes).await?
            }
        };
        self.check_allocated(store, at)?;
        let mut rest = self.slice_mut(store, at, bytes)?;
        for part in parts {
            let (place, others) = rest.split_at_mut(part.len() + 1);
            place[..part.len()].copy_from_slice(part.as_bytes());
            place[part.len()] = 0;
            rest = others;
        }
        let run = self.export::<(u32, u32, u32, u32), u64>(store, &exports.run)?;
        let [phase, context, marker] = parts.map(|part| part.len() as u32);
        match run.call_async(&mut *store, (at, phase, context, marker)).await? {
            NEVER => Err(exception(
                "the promise that the handler returned never settles: nothing is left that could settle it",
            )),
            out => Ok(text(self.take(store, out)?)),
        }
    }

    fn export<P: WasmParams, R: WasmResults>(
        &self,
        store: &mut GuestStore,
        export: &ModuleExport,
    ) -> wasmtime::Result<TypedFunc<P, R>> {
        let function = self.instance.get_module_export(&mut *store, export).and_then(Extern::into_func);
        function.ok_or_else(|| wasmtime::format_err!("an export is not a function"))?.typed(&*store)
    }

    /// Copies bytes into memory that the guest allocates.
    pub(super) async fn put(&self, store: &mut GuestStore, bytes: &[u8]) -> wasmtime::Result<u32> {
        // QuickJS requires a terminating 0.
        let at: u32 = self.call(store, "alloc", length(bytes)? + 1).await?;
        self.check_allocated(store, at)?;
        let place = self.slice_mut(store, at, bytes.len() + 1)?;
        place[..bytes.len()].copy_from_slice(bytes);
        place[bytes.len()] = 0;
        Ok(at)
    }

    fn check_allocated(&self, store: &GuestStore, at: u32) -> wasmtime::Result<()> {
        if at == 0 { Err(no_memory(store)) } else { Ok(()) }
    }

    /// Output of the guest: pointer and length in one number.
    pub(super) fn take(&self, store: &GuestStore, out: u64) -> wasmtime::Result<Vec<u8>> {
        let (at, length) = ((out >> 32) as usize, out as u32 as usize);
        if at == 0 {
            return Err(no_memory(store));
        }
        if length > COPIED_BYTES_MAX {
            return Err(wasmtime::Error::new(Broken(copied_failure())));
        }
        let bytes = self.memory.data(store).get(at..).and_then(|rest| rest.get(..length));
        bytes.map(<[u8]>::to_vec).ok_or_else(outside)
    }

    /// Overwrites unused memory with zeros.
    #[cfg(test)]
    pub(super) fn wipe(&self, store: &mut GuestStore, at: u32, length: usize) -> wasmtime::Result<()> {
        self.slice_mut(store, at, length).map(|bytes| bytes.fill(0))
    }

    #[cfg(test)]
    pub(super) async fn grow(&self, store: &mut GuestStore, bytes: usize) -> wasmtime::Result<u64> {
        self.memory.grow_async(store, (bytes / WASM_PAGE_BYTES) as u64).await
    }

    #[cfg(test)]
    pub(super) const fn instance(&self) -> wasmtime::Instance {
        self.instance
    }

    fn slice_mut<'a>(&self, store: &'a mut GuestStore, at: u32, length: usize) -> wasmtime::Result<&'a mut [u8]> {
        let rest = self.memory.data_mut(store).get_mut(at as usize..);
        rest.and_then(|rest| rest.get_mut(..length)).ok_or_else(outside)
    }
}

fn length(bytes: &[u8]) -> wasmtime::Result<u32> {
    u32::try_from(bytes.len()).map_err(|_| wasmtime::format_err!("{} bytes are too many", bytes.len()))
}

fn exception(message: &str) -> wasmtime::Error {
    wasmtime::Error::new(Broken(Failure { cause: FailureCause::Exception, message: message.into(), limit: None }))
}

/// The guest could not even report the error.
fn no_memory(store: &GuestStore) -> wasmtime::Error {
    match store.data().memory_failure() {
        Some(failure) => wasmtime::Error::new(Broken(failure)),
        None => exception("the hook left no memory to report its failure"),
    }
}
