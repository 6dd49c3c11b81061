//! A driver that is not written in Rust: the Python example passes the suite of its store, and the Python messages pass
//! the test vectors of the repository.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use async_trait::async_trait;
use snaphook_driver::wire::Opened;
use snaphook_driver::{OpenContext, Result, Store};
use snaphook_driver_testkit::Opener;
use snaphook_remote::connect;

/// A file of the SDK.
fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sdk/driver").join(name)
}

/// The running example; killed when this is dropped.
struct Python {
    process: Child,
    url: String,
}

impl Python {
    fn start() -> Python {
        let mut command = Command::new("python3");
        command.arg(file("examples/secure_store.py")).stdout(Stdio::piped());
        let mut process = command.spawn().expect("`python3` is installed");
        let mut url = String::new();
        let output = process.stdout.take().expect("it is piped");
        BufReader::new(output).read_line(&mut url).expect("it prints its address");
        Python { process, url: url.trim().to_owned() }
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[async_trait]
impl Opener for Python {
    async fn open(&self, store: Store, _: OpenContext) -> Result<Opened> {
        let serde_json::Value::Object(settings) = serde_json::json!({"url": self.url}) else {
            unreachable!("an object")
        };
        connect(store, &OpenContext::new(settings, "")).await
    }
}

snaphook_driver_testkit::secure_suite!(Python::start(), {});

/// Checks the Python messages against a file of test vectors. Returns whether all of them pass, and the output.
fn convert(vectors: &Path) -> (bool, String) {
    let output = Command::new("python3").arg(file("examples/messages.py")).arg(vectors).output();
    let output = output.expect("`python3` is installed");
    let printed = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&printed).trim().to_owned())
}

#[test]
fn messages_in_python_pass_the_vectors() {
    let vectors = file("proto/messages.json");
    let text = std::fs::read_to_string(&vectors).unwrap();
    let count = snaphook_driver::json::parse(&text).unwrap().as_array().unwrap().len();
    assert_eq!(convert(&vectors), (true, format!("{count} vectors")));
    // A changed vector fails.
    let folder = tempfile::tempdir().unwrap();
    let changed = folder.path().join("messages.json");
    std::fs::write(&changed, text.replacen("the disk is full", "the disk is empty", 1)).unwrap();
    let (is_right, printed) = convert(&changed);
    assert!(!is_right && printed.starts_with("Error as Protobuf is"), "{printed}");
}
