//! The context for JavaScript: one JSON text, and the numbers in it that JavaScript cannot represent.

use std::sync::Arc;

use serde::Serialize;
use snaphook_driver::{Actor, Position, time};

use super::digits::Digits;
use crate::config::Phase;
use crate::hooks::context::{Context, Failure};
use crate::hooks::engines::handback::{LIGHT_BYTES_MAX, look};
use crate::hooks::engines::limits::Broken;
use crate::hooks::host_memory::HostMemory;

/// The context for the guest.
pub(in crate::hooks::engines) struct Input {
    pub(in crate::hooks::engines) text: String,
    pub(in crate::hooks::engines) digits: Digits,
    /// Marks an infinite number in the answer; empty if the data has none.
    pub(in crate::hooks::engines) marker: String,
}

impl Input {
    /// Counted in the run's memory.
    pub(in crate::hooks::engines) async fn of(context: &Context, memory: &Arc<HostMemory>) -> Result<Self, Failure> {
        let bytes = [&context.before, &context.after].into_iter().flatten().map(|json| json.len()).sum();
        memory.keep(bytes)?;
        if bytes <= LIGHT_BYTES_MAX {
            return Input::new(context, memory);
        }
        let (context, memory) = (context.clone(), Arc::clone(memory));
        look(bytes, move || Input::new(&context, &memory)).await?
    }

    fn new(context: &Context, memory: &HostMemory) -> Result<Self, Failure> {
        let mut digits = Digits::default();
        let mut data = String::new();
        for (name, json) in [("before", &context.before), ("after", &context.after)] {
            if let Some(json) = json {
                digits.note(json, memory)?;
                data.extend([",\"", name, "\":", json.as_str()]);
            }
        }
        let rest = Rest {
            phase: context.phase,
            model: Model { id: &context.model, version: context.model_version },
            id: &context.instance,
            actor: context.actor.as_deref(),
            request_id: context.request_id.as_deref(),
            time: time::format(context.time),
            attempt: context.attempt,
            event: context.event.as_ref().map(|event| Event { position: event.position, id: &event.id }),
        };
        let mut text = serde_json::to_string(&rest).map_err(|error| Broken::internal(error.to_string()).0)?;
        text.insert_str(text.len() - 1, &data);
        // Random, so that the author cannot know it.
        let marker = if digits.has_infinite() { uuid::Uuid::now_v7().simple().to_string() } else { String::new() };
        Ok(Input { text, digits, marker })
    }
}

/// The context without the data.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Rest<'a> {
    phase: Phase,
    model: Model<'a>,
    id: &'a str,
    actor: Option<&'a Actor>,
    request_id: Option<&'a str>,
    time: String,
    attempt: u32,
    event: Option<Event<'a>>,
}

#[derive(Serialize)]
struct Model<'a> {
    id: &'a str,
    version: u64,
}

#[derive(Serialize)]
struct Event<'a> {
    position: Position,
    id: &'a str,
}
