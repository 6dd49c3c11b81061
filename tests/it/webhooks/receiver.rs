//! An independent receiver: the package `standardwebhooks` in Node verifies requests over HTTP and TLS.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};

use super::{KEY, bind, create, errors, set_secret, start};
use crate::hooks_js::packages::packages;
use crate::support::{Server, ServerOptions, eventually};
use crate::workbench::{grant, open_model};

const OTHER_KEY: &str = "whsec_ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=";

struct Receiver {
    process: Child,
    port: u16,
    came: Arc<Mutex<Vec<Value>>>,
}

impl Receiver {
    /// `tls`: the files of a key and a certificate. `None` if the packages are not installed.
    fn start(keys: &[&str], tls: &[&Path]) -> Option<Receiver> {
        let mut command = Command::new("node");
        command.arg("receiver.mjs").arg(keys.join(",")).args(tls).current_dir(packages()?);
        let mut process = command.stdout(Stdio::piped()).spawn().expect("node runs");
        let mut lines = BufReader::new(process.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
        let port = lines.next().and_then(|line| line.parse().ok()).expect("a port");
        let came = Arc::<Mutex<Vec<Value>>>::default();
        let kept = Arc::clone(&came);
        std::thread::spawn(move || {
            for line in lines {
                kept.lock().expect("no panic while locked").push(serde_json::from_str(&line).expect("JSON"));
            }
        });
        Some(Receiver { process, port, came })
    }

    #[track_caller]
    fn came(&self, count: usize) -> Vec<Value> {
        eventually(&format!("{count} requests"), || {
            let came = self.came.lock().expect("no panic while locked");
            (came.len() >= count).then(|| came.clone())
        })
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn it_verifies_the_events_of_the_log() {
    let Some(receiver) = Receiver::start(&[KEY, OTHER_KEY], &[]) else { return };
    let url = format!("http://127.0.0.1:{}/in?a=b", receiver.port);
    let (_server, api) = start(std::slice::from_ref(&url), "", "");
    for phase in ["postCreate", "postUpdate", "postDelete"] {
        bind(&api, "order", phase, &url);
    }
    create(&api, "order", "o-1");
    receiver.came(1);
    api.put("/models/order/instances/o-1", &json!({"data": {"n": 12345678901234567890_u64, "text": "ü\u{2028}\n"}}))
        .expect(200);
    receiver.came(2);
    api.delete("/models/order/instances/o-1").expect(204);
    let came = receiver.came(3);
    let events = api.get("/models/order/instances/o-1/events").expect(200).json();
    let events = events["items"].as_array().expect("a list");
    for (came, event) in came.iter().zip(events) {
        assert_eq!(came["verifies"], json!([0]), "{came}");
        assert_eq!(came["body"]["type"], event["type"]);
        assert_eq!(came["body"]["timestamp"], event["time"]);
        // Numbers as JavaScript reads them; another test compares the digits.
        let mut event = event.clone();
        if event["data"]["text"].is_string() {
            event["data"]["n"] = json!(12345678901234567000_u64);
        }
        assert_eq!(came["body"]["data"], event);
        let headers = &came["headers"];
        assert_eq!((&headers["webhook-id"], &headers["content-type"]), (&event["id"], &json!("application/json")));
        assert!(headers["user-agent"].as_str().is_some_and(|agent| agent.starts_with("snaphook/")), "{headers}");
        assert_eq!((&came["method"], &came["url"]), (&json!("POST"), &json!("/in?a=b")));
    }
    errors(&api, 0);
}

#[test]
fn keys_are_rotated_without_a_gap() {
    let Some(receiver) = Receiver::start(&[KEY, OTHER_KEY], &[]) else { return };
    let url = format!("http://127.0.0.1:{}/", receiver.port);
    let (_server, api) = start(std::slice::from_ref(&url), "max-attempts = 1\nwebhook-attempts = 1", "");
    bind(&api, "order", "postCreate", &url);
    let both = format!("{OTHER_KEY} {KEY}\n");
    for (index, (secret, verifies)) in
        [(KEY, json!([0])), (&both, json!([0, 1])), (OTHER_KEY, json!([1]))].into_iter().enumerate()
    {
        set_secret(&api, secret);
        create(&api, "order", &format!("o-{index}"));
        assert_eq!(receiver.came(index + 1)[index]["verifies"], verifies, "{secret}");
    }
    // A key that the receiver does not have.
    set_secret(&api, &KEY.replace("AAEC", "BBEC"));
    create(&api, "order", "foreign");
    assert_eq!(receiver.came(4)[3]["verifies"], json!([]));
    let message = errors(&api, 1)[0]["message"].as_str().expect("a message").to_owned();
    assert!(message.contains(" returned 401 in "), "{message}");
    // An invalid key is not used, and no message shows it.
    set_secret(&api, "hunter2");
    create(&api, "order", "bad");
    let text = api.get("/errors").expect(200).text();
    let message = errors(&api, 2)[1]["message"].as_str().expect("a message").to_owned();
    assert!(message.contains("secret `key` is not a webhook key: a key does not begin with `whsec_`"), "{message}");
    assert!(!text.contains("hunter2") && receiver.came(4).len() == 4, "{text}");
}

#[test]
fn tls_is_verified() {
    let place = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: String| {
        let path = place.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path
    };
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = file("ca.pem", params.self_signed(&key).expect("a certificate").pem());
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(["127.0.0.1".to_owned()]).expect("a name");
    let certificate = file("cert.pem", params.signed_by(&key, &issuer).expect("a certificate").pem());
    let key = file("key.pem", key.serialize_pem());
    let Some(receiver) = Receiver::start(&[KEY], &[&key, &certificate]) else { return };
    let url = format!("https://127.0.0.1:{}/in", receiver.port);
    let authority = vec![("SSL_CERT_FILE", authority.display().to_string())];
    for (environment, trusted) in [(Vec::new(), false), (authority, true)] {
        let tables = grant("order", "postCreate", &format!("http = ['{url}']\nsecret = ['key']"));
        let hooks = "webhook-attempts = 1".to_owned();
        let server = Server::start_with(ServerOptions { tables, hooks, environment, ..ServerOptions::default() });
        let api = server.client();
        set_secret(&api, KEY);
        open_model(&api, "order");
        bind(&api, "order", "postCreate", &url);
        create(&api, "order", "o");
        match trusted {
            true => assert_eq!(receiver.came(1)[0]["verifies"], json!([0])),
            false => {
                let message = errors(&api, 1)[0]["message"].as_str().expect("a message").to_owned();
                assert!(message.contains("certificate"), "{message}");
            }
        }
    }
    assert_eq!(receiver.came(1).len(), 1);
}
