//! The driver `stdout` as a library.

snaphook_driver_plugin::export_plugin!("stdout", snaphook_stdout::DRIVER);
