//! The past: older versions of models and instances.

use snaphook_driver::time::Millis;
use snaphook_driver::{EventFilter, EventQuery, Instance, Position, Stream};

use super::{History, check_data};
use crate::catalog::ModelRecord;
use crate::engine::change::{DefinitionChange, changes_definition};
use crate::engine::command::At;
use crate::engine::error::{Error, Result};
use crate::engine::revisions;

impl History {
    /// An older version of a model, from the log.
    pub async fn model_version(&self, id: &str, version: u64) -> Result<ModelRecord> {
        let entry = self.core.models.require(id)?;
        if entry.model.record.version == version {
            return Ok(entry.model.record.clone());
        }
        let stream = Stream::of_model(id);
        let mut event = match self.core.stores.event.last(&stream, Position::MAX).await? {
            Some(last) => revisions::at(&*self.core.stores.event, &stream, last, version).await?,
            None => None,
        };
        while let Some(found) = event.take_if(|event| !changes_definition(event.kind)) {
            event = self.core.stores.event.last_but(&stream, found.position, 1).await?;
        }
        let found = event.filter(|event| event.revision == version);
        let found = found.map(|event| DefinitionChange::from_event(&event)).transpose()?;
        found.map(|change| change.definition).ok_or_else(|| {
            let current = entry.model.record.version;
            Error::not_found(format!("model `{id}` has no version {version}, it is at version {current}"))
        })
    }

    /// A past state of an instance. Its data has the form of that time.
    pub async fn get_at(&self, model: &str, id: &str, at: At) -> Result<Instance> {
        self.core.models.require(model)?;
        let at_most = match at {
            At::Position(position) => position,
            At::Time(time) => self.position_at(time).await?,
        };
        let stream = Stream::of_instance(model, id);
        let absent = || absent_then(model, id);
        let last = self.core.stores.event.last(&stream, at_most).await?.filter(|event| !event.kind.ends_stream());
        let last = last.ok_or_else(absent)?;
        check_data(&last)?;
        revisions::left_by(&self.core, last).await?.ok_or_else(absent)
    }

    /// Position of the last event at or before a time; 0 if there is none. The log's times never go back, so this is a
    /// binary search.
    async fn position_at(&self, time: Millis) -> Result<Position> {
        // Invariant: events up to `low` are not later than `time`, events after `high` are.
        let (mut low, mut high) = (0, self.head());
        while low < high {
            let middle = low + (high - low) / 2;
            let query = EventQuery { after: middle, limit: 1, filter: EventFilter::default() };
            match self.core.stores.event.read(&query, None).await?.events.first() {
                Some(event) if event.time <= time => low = event.position,
                _ => high = middle,
            }
        }
        Ok(low)
    }
}

pub(super) fn absent_then(model: &str, id: &str) -> Error {
    Error::not_found(format!("there was no `{model}/{id}` then"))
}
