//! The conformance suites of every driver as a library, and of the example in C.

mod support;

use snaphook_driver_testkit::rest::{WithCollector, WithRecords};
use snaphook_driver_testkit::servers::nats::WithNats;
use snaphook_driver_testkit::servers::postgres::WithPostgres;
use snaphook_driver_testkit::servers::redis::WithRedis;
use support::{library, library_in_c};

mod memory {
    use super::library;

    snaphook_driver_testkit::event_suite!(library("memory"), {});
    snaphook_driver_testkit::model_suite!(library("memory"), {});
    snaphook_driver_testkit::error_suite!(library("memory"), {});
    snaphook_driver_testkit::secure_suite!(library("memory"), {});
}

mod sqlite {
    use super::library;

    snaphook_driver_testkit::event_suite!(library("sqlite"), { "path": "events.db" });
    snaphook_driver_testkit::model_suite!(library("sqlite"), { "path": "models.db" });
    snaphook_driver_testkit::error_suite!(library("sqlite"), { "path": "errors.db" });
}

mod file {
    use super::library;

    snaphook_driver_testkit::secure_suite!(library("file"), { "path": "data/secrets" });
}

mod stdout {
    use super::library;

    snaphook_driver_testkit::error_suite!(library("stdout"), {});
}

/// The cases of each kind of call.
mod crud {
    use super::{WithRecords, library};

    mod model {
        use super::*;

        snaphook_driver_testkit::tests! {
            [WithRecords(library("crud")), { "state": "state" }]
            model::instances_follow_their_events,
            model::data_is_carried_over,
            model::a_dropped_model_is_gone,
            model::reset_removes_everything,
            model::survives_reopening,
            prepare::a_replay_survives_reopening,
            query::filters,
            kill::the_checkpoint_fits_the_instances,
            kill::apply_until_killed,
        }
    }
}

mod http {
    use super::{WithCollector, library};

    snaphook_driver_testkit::error_suite!(WithCollector(library("http")), {});
}

mod in_c {
    use super::library_in_c;

    snaphook_driver_testkit::secure_suite!(library_in_c(), {});
}

/// Drivers whose own store is another server: what crosses is the same, so the cases are those of each kind of call.
mod postgres {
    use super::{WithPostgres, library};

    mod event {
        use super::*;

        snaphook_driver_testkit::tests! {
            [WithPostgres(library("postgres")), {}]
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

    mod model {
        use super::*;

        snaphook_driver_testkit::tests! {
            [WithPostgres(library("postgres")), {}]
            model::instances_follow_their_events,
            model::nothing_is_missed,
            model::data_is_carried_over,
            model::survives_reopening,
            query::filters,
            query::pages_do_not_shift,
        }
    }

    snaphook_driver_testkit::error_suite!(WithPostgres(library("postgres")), {});
}

mod nats {
    use super::{WithNats, library};

    mod event {
        use super::*;

        snaphook_driver_testkit::tests! {
            [WithNats(library("nats")), { "path": "nats.db" }]
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

    snaphook_driver_testkit::secure_suite!(WithNats(library("nats")), {});
}

mod redis {
    use super::{WithRedis, library};

    snaphook_driver_testkit::secure_suite!(WithRedis(library("redis")), {});
}
