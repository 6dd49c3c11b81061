//! The store: what the peer should have in memory, the way there in the journal.
//!
//! A call first writes to the journal which records it is about to touch, then brings those to the peer, then writes itself
//! to the journal, and only then counts. If it fails on the way, or the process ends, the touched records are *owed*: they
//! may differ from what is in memory, and are sent before anything else. In a replay the calls count at once and all
//! that they touch is owed until the end, so a record is sent once however many events it has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use snaphook_driver::files::{FileLock, file_fault, unusable_file};
use snaphook_driver::{
    Budget, Capabilities, CarryOver, Condition, DriverError, ErrorKind, Event, Instance, InstancePage, InstanceQuery,
    Instances, ModelShape, ModelStore, OpenContext, Position, Result, Row, count_rows, moves_checkpoint,
    prepare_instances, query_rows,
};
use snaphook_driver_peer::Peer;

use crate::config::CrudConfig;
use crate::journal::{Entry, Journal, Key};
use crate::remote::Remote;

/// Records that are sent at once. Of one record, only one request is under way.
const TOGETHER: usize = 16;

/// See the crate's documentation.
pub struct CrudModelStore {
    remote: Remote,
    instances: Mutex<Instances>,
    work: tokio::sync::Mutex<Work>,
    path: std::path::PathBuf,
    _lock: FileLock,
}

/// What the calls that write need, one at a time.
struct Work {
    journal: Journal,
    owed: Owed,
    /// Owed, but the peer rejected them: sent again with the next change of them, and at the end of a replay.
    rejected: BTreeSet<Key>,
    is_replay: bool,
}

/// Records that may differ from what is in memory, and whether the peer may have one at all.
type Owed = BTreeMap<Key, bool>;

/// What the peer should have; `None`: no record.
type Targets = BTreeMap<Key, Option<Arc<Row>>>;

/// One record to send.
struct Delivery {
    key: Key,
    row: Option<Arc<Row>>,
    /// The peer may have a record.
    is_known: bool,
}

impl CrudModelStore {
    /// Reads the local state; the peer is not asked.
    pub(crate) fn open(context: &OpenContext) -> Result<CrudModelStore> {
        let config = CrudConfig::new(context)?;
        let (calls, fields) = (config.calls()?, config.fields()?);
        let peer = Peer::new(&config.url, config.token.as_deref(), config.timeout())?;
        if config.token.is_some() && peer.is_open() {
            tracing::warn!("the token of the model storage crosses the network in the clear, use `https`");
        }
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
        let work = Work { journal, owed, rejected: BTreeSet::new(), is_replay: false };
        let (remote, instances) = (Remote { peer, calls, fields }, Mutex::new(instances));
        Ok(CrudModelStore { remote, instances, work: tokio::sync::Mutex::new(work), path, _lock: lock })
    }

    fn instances(&self) -> MutexGuard<'_, Instances> {
        self.instances.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries out a call: `targets` is what it changes at the peer, `entry` what the journal says of it, `make` what it
    /// does in memory.
    async fn change(
        &self,
        work: &mut Work,
        operation: &'static str,
        targets: Targets,
        entry: Entry,
        make: impl FnOnce(&mut Instances),
    ) -> Result<()> {
        let failed = file_fault(operation, &self.path);
        if !work.is_replay {
            self.bring(work, operation, &targets).await?;
        }
        // What is owed before and after, but for what is there now.
        let is_clean = !work.is_replay && work.owed.keys().chain(&work.rejected).all(|key| targets.contains_key(key));
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
        if work.journal.is_long()
            && let Err(error) = self.shorten(work)
        {
            // The call is made; the next one tries again.
            tracing::warn!(%error, path = %self.path.display(), "the journal cannot be shortened");
        }
        Ok(())
    }

