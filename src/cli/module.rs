//! `snaphook module`: folders with components for the server to begin with.

use std::path::{Path, PathBuf};

use clap::{Subcommand, ValueEnum};

use super::failure::{Failure, Result};
use super::{output, templates};

/// The contract of the capabilities, for `wit/deps` of each folder.
const CONTRACT: &str = include_str!("../../wit/since_v0_1_0/hook.wit");

/// Begin a component that answers requests
#[derive(Debug, Subcommand)]
pub(super) enum Module {
    /// Make a folder with a custom endpoint to begin with
    ///
    /// It builds with the language's own tools; its contract is in the folder.
    ///
    /// Example: snaphook module new quote --language rust
    New {
        /// Its name, and that of the folder
        name: String,
        #[arg(long)]
        language: Language,
        /// What it is: a component that answers all requests under a path
        #[arg(long, default_value = "endpoint")]
        kind: Kind,
        /// Where the folder is made [default: here]
        #[arg(long, value_name = "DIR")]
        r#in: Option<PathBuf>,
    },
}

/// What there is a template for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    Endpoint,
}

/// Languages that there is a template for. Whatever makes a component for `wasi:http/proxy` works.
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
            "`{}` is no name of an endpoint, expected 1 to 63 lowercase letters, digits and `-`, beginning with a letter",
            name.escape_debug()
        )));
    }
    let Kind::Endpoint = kind;
    // What the component is called, and how it is made.
    let (template, component, build) = match language {
        Language::Rust => {
            let built = format!("target/wasm32-wasip2/release/{}.wasm", name.replace('-', "_"));
            ("endpoint-rust", built, "cargo build --release --target wasm32-wasip2".to_owned())
        }
        Language::Js => ("endpoint-js", format!("{name}.wasm"), "npm install && npm run build".to_owned()),
        Language::Python => {
            let build = format!("componentize-py -d wit -w endpoint componentize app -o {name}.wasm");
            ("endpoint-python", format!("{name}.wasm"), build)
        }
    };
    let mut files = templates::write(template, directory, &[("name", name), ("crate", name)])?;
    let contract = "wit/deps/snaphook-hook.wit";
    let (place, folder) = (directory.join(contract), directory.join("wit/deps"));
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(place, CONTRACT))
        .map_err(|error| Failure::new(format!("`{}` cannot be written: {error}", directory.display())))?;
    files.push(contract.to_owned());
    for file in files {
        output::line(format!("created {}", directory.join(file).display()))?;
    }
    let shown = directory.display();
    output::line(format!("next: cd {shown} && {build}"))?;
    output::line("then, in config.toml:")?;
    output::line("[[server.endpoints]]")?;
    output::line(format!("name = '{name}'"))?;
    output::line(format!("path = '/{name}'"))?;
    output::line(format!("component = '{}'", directory.join(component).display()))
}
