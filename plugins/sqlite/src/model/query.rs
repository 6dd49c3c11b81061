//! Filters, sorts and pages as SQL.
//!
//! Every comparison is "class equals and value compares" (see [`super::table`]), which is both the trait's meaning
//! and what the indexes hold.

use rusqlite::types::Value as Sql;
use rusqlite::{Connection, Row, params_from_iter};
use serde_json::Value;
use snaphook_driver::{
    ColumnKind, Condition, Cursor, DriverError, ErrorKind, Instance, InstancePage, InstanceQuery, Operator, Result,
};

use super::table::{Operand, Table};
use crate::fault::fault;

/// Columns of an instance in the order that [`decode`] expects.
pub(super) const COLUMNS: &str = "_id, _model_version, _revision, _position, _created_at, _updated_at, _data";

/// Pages up to this size that an index gives are read on the caller's thread.
const PAGE_INLINE_MAX: u32 = 100;

/// Whether the query touches about as many rows as it answers.
pub(super) fn is_short(table: &Table, query: &InstanceQuery) -> bool {
    if query.limit > PAGE_INLINE_MAX {
        return false;
    }
    if query.filter.is_empty() && query.sort.is_empty() {
        return true;
    }
    let fixed: Vec<&[String]> = query
        .filter
        .iter()
        .filter(|condition| matches!(condition.operator, Operator::Eq(_)))
        .map(|condition| condition.path.as_slice())
        .collect();
    fixed.len() == query.filter.len()
        && (fixed.is_empty() || fixed.iter().any(|path| table.leads(path)))
        && table.is_indexed(&fixed, &query.sort)
}

/// One page; see [`snaphook_driver::ModelStore::query`].
pub(super) fn page(connection: &Connection, table: &Table, query: &InstanceQuery) -> Result<InstancePage> {
    let cursor = Cursor::decode(&table.model, query)?;
    let order = Order::new(table, query);
    let mut filter = Statement::default();
    for condition in &query.filter {
        filter.and(|sql| write_condition(sql, table, condition));
    }
    let limit = query.limit.max(1) as usize;
    let mut rows: Vec<(Instance, Vec<Value>)> = Vec::new();
    let parts = match &cursor {
        None => vec![Statement::default()],
        Some(cursor) => order.after(cursor, table.is_indexed(&[], &query.sort))?,
    };
    // More than one part must see the same state.
    let transaction =
        (parts.len() > 1).then(|| connection.unchecked_transaction()).transpose().map_err(fault("query"))?;
    for part in parts {
        // One more than the page tells whether there is a next one.
        let wanted = limit + 1 - rows.len();
        let read = || order.read(connection, table, &filter, part, wanted, &mut rows);
        read().map_err(fault("query"))?;
        if rows.len() > limit {
            break;
        }
    }
    drop(transaction);
    let next = (rows.len() > limit).then(|| {
        rows.truncate(limit);
        let last = rows.last().map(|(instance, keys)| Cursor { keys: keys.clone(), id: instance.id.clone() });
        last.map(|cursor| cursor.encode(&table.model, query))
    });
    Ok(InstancePage { items: rows.into_iter().map(|(instance, _)| instance).collect(), next: next.flatten() })
}

/// See [`snaphook_driver::ModelStore::count`].
pub(super) fn count(connection: &Connection, table: &Table, filter: &[Condition]) -> rusqlite::Result<u64> {
    let mut statement = Statement::default();
    for condition in filter {
        statement.and(|sql| write_condition(sql, table, condition));
    }
    let sql = format!("SELECT count(*) FROM {}{}", table.name, statement.clause());
    let count: i64 =
        connection.prepare_cached(&sql)?.query_row(params_from_iter(&statement.parameters), |row| row.get(0))?;
    Ok(count as u64)
}

