//! Whatever fails in the stores, what a client that creates is told is what the log says. A seed chooses the faults; which call
//! each of them meets also depends on how the tasks take turns.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use snaphook_driver::{EventFilter, EventQuery, EventStore, Json, Position};

use super::command::{InstanceChange, Origin, WriteOptions, Written};
use super::testing::{eventually, input, version};
use super::{Engine, replay};
use crate::config::{Config, ConfigHandle};
use crate::drivers::{Faults, Stores};
use crate::hooks::host::HookHost;
use crate::hooks::testing::config_text;

const STORES: &str = "[driver-event-storage]\ndriver = 'memory'\n[driver-model-storage]\ndriver = 'memory'\n\
                      [driver-error-storage]\ndriver = 'memory'\n";

const WRITERS: u64 = 8;
const WRITES: u64 = 40;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_say_what_is_in_the_log() {
    for seed in 1..=6 {
        with_faults(seed).await;
    }
}

async fn with_faults(seed: u64) {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config::parse(&config_text(STORES), "config.toml", folder.path(), None, &|_| None).unwrap();
    config.secure.driver = "memory".to_owned();
    config.secure.settings.clear();
    let faults = Faults::new(seed);
    let stores = Stores::open(&config).await.unwrap();
    let log = Arc::clone(&stores.event);
    let config = ConfigHandle::new(config);
    let host = Arc::new(HookHost::new(Vec::new(), config.shared()));
    let engine = Engine::open(config, stores.with_faults(&faults), host, &replay::Progress::default()).await.unwrap();
    let (options, origin) = (WriteOptions::default(), Origin::default());
    let made = engine.definitions.create("m", input(serde_json::json!({}), &[]), &options, &origin).await;
    assert_eq!(version(made.unwrap()), 1);

    faults.set(100);
    let writers = (0..WRITERS).map(|writer| tokio::spawn(write(Arc::clone(&engine), writer)));
    let mut told = HashMap::new();
    for writer in writers.collect::<Vec<_>>() {
        told.extend(writer.await.unwrap());
    }
    faults.set(0);

    let stored = stored(&*log).await;
    let done = told.values().filter(|answer| answer.is_some()).count();
    assert!(done > 0 && done < told.len(), "seed {seed}: {done} of {} were done", told.len());
    for (id, answer) in &told {
        let found = stored.get(id).map(Vec::as_slice).unwrap_or_default();
        match answer {
            Some(position) => assert_eq!(found, [*position], "seed {seed}: `{id}` was answered as done"),
            None => assert!(found.is_empty(), "seed {seed}: `{id}` was answered as not done"),
        }
    }
    // The model store is caught up by itself.
    for id in stored.keys() {
        eventually("the instance is there", || async { engine.history.get("m", id).await.ok() }).await;
    }
    engine.close(Duration::from_secs(5)).await;
}

/// Creates instances one after the other. By id: the position, or `None` where the answer was that nothing was done.
async fn write(engine: Arc<Engine>, writer: u64) -> Vec<(String, Option<Position>)> {
    let mut told = Vec::new();
    for number in 0..WRITES {
        let id = format!("{writer}-{number}");
        let change =
            InstanceChange::Create { id: Some(id.clone()), data: Json::from_value(&serde_json::json!({"n": number})) };
        let answer = engine.writes.change("m", change, &WriteOptions::default(), &Origin::default()).await;
        let position = answer.ok().map(|written| match written {
            Written::Created(instance) => instance.position,
            other => panic!("a creation gave {other:?}"),
        });
        told.push((id, position));
    }
    told
}

/// The positions of each instance's events.
async fn stored(log: &dyn EventStore) -> HashMap<String, Vec<Position>> {
    let mut stored: HashMap<String, Vec<Position>> = HashMap::new();
    let mut query = EventQuery { after: 0, limit: 1000, filter: EventFilter::default() };
    loop {
        let page = log.read(&query, None).await.unwrap();
        for event in &page.events {
            if let Some(instance) = &event.instance {
                stored.entry(instance.clone()).or_default().push(event.position);
            }
        }
        match page.next() {
            Some(next) => query.after = next,
            None => return stored,
        }
    }
}
