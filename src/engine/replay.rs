//! Brings the model store from its checkpoint to the end of the log: after a crash, at a rebuild, for a new store.
//!
//! No hook runs here: this code has no handle to the hook host at all.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use snaphook_driver::{CarryOver, Event, EventFilter, EventKind, EventPage, EventQuery, EventStore, ModelStore};

use super::change::DefinitionChange;
use super::error::{Error, ErrorKind, Result};
use crate::catalog::{Model, ModelRecord};

/// Events that are read, and applied in one transaction, at a time.
const PAGE: u32 = 4096;

/// How far a replay has come; read by whoever shows it.
#[derive(Debug, Default)]
pub struct Progress {
    pub position: AtomicU64,
    pub head: AtomicU64,
    pub events: AtomicU64,
}

/// Applies everything after the checkpoint. Gives the models that are defined then.
pub async fn run(events: &Arc<dyn EventStore>, store: &Arc<dyn ModelStore>, progress: &Progress) -> Result<Vec<Model>> {
    check_log(events, store).await?;
    let checkpoint = store.checkpoint().await?;
    let head = events.head().await?;
    if checkpoint > head {
        return Err(Error::new(
            ErrorKind::Storage,
            format!(
                "the model store is at position {checkpoint} of this log, which ends at {head}: events are lost, or an \
                 older copy of the log was put in its place; bring the log back, or run `snaphook rebuild` to go on \
                 without what is missing"
            ),
        ));
    }
    progress.position.store(checkpoint, Ordering::Relaxed);
    progress.head.store(head, Ordering::Relaxed);
    let mut models = load(store).await?;
    let mut page = read(events, checkpoint).await?;
    while let Some(last) = page.events.last().map(|event| event.position) {
        // The next page is read while this one is applied.
        let next = tokio::spawn({
            let events = Arc::clone(events);
            async move { read(&events, last).await }
        });
        apply(store, &mut models, &page.events).await?;
        progress.position.store(last, Ordering::Relaxed);
        progress.head.fetch_max(page.head, Ordering::Relaxed);
        progress.events.fetch_add(page.events.len() as u64, Ordering::Relaxed);
        page = next.await.map_err(|error| Error::new(ErrorKind::Storage, format!("a reader failed: {error}")))??;
    }
    Ok(models.into_values().collect())
}

/// A projection of another log (one that was restored from a backup is another) is made again from this one.
async fn check_log(events: &Arc<dyn EventStore>, store: &Arc<dyn ModelStore>) -> Result<()> {
    let (log, of) = (events.identity(), store.log().await?);
    if of.as_deref() == Some(log) {
        return Ok(());
    }
    let checkpoint = store.checkpoint().await?;
    if checkpoint > 0 {
        let of = of.as_deref().unwrap_or("unknown");
        tracing::warn!(log, of, checkpoint, "the model store is of another log; rebuilding it from this one");
    }
    Ok(store.reset(log).await?)
}

async fn read(events: &Arc<dyn EventStore>, after: u64) -> Result<EventPage> {
    let query = EventQuery { after, limit: PAGE, filter: EventFilter::default() };
    Ok(events.read(&query, None).await?)
}

/// The models that the store has.
async fn load(store: &Arc<dyn ModelStore>) -> Result<HashMap<String, Model>> {
    let mut models = HashMap::new();
    for shape in store.definitions().await? {
        let model = serde_json::from_str::<ModelRecord>(&shape.record)
            .map_err(|error| error.to_string())
            .and_then(Model::from_record)
            .map_err(|error| {
                let model = &shape.model;
                Error::new(
                    ErrorKind::Storage,
                    format!(
                        "the model store's definition of `{model}` cannot be used ({error}); run `snaphook rebuild`"
                    ),
                )
            })?;
        models.insert(shape.model, model);
    }
    Ok(models)
}

/// Applies a page: runs of instance events at once, definitions one by one between them.
async fn apply(store: &Arc<dyn ModelStore>, models: &mut HashMap<String, Model>, page: &[Event]) -> Result<()> {
    for run in page.chunk_by(|a, b| a.kind.is_instance() && b.kind.is_instance()) {
        let [first, .., last] = run else {
            if let [event] = run {
                one(store, models, event).await?;
            }
            continue;
        };
        debug_assert!(first.kind.is_instance());
        store.apply(run, last.position).await?;
    }
    Ok(())
}

async fn one(store: &Arc<dyn ModelStore>, models: &mut HashMap<String, Model>, event: &Event) -> Result<()> {
    match event.kind {
        kind if kind.is_instance() => store.apply(std::slice::from_ref(event), event.position).await?,
        EventKind::ModelDeleted => {
            store.drop_model(&event.model, event.position).await?;
            models.remove(&event.model);
        }
        _ => {
            let change = DefinitionChange::from_event(event)?;
            let old = models.get(&event.model);
            let new = Model::from_record(change.definition.clone()).map_err(|error| {
                Error::new(ErrorKind::Storage, format!("the event at {} cannot be used: {error}", event.position))
            })?;
            let carry = old.map_or_else(CarryOver::default, |_| change.carry_over(&new.schema));
            store.define(old.map(Model::shape).as_ref(), &new.shape(), &carry, event.position).await?;
            models.insert(event.model.clone(), new);
        }
    }
    Ok(())
}
