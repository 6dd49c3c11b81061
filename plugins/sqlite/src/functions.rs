//! The SQL functions of every connection; [`crate::value`] defines their meaning.
//!
//! - `_class(data, name…)` and `_value(data, name…)`: class and value at a path. Indexes use these functions, so their
//!   results for a text must never change without a new version of the file's format.
//! - `_sorted(data, name…)`: the same as `_value`, for sort keys that SQLite keeps in memory.
//! - `_like(value, pattern)`, `_ilike(value, pattern)`.
//! - `_has(scalar, data, name…)`: whether the array at a path has an element that equals a scalar, given as JSON.
//! - `_number(integer)`: the result of `_value` for that number.

use std::sync::Arc;

use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::{Value as Sql, ValueRef};
use rusqlite::{Connection, Error, Result};
use snaphook_driver::compare::{Pattern, number_key};

use crate::meter::{Meter, Stop};
use crate::value;

/// Sort keys up to this size are not counted: at most as many exist at once as a page has rows.
const SORTED_BYTES_FREE: usize = 4096;

const FLAGS: FunctionFlags =
    FunctionFlags::SQLITE_UTF8.union(FunctionFlags::SQLITE_DETERMINISTIC).union(FunctionFlags::SQLITE_INNOCUOUS);

pub(crate) fn register(connection: &Connection, meter: &Arc<Meter>) -> Result<()> {
    let charged = Arc::clone(meter);
    connection.create_scalar_function("_class", -1, FLAGS, move |context| {
        with_found(context, 0, &charged, |found| Ok(value::class(found)))
    })?;
    let charged = Arc::clone(meter);
    connection.create_scalar_function("_value", -1, FLAGS, move |context| {
        with_found(context, 0, &charged, |found| Ok(value::value(found)))
    })?;
    let charged = Arc::clone(meter);
    connection.create_scalar_function("_sorted", -1, FLAGS, move |context| {
        with_found(context, 0, &charged, |found| {
            let value = value::value(found);
            match &value {
                Sql::Text(text) if text.len() > SORTED_BYTES_FREE => charged.hold(text.len()).map_err(stopped)?,
                Sql::Blob(bytes) if bytes.len() > SORTED_BYTES_FREE => charged.hold(bytes.len()).map_err(stopped)?,
                _ => {}
            }
            Ok(value)
        })
    })?;
    type PatternOf = fn(&str) -> Pattern;
    for (name, pattern_of) in [("_like", Pattern::new as PatternOf), ("_ilike", Pattern::ignoring_case)] {
        let charged = Arc::clone(meter);
        connection.create_scalar_function(name, 2, FLAGS, move |context| {
            let (ValueRef::Text(_), Some(text)) = (context.get_raw(0), text(context, 0)) else { return Ok(false) };
            let pattern: Arc<Pattern> = context.get_or_create_aux(1, |pattern| {
                pattern.as_str().map(pattern_of).map_err(|error| Error::UserFunctionError(Box::new(error)))
            })?;
            pattern.matches_charged(text, &mut |steps| charged.charge(steps)).map_err(stopped)
        })?;
    }
    let charged = Arc::clone(meter);
    connection.create_scalar_function("_has", -1, FLAGS, move |context| {
        let wanted: Arc<(i64, Sql)> = context.get_or_create_aux(0, |scalar| {
            let scalar = scalar.as_str().map_err(|error| Error::UserFunctionError(Box::new(error)))?;
            Ok::<_, Error>((value::class(Some(scalar)), value::value(Some(scalar))))
        })?;
        with_found(context, 1, &charged, |found| Ok(found.is_some_and(|array| value::has(array, &wanted))))
    })?;
    connection.create_scalar_function("_number", 1, FLAGS, |context| {
        Ok(Sql::Blob(number_key(&context.get::<i64>(0)?.to_string())))
    })
}

/// Runs `work` with the JSON text at the path that the arguments specify; the data is argument `first`.
fn with_found<T>(
    context: &Context<'_>,
    first: usize,
    meter: &Meter,
    work: impl FnOnce(Option<&str>) -> Result<T>,
) -> Result<T> {
    let Some(data) = text(context, first) else { return work(None) };
    meter.charge_text(data.len()).map_err(stopped)?;
    // Most paths consist of one name.
    let found = match context.len() - first {
        2 => text(context, first + 1).and_then(|name| value::find(data, &[name])),
        count => {
            let path: Option<Vec<&str>> = (1..count).map(|index| text(context, first + index)).collect();
            path.and_then(|path| value::find(data, &path))
        }
    };
    work(found)
}

/// An argument as text. Names that cannot be written as an SQL literal are passed as bytes.
fn text<'a>(context: &'a Context<'_>, index: usize) -> Option<&'a str> {
    match context.get_raw(index) {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => std::str::from_utf8(bytes).ok(),
        _ => None,
    }
}

/// Ends the statement. The caller receives the meter's reason instead.
fn stopped(_: Stop) -> Error {
    Error::UserFunctionError("the read was stopped".into())
}
