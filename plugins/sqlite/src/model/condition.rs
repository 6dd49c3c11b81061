//! Conditions of a filter as SQL.
//!
//! Every comparison is "class equals and value compares" (see [`super::table`]), which matches both the trait's
//! definition and the contents of the indexes.

use rusqlite::types::Value as Sql;
use serde_json::Value;
use snaphook_driver::compare::number_key;
use snaphook_driver::{ColumnKind, Condition, Filter, InstanceQuery, Operator, Path, SortKey};

use super::meta;
use super::statement::Statement;
use super::table::{Operand, Table};
use crate::value::CLASS_ARRAY;

/// What a condition makes equal in all matching rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fixed {
    Nothing,
    Class,
    /// The value, and with it the class.
    Value,
}

/// Paths that the filter compares with a single value.
pub(super) fn fixed_paths<'a>(table: &Table, query: &'a InstanceQuery) -> Vec<&'a Path> {
    let fixes = |condition: &&Condition| fixed_by(&table.operand(&condition.path), &condition.operator) == Fixed::Value;
    conditions(&query.filter).into_iter().filter(fixes).map(|condition| &condition.path).collect()
}

/// The conditions that all matching rows of a filter satisfy.
pub(super) fn conditions(filter: &Filter) -> Vec<&Condition> {
    let conditions = filter.conjuncts().into_iter().map(|part| match part {
        Filter::Condition(condition) => Some(condition),
        _ => None,
    });
    conditions.flatten().collect()
}

/// The conditions of a filter. `bounded` are sort keys that a cursor bounds at the start of the rows: other conditions
/// that bound them there are written so that SQLite does not use those for the index instead.
pub(super) fn where_clause(table: &Table, filter: &Filter, bounded: &[SortKey]) -> Statement {
    let mut statement = Statement::default();
    for part in filter.conjuncts() {
        match part {
            Filter::Condition(condition) => {
                let key = bounded.iter().find(|key| key.path == condition.path);
                statement.and(|sql| write_condition(sql, table, condition, key));
            }
            other => statement.and(|sql| write_filter(sql, table, other)),
        }
    }
    statement
}

/// A filter in parentheses: true if it matches, otherwise false or NULL.
fn write_filter(sql: &mut Statement, table: &Table, filter: &Filter) {
    let (parts, joint, none) = match filter {
        Filter::Condition(condition) => {
            sql.push("(");
            write_condition(sql, table, condition, None);
            return sql.push(")");
        }
        Filter::Not(part) => {
            sql.push("(");
            write_filter(sql, table, part);
            return sql.push(" IS NOT TRUE)");
        }
        Filter::And(parts) => (parts, " AND ", "TRUE"),
        Filter::Or(parts) => (parts, " OR ", "FALSE"),
    };
    if parts.is_empty() {
        return sql.push(none);
    }
    sql.push("(");
    for (index, part) in parts.iter().enumerate() {
        sql.push(if index > 0 { joint } else { "" });
        write_filter(sql, table, part);
    }
    sql.push(")");
}

fn write_condition(sql: &mut Statement, table: &Table, condition: &Condition, bounded: Option<&SortKey>) {
    if let Path::Meta(meta) = condition.path {
        return meta::write_condition(sql, meta, &condition.operator);
    }
    let mut operand = table.operand(&condition.path);
    let from_below = matches!(condition.operator, Operator::Gt(_) | Operator::Gte(_));
    let from_above = matches!(condition.operator, Operator::Lt(_) | Operator::Lte(_));
    if bounded.is_some_and(|key| if key.descending { from_above } else { from_below }) {
        // The plus sign only prevents the use of the index for this condition.
        operand.value.insert(0, '+');
    }
    match &condition.operator {
        Operator::Eq(value) => compare(sql, &operand, "=", value),
        Operator::Lt(value) => compare(sql, &operand, "<", value),
        Operator::Lte(value) => compare(sql, &operand, "<=", value),
        Operator::Gt(value) => compare(sql, &operand, ">", value),
        Operator::Gte(value) => compare(sql, &operand, ">=", value),
        Operator::Ne(value) => none_of(sql, &operand, std::slice::from_ref(value)),
        Operator::In(values) => any_of(sql, &operand, values),
        Operator::Nin(values) => none_of(sql, &operand, values),
        Operator::Like(pattern) => like(sql, &operand, pattern, bounded),
        Operator::Ilike(pattern) => ilike(sql, &operand, pattern),
        Operator::Has(value) => has(sql, &operand, value),
        Operator::Exists(true) => sql.push(&present(&operand)),
        // The second condition is redundant, but lets an index return these rows by id.
        Operator::Exists(false) => {
            sql.push(&format!("{} = {} AND {} IS NULL", operand.class, operand.class_absent(), operand.value));
        }
    }
}

/// What [`write_condition`] makes equal in all rows.
pub(super) fn fixed_by(operand: &Operand, operator: &Operator) -> Fixed {
    // It always has one class, and no index needs more information.
    if operand.is_meta {
        return Fixed::Class;
    }
    let comparable = |value: &Value| class_of(operand, value).is_some();
    let one_class = if operand.kind.is_some() { Fixed::Class } else { Fixed::Nothing };
    match operator {
        Operator::Eq(value) if comparable(value) => Fixed::Value,
        Operator::Lt(value) | Operator::Lte(value) | Operator::Gt(value) | Operator::Gte(value)
            if comparable(value) =>
        {
            Fixed::Class
        }
        Operator::In(values) => match by_class(operand, values).as_slice() {
            [(_, values)] if values.len() == 1 => Fixed::Value,
            [_] => Fixed::Class,
            _ => Fixed::Nothing,
        },
        Operator::Like(_) | Operator::Ilike(_) if comparable(&Value::String(String::new())) => Fixed::Class,
        Operator::Has(_) if operand.kind.is_none() => Fixed::Class,
        Operator::Ne(_) | Operator::Nin(_) | Operator::Exists(true) => one_class,
        Operator::Exists(false) => Fixed::Value,
        // These operators never match here.
        Operator::Eq(_)
        | Operator::Lt(_)
        | Operator::Lte(_)
        | Operator::Gt(_)
        | Operator::Gte(_)
        | Operator::Like(_)
        | Operator::Ilike(_)
        | Operator::Has(_) => Fixed::Nothing,
    }
}

