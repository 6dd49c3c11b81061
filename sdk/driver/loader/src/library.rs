//! The boundary to a library's code: loads it, reads its description and calls it. No other file runs code of a
//! library.
#![expect(unsafe_code, reason = "runs code of libraries that the server's owner put into the plugins directory")]

use std::error::Error as _;
use std::mem::{ManuallyDrop, offset_of};
use std::path::Path;

use snaphook_driver_abi::{ABI_VERSION, Bytes, Completion, Descriptor, Entry, SYMBOL, Text};
use snaphook_foreign::{Thrown, guarded, may_be_code};

use crate::fault::Fault;

/// Longest name or version.
const TEXT_BYTES_MAX: usize = 200;

/// Longest description.
const DESCRIPTION_BYTES_MAX: usize = 1 << 20;

type OpenFn = extern "C-unwind" fn(Bytes, Completion);
type CallFn = extern "C-unwind" fn(u64, u32, Bytes, Completion);
type CancelFn = extern "C-unwind" fn(u64);

/// A loaded library with the contents of its descriptor.
pub(crate) struct Library {
    pub(crate) name: String,
    pub(crate) version: String,
    /// A `Plugin` message, not yet decoded.
    pub(crate) description: Vec<u8>,
    open: OpenFn,
    call: CallFn,
    cancel: Option<CancelFn>,
    /// Never dropped, so the functions above stay where they are.
    _code: ManuallyDrop<libloading::Library>,
}

impl Library {
    /// Loads a file, which runs its initialisers, and reads its descriptor: the version and the size before all else.
    pub(crate) fn load(path: &Path) -> Result<Library, Fault> {
        // SAFETY: loading runs code of the file; the admin permits that by putting it into the plugins directory.
        let code = unsafe { open_local(path) }.map_err(|error| {
            let error = error.source().map_or_else(|| error.to_string(), ToString::to_string);
            // Remove the file's name: whoever reports the fault adds it.
            Fault::NotLoaded(error.replace(&format!("{}: ", path.display()), ""))
        })?;
        let code = ManuallyDrop::new(code);
        // SAFETY: the header says that a symbol of this name is a function of this type.
        let entry: Entry = *unsafe { code.get::<Entry>(SYMBOL.as_bytes()) }.map_err(|_| Fault::NoSymbol)?;
        check_code(SYMBOL, entry as usize)?;
        let mut descriptor = std::ptr::null();
        guarded(&mut || descriptor = entry()).map_err(|Thrown| Fault::Thrown(SYMBOL))?;
        // SAFETY: a library that exports the symbol does not move its descriptor while it is loaded.
        let descriptor = unsafe { read_descriptor(descriptor) }?;
        let missing = |field| Fault::Field { field, fault: "is null".to_owned() };
        let open = descriptor.open.ok_or_else(|| missing("open"))?;
        let call = descriptor.call.ok_or_else(|| missing("call"))?;
        let functions = [("open", open as usize), ("call", call as usize)];
        let cancel = descriptor.cancel.map(|cancel| ("cancel", cancel as usize));
        functions.into_iter().chain(cancel).try_for_each(|(field, address)| check_code(field, address))?;
        Ok(Library {
            // SAFETY: the header requires that everything the descriptor points to stays valid while the library is
            // loaded.
            name: unsafe { read_text("name", descriptor.name) }?,
            // SAFETY: as above.
            version: unsafe { read_text("version", descriptor.version) }?,
            // SAFETY: as above.
            description: unsafe { read_bytes("description", descriptor.description, DESCRIPTION_BYTES_MAX) }?,
            open,
            call,
            cancel: descriptor.cancel,
            _code: code,
        })
    }

    /// Starts to open a store; blocks this thread until the library returns.
    pub(crate) fn open(&self, request: &[u8], completion: Completion) -> Result<(), Thrown> {
        guarded(&mut || (self.open)(bytes(request), completion))
    }

    /// Starts a call of a method, as [`Library::open`].
    pub(crate) fn call(&self, handle: u64, method: u32, request: &[u8], completion: Completion) -> Result<(), Thrown> {
        guarded(&mut || (self.call)(handle, method, bytes(request), completion))
    }

