//! Peers whose API differs from the default settings, with the settings in `docs/drivers.md` for them: another
//! Snaphook, and PostgREST.

mod common;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use common::{define, try_open};
use serde_json::{Value, json};
use snaphook_driver::{ErrorKind, EventKind, ModelStore};
use snaphook_driver_testkit::peer::{Peer, Reply, Request};
use snaphook_driver_testkit::sample::{change, created};
use tempfile::TempDir;

/// Rows by table and id.
type Tables = Arc<Mutex<BTreeMap<String, BTreeMap<String, Value>>>>;

fn tables(names: &[&str]) -> Tables {
    Arc::new(Mutex::new(names.iter().map(|name| ((*name).to_owned(), BTreeMap::new())).collect()))
}

fn body(request: &Request) -> Value {
    snaphook_driver::json::parse_bytes(&request.body).unwrap_or_default()
}

/// Creates, updates and deletes records, before and after reopening the store, and checks a rejection. `seen` converts
/// an instance to the peer's record.
async fn a_life(peer: &Peer, all: &Tables, path: &str, settings: Value, seen: impl Fn(&str, u64, Value) -> Value) {
    let folder = TempDir::new().unwrap();
    let open = async || try_open(folder.path(), peer.url(path), settings.clone()).await.unwrap();
    let rows = || all.lock().unwrap()["film"].clone();
    let expected = |rows: &[(&str, u64, Value)]| {
        rows.iter().map(|(id, at, data)| ((*id).to_owned(), seen(id, *at, data.clone()))).collect::<BTreeMap<_, _>>()
    };
    let mut store: Arc<dyn ModelStore> = open().await;
    store.health().await.unwrap();
    define(&*store, "film", 1).await;
    let (a, b) = (json!({"title": "a", "id": 7}), json!({"title": "b"}));
    let events = [created(2, "film", "a", &a), created(3, "film", "b", &b)];
    store.apply(1, &events, 3).await.unwrap();
    assert_eq!(rows(), expected(&[("a", 2, a.clone()), ("b", 3, b.clone())]));
    let events = [
        change(EventKind::InstanceUpdated, 4, "film", "a", Some(r#"{"n":1}"#)),
        change(EventKind::InstanceDeleted, 5, "film", "b", None),
        change(EventKind::InstanceDeleted, 6, "film", "absent", None),
    ];
    store.apply(3, &events, 6).await.unwrap();
    assert_eq!(rows(), expected(&[("a", 4, json!({"n": 1}))]));
    // One record disappeared at the peer, and another one was added there.
    all.lock().unwrap().get_mut("film").unwrap().remove("a");
    all.lock().unwrap().get_mut("film").unwrap().insert("c".into(), json!({}));
    let events = [
        change(EventKind::InstanceUpdated, 7, "film", "a", Some(r#"{"n":2}"#)),
        created(8, "film", "c", &json!({"n": 3})),
    ];
    store.apply(6, &events, 8).await.unwrap();
    let now = expected(&[("a", 7, json!({"n": 2})), ("c", 8, json!({"n": 3}))]);
    assert_eq!(rows(), now);
    // At the end of a replay, everything is sent again.
    store.close().await.unwrap();
    drop(store);
    store = open().await;
    store.begin_replay().await.unwrap();
    store.end_replay().await.unwrap();
    assert_eq!(rows(), now);
    // If the peer lacks a model, only that model is unavailable.
    define(&*store, "absent", 9).await;
    let error = store.apply(9, &[created(10, "absent", "a", &json!({}))], 10).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    store.apply(9, &[change(EventKind::InstanceDeleted, 11, "film", "c", None)], 11).await.unwrap();
    store.drop_model(11, "film", 12).await.unwrap();
    assert_eq!(rows(), BTreeMap::new());
}

/// The part of Snaphook's REST API that the driver uses, including rejections.
fn snaphook(all: &Tables) -> Peer {
    let all = Arc::clone(all);
    let problem = |status: u16, name: &str| {
        let body = json!({"type": format!("/problems/{name}"), "status": status}).to_string();
        Reply::Response(status, vec![("content-type", "application/problem+json".into())], body.into())
    };
    Peer::start(move |request| {
        if request.header("authorization") != Some("Bearer writer-token") {
            return problem(401, "unauthorized");
        }
        let path: Vec<&str> = request.path.trim_start_matches('/').split('/').collect();
        let mut all = all.lock().unwrap();
        let ["models", model, "instances", rest @ ..] = path.as_slice() else { return problem(404, "not-found") };
        let Some(rows) = all.get_mut(*model) else { return problem(404, "not-found") };
        let sent = body(request);
        let has_only = |names: &[&str]| {
            sent.as_object().is_some_and(|sent| sent.keys().all(|name| names.contains(&name.as_str())))
        };
        let instance =
            |id: &str, data: &Value| json!({"id": id, "model": model, "revision": 1, "data": data}).to_string();
        match (request.method.as_str(), rest) {
            ("POST", []) if !has_only(&["id", "data"]) => problem(400, "bad-request"),
            ("POST", []) => {
                let id = sent["id"].as_str().unwrap().to_owned();
                if rows.contains_key(&id) {
                    return problem(409, "exists");
                }
                rows.insert(id.clone(), sent["data"].clone());
                Reply::json(201, instance(&id, &sent["data"]))
            }
            ("PUT", [_]) if !has_only(&["data"]) => problem(400, "bad-request"),
            ("PUT", [id]) => match rows.get_mut(*id) {
                Some(row) => {
                    *row = sent["data"].clone();
                    Reply::json(200, instance(id, row))
                }
                None => problem(404, "not-found"),
            },
            ("DELETE", [id]) => match rows.remove(*id) {
                Some(_) => Reply::status(204),
                None => problem(404, "not-found"),
            },
            _ => problem(405, "method-not-allowed"),
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn another_snaphook() {
    let all = tables(&["film"]);
    let peer = snaphook(&all);
    let settings = json!({
        "token": "writer-token",
        "id-in-updates": false,
        "paths": {
            "create": "/models/{model}/instances",
            "update": "/models/{model}/instances/{id}",
            "delete": "/models/{model}/instances/{id}",
            "list": "",
        },
        "fields": {
            "model_version": "", "revision": "", "position": "", "created_at": "", "updated_at": "", "data": "data",
        },
    });
    a_life(&peer, &all, "", settings.clone(), |_, _, data| data).await;
    // It only works with this setting.
    let mut wrong = settings;
    wrong["id-in-updates"] = json!(true);
    let folder = TempDir::new().unwrap();
    let store = try_open(folder.path(), peer.url(""), wrong).await.unwrap();
    define(&*store, "film", 1).await;
    store.apply(1, &[created(2, "film", "a", &json!({}))], 2).await.unwrap();
    let update = change(EventKind::InstanceUpdated, 3, "film", "a", Some("{}"));
    let error = store.apply(2, &[update], 3).await.unwrap_err();
    assert!(error.to_string().contains("the peer answered 400") && error.kind() == ErrorKind::Invalid, "{error}");
}

/// The part of PostgREST that the driver uses: a filter in the query selects a row, responses are lists, `PUT` creates
/// or replaces, and `PATCH` and `DELETE` succeed without a matching row.
fn postgrest(all: &Tables) -> Peer {
    let all = Arc::clone(all);
    Peer::start(move |request| {
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let mut all = all.lock().unwrap();
        if path == "/" {
            return Reply::json(200, r#"{"swagger":"2.0"}"#);
        }
        let Some(rows) = all.get_mut(path.trim_start_matches('/')) else {
            return Reply::json(404, r#"{"code":"PGRST205"}"#);
        };
        let query: BTreeMap<&str, &str> = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
        let id = query.get("id").and_then(|filter| filter.strip_prefix("eq.")).map(str::to_owned);
        let answer = |status: u16, rows: &[&Value]| match request.header("prefer") {
            Some("return=representation") => Reply::json(status, serde_json::to_string(rows).unwrap()),
            _ => Reply::status(if status == 200 { 204 } else { status }),
        };
        let sent = body(request);
        match (request.method.as_str(), id) {
            ("GET", None) => {
                assert_eq!((query["select"], query["_position"]), ("id,_position", "not.is.null"));
                let rows: Vec<Value> = rows
                    .values()
                    .filter(|row| !row["_position"].is_null())
                    .map(|row| json!({"id": row["id"], "_position": row["_position"]}))
                    .collect();
                Reply::json(200, serde_json::to_string(&rows).unwrap())
            }
            ("POST", None) => {
                let id = sent["id"].as_str().unwrap().to_owned();
                if rows.contains_key(&id) {
                    return Reply::json(409, r#"{"code":"23505"}"#);
                }
                rows.insert(id, sent.clone());
                answer(201, &[&sent])
            }
            ("PUT", Some(id)) if sent["id"] != json!(id) => Reply::json(400, r#"{"code":"PGRST115"}"#),
            ("PUT", Some(id)) => {
                let status = if rows.insert(id, sent.clone()).is_some() { 200 } else { 201 };
                answer(status, &[&sent])
            }
            ("PATCH", Some(id)) => match rows.get_mut(&id) {
                Some(Value::Object(row)) => {
                    row.extend(sent.as_object().cloned().unwrap_or_default());
                    answer(200, &[&sent])
                }
                _ => answer(200, &[]),
            },
            ("DELETE", Some(id)) => match rows.remove(&id) {
                Some(row) => answer(200, &[&row]),
                None => answer(200, &[]),
            },
            _ => Reply::status(405),
        }
    })
}

fn postgrest_settings() -> Value {
    json!({
        "paths": {
            "create": "/{model}",
            "update": "/{model}?id=eq.{id}",
            "delete": "/{model}?id=eq.{id}",
            "list": "/{model}?select=id,_position&_position=not.is.null",
        },
        "fields": {"data": "data"},
    })
}

fn row(id: &str, position: u64, data: Value) -> Value {
    let time = "2023-11-14T22:13:20.000Z";
    json!({
        "id": id, "_model_version": 1, "_revision": 1, "_position": position, "_created_at": time, "_updated_at": time,
        "data": data,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn postgrest_with_put_and_with_patch() {
    for (method, prefer) in
        [("PUT", "return=minimal"), ("PUT", "return=representation"), ("PATCH", "return=representation")]
    {
        let all = tables(&["film"]);
        let peer = postgrest(&all);
        let mut settings = postgrest_settings();
        settings["methods"] = json!({"update": method});
        settings["headers"] = json!({"Prefer": prefer});
        a_life(&peer, &all, "/", settings, row).await;
    }
}

/// After the state is lost, its records are found in the list and deleted; rows of others stay.
#[tokio::test(flavor = "multi_thread")]
async fn postgrest_after_a_lost_state() {
    let all = tables(&["film"]);
    let peer = postgrest(&all);
    let rows = [("left".to_owned(), row("left", 3, json!({}))), ("other".to_owned(), json!({"id": "other"}))];
    all.lock().unwrap().insert("film".into(), rows.into());
    let folder = TempDir::new().unwrap();
    let store = try_open(folder.path(), peer.url(""), postgrest_settings()).await.unwrap();
    define(&*store, "film", 1).await;
    assert_eq!(all.lock().unwrap()["film"].keys().collect::<Vec<_>>(), ["other"]);
}
