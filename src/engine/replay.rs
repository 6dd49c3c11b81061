//! Brings the model store from its checkpoint to the end of the log while no server runs: for a rebuild, and for
//! back-tests of hooks.

use std::sync::Arc;

use snaphook_driver::{EventStore, ModelStore};

use super::error::Result;
pub use super::projection::Progress;
use super::projection::Projection;
use super::stuck::Stuck;
use crate::catalog::Model;

/// The result of a replay.
#[derive(Debug)]
pub struct Replayed {
    /// Without models that are stuck at their first event.
    pub models: Vec<Model>,
    pub stuck: Vec<Stuck>,
}

/// Applies everything after the checkpoint.
pub async fn run(events: &Arc<dyn EventStore>, store: &Arc<dyn ModelStore>, progress: &Progress) -> Result<Replayed> {
    let mut projection = Projection::open(events, store).await?;
    projection.replay(progress).await?;
    let models = projection.models().values().map(|model| Model::clone(model)).collect();
    Ok(Replayed { models, stuck: projection.all_stuck() })
}
