//! Inspects and skips events that cannot be applied.

use std::sync::Arc;

use snaphook_driver::Position;

use super::Operations;
use super::rebuild::start_wanted;
use crate::engine::command::Origin;
use crate::engine::error::Result;
use crate::engine::skip::{self, Inspected, Skipping};

impl Operations {
    /// The event at a position, and whether it can be applied.
    pub async fn inspect(&self, position: Position) -> Result<Inspected> {
        let stuck = self.core.availability.all_stuck().into_values().collect::<Vec<_>>();
        skip::inspect(&self.core.stores.event, &stuck, position).await
    }

    /// Skips the event at which a model is stuck, and rebuilds the model store without it. Returns the position of the
    /// skip.
    pub async fn skip_event(&self, position: Position, reason: &str, origin: &Origin) -> Result<Position> {
        self.core.availability.check()?;
        let stuck = self.core.availability.all_stuck().into_values().collect::<Vec<_>>();
        let Skipping { restored, skip } = skip::skip(&self.core.stores.event, &stuck, position, reason, origin).await?;
        let core = Arc::clone(&self.core);
        let append = async move {
            core.append_for_stuck(restored.into_iter().collect()).await?;
            let skipped = core.append_for_stuck(vec![skip]).await?;
            // The projector requested it when it reached the event; this or the projector's task starts it.
            start_wanted(&core);
            Ok(skipped)
        };
        self.core.commit(append).await
    }
}
