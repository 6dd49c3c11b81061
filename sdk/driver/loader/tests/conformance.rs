//! The conformance suites of every driver as a library, and of the example in C.

mod support;

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

mod in_c {
    use super::library_in_c;

    snaphook_driver_testkit::secure_suite!(library_in_c(), {});
}
