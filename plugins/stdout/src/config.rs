//! The driver's settings: there are none.

use serde::Deserialize;

/// The settings below `driver = 'stdout'`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StdoutConfig {}
