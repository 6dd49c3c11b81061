//! TLS. A process trusts the authorities that its environment names, so each client is a separate process: this test
//! binary, started with variables to run one case.

use std::path::Path;
use std::process::Command;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::json;
use snaphook_driver_testkit::run;
use snaphook_driver_testkit::servers::redis::{DURABLE, start, start_with_tls};

use crate::support::open;

/// The server's address, for a process that is only a client.
const URL_VARIABLE: &str = "SNAPHOOK_REDIS_TEST_URL";

/// The beginning of the line with the outcome of the client's calls.
const MARK: &str = "snaphook-redis-test: ";

/// A certificate for 127.0.0.1, its key, and the authority that signed it, as PEM.
fn certificate() -> [String; 3] {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let authority_pem = authority.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(authority, key);
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    [certificate.pem(), key.serialize_pem(), authority_pem]
}

/// The outcome of a client process that trusts only this authority.
async fn client(url: String, authority: &Path) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "tls::only_a_client", "--nocapture"]);
    command.env(URL_VARIABLE, url).env("SSL_CERT_FILE", authority).env_remove("SSL_CERT_DIR");
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let output = String::from_utf8(output.stdout).unwrap();
    output.lines().find_map(|line| Some(line.split_once(MARK)?.1.to_owned())).unwrap_or(output)
}

/// Does nothing in an ordinary run.
#[test]
fn only_a_client() {
    let Ok(url) = std::env::var(URL_VARIABLE) else { return };
    run(async {
        let outcome = match open(json!({"url": url})).await {
            Ok(store) => match store.put("a", &vec![7; 1 << 20], None).await {
                Ok(version) => format!("stored as version {version}"),
                Err(error) => error.to_string(),
            },
            Err(error) => error.to_string(),
        };
        println!("\n{MARK}{outcome}");
    });
}

#[test]
fn certificates_are_checked() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let ([certificate, key, authority], [_, _, other]) = (self::certificate(), self::certificate());
        let file = |name: &str, pem: String| {
            let file = folder.path().join(name);
            std::fs::write(&file, pem).unwrap();
            file
        };
        let (right, wrong) = (file("right.pem", authority), file("wrong.pem", other));
        let server = start_with_tls(DURABLE, file("server.pem", certificate), file("server.key", key));
        let port = server.address().port();
        let url = |scheme: &str, host: &str| format!("{scheme}://{host}:{port}");
        assert_eq!(client(url("rediss", "127.0.0.1"), &right).await, "stored as version 1");
        let refused = client(url("rediss", "127.0.0.1"), &wrong).await;
        assert!(refused.contains("cannot be reached with TLS") && refused.contains("ertificate"), "{refused}");
        // The certificate is valid for the address, not for this name.
        let misnamed = client(url("rediss", "localhost"), &right).await;
        assert!(misnamed.contains("not valid for name"), "{misnamed}");
        // A client without TLS for a server with TLS, and the reverse.
        let plain = client(url("redis", "127.0.0.1"), &right).await;
        assert!(plain.starts_with("open: unavailable: "), "{plain}");
        let server = start(DURABLE);
        let secured = client(format!("rediss://{}", server.address()), &right).await;
        assert!(secured.starts_with("open: unavailable: the server c"), "{secured}");
    });
}
