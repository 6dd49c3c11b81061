//! Encrypted connections: which certificates are trusted, and what happens without TLS.

use std::os::unix::fs::{PermissionsExt, chown};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::json;
use snaphook_driver::ErrorKind;
use snaphook_driver_testkit::run;
use snaphook_driver_testkit::sample::{any, append_one};
use snaphook_driver_testkit::servers::postgres;

use crate::common::{client, try_open};

#[test]
fn certificates_are_verified() {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let trusted = authority.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(authority, key);
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("trusted.pem"), trusted).unwrap();
    run(async {
        let mut server = postgres::start(&[]);
        let data = server.folder().join("data");
        let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(&data).unwrap());
        for (name, text) in [("server.crt", certificate.pem()), ("server.key", key.serialize_pem())] {
            std::fs::write(data.join(name), text).unwrap();
            std::fs::set_permissions(data.join(name), PermissionsExt::from_mode(0o600)).unwrap();
            chown(data.join(name), Some(owner), None).unwrap();
        }
        client(&postgres::url(&server)).await.batch_execute("ALTER SYSTEM SET ssl = on").await.unwrap();
        server.restart();
        let port = server.address().port();
        let settings = |host: &str, tls: &str, authority: Option<&str>| {
            let authority = authority.map(|name| folder.path().join(name));
            let mut settings =
                json!({"host": host, "port": port, "user": postgres::USER, "database": "postgres", "tls": tls});
            if let Some(authority) = authority {
                settings["tls-ca"] = authority.to_str().unwrap().into();
            }
            settings
        };
        for (name, settings) in [
            ("unknown", settings("localhost", "require", None)),
            ("unknown, preferred", settings("localhost", "prefer", None)),
            ("another name", settings("127.0.0.1", "require", Some("trusted.pem"))),
        ] {
            let error = try_open(name, settings).await.err().expect(name);
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{name}: {error}");
            assert!(error.to_string().contains("certificate"), "{name}: {error}");
        }
        for tls in ["require", "prefer"] {
            let store = try_open(tls, settings("localhost", tls, Some("trusted.pem"))).await.unwrap();
            append_one(&*store, any("m", "i")).await;
            let sql = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                       WHERE application_name = 'snaphook'";
            let encrypted = client(&postgres::url(&server)).await.query_one(sql, &[]).await.unwrap();
            assert!(encrypted.get::<_, bool>(0), "{tls}");
            store.close().await.unwrap();
        }
    });
}