/// Reads an instance from the first columns of a row.
pub(super) fn decode(row: &Row<'_>, model: &str) -> rusqlite::Result<Instance> {
    Ok(Instance {
        id: row.get(0)?,
        model: model.to_owned(),
        model_version: row.get::<_, i64>(1)? as u64,
        revision: row.get::<_, i64>(2)? as u64,
        position: row.get::<_, i64>(3)? as u64,
        created_at: row.get(4)?,
        updated_at: row.get(5)?,
        data: snaphook_driver::Json::trusted(row.get_ref(6)?.as_str()?),
    })
}

/// Conditions joined by "and", with their parameters in order of appearance.
#[derive(Clone, Default)]
pub(super) struct Statement {
    conditions: String,
    parameters: Vec<Sql>,
}

impl Statement {
    fn and(&mut self, write: impl FnOnce(&mut Statement)) {
        if !self.conditions.is_empty() {
            self.conditions.push_str(" AND ");
        }
        write(self);
    }

    fn push(&mut self, sql: &str) {
        self.conditions.push_str(sql);
    }

    fn bind(&mut self, value: Sql) {
        self.conditions.push('?');
        self.parameters.push(value);
    }

    fn clause(&self) -> String {
        if self.conditions.is_empty() { String::new() } else { format!(" WHERE {}", self.conditions) }
    }
}

fn write_condition(sql: &mut Statement, table: &Table, condition: &Condition) {
    let operand = table.operand(&condition.path);
    let absent = operand.class_absent();
    match &condition.operator {
        Operator::Eq(value) => compare(sql, &operand, "=", value),
        Operator::Lt(value) => compare(sql, &operand, "<", value),
        Operator::Lte(value) => compare(sql, &operand, "<=", value),
        Operator::Gt(value) => compare(sql, &operand, ">", value),
        Operator::Gte(value) => compare(sql, &operand, ">=", value),
        Operator::Ne(value) => none_of(sql, &operand, std::slice::from_ref(value)),
        Operator::In(values) => any_of(sql, &operand, values),
        Operator::Nin(values) => none_of(sql, &operand, values),
        Operator::Like(pattern) => like(sql, &operand, pattern),
        Operator::Exists(true) => sql.push(&format!("{} < {absent}", operand.class)),
        Operator::Exists(false) => sql.push(&format!("{} = {absent}", operand.class)),
    }
}

/// The class of a JSON value under an operand; `None` if nothing there can compare with it.
fn class_of(operand: &Operand, value: &Value) -> Option<i64> {
    let class = match value {
        Value::Bool(_) => 0,
        Value::Number(_) => 1,
        Value::String(_) => 2,
        Value::Null | Value::Array(_) | Value::Object(_) => return None,
    };
    match operand.kind {
        None => Some(class),
        Some(kind) => {
            let promised = match kind {
                ColumnKind::Boolean => 0,
                ColumnKind::Integer | ColumnKind::Number => 1,
                ColumnKind::Text => 2,
                ColumnKind::Any => return None,
            };
            (promised == class).then_some(0)
        }
    }
}

fn compare(sql: &mut Statement, operand: &Operand, operator: &str, value: &Value) {
    match class_of(operand, value) {
        None => sql.push("FALSE"),
        Some(class) => {
            sql.push(&format!("({} = {class} AND {} {operator} ", operand.class, operand.value));
            sql.bind(bound(value));
            sql.push(")");
        }
    }
}

/// Values that an instance may compare with, in lists of one class each.
fn by_class<'a>(operand: &Operand, values: &'a [Value]) -> Vec<(i64, Vec<&'a Value>)> {
    let mut lists: Vec<(i64, Vec<&Value>)> = Vec::new();
    for value in values {
        let Some(class) = class_of(operand, value) else { continue };
        match lists.iter_mut().find(|(other, _)| *other == class) {
            Some((_, list)) => list.push(value),
            None => lists.push((class, vec![value])),
        }
    }
    lists
}

