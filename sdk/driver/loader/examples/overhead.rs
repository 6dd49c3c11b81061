//! Measures how much longer a call through a library takes than a call to a linked driver: `head` of the driver
//! `memory`.
//!
//! `cargo xtask plugins --release && cargo run --release -p snaphook-driver-loader --example overhead --
//! target/plugins/memory/libsnaphook_memory.so` prints the microseconds per call in the best of several rounds.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use serde_json::Map;
use snaphook_driver::wire::Opened;
use snaphook_driver::{EventStore, OpenContext, Store};
use snaphook_driver_loader::{Deadlines, Plugin};
use snaphook_driver_testkit::Opener as _;
use snaphook_driver_testkit::OverMessages;
use snaphook_memory::DRIVER;

const ROUNDS: usize = 10;
const CALLS: u32 = 20_000;

fn main() {
    let file: PathBuf = std::env::args_os().nth(1).expect("the path of libsnaphook_memory").into();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    // On a thread of the runtime, like the server's requests.
    runtime.block_on(async { tokio::spawn(measure(file)).await.unwrap() });
}

async fn measure(file: PathBuf) {
    let context = || OpenContext::new(Map::new(), ".");
    let linked = Opened::open(&DRIVER, Store::Event, context()).await.unwrap();
    let messages = OverMessages(DRIVER).open(Store::Event, context()).await.unwrap();
    let plugin = Plugin::load(&file, Deadlines::default()).unwrap();
    let library = plugin.open(0, Store::Event, context()).await.unwrap();
    let mut least = [f64::MAX; 3];
    for _ in 0..ROUNDS {
        for (least, opened) in least.iter_mut().zip([&linked, &messages, &library]) {
            let Opened::Event(store) = opened else { unreachable!("event storage was opened") };
            *least = least.min(per_call(store).await);
        }
    }
    let [linked, messages, library] = least;
    println!("linked {linked:.2} µs, as messages {messages:.2} µs, as a library {library:.2} µs");
    println!("a library costs {:.2} µs more per call", library - linked);
}

async fn per_call(store: &Arc<dyn EventStore>) -> f64 {
    let started = Instant::now();
    for _ in 0..CALLS {
        store.head().await.unwrap();
    }
    started.elapsed().as_secs_f64() * 1e6 / f64::from(CALLS)
}