    pub(crate) fn can_cancel(&self) -> bool {
        self.cancel.is_some()
    }

    /// Tells the library that nobody waits for a call any more, as [`Library::open`].
    pub(crate) fn cancel(&self, call: u64) -> Result<(), Thrown> {
        match self.cancel {
            Some(cancel) => guarded(&mut || cancel(call)),
            None => Ok(()),
        }
    }
}

fn bytes(bytes: &[u8]) -> Bytes {
    Bytes { ptr: bytes.as_ptr(), len: bytes.len() }
}

#[cfg(unix)]
unsafe fn open_local(path: &Path) -> Result<libloading::Library, libloading::Error> {
    use libloading::os::unix;
    // Bind all symbols now, so that a missing one is reported now; expose none of them to other libraries. SAFETY:
    // guaranteed by the caller.
    unsafe { unix::Library::open(Some(path), unix::RTLD_NOW | unix::RTLD_LOCAL) }.map(Into::into)
}

#[cfg(not(unix))]
unsafe fn open_local(path: &Path) -> Result<libloading::Library, libloading::Error> {
    // SAFETY: guaranteed by the caller.
    unsafe { libloading::Library::new(path) }
}

/// # Safety
///
/// `descriptor` is null or what the entry function of a loaded library returned.
unsafe fn read_descriptor(descriptor: *const Descriptor) -> Result<Descriptor, Fault> {
    if descriptor.is_null() {
        return Err(Fault::NoDescriptor);
    }
    // SAFETY: whatever the version, a descriptor begins with these two numbers.
    let (version, size) = unsafe {
        let start = descriptor.cast::<u8>();
        let number = |offset: usize| start.add(offset).cast::<u32>().read_unaligned();
        (number(offset_of!(Descriptor, abi_version)), number(offset_of!(Descriptor, struct_size)))
    };
    if version != ABI_VERSION {
        return Err(Fault::Version { found: version, expected: ABI_VERSION });
    }
    let expected = size_of::<Descriptor>() as u32;
    if size < expected {
        return Err(Fault::Size { found: size, expected });
    }
    // SAFETY: the version and the size are those of this type.
    Ok(unsafe { descriptor.read_unaligned() })
}

/// # Safety
///
/// As [`copy`].
unsafe fn read_bytes(field: &'static str, bytes: Bytes, max: usize) -> Result<Vec<u8>, Fault> {
    if bytes.len == 0 {
        return Err(Fault::Field { field, fault: "is empty".to_owned() });
    }
    // SAFETY: guaranteed by the caller.
    unsafe { copy(bytes, max) }.map_err(|fault| Fault::Field { field, fault })
}

/// # Safety
///
/// As [`copy`].
unsafe fn read_text(field: &'static str, text: Text) -> Result<String, Fault> {
    // SAFETY: guaranteed by the caller.
    let bytes = unsafe { read_bytes(field, Bytes { ptr: text.ptr.cast(), len: text.len }, TEXT_BYTES_MAX) }?;
    String::from_utf8(bytes).map_err(|_| Fault::Field { field, fault: "is not UTF-8".to_owned() })
}

/// Returns the bytes; an error is a clause that describes them.
///
/// # Safety
///
/// If `ptr` is not null, it must point to `len` valid bytes, unless `len` is more than `max`.
pub(crate) unsafe fn copy(bytes: Bytes, max: usize) -> Result<Vec<u8>, String> {
    let Bytes { ptr, len } = bytes;
    match len {
        0 => Ok(Vec::new()),
        _ if ptr.is_null() => Err(format!("is null, with {len} bytes")),
        _ if len > max => Err(format!("has {len} bytes, at most {max} are allowed")),
        // SAFETY: guaranteed by the caller.
        _ => Ok(unsafe { std::slice::from_raw_parts(ptr, len) }.to_vec()),
    }
}

/// Checks that an address is code: calling data would crash the process.
fn check_code(field: &'static str, address: usize) -> Result<(), Fault> {
    match may_be_code(address) {
        true => Ok(()),
        false => Err(Fault::Field { field, fault: "is data, expected a function".to_owned() }),
    }
}
