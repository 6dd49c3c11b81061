//! Sort orders and cursors as SQL: class and value of each key, then the id.
//!
//! SQLite only reads in the order of an index if the statement requests no more than the index provides. It does not
//! recognize that an expression that is compared with one value is the same in all rows, so everything that the
//! conditions fix ([`Fixed`]) is omitted from ORDER BY here. For the same reason the rows after a cursor are read in
//! parts, one range of the index after the other, as far as an index provides the order; the rest is one condition.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rusqlite::types::Value as Sql;
use serde_json::Value;
use snaphook_driver::{Cursor, DriverError, ErrorKind, InstanceQuery, Result, SortKey};

use super::condition::{Fixed, conditions, fixed_by, fixed_paths};
use super::statement::Statement;
use super::table::{Operand, Table};

/// A sort order.
pub(super) struct Order {
    pub(super) keys: Vec<Key>,
    /// For how many of the keys an index provides the order, including keys in between that the filter fixes.
    given: usize,
    /// The key that is read one class after the other: because an index that is read backwards has the values in order
    /// but not the classes, or because an index only provides the first keys.
    by_class: Option<usize>,
}

pub(super) struct Key {
    operand: Operand,
    descending: bool,
    /// The keys that the filter fixes.
    fixed: Fixed,
}

/// A part of the rows; all rows of one part come before those of the next.
pub(super) struct Part {
    conditions: Statement,
    /// For each key, what the filter and these conditions fix.
    fixed: Vec<Fixed>,
}

/// The position at which a page ended: class and value of each key.
type PagePosition = (i64, Sql);

impl Order {
    pub(super) fn new(table: &Table, query: &InstanceQuery) -> Self {
        let conditions = conditions(&query.filter);
        let keys = query.sort.iter().map(|key| {
            let operand = table.operand(&key.path);
            let conditions = conditions.iter().filter(|condition| condition.path == key.path);
            let fixed = conditions.map(|condition| fixed_by(&operand, &condition.operator)).max();
            let least = if operand.is_meta { Fixed::Class } else { Fixed::Nothing };
            Key { operand, descending: key.descending, fixed: fixed.unwrap_or(least) }
        });
        let keys: Vec<Key> = keys.collect();
        let given = table.given(&fixed_paths(table, query), &query.sort);
        let free: Vec<usize> = (0..keys.len()).filter(|key| keys[*key].fixed < Fixed::Value).collect();
        let count = match given {
            Some(given) if given.whole => keys.len(),
            Some(given) => free.get(given.keys).copied().unwrap_or(keys.len()),
            None => 0,
        };
        // If SQLite must sort some of the rows anyway, it only uses the index for a condition that the index serves.
        let by_class = free.first().copied().filter(|_| given.is_some_and(|given| !given.by_id));
        let by_class = by_class.filter(|first| keys[*first].fixed < Fixed::Class);
        Order { keys, given: count, by_class }
    }

