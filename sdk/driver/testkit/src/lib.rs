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
//! has for itself. What a store says of itself (its capabilities) decides which demands apply. What none of
//! them says is whether a closed store is there again when it is opened: for one that keeps nothing, the word `volatile`
//! follows as a third argument.

pub mod bounds;
pub mod claims;
pub mod error;
pub mod event;
pub mod export;
pub mod groups;
pub mod hostile;
pub mod json;
pub mod kill;
pub mod limits;
pub mod model;
pub mod names;
pub mod nodes;
mod opener;
pub mod peer;
pub mod prepare;
pub mod query;
pub mod rest;
pub mod sample;
pub mod secure;
mod subject;

pub use opener::{Opener, OverJson, OverMessages};
pub use subject::{Subject, run};

/// One test per case of a module of this crate: what the suites are made of, and for a driver that runs chosen cases once more
/// behind a transport. It stands in a module named like the store.
#[macro_export]
macro_rules! cases {
    ($driver:expr, $settings:tt, $volatile:tt, $($module:ident::$case:ident),* $(,)?) => {
        $(
            #[test]
            fn $case() {
                let settings = $crate::settings!($settings);
                let volatile = $crate::is_volatile!($volatile);
                let subject = $crate::Subject::new($driver, settings, volatile, module_path!());
                $crate::run($crate::$module::$case(&subject));
            }
        )*
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! is_volatile {
    ([]) => {
        false
    };
    ([volatile]) => {
        true
    };
}

#[doc(hidden)]
pub use serde_json::json as settings;

/// Tests of an event store.
#[macro_export]
macro_rules! event_suite {
    ($driver:expr, $settings:tt $(, $volatile:ident)?) => {
        mod event {
            #[allow(unused_imports, reason = "the driver may be named from the parent module")]
            use super::*;
            $crate::cases!(
                $driver,
                $settings,
                [$($volatile)?],
                event::a_log_has_an_identity,
                event::events_come_back_as_they_were,
                event::positions_rise_and_head_follows,
                event::expectations_are_checked,
                event::rows_fail_for_themselves,
                event::atomic_batches_are_all_or_nothing,
                event::required_streams_must_not_have_moved,
                nodes::quiet_models,
                nodes::times_never_go_back,
                event::claims_are_exclusive,
                event::claims_move_and_are_released,
                event::claims_expire,
                event::claims_within_one_batch,
                claims::claims_ahead_of_their_event,
                claims::claims_are_forgotten_by_prefix,
                event::filters_and_pages,
                event::waiting_ends_with_a_matching_event,
                event::last_of_a_stream,
                event::odd_names,
                event::large_events,
                event::many_events,
                event::a_reader_misses_nothing,
                event::blobs,
                event::survives_reopening,
                export::a_copy_has_everything,
                export::a_copy_is_of_one_moment,
                export::only_an_empty_log_takes_a_copy,
                export::part_of_a_log_does_not_open,
                bounds::scans_are_bounded,
                bounds::streams_are_read_backwards,
                groups::streams_are_delivered_in_order,
                groups::streams_do_not_wait_for_each_other,
                groups::leases_end_and_tokens_grow_old,
                groups::released_events_come_back_after_their_delay,
                groups::notes_stay_with_their_event,
                groups::what_is_done,
                groups::filters_and_starts,
                groups::groups_are_listed_and_forgotten,
                groups::unknown_groups_are_refused,
                groups::a_long_backlog,
                groups::progress_survives_reopening,
                names::streams_claims_and_groups,
                kill::appended_events_survive_a_kill,
                kill::append_until_killed,
            );
        }
    };
}

/// Tests of a model store.
#[macro_export]
macro_rules! model_suite {
    ($driver:expr, $settings:tt $(, $volatile:ident)?) => {
        mod model {
            #[allow(unused_imports, reason = "the driver may be named from the parent module")]
            use super::*;
            $crate::cases!(
                $driver,
                $settings,
                [$($volatile)?],
                model::instances_follow_their_events,
                model::applying_again_has_no_effect,
                model::nothing_is_missed,
                model::what_is_not_there,
                model::definitions_are_kept,
                model::data_is_carried_over,
                model::columns_and_indexes_change,
                model::a_dropped_model_is_gone,
                model::a_store_knows_its_log,
                model::reset_removes_everything,
                model::thousands_of_properties,
                model::large_instances,
                model::many_instances,
                model::survives_reopening,
                prepare::a_prepared_change_is_the_plain_one,
                prepare::what_is_prepared_may_be_given_up,
                prepare::a_replay_gives_what_the_steps_gave,
                prepare::a_replay_survives_reopening,
                query::filters,
                query::big_integers_are_exact,
                query::sorts,
                query::pages_agree_with_the_meaning,
                query::cursors_are_bound_to_their_query,
                query::pages_do_not_shift,
                limits::what_is_at_a_limit_is_taken,
                limits::random_data_is_taken,
                names::models_and_instances,
                names::properties,
                bounds::reads_end_with_their_budget,
                bounds::a_dropped_read_ends,
                bounds::numbers_are_exact_whatever_their_digits,
                bounds::data_is_read_as_it_stands,
                bounds::lists_of_any_length,
                kill::the_checkpoint_fits_the_instances,
                kill::apply_until_killed,
                kill::changes_are_whole_after_a_kill,
                kill::change_until_killed,
            );
        }
    };
}

/// Tests of an error store.
#[macro_export]
macro_rules! error_suite {
    ($driver:expr, $settings:tt $(, $volatile:ident)?) => {
        mod error {
            #[allow(unused_imports, reason = "the driver may be named from the parent module")]
            use super::*;
            $crate::cases!(
                $driver,
                $settings,
                [$($volatile)?],
                error::records_are_kept,
                error::records_are_listed,
                error::pages_end_early,
                error::survives_reopening,
                names::errors,
            );
        }
    };
}

/// Tests of a secure store.
#[macro_export]
macro_rules! secure_suite {
    ($driver:expr, $settings:tt $(, $volatile:ident)?) => {
        mod secure {
            #[allow(unused_imports, reason = "the driver may be named from the parent module")]
            use super::*;
            $crate::cases!(
                $driver,
                $settings,
                [$($volatile)?],
                secure::secrets_are_kept,
                secure::expected_versions,
                secure::listing,
                secure::concurrent_puts_count,
                secure::survives_reopening,
                names::secrets,
            );
        }
    };
}
