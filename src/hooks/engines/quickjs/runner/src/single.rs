//! Statics of a module with one thread.

#![expect(unsafe_code, reason = "what one thread has for itself")]

use core::ops::Deref;

/// A static that need not be shared between threads.
pub(crate) struct Single<T>(T);

#[cfg(target_feature = "atomics")]
compile_error!("`Single` relies on there being one thread");

// SAFETY: WebAssembly without atomics has one thread, so no other one can get at the value.
unsafe impl<T> Sync for Single<T> {}

impl<T> Single<T> {
    pub(crate) const fn new(value: T) -> Self {
        Single(value)
    }
}

impl<T> Deref for Single<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}
