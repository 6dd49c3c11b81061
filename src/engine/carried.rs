//! Converts the data of an instance to a later version of its model.

use snaphook_driver::{CarryOver, EventFilter, EventKind, EventQuery, EventStore, Json, Position};

use super::change::DefinitionChange;
use super::error::{Error, ErrorKind, Result};
use crate::catalog::Model;

/// Definitions of a model per page.
const PAGE: u32 = 100;

/// The changes of a model that change the data of its instances, in their order.
pub(super) struct Changes(Vec<(Position, CarryOver)>);

impl Changes {
    /// Those between two positions.
    pub(super) async fn read(
        events: &dyn EventStore,
        model: &str,
        after: Position,
        until: Position,
    ) -> Result<Changes> {
        let filter = EventFilter { model: Some(model.to_owned()), definitions_only: true, ..EventFilter::default() };
        let mut query = EventQuery { after, limit: PAGE, filter };
        let mut changes = Vec::new();
        loop {
            let page = events.read(&query, None).await?;
            for event in &page.events {
                if event.position >= until {
                    return Ok(Changes(changes));
                }
                if !matches!(event.kind, EventKind::ModelCreated | EventKind::ModelUpdated) {
                    continue;
                }
                let change = DefinitionChange::from_event(event)?;
                let model = Model::from_record(change.definition.clone()).map_err(|error| {
                    Error::new(ErrorKind::Storage, format!("a model's past cannot be used: {error}"))
                })?;
                let carry = change.carry_over(&model.schema);
                if !carry.is_empty() {
                    changes.push((event.position, carry));
                }
            }
            match page.next() {
                Some(next) => query.after = next,
                None => return Ok(Changes(changes)),
            }
        }
    }

    /// The data after the changes that follow a position.
    pub(super) fn carry(&self, data: Json, after: Position) -> Json {
        let mut left = self.0.iter().filter(|(position, _)| *position > after).peekable();
        if left.peek().is_none() {
            return data;
        }
        let mut value = data.to_value().unwrap_or_default();
        if let Some(map) = value.as_object_mut() {
            for (_, carry) in left {
                carry.apply(map);
            }
        }
        Json::from_value(&value)
    }
}

/// The data after the changes of its model between two positions.
pub(super) async fn carried(
    events: &dyn EventStore,
    model: &str,
    data: Json,
    after: Position,
    until: Position,
) -> Result<Json> {
    Ok(Changes::read(events, model, after, until).await?.carry(data, after))
}
