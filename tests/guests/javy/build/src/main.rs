//! `javy build`, with the crate that Javy's own command uses.
//!
//! `javy-build init PLUGIN.wasm OUT.wasm` starts the runtime of a plugin once and writes a snapshot (`javy init-plugin`);
//! `javy-build build PLUGIN.wasm SOURCE.js OUT.wasm` builds a module for WASI preview 1 from a snapshot and JavaScript.

use std::error::Error;
use std::path::Path;

use javy_codegen::{Generator, JS, LinkingKind, Plugin, SourceEmbedding};
use wasmtime::{Engine, Linker, Store};
use wasmtime_wasi::{WasiCtxBuilder, p1};
use wasmtime_wizer::Wizer;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["init", plugin, out] => std::fs::write(out, initialized(&std::fs::read(plugin)?).await?)?,
        ["build", plugin, source, out] => {
            let mut generator = Generator::new(Plugin::new_from_path(plugin)?);
            generator.linking(LinkingKind::Static).source_embedding(SourceEmbedding::Compressed);
            std::fs::write(out, generator.generate(&JS::from_file(Path::new(source))?).await?)?;
        }
        _ => return Err("usage: javy-build (init PLUGIN.wasm | build PLUGIN.wasm SOURCE.js) OUT.wasm".into()),
    }
    Ok(())
}

/// The plugin with its runtime started. Building a module starts it again, so the function for that is kept.
async fn initialized(plugin: &[u8]) -> wasmtime::Result<Vec<u8>> {
    let mut store = Store::new(&Engine::default(), WasiCtxBuilder::new().inherit_stderr().build_p1());
    let mut wizer = Wizer::new();
    wizer.init_func("initialize-runtime").keep_init_func(true);
    let snapshot = wizer.run(&mut store, plugin, async |store, module| {
        let mut linker = Linker::new(store.engine());
        p1::add_to_linker_async(&mut linker, |context| context)?;
        linker.instantiate_async(store, module).await
    });
    snapshot.await
}
