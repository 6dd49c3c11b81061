//! Sorts and pages as SQL.
//!
//! SQLite reads in the order of an index only if the statement asks for no more than the index gives. It does not see
//! that an expression which is compared with one value is the same in all rows, so what the conditions fix ([`Fixed`])
//! is left out of ORDER BY here.

use rusqlite::types::Value as Sql;
use rusqlite::{Connection, Row, params_from_iter};
use serde_json::Value;
use snaphook_driver::{
    Condition, Cursor, DriverError, ErrorKind, Instance, InstancePage, InstanceQuery, PAGE_BYTES_MAX, Result,
};

use super::condition::{Fixed, Statement, fixed_by, where_clause};
use super::table::{Operand, Table};
use crate::fault::fault;

/// Columns of an instance in the order that [`decode`] expects.
pub(super) const COLUMNS: &str =
    "_id, _model_version, _revision, _position, _created_at, _updated_at, coalesce(_text, _data)";

/// Pages up to this size that an index gives are read on the caller's thread.
const PAGE_INLINE_MAX: u32 = 100;

/// Whether the query touches about as many rows as it answers.
pub(super) fn is_short(table: &Table, query: &InstanceQuery) -> bool {
    let mut fixed = fixed_paths(table, query);
    fixed.dedup();
    query.limit <= PAGE_INLINE_MAX
        && fixed.len() == query.filter.len()
        && table.given(&fixed, &query.sort).is_some_and(|given| given.lead == fixed.len())
}

/// Paths that the filter compares with one value.
fn fixed_paths<'a>(table: &Table, query: &'a InstanceQuery) -> Vec<&'a [String]> {
    let fixes = |condition: &&Condition| fixed_by(&table.operand(&condition.path), &condition.operator) == Fixed::Value;
    query.filter.iter().filter(fixes).map(|condition| condition.path.as_slice()).collect()
}

/// One page; see [`snaphook_driver::ModelStore::query`].
pub(super) fn page(connection: &Connection, table: &Table, query: &InstanceQuery) -> Result<InstancePage> {
    let cursor = Cursor::decode(&table.model, query)?;
    let order = Order::new(table, query);
    let filter = where_clause(table, &query.filter);
    let limit = query.limit.max(1) as usize;
    let mut rows: Vec<(Instance, Vec<Value>)> = Vec::new();
    let parts = order.parts(cursor.as_ref())?;
    // More than one part must see the same state.
    let transaction =
        (parts.len() > 1).then(|| connection.unchecked_transaction()).transpose().map_err(fault("query"))?;
    let mut bytes = 0;
    for part in parts {
        // One more than the page tells whether there is a next one.
        let wanted = limit + 1 - rows.len();
        let statement = order.statement(table, &filter, part, wanted);
        order.read(connection, table, statement, &mut rows, &mut bytes).map_err(fault("query"))?;
        if rows.len() > limit || is_large(bytes, &rows) {
            break;
        }
    }
    drop(transaction);
    let held = if is_large(bytes, &rows) { limit.min(rows.len() - 1) } else { limit };
    let next = (rows.len() > held).then(|| {
        rows.truncate(held);
        let last = rows.last().map(|(instance, keys)| Cursor { keys: keys.clone(), id: instance.id.clone() });
        last.map(|cursor| cursor.encode(&table.model, query))
    });
    Ok(InstancePage { items: rows.into_iter().map(|(instance, _)| instance).collect(), next: next.flatten() })
}

/// Whether the last of these rows is more than the page may hold.
fn is_large(bytes: usize, rows: &[(Instance, Vec<Value>)]) -> bool {
    bytes > PAGE_BYTES_MAX && rows.len() > 1
}