/// The condition that there is a value. If only one class means that, it is an equality, so that the following columns
/// of an index can be used.
pub(super) fn present(operand: &Operand) -> String {
    let operator = if operand.kind.is_some() { "= 0".to_owned() } else { format!("< {}", operand.class_absent()) };
    format!("{} {operator}", operand.class)
}

/// The class of a JSON value for an operand; `None` if no value of the operand can compare with it.
pub(super) fn class_of(operand: &Operand, value: &Value) -> Option<i64> {
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
        // Values of different classes are never equal; if there is only one class, comparisons with NULL are never
        // true.
        Some(_) if !operand.indexed && (operand.kind.is_some() || operator == "=") => {
            sql.push(&format!("{} {operator} ", operand.value));
            sql.bind(bound(value));
        }
        Some(class) => {
            sql.push(&format!("({} = {class} AND {} {operator} ", operand.class, operand.value));
            sql.bind(bound(value));
            sql.push(")");
        }
    }
}

/// The comparable values, grouped by class.
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
        match operand.indexed {
            true => sql.push(&format!("({} = {class} AND {} IN (", operand.class, operand.value)),
            false => sql.push(&format!("(coalesce({} IN (", operand.value)),
        }
        for (index, value) in values.iter().enumerate() {
            sql.push(if index > 0 { ", " } else { "" });
            sql.bind(bound(value));
        }
        sql.push(if operand.indexed { "))" } else { "), FALSE))" });
    }
    sql.push(")");
}

fn none_of(sql: &mut Statement, operand: &Operand, values: &[Value]) {
    sql.push(&format!("({}", present(operand)));
    let lists = by_class(operand, values);
    if !lists.is_empty() {
        sql.push(" AND NOT ");
        any_of(sql, operand, values);
    }
    sql.push(")");
}

fn like(sql: &mut Statement, operand: &Operand, pattern: &str, bounded: Option<&SortKey>) {
    let Some(class) = class_of(operand, &Value::String(String::new())) else {
        return sql.push("FALSE");
    };
    if !operand.indexed {
        sql.push(&format!("_like({}, ", operand.value));
        sql.bind(Sql::Text(pattern.to_owned()));
        return sql.push(")");
    }
    sql.push(&format!("({} = {class} AND _like({}, ", operand.class, operand.value));
    sql.bind(Sql::Text(pattern.to_owned()));
    sql.push(")");
    // The required prefix is a lower bound in an index, and its successor an upper bound.
    let prefix: String = pattern.chars().take_while(|char| !matches!(char, '%' | '_' | '\\')).collect();
    if !prefix.is_empty() {
        let plus = |descending| if bounded.is_some_and(|key| key.descending == descending) { "+" } else { "" };
        sql.push(&format!(" AND {}{} >= ", plus(false), operand.value));
        sql.bind(Sql::Text(prefix.clone()));
        if let Some(end) = successor(&prefix) {
            sql.push(&format!(" AND {}{} < ", plus(true), operand.value));
            sql.bind(Sql::Text(end));
        }
    }
    sql.push(")");
}

fn ilike(sql: &mut Statement, operand: &Operand, pattern: &str) {
    let Some(class) = class_of(operand, &Value::String(String::new())) else {
        return sql.push("FALSE");
    };
    if operand.indexed {
        sql.push(&format!("({} = {class} AND ", operand.class));
    }
    sql.push(&format!("_ilike({}, ", operand.value));
    sql.bind(Sql::Text(pattern.to_owned()));
    sql.push(if operand.indexed { "))" } else { ")" });
}

/// The function reads the data itself, because an index only contains the class of an array.
fn has(sql: &mut Statement, operand: &Operand, value: &Value) {
    let is_scalar = !matches!(value, Value::Null | Value::Array(_) | Value::Object(_));
    if operand.kind.is_some() || !is_scalar {
        return sql.push("FALSE");
    }
    sql.push(&format!("({} = {CLASS_ARRAY} AND _has(", operand.class));
    sql.bind(Sql::Text(value.to_string()));
    sql.push(&format!(", {}))", operand.arguments));
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

/// A scalar as [`crate::value`] returns it.
pub(super) fn bound(value: &Value) -> Sql {
    match value {
        Value::Bool(value) => Sql::Integer(i64::from(*value)),
        Value::Number(number) => Sql::Blob(number_key(&number.to_string())),
        Value::String(text) => Sql::Text(text.clone()),
        Value::Null | Value::Array(_) | Value::Object(_) => Sql::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::successor;

    #[test]
    fn the_next_text_after_a_prefix() {
        assert_eq!(successor("ab"), Some("ac".into()));
        assert_eq!(successor("a\u{10ffff}"), Some("b".into()));
        assert_eq!(successor("\u{10ffff}"), None);
        assert_eq!(successor("\u{d7ff}"), Some("\u{e000}".into()));
    }
}
