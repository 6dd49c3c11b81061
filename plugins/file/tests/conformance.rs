//! The conformance suite of the store that this driver brings.

use snaphook_file::DRIVER;

snaphook_driver_testkit::secure_suite!(DRIVER, { "path": "data/secrets" });
