//! History: all reads. Current and past instances, past and future events of the log.

mod events;
pub(super) mod expand;
mod follow;
mod instances;
mod past;
mod referring;
mod seen;
mod visible;

use std::sync::Arc;

use serde_json::value::RawValue;
use snaphook_driver::{Event, json};

use super::core::Core;
use super::error::{Error, ErrorKind, Result};

pub use visible::Visibility;

/// The service that reads the model store and the log.
pub struct History {
    pub(super) core: Arc<Core>,
}

fn absent(model: &str, id: &str) -> Error {
    let shown: String = id.chars().take(128).collect();
    Error::not_found(format!("there is no `{model}/{}`", shown.escape_debug()))
}

/// Rejects an event whose data was changed in the log to something that is not JSON.
pub(super) fn check_data(event: &Event) -> Result<()> {
    let Some(Err(error)) = event.data.as_ref().map(|data| json::typed::<&RawValue>(data)) else { return Ok(()) };
    let position = event.position;
    Err(Error::new(
        ErrorKind::Storage,
        format!(
            "the data of the event at {position} is not valid JSON: {error}; `snaphook events inspect {position}` \
             shows it"
        ),
    ))
}
