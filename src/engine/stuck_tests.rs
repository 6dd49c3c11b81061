//! Events that the model store cannot take: their model is unavailable, everything else goes on, and there is a way out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};
use snaphook_driver::{EventFilter, EventKind, EventQuery, EventStore as _, Position, Stream};
use snaphook_driver_testkit::sample::{self, Random};

use super::command::{Defined, InstanceChange, Origin, WriteOptions};
use super::testing::{Bench, bench, eventually, input};
use super::{Engine, ErrorKind, QueryInput, Result};
use crate::config::Phase;
use crate::hooks::context::Outcome;
use crate::telemetry::exposition::{Exposition, Format};

async fn create(engine: &Engine, model: &str, id: &str, data: Value) -> Result<Position> {
    let data = snaphook_driver::Json::from_value(&data);
    let change = InstanceChange::Create { id: Some(id.to_owned()), data };
    match engine.writes.change(model, change, &WriteOptions::default(), &Origin::default()).await? {
        super::command::Written::Created(instance) => Ok(instance.position),
        other => panic!("{other:?}"),
    }
}

async fn delete_model(bench: &Bench, model: &str, cascade: bool) -> Result<Defined<()>> {
    bench.engine.definitions.delete(model, cascade, &WriteOptions::default(), &Origin::default()).await
}

async fn rebuilt(bench: &Bench) {
    eventually("the rebuild is done", || async {
        let progress = bench.engine.operations.rebuild_progress();
        assert_eq!(progress.error, None);
        (progress.state == "done").then_some(())
    })
    .await;
}