fn any_of(sql: &mut Statement, operand: &Operand, values: &[Value]) {
    let lists = by_class(operand, values);
    if lists.is_empty() {
        return sql.push("FALSE");
    }
    sql.push("(");
    for (index, (class, values)) in lists.iter().enumerate() {
        sql.push(if index > 0 { " OR " } else { "" });
        sql.push(&format!("({} = {class} AND {} IN (", operand.class, operand.value));
        for (index, value) in values.iter().enumerate() {
            sql.push(if index > 0 { ", " } else { "" });
            sql.bind(bound(value));
        }
        sql.push("))");
    }
    sql.push(")");
}

fn none_of(sql: &mut Statement, operand: &Operand, values: &[Value]) {
    sql.push(&format!("({} < {}", operand.class, operand.class_absent()));
    let lists = by_class(operand, values);
    if !lists.is_empty() {
        sql.push(" AND NOT ");
        any_of(sql, operand, values);
    }
    sql.push(")");
}

fn like(sql: &mut Statement, operand: &Operand, pattern: &str) {
    let Some(class) = class_of(operand, &Value::String(String::new())) else {
        return sql.push("FALSE");
    };
    sql.push(&format!("({} = {class} AND _like({}, ", operand.class, operand.value));
    sql.bind(Sql::Text(pattern.to_owned()));
    sql.push(")");
    // What the text must begin with bounds it from below in an index, the next text of that length from above.
    let prefix: String = pattern.chars().take_while(|char| !matches!(char, '%' | '_' | '\\')).collect();
    if !prefix.is_empty() {
        sql.push(&format!(" AND {} >= ", operand.value));
        sql.bind(Sql::Text(prefix.clone()));
        if let Some(end) = successor(&prefix) {
            sql.push(&format!(" AND {} < ", operand.value));
            sql.bind(Sql::Text(end));
        }
    }
    sql.push(")");
}

/// The least text that is greater than every text with that prefix.
fn successor(prefix: &str) -> Option<String> {
    let mut chars: Vec<char> = prefix.chars().collect();
    while let Some(last) = chars.pop() {
        let next = match last {
            '\u{d7ff}' => Some('\u{e000}'),
            other => char::from_u32(u32::from(other) + 1),
        };
        if let Some(next) = next {
            chars.push(next);
            return Some(chars.into_iter().collect());
        }
    }
    None
}

/// A scalar as SQLite compares it with what `->>` gives.
fn bound(value: &Value) -> Sql {
    match value {
        Value::Bool(value) => Sql::Integer(i64::from(*value)),
        Value::Number(number) => match number.as_i64() {
            Some(integer) => Sql::Integer(integer),
            None => Sql::Real(number.to_string().parse().unwrap_or(f64::NAN)),
        },
        Value::String(text) => Sql::Text(text.clone()),
        Value::Null | Value::Array(_) | Value::Object(_) => Sql::Null,
    }
}

/// A sort order, in SQL: class and value of each key, then the id.
struct Order {
    keys: Vec<(Operand, bool)>,
}

impl Order {
    fn new(table: &Table, query: &InstanceQuery) -> Self {
        Order { keys: query.sort.iter().map(|key| (table.operand(&key.path), key.descending)).collect() }
    }

    fn read(
        &self,
        connection: &Connection,
        table: &Table,
        filter: &Statement,
        part: Statement,
        limit: usize,
        rows: &mut Vec<(Instance, Vec<Value>)>,
    ) -> rusqlite::Result<()> {
        let mut all = filter.clone();
        if !part.conditions.is_empty() {
            all.and(|sql| {
                sql.push(&part.conditions);
                sql.parameters.extend(part.parameters);
            });
        }
        let mut columns = String::from(COLUMNS);
        let mut terms = String::new();
        for (operand, descending) in &self.keys {
            columns.push_str(&format!(", {}, {}", operand.class, operand.value));
            let direction = if *descending { " DESC" } else { "" };
            terms.push_str(&format!("{}, {}{direction}, ", operand.class, operand.value));
        }
        let sql = format!("SELECT {columns} FROM {}{} ORDER BY {terms}_id LIMIT {limit}", table.name, all.clause());
        let mut statement = connection.prepare_cached(&sql)?;
        let mut found = statement.query(params_from_iter(&all.parameters))?;
        while let Some(row) = found.next()? {
            let keys = (0..self.keys.len())
                .map(|key| Ok(pack(row.get(7 + 2 * key)?, row.get(8 + 2 * key)?)))
                .collect::<rusqlite::Result<_>>()?;
            rows.push((decode(row, &table.model)?, keys));
        }
        Ok(())
    }

