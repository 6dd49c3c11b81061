//! Queries over the instances of one model in memory: filters, sorts and pages as defined by [`crate::compare`], within
//! their budget.

use std::cmp::Ordering;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use serde_json::{Map, Value};

use crate::budget::Budget;
use crate::carry_over::CarryOver;
use crate::compare::{Found, InstanceView, compare, order};
use crate::cursor::Cursor;
use crate::error::Result;
use crate::filter::Filter;
use crate::json::{Json, JsonError};
use crate::model_store::{Instance, InstancePage, InstanceQuery};
use crate::shared_map::SharedMap;
use crate::{Exceeded, PAGE_BYTES_MAX};

/// The instances of one model, by id. A read uses a copy while events change the live map.
pub type Rows = SharedMap<Arc<Row>>;

/// One instance. Its data is kept as text and as a parsed tree: filters and sorts use the tree, clients get the text.
#[derive(Clone, Debug)]
pub struct Row {
    instance: Instance,
    data: Arc<Value>,
}

impl Row {
    /// Parses the instance's data.
    pub fn new(instance: Instance) -> Result<Row, JsonError> {
        let data = Arc::new(instance.data.to_value()?);
        Ok(Row { instance, data })
    }

    /// An instance with its parsed data, which must match its text.
    pub(crate) fn of(instance: Instance, data: Arc<Value>) -> Row {
        Row { instance, data }
    }

    pub fn instance(&self) -> &Instance {
        &self.instance
    }

    /// The view of the instance for filters and sort orders.
    pub fn view(&self) -> InstanceView<'_> {
        InstanceView::new(&self.instance, &self.data)
    }

    /// Converts the data to a version of the model; no effect if the data stays the same.
    pub fn carry(&mut self, carry: &CarryOver, version: u64) {
        let Value::Object(data) = &*self.data else { return };
        let mut data: Map<String, Value> = data.clone();
        if carry.apply(&mut data) {
            let data = Value::Object(data);
            self.instance.data = Json::from_value(&data);
            self.instance.model_version = version;
            self.data = Arc::new(data);
        }
    }
}

/// A page of rows; see [`crate::ModelStore::query`].
pub async fn query_rows(rows: &Rows, model: &str, query: &InstanceQuery, budget: &Budget) -> Result<InstancePage> {
    let cursor = Cursor::decode(model, query)?;
    let over = |limit: Exceeded| limit.into_error("query");
    let mut rows = matching(rows, &query.filter, budget).await.map_err(over)?;
    // The maximum number of comparisons of the sort.
    let comparisons = rows.len() as u64 * u64::from(rows.len().checked_ilog2().unwrap_or(0) + 1);
    budget.charge(comparisons * query.sort.len() as u64).map_err(over)?;
    // The rows are in order of their ids, and the sort is stable.
    rows.sort_by(|left, right| order(&left.view(), &right.view(), &query.sort));
    let start = cursor.map_or(0, |cursor| rows.partition_point(|row| is_at_or_before(row, &cursor, query)));
    let limit = query.limit.max(1) as usize;
    let mut bytes = 0;
    let fits = rows[start..].iter().take(limit).take_while(|row| {
        let first = bytes == 0;
        bytes += row.instance.data.len();
        first || bytes <= PAGE_BYTES_MAX
    });
    let end = start + fits.count();
    let more = end < rows.len();
    let page = &rows[start..end];
    let next = page.last().filter(|_| more).map(|row| {
        let keys =
            query.sort.iter().map(|key| row.view().find(&key.path).map_or(Value::Null, Found::to_value)).collect();
        Cursor { keys, id: row.instance.id.clone() }.encode(model, query)
    });
    Ok(InstancePage { items: page.iter().map(|row| row.instance.clone()).collect(), next: next.transpose()? })
}

/// The number of matching rows; see [`crate::ModelStore::count`].
pub async fn count_rows(rows: &Rows, filter: &Filter, budget: &Budget) -> Result<u64> {
    let matching = matching(rows, filter, budget).await.map_err(|limit| limit.into_error("count"))?;
    Ok(matching.len() as u64)
}

/// Steps after which a read yields the thread. A dropped read ends there.
const STEPS_AT_ONCE: u64 = 50_000;

/// Rows that match, by id.
async fn matching(rows: &Rows, filter: &Filter, budget: &Budget) -> Result<Vec<Arc<Row>>, Exceeded> {
    budget.start();
    let mut matching = Vec::new();
    let mut yielded = budget.steps();
    for row in rows.values() {
        if budget.steps() - yielded > STEPS_AT_ONCE {
            yielded = budget.steps();
            yield_now().await;
        }
        if budget.charge(1).and_then(|()| filter.matches_within(&row.view(), budget))? {
            budget.hold(size_of::<Arc<Row>>())?;
            matching.push(Arc::clone(row));
        }
    }
    Ok(matching)
}

/// Yields the thread once, independent of the executor.
pub(crate) async fn yield_now() {
    let mut yielded = false;
    poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

fn is_at_or_before(row: &Row, cursor: &Cursor, query: &InstanceQuery) -> bool {
    query
        .sort
        .iter()
        .zip(&cursor.keys)
        .map(|(key, value)| compare(row.view().find(&key.path), Some(Found::from(value)), key.descending))
        .find(|ordering| ordering.is_ne())
        .unwrap_or_else(|| row.instance.id.cmp(&cursor.id))
        != Ordering::Greater
}
