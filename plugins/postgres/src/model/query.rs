//! Pages and counts.

use snaphook_driver::{
    Budget, DriverError, ErrorKind, Filter, InstancePage, InstanceQuery, Operator, PAGE_BYTES_MAX, Result,
};

use super::lanes::{Halt, Meter};
use super::open_models::{OpenModels, is_gone};
use super::page::PageEntry;
use super::page_position::PagePosition;
use super::plan::{Plan, Stream};
use super::reader::Reader;
use super::row::{self, get};
use super::scan::{PROBE, Scan};
use super::table::Table;

/// How many times a read is repeated whose model changed in the meantime.
const RETRIES: usize = 20;

/// A read of one model.
pub(super) struct Read<'a> {
    pub(super) shared: &'a OpenModels,
    pub(super) model: &'a str,
    pub(super) budget: &'a Budget,
}

/// The requested result.
#[derive(Clone, Copy)]
enum Ask<'a> {
    Page(&'a InstanceQuery),
    Count(&'a Filter),
}

/// The result: a page, or a number of instances.
struct ReadResult {
    page: InstancePage,
    count: u64,
}

impl Read<'_> {
    /// See [`snaphook_driver::ModelStore::query`].
    pub(super) async fn page(&self, query: &InstanceQuery) -> Result<InstancePage> {
        self.run("query", Ask::Page(query)).await.map(|answer| answer.page)
    }

    /// See [`snaphook_driver::ModelStore::count`].
    pub(super) async fn count(&self, filter: &Filter) -> Result<u64> {
        self.run("count", Ask::Count(filter)).await.map(|answer| answer.count)
    }

    /// Runs in a short turn and, if that is not enough, in a long one.
    async fn run(&self, operation: &'static str, ask: Ask<'_>) -> Result<ReadResult> {
        // If the call is dropped, this ends its work on another thread.
        let guard = self.budget.cancel_on_drop();
        let filter = match ask {
            Ask::Page(query) => &query.filter,
            Ask::Count(filter) => filter,
        };
        let mut result = Err(Halt::Turn);
        if !is_long(filter) {
            let _place = self.shared.lanes.place(self.budget, operation, true).await?;
            result = self.turn(&Meter::new(self.budget, operation, true), ask).await;
        }
        if let Err(Halt::Turn) = result {
            let _place = self.shared.lanes.place(self.budget, operation, false).await?;
            result = self.turn(&Meter::new(self.budget, operation, false), ask).await;
        }
        guard.disarm();
        result.map_err(|halt| match halt {
            Halt::Failed(error) => error,
            Halt::Turn => {
                DriverError::new(ErrorKind::Unexpected, operation, "a query without a time slice was interrupted")
            }
        })
    }

    /// Repeats the read if its table was removed in the meantime.
    async fn turn(&self, meter: &Meter, ask: Ask<'_>) -> Result<ReadResult, Halt> {
        let mut retries = 0;
        loop {
            match self.once(meter, ask).await {
                Err(Halt::Failed(error)) if retries < RETRIES && is_gone(&error) => retries += 1,
                result => return result,
            }
        }
    }

    async fn once(&self, meter: &Meter, ask: Ask<'_>) -> Result<ReadResult, Halt> {
        let mut reader = Reader::begin(self.shared, meter).await?;
        let answer = self.answer(&mut reader, meter, ask).await;
        // After errors too: a client that sends invalid queries must not cost connections.
        reader.end().await;
        answer
    }

    async fn answer(&self, reader: &mut Reader<'_>, meter: &Meter, ask: Ask<'_>) -> Result<ReadResult, Halt> {
        let mut answer = ReadResult { page: InstancePage { items: Vec::new(), next: None }, count: 0 };
        if let Some(known) = reader.model(self.model) {
            match ask {
                Ask::Page(query) => answer.page = page_of(reader, &known.table, query, meter).await?,
                Ask::Count(filter) => answer.count = count_of(reader, &known.table, filter, meter).await?,
            }
        }
        Ok(answer)
    }
}

