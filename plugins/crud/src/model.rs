//! The store: what the peer should have in memory, the way there in the journal.
//!
//! A call first writes to the journal which records it is about to touch, then brings those to the peer, then writes itself
//! to the journal, and only then counts. If it fails on the way, or the process ends, the touched records are *owed*: they
//! may differ from what is in memory, and are sent before anything else. In a replay the calls count at once and all
//! that they touch is owed until the end, so a record is sent once however many events it has.

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
use crate::journal::{Entry, Journal, Key};
use crate::record::Fields;
use crate::remote::Remote;
use crate::state::{Owed, Snapshot, Targets, applied, carried, keys, locked, owe, take_up};

/// How long `close` waits for requests of a call that was dropped.
const CLOSE_WAIT: Duration = Duration::from_secs(5);

/// Records of an earlier state that are deleted for a new model: what a peer's lists show has an end.
const SWEPT_MAX: usize = 10_000_000;

/// See the crate's documentation.
pub struct CrudModelStore {
    courier: Courier,
    instances: Arc<Mutex<Instances>>,
    work: tokio::sync::Mutex<Work>,
    path: PathBuf,
}

/// What the calls that write need, one at a time.
struct Work {
    journal: Journal,
    owed: Owed,
    /// Owed, but the peer rejected them: sent again with the next change of them, and at the end of a replay.
    rejected: BTreeSet<Key>,
    is_replay: bool,
    /// Of the folder, until the store is closed: whoever holds the store longer keeps nobody from opening it again.
    lock: Option<FileLock>,
}

/// What becomes of a record that the peer rejects.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rejected {
    /// The call fails.
    Fails,
    /// It is put aside: the call only deletes, and must not wait for a peer that keeps a record.
    IsPutAside,
}

impl CrudModelStore {
    /// Reads the local state; the peer is not asked.
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

    /// Carries out a call: `targets` is what it changes at the peer, `entry` what the journal says of it, `make` what it
    /// does in memory.
    async fn change(
        &self,
        work: &mut Work,
        operation: &'static str,
        targets: Targets,
        rejected: Rejected,
        entry: Entry,
        make: impl FnOnce(&mut Instances),
    ) -> Result<()> {
        let failed = file_fault(operation, &self.path);
        let aside = match work.is_replay {
            true => BTreeSet::new(),
            false => self.bring(work, operation, &targets, rejected).await?,
        };
        // What is owed before and after, but for what is there now.
        let is_clean = !work.is_replay
            && aside.is_empty()
            && work.owed.keys().chain(&work.rejected).all(|key| targets.contains_key(key));
        let mut entries = vec![entry];
        entries.extend(is_clean.then_some(Entry::Clean));
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
            // The call is made; the next one tries again.
            tracing::warn!(%error, path = %self.path.display(), "the journal cannot be shortened");
        }
        Ok(())
    }

    /// Brings what a call changes to the peer, and returns what is put aside of it. If it fails, all of it is owed.
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
            let touch = Entry::Touch(touched.clone());
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

    /// Sends what is owed of the records that `wanted` names. What the peer rejects is put aside; returns what it said of
    /// that.
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
                // From now on it may.
                is_known: std::mem::replace(is_known, true),
            })
            .collect()
        };
        if deliveries.is_empty() {
            return Ok(Complaints::default());
        }
        // In a replay, the journal says who is owed without a sync.
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

    /// Removes what a lost state, or another log, left at the peer of a model that is new. A list may show a part at a time.
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
                let message =
                    format!("the peer's lists of the new model show more than {SWEPT_MAX} records of an earlier state");
                return Err(DriverError::new(ErrorKind::Unavailable, "define", message).with("model", model));
            }
            tracing::warn!(model, count = left.len(), "records that an earlier state left at the peer are deleted");
            let aside = self.bring(work, "define", &left, Rejected::IsPutAside).await?;
            work.owed.retain(|key, _| !left.contains_key(key));
            work.rejected.extend(aside);
        }
    }

    /// Writes the journal anew, with a copy of what is in memory.
    fn shorten(&self, work: &mut Work) -> std::io::Result<()> {
        let (begin, shapes) = {
            let instances = self.instances();
            let begin = Entry::Begin { log: instances.log().map(str::to_owned), checkpoint: instances.checkpoint() };
            (begin, instances.definitions().cloned().collect::<Vec<_>>())
        };
        let now = Snapshot::of_all(&self.instances);
        let models = shapes.iter().flat_map(|shape| {
            let rows = now.rows(&shape.model).map(|row| Entry::Row(row.instance().clone()));
            std::iter::once(Entry::Model(shape.clone())).chain(rows)
        });
        let owed: Vec<Key> = work.owed.keys().chain(&work.rejected).cloned().collect();
        let touch = (!owed.is_empty()).then_some(Entry::Touch(owed));
        work.journal.replace(std::iter::once(begin).chain(models).chain(touch))
    }
}

