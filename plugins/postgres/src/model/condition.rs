//! Conditions of a filter as SQL over key columns.
//!
//! Each condition becomes an interval of a column, or a list of its values. If a column contains only the beginning of
//! a long key, the SQL may match too many rows, never too few, and the driver checks the data again.

use serde_json::Value;
use snaphook_driver::Operator;
use tokio_postgres::types::{ToSql, Type};

use super::key::{ABSENT, OTHER, TEXT, is_exact, key, prefix_key, stored};

/// What the SQL of a condition matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Exactly the rows that meet the condition.
    Exact,
    /// Also rows that do not meet the condition.
    Recheck,
    /// No row meets the condition.
    Never,
}

#[derive(Clone, Debug)]
pub(super) enum Parameter {
    Key(Vec<u8>),
    Keys(Vec<Vec<u8>>),
}

/// Conditions joined by "and", with their parameters.
#[derive(Clone, Debug, Default)]
pub(super) struct Where {
    conditions: Vec<String>,
    pub(super) parameters: Vec<Parameter>,
}

impl Where {
    pub(super) fn and(&mut self, condition: String) {
        self.conditions.push(condition);
    }

    /// Adds a parameter and returns its placeholder.
    pub(super) fn bind(&mut self, parameter: Parameter) -> String {
        self.parameters.push(parameter);
        format!("${}", self.parameters.len())
    }

    pub(super) fn compare(&mut self, column: &str, operator: &str, key: &[u8]) {
        let place = self.bind(Parameter::Key(key.to_vec()));
        self.and(format!("{column} {operator} {place}"));
    }

    pub(super) fn clause(&self) -> String {
        if self.conditions.is_empty() { String::new() } else { format!(" WHERE {}", self.conditions.join(" AND ")) }
    }

    pub(super) fn typed(&self) -> Vec<(&(dyn ToSql + Sync), Type)> {
        let mut typed: Vec<(&(dyn ToSql + Sync), Type)> = Vec::with_capacity(self.parameters.len());
        for parameter in &self.parameters {
            typed.push(match parameter {
                Parameter::Key(key) => (key, Type::BYTEA),
                Parameter::Keys(keys) => (keys, Type::BYTEA_ARRAY),
            });
        }
        typed
    }
}

/// Whether all rows that meet the condition have the same value.
pub(super) fn fixes(operator: &Operator) -> bool {
    match operator {
        Operator::Eq(value) => is_scalar(value),
        Operator::In(values) => keys(values, false).len() == 1,
        Operator::Exists(wanted) => !wanted,
        _ => false,
    }
}

/// Whether an index that begins with the property narrows the search to the rows that meet the condition.
pub(super) fn narrows(operator: &Operator) -> bool {
    match operator {
        Operator::Ne(_) | Operator::Nin(_) | Operator::Exists(true) | Operator::Ilike(_) | Operator::Has(_) => false,
        Operator::Like(pattern) => !literal_prefix(pattern).is_empty(),
        _ => true,
    }
}

