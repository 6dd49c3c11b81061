//! Conformance suites: the requirements on every driver, as tests that the driver's own crate runs.
//!
//! A driver's test file contains one line per store that the driver provides. Each line creates one `#[test]` per case:
//!
//! ```ignore
//! snaphook_driver_testkit::event_suite!(my_driver::DRIVER, { "path": "events.db" });
//! snaphook_driver_testkit::model_suite!(my_driver::DRIVER, { "path": "models.db" });
//! ```
//!
//! The second argument is the driver's table in the configuration; its paths are relative to a folder that each case
//! gets for itself. The store's capabilities decide which requirements apply. A case that does not apply, or only in
//! part, prints a line on standard error: `skipped: CASE: why`.
//!
//! Programs that are not test binaries, such as the one that tests drivers in other languages, get the same cases from
//! [`cases()`].

pub mod appends;
pub mod bounds;
mod cases;
pub mod claims;
pub mod cut;
pub mod error;
pub mod event;
pub mod export;
pub mod filters;
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

/// Tests of each kind of call of an event store, for a store that runs its whole suite elsewhere: the messages on a
/// transport are the same for all drivers.
#[macro_export]
macro_rules! event_calls {
    ($driver:expr, $settings:tt) => {
        mod event {
            #[allow(unused_imports, reason = "the driver may be named from the parent module")]
            use super::*;
            $crate::tests! {
                [$driver, $settings]
                event::a_log_has_an_identity,
                event::events_come_back_as_they_were,
                event::rows_fail_for_themselves,
                event::claims_are_exclusive,
                event::waiting_ends_with_a_matching_event,
                event::large_events,
                event::blobs,
                event::survives_reopening,
                nodes::nodes_know_of_each_other,
                export::a_copy_has_everything,
                groups::streams_are_delivered_in_order,
                groups::leases_end_and_tokens_grow_old,
                groups::progress_survives_reopening,
                names::streams_claims_and_groups,
            }
        }
    };
}

/// The same for a model store.
#[macro_export]
macro_rules! model_calls {
    ($driver:expr, $settings:tt) => {
        mod model {
            #[allow(unused_imports, reason = "the driver may be named from the parent module")]
            use super::*;
            $crate::tests! {
                [$driver, $settings]
                model::instances_follow_their_events,
                model::nothing_is_missed,
                model::data_is_carried_over,
                model::survives_reopening,
                query::filters,
                query::pages_do_not_shift,
            }
        }
    };
}
