//! Instances as rows of their model's table.

use snaphook_driver::time::Millis;
use snaphook_driver::{DriverError, ErrorKind, Instance, Json, Result};
use tokio_postgres::Row;

/// Reads an instance from the first columns of a row, which are [`super::table::OWN`].
pub(super) fn instance(row: &Row, first: usize, model: &str, operation: &'static str) -> Result<Instance> {
    let number = |place: usize| get::<i64>(row, first + place, operation).map(|number| number as u64);
    Ok(Instance {
        id: id(get(row, first, operation)?, operation)?,
        model: model.to_owned(),
        model_version: number(1)?,
        revision: number(2)?,
        position: number(3)?,
        created_at: number(4)? as Millis,
        updated_at: number(5)? as Millis,
        data: Json::trusted(get::<&str>(row, first + 6, operation)?),
    })
}

/// An instance's id from its bytes.
pub(super) fn id(bytes: &[u8], operation: &'static str) -> Result<String> {
    String::from_utf8(bytes.to_vec()).map_err(|error| {
        DriverError::new(ErrorKind::Corrupt, operation, "an instance's id is not UTF-8").because(error)
    })
}

/// A column of a row.
pub(super) fn get<'a, T: tokio_postgres::types::FromSql<'a>>(
    row: &'a Row,
    place: usize,
    operation: &'static str,
) -> Result<T> {
    row.try_get(place).map_err(|error| {
        DriverError::new(ErrorKind::Corrupt, operation, "a row of the model store cannot be read back").because(error)
    })
}
