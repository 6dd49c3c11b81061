//! Memory of the server as slices.
#![expect(unsafe_code, reason = "reads the memory that the server gives through the C ABI")]

use std::ptr::null_mut;
use std::slice;

use snaphook_module_abi as abi;

/// Bytes that the server lends for as long as `_owner` is borrowed; `None` if they are absent.
pub(crate) fn view<T: ?Sized>(_owner: &T, bytes: abi::Bytes) -> Option<&[u8]> {
    // SAFETY: the server keeps what it returns until the hook returns, and no exchange outlives its hook.
    (!bytes.ptr.is_null()).then(|| unsafe { slice::from_raw_parts(bytes.ptr, bytes.len) })
}

/// The headers that `fill` writes; `fill` returns their total number.
pub(crate) fn headers<T: ?Sized>(owner: &T, fill: impl Fn(*mut abi::Header, usize) -> usize) -> Vec<(&[u8], &[u8])> {
    let mut raw: Vec<abi::Header> = Vec::with_capacity(fill(null_mut(), 0));
    let count = fill(raw.as_mut_ptr(), raw.capacity());
    // SAFETY: the server wrote all headers, up to the capacity.
    unsafe { raw.set_len(count.min(raw.capacity())) };
    let bytes = |bytes| view(owner, bytes).unwrap_or_default();
    raw.iter().map(|header| (bytes(header.name), bytes(header.value))).collect()
}
