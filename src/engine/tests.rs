//! The engine on its embedded stores: what needs no HTTP and no hook to be seen.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use serde_json::{Value, json};
use snaphook_driver::{EventFilter, EventKind, EventQuery, Json};

use super::command::{Change, Defined, ModelInput, Origin, Precondition, WriteOptions, Written};
use super::{At, Engine, ErrorKind, QueryInput, replay};
use crate::catalog::Model;
use crate::config::{Config, ConfigHandle};
use crate::drivers::Stores;
use crate::hooks::host::HookHost;

struct Bench {
    engine: Arc<Engine>,
    _directory: tempfile::TempDir,
}

async fn bench() -> Bench {
    let directory = tempfile::tempdir().unwrap();
    let mut config = Config::defaults(directory.path());
    // The secrets alone are kept in memory: a file of them would need a key.
    config.secure.driver = "memory".to_owned();
    config.secure.settings.clear();
    let stores = Stores::open(&config).await.unwrap();
    let config = ConfigHandle::new(config);
    let host = Arc::new(HookHost::new(Vec::new(), config.shared()));
    let engine = Engine::open(config, stores, host, &replay::Progress::default()).await.unwrap();
    Bench { engine, _directory: directory }
}

fn input(properties: Value, unique: &[&str]) -> ModelInput {
    ModelInput {
        schema: Some(Json::from_value(&json!({"type": "object", "properties": properties}))),
        unique: unique.iter().map(|name| vec![(*name).to_owned()]).collect(),
        ..ModelInput::default()
    }
}

fn version(made: Defined<Arc<Model>>) -> u64 {
    let Defined::Done(model) = made else { panic!("no dry run was asked for") };
    model.record.version
}

impl Bench {
    async fn model(&self, id: &str, input: ModelInput) -> super::Result<u64> {
        let options = WriteOptions::default();
        let made = self.engine.create_model(id, input, &options, &Origin::default()).await?;
        Ok(version(made))
    }

    async fn update(&self, id: &str, input: ModelInput) -> super::Result<u64> {
        let options = WriteOptions::default();
        let made = self.engine.update_model(id, input, &options, &Origin::default()).await?;
        Ok(version(made))
    }

    async fn write(&self, change: Change, options: WriteOptions) -> super::Result<Written> {
        self.engine.write("m", change, &options, &Origin::default()).await
    }

    async fn create(&self, id: &str, data: Value) -> super::Result<Written> {
        let change = Change::Create { id: Some(id.to_owned()), data: Json::from_value(&data) };
        self.write(change, WriteOptions::default()).await
    }

    async fn data(&self, id: &str) -> String {
        self.engine.get("m", id).await.unwrap().data.to_string()
    }
}

