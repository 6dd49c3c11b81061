//! TODO head.

use snaphook_driver::Driver;

/// The driver `redis`.
pub const DRIVER: Driver =
    Driver { name: "redis", settings: &[], connection: &[], secure: None, event: None, model: None, error: None };
