//! The conformance suites of the stores that this driver brings.

use snaphook_file::DRIVER;

snaphook_driver_testkit::secure_suite!(DRIVER, { "path": "data/secrets" });
snaphook_driver_testkit::event_suite!(DRIVER, { "path": "data/events" });
snaphook_driver_testkit::model_suite!(DRIVER, { "path": "data/models" });
snaphook_driver_testkit::error_suite!(DRIVER, { "path": "data/errors" });
