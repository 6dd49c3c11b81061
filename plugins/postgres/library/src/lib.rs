//! The driver `postgres` as a library.

snaphook_driver_plugin::export_plugin!("postgres", snaphook_postgres::DRIVER);
