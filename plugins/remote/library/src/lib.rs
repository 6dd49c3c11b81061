//! The driver `remote` as a library.

snaphook_driver_plugin::export_plugin!("remote", snaphook_remote::DRIVER);
