//! The driver's settings: there are none.

use serde::Deserialize;
use snaphook_driver::{OpenContext, Result};

/// What stands below `driver = 'memory'`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryConfig {}

impl MemoryConfig {
    /// Refuses settings.
    pub(crate) fn check(context: &OpenContext) -> Result<()> {
        context.settings::<MemoryConfig>().map(drop)
    }
}
