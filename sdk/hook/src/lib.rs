//! Hooks for Snaphook in Rust.
//!
//! A hook is a type with one trait, [`Hook`], and one line, [`export!`]. The same source is built as a WebAssembly
//! component (`cargo build --target wasm32-wasip2`), which runs in a sandbox, or as a native library (`cargo build`), which
//! does not. Either way the crate type is `cdylib`.
//!
//! ```
//! use serde::{Deserialize, Serialize};
//! use snaphook_hook::{Change, Hook, Reject, Result, Verdict, read};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Order {
//!     total: f64,
//!     customer: String,
//! }
//!
//! struct Check;
//!
//! impl Hook for Check {
//!     type Data = Order;
//!
//!     fn check(change: &Change<Order>) -> Result<Verdict> {
//!         let Some(order) = &change.after else { return Ok(Verdict::Accept) };
//!         if read::get::<serde_json::Value>("customer", &order.customer)?.is_none() {
//!             return Err(Reject::new("unknown customer").field("/customer", "no such customer").into());
//!         }
//!         Ok(Verdict::Accept)
//!     }
//! }
//!
//! snaphook_hook::export!(Check: check);
//! ```
//!
//! [`mock`] is a host for unit tests: the test provides the instances that the hook reads, and inspects what it does.
//!
//! **Digits.** Data crosses the boundary as JSON text. A field of type `f64` is rounded to an `f64`. To amend a few
//! members and keep all others unchanged, digit for digit, use [`Change::amend`]; to pass a number through, use the
//! field type `Box<serde_json::value::RawValue>`.

// In a component a panic ends the sandbox. In a library it must unwind to become a failure of the run.
#[cfg(all(not(target_arch = "wasm32"), panic = "abort"))]
compile_error!(
    "a native hook is built with `panic = \"unwind\"`: with `abort` its panics would end the server; remove `panic = \"abort\"` \
     from the profile, or build with `--config profile.release.panic='unwind'`"
);

mod access;
mod actor;
mod change;
mod data;
mod exchange;
mod run;
mod verdict;

#[cfg(target_arch = "wasm32")]
#[path = "component.rs"]
mod host;
#[cfg(not(target_arch = "wasm32"))]
mod host;
#[cfg(not(target_arch = "wasm32"))]
pub mod mock;
#[cfg(not(target_arch = "wasm32"))]
mod native;

pub use serde_json::value::RawValue;

pub use crate::access::{http, log, process, read, secret, write};
pub use crate::actor::Actor;
pub use crate::change::{Amend, Change, Event, Phase};
pub use crate::exchange::{AccessError, Instance};
pub use crate::verdict::{Error, Reject, Result, Verdict};

/// A hook. One of the two functions is enough; name it in [`export!`], so that a server rejects a binding to the phases
/// of the other function. Without the name each run there fails.
pub trait Hook {
    /// The data of the model, or the part that the hook uses.
    type Data: serde::de::DeserializeOwned + 'static;

    /// Before a change (`preCreate`, `preUpdate`, `preDelete`): returns the verdict.
    fn check(change: &Change<Self::Data>) -> Result<Verdict> {
        Err(Error::Fail(format!("the hook has no function `check`, so it cannot be bound to {}", change.phase)))
    }

    /// After a change (`postCreate`, `postUpdate`, `postDelete`): runs at least once. An error is retried.
    fn react(change: &Change<Self::Data>) -> Result<()> {
        Err(Error::Fail(format!("the hook has no function `react`, so it cannot be bound to {}", change.phase)))
    }
}

/// Exports a type that implements [`Hook`]. Once per library.
///
/// Use `export!(Check: check)` for a hook for pre phases only, `export!(Note: react)` for post phases only.
#[macro_export]
macro_rules! export {
    ($hook:ty) => {
        $crate::__export!($hook);
    };
    ($hook:ty: check) => {
        $crate::__export!($hook: check);
    };
    ($hook:ty: react) => {
        $crate::__export!($hook: react);
    };
}

/// Only for [`export!`].
#[doc(hidden)]
pub mod __private {
    #[cfg(target_arch = "wasm32")]
    pub use crate::host::*;
    #[cfg(not(target_arch = "wasm32"))]
    pub use crate::native::{Descriptor, descriptor};
    pub use crate::run::{check, react};
}
