//! The driver's part of a read: conditions that PostgreSQL does not decide, sorting that no index provides, and the end
//! of a page.

use std::sync::Arc;

use serde_json::Value;
use snaphook_driver::compare::InstanceView;
use snaphook_driver::{DriverError, ErrorKind, Filter, Result, SortKey, json};
use tokio_postgres::Row;

use super::key::{found_key, is_exact};
use super::lanes::{Halt, Meter};
use super::page::{PageBuilder, PageEntry};
use super::page_position::PagePosition;
use super::plan::Stream;
use super::reader::{KEYS_FROM, Reader};
use super::row::{self, get};
use super::table::Table;

/// How many rows are fetched at once.
const ROWS: usize = 256;

/// Maximum size of large data in memory.
const BYTES_MAX: usize = 16 << 20;

/// How many rows a read looks at before it tries a plan that may be better.
pub(super) const PROBE: usize = 2_000;

/// What is checked for each row.
struct Question {
    table: Table,
    residual: Filter,
    sort: Vec<SortKey>,
    given: usize,
    whole: bool,
    cursor: Option<PagePosition>,
    /// Whether the instances are wanted, or only their number.
    keeps: bool,
    meter: Meter,
}

/// A read of a stream.
pub(super) struct Scan<'a> {
    pub(super) table: &'a Table,
    /// The distinguishing sort keys, see `Plan::sort`.
    pub(super) sort: &'a [SortKey],
    pub(super) cursor: Option<&'a PagePosition>,
    /// The number of wanted rows, in order; `None`: all rows are counted.
    pub(super) wanted: Option<usize>,
    pub(super) meter: &'a Meter,
}

impl Scan<'_> {
    /// The rows of a page, or the number of rows; `None` if more than `most` rows would have to be read.
    pub(super) async fn read(
        &self,
        reader: &mut Reader<'_>,
        stream: Stream,
        most: Option<usize>,
    ) -> Result<Option<(Vec<PageEntry>, u64)>, Halt> {
        let Stream { parts, given, whole, residual } = stream;
        let question = Arc::new(Question {
            table: self.table.clone(),
            residual: Filter::And(residual),
            sort: self.sort.to_vec(),
            given: given.len(),
            whole,
            cursor: self.cursor.cloned(),
            keeps: self.wanted.is_some(),
            meter: self.meter.clone(),
        });
        let mut page = PageBuilder::new(self.wanted);
        let mut seen = 0;
        for part in &parts {
            let (with_data, step) = (question.wants_data(), question.step(page.left()));
            let mut rows = reader.open(self.table, &part.rows, &part.order, &given, with_data, step).await?;
            while !rows.is_empty() {
                seen += rows.len();
                if most.is_some_and(|most| seen > most) {
                    return Ok(None);
                }
                for entry in question.answer(reader, rows).await? {
                    page.push(entry, self.meter)?;
                }
                if page.is_full() {
                    break;
                }
                rows = reader.next(question.step(page.left())).await?;
            }
            page.flush();
            if page.is_full() {
                break;
            }
        }
        Ok(Some(page.end()))
    }
}

impl Question {
    /// Whether the data of most rows is needed, to check or to return it.
    fn wants_data(&self) -> bool {
        !self.is_decided()
            || (!self.whole && !self.sort.is_empty())
            || (self.keeps && self.given > 0)
            || (self.keeps && self.whole)
    }

    /// Whether PostgreSQL decides which rows match.
    fn is_decided(&self) -> bool {
        self.residual == Filter::default()
    }

    /// How many rows to fetch.
    fn step(&self, left: usize) -> usize {
        if self.whole && self.is_decided() && self.keeps { left.clamp(1, ROWS) } else { ROWS }
    }

    /// Whether the columns are not enough to check this row.
    fn needs_data(&self, row: &Row) -> Result<bool> {
        Ok(!self.is_decided() || (self.keeps && (!self.whole && !self.sort.is_empty() || self.inexact(row)?.is_some())))
    }

    /// The index of the first key that its column does not contain completely.
    fn inexact(&self, row: &Row) -> Result<Option<usize>> {
        for place in 0..self.given {
            if !is_exact(self.stored(row, place)?) {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }

    fn stored<'a>(&self, row: &'a Row, place: usize) -> Result<&'a [u8]> {
        get(row, KEYS_FROM + place, self.meter.operation())
    }

    /// The matching rows.
    async fn answer(self: &Arc<Self>, reader: &mut Reader<'_>, rows: Vec<Row>) -> Result<Vec<PageEntry>, Halt> {
        let mut found = Vec::new();
        let mut together: Vec<(Row, Option<String>)> = Vec::new();
        let (mut large, mut bytes) = (Vec::new(), 0);
        for row in rows {
            if self.needs_data(&row)? && get::<Option<&str>>(&row, 6, self.meter.operation())?.is_none() {
                let size = size(&row, self.meter.operation())?;
                if bytes > 0 && bytes + size > BYTES_MAX {
                    self.fetch(reader, &mut together, &large).await?;
                    found.extend(self.judge(std::mem::take(&mut together)).await?);
                    (large, bytes) = (Vec::new(), 0);
                }
                bytes += size;
                large.push(together.len());
            }
            together.push((row, None));
        }
        self.fetch(reader, &mut together, &large).await?;
        found.extend(self.judge(together).await?);
        Ok(found)
    }

