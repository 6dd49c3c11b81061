//! Copies the stores of one configuration to those of another: the log, the recorded errors and the secrets, and
//! compares them at the end.
//!
//! The copy of the log is one import. If it is interrupted, the target log is marked as incomplete, and the next
//! attempt continues after its last event.

use std::collections::HashMap;
use std::sync::Arc;

use snaphook_driver::{
    Budget, Event, EventStore, Instance, InstanceQuery, LogExport, LogRecord, ModelShape, ModelStore, Position,
    Result as DriverResult,
};

use super::archive::PROGRESS_MAX;
use super::error::BackupError;
use super::export::{Digest, Sink, Sources, copy};
use super::record::{Counts, Record};
use super::restore::{RestoreTarget, with_data};
use crate::config::Config;
use crate::drivers::OpenError;
use crate::drivers::stores::{BareStores, Sealed, secrets_of_settings};

/// Instances per page.
const PAGE: u32 = 500;

/// The open stores of a copy: sources and targets.
pub struct Transfer {
    from: BareStores,
    to: BareStores,
}

/// The result of a copy.
#[derive(Clone, Debug)]
pub struct Transferred {
    pub counts: Counts,
    /// Events that an earlier attempt had copied.
    pub resumed: u64,
    /// Position of the last event.
    pub head: Position,
}

/// A model that is the same in both model stores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComparedModel {
    pub model: String,
    pub version: u64,
    pub instances: u64,
}

impl Transfer {
    /// Opens both. Fails if a server uses one of them.
    pub async fn open(from: &Config, to: &Config) -> Result<Transfer, BackupError> {
        let refused = |config: &Config| {
            let name = config.name();
            move |error: OpenError| BackupError::Refused(format!("the stores of {name}: {error}"))
        };
        let source = BareStores::open(from, Sealed::Stored).await.map_err(refused(from))?;
        let target = async {
            // Secrets used by settings may not exist in the target yet.
            let mut sealed = HashMap::new();
            for name in secrets_of_settings(to).map_err(refused(to))? {
                let found = source.secure.get(&name).await.map_err(|error| BackupError::Store("secure", error))?;
                sealed.extend(found.map(|found| (name, found.bytes)));
            }
            BareStores::open_to_fill(to, Sealed::InBackup(sealed)).await.map_err(refused(to))
        };
        match target.await {
            Ok(target) => Ok(Transfer { from: source, to: target }),
            Err(error) => {
                source.close().await;
                Err(error)
            }
        }
    }

    pub async fn close(&self) {
        self.to.close().await;
        self.from.close().await;
    }

    /// The source stores.
    pub fn from(&self) -> (&Arc<dyn EventStore>, &Arc<dyn ModelStore>) {
        (&self.from.event, &self.from.model)
    }

    /// The target stores.
    pub fn to(&self) -> (&Arc<dyn EventStore>, &Arc<dyn ModelStore>) {
        (&self.to.event, &self.to.model)
    }

    /// Copies the log, the recorded errors and the secrets, and compares them. `progress` gets the name of a step and
    /// its progress, from 0 to 1.
    pub async fn copy(&self, mut progress: impl FnMut(&'static str, f64) + Send) -> Result<Transferred, BackupError> {
        let failed = |error| BackupError::Store("event", error);
        let there = self.to.event.export().await.map_err(failed)?;
        let resumed = there.head();
        self.check_target(resumed, there).await?;
        let mut fill = Fill {
            target: RestoreTarget::new(&self.to),
            digest: Digest::default(),
            there: resumed,
            is_whole: false,
            progress: &mut progress,
        };
        let log = self.from.event.export().await.map_err(failed)?;
        let head = log.head();
        copy(log, &sources(&self.from), &mut fill).await?;
        fill.flush().await?;
        let expected = fill.digest.end();

        progress("compare", 0.0);
        let mut found = Compare { digest: Digest::default(), progress: &mut progress };
        copy(self.to.event.export().await.map_err(failed)?, &sources(&self.to), &mut found).await?;
        let found = found.digest.end();
        if found != expected {
            return Err(BackupError::Different(format!(
                "the stores do not contain the same data: {} instead of {}; empty those that were filled, and copy \
                 again",
                found.counts, expected.counts
            )));
        }
        self.to.event.finish_import().await.map_err(failed)?;
        Ok(Transferred { counts: expected.counts, resumed: resumed.min(head), head })
    }

    /// Compares the model stores, which are both at the end of their logs.
    pub async fn compare_models(&self, mut progress: impl FnMut(&str, u64)) -> Result<Vec<ComparedModel>, BackupError> {
        let failed = |error| BackupError::Store("model", error);
        let (from, to) = (&*self.from.model, &*self.to.model);
        let (expected, found) = (shapes(from).await.map_err(failed)?, shapes(to).await.map_err(failed)?);
        if let Some(model) = first_difference(&expected, &found) {
            return Err(BackupError::Different(format!("the model stores differ in the definition of `{model}`")));
        }
        let mut compared = Vec::new();
        for ModelShape { model, version, .. } in expected {
            let (mut expected, mut found) = (Instances::of(from, &model), Instances::of(to, &model));
            let mut instances = 0;
            loop {
                let (expected, found) = (expected.next().await.map_err(failed)?, found.next().await.map_err(failed)?);
                if expected != found {
                    let at = expected.or(found).map(|instance| instance.id).unwrap_or_default();
                    return Err(BackupError::Different(format!("the model stores differ at `{model}/{at}`")));
                }
                if expected.is_none() {
                    break;
                }
                instances += 1;
                progress(&model, instances);
            }
            compared.push(ComparedModel { model, version, instances });
        }
        Ok(compared)
    }

    /// Accepts only empty targets, and those that an earlier attempt began to fill.
    async fn check_target(&self, resumed: Position, mut there: Box<dyn LogExport>) -> Result<(), BackupError> {
        let failed = |error| BackupError::Store("event", error);
        if !self.to.event.capabilities().durable {
            let message = "the event storage to copy to loses its data when this command ends; name another driver";
            return Err(BackupError::Refused(message.to_owned()));
        }
        if resumed > 0 {
            let mut from = self.from.event.export().await.map_err(failed)?;
            let first = |records: Vec<LogRecord>| records.into_iter().find_map(event);
            let (expected, found) = (from.next().await.map_err(failed)?, there.next().await.map_err(failed)?);
            if first(expected) == first(found) {
                return Ok(());
            }
            let message = "the event storage to copy to contains another log; name an empty place";
            return Err(BackupError::Refused(message.to_owned()));
        }
        let full = with_data(&self.to).await?;
        if full.is_empty() {
            return Ok(());
        }
        let full = full.join(" and the ");
        Err(BackupError::Refused(format!("the {full} storage to copy to contains data; name an empty place")))
    }
}

fn event(record: LogRecord) -> Option<Event> {
    match record {
        LogRecord::Event(event) => Some(event),
        _ => None,
    }
}

async fn shapes(store: &dyn ModelStore) -> DriverResult<Vec<ModelShape>> {
    let mut shapes = store.definitions().await?;
    shapes.sort_by(|left, right| left.model.cmp(&right.model));
    Ok(shapes)
}

/// The first model that differs, by id.
fn first_difference<'a>(expected: &'a [ModelShape], found: &'a [ModelShape]) -> Option<&'a str> {
    let shorter = expected.len().min(found.len());
    let differs = |index: &usize| expected.get(*index) != found.get(*index);
    let index = (0..shorter).find(differs).or((expected.len() != found.len()).then_some(shorter))?;
    expected.get(index).or(found.get(index)).map(|shape| shape.model.as_str())
}

/// The instances of a model, by id. Each store is read with its own pages and opaque cursors.
struct Instances<'a> {
    store: &'a dyn ModelStore,
    model: &'a str,
    query: InstanceQuery,
    page: std::vec::IntoIter<Instance>,
    is_last: bool,
}

