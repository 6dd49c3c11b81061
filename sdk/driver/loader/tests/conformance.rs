//! The conformance suites for every driver as a library, and for the example in C.

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

/// One case for each kind of call.
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

/// Drivers whose store is another server. The messages are the same as for other drivers, so one case for each kind of
/// call is enough.
mod postgres {
    use super::{WithPostgres, library};

    snaphook_driver_testkit::event_calls!(WithPostgres(library("postgres")), {});
    snaphook_driver_testkit::model_calls!(WithPostgres(library("postgres")), {});
    snaphook_driver_testkit::error_suite!(WithPostgres(library("postgres")), {});
}

mod nats {
    use super::{WithNats, library};

    snaphook_driver_testkit::event_calls!(WithNats(library("nats")), { "path": "nats.db" });
    snaphook_driver_testkit::secure_suite!(WithNats(library("nats")), {});
}

mod redis {
    use super::{WithRedis, library};

    snaphook_driver_testkit::secure_suite!(WithRedis(library("redis")), {});
}
