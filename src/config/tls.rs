//! `[server.tls]` and `[server] redirect-http`: the server's certificate, and the client certificates that it requires.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::address::Address;
use super::document::Section;

const SECRET: &str = "secret:";

/// `[server.tls]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// The server's certificate and the intermediate certificates.
    pub certificate: Pem,
    pub private_key: Pem,
    /// The issuer of the certificates that clients must present; `None` if clients need none.
    pub client_ca: Option<Pem>,
}

/// The location of a text in PEM format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pem {
    pub source: PemSource,
    /// The key, for messages.
    pub key: &'static str,
    /// Its line in the file.
    pub line: usize,
}

/// A file or a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PemSource {
    /// Absolute.
    File(PathBuf),
    /// The name of a secret.
    Secret(String),
}

impl TlsConfig {
    /// All of its PEM texts.
    pub fn parts(&self) -> impl Iterator<Item = &Pem> {
        [&self.certificate, &self.private_key].into_iter().chain(&self.client_ca)
    }

    /// Its files, which may change.
    pub fn files(&self) -> Vec<PathBuf> {
        let file = |pem: &Pem| match &pem.source {
            PemSource::File(path) => Some(path.clone()),
            PemSource::Secret(_) => None,
        };
        self.parts().filter_map(file).collect()
    }

    /// Whether its certificate and key are files, which can be read before the server starts.
    pub fn has_pair_in_files(&self) -> bool {
        [&self.certificate, &self.private_key].iter().all(|pem| matches!(pem.source, PemSource::File(_)))
    }

    /// Whether both are equal, ignoring their lines in the file.
    pub(super) fn is_same(&self, other: &TlsConfig) -> bool {
        self.parts().map(|pem| (pem.key, &pem.source)).eq(other.parts().map(|pem| (pem.key, &pem.source)))
    }
}

impl fmt::Display for PemSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PemSource::File(path) => path.display().fmt(f),
            PemSource::Secret(name) => write!(f, "{SECRET}{name}"),
        }
    }
}

pub(super) fn tls(server: &mut Section<'_>, directory: &Path) -> Option<TlsConfig> {
    let mut section = server.section("tls");
    let is_there = section.line.is_some();
    let certificate = pem(&mut section, "certificate", directory);
    let private_key = pem(&mut section, "private-key", directory);
    let client_ca = pem(&mut section, "client-ca", directory);
    if is_there {
        for key in ["certificate", "private-key"].into_iter().filter(|key| !section.was_there(key)) {
            section.missing(key, "a PEM file or 'secret:NAME'");
        }
    }
    section.finish();
    Some(TlsConfig { certificate: certificate?, private_key: private_key?, client_ca })
}

fn pem(section: &mut Section<'_>, key: &'static str, directory: &Path) -> Option<Pem> {
    let text = section.secret_string(key)?;
    let line = text.place.line;
    let source = text.parsed("a PEM file or 'secret:NAME'", |text| match text.strip_prefix(SECRET) {
        Some(name) => (!name.is_empty()).then(|| PemSource::Secret(name.to_owned())),
        None => (!text.is_empty()).then(|| PemSource::File(directory.join(text))),
    })?;
    Some(Pem { source, key, line })
}

/// `redirect-http`, which needs a port with TLS to redirect to.
pub(super) fn redirect_http(server: &mut Section<'_>, address: &Address, has_tls: bool) -> Option<SocketAddr> {
    let text = server.string("redirect-http")?;
    let from = text.parsed("an IP address and a port such as '0.0.0.0:80'", |text| text.parse().ok())?;
    if !has_tls {
        text.place.error("redirects to https, which this server does not speak; add `[server.tls]`, or remove it");
    }
    if address.value.port().is_none() {
        text.place.error("redirects to the port of `server.mount-address`, which is a Unix socket; remove one of them");
    }
    Some(from)
}
