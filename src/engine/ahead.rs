//! The pre hooks' view of instances in a batch: those that earlier operations changed, and for the rest the stored
//! ones.
//!
//! A list is the store's page, without the stored versions of these instances and with the changed ones merged in at
//! their places. The store's cursor is opaque, so the cursor of such a page contains both: where the store's rows
//! continue, and the last row that was returned.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use async_trait::async_trait;
use serde_json::Value;
use snaphook_driver::compare::{Found, InstanceView, compare};
use snaphook_driver::{Budget, Cursor, Instance, InstancePage, InstanceQuery, PAGE_BYTES_MAX, SortKey};

use super::core::Core;
use super::error::{Error, ErrorKind, Result};
use super::reads::{self, LIMITS, Readable};
use crate::catalog::query;
use crate::catalog::rules::Right;
use crate::hooks::access::{self, AccessCode, AccessError};
use crate::memory::{Lease, Share, tree_bytes};

/// How often a page is read again because instances came or went while it was read.
const TRIES: usize = 3;

/// The effects of the earlier operations of one batch.
pub(super) struct Ahead {
    core: Arc<Core>,
    /// By model and id; `None`: deleted.
    changed: Mutex<BTreeMap<String, Changes>>,
    /// For trees of their data.
    memory: Lease<Arc<Share>>,
}

type Changes = BTreeMap<String, Option<Arc<Changed>>>;

/// An instance that is not written yet.
struct Changed {
    instance: Instance,
    tree: OnceLock<Value>,
}

/// One row of a page, with the values that it is sorted by.
struct Row {
    keys: Vec<Value>,
    instance: Instance,
}

/// Where a page begins: after this row, which the store finds after its own cursor.
struct Start {
    after: Option<Cursor>,
    store: StoreStart,
}

#[derive(Clone, Debug, PartialEq)]
enum StoreStart {
    At(Option<String>),
    /// The store has no more rows.
    End,
}

impl fmt::Debug for Ahead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ahead").finish_non_exhaustive()
    }
}

impl Ahead {
    pub(super) fn new(core: &Arc<Core>) -> Arc<Ahead> {
        let memory = Lease::of(Arc::clone(&core.own_memory));
        Arc::new(Ahead { core: Arc::clone(core), changed: Mutex::default(), memory })
    }

    /// The state of an instance: `None` if no operation changed it, `Some(None)` if one deleted it.
    pub(super) fn of(&self, model: &str, id: &str) -> Option<Option<Instance>> {
        let changed = self.lock();
        let changed = changed.get(model)?.get(id)?;
        Some(changed.as_ref().map(|changed| changed.instance.clone()))
    }

    /// The ids of a model's changed instances whose data passes the test.
    pub(super) fn ids_where(&self, model: &str, is_such: impl Fn(&Value) -> bool) -> Result<Vec<String>> {
        let Some(changed) = self.lock().get(model).cloned() else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for changed in changed.values().flatten() {
            if is_such(self.tree(changed)?) {
                found.push(changed.instance.id.clone());
            }
        }
        Ok(found)
    }

