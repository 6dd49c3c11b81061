//! Helpers that the test files share.

#![allow(dead_code, reason = "each file of tests uses a part of this")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use snaphook_crud::DRIVER;
use snaphook_driver::{Budget, CarryOver, ColumnKind, DriverError, InstanceQuery, ModelStore, OpenContext};
use snaphook_driver_testkit::peer::{Peer, Request};
use snaphook_driver_testkit::rest::Records;
use snaphook_driver_testkit::sample::shape;

pub(crate) async fn try_open(folder: &Path, url: String, more: Value) -> Result<Arc<dyn ModelStore>, DriverError> {
    let Value::Object(mut settings) = json!({ "state": "state", "url": url }) else { unreachable!() };
    settings.extend(more.as_object().cloned().unwrap_or_default());
    DRIVER.model.unwrap()(OpenContext::new(settings, folder)).await
}

pub(crate) async fn open(folder: &Path, url: String) -> Arc<dyn ModelStore> {
    try_open(folder, url, json!({})).await.unwrap()
}

pub(crate) async fn define(store: &dyn ModelStore, model: &str, position: u64) {
    let shape = shape(model, position, &[("n", ColumnKind::Integer)], &[]);
    store.define(0, None, &shape, &CarryOver::default(), position).await.unwrap();
}

/// The instances of a model in the store: their data by id.
pub(crate) async fn instances(store: &dyn ModelStore, model: &str) -> BTreeMap<String, Value> {
    let query = InstanceQuery { limit: 1000, ..InstanceQuery::default() };
    let page = store.query(model, &query, &Budget::unlimited()).await.unwrap();
    page.items.into_iter().map(|instance| (instance.id, instance.data.to_value().unwrap())).collect()
}

/// The records at the peer: their data by id.
pub(crate) fn records(records: &Records, collection: &str) -> BTreeMap<String, Value> {
    let all = records.all();
    let found = all.get(collection).into_iter().flatten();
    found
        .map(|(id, body)| {
            let Value::Object(mut record) = snaphook_driver::json::parse_bytes(body).unwrap() else { panic!() };
            record.retain(|name, _| name != "id" && !name.starts_with('_'));
            (id.clone(), Value::Object(record))
        })
        .collect()
}

pub(crate) fn line(request: &Request) -> String {
    let body = String::from_utf8_lossy(&request.body);
    format!("{} {} {body}", request.method, request.path).trim_end().to_owned()
}

pub(crate) fn recording(records: &Records) -> Peer {
    let records = records.clone();
    Peer::start(move |request| records.answer(request))
}
