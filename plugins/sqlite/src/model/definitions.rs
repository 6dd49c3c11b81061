//! The definitions of models in the file.

use rusqlite::{Connection, OptionalExtension as _, params};
use serde::{Deserialize, Serialize};
use snaphook_driver::{CarryOver, DriverError, ErrorKind, ModelShape, Result, json};

use super::names::Names;
use crate::fault::fault;

/// The deferred work of a model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Pending {
    /// Versions and the conversion steps that lead to them.
    pub(super) steps: Vec<(u64, CarryOver)>,
    /// The table does not match the shape: a new one must receive its rows.
    pub(super) refill: bool,
}

/// Stores a model's definition.
pub(super) fn save(
    connection: &Connection,
    shape: &ModelShape,
    names: &Names,
    pending: Option<&Pending>,
) -> Result<()> {
    let json = |error: serde_json::Error| {
        DriverError::new(ErrorKind::Invalid, "define", "the shape cannot be written as JSON").because(error)
    };
    let pending = pending.map(serde_json::to_string).transpose().map_err(json)?;
    let (text, names) = (serde_json::to_string(shape).map_err(json)?, serde_json::to_string(names).map_err(json)?);
    connection
        .execute(
            "INSERT INTO _models(id, names, shape, pending) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO UPDATE SET names = ?2, shape = ?3, pending = ?4",
            params![shape.model, names, text, pending],
        )
        .map(drop)
        .map_err(fault("define"))
}

/// All models, by id.
pub(super) fn all(connection: &Connection, operation: &'static str) -> Result<Vec<(ModelShape, Names)>> {
    let read = || -> rusqlite::Result<Vec<(String, String, String)>> {
        connection
            .prepare("SELECT id, shape, names FROM _models ORDER BY id")?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
            .collect()
    };
    read()
        .map_err(fault(operation))?
        .into_iter()
        .map(|(id, shape, names)| {
            let parsed = json::typed(&shape).and_then(|shape| Ok((shape, json::typed(&names)?)));
            parsed.map_err(|error| {
                DriverError::new(ErrorKind::Corrupt, operation, "a model's shape cannot be read back")
                    .with("model", id)
                    .because(error)
            })
        })
        .collect()
}

/// The definition of a model that has a table.
pub(super) fn load(connection: &Connection, model: &str) -> Result<(ModelShape, Option<Pending>)> {
    let row: Option<(String, Option<String>)> = connection
        .query_row("SELECT shape, pending FROM _models WHERE id = ?1", params![model], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()
        .map_err(fault("define"))?;
    let corrupt =
        |message: &str| DriverError::new(ErrorKind::Corrupt, "define", message.to_owned()).with("model", model);
    let (shape, pending) = row.ok_or_else(|| corrupt("a model with a table has no definition"))?;
    let read = || -> serde_json::Result<(ModelShape, Option<Pending>)> {
        Ok((json::typed(&shape)?, pending.as_deref().map(json::typed).transpose()?))
    };
    read().map_err(|error| corrupt("a model's definition cannot be read back").because(error))
}
