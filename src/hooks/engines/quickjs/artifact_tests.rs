//! The artifact is what its sources make: checked in every run as far as digests tell, and rebuilt where the module without the
//! scripts is at hand (`cargo xtask runner` builds it and names it in [`CODE`]; with [`WRITE`] the artifact is written).

use std::path::Path;
use std::sync::LazyLock;

use sha2::{Digest, Sha256};
use wasmtime_wizer::{WasmtimeWizer, Wizer};

use super::*;
use crate::hooks::engines::javascript::SCRIPTS;
use crate::hooks::engines::limits::CHECK_LIMITS;
use crate::hooks::engines::quickjs::guest::Code;
use crate::hooks::engines::quickjs::host::{Extra, Mode};
use crate::hooks::engines::quickjs::instance::Guest;
use crate::hooks::engines::wasm::{Sandbox, loading_runtime};

/// The way to the host, before the scripts.
const HOST: &str = include_str!("runner/host.js");

/// What the module calls, after the scripts.
const PARTS: &str = include_str!("runner/parts.js");

/// The scripts as one expression: a function that gets the host's functions.
static SOURCE: LazyLock<String> = LazyLock::new(|| {
    // The scripts are a module elsewhere; here they are the body of a function.
    let scripts = SCRIPTS.replace("\nexport function ", "\nfunction ");
    format!("(function (host) {{ \"use strict\";\n{HOST}{scripts}{PARTS}}})")
});

/// Names the module that the compiler made: QuickJS without the scripts.
const CODE: &str = "SNAPHOOK_RUNNER_CODE";

/// Set: the artifact is written instead of compared.
const WRITE: &str = "SNAPHOOK_RUNNER_WRITE";

/// The best that zstd has for a file of this size.
const COMPRESSION_LEVEL: i32 = 19;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/hooks/engines/quickjs/runner");

/// Of everything that lies in this repository and makes the module.
fn sources_digest() -> String {
    let folder = Path::new(FOLDER);
    let mut files: Vec<_> = ["Cargo.toml", "Cargo.lock", "build.rs"].map(|name| folder.join(name)).into();
    let sources = std::fs::read_dir(folder.join("src")).unwrap();
    files.extend(sources.map(|entry| entry.unwrap().path()));
    files.sort();
    let mut digest = Sha256::new();
    for file in files {
        digest.update(std::fs::read(file).unwrap());
        digest.update([0]);
    }
    digest.update(SOURCE.as_bytes());
    format!("{:x}", digest.finalize())
}

#[test]
fn the_artifact_is_the_one_that_its_digests_name() {
    if std::env::var_os(WRITE).is_some() {
        return;
    }
    let (module, digest) = runner().unwrap();
    assert_eq!(format!("{:x}", Sha256::digest(&module)), digest);
    assert_eq!(
        digest_of("sources"),
        Some(&*sources_digest()),
        "a source changed: `cargo xtask runner` makes the artifact"
    );
}

/// What restore.rs relies on: beside its memory, a call changes the stack pointer alone.
#[test]
fn the_module_changes_nothing_but_its_memory() {
    use wasmparser::{Operator, Parser, Payload};

    let (module, _) = runner().unwrap();
    let mut variables = 0;
    for payload in Parser::new(0).parse_all(&module) {
        match payload.unwrap() {
            Payload::GlobalSection(globals) => {
                variables += globals.into_iter().filter(|global| global.as_ref().unwrap().ty.mutable).count();
            }
            Payload::CodeSectionEntry(body) => {
                for operator in body.get_operators_reader().unwrap() {
                    let operator = operator.unwrap();
                    let is_other = matches!(
                        operator,
                        Operator::TableSet { .. }
                            | Operator::TableGrow { .. }
                            | Operator::TableFill { .. }
                            | Operator::TableCopy { .. }
                            | Operator::TableInit { .. }
                            | Operator::ElemDrop { .. }
                            | Operator::MemoryInit { .. }
                            | Operator::DataDrop { .. }
                    );
                    assert!(!is_other, "{operator:?}");
                }
            }
            _ => {}
        }
    }
    assert_eq!(variables, 1, "the stack pointer");
}

#[tokio::test]
async fn the_artifact_is_what_its_sources_make() {
    let Some(code) = std::env::var_os(CODE) else { return };
    let code = std::fs::read(Path::new(&code)).unwrap();
    let made = snapshot(&code).await.unwrap();
    let digest = format!("{:x}", Sha256::digest(&made));
    if std::env::var_os(WRITE).is_none() {
        assert_eq!(digest_of("runner.wasm"), Some(&*digest), "`cargo xtask runner` makes the artifact");
        return;
    }
    let compressed = zstd::encode_all(&made[..], COMPRESSION_LEVEL).unwrap();
    let digests = format!("{digest}  runner.wasm\n{}  sources\n", sources_digest());
    std::fs::write(Path::new(FOLDER).join("runner.wasm.zst"), compressed).unwrap();
    std::fs::write(Path::new(FOLDER).join("runner.sha256"), digests).unwrap();
}

/// The module with the scripts loaded. They are compiled in an instance of their own, so that what the parser leaves behind is
/// not in the snapshot.
async fn snapshot(code: &[u8]) -> wasmtime::Result<Vec<u8>> {
    let runtime = loading_runtime().unwrap();
    let wizer = Wizer::new();
    let (context, instrumented) = wizer.instrument(code)?;
    let module = wasmtime::Module::new(&runtime.engine, &instrumented)?;
    let linked = Code::new(runtime, &module)?;
    let sandbox = async || {
        let extra = Extra { mode: Mode::Boot, ..Extra::default() };
        let mut sandbox = Sandbox::new(runtime, extra).await.unwrap_or_else(|failure| panic!("{failure:?}"));
        sandbox.begin(None, &CHECK_LIMITS);
        let guest = Guest::new(&linked, &mut sandbox.store).await?;
        Ok::<_, wasmtime::Error>((sandbox, guest))
    };
    let (mut compiling, guest) = sandbox().await?;
    let at = guest.put(&mut compiling.store, SOURCE.as_bytes()).await?;
    let out: u64 = guest.call(&mut compiling.store, "boot_compile", (at, SOURCE.len() as u32)).await?;
    let bytecode = guest.take(&compiling.store, out)?;
    let (mut booting, guest) = sandbox().await?;
    let at = guest.put(&mut booting.store, &bytecode).await?;
    let out: u64 = guest.call(&mut booting.store, "boot", (at, bytecode.len() as u32)).await?;
    if out != 0 {
        let error = guest.take(&booting.store, out)?;
        return Err(wasmtime::format_err!("{}", String::from_utf8_lossy(&error)));
    }
    guest.wipe(&mut booting.store, at, bytecode.len())?;
    guest.call::<_, ()>(&mut booting.store, "release", at).await?;
    guest.call::<_, ()>(&mut booting.store, "seal", ()).await?;
    let stack_bytes: u32 = guest.call(&mut booting.store, "stack_bytes", ()).await?;
    guest.wipe(&mut booting.store, 0, stack_bytes as usize)?;
    let instance = guest.instance();
    let mut wizened = WasmtimeWizer { store: &mut booting.store, instance };
    wizer.snapshot(&context, &mut wizened).await
}
