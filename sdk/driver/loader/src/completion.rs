//! The function that libraries call to answer.
#![expect(unsafe_code, reason = "reads the response that a library gives")]

use snaphook_driver_abi::{Bytes, Completion};

use crate::{calls, library};

/// Longest response: several times the largest page of a store.
const RESPONSE_BYTES_MAX: usize = 256 << 20;

/// Returns the completion for a call.
pub(crate) fn of(call: u64) -> Completion {
    Completion { call, complete }
}

/// `call` is not trusted: it may be any number.
extern "C" fn complete(call: u64, status: u32, response: Bytes) {
    let copy = || {
        // SAFETY: the header requires that a response stays valid until this function returns. It is only read if the
        // call waits for a response.
        unsafe { library::copy(response, RESPONSE_BYTES_MAX) }
    };
    calls::complete(call, status, copy);
}
