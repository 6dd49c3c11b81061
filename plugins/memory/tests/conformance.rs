//! The conformance suites for the stores that this driver provides.

use snaphook_memory::DRIVER;

snaphook_driver_testkit::event_suite!(DRIVER, {});
snaphook_driver_testkit::model_suite!(DRIVER, {});
snaphook_driver_testkit::error_suite!(DRIVER, {});
snaphook_driver_testkit::secure_suite!(DRIVER, {});

/// The suites through the messages that libraries and remote drivers get.
mod messages {
    use snaphook_driver_testkit::OverMessages;

    use super::DRIVER;

    snaphook_driver_testkit::event_suite!(OverMessages(DRIVER), {});
    snaphook_driver_testkit::model_suite!(OverMessages(DRIVER), {});
    snaphook_driver_testkit::error_suite!(OverMessages(DRIVER), {});
    snaphook_driver_testkit::secure_suite!(OverMessages(DRIVER), {});
}

/// The suites through the JSON form of the messages.
mod json {
    use snaphook_driver_testkit::OverJson;

    use super::DRIVER;

    snaphook_driver_testkit::event_suite!(OverJson(DRIVER), {});
    snaphook_driver_testkit::model_suite!(OverJson(DRIVER), {});
    snaphook_driver_testkit::error_suite!(OverJson(DRIVER), {});
    snaphook_driver_testkit::secure_suite!(OverJson(DRIVER), {});
}