    /// `None`: deleted.
    pub(super) fn put(&self, model: &str, id: &str, instance: Option<Instance>) {
        let changed = instance.map(|instance| Arc::new(Changed { instance, tree: OnceLock::new() }));
        self.lock().entry(model.to_owned()).or_default().insert(id.to_owned(), changed);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Changes>> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn page(&self, model: &str, text: &str, right: &Right) -> Result<InstancePage> {
        let input = query::from_json(text).map_err(Error::bad_request)?;
        let budget = Budget::new(LIMITS);
        let Some(changed) = self.lock().get(model).cloned() else {
            return reads::page(&self.core, model, &input, None, &budget, right).await;
        };
        self.core.availability.check_model(model)?;
        let entry = self.core.models.require(model)?;
        let readable = Readable::of(&entry.model, &input, None, right)?;
        let query = &readable.query;
        let mut start = Start::read(model, query)?;
        let own = self.own_rows(&changed, query, &budget)?;
        let mut tries = 0;
        loop {
            let own = own.iter().filter(|row| start.is_before(row, &query.sort));
            let own: Vec<Row> = own.map(Row::copy).collect();
            let (stored, more) = self.stored_rows(model, query, &start.store, changed.len(), &budget).await?;
            let mut rows = merged(own, &stored, &changed, &start, more.is_some(), &query.sort);
            let taken = fitting(&rows, query.limit as usize);
            if taken == rows.len() && more.is_none() {
                return Ok(InstancePage { items: rows.into_iter().map(|row| row.instance).collect(), next: None });
            }
            if taken == rows.len() {
                // All rows of the store are used up; merged rows stay before the store's last one.
                let last = stored.last().map(Row::place);
                let next = Start { after: last, store: StoreStart::At(more) };
                if rows.is_empty() {
                    start = next;
                    continue;
                }
                return page_of(rows, &next, model, query).map(|page| readable.page(page));
            }
            rows.truncate(taken);
            let last = rows.last().map(Row::place);
            let used = stored.iter().filter(|row| last.as_ref().is_some_and(|last| !is_after(row, last, &query.sort)));
            match self.start_after(model, query, &start.store, &stored, used.count(), more, &budget).await? {
                Some(store) => {
                    return page_of(rows, &Start { after: last, store }, model, query).map(|page| readable.page(page));
                }
                None if tries + 1 == TRIES => {
                    let detail =
                        format!("instances of `{model}` are created and deleted faster than a page of them is read");
                    return Err(Error::new(ErrorKind::Conflict, detail));
                }
                None => tries += 1,
            }
        }
    }

    fn tree<'c>(&self, changed: &'c Changed) -> Result<&'c Value> {
        if let Some(tree) = changed.tree.get() {
            return Ok(tree);
        }
        let data = &changed.instance.data;
        self.memory.grow(tree_bytes(data.as_bytes()))?;
        // It was checked before it came here.
        Ok(changed.tree.get_or_init(|| data.to_value().unwrap_or_default()))
    }

    /// The changed instances that a query finds.
    fn own_rows(&self, changed: &Changes, query: &InstanceQuery, budget: &Budget) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        for changed in changed.values().flatten() {
            let tree = self.tree(changed)?;
            let view = InstanceView::new(&changed.instance, tree);
            let matches = query.filter.matches_within(&view, budget);
            if matches.map_err(|exceeded| Error::from(exceeded.into_error("query")))? {
                rows.push(Row { keys: keys(&view, &query.sort), instance: changed.instance.clone() });
            }
        }
        Ok(rows)
    }

    /// The store's rows from there on, `more` of them than asked for, and its cursor if it has still more.
    async fn stored_rows(
        &self,
        model: &str,
        query: &InstanceQuery,
        start: &StoreStart,
        more: usize,
        budget: &Budget,
    ) -> Result<(Vec<Row>, Option<String>)> {
        let StoreStart::At(cursor) = start else { return Ok((Vec::new(), None)) };
        let limit = query.limit.saturating_add(u32::try_from(more).unwrap_or(u32::MAX));
        let query = InstanceQuery { limit, cursor: cursor.clone(), ..query.clone() };
        let page = self.core.stores.model.query(model, &query, budget).await?;
        let mut rows = Vec::with_capacity(page.items.len());
        let mut memory = self.core.own_memory.lease();
        for instance in page.items {
            let keys = if query.sort.is_empty() {
                Vec::new()
            } else {
                memory.resize(tree_bytes(instance.data.as_bytes()))?;
                let tree = instance.data.to_value().unwrap_or_default();
                keys(&InstanceView::new(&instance, &tree), &query.sort)
            };
            rows.push(Row { keys, instance });
        }
        let next = page.next.filter(|_| !rows.is_empty());
        Ok((rows, next))
    }

    /// Where the store continues after `used` of these rows; `None` if the store no longer has them there.
    #[expect(clippy::too_many_arguments, reason = "it is a step of one caller")]
    async fn start_after(
        &self,
        model: &str,
        query: &InstanceQuery,
        start: &StoreStart,
        stored: &[Row],
        used: usize,
        more: Option<String>,
        budget: &Budget,
    ) -> Result<Option<StoreStart>> {
        let StoreStart::At(cursor) = start else { return Ok(Some(StoreStart::End)) };
        let Some(last) = used.checked_sub(1).map(|last| &stored[last]) else { return Ok(Some(start.clone())) };
        if used == stored.len() {
            return Ok(Some(more.map_or(StoreStart::End, |next| StoreStart::At(Some(next)))));
        }
        let limit = u32::try_from(used).unwrap_or(u32::MAX);
        let query = InstanceQuery { limit, cursor: cursor.clone(), ..query.clone() };
        let page = self.core.stores.model.query(model, &query, budget).await?;
        let ends_there = page.items.len() == used && page.items.last().is_some_and(|item| item.id == last.instance.id);
        Ok(page.next.filter(|_| ends_there).map(|next| StoreStart::At(Some(next))))
    }
}

