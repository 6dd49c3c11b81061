//! Names that would be paths: each store itself rejects them, and before that the service does, because anybody may
//! call it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use snaphook_driver::wire::{Method, Opened, Service, from_json};
use snaphook_driver::{DriverError, ErrorKind, OpenContext, Store};
use snaphook_driver_testkit::run;
use snaphook_file::DRIVER;

/// Names that no secret and no blob may have.
const HOSTILE: [&str; 14] =
    ["", ".", "..", "../x", "../../../x", "/etc/x", "a/b", "a\\b", "..\\x", "a\0", "a\n", "a=b", "C:x", "ä"];

/// Opens a store in a folder `store` within another folder.
async fn open(store: Store, folder: &Path) -> Opened {
    let settings: Map<String, Value> = json!({"path": "store"}).as_object().unwrap().clone();
    Opened::open(&DRIVER, store, OpenContext::new(settings, folder)).await.unwrap()
}

/// All files in a folder and its subfolders.
fn files(folder: &Path) -> BTreeSet<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { BTreeSet::from([path]) }).collect()
}

fn refused<T: std::fmt::Debug>(outcome: Result<T, DriverError>, what: &str) {
    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{what}: {error}");
}

#[test]
fn stores_make_no_paths_of_hostile_names() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let Opened::Secure(secrets) = open(Store::Secure, &folder.path().join("secure")).await else { panic!() };
        let Opened::Event(events) = open(Store::Event, &folder.path().join("event")).await else { panic!() };
        let before = files(folder.path());
        for name in HOSTILE {
            refused(secrets.put(name, b"x", None).await, name);
            refused(secrets.get(name).await, name);
            refused(secrets.delete(name).await, name);
            refused(events.put_blob(name, b"x").await, name);
            refused(events.get_blob(name).await, name);
        }
        assert_eq!(files(folder.path()), before);
        secrets.close().await.unwrap();
        events.close().await.unwrap();
    });
}

