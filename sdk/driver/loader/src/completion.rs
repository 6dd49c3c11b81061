//! What libraries call when they answer.
#![expect(unsafe_code, reason = "reads the response that a library gives")]

use snaphook_driver_abi::{Bytes, Completion};

use crate::{calls, library};

/// Longest response: some times the largest page of a store.
const RESPONSE_BYTES_MAX: usize = 256 << 20;

/// The completion of a call.
pub(crate) fn of(call: u64) -> Completion {
    Completion { call, complete }
}

/// The number may be anything.
extern "C" fn complete(call: u64, status: u32, response: Bytes) {
    let copy = || {
        // SAFETY: as the header says, a response is there until this function returns. It is looked at only if the call
        // is one that waits for a response.
        unsafe { library::copy(response, RESPONSE_BYTES_MAX) }
    };
    calls::complete(call, status, copy);
}
