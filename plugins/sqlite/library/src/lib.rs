//! The driver `sqlite` as a library.

snaphook_driver_plugin::export_plugin!("sqlite", snaphook_sqlite::DRIVER);
