//! A REST API in memory: collections of records by id, as simple as they come.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use snaphook_driver::json;
use snaphook_driver_testkit::peer::{Reply, Request};

/// Records by id.
type Collection = BTreeMap<String, Vec<u8>>;

/// Collections, named by everything in the path but the id.
#[derive(Clone, Default)]
pub(crate) struct Records(Arc<Mutex<HashMap<String, Collection>>>);

impl Records {
    /// What an ordinary API answers: 409 for a record that is there, 404 for one that is not.
    pub(crate) fn answer(&self, request: &Request) -> Reply {
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

    #[allow(dead_code, reason = "each test file uses its part of this")]
    pub(crate) fn all(&self) -> MutexGuard<'_, HashMap<String, Collection>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
