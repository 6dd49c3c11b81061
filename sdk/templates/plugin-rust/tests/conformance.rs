//! The tests that every driver must pass. Add a line for each store that the driver provides: `event_suite!`, `model_suite!`,
//! `error_suite!`. The second argument is the driver's table of the configuration.

use {{crate}}::DRIVER;

snaphook_driver_testkit::secure_suite!(DRIVER, {});
