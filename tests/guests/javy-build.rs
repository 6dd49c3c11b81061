//! What `javy build` does, for the tests: JavaScript and a Javy plugin become a module for WASI preview 1.
//!
//! `cargo run --example javy -- PLUGIN.wasm SOURCE.js OUT.wasm`. The crate that Javy does it with would be built with a
//! second wasmtime and Binaryen; this follows it step by step (static linking, without its last step of optimising):
//! the plugin's runtime is initialised and snapshotted, the source compiled by the plugin to bytecode, and a `_start` added
//! that hands the bytecode to the plugin's `invoke`.

use std::error::Error;
use std::path::Path;

use wasm_encoder::reencode::{Error as ReencodeError, Reencode, utils};
use wasm_encoder::{
    CodeSection, DataCountSection, DataSection, ExportKind, ExportSection, Function, FunctionSection, SectionId,
    TypeSection, ValType,
};
use wasmparser::{ExternalKind, Parser, Payload};
use wasmtime::{Engine, Linker, Store};
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::p1::{self, WasiP1Ctx};
use wasmtime_wizer::Wizer;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [plugin, source, out] = &args[..] else { return Err("usage: javy PLUGIN.wasm SOURCE.js OUT.wasm".into()) };
    let engine = Engine::default();
    let plugin = initialized(&engine, &std::fs::read(plugin)?).await?;
    let bytecode = compiled(&engine, &plugin, &std::fs::read(source)?).await?;
    std::fs::write(Path::new(out), with_start(&plugin, bytecode)?)?;
    Ok(())
}

/// The plugin with its runtime started.
async fn initialized(engine: &Engine, plugin: &[u8]) -> Result<Vec<u8>> {
    let mut store = Store::new(engine, WasiCtxBuilder::new().inherit_stderr().build_p1());
    let mut wizer = Wizer::new();
    wizer.init_func("initialize-runtime");
    let snapshot = wizer.run(&mut store, plugin, async |store, module| {
        let linker = linker(store.engine())?;
        linker.instantiate_async(store, module).await
    });
    Ok(snapshot.await?)
}

fn linker(engine: &Engine) -> wasmtime::Result<Linker<WasiP1Ctx>> {
    let mut linker = Linker::new(engine);
    p1::add_to_linker_async(&mut linker, |context| context)?;
    Ok(linker)
}

/// The source as bytecode of the plugin's engine.
async fn compiled(engine: &Engine, plugin: &[u8], source: &[u8]) -> Result<Vec<u8>> {
    let mut store = Store::new(engine, WasiCtxBuilder::new().inherit_stderr().build_p1());
    let instance = linker(engine)?.instantiate_async(&mut store, &wasmtime::Module::new(engine, plugin)?).await?;
    let memory = instance.get_memory(&mut store, "memory").ok_or("the plugin has no memory")?;
    let allocate = instance.get_typed_func::<(u32, u32, u32, u32), u32>(&mut store, "cabi_realloc")?;
    let compile = instance.get_typed_func::<(u32, u32), u32>(&mut store, "compile-src")?;
    let length = source.len().try_into()?;
    let at = allocate.call_async(&mut store, (0, 0, 1, length)).await?;
    memory.write(&mut store, at as usize, source)?;
    let answer = compile.call_async(&mut store, (at, length)).await?;
    // Whether it failed, then pointer and length of the bytecode or the message.
    let mut words = [0; 12];
    memory.read(&store, answer as usize, &mut words)?;
    let word = |index: usize| u32::from_le_bytes([words[index], words[index + 1], words[index + 2], words[index + 3]]);
    let mut bytes = vec![0; word(8) as usize];
    memory.read(&store, word(4) as usize, &mut bytes)?;
    match word(0) {
        0 => Ok(bytes),
        _ => Err(String::from_utf8_lossy(&bytes).into_owned().into()),
    }
}