    /// Brings what a call changes to the peer. Whatever of it fails, all of it is owed then.
    async fn bring(&self, work: &mut Work, operation: &'static str, targets: &Targets) -> Result<()> {
        self.pay(work, operation, |key| !targets.contains_key(key)).await?;
        let deliveries: Vec<Delivery> = targets
            .iter()
            .map(|(key, row)| {
                let is_owed = work.owed.get(key) == Some(&true) || work.rejected.contains(key);
                let is_known = is_owed || self.instances().row(&key.0, &key.1).is_some();
                Delivery { key: key.clone(), row: row.clone(), is_known }
            })
            .collect();
        let touched: Vec<Key> = targets.keys().filter(|key| work.owed.get(*key) != Some(&true)).cloned().collect();
        if !touched.is_empty() {
            let touch = Entry::Touch(touched.clone());
            work.journal.append(&[touch], true).map_err(file_fault(operation, &self.path))?;
            work.owed.extend(touched.into_iter().map(|key| (key, true)));
        }
        self.deliver(operation, deliveries, |_, result| result).await
    }

    /// Sends what is owed of the records that `wanted` names. What the peer rejects is put aside.
    async fn pay(&self, work: &mut Work, operation: &'static str, wanted: impl Fn(&Key) -> bool + Send) -> Result<()> {
        let deliveries: Vec<Delivery> = {
            let instances = self.instances();
            let owed = work.owed.iter_mut().filter(|(key, _)| wanted(key));
            owed.map(|(key, is_known)| Delivery {
                key: key.clone(),
                row: instances.row(&key.0, &key.1).cloned(),
                // From now on it may.
                is_known: std::mem::replace(is_known, true),
            })
            .collect()
        };
        if deliveries.is_empty() {
            return Ok(());
        }
        // In a replay, the journal says who is owed without a sync.
        work.journal.sync().map_err(file_fault(operation, &self.path))?;
        let Work { owed, rejected, .. } = work;
        self.deliver(operation, deliveries, |key, result| {
            owed.remove(key);
            if let Err(error) = result {
                tracing::warn!(%error, "the peer rejects a record, which stays as it is there");
                rejected.insert(key.clone());
            }
            Ok(())
        })
        .await
    }

    /// Sends records, some at once. Stops at a failure of the peer; `done` decides about each result that is none.
    async fn deliver(
        &self,
        operation: &'static str,
        deliveries: Vec<Delivery>,
        mut done: impl FnMut(&Key, Result<()>) -> Result<()> + Send,
    ) -> Result<()> {
        let mut deliveries = deliveries.into_iter();
        let mut under_way: FuturesUnordered<_> =
            deliveries.by_ref().take(TOGETHER).map(|delivery| self.send(operation, delivery)).collect();
        while let Some((key, result)) = under_way.next().await {
            match result {
                Err(error) if error.kind() != ErrorKind::Invalid => return Err(error),
                result => done(&key, result)?,
            }
            under_way.extend(deliveries.next().map(|delivery| self.send(operation, delivery)));
        }
        Ok(())
    }

    async fn send(&self, operation: &'static str, delivery: Delivery) -> (Key, Result<()>) {
        let Delivery { key, row, is_known } = delivery;
        let sent = match &row {
            Some(row) => self.remote.put(operation, row, is_known).await,
            None => self.remote.delete(operation, &key.0, &key.1).await,
        };
        (key, sent)
    }

    /// Removes what a lost state, or another log, left at the peer of a model that is new. A list may show a part at a time.
    async fn sweep(&self, work: &mut Work, model: &str) -> Result<()> {
        let mut seen = BTreeSet::new();
        loop {
            let found = self.remote.ours("define", model).await?;
            let left: Targets = found
                .into_iter()
                .filter(|id| seen.insert(id.clone()))
                .map(|id| ((model.to_owned(), id), None))
                .collect();
            if left.is_empty() {
                return Ok(());
            }
            tracing::warn!(model, count = left.len(), "records that an earlier state left at the peer are deleted");
            self.bring(work, "define", &left).await?;
            work.owed.retain(|key, _| !left.contains_key(key));
        }
    }

