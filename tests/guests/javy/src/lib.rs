//! A Javy plugin with the same settings as Javy's own: text encoding, `Javy.IO` and the faster JSON.

use javy_plugin_api::{Config, import_namespace};

import_namespace!("javy-test-plugin");

fn config() -> Config {
    let mut config = Config::default();
    config.text_encoding(true).javy_stream_io(true).simd_json_builtins(true);
    config
}

#[export_name = "initialize-runtime"]
extern "C" fn initialize_runtime() {
    // A panic here fails the build of the module.
    javy_plugin_api::initialize_runtime(config, |runtime| runtime).expect("Javy's runtime starts");
}