/// The plugin with a `_start`: the bytecode goes into its memory and from there to its `invoke`, without the name of a
/// function.
fn with_start(plugin: &[u8], bytecode: Vec<u8>) -> Result<Vec<u8>> {
    let mut start = Start { bytecode, ..Start::default() };
    for payload in Parser::new(0).parse_all(plugin) {
        match payload? {
            Payload::TypeSection(types) => start.types = types.count(),
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    start.functions += u32::from(matches!(import?.ty, wasmparser::TypeRef::Func(_)));
                }
            }
            Payload::FunctionSection(functions) => start.functions += functions.count(),
            Payload::DataSection(data) => start.data = data.count(),
            Payload::ExportSection(exports) => {
                for export in exports {
                    let export = export?;
                    match export.name {
                        "cabi_realloc" => start.allocate = export.index,
                        "invoke" => start.invoke = export.index,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    let mut module = wasm_encoder::Module::new();
    start.parse_core_module(&mut module, Parser::new(0), plugin)?;
    Ok(module.finish())
}

/// What `_start` is made of. The counts are those of the plugin, so they are also the indices of what is added.
#[derive(Default)]
struct Start {
    bytecode: Vec<u8>,
    types: u32,
    functions: u32,
    data: u32,
    allocate: u32,
    invoke: u32,
    has_data_count: bool,
}

type Reencoded<T = ()> = std::result::Result<T, ReencodeError>;

impl Reencode for Start {
    type Error = std::convert::Infallible;

    fn parse_type_section(&mut self, types: &mut TypeSection, section: wasmparser::TypeSectionReader<'_>) -> Reencoded {
        utils::parse_type_section(self, types, section)?;
        types.ty().function([], []);
        Ok(())
    }

    fn parse_function_section(
        &mut self,
        functions: &mut FunctionSection,
        section: wasmparser::FunctionSectionReader<'_>,
    ) -> Reencoded {
        utils::parse_function_section(self, functions, section)?;
        functions.function(self.types);
        Ok(())
    }

    fn parse_export_section(
        &mut self,
        exports: &mut ExportSection,
        section: wasmparser::ExportSectionReader<'_>,
    ) -> Reencoded {
        for export in section {
            let export = export?;
            let is_for_javy = matches!(export.name, "invoke" | "compile-src") && export.kind == ExternalKind::Func;
            if !is_for_javy {
                utils::parse_export(self, exports, export)?;
            }
        }
        exports.export("_start", ExportKind::Func, self.functions);
        Ok(())
    }

    fn data_count(&mut self, count: u32) -> Reencoded<u32> {
        self.has_data_count = true;
        Ok(count + 1)
    }

    fn intersperse_section_hook(
        &mut self,
        module: &mut wasm_encoder::Module,
        _: Option<SectionId>,
        before: Option<SectionId>,
    ) -> Reencoded {
        if before == Some(SectionId::Code) && !self.has_data_count {
            module.section(&DataCountSection { count: self.data + 1 });
        }
        Ok(())
    }

    fn parse_code_section(&mut self, code: &mut CodeSection, section: wasmparser::CodeSectionReader<'_>) -> Reencoded {
        utils::parse_code_section(self, code, section)?;
        let length = self.bytecode.len() as i32;
        let mut start = Function::new([(1, ValType::I32)]);
        start
            .instructions()
            .i32_const(0)
            .i32_const(0)
            .i32_const(1)
            .i32_const(length)
            .call(self.allocate)
            .local_tee(0)
            .i32_const(0)
            .i32_const(length)
            .memory_init(0, self.data)
            .local_get(0)
            .i32_const(length)
            .i32_const(0)
            .i32_const(0)
            .i32_const(0)
            .call(self.invoke)
            .end();
        code.function(&start);
        Ok(())
    }

    fn parse_data_section(&mut self, data: &mut DataSection, section: wasmparser::DataSectionReader<'_>) -> Reencoded {
        utils::parse_data_section(self, data, section)?;
        data.passive(self.bytecode.iter().copied());
        Ok(())
    }
}
