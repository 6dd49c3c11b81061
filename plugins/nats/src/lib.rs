//! TODO head.

use snaphook_driver::Driver;

/// The driver `nats`.
pub const DRIVER: Driver =
    Driver { name: "nats", settings: &[], connection: &[], secure: None, event: None, model: None, error: None };
