//! The events of the log, and positions in it.

use snaphook_driver::{EventFilter, EventPage, EventQuery, Position, Stream};

use super::History;
use crate::engine::error::{Error, ErrorKind, Result};

impl History {
    /// Events of the log, oldest first. A page skips a bounded number of events that do not match, so it may have no
    /// events and still a next position.
    pub async fn events(&self, query: &EventQuery) -> Result<EventPage> {
        Ok(self.core.stores.event.read(query, None).await?)
    }

    /// The log's identity.
    pub fn log(&self) -> &str {
        self.core.stores.event.identity()
    }

    /// Checks a position from a client; `log` is its log, `None` means this one. `position-unknown` if this log does
    /// not have it. Only the event store knows, because this node may lag behind it.
    pub async fn find_position(&self, log: Option<&str>, position: Position) -> Result<Position> {
        if let Some(log) = log
            && log != self.log()
        {
            return Err(Error::new(
                ErrorKind::PositionUnknown,
                format!(
                    "position {position} belongs to the log `{log}`, this one is `{}` (a restored backup is another \
                     log); start over without a position",
                    self.log()
                ),
            ));
        }
        if position <= self.core.tail.head() {
            return Ok(position);
        }
        let head = self.core.stores.event.head().await?;
        if position > head {
            return Err(Error::new(
                ErrorKind::PositionUnknown,
                format!("position {position} is beyond the end of the log, which is at {head}; start over without it"),
            ));
        }
        Ok(position)
    }

    /// `not-found` for a model that never was in the log; a deleted one still has its history.
    pub async fn check_in_log(&self, model: &str) -> Result<()> {
        if self.core.models.get(model).is_some()
            || self.core.stores.event.last(&Stream::of_model(model), Position::MAX).await?.is_some()
        {
            return Ok(());
        }
        Err(Error::not_found(format!("the log has never seen a model `{}`", model.escape_debug())))
    }

    /// Position of the last event that this node has applied.
    pub fn head(&self) -> Position {
        self.core.tail.head()
    }

    /// The position that a client must send to another node to see at least what it saw here: that of the last event
    /// that is applied, is being applied, or was acknowledged before it could be applied.
    pub fn visible(&self) -> Position {
        self.core.tail.visible()
    }

    /// The same after a response from the model store, because a shared store may be ahead of this node.
    pub async fn visible_in_store(&self) -> Position {
        let (visible, store) = (self.visible(), &self.core.stores.model);
        if !store.capabilities().shared {
            return visible;
        }
        // A store that does not respond now did not return anything either.
        store.checkpoint().await.map_or(visible, |checkpoint| checkpoint.max(visible))
    }

    /// Waits until this node has applied the log up to there; `unavailable` if that takes long.
    pub async fn reached(&self, position: Position) -> Result<()> {
        self.core.tail.reached_soon(position).await
    }

    /// The events of one instance; `not-found` if it never existed.
    pub async fn instance_events(&self, model: &str, id: &str, after: Position, limit: u32) -> Result<EventPage> {
        let filter =
            EventFilter { model: Some(model.to_owned()), instance: Some(id.to_owned()), ..EventFilter::default() };
        let page = self.core.stores.event.read(&EventQuery { after, limit, filter }, None).await?;
        if page.events.is_empty()
            && self.core.stores.event.last(&Stream::of_instance(model, id), Position::MAX).await?.is_none()
        {
            self.core.models.require(model)?;
            return Err(never_was(model, id));
        }
        Ok(page)
    }
}

pub(super) fn never_was(model: &str, id: &str) -> Error {
    Error::not_found(format!("there never was a `{model}/{id}`"))
}
