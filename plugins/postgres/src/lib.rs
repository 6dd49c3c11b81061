//! TODO head.

use snaphook_driver::Driver;

/// The driver `postgres`.
pub const DRIVER: Driver =
    Driver { name: "postgres", settings: &[], connection: &[], secure: None, event: None, model: None, error: None };
