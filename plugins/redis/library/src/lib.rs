//! The driver `redis` as a library.

snaphook_driver_plugin::export_plugin!("redis", snaphook_redis::DRIVER);
