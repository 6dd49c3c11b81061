//! The conformance suite of the store that this driver brings, against a REST API in memory.

mod common;

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::PathBuf;
use std::sync::OnceLock;

use async_trait::async_trait;
use common::Records;
use serde_json::json;
use snaphook_crud::DRIVER;
use snaphook_driver::wire::Opened;
use snaphook_driver::{OpenContext, Result, Store};
use snaphook_driver_testkit::Opener;
use snaphook_driver_testkit::peer::Peer;

/// The driver with a peer. One process serves the peer for its own cases, and for those that run in another process to be
/// killed: they find it by the id of the process that started them.
struct WithPeer {
    url: String,
}

impl WithPeer {
    fn new() -> WithPeer {
        static PEER: OnceLock<Peer> = OnceLock::new();
        let file = |process: u32| PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("crud-peer-{process}"));
        let is_child = std::env::var_os("SNAPHOOK_TESTKIT_FOLDER").is_some();
        let url = match is_child {
            true => std::fs::read_to_string(file(std::os::unix::process::parent_id())).unwrap(),
            false => PEER
                .get_or_init(|| {
                    let records = Records::default();
                    let peer =
                        Peer::start_at(([127, 0, 0, 1], 0).into(), false, move |request| records.answer(request));
                    std::fs::write(file(std::process::id()), peer.url("")).unwrap();
                    peer
                })
                .url(""),
        };
        WithPeer { url }
    }
}

#[async_trait]
impl Opener for WithPeer {
    async fn open(&self, store: Store, mut context: OpenContext) -> Result<Opened> {
        let mut hasher = DefaultHasher::new();
        context.directory.hash(&mut hasher);
        context.settings.insert("url".into(), json!(format!("{}/{:016x}", self.url, hasher.finish())));
        Opened::open(&DRIVER, store, context).await
    }

    fn is_linked(&self) -> bool {
        true
    }
}

snaphook_driver_testkit::model_suite!(WithPeer::new(), { "state": "state" });
