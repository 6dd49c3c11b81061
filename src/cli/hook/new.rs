//! `snaphook hook new`: a folder with a hook that builds, tests and binds.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::phase::phase;
use crate::cli::failure::{Failure, Result};
use crate::cli::{output, sdk, templates};
use crate::config::Phase;

/// Create a folder with the template of a hook
///
/// The folder contains the SDK; no package of Snaphook is needed.
///
/// Example: snaphook hook new check-total --language ts --phase preCreate
#[derive(Args, Debug)]
pub(in crate::cli) struct New {
    /// The name of the hook and of its folder
    name: String,
    #[arg(long)]
    language: Language,
    #[arg(long, value_parser = phase, default_value = "preCreate")]
    phase: Phase,
    /// Create a native library, which runs in the server's process without a sandbox (Rust and C)
    #[arg(long)]
    native: bool,
    /// The parent of the new folder [default: the current folder]
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

/// What `hook.toml` says of a native hook.
const NATIVE: &str = "\n# A library that runs in the server's own process, without a sandbox.\nengine = 'native'";

/// A crate's name takes fewer characters than a hook's, and begins with no digit.
fn crate_name(name: &str) -> String {
    let prefix = if name.starts_with(|first: char| first.is_ascii_digit()) { "hook-" } else { "" };
    format!("{prefix}{}", name.replace('.', "-"))
}

impl New {
    pub(in crate::cli) fn run(&self) -> Result<()> {
        if !crate::catalog::is_hook_name(&self.name) || self.name.starts_with(['.', '-']) {
            return Err(Failure::new(format!(
                "`{}` is not a hook name, expected 1 to 63 letters, digits, `.`, `_` and `-`",
                self.name.escape_debug()
            )));
        }
        if self.native && !matches!(self.language, Language::Rust | Language::C) {
            return Err(Failure::new(format!(
                "native hooks are in Rust or C; one in `{}` runs in a sandbox, without `--native`",
                self.language.as_str()
            )));
        }
        let directory = match &self.r#in {
            Some(parent) => parent.join(&self.name),
            None => PathBuf::from(&self.name),
        };
        let phase = self.phase.as_str();
        let engine = if self.native { NATIVE } else { "" };
        let values = [
            ("name", self.name.as_str()),
            ("phase", phase),
            ("Phase", &capital(phase)),
            ("world", if self.phase.is_pre() { "pre-hook" } else { "post-hook" }),
            ("engine", engine),
            ("crate", &crate_name(&self.name)),
        ];
        let language = self.language.as_str();
        let parts: &[&str] = match self.language {
            Language::C if self.native => &["c-native"],
            // componentize-py wants each function of a world, so a hook for a post phase is for a world of its own.
            Language::Python if !self.phase.is_pre() => &[language, "python-post"],
            _ => &[language],
        };
        let mut files = templates::write_over(parts, &directory, &values)?;
        let package = directory.join("snaphook");
        match self.language {
            Language::Rust => sdk::write_hook_crate(&package)?,
            Language::Js | Language::Ts => sdk::write_hook_package(&package)?,
            Language::C if self.native => {
                sdk::write_file(&directory.join("snaphook_hook.h"), sdk::HOOK_HEADER.as_bytes())?;
                files.push("snaphook_hook.h".to_owned());
            }
            Language::C | Language::Python => {}
        }
        if package.is_dir() {
            files.push("snaphook".to_owned());
        }
        for file in files {
            output::line(format!("created {}", directory.join(file).display()))?;
        }
        let install = if matches!(self.language, Language::Js | Language::Ts) { "npm install && " } else { "" };
        output::line(format!("next: cd {} && {install}snaphook hook test", directory.display()))
    }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(chars).collect()
}
