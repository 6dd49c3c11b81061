//! The driver `nats` as a library.

snaphook_driver_plugin::export_plugin!("nats", snaphook_nats::DRIVER);
