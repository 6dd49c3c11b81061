//! The conformance suite of this driver's store, with a REST API in memory.

use snaphook_crud::DRIVER;
use snaphook_driver_testkit::rest::WithRecords;

snaphook_driver_testkit::model_suite!(WithRecords(DRIVER), { "state": "state" });
