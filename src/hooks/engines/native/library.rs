//! The boundary to a library's code: opens it, reads its descriptor and calls it. No other file runs code of a library.
//!
//! A library is never unloaded: it may have left threads, thread-local destructors and exit handlers behind, which
//! would then run code that is no longer mapped. A changed file is loaded as another library beside the old one; the
//! same content is only loaded once.
#![expect(unsafe_code, reason = "runs code of libraries that the server's owner put into the hooks directory")]

use std::error::Error;
use std::mem::{ManuallyDrop, offset_of};
use std::path::Path;

use snaphook_foreign::{Thrown, guarded, may_be_code};
use snaphook_hook_abi::{ABI_VERSION, Context, Descriptor, ENTRY_SYMBOL, Entry, Handler, Host, Text};

use crate::config::Phase;
use crate::hooks::library::NOT_SANDBOXED;

/// Longest name that a library may have.
const NAME_BYTES_MAX: usize = 200;

/// A loaded library.
pub(super) struct Library {
    /// The name that it gives itself.
    pub(super) name: String,
    check: Option<Handler>,
    react: Option<Handler>,
    /// Never dropped, so the functions above stay where they are.
    _code: ManuallyDrop<libloading::Library>,
}

impl Library {
    /// Loads a file, which runs its initialisers, and reads its descriptor. The error is a sentence about the library.
    pub(super) fn open(path: &Path) -> Result<Library, String> {
        // SAFETY: loading runs code of the file; the admin permits that by putting it into the hooks directory.
        let opened = unsafe { open_local(path) };
        let shown = path.display().to_string();
        let code = opened.map_err(|error| {
            // Omit the private copy's name, which means nothing to users.
            let error = error.source().map_or_else(|| error.to_string(), ToString::to_string).replace(&shown, "it");
            format!("the library cannot be loaded: {error}")
        })?;
        Library::of(ManuallyDrop::new(code)).inspect_err(|refusal| tell_refused(refusal))
    }

    fn of(code: ManuallyDrop<libloading::Library>) -> Result<Library, String> {
        // SAFETY: the header says that a symbol of this name is a function of this type.
        let entry = unsafe { code.get::<Entry>(ENTRY_SYMBOL.as_bytes()) };
        let entry: Entry = *entry.map_err(|_| {
            format!(
                "the library does not export `{ENTRY_SYMBOL}`, so it is not a native hook; see `snaphook_hook.h`, or \
                 use `snaphook_hook::export!` in Rust"
            )
        })?;
        check_code(&format!("the symbol `{ENTRY_SYMBOL}`"), entry as usize)?;
        let mut descriptor = std::ptr::null();
        guarded(&mut || descriptor = entry())
            .map_err(|Thrown| format!("`{ENTRY_SYMBOL}` of the library panicked or threw an exception"))?;
        // SAFETY: a library that exports the symbol keeps its descriptor where it is for as long as it is loaded.
        let (name, check, react) = unsafe { describe(descriptor) }?;
        for (function, handler) in [("check", check), ("react", react)] {
            if let Some(handler) = handler {
                check_code(&format!("`{function}` in the descriptor"), handler as usize)?;
            }
        }
        Ok(Library { name, check, react, _code: code })
    }

    /// Its handler for a phase; the error is a sentence.
    pub(super) fn handler(&self, phase: Phase) -> Result<Handler, String> {
        let (handler, name, other) =
            if phase.is_pre() { (self.check, "check", "react") } else { (self.react, "react", "check") };
        handler.ok_or_else(|| {
            let refusal = format!(
                "the library `{}` has no function `{name}`, which `{phase}` needs (it has `{other}`)",
                self.name.escape_debug()
            );
            tell_refused(&refusal);
            refusal
        })
    }
}

/// Checks that an address is code: calling data would crash the process.
fn check_code(what: &str, address: usize) -> Result<(), String> {
    match may_be_code(address) {
        true => Ok(()),
        false => Err(format!("{what} of the library is data, expected a function; see `snaphook_hook.h`")),
    }
}

/// Ends the process without running the exit handlers of libraries: a library that holds the loader's lock would
/// prevent it from ending.
pub(super) fn exit_now(code: i32) -> ! {
    // SAFETY: ends the process and touches no memory of it.
    unsafe { libc::_exit(code) }
}

/// Logs a rejected library: it was loaded to be inspected, and rejecting it does not unload it.
fn tell_refused(refusal: &str) {
    tracing::warn!(
        "a native library was rejected, but stays loaded until the server ends ({NOT_SANDBOXED}): {refusal}"
    );
}

#[cfg(unix)]
unsafe fn open_local(path: &Path) -> Result<libloading::Library, libloading::Error> {
    use libloading::os::unix;
    // Bind all symbols now, so that a missing one is reported now; expose none of them to other libraries. SAFETY: the
    // caller's.
    unsafe { unix::Library::open(Some(path), unix::RTLD_NOW | unix::RTLD_LOCAL) }.map(Into::into)
}

#[cfg(not(unix))]
unsafe fn open_local(path: &Path) -> Result<libloading::Library, libloading::Error> {
    // SAFETY: the caller's.
    unsafe { libloading::Library::new(path) }
}

type Described = (String, Option<Handler>, Option<Handler>);

/// # Safety
///
/// `descriptor` is null or was returned by a library's `snaphook_hook`.
unsafe fn describe(descriptor: *const Descriptor) -> Result<Described, String> {
    if descriptor.is_null() {
        return Err(format!("`{ENTRY_SYMBOL}` of the library returned no descriptor"));
    }
    // SAFETY: whatever the version, a descriptor begins with these two numbers.
    let (version, size) = unsafe {
        let start = descriptor.cast::<u8>();
        let number = |offset: usize| start.add(offset).cast::<u32>().read_unaligned();
        (number(offset_of!(Descriptor, abi_version)), number(offset_of!(Descriptor, struct_size)))
    };
    if version != ABI_VERSION {
        return Err(format!(
            "the library uses version {version} of the interface, this server supports {ABI_VERSION}; build it with \
             this server's `snaphook_hook.h` or `snaphook-hook`"
        ));
    }
    if (size as usize) < size_of::<Descriptor>() {
        return Err(format!(
            "the library's descriptor has {size} bytes, version {version} has {}: `struct_size` must be \
             `sizeof(snaphook_descriptor)`",
            size_of::<Descriptor>()
        ));
    }
    // SAFETY: the version and the size are those of this type.
    let descriptor = unsafe { descriptor.read_unaligned() };
    let Text { ptr, len } = descriptor.name;
    let name = match ptr.is_null() || len > NAME_BYTES_MAX {
        true => return Err(format!("the library's descriptor has no name of 1 to {NAME_BYTES_MAX} bytes")),
        // SAFETY: the header requires that this many bytes of text are valid.
        false => String::from_utf8_lossy(unsafe { std::slice::from_raw_parts(ptr.cast(), len) }).into_owned(),
    };
    if descriptor.check.is_none() && descriptor.react.is_none() {
        return Err(format!("the library `{}` has neither `check` nor `react`", name.escape_debug()));
    }
    Ok((name, descriptor.check, descriptor.react))
}

/// Calls a function of a library on this thread and blocks until it returns.
pub(super) fn call(handler: Handler, call: u64, context: &Context, host: &'static Host) -> Result<(), Thrown> {
    guarded(&mut || handler(call, context, host))
}
