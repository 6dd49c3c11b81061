//! `snaphook module`: folders with components for the server to begin with.

use std::path::{Path, PathBuf};

use clap::{Subcommand, ValueEnum};

use super::failure::{Failure, Result};
use super::{output, templates};

/// The contract of the capabilities, for `wit/deps` of each folder, and that of modules.
const CAPABILITIES: (&str, &str) = ("wit/deps/snaphook-hook.wit", include_str!("../../wit/since_v0_1_0/hook.wit"));
const HOOKS: (&str, &str) = ("wit/deps/snaphook-module.wit", include_str!("../../wit/module/since_v0_1_0/module.wit"));

/// Create a component that handles requests: a module or a custom endpoint
#[derive(Debug, Subcommand)]
pub(super) enum Module {
    /// Create a folder with the template of a sandboxed module or a custom endpoint
    ///
    /// The language's own tools build it. The folder contains its WIT contract.
    ///
    /// Example: snaphook module new limit --kind module --language rust
    New {
        /// The name of the component and of its folder
        name: String,
        #[arg(long)]
        language: Language,
        /// The kind of component
        #[arg(long)]
        kind: Kind,
        /// The parent of the new folder [default: the current folder]
        #[arg(long, value_name = "DIR")]
        r#in: Option<PathBuf>,
    },
}

/// What there is a template for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    /// A component whose hooks see all requests
    Module,
    /// A component that answers all requests under a path
    Endpoint,
}

/// Languages that there is a template for. Whatever makes components works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Language {
    Rust,
    Js,
    Python,
}

impl Module {
    pub(super) fn run(&self) -> Result<()> {
        let Module::New { name, language, kind, r#in } = self;
        new(name, *language, *kind, &r#in.as_deref().unwrap_or(Path::new("")).join(name))
    }
}

fn new(name: &str, language: Language, kind: Kind, directory: &Path) -> Result<()> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let starts_well = name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
    if !starts_well || name.len() > 63 || !name.bytes().all(plain) {
        return Err(Failure::new(format!(
            "`{}` is not a valid name for a module or an endpoint, expected 1 to 63 lowercase letters, digits and `-`, \
             beginning with a letter",
            name.escape_debug()
        )));
    }
    let (what, contracts) = match kind {
        Kind::Module => ("module", &[CAPABILITIES, HOOKS][..]),
        Kind::Endpoint => ("endpoint", &[CAPABILITIES][..]),
    };
    // What the component is called, and how it is made.
    let (language, component, build) = match language {
        Language::Rust => {
            let built = format!("target/wasm32-wasip2/release/{}.wasm", name.replace('-', "_"));
            ("rust", built, "cargo build --release --target wasm32-wasip2".to_owned())
        }
        Language::Js => ("js", format!("{name}.wasm"), "npm install && npm run build".to_owned()),
        Language::Python => {
            let build = format!("componentize-py -d wit -w {what} componentize app -o {name}.wasm");
            ("python", format!("{name}.wasm"), build)
        }
    };
    let template = format!("{what}-{language}");
    let mut files = templates::write(&template, directory, &[("name", name), ("crate", name)])?;
    std::fs::create_dir_all(directory.join("wit/deps"))
        .and_then(|()| contracts.iter().try_for_each(|(file, text)| std::fs::write(directory.join(file), text)))
        .map_err(|error| Failure::new(format!("`{}` cannot be written: {error}", directory.display())))?;
    files.extend(contracts.iter().map(|(file, _)| (*file).to_owned()));
    for file in files {
        output::line(format!("created {}", directory.join(file).display()))?;
    }
    let shown = directory.display();
    output::line(format!("next: cd {shown} && {build}"))?;
    output::line("then, in config.toml:")?;
    output::line(format!("[[server.{what}s]]"))?;
    output::line(format!("name = '{name}'"))?;
    if kind == Kind::Endpoint {
        output::line(format!("path = '/{name}'"))?;
    }
    output::line(format!("component = '{}'", directory.join(component).display()))?;
    if kind == Kind::Module {
        output::line("config = { user = 'me', password = 'secret:door' }")?;
    }
    Ok(())
}
