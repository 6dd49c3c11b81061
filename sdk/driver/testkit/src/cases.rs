//! The cases of each suite.

use std::future::Future;
use std::pin::Pin;

use snaphook_driver::Store;

use crate::Subject;

/// A case of a suite, for programs that are not test binaries.
#[derive(Clone, Copy)]
pub struct Case {
    /// Such as `event::blobs`.
    pub name: &'static str,
    pub run: for<'a> fn(&'a Subject) -> Pin<Box<dyn Future<Output = ()> + 'a>>,
}

/// The cases of a store's suite.
pub fn cases(store: Store) -> Vec<Case> {
    match store {
        Store::Event => crate::event_cases!(listed []),
        Store::Model => crate::model_cases!(listed []),
        Store::Error => crate::error_cases!(listed []),
        Store::Secure => crate::secure_cases!(listed []),
    }
}

/// Turns cases into a list.
#[doc(hidden)]
#[macro_export]
macro_rules! listed {
    ([] $($module:ident::$case:ident),* $(,)?) => {
        vec![
            $($crate::Case {
                name: concat!(stringify!($module), "::", stringify!($case)),
                run: |subject| Box::pin($crate::$module::$case(subject)),
            }),*
        ]
    };
}

/// Turns cases into tests. The suites use it, and so does a driver that runs selected cases again behind a transport.
/// Use it in a module that is named like the store.
#[macro_export]
macro_rules! tests {
    ([$driver:expr, $settings:tt] $($module:ident::$case:ident),* $(,)?) => {
        $(
            #[test]
            fn $case() {
                let settings = $crate::settings!($settings);
                let subject = $crate::Subject::new($driver, settings, Some(module_path!()), stringify!($case));
                $crate::run($crate::$module::$case(&subject));
            }
        )*
    };
}

/// The cases of an event store, for the macro `$then`.
#[doc(hidden)]
#[macro_export]
macro_rules! event_cases {
    ($then:ident $with:tt) => {
        $crate::$then! {
            $with
            event::a_log_has_an_identity,
            event::events_come_back_as_they_were,
            event::positions_rise_and_head_follows,
            event::expectations_are_checked,
            event::rows_fail_for_themselves,
            event::atomic_batches_are_all_or_nothing,
            event::required_streams_must_not_have_moved,
            nodes::quiet_models,
            nodes::times_never_go_back,
            nodes::nodes_know_of_each_other,
            event::claims_are_exclusive,
            event::claims_move_and_are_released,
            event::claims_expire,
            event::claims_within_one_batch,
            appends::random_appends,
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
            export::an_interrupted_import_goes_on,
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
        }
    };
}

/// The cases of a model store, for the macro `$then`.
#[doc(hidden)]
#[macro_export]
macro_rules! model_cases {
    ($then:ident $with:tt) => {
        $crate::$then! {
            $with
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
            filters::filters_agree_with_the_meaning,
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
        }
    };
}

/// The cases of an error store, for the macro `$then`.
#[doc(hidden)]
#[macro_export]
macro_rules! error_cases {
    ($then:ident $with:tt) => {
        $crate::$then! {
            $with
            error::records_are_kept,
            error::records_are_listed,
            error::pages_end_early,
            error::survives_reopening,
            names::errors,
        }
    };
}

/// The cases of a secure store, for the macro `$then`.
#[doc(hidden)]
#[macro_export]
macro_rules! secure_cases {
    ($then:ident $with:tt) => {
        $crate::$then! {
            $with
            secure::secrets_are_kept,
            secure::expected_versions,
            secure::listing,
            secure::concurrent_puts_count,
            secure::survives_reopening,
            names::secrets,
        }
    };
}
