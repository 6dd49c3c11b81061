//! The driver `crud` as a library.

snaphook_driver_plugin::export_plugin!("crud", snaphook_crud::DRIVER);
