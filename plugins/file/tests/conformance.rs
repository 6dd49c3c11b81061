//! The conformance suites for the stores that this driver provides.

use snaphook_file::DRIVER;

snaphook_driver_testkit::secure_suite!(DRIVER, { "path": "data/secrets" });
snaphook_driver_testkit::event_suite!(DRIVER, { "path": "data/events" });
snaphook_driver_testkit::model_suite!(DRIVER, { "path": "data/models" });
snaphook_driver_testkit::error_suite!(DRIVER, { "path": "data/errors" });
