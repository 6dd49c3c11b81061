//! The store: memory contains the intended state of the peer, and the journal the progress toward it.
//!
//! A call first records in the journal which records it will touch, then sends these to the peer, then appends its own
//! entry to the journal, and only then takes effect. If it fails halfway, or the process ends, the touched records are
//! *owed*: they may differ from memory, and are sent before anything else. In a replay, calls take effect at once and
//! all touched records are owed until the end, so that a record is sent once, however many events it has.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use snaphook_driver::files::{FileLock, file_fault, unusable_file};
use snaphook_driver::{
    Budget, Capabilities, CarryOver, DriverError, ErrorKind, Event, Filter, Instance, InstancePage, InstanceQuery,
    Instances, ModelShape, ModelStore, OpenContext, Position, Result, count_rows, moves_checkpoint, prepare_instances,
    query_rows,
};

use crate::config::{CrudConfig, wrong};
use crate::delivery::{Courier, Delivery};
use crate::journal::{Journal, JournalEntry, Key};
use crate::record::Fields;
use crate::remote::Remote;
use crate::state::{Owed, Snapshot, Targets, applied, carried, keys, locked, owe, take_up};

/// How long `close` waits for the requests of a dropped call.
const CLOSE_WAIT: Duration = Duration::from_secs(5);

/// How many records of an earlier state are deleted for a new model: bounds the work if a peer's lists never end.
const SWEPT_MAX: usize = 10_000_000;

/// See the crate's documentation.
pub struct CrudModelStore {
    courier: Courier,
    instances: Arc<Mutex<Instances>>,
    work: tokio::sync::Mutex<Work>,
    path: PathBuf,
}

/// The state of writing calls, which run one at a time.
struct Work {
    journal: Journal,
    owed: Owed,
    /// Owed records that the peer rejected: sent again with their next change, and at the end of a replay.
    rejected: BTreeSet<Key>,
    is_replay: bool,
    /// The lock of the folder. Closing the store releases it, so that a remaining reference does not prevent another
    /// open.
    lock: Option<FileLock>,
}

/// What to do if the peer rejects a record.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rejected {
    /// The call fails.
    Fails,
    /// The record is put aside: the call only deletes, and must not fail because a peer keeps a record.
    IsPutAside,
}

impl CrudModelStore {
    /// Reads the local state without contacting the peer.
    pub(crate) fn open(context: &OpenContext) -> Result<CrudModelStore> {
        let config = CrudConfig::new(context)?;
        let (calls, id_in_updates) = (config.calls()?, config.id_in_updates);
        let fields = Fields::new(&config.id, &config.fields).map_err(wrong)?;
        let remote = Remote { peer: config.peer()?, calls, fields, id_in_updates };
        let folder = context.path(&config.state);
        let lock = FileLock::take(&folder.join("lock"), &folder)?;
        let path = folder.join("journal");
        let (mut instances, mut owed, mut damage) = (Instances::default(), Owed::new(), None);
        let journal = Journal::open(path.clone(), |entry| {
            if damage.is_none() {
                damage = take_up(entry, &mut instances, &mut owed).err();
            }
        });
        let journal = journal.map_err(unusable_file(&path))?;
        if let Some(error) = damage {
            return Err(error.with("path", path.display()));
        }
        let work = Work { journal, owed, rejected: BTreeSet::new(), is_replay: false, lock: Some(lock) };
        let instances = Arc::new(Mutex::new(instances));
        let courier = Courier::new(remote, Arc::clone(&instances));
        Ok(CrudModelStore { courier, instances, work: tokio::sync::Mutex::new(work), path })
    }