    /// Fetches the data that did not come with its row.
    async fn fetch(
        &self,
        reader: &mut Reader<'_>,
        rows: &mut [(Row, Option<String>)],
        large: &[usize],
    ) -> Result<(), Halt> {
        if large.is_empty() {
            return Ok(());
        }
        let operation = self.meter.operation();
        let ids = large.iter().map(|at| get::<&[u8]>(&rows[*at].0, 0, operation)).collect::<Result<Vec<_>>>()?;
        let found = reader.instances(&self.table, &ids).await?;
        for row in &found {
            let id: &[u8] = get(row, 0, operation)?;
            let data: String = get(row, 6, operation)?;
            for at in large {
                if get::<&[u8]>(&rows[*at].0, 0, operation)? == id {
                    rows[*at].1 = Some(data);
                    break;
                }
            }
        }
        Ok(())
    }

    /// Checks rows; on another thread if that takes more than comparing keys.
    async fn judge(self: &Arc<Self>, rows: Vec<(Row, Option<String>)>) -> Result<Vec<PageEntry>, Halt> {
        if self.is_decided() && (self.whole || self.sort.is_empty()) {
            return self.judge_all(rows);
        }
        let question = Arc::clone(self);
        match tokio::task::spawn_blocking(move || question.judge_all(rows)).await {
            Ok(found) => found,
            Err(error) => {
                let error =
                    DriverError::new(ErrorKind::Unexpected, self.meter.operation(), "the background task ended early")
                        .because(error);
                Err(Halt::Failed(error))
            }
        }
    }

    fn judge_all(&self, rows: Vec<(Row, Option<String>)>) -> Result<Vec<PageEntry>, Halt> {
        let mut found = Vec::new();
        for (row, data) in rows {
            found.extend(self.judge_one(&row, data.as_deref())?);
        }
        Ok(found)
    }

    fn judge_one(&self, row: &Row, large: Option<&str>) -> Result<Option<PageEntry>, Halt> {
        let operation = self.meter.operation();
        self.meter.charge(1)?;
        let id = row::id(get(row, 0, operation)?, operation)?;
        let inline: Option<&str> = get(row, 6, operation)?;
        let mut tree = None;
        if self.needs_data(row)? {
            let text = large.or(inline).unwrap_or_default();
            self.meter.look(self.meter.budget.charge_text(text.len()))?;
            tree = Some(json::parse(text).map_err(|error| {
                DriverError::new(ErrorKind::Corrupt, operation, "an instance's data is not valid JSON")
                    .with("instance", format!("{}/{id}", self.table.model))
                    .because(error)
            })?);
        }
        let view = match &tree {
            Some(tree) => Some(view(row, &id, tree, operation)?),
            None => None,
        };
        if let Some(view) = &view
            && !self.meter.look(self.residual.matches_within(view, &self.meter.budget))?
        {
            return Ok(None);
        }
        if !self.keeps {
            let place = PagePosition { keys: Vec::new(), id };
            return Ok(Some(PageEntry { run: Vec::new(), is_alone: true, place, size: 0, instance: None }));
        }
        let keys = self.keys(row, view.as_ref())?;
        let place = PagePosition { keys, id };
        if self.cursor.as_ref().is_some_and(|cursor| (&place.keys, &place.id) <= (&cursor.keys, &cursor.id)) {
            return Ok(None);
        }
        let inexact = self.inexact(row)?;
        let is_alone = self.whole && inexact.is_none();
        // A run ends with the first incomplete key: rows that are equal up to it are sorted by their whole keys.
        let run_of = inexact.map_or(if self.whole { 0 } else { self.given }, |place| place + 1);
        let mut run = Vec::new();
        for place in 0..if is_alone { 0 } else { run_of } {
            let stored = self.stored(row, place)?;
            run.extend_from_slice(&(stored.len() as u32).to_be_bytes());
            run.extend_from_slice(stored);
        }
        let size = size(row, operation)?;
        let instance = (is_alone && inline.is_some()).then(|| row::instance(row, 0, &self.table.model, operation));
        Ok(Some(PageEntry { run, is_alone, place, size, instance: instance.transpose()? }))
    }

    /// The whole sort keys of a row.
    fn keys(&self, row: &Row, view: Option<&InstanceView<'_>>) -> Result<Vec<Vec<u8>>> {
        let key = |(place, wanted): (usize, &SortKey)| match view {
            Some(view) => Ok(found_key(view.find(&wanted.path), wanted.descending)),
            None => self.stored(row, place).map(<[u8]>::to_vec),
        };
        self.sort.iter().enumerate().map(key).collect()
    }
}

/// A row as input for filters and sort orders.
fn view<'a>(row: &Row, id: &'a str, data: &'a Value, operation: &'static str) -> Result<InstanceView<'a>> {
    let number = |place: usize| get::<i64>(row, place, operation);
    Ok(InstanceView {
        id,
        revision: number(2)? as u64,
        position: number(3)? as u64,
        created_at: number(4)?,
        updated_at: number(5)?,
        data,
    })
}

/// The size of a row's data.
fn size(row: &Row, operation: &'static str) -> Result<usize> {
    get::<i32>(row, 7, operation).map(|size| usize::try_from(size).unwrap_or(0))
}
