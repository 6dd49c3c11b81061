//! Servers for drivers that need one: a REST API in memory, and a collector that accepts everything. The openers here
//! connect a driver to these servers, however the driver itself is opened.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use async_trait::async_trait;
use snaphook_driver::wire::Opened;
use snaphook_driver::{OpenContext, Result, Store, json};

use crate::Opener;
use crate::peer::{Peer, Reply, Request};

/// Records by id.
type Collection = BTreeMap<String, Vec<u8>>;

/// A minimal REST API in memory. A collection is named by the path without the id.
#[derive(Clone, Default)]
pub struct Records(Arc<Mutex<HashMap<String, Collection>>>);

impl Records {
    /// Responds as an ordinary API does: 409 for a record that exists, 404 for one that does not.
    pub fn answer(&self, request: &Request) -> Reply {
        let mut all = self.all();
        let (folder, last) = request.path.rsplit_once('/').unwrap();
        match request.method.as_str() {
            "GET" => {
                let records = all.get(&request.path).into_iter().flat_map(BTreeMap::values);
                Reply::json(
                    200,
                    [b"[".as_slice(), &records.cloned().collect::<Vec<_>>().join(&b","[..]), b"]"].concat(),
                )
            }
            "POST" => {
                let record = json::parse_bytes(&request.body).unwrap();
                let id = record["id"].as_str().unwrap().to_owned();
                let collection = all.entry(request.path.clone()).or_default();
                if collection.contains_key(&id) {
                    return Reply::json(409, r#"{"error":"it is there"}"#);
                }
                collection.insert(id, request.body.clone());
                Reply::status(201)
            }
            "PUT" => match all.get_mut(folder).and_then(|collection| collection.get_mut(last)) {
                Some(record) => {
                    record.clone_from(&request.body);
                    Reply::status(200)
                }
                None => Reply::status(404),
            },
            "DELETE" => match all.get_mut(folder).and_then(|collection| collection.remove(last)) {
                Some(_) => Reply::status(204),
                None => Reply::status(404),
            },
            _ => Reply::status(405),
        }
    }

    pub fn all(&self) -> MutexGuard<'_, HashMap<String, Collection>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A driver with a REST API, whose address is in the setting `url`. A test process serves it for all its cases and for
/// the processes that it starts and kills: a file in the folder of the case contains the address.
pub struct WithRecords<O>(pub O);

const ADDRESS_FILE: &str = "address-of-the-peer";

#[async_trait]
impl<O: Opener> Opener for WithRecords<O> {
    async fn open(&self, store: Store, mut context: OpenContext) -> Result<Opened> {
        let address = std::fs::read_to_string(context.directory.join(ADDRESS_FILE)).unwrap();
        let mut hasher = DefaultHasher::new();
        context.directory.hash(&mut hasher);
        context.settings.insert("url".into(), format!("{address}/{:016x}", hasher.finish()).into());
        self.0.open(store, context).await
    }

    fn is_linked(&self) -> bool {
        self.0.is_linked()
    }

    fn tries_transport_only(&self) -> bool {
        self.0.tries_transport_only()
    }

    fn prepare(&self, folder: &Path) {
        static PEER: OnceLock<Peer> = OnceLock::new();
        let peer = PEER.get_or_init(|| {
            let records = Records::default();
            Peer::start_at(([127, 0, 0, 1], 0).into(), false, move |request| records.answer(request))
        });
        std::fs::write(folder.join(ADDRESS_FILE), peer.url("")).unwrap();
        self.0.prepare(folder);
    }
}

/// A driver with a collector that accepts everything, whose address is in the setting `url`.
pub struct WithCollector<O>(pub O);

#[async_trait]
impl<O: Opener> Opener for WithCollector<O> {
    async fn open(&self, store: Store, mut context: OpenContext) -> Result<Opened> {
        static COLLECTOR: OnceLock<Peer> = OnceLock::new();
        let collector =
            COLLECTOR.get_or_init(|| Peer::start_at(([127, 0, 0, 1], 0).into(), false, |_| Reply::status(204)));
        context.settings.insert("url".into(), collector.url("/errors").into());
        self.0.open(store, context).await
    }

    fn is_linked(&self) -> bool {
        self.0.is_linked()
    }

    fn tries_transport_only(&self) -> bool {
        self.0.tries_transport_only()
    }
}
