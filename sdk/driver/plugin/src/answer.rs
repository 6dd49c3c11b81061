//! The completion of a call.

use std::any::Any;

use snaphook_driver::wire::{Method, encode_error};
use snaphook_driver::{DriverError, ErrorKind, Result};
use snaphook_driver_abi::{Bytes, Completion, ERROR, OK};

/// The pending answer to a call. Dropping it answers that the call was cancelled.
pub(crate) struct PendingAnswer {
    /// `None` once the answer has been given.
    completion: Option<Completion>,
    /// The error kind if the outcome is unknown.
    lost: ErrorKind,
}

impl PendingAnswer {
    pub(crate) fn new(completion: Completion) -> PendingAnswer {
        PendingAnswer { completion: Some(completion), lost: ErrorKind::Unexpected }
    }

    /// The answer to a call of that method: if a method that changes something does not finish, its outcome is unknown.
    pub(crate) fn to(self, method: Method) -> PendingAnswer {
        let mut answer = self;
        answer.lost = if method.changes() { ErrorKind::Uncertain } else { ErrorKind::Unexpected };
        answer
    }

    /// The number of the call.
    pub(crate) fn call(&self) -> u64 {
        self.completion.map_or(0, |completion| completion.call)
    }

    pub(crate) fn send(mut self, result: Result<Vec<u8>>) {
        self.complete(result);
    }

    /// Answers after a panic with this payload.
    pub(crate) fn panicked(self, payload: &(dyn Any + Send)) {
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message");
        let error = DriverError::new(self.lost, "call", format!("the driver panicked: {text}"));
        self.send(Err(error));
    }

    fn complete(&mut self, result: Result<Vec<u8>>) {
        let Some(Completion { call, complete }) = self.completion.take() else { return };
        let (status, bytes) = match result {
            Ok(bytes) => (OK, bytes),
            Err(error) => (ERROR, encode_error(&error)),
        };
        complete(call, status, Bytes { ptr: bytes.as_ptr(), len: bytes.len() });
    }
}

impl Drop for PendingAnswer {
    fn drop(&mut self) {
        let message = match std::thread::panicking() {
            true => "the plugin panicked",
            false => "the call was cancelled",
        };
        self.complete(Err(DriverError::new(self.lost, "call", message)));
    }
}
