//! Loads and activates a module of the configuration. A new kind of module is a case in [`load`].

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use snaphook_modules::{Module, Native, Runner, Standing};

use super::sandboxed::{self, Sandboxed};
use crate::config::{Config, ModuleConfig, ModuleKind, read_regular};
use crate::engine::Engine;
use crate::hooks::engines::tried_module;

/// Largest library.
const LIBRARY_BYTES_MAX: usize = 256 << 20;

const SECRET: &str = "secret:";

/// The identity of a module: its kind, and the digest of its code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source {
    kind: ModuleKind,
    digest: [u8; 32],
}

/// A loaded module with its identity.
pub(super) struct Loaded {
    pub(super) config: ModuleConfig,
    pub(super) source: Source,
    pub(super) module: Arc<Module>,
}

impl Loaded {
    /// The same module for another chain.
    pub(super) fn again(&self) -> Loaded {
        Loaded { config: self.config.clone(), source: self.source.clone(), module: Arc::clone(&self.module) }
    }
}

/// The modules that run in the server's process.
pub(super) fn in_process(config: &Config) -> impl Iterator<Item = &ModuleConfig> {
    config.server.modules.iter().filter(|module| !module.kind.is_zia())
}

/// Their files.
pub(super) fn files(config: &Config) -> Vec<PathBuf> {
    in_process(config).map(|module| file(&module.kind).to_owned()).collect()
}

fn file(kind: &ModuleKind) -> &Path {
    match kind {
        ModuleKind::Native { library } | ModuleKind::Zia { library } => library,
        ModuleKind::Sandboxed { component } => component,
    }
}

/// Reads a module's code.
pub(super) async fn read(wanted: &ModuleConfig) -> Result<(Source, Vec<u8>), String> {
    let path = file(&wanted.kind).to_owned();
    let shown = path.display().to_string();
    let read = tokio::task::spawn_blocking(move || read_regular(&path, LIBRARY_BYTES_MAX)).await;
    let code = match read {
        Ok(Ok(code)) => code,
        Ok(Err(error)) => return Err(format!("`{shown}` cannot be read: {error}")),
        Err(error) => return Err(format!("reading `{shown}`: {error}")),
    };
    let digest = Sha256::digest(&code).into();
    Ok((Source { kind: wanted.kind.clone(), digest }, code))
}

/// Loads and activates it.
pub(super) async fn load(
    wanted: &ModuleConfig,
    source: Source,
    code: Vec<u8>,
    config: &Config,
    engine: &Engine,
) -> Result<Loaded, String> {
    let settings = settings(wanted, engine).await?;
    let standing = Arc::new(Standing::new(wanted.name.clone(), wanted.optional));
    let runner: Arc<dyn Runner> = match &wanted.kind {
        ModuleKind::Native { .. } => {
            // The copy exists until the library is loaded.
            let copy = tried_module(&config.hooks.cache, code).await?;
            let path = copy.path().to_owned();
            Arc::new(Native::activate(Arc::clone(&standing), path, wanted.timeout, &settings).await?)
        }
        ModuleKind::Sandboxed { .. } => {
            let module = engine.modules().make(&wanted.name, &code, sandboxed::text(&settings)).await?;
            Arc::new(Sandboxed::new(module))
        }
        ModuleKind::Zia { .. } => return Err("it runs in the bridge".to_owned()),
    };
    Ok(Loaded { config: wanted.clone(), source, module: Arc::new(Module::new(standing, runner)) })
}

/// A module's settings, with the values of secrets.
pub(super) async fn settings(wanted: &ModuleConfig, engine: &Engine) -> Result<Map<String, Value>, String> {
    let mut settings = Value::Object(wanted.settings.clone());
    let mut places = vec![&mut settings];
    while let Some(place) = places.pop() {
        match place {
            Value::Object(table) => places.extend(table.values_mut()),
            Value::Array(items) => places.extend(items.iter_mut()),
            Value::String(text) => {
                if let Some(name) = text.strip_prefix(SECRET) {
                    *text = secret(name, engine).await?;
                }
            }
            _ => {}
        }
    }
    match settings {
        Value::Object(settings) => Ok(settings),
        _ => Ok(Map::new()),
    }
}

async fn secret(name: &str, engine: &Engine) -> Result<String, String> {
    let fault = |what: String| format!("its `config` names the secret `{}`, {what}", name.escape_debug());
    match engine.operations.secret(name).await {
        Ok(Some(secret)) => {
            String::from_utf8(secret.expose().to_vec()).map_err(|_| fault("which is not text".to_owned()))
        }
        Ok(None) => Err(fault("but there is no such secret; `snaphook secret set` creates one".to_owned())),
        Err(error) => Err(fault(format!("which cannot be read: {error}"))),
    }
}