    /// What comes after a cursor: one condition, or, where an index gives the order, one range of it after the
    /// other, nearest first.
    fn after(&self, cursor: &Cursor, indexed: bool) -> Result<Vec<Statement>> {
        let mut places = Vec::with_capacity(self.keys.len());
        for key in &cursor.keys {
            places.push(unpack(key).ok_or_else(|| {
                DriverError::new(ErrorKind::Invalid, "query", "the cursor is damaged, start again without one")
            })?);
        }
        let mut parts = vec![self.part(&places, places.len(), |sql| {
            sql.push("_id > ");
            sql.bind(Sql::Text(cursor.id.clone()));
        })];
        for depth in (0..places.len()).rev() {
            let (operand, descending) = &self.keys[depth];
            let (class, value) = &places[depth];
            if *value != Sql::Null {
                parts.push(self.part(&places, depth, |sql| {
                    sql.push(&format!(
                        "{} = {class} AND {} {} ",
                        operand.class,
                        operand.value,
                        if *descending { "<" } else { ">" }
                    ));
                    sql.bind(value.clone());
                }));
            }
            if *class < operand.class_absent() {
                parts.push(self.part(&places, depth, |sql| sql.push(&format!("{} > {class}", operand.class))));
            }
        }
        if indexed || parts.len() == 1 {
            return Ok(parts);
        }
        let mut whole = Statement::default();
        for (index, part) in parts.into_iter().enumerate() {
            whole.push(if index > 0 { " OR (" } else { "((" });
            whole.push(&part.conditions);
            whole.parameters.extend(part.parameters);
            whole.push(")");
        }
        whole.push(")");
        Ok(vec![whole])
    }

    /// Rows that equal the cursor in the first `depth` keys and meet one more condition.
    fn part(&self, places: &[(i64, Sql)], depth: usize, last: impl FnOnce(&mut Statement)) -> Statement {
        let mut part = Statement::default();
        for ((operand, _), (class, value)) in self.keys.iter().zip(places).take(depth) {
            part.and(|sql| {
                sql.push(&format!("{} = {class} AND {}", operand.class, operand.value));
                if *value == Sql::Null {
                    sql.push(" IS NULL");
                } else {
                    sql.push(" = ");
                    sql.bind(value.clone());
                }
            });
        }
        part.and(last);
        part
    }
}

/// Class and value as JSON. Reals go as bits, since JSON has no infinity.
fn pack(class: i64, value: Sql) -> Value {
    let value = match value {
        Sql::Integer(integer) => Value::from(integer),
        Sql::Real(real) => Value::from(format!("r{:016x}", real.to_bits())),
        Sql::Text(text) => Value::from(format!("t{text}")),
        Sql::Null | Sql::Blob(_) => Value::Null,
    };
    Value::from(vec![Value::from(class), value])
}

fn unpack(key: &Value) -> Option<(i64, Sql)> {
    let [class, value] = key.as_array()?.as_slice() else { return None };
    let value = match value {
        Value::Null => Sql::Null,
        Value::Number(number) => Sql::Integer(number.as_i64()?),
        Value::String(text) => match text.strip_prefix('t') {
            Some(text) => Sql::Text(text.to_owned()),
            None => Sql::Real(f64::from_bits(u64::from_str_radix(text.strip_prefix('r')?, 16).ok()?)),
        },
        _ => return None,
    };
    Some((class.as_i64()?, value))
}
