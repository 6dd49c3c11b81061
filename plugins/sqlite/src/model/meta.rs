//! Conditions on an instance's metadata, as SQL over the table's own columns, which are never NULL.

use rusqlite::types::Value as Sql;
use serde_json::Value;
use snaphook_driver::compare::{Found, holds, number_key};
use snaphook_driver::{Meta, Operator};

use super::statement::Statement;

/// The column.
pub(super) fn column(meta: Meta) -> &'static str {
    match meta {
        Meta::Id => "_id",
        Meta::CreatedAt => "_created_at",
        Meta::UpdatedAt => "_updated_at",
        Meta::Revision => "_revision",
        Meta::Position => "_position",
    }
}

pub(super) fn write_condition(sql: &mut Statement, meta: Meta, operator: &Operator) {
    match operator {
        Operator::Eq(value) => compare(sql, meta, "=", value),
        Operator::Ne(value) => none_of(sql, meta, std::slice::from_ref(value)),
        Operator::Lt(value) => compare(sql, meta, "<", value),
        Operator::Lte(value) => compare(sql, meta, "<=", value),
        Operator::Gt(value) => compare(sql, meta, ">", value),
        Operator::Gte(value) => compare(sql, meta, ">=", value),
        Operator::In(values) => any_of(sql, meta, values),
        Operator::Nin(values) => none_of(sql, meta, values),
        Operator::Like(pattern) => like(sql, meta, "_like", pattern),
        Operator::Ilike(pattern) => like(sql, meta, "_ilike", pattern),
        Operator::Has(_) => sql.push("FALSE"),
        Operator::Exists(wanted) => sql.push(if *wanted { "TRUE" } else { "FALSE" }),
    }
}

/// Whether a value is of the column's type.
fn is_comparable(meta: Meta, value: &Value) -> bool {
    let sample = if meta == Meta::Id { Found::Text("") } else { Found::Integer(0) };
    [Operator::Lte(value.clone()), Operator::Gte(value.clone())].iter().any(|operator| holds(Some(sample), operator))
}

fn compare(sql: &mut Statement, meta: Meta, operator: &str, value: &Value) {
    let column = column(meta);
    if !is_comparable(meta, value) {
        return sql.push("FALSE");
    }
    match value {
        Value::String(text) => {
            sql.push(&format!("{column} {operator} "));
            sql.bind(Sql::Text(text.clone()));
        }
        Value::Number(number) => match number.as_i64() {
            Some(whole) => {
                sql.push(&format!("{column} {operator} "));
                sql.bind(Sql::Integer(whole));
            }
            // A number with a fraction, or larger than any column value.
            None => {
                sql.push(&format!("_number({column}) {operator} "));
                sql.bind(Sql::Blob(number_key(number.as_str())));
            }
        },
        _ => sql.push("FALSE"),
    }
}

fn any_of(sql: &mut Statement, meta: Meta, values: &[Value]) {
    let column = column(meta);
    let whole = |value: &Value| match value {
        Value::String(text) if meta == Meta::Id => Some(Sql::Text(text.clone())),
        Value::Number(number) if meta != Meta::Id => number.as_i64().map(Sql::Integer),
        _ => None,
    };
    let listed: Vec<Sql> = values.iter().filter_map(whole).collect();
    sql.push(&format!("({column} IN ("));
    for (index, value) in listed.into_iter().enumerate() {
        sql.push(if index > 0 { ", " } else { "" });
        sql.bind(value);
    }
    sql.push(")");
    let keys: Vec<Sql> = values
        .iter()
        .filter(|value| meta != Meta::Id && whole(value).is_none())
        .filter_map(|value| value.as_number().map(|number| Sql::Blob(number_key(number.as_str()))))
        .collect();
    if !keys.is_empty() {
        sql.push(&format!(" OR _number({column}) IN ("));
        for (index, value) in keys.into_iter().enumerate() {
            sql.push(if index > 0 { ", " } else { "" });
            sql.bind(value);
        }
        sql.push(")");
    }
    sql.push(")");
}

fn none_of(sql: &mut Statement, meta: Meta, values: &[Value]) {
    sql.push("NOT ");
    any_of(sql, meta, values);
}

fn like(sql: &mut Statement, meta: Meta, function: &str, pattern: &str) {
    if meta != Meta::Id {
        return sql.push("FALSE");
    }
    sql.push(&format!("{function}({}, ", column(meta)));
    sql.bind(Sql::Text(pattern.to_owned()));
    sql.push(")");
}
