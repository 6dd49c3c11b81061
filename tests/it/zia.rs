//! Modules built from ZiaModuleAPISpec, in the bridge: real libraries (`tests/zia`), real sockets, faults of every
//! kind. `cargo xtask test` builds the bridge and the libraries.

mod bridge;
mod faults;
mod refused;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rcgen::{CertificateParams, KeyPair};

use crate::support::{PATIENCE, Server, ServerOptions, eventually, skip};

/// The folder of the bridge and the libraries.
fn folder() -> PathBuf {
    let beside = || Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("zia");
    std::env::var_os("SNAPHOOK_ZIA").map_or_else(beside, PathBuf::from)
}

/// Prints a message and returns `false` if they are not built.
#[track_caller]
fn are_there() -> bool {
    let is_there = folder().join("snaphook-zia-bridge").is_file();
    if !is_there {
        skip(
            "modules of ZiaModuleAPISpec",
            &format!("nothing in {}; `cargo xtask test` builds them", folder().display()),
        );
    }
    is_there
}

/// A module's table. `rest`: its other keys.
fn module(name: &str, library: &str, rest: &str) -> String {
    let library = folder().join(format!("{library}.so"));
    format!("[[server.modules]]\nname = '{name}'\nkind = 'zia'\nlibrary = '{}'\n{rest}\n", library.display())
}

fn options(modules: &[String]) -> ServerOptions {
    let bridge = folder().join("snaphook-zia-bridge");
    ServerOptions {
        server: format!("zia-bridge = '{}'\n{}", bridge.display(), modules.concat()),
        ..ServerOptions::default()
    }
}

#[track_caller]
fn start(modules: &[String]) -> Server {
    Server::start_with(options(modules))
}

/// Sends a request on a new connection and returns the complete response.
#[track_caller]
fn ask(server: &Server, request: &str) -> String {
    let bytes = server.client().raw(request.as_bytes());
    String::from_utf8_lossy(&bytes).into_owned()
}

#[track_caller]
fn get(server: &Server, path: &str) -> String {
    ask(server, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
}

#[track_caller]
fn expect_log(server: &Server, text: &str) {
    eventually(&format!("the log has `{text}`"), || server.log().iter().any(|line| line.contains(text)).then_some(()));
}

fn bridges(server: &Server) -> Vec<u32> {
    let is_bridge = |pid: &u32| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&command).contains("snaphook-zia-bridge")
    };
    server.children().into_iter().filter(is_bridge).collect()
}
