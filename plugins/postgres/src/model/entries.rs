//! Writes the registry: which table belongs to a model, and which one is prepared for it.

use snaphook_driver::{CarryOver, DriverError, ErrorKind, ModelShape, Result};
use tokio_postgres::types::Type;

use super::table::Table;
use super::writing::Writing;

/// The purpose of a prepared table.
pub(super) struct Purpose<'a> {
    pub(super) carry: &'a CarryOver,
    pub(super) owner: &'a str,
}

/// Records that a table belongs to a model, or is prepared for it.
pub(super) async fn save(
    writing: &mut Writing<'_>,
    table: &Table,
    shape: &ModelShape,
    purpose: Option<Purpose<'_>>,
) -> Result<()> {
    let text = |error: serde_json::Error| {
        DriverError::new(ErrorKind::Invalid, "define", "the shape cannot be written as JSON").because(error)
    };
    let layout = serde_json::to_string(&table.layout).map_err(text)?;
    let carry = purpose.as_ref().map(|purpose| serde_json::to_string(purpose.carry)).transpose().map_err(text)?;
    let owner = purpose.as_ref().map(|purpose| purpose.owner);
    let json = serde_json::to_string(shape).map_err(text)?;
    writing
        .execute(
            "INSERT INTO @.model_tables(model, prepared, number, layout, shape, carry, complete, owner, touched) \
             VALUES ($1, $2, $3, $4, $5, $6, NOT $2, $7, clock_timestamp()) \
             ON CONFLICT (model, prepared) DO UPDATE SET number = excluded.number, layout = excluded.layout, \
             shape = excluded.shape, carry = excluded.carry, complete = excluded.complete, owner = excluded.owner, \
             touched = excluded.touched",
            &[Type::BYTEA, Type::BOOL, Type::INT8, Type::TEXT, Type::TEXT, Type::TEXT, Type::TEXT],
            &[&shape.model.as_bytes(), &purpose.is_some(), &(table.number as i64), &layout, &json, &carry, &owner],
        )
        .await
        .map(drop)
}

/// Removes a table from the registry: the model's, or the prepared one.
pub(super) async fn forget(writing: &mut Writing<'_>, model: &str, prepared: bool) -> Result<()> {
    writing
        .execute(
            "DELETE FROM @.model_tables WHERE model = $1 AND prepared = $2",
            &[Type::BYTEA, Type::BOOL],
            &[&model.as_bytes(), &prepared],
        )
        .await
        .map(drop)
}