    /// Writes the journal anew, with a copy of what is in memory.
    fn shorten(&self, work: &mut Work) -> std::io::Result<()> {
        let instances = self.instances();
        let begin = Entry::Begin { log: instances.log().map(str::to_owned), checkpoint: instances.checkpoint() };
        let models = instances.definitions().flat_map(|shape| {
            let rows = instances.rows(&shape.model).unwrap_or_default();
            let rows: Vec<Entry> = rows.values().map(|row| Entry::Row(row.instance().clone())).collect();
            std::iter::once(Entry::Model(shape.clone())).chain(rows)
        });
        let owed: Vec<Key> = work.owed.keys().chain(&work.rejected).cloned().collect();
        let touch = (!owed.is_empty()).then_some(Entry::Touch(owed));
        work.journal.replace(std::iter::once(begin).chain(models).chain(touch))
    }
}

/// What a model's instances are when they are carried over, as far as they change.
fn carried(instances: &Instances, new: &ModelShape, carry: &CarryOver) -> Targets {
    let Some(rows) = instances.rows(&new.model).filter(|_| !carry.is_empty()) else { return Targets::new() };
    let change = |(id, row): (&Arc<str>, &Arc<Row>)| {
        let mut after = Row::clone(row);
        after.carry(carry, new.version);
        (after.instance() != row.instance()).then(|| ((new.model.clone(), id.to_string()), Some(Arc::new(after))))
    };
    rows.iter().filter_map(change).collect()
}

/// What events make of the instances that they concern. They are tried on a copy of those alone.
fn applied(instances: &Instances, events: &[Event], to: Position) -> Result<Targets> {
    let keys: BTreeSet<Key> = instances
        .changes(events, to)?
        .events()
        .filter_map(|event| Some((event.model.clone(), event.instance.clone()?)))
        .collect();
    let mut copy = Instances::new(None, instances.checkpoint());
    let models: BTreeSet<&str> = keys.iter().map(|(model, _)| model.as_str()).collect();
    instances.definitions().filter(|shape| models.contains(shape.model.as_str())).for_each(|shape| {
        copy.put_model(shape.clone());
    });
    keys.iter().filter_map(|(model, id)| instances.row(model, id)).for_each(|row| copy.put_row(Row::clone(row)));
    let changes = copy.changes(events, to)?;
    copy.apply(changes);
    let target = |key: Key| {
        let row = copy.row(&key.0, &key.1).cloned();
        (key, row)
    };
    Ok(keys.into_iter().map(target).collect())
}

/// The records of one model, or of all.
fn keys(instances: &Instances, model: Option<&str>) -> BTreeSet<Key> {
    let models =
        instances.definitions().map(|shape| &shape.model).filter(|found| model.is_none_or(|model| model == *found));
    models
        .flat_map(|model| {
            let rows = instances.rows(model).unwrap_or_default();
            rows.keys().map(|id| (model.clone(), id.to_string())).collect::<Vec<_>>()
        })
        .collect()
}

/// A call that is not made in memory yet owes a record. What was owed before says what the peer has.
fn owe(owed: &mut Owed, instances: &Instances, key: Key, is_known: bool) {
    let is_known = is_known || instances.row(&key.0, &key.1).is_some();
    owed.entry(key).or_insert(is_known);
}

/// Does again what an entry of the journal says.
fn take_up(entry: Entry, instances: &mut Instances, owed: &mut Owed) -> Result<()> {
    let damaged = |message: &str| DriverError::new(ErrorKind::Corrupt, "open", message.to_owned());
    match entry {
        Entry::Begin { log, checkpoint } => *instances = Instances::new(log, checkpoint),
        Entry::Model(shape) => instances.put_model(shape),
        Entry::Row(instance) => {
            let row = Row::new(instance).map_err(|error| damaged("an instance is no JSON").because(error))?;
            instances.put_row(row);
        }
        Entry::Define { new, carry, position } => {
            carried(instances, &new, &carry).into_keys().for_each(|key| owe(owed, instances, key, false));
            instances.define(&new, &carry, position);
        }
        Entry::DropModel { model, position } => {
            keys(instances, Some(&model)).into_iter().for_each(|key| owe(owed, instances, key, false));
            instances.drop_model(&model, position);
        }
        Entry::Apply { events, to } => {
            let changes = instances.changes(&events, to)?;
            for event in changes.events() {
                if let Some(id) = &event.instance {
                    owe(owed, instances, (event.model.clone(), id.clone()), false);
                }
            }
            instances.apply(changes);
        }
        Entry::Touch(keys) => owed.extend(keys.into_iter().map(|key| (key, true))),
        Entry::Clean => owed.clear(),
    }
    Ok(())
}

