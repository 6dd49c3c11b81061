//! The driver's settings: there are none.

use serde::Deserialize;
use snaphook_driver::{OpenContext, Result};

/// The settings below `driver = 'memory'`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryConfig {}

impl MemoryConfig {
    /// Rejects all settings.
    pub(crate) fn check(context: &OpenContext) -> Result<()> {
        context.settings::<MemoryConfig>().map(drop)
    }
}
