//! The conformance suites of this driver's stores.

use snaphook_driver_testkit::servers::nats::WithNats;
use snaphook_nats::DRIVER;

snaphook_driver_testkit::event_suite!(WithNats(DRIVER), { "path": "data/events.db" });
snaphook_driver_testkit::secure_suite!(WithNats(DRIVER), {});