#[async_trait]
impl ModelStore for CrudModelStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities { durable: true, ..Capabilities::LEAST }
    }

    async fn health(&self) -> Result<()> {
        self.remote.health().await
    }

    async fn close(&self) -> Result<()> {
        self.work.lock().await.journal.sync().map_err(file_fault("close", &self.path))
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
        let (is_new, targets) = {
            let instances = self.instances();
            if !moves_checkpoint("define", instances.checkpoint(), after, position)? {
                return Ok(());
            }
            (instances.rows(&new.model).is_none(), carried(&instances, new, carry))
        };
        if is_new {
            self.sweep(work, &new.model).await?;
        }
        let entry = Entry::Define { new: new.clone(), carry: carry.clone(), position };
        self.change(work, "define", targets, entry, |instances| {
            instances.define(new, carry, position);
        })
        .await
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
        self.pay(work, "end_replay", |_| true).await?;
        if work.rejected.is_empty() {
            work.journal.append(&[Entry::Clean], false).map_err(file_fault("end_replay", &self.path))?;
        }
        let mut models: BTreeMap<&str, usize> = BTreeMap::new();
        work.rejected.iter().for_each(|(model, _)| *models.entry(model).or_default() += 1);
        let failed = |(model, count): (&str, usize)| {
            let message = format!("the peer rejects {count} of its records");
            (model.to_owned(), DriverError::new(ErrorKind::Invalid, "end_replay", message))
        };
        Ok(models.into_iter().map(failed).collect())
    }

    async fn drop_model(&self, after: Position, model: &str, position: Position) -> Result<()> {
        let work = &mut *self.work.lock().await;
        let targets = {
            let instances = self.instances();
            if !moves_checkpoint("drop_model", instances.checkpoint(), after, position)? {
                return Ok(());
            }
            keys(&instances, Some(model)).into_iter().map(|key| (key, None)).collect()
        };
        let entry = Entry::DropModel { model: model.to_owned(), position };
        self.change(work, "drop_model", targets, entry, |instances| instances.drop_model(model, position)).await
    }

    async fn apply(&self, after: Position, events: &[Event], to: Position) -> Result<()> {
        let work = &mut *self.work.lock().await;
        let (changes, targets) = {
            let instances = self.instances();
            let Some(changes) = instances.check(after, events, to)? else { return Ok(()) };
            let mut targets = applied(&instances, events, to)?;
            // Created and deleted at once: the peer need not know.
            targets.retain(|key, row| {
                row.is_some()
                    || instances.row(&key.0, &key.1).is_some()
                    || work.owed.contains_key(key)
                    || work.rejected.contains(key)
            });
            (changes, targets)
        };
        let entry = Entry::Apply { events: changes.events().cloned().collect(), to };
        self.change(work, "apply", targets, entry, |instances| instances.apply(changes)).await
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

    async fn count(&self, model: &str, filter: &[Condition], budget: &Budget) -> Result<u64> {
        let rows = self.instances().rows(model).unwrap_or_default();
        count_rows(&rows, filter, budget).await
    }

    async fn reset(&self, log: &str) -> Result<()> {
        let work = &mut *self.work.lock().await;
        work.is_replay = false;
        let mut all = keys(&self.instances(), None);
        all.extend(work.owed.keys().chain(&work.rejected).cloned());
        let targets = all.into_iter().map(|key| (key, None)).collect();
        self.bring(work, "reset", &targets).await?;
        let begin = Entry::Begin { log: Some(log.to_owned()), checkpoint: 0 };
        work.journal.replace(std::iter::once(begin)).map_err(file_fault("reset", &self.path))?;
        self.instances().reset(log);
        work.owed.clear();
        work.rejected.clear();
        Ok(())
    }
}
