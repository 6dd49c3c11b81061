//! A driver that is not written in Rust: the example in Python passes the suite of its store.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use async_trait::async_trait;
use snaphook_driver::wire::Opened;
use snaphook_driver::{OpenContext, Result, Store};
use snaphook_driver_testkit::Opener;
use snaphook_remote::connect;

/// The example, which runs as long as this is there.
struct Python {
    process: Child,
    url: String,
}

impl Python {
    fn start() -> Python {
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sdk/driver/examples/secure_store.py");
        let mut process =
            Command::new("python3").arg(example).stdout(Stdio::piped()).spawn().expect("`python3` is installed");
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

snaphook_driver_testkit::secure_suite!(Python::start(), {}, volatile);
