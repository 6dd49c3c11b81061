//! How a query is executed: which index gives the order, what PostgreSQL filters, and what the driver does.
//!
//! PostgreSQL never sorts. Rows arrive in the order of an index, as far as an index has the requested order. The driver
//! sorts rows that are equal so far, and all rows if no index fits. Keys are ascending in both directions, so the rows
//! after a cursor are one row comparison, at which an index scan can start.

use snaphook_driver::{Condition, Filter, Path, SortKey};

use super::condition::{self, Verdict, Where};
use super::key::{ABSENT, BOOLEAN, is_exact, stored};
use super::page_position::PagePosition;
use super::table::{Layout, Table};

/// A query with the support that its table offers.
pub(super) struct Plan<'a> {
    table: &'a Table,
    /// Conditions that must all be met.
    filter: Vec<&'a Filter>,
    /// The distinguishing sort keys: those that the filter does not fix, each path once.
    pub(super) sort: Vec<SortKey>,
    served: Option<Served>,
    /// Whether another index than the one that gives the order narrows the search.
    pub(super) narrows: bool,
}

/// How an index gives an order.
#[derive(Clone, Debug, PartialEq)]
struct Served {
    /// The columns by which the rows are ordered.
    columns: Vec<usize>,
    /// Whether these are all sort keys, followed by the id.
    whole: bool,
    /// The single column is read backwards, one class after the other.
    backwards: bool,
    /// How many columns at the start of the index the filter fixes.
    lead: usize,
    /// The index; `None`: the index of the ids.
    index: Option<usize>,
}

/// One statement. All its rows come before those of the next one.
#[derive(Debug)]
pub(super) struct Part {
    /// The conditions of its rows.
    pub(super) rows: Where,
    /// The text after `ORDER BY`; empty: any order.
    pub(super) order: String,
}

/// Statements that return the rows, and the work that is left to the driver.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) parts: Vec<Part>,
    /// The columns whose keys the statements return; rows are ordered by these.
    pub(super) given: Vec<usize>,
    /// Whether rows with equal keys are ordered by id.
    pub(super) whole: bool,
    /// Conditions that the driver checks.
    pub(super) residual: Vec<Filter>,
}