/// Whether a single row may take longer than a short turn.
fn is_long(filter: &Filter) -> bool {
    filter.any(&|condition| {
        matches!(&condition.operator, Operator::Like(pattern) | Operator::Ilike(pattern)
            if pattern.contains('%') && pattern.contains('_'))
    })
}

async fn page_of(
    reader: &mut Reader<'_>,
    table: &Table,
    query: &InstanceQuery,
    meter: &Meter,
) -> Result<InstancePage, Halt> {
    let plan = Plan::new(table, &query.filter, &query.sort);
    let cursor = PagePosition::decode(&table.model, query, &plan.sort)?;
    let limit = query.limit.max(1) as usize;
    // One more than the page shows whether there is a next one.
    let scan = Scan { table, sort: &plan.sort, cursor: cursor.as_ref(), wanted: Some(limit + 1), meter };
    let mut found = None;
    if !plan.is_ordered() || plan.narrows {
        // If many rows meet the condition that an index serves, reading in order finds the next ones sooner.
        let most = plan.is_ordered().then_some(PROBE);
        found = match plan.unordered() {
            Some(stream) => scan.read(reader, stream, most).await?,
            None => Some((Vec::new(), 0)),
        };
    }
    if found.is_none() {
        found = match plan.ordered(cursor.as_ref()) {
            Some(stream) => scan.read(reader, stream, None).await?,
            None => None,
        };
    }
    let mut entries = found.map_or_else(Vec::new, |(entries, _)| entries);
    let mut bytes = 0;
    let fits = entries.iter().take(limit).take_while(|entry| {
        let is_first = bytes == 0;
        bytes += entry.size;
        is_first || bytes <= PAGE_BYTES_MAX
    });
    let held = fits.count();
    let more = entries.len() > held;
    entries.truncate(held);
    let next = match entries.last() {
        Some(last) if more => Some(last.place.encode(&table.model, query, &plan.sort)?),
        _ => None,
    };
    fill(reader, table, &mut entries, meter).await?;
    Ok(InstancePage { items: entries.into_iter().filter_map(|entry| entry.instance).collect(), next })
}

/// Fetches the instances that did not come with their rows.
async fn fill(reader: &mut Reader<'_>, table: &Table, entries: &mut [PageEntry], meter: &Meter) -> Result<(), Halt> {
    let missing = entries.iter().filter(|entry| entry.instance.is_none());
    let ids: Vec<Vec<u8>> = missing.map(|entry| entry.place.id.as_bytes().to_vec()).collect();
    if ids.is_empty() {
        return Ok(());
    }
    let ids: Vec<&[u8]> = ids.iter().map(Vec::as_slice).collect();
    let rows = reader.instances(table, &ids).await?;
    let places: std::collections::HashMap<Vec<u8>, usize> =
        entries.iter().enumerate().map(|(place, entry)| (entry.place.id.as_bytes().to_vec(), place)).collect();
    for row in &rows {
        if let Some(place) = places.get(get::<&[u8]>(row, 0, meter.operation())?) {
            entries[*place].instance = Some(row::instance(row, 0, &table.model, meter.operation())?);
        }
    }
    Ok(())
}

async fn count_of(reader: &mut Reader<'_>, table: &Table, filter: &Filter, meter: &Meter) -> Result<u64, Halt> {
    let plan = Plan::new(table, filter, &[]);
    let Some(stream) = plan.unordered() else { return Ok(0) };
    if let Stream { residual, parts, .. } = &stream
        && residual.is_empty()
        && let [part] = parts.as_slice()
    {
        // PostgreSQL counts millions of rows per second, so the budget is only charged at the end.
        let left = meter.budget.limits().steps.saturating_sub(meter.budget.steps());
        let most = i64::try_from(left).unwrap_or(i64::MAX).saturating_add(1);
        let count = reader.count(table, &part.rows, most).await? as u64;
        meter.budget.charge(count).map_err(|limit| limit.into_error(meter.operation()))?;
        return Ok(count);
    }
    let scan = Scan { table, sort: &[], cursor: None, wanted: None, meter };
    let found = scan.read(reader, stream, None).await?;
    Ok(found.map_or(0, |(_, matched)| matched))
}
