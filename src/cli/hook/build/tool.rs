//! Other people's programs: found, run, and named with a way to get them if they are not there.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::cli::failure::{Failure, Result};

/// How to get the programs that hooks are built with.
const WAYS: [(&str, &str); 10] = [
    ("cargo", "`curl -sSf https://sh.rustup.rs | sh` installs it (https://rustup.rs)"),
    ("rustc", "`curl -sSf https://sh.rustup.rs | sh` installs it (https://rustup.rs)"),
    ("esbuild", "`npm install --save-dev esbuild` in the hook's folder installs it"),
    ("node", "on Debian `apt install nodejs npm` installs it; version 20 or newer"),
    ("clang", "on Debian `apt install clang lld wasi-libc libclang-rt-dev-wasm32` installs it"),
    ("componentize-py", "`pip install componentize-py` installs it"),
    ("wit-bindgen", "`cargo install wit-bindgen-cli` installs it"),
    ("javy", "its releases are at https://github.com/bytecodealliance/javy"),
    ("cc", "on Debian `apt install gcc libc6-dev` installs it"),
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
            Failure::NotReady(format!("`{name}`, which builds the hook, is not installed; {way}"))
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
            false => Err(Failure::new(format!("`{}` failed ({status}); see its output above", self.name))),
        }
    }

    /// Runs it to its end and gives what it printed.
    pub(super) fn read(mut self) -> Result<Vec<u8>> {
        let output = self.command.stderr(Stdio::inherit()).output();
        let output = output.map_err(|error| Failure::new(format!("`{}` cannot be started: {error}", self.name)))?;
        match output.status.success() {
            true => Ok(output.stdout),
            false => Err(Failure::new(format!("`{}` failed ({}); see its output above", self.name, output.status))),
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
    let file = format!("{name}{}", std::env::consts::EXE_SUFFIX);
    local
        .chain(global.iter().cloned())
        .map(|folder| folder.join(&file))
        .find(|file| file.is_file())
        .or_else(|| versioned(name, &global))
}

/// Debian names a compiler by its version: the newest `clang-19` is a `clang`.
fn versioned(name: &str, folders: &[PathBuf]) -> Option<PathBuf> {
    if name != "clang" {
        return None;
    }
    let entries = folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().flatten();
    let version = |path: &Path| path.file_name()?.to_str()?.strip_prefix("clang-")?.parse::<u32>().ok();
    let found = entries.map(|entry| entry.path()).filter_map(|path| Some((version(&path)?, path)));
    found.max().map(|(_, path)| path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["clang-9", "clang-19", "clang-cpp-20", "clang++-21", "clang-x"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let folders = [folder.path().join("nowhere"), folder.path().to_owned()];
        assert_eq!(versioned("clang", &folders), Some(folder.path().join("clang-19")));
        assert_eq!(versioned("cc", &folders), None);
    }
}
