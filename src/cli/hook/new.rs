//! `snaphook hook new`: a folder with a hook that builds, tests and binds.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::phase::phase;
use super::types;
use crate::cli::failure::{Failure, Result};
use crate::cli::{output, templates};
use crate::config::Phase;

/// Make a folder with a hook to begin with
///
/// Example: snaphook hook new check-total --language ts --phase preCreate
#[derive(Args, Debug)]
pub(in crate::cli) struct New {
    /// Its name, and that of the folder
    name: String,
    #[arg(long)]
    language: Language,
    #[arg(long, value_parser = phase, default_value = "preCreate")]
    phase: Phase,
    /// Where the folder is made [default: here]
    #[arg(long, value_name = "DIR")]
    r#in: Option<PathBuf>,
}

/// Languages that there is a template for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Language {
    Rust,
    Js,
    Ts,
    Python,
    C,
}

impl Language {
    pub(super) const ALL: [Language; 5] = [Language::Rust, Language::Js, Language::Ts, Language::Python, Language::C];

    pub(in crate::cli) const fn as_str(self) -> &'static str {
        match self {
            Language::Rust => "rust",
            Language::Js => "js",
            Language::Ts => "ts",
            Language::Python => "python",
            Language::C => "c",
        }
    }
}

impl New {
    pub(in crate::cli) fn run(&self) -> Result<()> {
        if !crate::catalog::is_hook_name(&self.name) || self.name.starts_with(['.', '-']) {
            return Err(Failure::new(format!(
                "`{}` is no hook name, expected 1 to 63 letters, digits, `.`, `_` and `-`",
                self.name.escape_debug()
            )));
        }
        let directory = match &self.r#in {
            Some(parent) => parent.join(&self.name),
            None => PathBuf::from(&self.name),
        };
        let phase = self.phase.as_str();
        let values = [
            ("name", self.name.as_str()),
            ("phase", phase),
            ("Phase", &capital(phase)),
            // A crate's or a module's name takes fewer characters.
            ("crate", &self.name.replace('.', "-")),
        ];
        let mut files = templates::write(self.language.as_str(), &directory, &values)?;
        if self.language == Language::Ts {
            files.push(types::write_contract(&directory)?);
        }
        for file in files {
            output::line(format!("created {}", directory.join(file).display()))?;
        }
        let install = if matches!(self.language, Language::Js | Language::Ts) { "npm install && " } else { "" };
        output::line(format!("next: cd {} && {install}snaphook hook build", directory.display()))
    }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(chars).collect()
}