    fn instances(&self) -> MutexGuard<'_, Instances> {
        locked(&self.instances)
    }

    /// Carries out a call: `targets` are its changes at the peer, `entry` is its journal entry, and `make` applies it
    /// in memory.
    async fn change(
        &self,
        work: &mut Work,
        operation: &'static str,
        targets: Targets,
        rejected: Rejected,
        entry: JournalEntry,
        make: impl FnOnce(&mut Instances),
    ) -> Result<()> {
        let failed = file_fault(operation, &self.path);
        let aside = match work.is_replay {
            true => BTreeSet::new(),
            false => self.bring(work, operation, &targets, rejected).await?,
        };
        // The records owed before and after, except those that are already up to date.
        let is_clean = !work.is_replay
            && aside.is_empty()
            && work.owed.keys().chain(&work.rejected).all(|key| targets.contains_key(key));
        let mut entries = vec![entry];
        entries.extend(is_clean.then_some(JournalEntry::Clean));
        work.journal.append(&entries, false).map_err(failed)?;
        let mut instances = self.instances();
        for key in targets.into_keys() {
            let was_rejected = work.rejected.remove(&key);
            match work.is_replay {
                true => owe(&mut work.owed, &instances, key, was_rejected),
                false => drop(work.owed.remove(&key)),
            }
        }
        make(&mut instances);
        drop(instances);
        work.rejected.extend(aside);
        if work.journal.is_long()
            && let Err(error) = self.shorten(work)
        {
            // The call has taken effect; the next one retries.
            tracing::warn!(%error, path = %self.path.display(), "the journal cannot be compacted; the next change retries");
        }
        Ok(())
    }

    /// Sends the changes of a call to the peer, and returns the records that are put aside. If it fails, all of them
    /// are owed.
    async fn bring(
        &self,
        work: &mut Work,
        operation: &'static str,
        targets: &Targets,
        rejected: Rejected,
    ) -> Result<BTreeSet<Key>> {
        self.pay(work, operation, |key| !targets.contains_key(key)).await?;
        let deliveries: Vec<Delivery> = {
            let now = Snapshot::of(&self.instances, targets.keys());
            let delivery = |(key, row): (&Key, &Option<_>)| {
                let is_owed = work.owed.get(key) == Some(&true) || work.rejected.contains(key);
                Delivery { key: key.clone(), row: row.clone(), is_known: is_owed || now.row(key).is_some() }
            };
            targets.iter().map(delivery).collect()
        };
        let touched: Vec<Key> = targets.keys().filter(|key| work.owed.get(*key) != Some(&true)).cloned().collect();
        if !touched.is_empty() {
            let touch = JournalEntry::Touch(touched.clone());
            work.journal.append(&[touch], true).map_err(file_fault(operation, &self.path))?;
            work.owed.extend(touched.into_iter().map(|key| (key, true)));
        }
        let (mut aside, mut complaints) = (BTreeSet::new(), Complaints::default());
        let done = |key, sent: Result<()>| match sent {
            Err(error) if rejected == Rejected::IsPutAside => {
                complaints.add(&key, error);
                aside.insert(key);
                Ok(())
            }
            sent => sent,
        };
        self.courier.deliver(operation, deliveries, done).await?;
        complaints.log();
        Ok(aside)
    }

    /// Sends those owed records that `wanted` names. Rejected records are put aside; returns the peer's messages about
    /// them.
    async fn pay(
        &self,
        work: &mut Work,
        operation: &'static str,
        wanted: impl Fn(&Key) -> bool + Send,
    ) -> Result<Complaints> {
        let deliveries: Vec<Delivery> = {
            let now = Snapshot::of(&self.instances, work.owed.keys());
            let owed = work.owed.iter_mut().filter(|(key, _)| wanted(key));
            owed.map(|(key, is_known)| Delivery {
                key: key.clone(),
                row: now.row(key).cloned(),
                // From now on, the peer may have the record.
                is_known: std::mem::replace(is_known, true),
            })
            .collect()
        };
        if deliveries.is_empty() {
            return Ok(Complaints::default());
        }
        // In a replay, owed records are written to the journal without a sync.
        work.journal.sync().map_err(file_fault(operation, &self.path))?;
        let (Work { owed, rejected, .. }, mut complaints) = (work, Complaints::default());
        let done = |key, sent| {
            owed.remove(&key);
            if let Err(error) = sent {
                complaints.add(&key, error);
                rejected.insert(key);
            }
            Ok(())
        };
        self.courier.deliver(operation, deliveries, done).await?;
        complaints.log();
        Ok(complaints)
    }

    /// Removes records of a new model that a lost state, or another log, left at the peer. A list may show only a part
    /// at a time.
    async fn sweep(&self, work: &mut Work, model: &str) -> Result<()> {
        let mut seen = BTreeSet::new();
        loop {
            let found = self.courier.remote.ours("define", model).await?;
            let left: Targets = found
                .into_iter()
                .filter(|id| seen.insert(id.clone()))
                .map(|id| ((model.to_owned(), id), None))
                .collect();
            if left.is_empty() {
                return Ok(());
            }
            if seen.len() > SWEPT_MAX {
                let message = format!(
                    "the peer lists more than {SWEPT_MAX} records of an earlier state of the new model; delete them at \
                     the peer"
                );
                return Err(DriverError::new(ErrorKind::Unavailable, "define", message).with("model", model));
            }
            tracing::warn!(model, count = left.len(), "deleting records that an earlier state left at the peer");
            let aside = self.bring(work, "define", &left, Rejected::IsPutAside).await?;
            work.owed.retain(|key, _| !left.contains_key(key));
            work.rejected.extend(aside);
        }
    }

    /// Rewrites the journal with a copy of the state in memory.
    fn shorten(&self, work: &mut Work) -> std::io::Result<()> {
        let (begin, shapes) = {
            let instances = self.instances();
            let begin =
                JournalEntry::Begin { log: instances.log().map(str::to_owned), checkpoint: instances.checkpoint() };
            (begin, instances.definitions().cloned().collect::<Vec<_>>())
        };
        let now = Snapshot::of_all(&self.instances);
        let models = shapes.iter().flat_map(|shape| {
            let rows = now.rows(&shape.model).map(|row| JournalEntry::Row(row.instance().clone()));
            std::iter::once(JournalEntry::Model(shape.clone())).chain(rows)
        });
        let owed: Vec<Key> = work.owed.keys().chain(&work.rejected).cloned().collect();
        let touch = (!owed.is_empty()).then_some(JournalEntry::Touch(owed));
        work.journal.replace(std::iter::once(begin).chain(models).chain(touch))
    }
}

