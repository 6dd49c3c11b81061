//! From PEM to what a handshake needs: every fault is found here, before any of it is in force.

use std::sync::Arc;

use rustls::client::verify_server_name;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{Error, InconsistentKeys, RootCertStore, ServerConfig};
use sha2::{Digest, Sha256};

/// What clients may choose from, the best first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Texts in PEM format.
pub(super) struct Material<'a> {
    pub(super) certificate: &'a [u8],
    pub(super) key: &'a [u8],
    pub(super) client_ca: Option<&'a [u8]>,
}

/// A certificate with its key, ready for handshakes.
pub(super) struct Identity {
    pub(super) config: Arc<ServerConfig>,
    /// Of the material, to see whether it changed.
    pub(super) digest: [u8; 32],
    certificate: CertificateDer<'static>,
}

/// Which part cannot be used, and why: ends a sentence that names it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) part: Part,
    pub(super) message: String,
}

/// A part of the material.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Certificate,
    Key,
    ClientCa,
}

impl Identity {
    pub(super) fn new(material: &Material<'_>) -> Result<Identity, Fault> {
        let provider = Arc::new(default_provider());
        let chain = certificates(Part::Certificate, material.certificate)?;
        let certificate = chain.first().cloned().ok_or_else(|| empty(Part::Certificate))?;
        ParsedCertificate::try_from(&certificate)
            .map_err(|error| Part::Certificate.fault(format!("whose first certificate cannot be used: {error}")))?;
        let key = PrivateKeyDer::from_pem_slice(material.key).map_err(|_| {
            Part::Key.fault(
                "which contains no private key, expected one in PEM format (PKCS#8, PKCS#1 or SEC 1), not encrypted",
            )
        })?;
        let key = provider.key_provider.load_private_key(key).map_err(|error| {
            Part::Key.fault(format!("whose key cannot be used, expected RSA, ECDSA or Ed25519: {error}"))
        })?;
        let pair = CertifiedKey::new(chain, key);
        match pair.keys_match() {
            Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(_) => {
                return Err(Part::Key.fault("which is not the key of the certificate in `server.tls.certificate`"));
            }
        }
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| Part::Certificate.fault(format!("which cannot be used: {error}")))?;
        let builder = match material.client_ca {
            None => builder.with_no_client_auth(),
            Some(pem) => {
                let mut roots = RootCertStore::empty();
                for authority in certificates(Part::ClientCa, pem)? {
                    roots.add(authority).map_err(|error| {
                        Part::ClientCa.fault(format!("of which a certificate cannot be used: {error}"))
                    })?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                builder.with_client_cert_verifier(
                    verifier.map_err(|error| Part::ClientCa.fault(format!("which cannot be used: {error}")))?,
                )
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(pair)));
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).into();
        Ok(Identity { config: Arc::new(config), digest: digest(material), certificate })
    }

    /// Whether the certificate is one for this host.
    pub(super) fn is_for(&self, host: &str) -> bool {
        let (Ok(name), Ok(certificate)) = (ServerName::try_from(host), ParsedCertificate::try_from(&self.certificate))
        else {
            return false;
        };
        verify_server_name(&certificate, &name).is_ok()
    }
}

impl Part {
    fn fault(self, message: impl Into<String>) -> Fault {
        Fault { part: self, message: message.into() }
    }
}

fn certificates(part: Part, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|error| part.fault(format!("which is not PEM: {error}")))?;
    if all.is_empty() { Err(empty(part)) } else { Ok(all) }
}

fn empty(part: Part) -> Fault {
    part.fault("which contains no certificate, expected PEM with `-----BEGIN CERTIFICATE-----`")
}

fn digest(material: &Material<'_>) -> [u8; 32] {
    let mut digest = Sha256::new();
    for part in [Some(material.certificate), Some(material.key), material.client_ca] {
        let part = part.unwrap_or_default();
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    }
    digest.finalize().into()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn pair(name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new([name.to_owned()]).unwrap().self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn fault(certificate: &str, key: &str, client_ca: Option<&str>) -> Option<(Part, String)> {
        let client_ca = client_ca.map(str::as_bytes);
        let material = Material { certificate: certificate.as_bytes(), key: key.as_bytes(), client_ca };
        Identity::new(&material).err().map(|fault| (fault.part, fault.message))
    }

    #[test]
    fn faults_name_their_part() {
        let ((certificate, key), (other, other_key)) = (pair("a.example"), pair("b.example"));
        assert_eq!(fault(&certificate, &key, None), None);
        assert_eq!(fault(&certificate, &key, Some(&other)), None);
        let cut = &certificate[..certificate.len() / 2];
        let encrypted = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
        let not_der = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let not_key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        for (certificate, key, ca, part, says) in [
            (&certificate[..], &other_key[..], None, Part::Key, "is not the key of the certificate"),
            ("", &key, None, Part::Certificate, "no certificate"),
            ("garbage", &key, None, Part::Certificate, "no certificate"),
            (cut, &key, None, Part::Certificate, "not PEM"),
            (not_der, &key, None, Part::Certificate, "cannot be used"),
            (&certificate, "", None, Part::Key, "no private key"),
            (&certificate, &certificate, None, Part::Key, "no private key"),
            (&certificate, &encrypted, None, Part::Key, "not encrypted"),
            (&certificate, not_key, None, Part::Key, "cannot be used"),
            (&certificate, &key, Some("garbage"), Part::ClientCa, "no certificate"),
            (&certificate, &key, Some(not_der), Part::ClientCa, "cannot be used"),
        ] {
            let (found, message) = fault(certificate, key, ca).expect(says);
            assert!(found == part && message.contains(says), "{found:?}: {message}");
            assert!(!message.contains("BEGIN PRIVATE"), "{message}");
        }
    }

    #[test]
    fn hosts_and_changes() {
        let ((certificate, key), (_, other_key)) = (pair("*.example.com"), pair("b.example"));
        let of = |certificate: &str, client_ca| {
            let material = Material { certificate: certificate.as_bytes(), key: key.as_bytes(), client_ca };
            Identity::new(&material).ok().unwrap()
        };
        let identity = of(&certificate, None);
        for (host, expected) in [
            ("a.example.com", true),
            ("A.Example.com", true),
            ("example.com", false),
            ("evil.com", false),
            ("a b", false),
        ] {
            assert_eq!(identity.is_for(host), expected, "{host}");
        }
        assert_eq!(identity.digest, of(&certificate, None).digest);
        assert_ne!(identity.digest, of(&certificate, Some(certificate.as_bytes())).digest);
        assert_ne!(key, other_key);
    }
}