impl<'a> Plan<'a> {
    pub(super) fn new(table: &'a Table, filter: &'a Filter, sort: &[SortKey]) -> Plan<'a> {
        let filter = filter.conjuncts();
        let conditions: Vec<&Condition> = filter
            .iter()
            .filter_map(|part| match part {
                Filter::Condition(condition) => Some(condition),
                _ => None,
            })
            .collect();
        // Only the data has keys, not the instance's other fields.
        let fixes = |condition: &&&Condition| condition::fixes(&condition.operator) && condition.path.names().is_some();
        let fixed: Vec<&Path> = conditions.iter().filter(fixes).map(|condition| &condition.path).collect();
        let mut free: Vec<SortKey> = Vec::new();
        for key in sort {
            if !fixed.contains(&&key.path) && free.iter().all(|other| other.path != key.path) {
                free.push(key.clone());
            }
        }
        let served = served(&table.layout, &fixed, &free);
        // A condition on the first column of the index that gives the order needs no other index.
        let covered = served.as_ref().and_then(|served| served.index).map(|index| table.layout.indexes[index][0]);
        let covered = covered.map(|column| table.layout.columns[column].path.clone());
        let leads = |condition: &Condition| {
            condition::narrows(&condition.operator)
                && table.layout.indexes.iter().any(|index| table.layout.columns[index[0]].path == condition.path)
        };
        let mut leading = conditions.iter().filter(|condition| leads(condition)).peekable();
        let narrows = leading.peek().is_some() && !leading.any(|condition| Some(&condition.path) == covered.as_ref());
        Plan { table, filter, sort: free, served, narrows }
    }

    pub(super) fn is_ordered(&self) -> bool {
        self.served.is_some()
    }

    /// All rows that meet the filter, in any order; `None` if there are none.
    pub(super) fn unordered(&self) -> Option<Stream> {
        let (rows, residual) = self.rows(None)?;
        let parts = vec![Part { rows, order: String::new() }];
        Some(Stream { parts, given: Vec::new(), whole: false, residual })
    }

    /// The rows after the cursor that meet the filter, in the order of an index; `None` if there are none.
    pub(super) fn ordered(&self, cursor: Option<&PagePosition>) -> Option<Stream> {
        let served = self.served.as_ref()?;
        if served.backwards {
            return self.backwards(served, cursor);
        }
        let mut bound: Option<(Vec<usize>, &PagePosition)> = None;
        let mut from = None;
        if let Some(place) = cursor {
            // Up to and including the first key that the column does not contain completely.
            let exact = place.keys.iter().take(served.columns.len()).take_while(|key| is_exact(key)).count();
            let columns = served.columns[..served.columns.len().min(exact + 1)].to_vec();
            from = columns.first().map(|column| (*column, stored(&place.keys[0])));
            bound = Some((columns, place));
        }
        let (mut rows, residual) = self.rows(from)?;
        if let Some((columns, place)) = bound {
            let exact = place.keys.iter().take(served.columns.len()).all(|key| is_exact(key));
            let strict = served.whole && exact;
            let mut names: Vec<String> = columns.iter().map(|column| format!("k{column}")).collect();
            let mut places: Vec<String> = place.keys[..columns.len()]
                .iter()
                .map(|key| rows.bind(condition::Parameter::Key(stored(key).to_vec())))
                .collect();
            if strict {
                names.push("id".into());
                places.push(rows.bind(condition::Parameter::Key(place.id.as_bytes().to_vec())));
            }
            if !names.is_empty() {
                let operator = if strict { ">" } else { ">=" };
                rows.and(format!("({}) {operator} ({})", names.join(", "), places.join(", ")));
            }
        }
        let columns = served.columns.iter().map(|column| format!("k{column}"));
        let order: Vec<String> = columns.chain(served.whole.then(|| "id".to_owned())).collect();
        let parts = vec![Part { rows, order: order.join(", ") }];
        Some(Stream { parts, given: served.columns.clone(), whole: served.whole, residual })
    }

    /// Reads one column backwards, one class after the other: that is the other direction.
    fn backwards(&self, served: &Served, cursor: Option<&PagePosition>) -> Option<Stream> {
        let (rows, residual) = self.rows(None)?;
        let column = *served.columns.first()?;
        let name = format!("k{column}");
        let start = cursor.and_then(|place| place.keys.first());
        let first = start.map_or(BOOLEAN, |key| key[0]);
        let parts = (first..=ABSENT).map(|class| {
            let mut rows = rows.clone();
            rows.compare(&name, ">=", &[class]);
            match start.filter(|key| key[0] == class) {
                // The cursor's key has the direction of the query.
                Some(key) => match super::key::turned(key, !self.table.layout.columns[column].descending) {
                    Some(turned) => rows.compare(&name, "<=", stored(&turned)),
                    None => rows.compare(&name, "<", &[class + 1]),
                },
                None => rows.compare(&name, "<", &[class + 1]),
            }
            Part { rows, order: format!("{name} DESC") }
        });
        Some(Stream { parts: parts.collect(), given: served.columns.clone(), whole: false, residual })
    }

    /// The conditions as SQL, and those that the driver must check. `from`: a column, and the key from which it is
    /// read.
    fn rows(&self, from: Option<(usize, &[u8])>) -> Option<(Where, Vec<Filter>)> {
        let layout = &self.table.layout;
        let preferred = self.served.as_ref().and_then(|served| served.index).map(|index| &layout.indexes[index]);
        let mut rows = Where::default();
        let mut residual = Vec::new();
        for part in &self.filter {
            let condition = match part {
                Filter::Condition(condition) => condition,
                Filter::Or(parts) if parts.is_empty() => return None,
                other => {
                    residual.push((*other).clone());
                    continue;
                }
            };
            let is_of = |column: &usize| layout.columns[*column].path == condition.path;
            let column = preferred.and_then(|columns| columns.iter().copied().find(is_of));
            let verdict = match column.or_else(|| (0..layout.columns.len()).find(|column| is_of(column))) {
                None => Verdict::Recheck,
                Some(column) => {
                    let from = from.filter(|(bounded, _)| *bounded == column).map(|(_, key)| key);
                    let descending = layout.columns[column].descending;
                    condition::add(&mut rows, &format!("k{column}"), descending, &condition.operator, from)
                }
            };
            match verdict {
                Verdict::Exact => {}
                Verdict::Recheck => residual.push(condition.clone().into()),
                Verdict::Never => return None,
            }
        }
        Some((rows, residual))
    }
}

/// The part of this order that an index gives, among rows with the same values at the paths `fixed`.
fn served(layout: &Layout, fixed: &[&Path], sort: &[SortKey]) -> Option<Served> {
    let ids =
        sort.is_empty().then_some(Served { columns: Vec::new(), whole: true, backwards: false, lead: 0, index: None });
    let indexes = layout.indexes.iter().enumerate().filter_map(|(index, places)| {
        let is_fixed = |place: &usize| fixed.contains(&&layout.columns[*place].path);
        let lead = places.iter().take_while(|place| is_fixed(place)).count();
        let rest: Vec<usize> = places.iter().copied().filter(|place| !is_fixed(place)).collect();
        let forwards = rest.iter().zip(sort).take_while(|(place, wanted)| layout.columns[**place] == **wanted).count();
        let turned = match (sort.first(), rest.first().map(|place| &layout.columns[*place])) {
            (Some(wanted), Some(column)) => wanted.path == column.path && wanted.descending != column.descending,
            _ => false,
        };
        // Read backwards, only the column right after the fixed ones is in order.
        let turned = turned && places.get(lead) == rest.first();
        let count = if turned { 1 } else { forwards };
        let whole = !turned && count == sort.len() && count == rest.len();
        let serves = whole || count > 0;
        serves.then(|| Served { columns: rest[..count].to_vec(), whole, backwards: turned, lead, index: Some(index) })
    });
    ids.into_iter()
        .chain(indexes)
        .max_by_key(|served| (served.lead, served.columns.len(), served.whole, !served.backwards))
}
