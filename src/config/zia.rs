//! Modules with `kind = 'zia'`: the program that runs them, and what they cannot be combined with.

use std::path::{Path, PathBuf};

use super::address::MountAddress;
use super::document::{ConfigDocument, Section};
use super::settings::ServerConfig;

/// The name of the program.
const PROGRAM: &str = "snaphook-zia-bridge";

/// `zia-bridge`: a name, or a path, which is made absolute.
pub(super) fn bridge(server: &mut Section<'_>, directory: &Path) -> PathBuf {
    let text = server.string("zia-bridge");
    let path = text.and_then(|text| {
        text.parsed("the name or path of a program", |text| match Path::new(text).components().count() {
            0 => None,
            1 => Some(PathBuf::from(text)),
            _ => Some(directory.join(text)),
        })
    });
    path.unwrap_or_else(|| PROGRAM.into())
}

/// Records combinations that cannot work: these modules get the descriptor of each connection before the rest of the
/// server does.
pub(super) fn check(document: &ConfigDocument<'_>, server: &ServerConfig) {
    let modules = &server.modules;
    let Some(first) = modules.iter().find(|module| module.kind.is_zia()) else { return };
    let refuse = |line: usize, name: &str, why: &str| {
        document.error(line, format!("module `{name}` has `kind = 'zia'`, {why}"));
    };
    if server.tls.is_some() {
        let why = "and gets connections as they come from the network, where `[server.tls]` does not apply; remove \
                   `[server.tls]`, and let a module do TLS";
        refuse(first.line, &first.name, why);
    }
    if let MountAddress::Unix(_) = server.mount_address {
        let why = "which needs TCP connections, and `server.mount-address` is a Unix socket; expected an IP address and a port";
        refuse(first.line, &first.name, why);
    }
    let others_from = modules.iter().position(|module| !module.kind.is_zia()).unwrap_or(modules.len());
    if let Some(late) = modules[others_from..].iter().find(|module| module.kind.is_zia()) {
        let why = format!(
            "and gets connections before modules of other kinds do; put it before `{}`",
            modules[others_from].name
        );
        refuse(late.line, &late.name, &why);
    }
}