/// Requests with a value that their method rejects, and the text of the error.
fn requests() -> Vec<(Method, Value, &'static str)> {
    use Method::*;
    let stream = json!({"model": "m", "instance": "i"});
    let event = |with: Value| {
        let mut event = json!({"id": "e", "type": "instance.created", "model": "m", "instance": "i", "dataJson": "{}"});
        event.as_object_mut().unwrap().extend(with.as_object().unwrap().clone());
        event
    };
    let append = |event: Value| json!({"appends": [{"event": event}]});
    let shape = |with: Value| {
        let mut shape = json!({"model": "m", "version": "1", "recordJson": "{}"});
        shape.as_object_mut().unwrap().extend(with.as_object().unwrap().clone());
        shape
    };
    let year_and_more = (366_u64 * 24 * 60 * 60 * 1000).to_string();
    let budget = json!({"steps": "1000", "timeMs": "1000", "memory": "1000", "waitMs": "1000"});
    let (long, deep) = ("x".repeat(129), format!("{}{}", "[".repeat(121), "]".repeat(121)));
    let unique = vec![json!({"names": ["a"]}); 33];
    vec![
        (SecureGet, json!({"name": "../../x"}), "is not a valid secret name"),
        (SecurePut, json!({"name": "../../x", "bytes": "AA=="}), "is not a valid secret name"),
        (SecurePut, json!({"bytes": "AA=="}), "is not a valid secret name"),
        (SecurePut, json!({"name": long, "bytes": "AA=="}), "is not a valid secret name"),
        (SecureDelete, json!({"name": "a\u{0}"}), "is not a valid secret name"),
        (SecureList, json!({"prefix": long}), "`prefix` has 129 bytes, expected 0 to 128"),
        (EventAppend, append(event(json!({"model": ""}))), "`model` has 0 bytes, expected 1 to 63"),
        (EventAppend, append(event(json!({"model": long}))), "`model` has 129 bytes"),
        (EventAppend, append(event(json!({"instance": long}))), "`instance` has 129 bytes"),
        (EventAppend, append(event(json!({"instance": ""}))), "`instance` has 0 bytes"),
        (EventAppend, append(event(json!({"type": "instance.moved"}))), "is not an event type"),
        (EventAppend, append(event(json!({"type": "model.created"}))), "belongs to a model's definition"),
        (EventAppend, append(json!({"type": "instance.created", "model": "m"})), "belongs to an instance"),
        (EventAppend, append(event(json!({"dataJson": "{"}))), "is not valid JSON"),
        (EventAppend, append(event(json!({"dataJson": deep}))), "nested more than 120 levels"),
        (EventAppend, json!({"appends": [{}]}), "`event` is missing"),
        (EventAppend, json!({"appends": [{"event": event(json!({})), "expected": {}}]}), "is missing"),
        (EventAppend, json!({"appends": [{"event": event(json!({})), "quiet": {}}]}), "`model` has 0 bytes"),
        (EventAppend, json!({"appends": [{"event": event(json!({})), "requires": [{"stream": {}}]}]}), "`model` has 0"),
        (
            EventAppend,
            json!({"appends": [{"event": event(json!({})), "claims": [{"key": "x".repeat(65537)}]}]}),
            "`key` has 65537 bytes, expected 0 to 65536",
        ),
        (
            EventAppend,
            json!({"appends": [{"event": event(json!({})), "claims": [{"value": "x".repeat(257)}]}]}),
            "`value` has 257 bytes",
        ),
        (EventAppend, json!({"appends": [{"event": event(json!({})), "releases": ["x".repeat(65537)]}]}), "`key` has"),
        (EventRead, json!({}), "`limit` is 0, expected 1 to 10000"),
        (EventRead, json!({"limit": u32::MAX}), "`limit` is 4294967295"),
        (EventRead, json!({"limit": 1, "waitMs": u64::MAX.to_string()}), "`wait_ms` is 18446744073709551615"),
        (EventRead, json!({"limit": 1, "filter": {"instance": "i"}}), "`instance` is in a filter without `model`"),
        (EventRead, json!({"limit": 1, "filter": {"types": ["x"]}}), "is not an event type"),
        (EventLast, json!({}), "`stream` is missing"),
        (EventLast, json!({"stream": {}}), "`model` has 0 bytes"),
        (EventReserve, json!({"keys": [{"key": "k"}]}), "`stream` is missing"),
        (EventReserve, json!({"keys": [{"key": "x".repeat(65537), "stream": stream}]}), "`key` has 65537 bytes"),
        (EventForgetClaims, json!({"limit": 1}), "`prefix` has 0 bytes, expected 1 to 1024"),
        (EventForgetClaims, json!({"prefix": "x".repeat(1025), "limit": 1}), "`prefix` has 1025 bytes"),
        (EventForgetClaims, json!({"prefix": "x"}), "`limit` is 0"),
        (EventNextClaim, json!({"from": "x".repeat(65538)}), "`from` has 65538 bytes"),
        (EventHolder, json!({"key": "x".repeat(65537)}), "`key` has 65537 bytes"),
        (EventCreateGroup, json!({}), "`group` is missing"),
        (EventCreateGroup, json!({"group": {"name": long}}), "`group` has 129 bytes, expected 0 to 128"),
        (EventCreateGroup, json!({"group": {"name": "g", "filter": {"instance": "i"}}}), "without `model`"),
        (EventDropGroup, json!({"name": long}), "`group` has 129 bytes"),
        (EventClaim, json!({"group": "g", "leaseMs": "1"}), "`limit` is 0"),
        (EventClaim, json!({"group": "g", "limit": 1}), "`lease_ms` is 0"),
        (EventClaim, json!({"group": "g", "limit": 1, "leaseMs": year_and_more}), "`lease_ms` is"),
        (EventClaim, json!({"group": long, "limit": 1, "leaseMs": "1"}), "`group` has"),
        (EventAck, json!({"group": long}), "`group` has"),
        (EventRelease, json!({"group": "g", "delayMs": u64::MAX.to_string()}), "`delay_ms` is"),
        (EventRelease, json!({"group": "g", "note": "x".repeat(65537)}), "`note` has 65537 bytes"),
        (EventRenew, json!({"group": "g"}), "`lease_ms` is 0"),
        (EventRenew, json!({"group": "g", "leaseMs": "1", "note": "x".repeat(65537)}), "`note` has"),
        (EventIsDone, json!({"group": "g"}), "`stream` is missing"),
        (EventIsDone, json!({"group": long, "stream": stream}), "`group` has"),
        (EventLag, json!({"group": long}), "`group` has"),
        (EventPutBlob, json!({"sha256": "../../../x", "bytes": "AA=="}), "is not a SHA-256"),
        (EventPutBlob, json!({"sha256": "AB".repeat(32), "bytes": "AA=="}), "is not a SHA-256"),
        (EventPutBlob, json!({"sha256": "ab".repeat(31), "bytes": "AA=="}), "is not a SHA-256"),
        (EventGetBlob, json!({"sha256": "../../../x"}), "is not a SHA-256"),
        (EventExportNext, json!({"export": "7"}), "there is no export 7"),
        (EventImport, json!({"records": [{}]}), "`record` is missing"),
        (EventImport, json!({"records": [{"blob": {"sha256": "../../x", "bytes": "AA=="}}]}), "is not a SHA-256"),
        (EventImport, json!({"records": [{"event": event(json!({}))}]}), "`position` is 0"),
        (
            EventImport,
            json!({"records": [{"event": event(json!({"position": u64::MAX.to_string()}))}]}),
            "`position` is 18446744073709551615",
        ),
        (EventImport, json!({"records": [{"group": {"group": {"name": long}}}]}), "`group` has"),
        (EventImport, json!({"records": [{"pending": {"group": long}}]}), "`group` has"),
        (ModelDefine, json!({"position": "1"}), "`new` is missing"),
        (ModelDefine, json!({"new": shape(json!({}))}), "`position` is 0"),
        (ModelDefine, json!({"new": shape(json!({"model": ""})), "position": "1"}), "`model` has 0 bytes"),
        (ModelDefine, json!({"new": shape(json!({"indexes": [{}]})), "position": "1"}), "`keys of an index` is 0"),
        (ModelDefine, json!({"new": shape(json!({"indexes": [{"keys": [{}]}]})), "position": "1"}), "has no names"),
        (ModelDefine, json!({"new": shape(json!({"unique": [{}]})), "position": "1"}), "`names in `unique`` is 0"),
        (ModelDefine, json!({"new": shape(json!({"unique": unique})), "position": "1"}), "`unique` is 33"),
        (ModelDefine, json!({"new": shape(json!({})), "old": {"model": long}, "position": "1"}), "`model` has"),
        (ModelPrepare, json!({"new": shape(json!({"model": long}))}), "`model` has 129 bytes"),
        (ModelDiscard, json!({}), "`model` has 0 bytes"),
        (ModelDropModel, json!({"position": "1"}), "`model` has 0 bytes"),
        (ModelDropModel, json!({"model": "m"}), "`position` is 0"),
        (ModelApply, json!({}), "`to` is 0"),
        (ModelApply, json!({"to": u64::MAX.to_string()}), "`to` is 18446744073709551615"),
        (ModelApply, json!({"to": "5", "events": [event(json!({}))]}), "an event at 0 cannot follow one at 0"),
        (
            ModelApply,
            json!({"to": "5", "events": [event(json!({"position": "6"}))]}),
            "an event at 6 cannot follow one at 0 in a step to 5",
        ),
        (
            ModelApply,
            json!({"to": "5", "events": [event(json!({"position": "2"})), event(json!({"position": "2"}))]}),
            "an event at 2 cannot follow one at 2",
        ),
        (ModelApply, json!({"to": "5", "events": [event(json!({"position": "1", "dataJson": deep}))]}), "nested"),
        (ModelGet, json!({"model": "m"}), "`instance` has 0 bytes"),
        (ModelGet, json!({"model": long, "id": "i"}), "`model` has"),
        (ModelQuery, json!({"model": "m", "budget": budget}), "`limit` is 0, expected 1 to 10000"),
        (ModelQuery, json!({"model": "m", "limit": 1}), "`budget` is missing"),
        (ModelQuery, json!({"model": "m", "limit": 1, "sort": [{}], "budget": budget}), "has no names"),
        (ModelQuery, json!({"model": "m", "limit": 1, "filter": [{}], "budget": budget}), "`operator` is missing"),
        (ModelCount, json!({"budget": budget}), "`model` has 0 bytes"),
        (ModelCount, json!({"model": "m"}), "`budget` is missing"),
        (ModelReset, json!({}), "`log` has 0 bytes"),
        (ModelReset, json!({"log": long}), "`log` has 129 bytes"),
        (ErrorRecord, json!({}), "`record` is missing"),
        (ErrorRecord, json!({"record": {"event": event(json!({}))}}), "`id` has 0 bytes"),
        (ErrorRecord, json!({"record": {"id": long, "event": event(json!({}))}}), "`id` has 129 bytes"),
        (ErrorRecord, json!({"record": {"id": "a", "event": event(json!({"model": ""}))}}), "`model` has"),
        (ErrorList, json!({}), "`limit` is 0"),
        (ErrorList, json!({"query": {"limit": u32::MAX}}), "`limit` is 4294967295"),
        (ErrorGet, json!({}), "`id` has 0 bytes"),
        (EventAnnounce, json!({"node": {"id": "", "address": "a", "version": "1"}, "keepMs": 1}), "`id` has 0 bytes"),
        (
            EventAnnounce,
            json!({"node": {"id": "a", "address": "x".repeat(300), "version": "1"}, "keepMs": 1}),
            "`address` has 300 bytes",
        ),
        (ErrorRemove, json!({"id": long}), "`id` has 129 bytes"),
    ]
}

