//! The driver `http` as a library.

snaphook_driver_plugin::export_plugin!("http", snaphook_http::DRIVER);
