//! Other people's programs: found, run, and named with a way to get them if they are not there.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::cli::failure::{Failure, Result};

/// How to get the programs that hooks are built with.
const WAYS: [(&str, &str); 9] = [
    ("cargo", "https://rustup.rs installs it"),
    ("rustc", "https://rustup.rs installs it"),
    ("esbuild", "`npm install --save-dev esbuild` in the hook's folder installs it"),
    ("node", "install Node.js 20 or newer, such as from https://nodejs.org"),
    ("clang", "on Debian `apt install clang lld wasi-libc libclang-rt-dev-wasm32` installs it"),
    ("componentize-py", "`pip install componentize-py` installs it"),
    ("wit-bindgen", "`cargo install wit-bindgen-cli` installs it"),
    ("javy", "its releases are at https://github.com/bytecodealliance/javy"),
    ("make", "on Debian `apt install make` installs it"),
];

/// A program that is there.
pub(super) struct Tool {
    name: String,
    command: Command,
}

impl Tool {
    /// Looks in `node_modules/.bin` from the folder upwards, then in `PATH`.
    pub(super) fn find(name: &str, directory: &Path) -> Result<Tool> {
        let path = locate(name, directory).ok_or_else(|| {
            let ways = WAYS.iter().find(|(known, _)| name.split('-').next() == Some(known) || name == *known);
            let way = ways.map_or_else(|| "install it".to_owned(), |(_, way)| (*way).to_owned());
            Failure::new(format!("`{name}` is not there, and the hook is built with it; {way}"))
        })?;
        let mut command = Command::new(path);
        command.current_dir(directory).stdin(Stdio::null());
        Ok(Tool { name: name.to_owned(), command })
    }

    pub(super) fn args(mut self, args: impl IntoIterator<Item = impl AsRef<std::ffi::OsStr>>) -> Self {
        self.command.args(args);
        self
    }

    /// Runs it to its end; what it says goes to where the user sees it.
    pub(super) fn run(mut self) -> Result<()> {
        let status = self.command.stdout(Stdio::from(std::io::stderr())).status();
        let status = status.map_err(|error| Failure::new(format!("`{}` cannot be started: {error}", self.name)))?;
        match status.success() {
            true => Ok(()),
            false => Err(Failure::new(format!("`{}` failed ({status}); what it said stands above", self.name))),
        }
    }

    /// Runs it to its end and gives what it printed.
    pub(super) fn read(mut self) -> Result<Vec<u8>> {
        let output = self.command.stderr(Stdio::inherit()).output();
        let output = output.map_err(|error| Failure::new(format!("`{}` cannot be started: {error}", self.name)))?;
        match output.status.success() {
            true => Ok(output.stdout),
            false => {
                Err(Failure::new(format!("`{}` failed ({}); what it said stands above", self.name, output.status)))
            }
        }
    }
}

fn locate(name: &str, directory: &Path) -> Option<PathBuf> {
    if name.contains('/') {
        let path = std::path::absolute(directory.join(name)).ok()?;
        return path.is_file().then_some(path);
    }
    let directory = std::path::absolute(directory).ok()?;
    let local = directory.ancestors().map(|folder| folder.join("node_modules/.bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let global: Vec<PathBuf> = std::env::split_paths(&path).collect();
    local
        .chain(global)
        .map(|folder| folder.join(format!("{name}{}", std::env::consts::EXE_SUFFIX)))
        .find(|file| file.is_file())
}