#[async_trait]
impl access::Ahead for Ahead {
    async fn get(&self, model: &str, id: &str, right: &Right) -> Result<Option<Instance>, AccessError> {
        match self.of(model, id) {
            Some(Some(changed)) => Ok(reads::may_read(&self.core, &changed, right)?.then_some(changed)),
            Some(None) => Ok(None),
            None => Ok(reads::find(&self.core, model, id, right).await?),
        }
    }

    async fn query(&self, model: &str, query: &str, right: &Right) -> Result<InstancePage, AccessError> {
        self.page(model, query, right).await.map_err(|error| match error.kind {
            ErrorKind::BadRequest => AccessError::new(AccessCode::Invalid, error.detail),
            _ => error.into(),
        })
    }
}

impl Row {
    fn copy(&self) -> Row {
        Row { keys: self.keys.clone(), instance: self.instance.clone() }
    }

    fn place(&self) -> Cursor {
        Cursor { keys: self.keys.clone(), id: self.instance.id.clone() }
    }
}

impl Start {
    /// Of a page's cursor: `<row>.<the store's cursor>`, or `<row>!` if the store has no more.
    fn read(model: &str, query: &InstanceQuery) -> Result<Start> {
        let Some(cursor) = &query.cursor else { return Ok(Start { after: None, store: StoreStart::At(None) }) };
        let (row, store) = match (cursor.strip_suffix('!'), cursor.split_once('.')) {
            (Some(row), _) => (row, StoreStart::End),
            (None, Some((row, store))) => (row, StoreStart::At((!store.is_empty()).then(|| store.to_owned()))),
            (None, None) => {
                return Err(Error::bad_request("the cursor belongs to another list, start again without one"));
            }
        };
        let after = Cursor::decode(model, &InstanceQuery { cursor: Some(row.to_owned()), ..query.clone() })?;
        Ok(Start { after, store })
    }

    fn write(&self, model: &str, query: &InstanceQuery) -> Result<String> {
        let row = self.after.as_ref().map(|row| row.encode(model, query)).transpose()?.unwrap_or_default();
        Ok(match &self.store {
            StoreStart::End => format!("{row}!"),
            StoreStart::At(store) => format!("{row}.{}", store.as_deref().unwrap_or_default()),
        })
    }

    fn is_before(&self, row: &Row, sort: &[SortKey]) -> bool {
        self.after.as_ref().is_none_or(|after| is_after(row, after, sort))
    }
}

/// The rows of the page, in order. If the store has more, nothing is merged in after its last known row.
fn merged(
    own: Vec<Row>,
    stored: &[Row],
    changed: &Changes,
    start: &Start,
    has_more: bool,
    sort: &[SortKey],
) -> Vec<Row> {
    let end = stored.last().filter(|_| has_more).map(Row::place);
    let own = own.into_iter().filter(|row| end.as_ref().is_none_or(|end| !is_after(row, end, sort)));
    let is_shown = |row: &&Row| !changed.contains_key(&row.instance.id) && start.is_before(row, sort);
    let mut rows: Vec<Row> = own.chain(stored.iter().filter(is_shown).map(Row::copy)).collect();
    rows.sort_by(|left, right| order(left, &right.keys, &right.instance.id, sort));
    rows
}

/// How many of the rows fit on a page.
fn fitting(rows: &[Row], limit: usize) -> usize {
    let mut bytes = 0;
    let fits = rows.iter().take(limit).take_while(|row| {
        let first = bytes == 0;
        bytes += row.instance.data.len();
        first || bytes <= PAGE_BYTES_MAX
    });
    fits.count()
}

fn page_of(rows: Vec<Row>, next: &Start, model: &str, query: &InstanceQuery) -> Result<InstancePage> {
    let next = Some(next.write(model, query)?);
    Ok(InstancePage { items: rows.into_iter().map(|row| row.instance).collect(), next })
}

fn keys(view: &InstanceView<'_>, sort: &[SortKey]) -> Vec<Value> {
    sort.iter().map(|key| view.find(&key.path).map_or(Value::Null, Found::to_value)).collect()
}

fn is_after(row: &Row, place: &Cursor, sort: &[SortKey]) -> bool {
    order(row, &place.keys, &place.id, sort).is_gt()
}

fn order(row: &Row, keys: &[Value], id: &str, sort: &[SortKey]) -> Ordering {
    let pairs = sort.iter().zip(row.keys.iter().zip(keys));
    let mut by_keys =
        pairs.map(|(key, (left, right))| compare(Some(Found::from(left)), Some(Found::from(right)), key.descending));
    by_keys.find(|ordering| ordering.is_ne()).unwrap_or_else(|| row.instance.id.as_str().cmp(id))
}
