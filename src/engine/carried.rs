//! Data of an instance, brought to the form of a later version of its model.

use snaphook_driver::{EventFilter, EventKind, EventQuery, EventStore, Json, Position};

use super::change::DefinitionChange;
use super::error::{Error, ErrorKind, Result};
use crate::catalog::Model;

/// Definitions of a model that are read at once.
const PAGE: u32 = 100;

/// Data as the changes of its model between two positions left it.
pub(super) async fn carried(
    events: &dyn EventStore,
    model: &str,
    data: Json,
    after: Position,
    until: Position,
) -> Result<Json> {
    let filter = EventFilter { model: Some(model.to_owned()), definitions_only: true, ..EventFilter::default() };
    let mut query = EventQuery { after, limit: PAGE, filter };
    let mut value = None;
    'log: loop {
        let page = events.read(&query, None).await?;
        for event in &page.events {
            if event.position >= until {
                break 'log;
            }
            if !matches!(event.kind, EventKind::ModelCreated | EventKind::ModelUpdated) {
                continue;
            }
            let change = DefinitionChange::from_event(event)?;
            let model = Model::from_record(change.definition.clone())
                .map_err(|error| Error::new(ErrorKind::Storage, format!("a model's past cannot be used: {error}")))?;
            let value = match &mut value {
                Some(value) => value,
                None => value.insert(data.to_value().unwrap_or_default()),
            };
            if let Some(map) = value.as_object_mut() {
                change.carry_over(&model.schema).apply(map);
            }
        }
        match page.next() {
            Some(next) => query.after = next,
            None => break,
        }
    }
    Ok(value.map_or(data, |value| Json::from_value(&value)))
}
