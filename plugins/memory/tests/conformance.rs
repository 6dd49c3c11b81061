//! The conformance suites of the stores that this driver brings.

use snaphook_memory::DRIVER;

snaphook_driver_testkit::event_suite!(DRIVER, {});
snaphook_driver_testkit::model_suite!(DRIVER, {}, volatile);
snaphook_driver_testkit::error_suite!(DRIVER, {}, volatile);
snaphook_driver_testkit::secure_suite!(DRIVER, {}, volatile);
