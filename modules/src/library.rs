//! The boundary to a module's code: loads it, reads its descriptor and calls it. No other file runs it.
//!
//! A library is never unloaded: it may have left threads, thread-local destructors and exit handlers behind, which
//! would then run code that is no longer mapped.
#![expect(unsafe_code, reason = "runs code of libraries that the server's owner names in the configuration")]

use std::error::Error as _;
use std::ffi::c_void;
use std::mem::{ManuallyDrop, MaybeUninit, offset_of};
use std::path::Path;

use snaphook_foreign::{Thrown, guarded, may_be_code};
use snaphook_module_abi as abi;

use abi::{ABI_VERSION, Bytes, Config, ConnectionInfo, Descriptor, Entry, SYMBOL, Setting, Text};

/// Longest name or version.
const TEXT_BYTES_MAX: usize = 200;

/// The flags that this server knows.
const FLAGS: u32 = abi::BLOCKING | abi::REQUEST_WHOLE | abi::RESPONSE_WHOLE;

/// State that a module created; opaque to the server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OpaqueState(*mut c_void);

// SAFETY: the header says that state is used from any thread, though not by two hooks at once.
unsafe impl Send for OpaqueState {}
// SAFETY: as above; whoever shares state ensures that hooks do not overlap.
unsafe impl Sync for OpaqueState {}

impl OpaqueState {
    pub(crate) const NONE: OpaqueState = OpaqueState(std::ptr::null_mut());

    pub(crate) fn is_none(self) -> bool {
        self.0.is_null()
    }
}

/// A hook of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestHook {
    BeforeRequest,
    Request,
    /// With the status of the error.
    RequestError(u16),
    Response,
}

impl RequestHook {
    pub const fn name(self) -> &'static str {
        match self {
            RequestHook::BeforeRequest => "before_request",
            RequestHook::Request => "request",
            RequestHook::RequestError(_) => "request_error",
            RequestHook::Response => "response",
        }
    }
}

/// A filter of a body or a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filter {
    RequestBody,
    ResponseBody,
    ConnectionRead,
    ConnectionWrite,
}

/// A loaded library and its descriptor.
pub(crate) struct Library {
    /// The name in the descriptor.
    pub(crate) name: String,
    pub(crate) version: String,
    descriptor: Descriptor,
    /// Never dropped, so the functions of the descriptor stay valid.
    _code: ManuallyDrop<libloading::Library>,
}

// SAFETY: a descriptor is constant, and the header says that its functions may be called from any thread.
unsafe impl Send for Library {}
// SAFETY: as above.
unsafe impl Sync for Library {}

impl Library {
    /// Loads a file, which runs its initialisers, and reads its descriptor, version and size first. The error is a
    /// sentence about the library.
    pub(crate) fn load(path: &Path) -> Result<Library, String> {
        // SAFETY: loading runs code of the file; the admin permits that by naming it in the configuration.
        let code = unsafe { open_local(path) }.map_err(|error| {
            let error = error.source().map_or_else(|| error.to_string(), ToString::to_string);
            // The path is that of a private copy, which would not help the reader.
            format!("it cannot be loaded: {}", error.replace(&path.display().to_string(), "it"))
        })?;
        let code = ManuallyDrop::new(code);
        // SAFETY: the header says that a symbol of this name is a function of this type.
        let entry: Entry = *unsafe { code.get::<Entry>(SYMBOL.as_bytes()) }.map_err(|_| {
            format!(
                "it does not export `{SYMBOL}`, so it is not a module; see `snaphook_module.h`, or use \
                 `snaphook_module::export_module!` in Rust"
            )
        })?;
        check_code(SYMBOL, entry as usize)?;
        let mut descriptor = std::ptr::null();
        guarded(&mut || descriptor = entry()).map_err(|Thrown| format!("`{SYMBOL}` panicked or threw an exception"))?;
        // SAFETY: a library that exports the symbol keeps its descriptor valid while the library is loaded.
        let descriptor = unsafe { read_descriptor(descriptor) }?;
        functions(&descriptor)
            .into_iter()
            .filter(|(_, address)| *address != 0)
            .try_for_each(|(name, address)| check_code(&format!("`{name}` in the descriptor"), address))?;
        if descriptor.factory.is_none() || descriptor.recycler.is_none() {
            return Err("its descriptor lacks `factory` or `recycler`".to_owned());
        }
        if descriptor.flags & !FLAGS != 0 {
            let unknown = descriptor.flags & !FLAGS;
            return Err(format!(
                "it needs features that this server does not know (flags {unknown:#x}); use a newer server"
            ));
        }
        Ok(Library {
            // SAFETY: the header says that everything the descriptor points to is valid while the library is loaded.
            name: unsafe { read_text("name", descriptor.name) }?,
            // SAFETY: as above.
            version: unsafe { read_text("version", descriptor.version) }?,
            descriptor,
            _code: code,
        })
    }