/// See [`snaphook_driver::ModelStore::count`].
pub(super) fn count(connection: &Connection, table: &Table, filter: &[Condition]) -> rusqlite::Result<u64> {
    let statement = where_clause(table, filter);
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

/// A sort order, in SQL: class and value of each key, then the id.
struct Order {
    keys: Vec<Key>,
    /// Whether an index gives the order.
    indexed: bool,
    /// The key that comes in order only within one class at a time.
    by_class: Option<usize>,
}

struct Key {
    operand: Operand,
    descending: bool,
    /// What the filter fixes.
    fixed: Fixed,
}

/// A part of the rows in question; all of one part come before those of the next.
struct Part {
    conditions: Statement,
    /// What the filter and these conditions fix of each key.
    fixed: Vec<Fixed>,
}

impl Order {
    fn new(table: &Table, query: &InstanceQuery) -> Self {
        let keys = query.sort.iter().map(|key| {
            let operand = table.operand(&key.path);
            let conditions = query.filter.iter().filter(|condition| condition.path == key.path);
            let fixed = conditions.map(|condition| fixed_by(&operand, &condition.operator)).max();
            Key { operand, descending: key.descending, fixed: fixed.unwrap_or(Fixed::Nothing) }
        });
        let keys: Vec<Key> = keys.collect();
        let given = table.given(&fixed_paths(table, query), &query.sort);
        let first = keys.iter().position(|key| key.fixed < Fixed::Value);
        let by_class =
            first.filter(|first| keys[*first].fixed < Fixed::Class && given.is_some_and(|given| given.backwards));
        Order { keys, indexed: given.is_some(), by_class }
    }

    /// The statement of one part of a page, and its parameters.
    fn statement(&self, table: &Table, filter: &Statement, part: Part, limit: usize) -> (String, Vec<Sql>) {
        let mut all = filter.clone();
        if !part.conditions.conditions.is_empty() {
            all.and(|sql| {
                sql.push(&part.conditions.conditions);
                sql.parameters.extend(part.conditions.parameters);
            });
        }
        let mut columns = String::from(COLUMNS);
        let mut terms = String::new();
        for (Key { operand, descending, .. }, fixed) in self.keys.iter().zip(part.fixed) {
            columns.push_str(&format!(", {}, {}", operand.class, operand.value));
            if fixed == Fixed::Nothing {
                terms.push_str(&format!("{}, ", operand.class));
            }
            if fixed != Fixed::Value {
                let direction = if *descending { " DESC" } else { "" };
                terms.push_str(&format!("{}{direction}, ", operand.value));
            }
        }
        let sql = format!("SELECT {columns} FROM {}{} ORDER BY {terms}_id LIMIT ?", table.name, all.clause());
        all.parameters.push(Sql::Integer(i64::try_from(limit).unwrap_or(i64::MAX)));
        (sql, all.parameters)
    }

    fn read(
        &self,
        connection: &Connection,
        table: &Table,
        (sql, parameters): (String, Vec<Sql>),
        rows: &mut Vec<(Instance, Vec<Value>)>,
        bytes: &mut usize,
    ) -> rusqlite::Result<()> {
        let mut statement = connection.prepare_cached(&sql)?;
        let mut found = statement.query(params_from_iter(&parameters))?;
        while let Some(row) = found.next()? {
            let keys = (0..self.keys.len())
                .map(|key| Ok(pack(row.get(7 + 2 * key)?, row.get(8 + 2 * key)?)))
                .collect::<rusqlite::Result<_>>()?;
            let instance = decode(row, &table.model)?;
            *bytes += instance.data.len();
            rows.push((instance, keys));
            // The row that is too much tells that there is a next page.
            if is_large(*bytes, rows) {
                break;
            }
        }
        Ok(())
    }

    /// The rows after a cursor: all at once, or, where an index gives the order, one range of it after the other,
    /// nearest first.
    fn parts(&self, cursor: Option<&Cursor>) -> Result<Vec<Part>> {
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
        let mut parts = vec![self.part(&places, places.len(), Fixed::Nothing, behind)];
        for depth in (0..places.len()).rev() {
            let Key { operand, descending, fixed } = &self.keys[depth];
            let (class, value) = &places[depth];
            if *fixed < Fixed::Value && *value != Sql::Null {
                let mut beyond = Statement::default();
                let operator = if *descending { "<" } else { ">" };
                beyond.push(&format!("{} = {class} AND {} {operator} ", operand.class, operand.value));
                beyond.bind(value.clone());
                parts.push(self.part(&places[..depth], depth, Fixed::Class, beyond));
            }
            if *fixed < Fixed::Class && *class < operand.class_absent() {
                parts.extend(self.classes(&places[..depth], depth, *class));
            }
        }
        if self.indexed || parts.len() == 1 {
            return Ok(parts);
        }
        let mut whole = Statement::default();
        for (index, part) in parts.into_iter().enumerate() {
            whole.push(if index > 0 { " OR (" } else { "((" });
            whole.push(&part.conditions.conditions);
            whole.parameters.extend(part.conditions.parameters);
            whole.push(")");
        }
        whole.push(")");
        Ok(vec![self.part(&[], 0, Fixed::Nothing, whole)])
    }

    /// Rows that equal the cursor in the first keys and are of a class beyond `class` in the key at `depth`.
    fn classes(&self, places: &[(i64, Sql)], depth: usize, class: i64) -> Vec<Part> {
        let operand = &self.keys[depth].operand;
        let condition = |fixed, sql: String| {
            let mut condition = Statement::default();
            condition.push(&sql);
            self.part(places, depth, fixed, condition)
        };
        if self.by_class != Some(depth) {
            return vec![condition(Fixed::Nothing, format!("{} > {class}", operand.class))];
        }
        (class + 1..=operand.class_absent())
            .map(|class| condition(Fixed::Class, format!("{} = {class}", operand.class)))
            .collect()
    }

    /// Rows that equal the cursor in its first keys and meet one more condition, which fixes `by_last` of the key at
    /// `depth`.
    fn part(&self, places: &[(i64, Sql)], depth: usize, by_last: Fixed, last: Statement) -> Part {
        let mut fixed: Vec<Fixed> = self.keys.iter().map(|key| key.fixed).collect();
        let mut conditions = Statement::default();
        for ((Key { operand, .. }, (class, value)), fixed) in self.keys.iter().zip(places).zip(&mut fixed) {
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
            *fixed = Fixed::Value;
        }
        if !last.conditions.is_empty() {
            conditions.and(|sql| {
                sql.push(&last.conditions);
                sql.parameters.extend(last.parameters);
            });
        }
        if let Some(fixed) = fixed.get_mut(depth) {
            *fixed = by_last.max(*fixed);
        }
        Part { conditions, fixed }
    }

    /// The classes and values at which a page ended.
    fn places(&self, cursor: &Cursor) -> Result<Vec<(i64, Sql)>> {
        let place = |(packed, key): (&Value, &Key)| {
            unpack(packed).filter(|(class, _)| (0..=key.operand.class_absent()).contains(class))
        };
        let places: Option<Vec<_>> = cursor.keys.iter().zip(&self.keys).map(place).collect();
        places.ok_or_else(|| {
            DriverError::new(ErrorKind::Invalid, "query", "the cursor is damaged, start again without one")
        })
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

#[cfg(test)]
mod tests {
    use serde_json::json;
    use snaphook_driver::{Column, ColumnKind, Json, ModelShape, Operator, SortKey};

    use super::super::migrate;
    use super::super::names::Counter;
    use super::*;

    fn key(text: &str) -> SortKey {
        let (descending, path) = text.strip_prefix('-').map_or((false, text), |path| (true, path));
        SortKey { path: path.split('.').map(str::to_owned).collect(), descending }
    }

    /// A table with these indexes, in memory.
    fn table(indexes: &[&[&str]]) -> (Connection, Table) {
        let column = |name: &str, kind| Column { name: name.into(), kind };
        let shape = ModelShape {
            model: "m".into(),
            version: 1,
            columns: vec![
                column("status", ColumnKind::Text),
                column("total", ColumnKind::Number),
                column("any", ColumnKind::Any),
                column("two words", ColumnKind::Text),
            ],
            indexes: indexes.iter().map(|index| index.iter().map(|text| key(text)).collect()).collect(),
            unique: vec![vec!["status".into(), "any".into()]],
            record: Json::trusted("{}"),
        };
        let table = Table::follow(None, &shape, &mut Counter(0));
        let connection = Connection::open_in_memory().unwrap();
        connection
            .create_scalar_function("_like", 2, rusqlite::functions::FunctionFlags::SQLITE_DETERMINISTIC, |_| Ok(true))
            .unwrap();
        migrate::create(&connection, &table).unwrap();
        (connection, table)
    }

    /// SQLite's plans for all statements of one page.
    fn plan(indexes: &[&[&str]], filter: &[(&str, Operator)], sort: &[&str], after: Option<&Cursor>) -> String {
        let (connection, table) = table(indexes);
        let query = InstanceQuery {
            filter: filter
                .iter()
                .map(|(path, operator)| Condition { path: key(path).path, operator: operator.clone() })
                .collect(),
            sort: sort.iter().map(|text| key(text)).collect(),
            limit: 10,
            cursor: None,
        };
        let order = Order::new(&table, &query);
        let statement = where_clause(&table, &query.filter);
        let parts = order.parts(after).unwrap();
        let mut plans = Vec::new();
        for part in parts {
            let (sql, parameters) = order.statement(&table, &statement, part, 10);
            let mut explain = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let rows = explain.query_map(params_from_iter(&parameters), |row| row.get::<_, String>(3)).unwrap();
            plans.extend(rows.map(Result::unwrap));
        }
        plans.join("\n")
    }

    #[test]
    fn filters_and_sorts_are_answered_from_indexes() {
        let indexes: &[&[&str]] = &[&["status", "-total"], &["-total"], &["deep.name"], &["any"], &["two words"]];
        let is = |text: &str| Operator::Eq(json!(text));
        let real = |value: f64| pack(0, Sql::Real(value));
        let text = |class: i64, text: &str| pack(class, Sql::Text(text.into()));
        let none = |class: i64| pack(class, Sql::Null);
        type Case = (Vec<(&'static str, Operator)>, &'static [&'static str], Option<Vec<Value>>);
        let cases: Vec<Case> = vec![
            (vec![], &[], None),
            (vec![], &[], Some(vec![])),
            (vec![("any", is("a"))], &[], None),
            (vec![("any", is("a"))], &[], Some(vec![])),
            (vec![("any", Operator::In(vec![json!(5), Value::Null]))], &[], None),
            (vec![("any", Operator::Exists(false))], &[], None),
            (vec![("total", Operator::Exists(false))], &[], None),
            (vec![("two words", is("a"))], &[], None),
            (vec![("status", is("a")), ("any", is("b"))], &[], None),
            (vec![], &["-total"], None),
            (vec![], &["-total"], Some(vec![real(1.5)])),
            (vec![], &["-total"], Some(vec![none(1)])),
            (vec![], &["status", "-total"], None),
            (vec![], &["status", "-total"], Some(vec![text(0, "a"), real(2.0)])),
            (vec![], &["status", "-total"], Some(vec![text(0, "a"), none(1)])),
            (vec![], &["status", "-total"], Some(vec![none(1), real(2.0)])),
            (vec![], &["any"], Some(vec![text(2, "a")])),
            (vec![], &["any"], Some(vec![none(3)])),
            (vec![("status", is("a"))], &["-total"], None),
            (vec![("status", is("a"))], &["-total"], Some(vec![real(1.5)])),
            (vec![("status", is("a"))], &["status", "-total"], None),
            (vec![("status", is("a"))], &["status", "-total"], Some(vec![text(0, "a"), real(1.5)])),
            (vec![("status", is("a"))], &["-total", "status"], None),
            (vec![("status", is("a")), ("total", Operator::Eq(json!(5)))], &["status"], None),
            (vec![("status", is("a")), ("total", Operator::Lt(json!(5)))], &["-total"], None),
            (vec![("total", Operator::Gt(json!(5)))], &["-total"], None),
            (vec![("total", Operator::Gt(json!(5)))], &["-total"], Some(vec![real(9.5)])),
            (vec![("total", Operator::Exists(true))], &["-total"], None),
            (vec![("total", Operator::Ne(json!(5)))], &["-total"], None),
            (vec![("deep.name", Operator::Gte(json!("a")))], &["deep.name"], None),
            (vec![("deep.name", Operator::Like("ab%".into()))], &["deep.name"], None),
            (vec![("any", Operator::Lt(json!(5)))], &["any"], None),
            (vec![("two words", Operator::Lt(json!("a")))], &["two words"], None),
        ];
        for (filter, sort, keys) in cases {
            let cursor = keys.map(|keys| Cursor { keys, id: "x".into() });
            let plan = plan(indexes, &filter, sort, cursor.as_ref());
            let from_index = plan.lines().all(|line| line.contains("USING INDEX"));
            assert!(from_index, "{filter:?} by {sort:?} after {cursor:?}:\n{plan}");
        }
    }

    /// Only what is equal but for the id is sorted then, at most as much as has one value.
    #[test]
    fn an_index_serves_the_other_direction_too() {
        let indexes: &[&[&str]] = &[&["status", "-total"], &["-total"], &["any"]];
        let is = |text: &str| Operator::Eq(json!(text));
        let real = || pack(0, Sql::Real(1.5));
        for (filter, sort, keys, parts) in [
            (vec![], "total", None, 2),
            (vec![], "total", Some(real()), 3),
            (vec![], "total", Some(pack(1, Sql::Null)), 1),
            (vec![], "-any", None, 5),
            (vec![], "-any", Some(pack(1, Sql::Integer(5))), 5),
            (vec![("status", is("a"))], "total", None, 2),
            (vec![("total", Operator::Gt(json!(5)))], "total", None, 1),
            (vec![("total", Operator::Gt(json!(5)))], "total", Some(real()), 2),
        ] {
            let cursor = keys.map(|key| Cursor { keys: vec![key], id: "x".into() });
            let plan = plan(indexes, &filter, &[sort], cursor.as_ref());
            let name = format!("{filter:?} by {sort} after {cursor:?}:\n{plan}");
            assert_eq!(plan.lines().filter(|line| line.starts_with("SEARCH m1 USING INDEX")).count(), parts, "{name}");
            let rest = plan.lines().filter(|line| !line.starts_with("SEARCH m1 USING INDEX"));
            assert!(rest.into_iter().all(|line| line == "USE TEMP B-TREE FOR LAST TERM OF ORDER BY"), "{name}");
        }
    }

    #[test]
    fn short_queries() {
        let indexes: &[&[&str]] = &[&["status", "-total"], &["-total"]];
        for (filter, sort, short) in [
            (vec![], vec![], true),
            (vec![], vec!["-total"], true),
            (vec![], vec!["total"], true),
            (vec![], vec!["any"], false),
            (vec!["status"], vec!["-total"], true),
            // All that are equal must be sorted by id.
            (vec!["status"], vec![], false),
            // Many may be passed over.
            (vec!["any"], vec!["-total"], false),
            (vec!["status", "total"], vec![], true),
            (vec!["status", "any"], vec![], true),
            (vec!["status", "any"], vec!["-total"], false),
        ] {
            let query = InstanceQuery {
                filter: filter
                    .iter()
                    .map(|path| {
                        let value = if *path == "total" { json!(1) } else { json!("a") };
                        Condition { path: key(path).path, operator: Operator::Eq(value) }
                    })
                    .collect(),
                sort: sort.iter().map(|text| key(text)).collect(),
                limit: 10,
                cursor: None,
            };
            assert_eq!(is_short(&table(indexes).1, &query), short, "{filter:?} by {sort:?}");
        }
    }

    #[test]
    fn equality_and_ranges_are_searched_not_scanned() {
        let indexes: &[&[&str]] = &[&["status", "-total"], &["deep.name"], &["any"]];
        for (path, operator, terms) in [
            ("status", Operator::Eq(json!("a")), 2),
            ("status", Operator::In(vec![json!("a"), json!("b")]), 2),
            ("status", Operator::Gt(json!("a")), 2),
            ("deep.name", Operator::Eq(json!("a")), 2),
            ("deep.name", Operator::Like("abc%".into()), 3),
            ("any", Operator::Lte(json!(5)), 2),
            ("any", Operator::Eq(json!(true)), 2),
        ] {
            let plan = plan(indexes, &[(path, operator.clone())], &[], None);
            let searched = plan
                .lines()
                .any(|line| line.starts_with("SEARCH m1 USING INDEX") && line.matches(" AND ").count() + 1 >= terms);
            assert!(searched, "{path} {operator:?}: {plan}");
        }
    }
}
