//! The driver `file` as a library.

snaphook_driver_plugin::export_plugin!("file", snaphook_file::DRIVER);