    pub(crate) fn has_flag(&self, flag: u32) -> bool {
        self.descriptor.flags & flag != 0
    }

    pub(crate) fn has_hook(&self, hook: RequestHook) -> bool {
        match hook {
            RequestHook::BeforeRequest => self.descriptor.before_request.is_some(),
            RequestHook::Request => self.descriptor.request.is_some(),
            RequestHook::RequestError(_) => self.descriptor.request_error.is_some(),
            RequestHook::Response => self.descriptor.response.is_some(),
        }
    }

    pub(crate) fn has_filter(&self, filter: Filter) -> bool {
        match filter {
            Filter::RequestBody => self.descriptor.request_body.is_some(),
            Filter::ResponseBody => self.descriptor.response_body.is_some(),
            Filter::ConnectionRead => self.descriptor.connection_read.is_some(),
            Filter::ConnectionWrite => self.descriptor.connection_write.is_some(),
        }
    }

    /// Whether the library has hooks for connections or keeps state of them.
    pub(crate) fn has_connections(&self) -> bool {
        let Descriptor { connection_open, connection_start, connection_end, .. } = self.descriptor;
        connection_open.is_some()
            || connection_start.is_some()
            || connection_end.is_some()
            || self.has_filter(Filter::ConnectionRead)
            || self.has_filter(Filter::ConnectionWrite)
    }

    pub(crate) fn make(&self, host: &'static abi::Host) -> Result<OpaqueState, Thrown> {
        let mut made = OpaqueState::NONE;
        if let Some(factory) = self.descriptor.factory {
            guarded(&mut || made = OpaqueState(factory(host)))?;
        }
        Ok(made)
    }

    pub(crate) fn recycle(&self, module: OpaqueState) -> Result<(), Thrown> {
        match self.descriptor.recycler {
            Some(recycler) => guarded(&mut || recycler(module.0)),
            None => Ok(()),
        }
    }

    pub(crate) fn activate(&self, module: OpaqueState, config: &Config) -> Result<u32, Thrown> {
        let mut result = abi::OK;
        if let Some(activate) = self.descriptor.activate {
            guarded(&mut || result = activate(module.0, config))?;
        }
        Ok(result)
    }

    pub(crate) fn config_change(&self, module: OpaqueState, config: &Config) -> Result<u32, Thrown> {
        let mut result = abi::OK;
        if let Some(change) = self.descriptor.config_change {
            guarded(&mut || result = change(module.0, config))?;
        }
        Ok(result)
    }

    pub(crate) fn deactivate(&self, module: OpaqueState) -> Result<(), Thrown> {
        match self.descriptor.deactivate {
            Some(deactivate) => guarded(&mut || deactivate(module.0)),
            None => Ok(()),
        }
    }

    /// Creates the state of a connection. A library without a function for that uses the module's state.
    pub(crate) fn connection_open(
        &self,
        module: OpaqueState,
        peer: &str,
        is_secure: bool,
    ) -> Result<OpaqueState, Thrown> {
        let Some(open) = self.descriptor.connection_open else { return Ok(module) };
        let info = ConnectionInfo {
            struct_size: size_of::<ConnectionInfo>() as u32,
            is_secure: is_secure.into(),
            peer: text(peer),
        };
        let mut made = OpaqueState::NONE;
        guarded(&mut || made = OpaqueState(open(module.0, &info)))?;
        Ok(made)
    }

    pub(crate) fn connection_close(&self, connection: OpaqueState) -> Result<(), Thrown> {
        match (self.descriptor.connection_open, self.descriptor.connection_close) {
            (Some(_), Some(close)) => guarded(&mut || close(connection.0)),
            _ => Ok(()),
        }
    }

