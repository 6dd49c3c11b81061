//! The conformance suite of the store that this driver brings.

use snaphook_stdout::DRIVER;

snaphook_driver_testkit::error_suite!(DRIVER, {});
