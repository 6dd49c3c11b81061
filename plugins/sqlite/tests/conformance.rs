//! The conformance suites of the stores that this driver brings.

use snaphook_sqlite::DRIVER;

snaphook_driver_testkit::event_suite!(DRIVER, { "path": "data/events.db" });