    pub(crate) fn connection_start(&self, connection: OpaqueState, output: usize) -> Result<u32, Thrown> {
        let mut result = abi::DECLINED;
        if let Some(start) = self.descriptor.connection_start {
            guarded(&mut || result = start(connection.0, handle(output)))?;
        }
        Ok(result)
    }

    pub(crate) fn connection_end(&self, connection: OpaqueState) -> Result<u32, Thrown> {
        let mut result = abi::DECLINED;
        if let Some(end) = self.descriptor.connection_end {
            guarded(&mut || result = end(connection.0))?;
        }
        Ok(result)
    }

    /// Creates the state of a request; `None` if the library failed to. A library without a function for that uses the
    /// connection's state or, without one, the module's.
    pub(crate) fn request_open(
        &self,
        module: OpaqueState,
        connection: OpaqueState,
        exchange: usize,
    ) -> Result<Option<OpaqueState>, Thrown> {
        let Some(open) = self.descriptor.request_open else {
            return Ok(Some(if connection.is_none() { module } else { connection }));
        };
        // Without `connection_open`, the state of a connection is the module's.
        let connection = if self.descriptor.connection_open.is_some() { connection } else { OpaqueState::NONE };
        let mut made = OpaqueState::NONE;
        guarded(&mut || made = OpaqueState(open(module.0, connection.0, handle(exchange))))?;
        Ok((!made.is_none()).then_some(made))
    }

    /// Whether the state of a request has to be closed.
    pub(crate) fn closes_requests(&self) -> bool {
        self.descriptor.request_open.is_some() && self.descriptor.request_close.is_some()
    }

    pub(crate) fn request_close(&self, request: OpaqueState) -> Result<(), Thrown> {
        match self.descriptor.request_close {
            Some(close) if self.closes_requests() => guarded(&mut || close(request.0)),
            _ => Ok(()),
        }
    }

    pub(crate) fn call(&self, hook: RequestHook, request: OpaqueState, exchange: usize) -> Result<u32, Thrown> {
        let mut result = abi::DECLINED;
        let exchange = handle(exchange);
        let Descriptor { before_request, request: make, request_error, response, .. } = self.descriptor;
        match hook {
            RequestHook::BeforeRequest => {
                with(before_request, |call| guarded(&mut || result = call(request.0, exchange)))
            }
            RequestHook::Request => with(make, |call| guarded(&mut || result = call(request.0, exchange))),
            RequestHook::RequestError(status) => {
                with(request_error, |call| guarded(&mut || result = call(request.0, exchange, status.into())))
            }
            RequestHook::Response => with(response, |call| guarded(&mut || result = call(request.0, exchange))),
        }?;
        Ok(result)
    }

    pub(crate) fn filter(
        &self,
        filter: Filter,
        state: OpaqueState,
        bytes: &[u8],
        is_last: bool,
        output: usize,
    ) -> Result<u32, Thrown> {
        let function = match filter {
            Filter::RequestBody => self.descriptor.request_body,
            Filter::ResponseBody => self.descriptor.response_body,
            Filter::ConnectionRead => self.descriptor.connection_read,
            Filter::ConnectionWrite => self.descriptor.connection_write,
        };
        let bytes = Bytes { ptr: bytes.as_ptr(), len: bytes.len() };
        let mut result = abi::DECLINED;
        with(function, |call| guarded(&mut || result = call(state.0, bytes, is_last.into(), handle(output))))?;
        Ok(result)
    }
}

fn with<F>(function: Option<F>, call: impl FnOnce(F) -> Result<(), Thrown>) -> Result<(), Thrown> {
    function.map_or(Ok(()), call)
}

/// A handle is a number that the host knows, in the form of a pointer that is never dereferenced.
fn handle<T>(number: usize) -> *mut T {
    std::ptr::without_provenance_mut(number)
}

/// The contents of a [`Config`] for a module.
pub(crate) struct Told<'a> {
    pub(crate) module_name: &'a str,
    pub(crate) json: &'a str,
    pub(crate) settings: &'a [(String, String)],
}

