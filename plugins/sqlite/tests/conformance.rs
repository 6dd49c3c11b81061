//! The conformance suites for the stores that this driver provides.

use snaphook_sqlite::DRIVER;

snaphook_driver_testkit::event_suite!(DRIVER, { "path": "data/events.db" });

snaphook_driver_testkit::model_suite!(DRIVER, { "path": "data/models.db" });
snaphook_driver_testkit::error_suite!(DRIVER, { "path": "data/errors.db" });
