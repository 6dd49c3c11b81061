//! npm's `oidc-provider` in a separate process, and the keys that are needed to forge its tokens.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::rsa::{KeyPairComponents, PublicKeyComponents};
use ring::signature::{RsaEncoding, RsaKeyPair};
use serde_json::Value;
use snaphook_driver::json;
use snaphook_driver_peer::{Method, Peer};
use tempfile::TempDir;

use super::DEADLINE;

pub(crate) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The issuer's process ends when this is dropped, or with this process.
pub(crate) struct Issuer {
    folder: TempDir,
    port: u16,
    process: Option<Child>,
}

/// An RSA key of the issuer, including the private key.
pub(crate) struct Rsa {
    pub(crate) kid: String,
    pub(crate) modulus: Vec<u8>,
    pair: RsaKeyPair,
}

impl Issuer {
    /// `None` if the package is not installed.
    pub(crate) async fn start() -> Option<Issuer> {
        let packages = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oidc-provider");
        if !packages.join("node_modules/oidc-provider").is_dir() {
            assert!(std::env::var_os("CI").is_none(), "oidc-provider is not installed");
            eprintln!(
                "skipped: no oidc-provider; `cargo xtask test` installs it, or `npm ci` in {}",
                packages.display()
            );
            return None;
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut issuer = Issuer { folder: TempDir::new().unwrap(), port, process: None };
        issuer.restart().await;
        Some(issuer)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// A token for the resource `snaphook`, signed with that algorithm.
    pub(crate) async fn token(&self, client: &str, algorithm: &str) -> String {
        let headers = BTreeMap::from([
            ("authorization".to_owned(), format!("Basic {}", STANDARD.encode(format!("{client}:secret")))),
            ("content-type".to_owned(), "application/x-www-form-urlencoded".to_owned()),
        ]);
        let peer = Peer::new(&self.url(), None, DEADLINE).unwrap().with_headers(&headers).unwrap();
        let body = format!("grant_type=client_credentials&resource=urn:{algorithm}");
        let response = peer.send(Method::POST, "/token", Some(body.into()), 1 << 20).await.unwrap();
        let tree = json::parse_bytes(&response.body).unwrap();
        tree["access_token"].as_str().unwrap_or_else(|| panic!("{tree}")).to_owned()
    }

    pub(crate) fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Restarts the issuer with the same keys.
    pub(crate) async fn restart(&mut self) {
        self.stop();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oidc-provider/issuer.mjs");
        let mut command = Command::new("node");
        command.arg(script).arg(self.port.to_string()).arg(self.folder.path().join("keys.json"));
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        self.process = Some(command.spawn().expect("node starts"));
        let peer = Peer::new(&self.url(), None, DEADLINE).unwrap();
        let started = Instant::now();
        while peer.send(Method::GET, "/jwks", None, 1 << 20).await.is_err() {
            assert!(started.elapsed() < DEADLINE, "the issuer does not start");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    /// Restarts the issuer with new keys.
    pub(crate) async fn rotate(&mut self) {
        std::fs::remove_file(self.folder.path().join("keys.json")).unwrap();
        self.restart().await;
    }

    pub(crate) fn rsa(&self, algorithm: &str) -> Rsa {
        let file = std::fs::read(self.folder.path().join("keys.json")).unwrap();
        let tree = json::parse_bytes(&file).unwrap();
        let key = tree["keys"].as_array().unwrap().iter().find(|key| key["alg"] == algorithm).unwrap();
        let part = |name: &str| URL_SAFE_NO_PAD.decode(key[name].as_str().unwrap()).unwrap();
        let components = KeyPairComponents {
            public_key: PublicKeyComponents { n: part("n"), e: part("e") },
            d: part("d"),
            p: part("p"),
            q: part("q"),
            dP: part("dp"),
            dQ: part("dq"),
            qInv: part("qi"),
        };
        let pair = RsaKeyPair::from_components(&components).unwrap();
        Rsa { kid: key["kid"].as_str().unwrap().to_owned(), modulus: part("n"), pair }
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Rsa {
    pub(crate) fn sign(&self, header: &Value, claims: &Value, encoding: &'static dyn RsaEncoding) -> String {
        let signed = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
        let mut signature = vec![0; self.pair.public().modulus_len()];
        self.pair.sign(encoding, &SystemRandom::new(), signed.as_bytes(), &mut signature).unwrap();
        format!("{signed}.{}", encode(signature))
    }
}