/// What the peer said of records that it rejects, and that stay as they are there.
#[derive(Default)]
struct Complaints {
    count: usize,
    /// Of the first record of each model.
    first: BTreeMap<String, DriverError>,
}

impl Complaints {
    fn add(&mut self, (model, _): &Key, error: DriverError) {
        self.count += 1;
        self.first.entry(model.clone()).or_insert(error);
    }

    fn log(&self) {
        if let Some(error) = self.first.values().next() {
            tracing::warn!(count = self.count, %error, "the peer rejects records, which stay as they are there");
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
        // What is prepared is only put in place, and what it replaces is taken apart later: readers wait for neither. A
        // replay has none.
        let held = rows.filter(|_| !work.is_replay);
        let is_long = held.is_some() && !carry.is_empty();
        let ticket = if is_long { prepare_instances(&self.instances, new, carry).await } else { 0 };
        let entry = Entry::Define { new: new.clone(), carry: carry.clone(), position };
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
            work.journal.append(&[Entry::Clean], false).map_err(file_fault("end_replay", &self.path))?;
        }
        let now = Snapshot::of(&self.instances, work.rejected.iter());
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        // A record that the peer only does not give away makes no instance wrong.
        for (model, _) in work.rejected.iter().filter(|key| now.row(key).is_some()) {
            *counts.entry(model).or_default() += 1;
        }
        let failed = |(model, count): (&str, usize)| {
            let error = DriverError::new(ErrorKind::Invalid, "end_replay", "the peer rejects records of it");
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
        // Held to the end, so that nothing is taken apart while readers wait.
        let rows = {
            let instances = self.instances();
            if !moves_checkpoint("drop_model", instances.checkpoint(), after, position)? {
                return Ok(());
            }
            instances.rows(model).unwrap_or_default()
        };
        let targets = keys(model, &rows).map(|key| (key, None)).collect();
        let entry = Entry::DropModel { model: model.to_owned(), position };
        self.change(work, "drop_model", targets, Rejected::IsPutAside, entry, |instances| {
            instances.drop_model(model, position);
        })
        .await
    }

    async fn apply(&self, after: Position, events: &[Event], to: Position) -> Result<()> {
        let work = &mut *self.work.lock().await;
        let Some((changes, mut targets)) = applied(&self.instances, after, events, to)? else { return Ok(()) };
        // Created and deleted at once: the peer need not know.
        targets.retain(|key, row| {
            row.is_some()
                || self.instances().row(&key.0, &key.1).is_some()
                || work.owed.contains_key(key)
                || work.rejected.contains(key)
        });
        let entry = Entry::Apply { events: changes.events().cloned().collect(), to };
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
        // Held to the end, so that nothing is taken apart while readers wait.
        let now = Snapshot::of_all(&self.instances);
        let owed = work.owed.keys().chain(&work.rejected).cloned();
        let targets = now.keys().chain(owed).map(|key| (key, None)).collect();
        let aside = self.bring(work, "reset", &targets, Rejected::IsPutAside).await?;
        let begin = Entry::Begin { log: Some(log.to_owned()), checkpoint: 0 };
        let touch = (!aside.is_empty()).then(|| Entry::Touch(aside.iter().cloned().collect()));
        let entries = std::iter::once(begin).chain(touch);
        work.journal.replace(entries).map_err(file_fault("reset", &self.path))?;
        self.instances().reset(log);
        work.owed.clear();
        work.rejected = aside;
        Ok(())
    }
}
