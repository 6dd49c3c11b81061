//! Server modules from outside: the examples of both SDKs, and a module that misbehaves in every way.
#![cfg(unix)]

mod connections;
mod examples;
mod hostile;
mod reload;
mod sandboxed;

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Server, ServerOptions, eventually, skip};

/// The library of an example in Rust, which `cargo test` builds.
pub(super) fn example(name: &str) -> PathBuf {
    let file = format!("{}module_{name}{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let path = Path::new(env!("CARGO_BIN_EXE_snaphook")).with_file_name("examples").join(file);
    assert!(path.is_file(), "{} is missing: `cargo test --workspace` builds it", path.display());
    path
}

/// Compiles a file of the repository into a folder; prints a message and returns `None` if there is no compiler.
pub(super) fn compiled(source: &str, flags: &[&str], into: &Path) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let stem = Path::new(source).file_stem().expect("a file").to_string_lossy().into_owned();
    let (new, path) = (into.join(format!("{stem}.new")), into.join(format!("{stem}.so")));
    let mut command = Command::new("c++");
    command.args(["-std=c++11", "-Wall", "-Werror", "-shared", "-fPIC", "-fexceptions", "-O1", "-pthread"]);
    command.args(flags).arg("-I").arg(root.join("sdk/c")).arg("-o").arg(&new).arg(root.join(source));
    match command.output() {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => {
            skip("modules in C++", &format!("no C++ compiler `c++`: {error}"));
            return None;
        }
    }
    std::fs::rename(new, &path).expect("a library");
    Some(path)
}

/// The configuration of one module.
pub(super) fn module(name: &str, library: &Path, more: &str) -> String {
    format!("[[server.modules]]\nname = '{name}'\nlibrary = '{}'\n{more}\n", library.display())
}

/// A server with these modules.
#[track_caller]
pub(super) fn serve(modules: &str) -> Server {
    Server::start_with(options(modules))
}

pub(super) fn options(modules: &str) -> ServerOptions {
    ServerOptions { tables: modules.to_owned(), ..ServerOptions::default() }
}

pub(super) fn has_line(server: &Server, text: &str) -> bool {
    server.log().iter().any(|line| line.contains(text))
}

/// Waits for a line in the log.
#[track_caller]
pub(super) fn says(server: &Server, text: &str) {
    eventually(text, || has_line(server, text).then_some(()));
}