/// Methods whose requests contain nothing to validate.
fn has_no_values(method: Method) -> bool {
    use Method::*;
    matches!(
        method,
        SecureHealth
            | SecureClose
            | EventHealth
            | EventClose
            | EventHead
            | EventGroups
            | EventNodes
            | EventExport
            | EventExportClose
            | EventFinishImport
            | ModelHealth
            | ModelClose
            | ModelBeginReplay
            | ModelEndReplay
            | ModelLog
            | ModelCheckpoint
            | ModelDefinitions
            | ErrorHealth
            | ErrorClose
            | ErrorCount
    )
}

#[test]
fn a_service_refuses_what_a_method_does_not_take() {
    let requests = requests();
    for method in Method::ALL {
        let is_tried = requests.iter().any(|(tried, ..)| tried == method);
        assert!(
            is_tried != has_no_values(*method),
            "{method:?} belongs either into the table or to those without values"
        );
    }
    run(async {
        let folder = tempfile::tempdir().unwrap();
        for store in [Store::Secure, Store::Event, Store::Model, Store::Error] {
            let opened = open(store, &folder.path().join(store.as_str())).await;
            let service = Service::new(opened.clone());
            let before = files(folder.path());
            for (method, json, message) in requests.iter().filter(|(method, ..)| method.store() == store) {
                let request = from_json(&format!("{method:?}Request"), json.to_string().as_bytes()).unwrap();
                let error = service.call(*method, &request).await.expect_err(&format!("{method:?} {json}"));
                let shown: String = json.to_string().chars().take(200).collect();
                assert_eq!(error.kind(), ErrorKind::Invalid, "{method:?} {shown}: {error}");
                assert!(error.to_string().contains(message), "{method:?} {shown}: {error}");
                assert!(!error.is_temporary(), "{error}");
            }
            assert_eq!(files(folder.path()), before, "{store} storage has written something");
            opened.close().await.unwrap();
        }
    });
}
