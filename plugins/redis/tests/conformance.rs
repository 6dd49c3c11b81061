//! The conformance suite over a real server.

use snaphook_driver::Driver;
use snaphook_driver_testkit::servers::redis::WithRedis;

const REDIS: WithRedis<Driver> = WithRedis(snaphook_redis::DRIVER);

snaphook_driver_testkit::secure_suite!(REDIS, {});
