//! Conformance suites: what every driver must do, as tests that a driver's own crate runs.
//!
//! A driver's test file holds one line per store that it brings. Each line makes one `#[test]` per case:
//!
//! ```ignore
//! snaphook_driver_testkit::event_suite!(my_driver::DRIVER, { "path": "events.db" });
//! snaphook_driver_testkit::model_suite!(my_driver::DRIVER, { "path": "models.db" });
//! ```
//!
//! The second argument is the driver's table of the configuration, with paths relative to a folder that each case
//! has for itself. What a store says of itself (its capabilities) decides which demands apply. A case that does not apply, or
//! only in part, is a line on standard error: `skipped: CASE: why`.
//!
//! Programs that are no test binaries, such as the one that tries drivers in other languages, get the same cases from
//! [`cases()`].

pub mod appends;
pub mod bounds;
mod cases;
pub mod claims;
pub mod cut;
pub mod error;
pub mod event;
pub mod export;
pub mod groups;
pub mod hostile;
pub mod json;
pub mod kill;
pub mod limits;
pub mod lost;
pub mod model;
pub mod naive;
pub mod names;
pub mod nodes;
mod opener;
pub mod peer;
pub mod prepare;
pub mod query;
pub mod rest;
pub mod sample;
pub mod secure;
pub mod servers;
mod subject;

pub use cases::{Case, cases};
pub use opener::{Opener, OverJson, OverMessages};
pub use subject::{Subject, run, skipped};

#[doc(hidden)]
pub use serde_json::json as settings;

/// Tests of an event store.
#[macro_export]
macro_rules! event_suite {
    ($driver:expr, $settings:tt) => {
        mod event {
            #[allow(unused_imports, reason = "the driver may be named from the parent module")]
            use super::*;
            $crate::event_cases!(tests [$driver, $settings]);
        }
    };
}

/// Tests of a model store.
#[macro_export]
macro_rules! model_suite {
    ($driver:expr, $settings:tt) => {
        mod model {
            #[allow(unused_imports, reason = "the driver may be named from the parent module")]
            use super::*;
            $crate::model_cases!(tests [$driver, $settings]);
        }
    };
}

/// Tests of an error store.
#[macro_export]
macro_rules! error_suite {
    ($driver:expr, $settings:tt) => {
        mod error {
            #[allow(unused_imports, reason = "the driver may be named from the parent module")]
            use super::*;
            $crate::error_cases!(tests [$driver, $settings]);
        }
    };
}

/// Tests of a secure store.
#[macro_export]
macro_rules! secure_suite {
    ($driver:expr, $settings:tt) => {
        mod secure {
            #[allow(unused_imports, reason = "the driver may be named from the parent module")]
            use super::*;
            $crate::secure_cases!(tests [$driver, $settings]);
        }
    };
}
