//! The conformance suite for the store that this driver provides.

use snaphook_stdout::DRIVER;

snaphook_driver_testkit::error_suite!(DRIVER, {});
