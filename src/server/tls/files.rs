//! Reads what `[server.tls]` names, from files and from the secure storage.

use std::path::Path;

use super::identity::{Fault, Identity, Material, Part};
use crate::config::{Config, ConfigError, ConfigErrors, Pem, PemSource, TlsConfig, read_regular};
use crate::drivers::Secret;
use crate::engine::Engine;

/// Bytes of one file: hundreds of certificates.
const PEM_BYTES_MAX: usize = 1 << 20;

/// What is wrong with the files of a configuration. Secrets are left alone: the secure storage is not open.
pub fn check(config: &Config) -> Result<(), ConfigErrors> {
    let Some(tls) = &config.server.tls else { return Ok(()) };
    let mut faults = Vec::new();
    let mut read = |pem: &Pem| match &pem.source {
        PemSource::File(path) => read_file(pem, path).map_err(|fault| faults.push(fault)).ok(),
        PemSource::Secret(_) => None,
    };
    let (certificate, key) = (read(&tls.certificate), read(&tls.private_key));
    let client_ca = tls.client_ca.as_ref().map(read);
    if let (Some(certificate), Some(key)) = (certificate, key)
        && tls.has_pair_in_files()
        && client_ca.as_ref().is_none_or(Option::is_some)
    {
        let client_ca = client_ca.flatten();
        let material = Material { certificate: &certificate, key: &key, client_ca: client_ca.as_deref() };
        faults.extend(Identity::new(&material).err().map(|fault| describe(tls, fault)));
    }
    if faults.is_empty() { Ok(()) } else { Err(ConfigErrors::new(config.name(), faults)) }
}

/// Everything, from wherever it is.
pub(super) async fn load(tls: &TlsConfig, engine: &Engine) -> Result<Identity, Vec<ConfigError>> {
    let mut faults = Vec::new();
    let mut found = Vec::new();
    for pem in tls.parts() {
        match read(pem, engine).await {
            Ok(bytes) => found.push(bytes),
            Err(fault) => faults.push(fault),
        }
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    let tls = tls.clone();
    // Checking a key is arithmetic on large numbers.
    let assembled = tokio::task::spawn_blocking(move || {
        let mut parts = found.iter().map(Bytes::as_slice);
        let material = Material {
            certificate: parts.next().unwrap_or_default(),
            key: parts.next().unwrap_or_default(),
            client_ca: parts.next(),
        };
        Identity::new(&material).map_err(|fault| vec![describe(&tls, fault)])
    });
    assembled
        .await
        .unwrap_or_else(|panic| Err(vec![ConfigError::new(None, format!("reading the certificate: {panic}"))]))
}

enum Bytes {
    File(Vec<u8>),
    Secret(Secret),
}

impl Bytes {
    fn as_slice(&self) -> &[u8] {
        match self {
            Bytes::File(bytes) => bytes,
            Bytes::Secret(secret) => secret.expose(),
        }
    }
}

async fn read(pem: &Pem, engine: &Engine) -> Result<Bytes, ConfigError> {
    match &pem.source {
        PemSource::File(path) => {
            let (pem, path) = (pem.clone(), path.clone());
            let read = tokio::task::spawn_blocking(move || read_file(&pem, &path)).await;
            read.unwrap_or_else(|panic| Err(ConfigError::new(None, format!("reading the certificate: {panic}"))))
                .map(Bytes::File)
        }
        PemSource::Secret(name) => match engine.operations.secret(name).await {
            Ok(Some(secret)) => Ok(Bytes::Secret(secret)),
            Ok(None) => Err(fault(pem, "but there is no such secret; `snaphook secret set` creates one")),
            Err(error) => Err(fault(pem, &format!("which cannot be read: {error}"))),
        },
    }
}

fn read_file(pem: &Pem, path: &Path) -> Result<Vec<u8>, ConfigError> {
    read_regular(path, PEM_BYTES_MAX).map_err(|error| fault(pem, &format!("which cannot be read: {error}")))
}

fn describe(tls: &TlsConfig, Fault { part, message }: Fault) -> ConfigError {
    let pem = match part {
        Part::Certificate => &tls.certificate,
        Part::Key => &tls.private_key,
        Part::ClientCa => tls.client_ca.as_ref().unwrap_or(&tls.certificate),
    };
    fault(pem, &message)
}

fn fault(pem: &Pem, what: &str) -> ConfigError {
    ConfigError::new(pem.line, format!("`server.tls.{}` is `{}`, {what}", pem.key, pem.source))
}