#[tokio::test]
async fn a_life() {
    let bench = bench().await;
    bench.model("m", input(json!({"a": {"type": "integer"}, "b": {"default": "x"}}), &[])).await.unwrap();
    let Written::Created(created) = bench.create("one", json!({"a": 1})).await.unwrap() else { panic!() };
    assert_eq!((created.revision, created.data.as_str()), (1, r#"{"a":1,"b":"x"}"#));
    assert_eq!(bench.create("one", json!({"a": 1})).await.unwrap_err().kind, ErrorKind::Exists);
    assert_eq!(bench.create("two", json!({"a": "1"})).await.unwrap_err().errors[0].pointer, "/data/a");

    let patch = Change::Patch { id: "one".to_owned(), patch: Json::trusted(r#"{"a":9007199254740993,"b":null}"#) };
    let Written::Updated(updated) = bench.write(patch.clone(), WriteOptions::default()).await.unwrap() else {
        panic!()
    };
    assert_eq!((updated.revision, updated.data.as_str()), (2, r#"{"a":9007199254740993}"#));
    let stale = WriteOptions { precondition: Precondition::At(vec![created.position]), ..WriteOptions::default() };
    assert_eq!(bench.write(patch, stale).await.unwrap_err().kind, ErrorKind::PreconditionFailed);

    bench.write(Change::Delete { id: "one".to_owned() }, WriteOptions::default()).await.unwrap();
    assert_eq!(bench.engine.get("m", "one").await.unwrap_err().kind, ErrorKind::NotFound);
    let then = bench.engine.get_at("m", "one", At::Position(created.position)).await.unwrap();
    assert_eq!(then, created);
    assert_eq!(bench.engine.instance_events("m", "one", 0, 10).await.unwrap().events.len(), 3);

    // After its end the id is free again, and starts over.
    let Written::Created(again) = bench.create("one", json!({})).await.unwrap() else { panic!() };
    assert_eq!(again.revision, 1);
    bench.engine.close(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn unique_values_move_with_the_model() {
    let bench = bench().await;
    let properties = json!({"email": {}, "mail": {}, "n": {}});
    bench.model("m", input(properties.clone(), &["email"])).await.unwrap();
    bench.create("a", json!({"email": "x", "n": 1})).await.unwrap();
    let taken = bench.create("b", json!({"email": "x"})).await.unwrap_err();
    assert_eq!((taken.kind, taken.errors[0].pointer.as_str()), (ErrorKind::NotUnique, "/data/email"));
    bench.create("b", json!({"email": "y", "n": 1})).await.unwrap();

    // `n` is not unique among what is there.
    let refused = bench.update("m", input(properties.clone(), &["email", "n"])).await.unwrap_err();
    assert_eq!((refused.kind, refused.errors.len()), (ErrorKind::Incompatible, 1));

    // Without the list the value is free; with it again, what is there counts.
    bench.update("m", input(properties.clone(), &[])).await.unwrap();
    bench.create("c", json!({"email": "x"})).await.unwrap();
    assert_eq!(
        bench.update("m", input(properties.clone(), &["email"])).await.unwrap_err().kind,
        ErrorKind::Incompatible
    );
    bench.write(Change::Delete { id: "c".to_owned() }, WriteOptions::default()).await.unwrap();
    bench.update("m", input(properties, &["email"])).await.unwrap();
    assert_eq!(bench.create("d", json!({"email": "y"})).await.unwrap_err().kind, ErrorKind::NotUnique);

    // A rename takes the values along.
    let mut renamed = input(json!({"address": {}, "mail": {}, "n": {}}), &["address"]);
    renamed.renames = vec![("email".to_owned(), "address".to_owned())];
    bench.update("m", renamed).await.unwrap();
    assert_eq!(bench.data("a").await, r#"{"address":"x","n":1}"#);
    assert_eq!(bench.create("d", json!({"address": "y"})).await.unwrap_err().kind, ErrorKind::NotUnique);
    bench.engine.delete_model("m", true, &WriteOptions::default(), &Origin::default()).await.unwrap();
    bench.model("m", input(json!({"address": {}}), &["address"])).await.unwrap();
    bench.create("z", json!({"address": "x"})).await.unwrap();
}

#[tokio::test]
async fn an_idempotency_key_gives_the_first_answer() {
    let bench = bench().await;
    bench.model("m", input(json!({"n": {}}), &[])).await.unwrap();
    let options = || WriteOptions { idempotency_key: Some("k".to_owned()), ..WriteOptions::default() };
    let change = |n: u32| Change::Create { id: None, data: Json::from_value(&json!({"n": n})) };
    let all = futures::future::join_all((0..8).map(|n| bench.write(change(n), options()))).await;
    let answers: Vec<String> = all.into_iter().map(|answer| format!("{:?}", answer.unwrap())).collect();
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
    assert_eq!(bench.engine.count("m", &QueryInput::default()).await.unwrap(), 1);
}

#[tokio::test]
async fn patches_of_different_properties_all_count() {
    let bench = bench().await;
    bench.model("m", input(json!({}), &[])).await.unwrap();
    bench.create("one", json!({})).await.unwrap();
    let patches = (0..16).map(|n| {
        let patch = Json::from_value(&json!({format!("p{n}"): n}));
        bench.write(Change::Patch { id: "one".to_owned(), patch }, WriteOptions::default())
    });
    let done = futures::future::join_all(patches).await.into_iter().filter(Result::is_ok).count();
    let data: Value = serde_json::from_str(&bench.data("one").await).unwrap();
    assert_eq!(data.as_object().unwrap().len(), done);
    assert_eq!(bench.engine.get("m", "one").await.unwrap().revision as usize, done + 1);
}

#[tokio::test]
async fn a_follower_misses_nothing_and_sees_nothing_twice() {
    let bench = bench().await;
    bench.model("m", input(json!({}), &[])).await.unwrap();
    let filter = EventFilter { kinds: vec![EventKind::InstanceCreated], ..EventFilter::default() };
    let follow = |after| bench.engine.follow(EventQuery { after, limit: 1, filter: filter.clone() });
    let mut first = follow(0);
    for n in 0..100 {
        bench.create(&format!("i{n}"), json!({})).await.unwrap();
    }
    let mut seen = Vec::new();
    while seen.len() < 50 {
        seen.push(first.next().await.unwrap().unwrap().position);
    }
    let mut second = follow(seen[49]);
    while seen.len() < 100 {
        seen.push(second.next().await.unwrap().unwrap().position);
    }
    assert!(seen.windows(2).all(|pair| pair[0] < pair[1]));
    bench.engine.close(Duration::from_secs(1)).await;
    assert!(second.next().await.is_none());
}

#[tokio::test]
async fn a_rebuild_gives_the_same_instances() {
    let bench = bench().await;
    bench.model("m", input(json!({"a": {}}), &[])).await.unwrap();
    for n in 0..50 {
        bench.create(&format!("i{n}"), json!({"a": n})).await.unwrap();
    }
    let mut renamed = input(json!({"b": {"default": 7}, "c": {}}), &[]);
    renamed.renames = vec![("a".to_owned(), "c".to_owned())];
    bench.update("m", renamed).await.unwrap();
    bench.write(Change::Delete { id: "i3".to_owned() }, WriteOptions::default()).await.unwrap();
    let list = QueryInput { limit: Some(100), ..QueryInput::default() };
    let before = bench.engine.query("m", &list).await.unwrap();
    bench.engine.start_rebuild().await.unwrap();
    while bench.engine.rebuild_progress().state == "running" {
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.engine.rebuild_progress().state, "done");
    assert_eq!(bench.engine.query("m", &list).await.unwrap(), before);
    assert_eq!(before.items.len(), 49);
    assert_eq!(bench.engine.model_version("m", 1).await.unwrap().version, 1);
}