/// Adds a condition on a column. `from` is a key at which a cursor already begins: the lower bound of an interval is
/// left out if it is less, so that the index is read from the cursor.
pub(super) fn add(
    sql: &mut Where,
    column: &str,
    descending: bool,
    operator: &Operator,
    from: Option<&[u8]>,
) -> Verdict {
    let interval = |sql: &mut Where, first: Vec<u8>, first_too: bool, last: Vec<u8>, last_too: bool| {
        if from.is_none_or(|from| from < first.as_slice() || (from == first && !first_too)) {
            sql.compare(column, if first_too { ">=" } else { ">" }, &first);
        }
        sql.compare(column, if last_too { "<=" } else { "<" }, &last);
    };
    match operator {
        Operator::Eq(value) => one_of(sql, column, keys(std::slice::from_ref(value), descending)),
        Operator::In(values) => one_of(sql, column, keys(values, descending)),
        Operator::Ne(value) => none_of(sql, column, keys(std::slice::from_ref(value), descending)),
        Operator::Nin(values) => none_of(sql, column, keys(values, descending)),
        Operator::Lt(value) | Operator::Lte(value) | Operator::Gt(value) | Operator::Gte(value) => {
            if !is_scalar(value) {
                return Verdict::Never;
            }
            let whole = key(Some(value), descending);
            let (bound, class) = (stored(&whole).to_vec(), whole[0]);
            let too = !is_exact(&whole) || matches!(operator, Operator::Lte(_) | Operator::Gte(_));
            if matches!(operator, Operator::Lt(_) | Operator::Lte(_)) != descending {
                interval(sql, vec![class], true, bound, too);
            } else {
                interval(sql, bound, too, vec![class + 1], false);
            }
            exact_if(is_exact(&whole))
        }
        Operator::Like(pattern) => {
            let prefix = literal_prefix(pattern);
            let whole = prefix_key(&prefix, descending);
            let first = stored(&whole).to_vec();
            let mut last = first.clone();
            // No byte of a prefix's key is 255.
            last.iter_mut().last().into_iter().for_each(|byte| *byte += 1);
            interval(sql, first, true, last, false);
            let is_prefix = pattern.strip_suffix('%').is_some_and(|rest| *rest == *prefix);
            exact_if(is_prefix && is_exact(&whole))
        }
        Operator::Ilike(_) => {
            interval(sql, vec![TEXT], true, vec![TEXT + 1], false);
            Verdict::Recheck
        }
        Operator::Has(value) => {
            if !is_scalar(value) {
                return Verdict::Never;
            }
            sql.compare(column, "=", &[OTHER]);
            Verdict::Recheck
        }
        Operator::Exists(true) => {
            sql.compare(column, "<", &[ABSENT]);
            Verdict::Exact
        }
        Operator::Exists(false) => {
            sql.compare(column, "=", &[ABSENT]);
            Verdict::Exact
        }
    }
}

fn exact_if(exact: bool) -> Verdict {
    if exact { Verdict::Exact } else { Verdict::Recheck }
}

fn one_of(sql: &mut Where, column: &str, mut keys: Vec<Vec<u8>>) -> Verdict {
    let verdict = exact_if(keys.iter().all(|key| is_exact(key)));
    keys.iter_mut().for_each(|key| *key = stored(key).to_vec());
    keys.dedup();
    match keys.as_slice() {
        [] => return Verdict::Never,
        [key] => sql.compare(column, "=", key),
        _ => {
            let place = sql.bind(Parameter::Keys(keys));
            sql.and(format!("{column} = ANY({place})"));
        }
    }
    verdict
}

fn none_of(sql: &mut Where, column: &str, mut keys: Vec<Vec<u8>>) -> Verdict {
    sql.compare(column, "<", &[ABSENT]);
    let all = keys.len();
    // The column cannot exclude a long key.
    keys.retain(|key| is_exact(key));
    let verdict = exact_if(keys.len() == all);
    match keys.as_slice() {
        [] => {}
        [key] => sql.compare(column, "<>", key),
        _ => {
            let place = sql.bind(Parameter::Keys(keys));
            sql.and(format!("{column} <> ALL({place})"));
        }
    }
    verdict
}

/// The keys of the scalar values, each once.
fn keys(values: &[Value], descending: bool) -> Vec<Vec<u8>> {
    let scalars = values.iter().filter(|value| is_scalar(value));
    let mut keys: Vec<Vec<u8>> = scalars.map(|value| key(Some(value), descending)).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

fn is_scalar(value: &Value) -> bool {
    !matches!(value, Value::Null | Value::Array(_) | Value::Object(_))
}

/// The beginning of every text that matches the pattern.
fn literal_prefix(pattern: &str) -> String {
    pattern.chars().take_while(|char| !matches!(char, '%' | '_' | '\\')).collect()
}
