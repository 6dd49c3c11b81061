//! The driver `memory` as a library.

snaphook_driver_plugin::export_plugin!("memory", snaphook_memory::DRIVER);