/// Runs `work` with a configuration in the form of the C ABI, which is valid only during the call.
pub(crate) fn with_config<T>(told: &Told<'_>, work: impl FnOnce(&Config) -> T) -> T {
    let platform = format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH);
    let settings: Vec<Setting> =
        told.settings.iter().map(|(key, value)| Setting { key: text(key), value: text(value) }).collect();
    work(&Config {
        struct_size: size_of::<Config>() as u32,
        api_version: 1,
        server_name: text("Snaphook"),
        server_version: text(env!("CARGO_PKG_VERSION")),
        platform: text(&platform),
        module_name: text(told.module_name),
        json: text(told.json),
        settings: settings.as_ptr(),
        settings_len: settings.len(),
    })
}

fn text(text: &str) -> Text {
    Text { ptr: text.as_ptr().cast(), len: text.len() }
}

#[cfg(unix)]
unsafe fn open_local(path: &Path) -> Result<libloading::Library, libloading::Error> {
    use libloading::os::unix;
    // Resolve all symbols now, so that missing ones are reported now, and make none visible to other libraries.
    // SAFETY: as required of the caller.
    unsafe { unix::Library::open(Some(path), unix::RTLD_NOW | unix::RTLD_LOCAL) }.map(Into::into)
}

#[cfg(not(unix))]
unsafe fn open_local(path: &Path) -> Result<libloading::Library, libloading::Error> {
    // SAFETY: as required of the caller.
    unsafe { libloading::Library::new(path) }
}

/// # Safety
///
/// `descriptor` is null or what the entry function of a loaded library returned.
unsafe fn read_descriptor(descriptor: *const Descriptor) -> Result<Descriptor, String> {
    if descriptor.is_null() {
        return Err(format!("`{SYMBOL}` returned no descriptor"));
    }
    let start = descriptor.cast::<u8>();
    // SAFETY: whatever the version, a descriptor begins with these two numbers.
    let (version, size) = unsafe {
        let number = |offset: usize| start.add(offset).cast::<u32>().read_unaligned();
        (number(offset_of!(Descriptor, abi_version)), number(offset_of!(Descriptor, struct_size)) as usize)
    };
    if version != ABI_VERSION {
        return Err(format!(
            "it was built for version {version} of the interface, this server has {ABI_VERSION}; rebuild it with this \
             server's `snaphook_module.h` or `snaphook-module`"
        ));
    }
    let least = offset_of!(Descriptor, activate);
    if size < least {
        return Err(format!(
            "its descriptor has {size} bytes, expected at least {least}: `struct_size` must be `sizeof(snaphook_module)`"
        ));
    }
    let mut read = MaybeUninit::<Descriptor>::zeroed();
    // SAFETY: the library says that the descriptor has that many bytes. Fields that an older library lacks stay zero,
    // which is a valid value of every field and means an absent function.
    unsafe {
        let known = size.min(size_of::<Descriptor>());
        std::ptr::copy_nonoverlapping(start, read.as_mut_ptr().cast::<u8>(), known);
        Ok(read.assume_init())
    }
}

/// # Safety
///
/// `text` is from the descriptor of a loaded library.
unsafe fn read_text(field: &str, text: Text) -> Result<String, String> {
    if text.ptr.is_null() || text.len == 0 || text.len > TEXT_BYTES_MAX {
        return Err(format!("its descriptor has no `{field}` of 1 to {TEXT_BYTES_MAX} bytes"));
    }
    // SAFETY: the header says that there are `len` bytes of text.
    let bytes = unsafe { std::slice::from_raw_parts(text.ptr.cast::<u8>(), text.len) };
    Ok(String::from_utf8_lossy(bytes).into_owned())
}

/// The functions of a descriptor with their addresses; 0: absent.
fn functions(descriptor: &Descriptor) -> Vec<(&'static str, usize)> {
    macro_rules! addresses {
        ($($field:ident),*) => {
            vec![$((stringify!($field), descriptor.$field.map_or(0, |function| function as usize))),*]
        };
    }
    addresses![
        factory,
        recycler,
        activate,
        deactivate,
        config_change,
        connection_open,
        connection_close,
        connection_start,
        connection_end,
        connection_read,
        connection_write,
        request_open,
        request_close,
        before_request,
        request,
        request_error,
        response,
        request_body,
        response_body
    ]
}

/// Checks that an address is code: calling data would crash the process.
fn check_code(what: &str, address: usize) -> Result<(), String> {
    match may_be_code(address) {
        true => Ok(()),
        false => Err(format!("{what} is data, expected a function; see `snaphook_module.h`")),
    }
}