    /// The keys in index order that a cursor bounds.
    pub(super) fn bounded<'a>(&self, query: &'a InstanceQuery) -> &'a [SortKey] {
        if query.cursor.is_some() { &query.sort[..self.given] } else { &[] }
    }

    /// The statement of one part of a page, and its parameters. `columns` come first, then class and value of each key.
    pub(super) fn statement(
        &self,
        table: &Table,
        columns: &str,
        filter: &Statement,
        part: Part,
        limit: usize,
    ) -> (String, Vec<Sql>) {
        let mut all = filter.clone();
        if !part.conditions.conditions.is_empty() {
            all.and(|sql| sql.append(part.conditions));
        }
        let mut columns = columns.to_owned();
        let mut terms = String::new();
        for (index, (key, fixed)) in self.keys.iter().zip(part.fixed).enumerate() {
            let Operand { class, .. } = &key.operand;
            let value = if index < self.given { &key.operand.value } else { &key.operand.sorted };
            columns.push_str(&format!(", {class}, {value}"));
            if fixed == Fixed::Nothing {
                terms.push_str(&format!("{class}, "));
            }
            if fixed != Fixed::Value {
                let direction = if key.descending { " DESC" } else { "" };
                terms.push_str(&format!("{value}{direction}, "));
            }
        }
        let sql = format!("SELECT {columns} FROM {}{} ORDER BY {terms}_id LIMIT ?", table.name, all.clause());
        all.parameters.push(Sql::Integer(i64::try_from(limit).unwrap_or(i64::MAX)));
        (sql, all.parameters)
    }

    /// The rows after a cursor: as far as an index provides the order, one range after the other, nearest first.
    pub(super) fn parts(&self, cursor: Option<&Cursor>) -> Result<Vec<Part>> {
        let Some(cursor) = cursor else {
            return Ok(match self.by_class {
                Some(depth) => self.classes(&[], depth, -1),
                None => vec![self.part(&[], 0, Fixed::Nothing, Statement::default())],
            });
        };
        let places = self.places(cursor)?;
        let mut behind = Statement::default();
        behind.push("_id > ");
        behind.bind(Sql::Text(cursor.id.clone()));
        // Rows that are equal in the index's keys, from nearest to farthest, as one condition.
        let mut nearest = vec![self.equal(&places, self.given..places.len(), behind)];
        for depth in (self.given..places.len()).rev() {
            let beyond = self.beyond(&places, depth).into_iter().map(|(condition, _)| condition);
            nearest.extend(beyond.map(|condition| self.equal(&places, self.given..depth, condition)));
        }
        let nearest = any_of(nearest);
        let mut parts = vec![self.part(&places[..self.given], self.given, Fixed::Nothing, nearest)];
        for depth in (0..self.given).rev() {
            for (condition, fixed) in self.beyond(&places, depth) {
                parts.push(self.part(&places[..depth], depth, fixed, condition));
            }
        }
        Ok(parts)
    }

    /// The rows after the cursor in the key at `depth`, in order, and what each condition fixes.
    fn beyond(&self, places: &[PagePosition], depth: usize) -> Vec<(Statement, Fixed)> {
        let Key { operand, descending, fixed } = &self.keys[depth];
        let (class, value) = &places[depth];
        let mut beyond = Vec::new();
        if *fixed < Fixed::Value && *value != Sql::Null {
            let mut condition = Statement::default();
            let operator = if *descending { "<" } else { ">" };
            condition.push(&format!("{} = {class} AND {} {operator} ", operand.class, operand.value));
            condition.bind(value.clone());
            beyond.push((condition, Fixed::Class));
        }
        if *fixed < Fixed::Class && *class < operand.class_absent() {
            beyond.extend(self.later_classes(depth, *class));
        }
        beyond
    }

    /// Rows of a class beyond `class` in the key at `depth`, in order.
    fn later_classes(&self, depth: usize, class: i64) -> Vec<(Statement, Fixed)> {
        let operand = &self.keys[depth].operand;
        let condition = |sql: String| {
            let mut condition = Statement::default();
            condition.push(&sql);
            condition
        };
        if self.by_class != Some(depth) {
            return vec![(condition(format!("{} > {class}", operand.class)), Fixed::Nothing)];
        }
        (class + 1..=operand.class_absent())
            .map(|class| (condition(format!("{} = {class}", operand.class)), Fixed::Class))
            .collect()
    }

    fn classes(&self, places: &[PagePosition], depth: usize, class: i64) -> Vec<Part> {
        let classes = self.later_classes(depth, class).into_iter();
        classes.map(|(condition, fixed)| self.part(places, depth, fixed, condition)).collect()
    }

    /// Equality with the cursor in some keys, and one more condition.
    fn equal(&self, places: &[PagePosition], keys: std::ops::Range<usize>, last: Statement) -> Statement {
        let mut conditions = Statement::default();
        for (Key { operand, fixed, .. }, (class, value)) in self.keys[keys.clone()].iter().zip(&places[keys]) {
            if *fixed == Fixed::Value {
                continue;
            }
            conditions.and(|sql| {
                sql.push(&format!("{} = {class} AND {}", operand.class, operand.value));
                if *value == Sql::Null {
                    sql.push(" IS NULL");
                } else {
                    sql.push(" = ");
                    sql.bind(value.clone());
                }
            });
        }
        if !last.conditions.is_empty() {
            conditions.and(|sql| sql.append(last));
        }
        conditions
    }

    /// Rows that equal the cursor in its first keys and satisfy one more condition, which fixes `by_last` of the key at
    /// `depth`.
    fn part(&self, places: &[PagePosition], depth: usize, by_last: Fixed, last: Statement) -> Part {
        let mut fixed: Vec<Fixed> = self.keys.iter().map(|key| key.fixed).collect();
        fixed[..places.len()].fill(Fixed::Value);
        if let Some(fixed) = fixed.get_mut(depth) {
            *fixed = by_last.max(*fixed);
        }
        Part { conditions: self.equal(places, 0..places.len(), last), fixed }
    }

    /// The classes and values at which a page ended.
    fn places(&self, cursor: &Cursor) -> Result<Vec<PagePosition>> {
        let place = |(packed, key): (&Value, &Key)| {
            unpack(packed).filter(|(class, _)| (0..=key.operand.class_absent()).contains(class))
        };
        let places: Option<Vec<_>> = cursor.keys.iter().zip(&self.keys).map(place).collect();
        places.ok_or_else(|| {
            DriverError::new(ErrorKind::Invalid, "query", "the cursor is damaged, start again without one")
        })
    }
}

/// The disjunction of conditions.
fn any_of(mut conditions: Vec<Statement>) -> Statement {
    if conditions.len() == 1 {
        return conditions.remove(0);
    }
    let mut whole = Statement::default();
    for (index, condition) in conditions.into_iter().enumerate() {
        whole.push(if index > 0 { " OR (" } else { "((" });
        whole.append(condition);
        whole.push(")");
    }
    whole.push(")");
    whole
}

/// Class and value as JSON.
pub(super) fn pack(class: i64, value: Sql) -> Value {
    let value = match value {
        Sql::Integer(integer) => Value::from(integer),
        Sql::Text(text) => Value::from(format!("t{text}")),
        Sql::Blob(bytes) => Value::from(format!("n{}", URL_SAFE_NO_PAD.encode(bytes))),
        Sql::Null | Sql::Real(_) => Value::Null,
    };
    Value::from(vec![Value::from(class), value])
}

fn unpack(key: &Value) -> Option<PagePosition> {
    let [class, value] = key.as_array()?.as_slice() else { return None };
    let value = match value {
        Value::Null => Sql::Null,
        Value::Number(number) => Sql::Integer(number.as_i64()?),
        Value::String(text) => match text.strip_prefix('t') {
            Some(text) => Sql::Text(text.to_owned()),
            None => Sql::Blob(URL_SAFE_NO_PAD.decode(text.strip_prefix('n')?).ok()?),
        },
        _ => return None,
    };
    Some((class.as_i64()?, value))
}