impl<'a> Instances<'a> {
    fn of(store: &'a dyn ModelStore, model: &'a str) -> Self {
        let query = InstanceQuery { limit: PAGE, ..InstanceQuery::default() };
        Instances { store, model, query, page: Vec::new().into_iter(), is_last: false }
    }

    async fn next(&mut self) -> DriverResult<Option<Instance>> {
        loop {
            if let Some(instance) = self.page.next() {
                return Ok(Some(instance));
            }
            if self.is_last {
                return Ok(None);
            }
            let page = self.store.query(self.model, &self.query, &Budget::unlimited()).await?;
            (self.page, self.is_last) = (page.items.into_iter(), page.next.is_none());
            self.query.cursor = page.next;
        }
    }
}

fn sources(stores: &BareStores) -> Sources {
    Sources { error: stores.error.clone(), secure: stores.secure.clone() }
}

/// Fills the target stores with the missing records.
struct Fill<'a, P> {
    target: RestoreTarget<'a>,
    digest: Digest,
    /// Position up to which the target has events.
    there: Position,
    /// Whether an earlier attempt finished the import.
    is_whole: bool,
    progress: &'a mut P,
}

impl<P: FnMut(&'static str, f64) + Send> Fill<'_, P> {
    async fn put(&mut self, record: Record) -> Result<(), BackupError> {
        match &record {
            Record::Log(LogRecord::Event(event)) if event.position <= self.there => return Ok(()),
            Record::Log(_) if self.is_whole => return Ok(()),
            Record::Log(_) => {}
            Record::Error(error) => {
                self.flush().await?;
                if self.target.has_error(&error.id).await? {
                    return Ok(());
                }
            }
            Record::Secret { name, bytes } => {
                self.flush().await?;
                if self.target.has_secret(name, bytes).await? {
                    return Ok(());
                }
            }
        }
        let put = self.target.take(record).await;
        self.unless_whole(put)
    }

    async fn flush(&mut self) -> Result<(), BackupError> {
        let flushed = self.target.flush().await;
        self.unless_whole(flushed)
    }

    /// If a log with all events accepts no more records, its import was finished; the comparison detects differences.
    fn unless_whole(&mut self, put: Result<(), BackupError>) -> Result<(), BackupError> {
        match put {
            Err(BackupError::NotEmpty(_)) if self.there > 0 => {
                self.is_whole = true;
                Ok(())
            }
            put => put,
        }
    }
}

impl<P: FnMut(&'static str, f64) + Send> Sink for Fill<'_, P> {
    async fn take(&mut self, record: Record, progress: u32) -> Result<(), BackupError> {
        (self.progress)("copy", f64::from(progress) / f64::from(PROGRESS_MAX));
        self.digest.add(&record)?;
        self.put(record).await
    }
}

/// Reads the target stores back.
struct Compare<'a, P> {
    digest: Digest,
    progress: &'a mut P,
}

impl<P: FnMut(&'static str, f64) + Send> Sink for Compare<'_, P> {
    async fn take(&mut self, record: Record, progress: u32) -> Result<(), BackupError> {
        (self.progress)("compare", f64::from(progress) / f64::from(PROGRESS_MAX));
        self.digest.add(&record)
    }
}