/// The peer's messages about rejected records, which stay unchanged there.
#[derive(Default)]
struct Complaints {
    count: usize,
    /// The error of the first record of each model.
    first: BTreeMap<String, DriverError>,
}

impl Complaints {
    fn add(&mut self, (model, _): &Key, error: DriverError) {
        self.count += 1;
        self.first.entry(model.clone()).or_insert(error);
    }

    fn log(&self) {
        if let Some(error) = self.first.values().next() {
            tracing::warn!(count = self.count, %error, "the peer rejected records; its copies stay unchanged");
        }
    }
}

#[async_trait]
impl ModelStore for CrudModelStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities { durable: true, ..Capabilities::LEAST }
    }

    async fn health(&self) -> Result<()> {
        self.courier.remote.health().await
    }

    async fn close(&self) -> Result<()> {
        let _ = tokio::time::timeout(CLOSE_WAIT, self.courier.idle()).await;
        let work = &mut *self.work.lock().await;
        let synced = work.journal.sync().map_err(file_fault("close", &self.path));
        work.lock = None;
        synced
    }

    async fn define(
        &self,
        after: Position,
        _old: Option<&ModelShape>,
        new: &ModelShape,
        carry: &CarryOver,
        position: Position,
    ) -> Result<()> {
        let work = &mut *self.work.lock().await;
        let rows = {
            let instances = self.instances();
            if !moves_checkpoint("define", instances.checkpoint(), after, position)? {
                return Ok(());
            }
            instances.rows(&new.model)
        };
        let targets = match &rows {
            Some(rows) => carried(rows, new, carry),
            None => {
                self.sweep(work, &new.model).await?;
                Targets::new()
            }
        };
        // Prepared rows are only swapped in, and the old rows are freed later, so that readers wait for neither. A
        // replay has none.
        let held = rows.filter(|_| !work.is_replay);
        let is_long = held.is_some() && !carry.is_empty();
        let ticket = if is_long { prepare_instances(&self.instances, new, carry).await } else { 0 };
        let entry = JournalEntry::Define { new: new.clone(), carry: carry.clone(), position };
        let changed = self.change(work, "define", targets, Rejected::Fails, entry, |instances| {
            instances.define(new, carry, position);
        });
        let changed = changed.await;
        if changed.is_err() {
            self.instances().discard(&new.model, ticket);
        }
        changed
    }

    async fn prepare(&self, new: &ModelShape, carry: &CarryOver) -> Result<u64> {
        Ok(prepare_instances(&self.instances, new, carry).await)
    }

    async fn discard(&self, model: &str, ticket: u64) -> Result<()> {
        self.instances().discard(model, ticket);
        Ok(())
    }

    async fn begin_replay(&self) -> Result<()> {
        self.work.lock().await.is_replay = true;
        Ok(())
    }

    async fn end_replay(&self) -> Result<Vec<(String, DriverError)>> {
        let work = &mut *self.work.lock().await;
        work.is_replay = false;
        work.owed.extend(std::mem::take(&mut work.rejected).into_iter().map(|key| (key, true)));
        if work.owed.is_empty() {
            return Ok(Vec::new());
        }
        let mut complaints = self.pay(work, "end_replay", |_| true).await?;
        if work.rejected.is_empty() {
            work.journal.append(&[JournalEntry::Clean], false).map_err(file_fault("end_replay", &self.path))?;
        }
        let now = Snapshot::of(&self.instances, work.rejected.iter());
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        // A record that the peer does not delete makes no instance wrong.
        for (model, _) in work.rejected.iter().filter(|key| now.row(key).is_some()) {
            *counts.entry(model).or_default() += 1;
        }
        let failed = |(model, count): (&str, usize)| {
            let error = DriverError::new(ErrorKind::Invalid, "end_replay", "the peer rejects records of this model");
            let error = error.with("count", count);
            let error = match complaints.first.remove(model) {
                Some(reason) => error.because(reason),
                None => error,
            };
            (model.to_owned(), error)
        };
        Ok(counts.into_iter().map(failed).collect())
    }

    async fn drop_model(&self, after: Position, model: &str, position: Position) -> Result<()> {
        let work = &mut *self.work.lock().await;
        // Kept until the end, so that nothing is freed while readers wait.
        let rows = {
            let instances = self.instances();
            if !moves_checkpoint("drop_model", instances.checkpoint(), after, position)? {
                return Ok(());
            }
            instances.rows(model).unwrap_or_default()
        };
        let targets = keys(model, &rows).map(|key| (key, None)).collect();
        let entry = JournalEntry::DropModel { model: model.to_owned(), position };
        self.change(work, "drop_model", targets, Rejected::IsPutAside, entry, |instances| {
            instances.drop_model(model, position);
        })
        .await
    }

    async fn apply(&self, after: Position, events: &[Event], to: Position) -> Result<()> {
        let work = &mut *self.work.lock().await;
        let Some((changes, mut targets)) = applied(&self.instances, after, events, to)? else { return Ok(()) };
        // Created and deleted in the same call: the peer does not need it.
        targets.retain(|key, row| {
            row.is_some()
                || self.instances().row(&key.0, &key.1).is_some()
                || work.owed.contains_key(key)
                || work.rejected.contains(key)
        });
        let entry = JournalEntry::Apply { events: changes.events().cloned().collect(), to };
        let make = |instances: &mut Instances| instances.apply(changes);
        self.change(work, "apply", targets, Rejected::Fails, entry, make).await
    }

    async fn log(&self) -> Result<Option<String>> {
        Ok(self.instances().log().map(str::to_owned))
    }

    async fn checkpoint(&self) -> Result<Position> {
        Ok(self.instances().checkpoint())
    }

    async fn definitions(&self) -> Result<Vec<ModelShape>> {
        Ok(self.instances().definitions().cloned().collect())
    }

    async fn get(&self, model: &str, id: &str) -> Result<Option<Instance>> {
        Ok(self.instances().row(model, id).map(|row| row.instance().clone()))
    }

    async fn query(&self, model: &str, query: &InstanceQuery, budget: &Budget) -> Result<InstancePage> {
        let rows = self.instances().rows(model).unwrap_or_default();
        query_rows(&rows, model, query, budget).await
    }

    async fn count(&self, model: &str, filter: &Filter, budget: &Budget) -> Result<u64> {
        let rows = self.instances().rows(model).unwrap_or_default();
        count_rows(&rows, filter, budget).await
    }

    async fn reset(&self, log: &str) -> Result<()> {
        let work = &mut *self.work.lock().await;
        work.is_replay = false;
        // Kept until the end, so that nothing is freed while readers wait.
        let now = Snapshot::of_all(&self.instances);
        let owed = work.owed.keys().chain(&work.rejected).cloned();
        let targets = now.keys().chain(owed).map(|key| (key, None)).collect();
        let aside = self.bring(work, "reset", &targets, Rejected::IsPutAside).await?;
        let begin = JournalEntry::Begin { log: Some(log.to_owned()), checkpoint: 0 };
        let touch = (!aside.is_empty()).then(|| JournalEntry::Touch(aside.iter().cloned().collect()));
        let entries = std::iter::once(begin).chain(touch);
        work.journal.replace(entries).map_err(file_fault("reset", &self.path))?;
        self.instances().reset(log);
        work.owed.clear();
        work.rejected = aside;
        Ok(())
    }
}
