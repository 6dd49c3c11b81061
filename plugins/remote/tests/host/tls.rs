//! HTTPS. The environment of a process determines which authorities it trusts, so each client is a separate process:
//! this test's binary, with variables that make it run one case.

use std::path::Path;
use std::process::Command;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use snaphook_driver::Store;
use snaphook_driver::wire::Opened;
use snaphook_driver_testkit::run;
use snaphook_remote::host::{Host, HostLimits, HostOptions};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};

use crate::support::{in_memory, open, read_to_end, serve};

/// The variable with the URL of the host, for a process that is only a client.
const URL_VARIABLE: &str = "SNAPHOOK_REMOTE_TEST_URL";

/// The prefix of the line with the results of the calls.
const MARK: &str = "snaphook-remote-test: ";

/// A certificate for 127.0.0.1, its key, and the authority that signed it, as PEM.
fn certificate() -> (Vec<u8>, Vec<u8>, String) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let authority_pem = authority.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(authority, key);
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    (certificate.pem().into_bytes(), key.serialize_pem().into_bytes(), authority_pem)
}

fn options((certificate, key): (Vec<u8>, Vec<u8>)) -> HostOptions {
    HostOptions { token: Some("hunter2".into()), tls: Some((certificate, key)), closes: false }
}

/// The results of a client process that trusts only this authority.
async fn client(url: String, authority: &Path) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "tls::only_a_client", "--nocapture"]);
    command.env(URL_VARIABLE, url).env("SSL_CERT_FILE", authority).env_remove("SSL_CERT_DIR");
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let output = String::from_utf8(output.stdout).unwrap();
    output.lines().find_map(|line| Some(line.split_once(MARK)?.1.to_owned())).unwrap_or(output)
}

/// The client process. Does nothing in an ordinary run.
#[test]
fn only_a_client() {
    let Ok(url) = std::env::var(URL_VARIABLE) else { return };
    run(async {
        let outcome = match open(&url, "protobuf", Some("hunter2"), Store::Secure).await {
            Ok(Opened::Secure(store)) => match store.put("a", b"x", None).await {
                Ok(version) => format!("stored as version {version}"),
                Err(error) => error.to_string(),
            },
            Ok(_) => "another store".to_owned(),
            Err(error) => error.to_string(),
        };
        println!("\n{MARK}{outcome}");
    });
}

#[test]
fn certificates_are_checked() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key, authority) = certificate();
        let (_, _, other) = self::certificate();
        let [right, wrong] = [("right.pem", authority), ("wrong.pem", other)].map(|(name, pem)| {
            std::fs::write(folder.path().join(name), pem).unwrap();
            folder.path().join(name)
        });
        let store = in_memory(Store::Secure).await;
        let address = serve(store.clone(), options((certificate, key)), HostLimits::default()).await;
        let url = format!("https://{address}");
        assert_eq!(client(url.clone(), &right).await, "stored as version 1");
        let refused = client(url.clone(), &wrong).await;
        assert!(refused.contains("the host cannot be reached") && refused.contains("ertificate"), "{refused}");
        // The certificate is for the address and not for this name.
        let misnamed = client(format!("https://localhost:{}", address.port()), &right).await;
        assert!(
            misnamed.contains("the host cannot be reached") && misnamed.contains("not valid for name"),
            "{misnamed}"
        );
        // Plain HTTP against TLS, and TLS against plain HTTP.
        let plain = client(format!("http://{address}"), &right).await;
        assert!(plain.contains("open: unavailable"), "{plain}");
        let host = serve(store.clone(), HostOptions::default(), HostLimits::default()).await;
        let secured = client(format!("https://{host}"), &right).await;
        assert!(secured.contains("open: unavailable: the host cannot be reached"), "{secured}");
        let Opened::Secure(store) = store else { panic!("it was asked for") };
        assert_eq!(store.get("a").await.unwrap().unwrap().version, 1, "only one of them was served");
    });
}

#[test]
fn a_handshake_that_never_ends_is_given_up() {
    run(async {
        let (certificate, key, _) = certificate();
        let limits = HostLimits { handshake_time: std::time::Duration::from_millis(200), ..HostLimits::default() };
        let address = serve(in_memory(Store::Secure).await, options((certificate, key)), limits).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&[0x16, 3, 1, 2, 0, 1]).await.unwrap();
        assert_eq!(read_to_end(&mut stream).await.text, "");
    });
}

#[test]
fn what_is_no_certificate_is_told_before_anything_is_served() {
    run(async {
        let (certificate, key, _) = certificate();
        let (_, other, _) = self::certificate();
        for (certificate, key, text) in [
            (b"nonsense".to_vec(), key.clone(), "cannot be used"),
            (certificate.clone(), b"nonsense".to_vec(), "the private key is not PEM"),
            (certificate, other, "cannot be used"),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let host = Host::new(listener, vec![in_memory(Store::Secure).await], options((certificate, key)));
            let error = host.err().unwrap().to_string();
            assert!(error.contains(text), "{error}");
        }
    });
}
