//! The conformance suites of this driver's stores.

use snaphook_driver_testkit::servers::postgres::WithPostgres;
use snaphook_postgres::DRIVER;

snaphook_driver_testkit::event_suite!(WithPostgres(DRIVER), {});
snaphook_driver_testkit::error_suite!(WithPostgres(DRIVER), {});
snaphook_driver_testkit::model_suite!(WithPostgres(DRIVER), {});