fn refuse(bench: &Bench, text: Option<&'static str>) {
    *bench.store.refused.lock().unwrap() = text;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_its_model_is_unavailable_until_the_event_is_skipped() {
    let bench = bench().await;
    bench.model("m", input(json!({"n": {}}), &["n"])).await.unwrap();
    bench.model("other", input(json!({}), &[])).await.unwrap();
    bench.create("before", json!({"n": 1})).await.unwrap();
    refuse(&bench, Some("poison"));
    // It is in the log, so it is acknowledged.
    let position = create(&bench.engine, "m", "bad", json!({"n": "poison"})).await.unwrap();
    for error in [
        bench.engine.history.get("m", "before").await.unwrap_err(),
        bench.engine.history.count("m", &QueryInput::default()).await.unwrap_err(),
        bench.create("after", json!({})).await.unwrap_err(),
        bench.update("m", input(json!({"n": {}, "x": {}}), &["n"])).await.unwrap_err(),
        bench.model("m", input(json!({}), &[])).await.unwrap_err(),
    ] {
        assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
        assert!(error.detail.contains(&format!("events inspect {position}")), "{error}");
    }
    create(&bench.engine, "other", "a", json!({})).await.unwrap();
    bench.model("new", input(json!({}), &[])).await.unwrap();
    let readiness = bench.engine.operations.readiness().await;
    assert_eq!(readiness.stores, []);
    let [stuck] = &readiness.models[..] else { panic!("{readiness:?}") };
    assert_eq!((stuck.model.as_str(), stuck.position), ("m", position));
    assert!(stuck.reason.contains("the test refuses"), "{stuck:?}");
    let mut metrics = Exposition::new(Format::Prometheus);
    bench.engine.operations.metrics(&mut metrics).await;
    let line = format!("snaphook_model_unavailable_position{{model=\"m\"}} {position}\n");
    assert!(metrics.finish().contains(&line));

    // A restart knows it, although the store would take the event now; and a rebuild tries again.
    let bench = bench.restart().await;
    assert_eq!(bench.engine.operations.readiness().await.models, std::slice::from_ref(stuck));
    assert_eq!(bench.engine.history.get("m", "before").await.unwrap_err().kind, ErrorKind::Unavailable);
    refuse(&bench, Some("poison"));
    bench.engine.operations.start_rebuild().await.unwrap();
    rebuilt(&bench).await;
    assert_eq!(bench.engine.operations.readiness().await.models, std::slice::from_ref(stuck));
    assert!(bench.engine.history.get("other", "a").await.is_ok());

    let inspected = bench.engine.operations.inspect(position).await.unwrap();
    assert_eq!((inspected.event.position, inspected.stuck.as_ref()), (position, Some(stuck)));
    assert!(inspected.skipped.is_none());
    let skip = async |position, reason| bench.engine.operations.skip_event(position, reason, &Origin::default()).await;
    for (of, reason, kind) in [
        (position - 1, "x", ErrorKind::Conflict),
        (position + 1000, "x", ErrorKind::NotFound),
        (position, "  ", ErrorKind::BadRequest),
    ] {
        assert_eq!(skip(of, reason).await.unwrap_err().kind, kind, "{of} {reason:?}");
    }
    let by = skip(position, " broken by hand ").await.unwrap();
    rebuilt(&bench).await;
    assert_eq!(bench.engine.operations.readiness().await.models, []);
    assert_eq!(bench.data("before").await, r#"{"n":1}"#);
    assert_eq!(bench.engine.history.get("m", "bad").await.unwrap_err().kind, ErrorKind::NotFound);
    let skipped = bench.engine.operations.inspect(position).await.unwrap().skipped.unwrap();
    assert_eq!((skipped.position, skipped.reason.as_str()), (by, "broken by hand"));
    let filter = EventFilter { kinds: vec![EventKind::ModelEventSkipped], ..EventFilter::default() };
    let listed = bench.engine.history.events(&EventQuery { after: 0, limit: 10, filter }).await.unwrap().events;
    assert_eq!((listed.len(), listed[0].position, listed[0].model.as_str()), (1, by, "m"));

    // Life goes on: instances and definitions follow, and the skip holds for later rebuilds.
    bench.create("after", json!({"n": 2})).await.unwrap();
    bench.update("m", input(json!({"n": {}, "x": {"default": 7}}), &["n"])).await.unwrap();
    bench.engine.operations.start_rebuild().await.unwrap();
    rebuilt(&bench).await;
    assert_eq!(bench.engine.operations.readiness().await.models, []);
    assert_eq!(bench.data("after").await, r#"{"n":2,"x":7}"#);
    let bench = bench.restart().await;
    assert_eq!(bench.data("before").await, r#"{"n":1,"x":7}"#);
    bench.create("last", json!({"n": 3})).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_is_stuck_can_be_deleted_and_leaves_nothing() {
    let bench = bench().await;
    bench.model("m", input(json!({"n": {}}), &["n"])).await.unwrap();
    for n in 0..30 {
        bench.create(&format!("i{n}"), json!({"n": n})).await.unwrap();
    }
    bench.write(InstanceChange::Delete { id: "i0".to_owned() }, WriteOptions::default()).await.unwrap();
    let mut renamed = input(json!({"k": {}}), &["k"]);
    renamed.renames = vec![("n".to_owned(), "k".to_owned())];
    bench.update("m", renamed).await.unwrap();
    refuse(&bench, Some("poison"));
    bench.create("bad", json!({"k": "poison"})).await.unwrap();
    assert_eq!(delete_model(&bench, "m", false).await.unwrap_err().kind, ErrorKind::ModelInUse);
    delete_model(&bench, "m", true).await.unwrap();
    assert_eq!(bench.engine.operations.readiness().await.models, []);
    assert_eq!(bench.engine.history.get("m", "i1").await.unwrap_err().kind, ErrorKind::NotFound);
    // Ids and unique values are free again.
    refuse(&bench, None);
    bench.model("m", input(json!({"k": {}}), &["k"])).await.unwrap();
    for n in 0..30 {
        bench.create(&format!("i{n}"), json!({"k": n})).await.unwrap();
    }
    bench.create("bad", json!({"k": "poison"})).await.unwrap();
    refuse(&bench, Some("poison"));
    bench.engine.operations.start_rebuild().await.unwrap();
    rebuilt(&bench).await;
    // The first event of that kind is of the model that is gone; the second one counts.
    assert_eq!(bench.engine.operations.readiness().await.models.len(), 1);
}

/// After a skip every instance can be changed, whatever the event did to it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_whose_event_is_skipped_is_as_before() {
    let bench = bench().await;
    bench.model("m", input(json!({"n": {}, "d": {"default": 1}}), &["n"])).await.unwrap();
    bench.create("old", json!({"n": 1})).await.unwrap();
    let mut renamed = input(json!({"k": {}, "d": {"default": 1}}), &["k"]);
    renamed.renames = vec![("n".to_owned(), "k".to_owned())];
    bench.update("m", renamed).await.unwrap();
    for (id, exists) in [("old", true), ("new", false)] {
        refuse(&bench, Some("poison"));
        match exists {
            true => drop(bench.replace(id, json!({"k": "poison"})).await.unwrap()),
            false => drop(bench.create(id, json!({"k": "poison"})).await.unwrap()),
        }
        let position = bench.engine.operations.readiness().await.models[0].position;
        // What is skipped stays so, also once the store would take it; events of the turn before hold that value too.
        refuse(&bench, None);
        bench.engine.operations.skip_event(position, "test", &Origin::default()).await.unwrap();
        rebuilt(&bench).await;
        match exists {
            true => assert_eq!(bench.data(id).await, r#"{"k":1,"d":1}"#),
            false => assert_eq!(bench.engine.history.get("m", id).await.unwrap_err().kind, ErrorKind::NotFound),
        }
        // The value is free again, and the old one is not.
        bench.create(&format!("{id}-other"), json!({"k": "poison"})).await.unwrap();
        assert_eq!(bench.create("third", json!({"k": 1})).await.unwrap_err().kind, ErrorKind::NotUnique);
        bench.write(InstanceChange::Delete { id: format!("{id}-other") }, WriteOptions::default()).await.unwrap();
        match exists {
            true => drop(bench.replace(id, json!({"k": 1, "d": 3})).await.unwrap()),
            false => drop(bench.create(id, json!({"k": 2})).await.unwrap()),
        }
    }
    bench.engine.operations.start_rebuild().await.unwrap();
    rebuilt(&bench).await;
    assert_eq!(bench.data("old").await, r#"{"k":1,"d":3}"#);
    assert_eq!(bench.data("new").await, r#"{"k":2,"d":1}"#);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn post_hooks_of_the_model_wait() {
    let bench = bench().await;
    bench.model("m", input(json!({"n": {}}), &[])).await.unwrap();
    let (seen, mut runs) = tokio::sync::mpsc::unbounded_channel();
    bench.code("note", move |context, _| {
        seen.send(context.instance.clone()).unwrap();
        async { Outcome::Accept }
    });
    bench.bind(Phase::PostCreate, &[("note", "note")]).await;
    bench.create("one", json!({"n": 1})).await.unwrap();
    assert_eq!(runs.recv().await.as_deref(), Some("one"));
    refuse(&bench, Some("poison"));
    let position = create(&bench.engine, "m", "bad", json!({"n": "poison"})).await.unwrap();
    eventually("only that waits", || async { (bench.events_lag("m").await.0 == 1).then_some(()) }).await;
    assert!(tokio::time::timeout(Duration::from_millis(300), runs.recv()).await.is_err(), "it ran");
    bench.engine.operations.skip_event(position, "test", &Origin::default()).await.unwrap();
    // The event happened, so its hooks run.
    let ran = tokio::time::timeout(Duration::from_secs(20), runs.recv()).await.expect("it runs");
    assert_eq!(ran.as_deref(), Some("bad"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn definitions_that_cannot_be_applied() {
    let bench = bench().await;
    bench.model("other", input(json!({}), &[])).await.unwrap();
    bench.model("m", input(json!({"n": {}}), &[])).await.unwrap();
    bench.create("a", json!({"n": 1})).await.unwrap();
    *bench.store.refused_definition.lock().unwrap() = Some("poison");
    bench.update("m", input(json!({"n": {}, "poison": {"type": "string"}}), &[])).await.unwrap();
    let [stuck] = &bench.engine.operations.readiness().await.models[..] else { panic!() };
    let position = stuck.position;
    assert_eq!(bench.engine.history.get("m", "a").await.unwrap_err().kind, ErrorKind::Unavailable);
    bench.engine.operations.skip_event(position, "test", &Origin::default()).await.unwrap();
    rebuilt(&bench).await;
    assert_eq!(bench.data("a").await, r#"{"n":1}"#);
    // The version that was skipped is not given again.
    assert_eq!(bench.update("m", input(json!({"n": {}, "x": {}}), &[])).await.unwrap(), 3);
    // A model whose first event cannot be applied has nothing to go on from.
    bench.model("bad", input(json!({"poison": {"type": "string"}}), &[])).await.unwrap();
    let [stuck] = &bench.engine.operations.readiness().await.models[..] else { panic!() };
    let position = stuck.position;
    let skipped = bench.engine.operations.skip_event(position, "test", &Origin::default()).await;
    assert_eq!(skipped.unwrap_err().kind, ErrorKind::Conflict);
    let bench = bench.restart().await;
    assert_eq!(bench.engine.operations.readiness().await.models.len(), 1);
    assert_eq!(create(&bench.engine, "bad", "a", json!({})).await.unwrap_err().kind, ErrorKind::Unavailable);
    delete_model(&bench, "bad", false).await.unwrap();
    assert_eq!(bench.engine.operations.readiness().await.models, []);
    bench.model("bad", input(json!({}), &[])).await.unwrap();
}

/// Random changes of several models, some of which the store refuses, with restarts, rebuilds and both ways out between
/// them: what is available is always what the accepted changes made it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_refused_the_rest_is_right() {
    const MODELS: [&str; 4] = ["a", "b", "c", "d"];
    for seed in 1..=3 {
        let mut random = Random::new(seed);
        let mut bench = bench().await;
        refuse(&bench, Some("poison"));
        let mut expected: BTreeMap<&str, BTreeMap<String, u64>> = BTreeMap::new();
        let mut stuck: BTreeMap<&str, Position> = BTreeMap::new();
        for model in MODELS {
            bench.model(model, input(json!({"n": {}}), &["n"])).await.unwrap();
            expected.insert(model, BTreeMap::new());
        }
        for step in 0..200_u64 {
            let model = *random.pick(&MODELS);
            let at = format!("seed {seed}, step {step}, {model}");
            match random.below(40) {
                0 => {
                    bench = bench.restart().await;
                    refuse(&bench, Some("poison"));
                }
                1 => {
                    bench.engine.operations.start_rebuild().await.unwrap();
                    rebuilt(&bench).await;
                }
                2..6 if stuck.contains_key(model) => {
                    let position = stuck.remove(model).unwrap();
                    bench.engine.operations.skip_event(position, "random", &Origin::default()).await.unwrap();
                    rebuilt(&bench).await;
                }
                6..8 if stuck.contains_key(model) => {
                    stuck.remove(model);
                    delete_model(&bench, model, true).await.unwrap();
                    bench.model(model, input(json!({"n": {}}), &["n"])).await.unwrap();
                    expected.get_mut(model).unwrap().clear();
                }
                8..10 => {
                    let data = json!({"n": "poison", "s": step});
                    let position = create(&bench.engine, model, &format!("bad{step}"), data).await;
                    match (position, stuck.contains_key(model)) {
                        (Ok(position), false) => drop(stuck.insert(model, position)),
                        (Err(error), _) => {
                            let kinds = [ErrorKind::Unavailable, ErrorKind::NotUnique];
                            assert!(kinds.contains(&error.kind), "{at}: {error}");
                        }
                        (Ok(_), true) => panic!("{at}: written to a model that is stuck"),
                    }
                }
                _ => {
                    let id = format!("i{step}");
                    match create(&bench.engine, model, &id, json!({"n": step})).await {
                        Ok(_) => drop(expected.get_mut(model).unwrap().insert(id, step)),
                        Err(error) => {
                            assert_eq!(error.kind, ErrorKind::Unavailable, "{at}: {error}");
                            assert!(stuck.contains_key(model), "{at}: {error}");
                        }
                    }
                }
            }
            let unavailable: BTreeSet<String> =
                bench.engine.operations.readiness().await.models.into_iter().map(|stuck| stuck.model).collect();
            assert_eq!(unavailable, stuck.keys().map(|model| (*model).to_owned()).collect(), "{at}");
            if step % 20 == 19 {
                for model in MODELS.iter().filter(|model| !stuck.contains_key(**model)) {
                    let count = bench.engine.history.count(model, &QueryInput::default()).await.unwrap();
                    assert_eq!(count as usize, expected[model].len(), "{at}: {model}");
                    for (id, n) in &expected[model] {
                        assert_eq!(
                            bench.engine.history.get(model, id).await.unwrap().data.as_str(),
                            json!({"n": n}).to_string()
                        );
                    }
                }
            }
        }
        bench.engine.close(Duration::from_secs(5)).await;
    }
}

#[tokio::test]
async fn a_definition_beyond_new_limits_keeps_only_its_model() {
    let bench = bench().await;
    bench.model("m", input(json!({"n": {}}), &[])).await.unwrap();
    bench.model("fine", input(json!({"n": {}}), &[])).await.unwrap();
    bench.create("one", json!({"n": 1})).await.unwrap();
    let position = bench.engine.definitions.get("m").unwrap().record.position;
    // The server starts again, and reads the store's definitions.
    bench.create("two", json!({"n": 2})).await.unwrap();
    let bench = bench.restart_with(|store| *store.beyond_limits.lock().unwrap() = Some("m")).await;
    eventually("the others work", || async { bench.engine.history.query("fine", &QueryInput::default()).await.ok() })
        .await;
    let models = bench.engine.operations.readiness().await.models;
    assert_eq!((models.len(), models[0].model.as_str(), models[0].position), (1, "m", position), "{models:?}");
    assert!(models[0].reason.contains("its definition cannot be used"), "{models:?}");
    assert_eq!(bench.engine.history.get("m", "one").await.unwrap_err().kind, ErrorKind::Unavailable);
    // An event that changes nothing of the definition but its place leaves it as it is, whoever wrote it.
    let stream = Stream::of_model("m");
    let changing = sample::event(EventKind::ModelChanging, &stream, Some(r#"{"within_ms":4000}"#));
    bench.events.append(&[sample::append(changing)], false).await.unwrap();
    create(&bench.engine, "fine", "after", json!({"n": 3})).await.unwrap();
    let models = bench.engine.operations.readiness().await.models;
    assert!(models.len() == 1 && models[0].reason.contains("its definition cannot be used"), "{models:?}");
    // Its instances were applied all the same: where the definition can be used, it is whole.
    *bench.store.beyond_limits.lock().unwrap() = None;
    bench.engine.operations.start_rebuild().await.unwrap();
    eventually("it works again", || async { bench.engine.history.get("m", "two").await.ok() }).await;
    bench.create("three", json!({"n": 3})).await.unwrap();
    let bench = bench.restart_with(|store| *store.beyond_limits.lock().unwrap() = Some("m")).await;
    eventually("it is unavailable", || async { bench.engine.core.availability.stuck("m") }).await;
    delete_model(&bench, "m", true).await.unwrap();
    assert!(bench.engine.operations.readiness().await.models.is_empty());
    bench.model("m", input(json!({}), &[])).await.unwrap();
}

/// A store that panics in the middle of a rebuild costs the rebuild: the node is out of service until the store works, then
/// goes on by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuild_that_panics_fails_and_is_made_up_for() {
    // A store that panics in a reset alone would be made up for at once.
    let calls: [&[&str]; 5] =
        [&["reset", "checkpoint"], &["definitions"], &["begin_replay"], &["end_replay"], &["checkpoint"]];
    for calls in calls {
        let call = calls[0];
        let bench = bench().await;
        bench.model("m", input(json!({"n": {}}), &[])).await.unwrap();
        bench.model("other", input(json!({}), &[])).await.unwrap();
        for n in 0..20 {
            bench.create(&format!("i{n}"), json!({"n": n})).await.unwrap();
        }
        *bench.store.panics.lock().unwrap() = calls.to_vec();
        bench.engine.operations.start_rebuild().await.unwrap();
        let error = eventually("it fails", || async { bench.engine.operations.rebuild_progress().error }).await;
        assert!(error.contains("panicked"), "{call}: {error}");
        assert_eq!(bench.engine.history.get("m", "i1").await.unwrap_err().kind, ErrorKind::Unavailable, "{call}");
        assert!(bench.create("not", json!({"n": 0})).await.is_err(), "{call}");
        bench.store.panics.lock().unwrap().clear();
        eventually("it works again", || async { bench.engine.history.get("m", "i19").await.ok() }).await;
        bench.create("next", json!({"n": 0})).await.unwrap();
        assert_eq!(bench.engine.history.count("m", &QueryInput::default()).await.unwrap(), 21, "{call}");
        assert_eq!(bench.engine.definitions.all().len(), 2, "{call}");
        bench.update("m", input(json!({"n": {}, "x": {"default": 1}}), &[])).await.unwrap();
        assert_eq!(bench.data("i3").await, r#"{"n":3,"x":1}"#, "{call}");
    }
}
