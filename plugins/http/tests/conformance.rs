//! The conformance suite of the store that this driver brings, against a collector that takes everything.

use snaphook_driver_testkit::rest::WithCollector;
use snaphook_http::DRIVER;

snaphook_driver_testkit::error_suite!(WithCollector(DRIVER), {});
