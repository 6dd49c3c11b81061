//! The conformance suite of this driver's store, against a collector that accepts everything.

use snaphook_driver_testkit::rest::WithCollector;
use snaphook_http::DRIVER;

snaphook_driver_testkit::error_suite!(WithCollector(DRIVER), {});
