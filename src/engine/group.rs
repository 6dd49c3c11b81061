//! The consumer groups of the event store, which record the progress of post hooks.

use snaphook_driver::{EventFilter, EventKind, Group};

/// The consumer group of a model's post hooks.
pub(super) fn group_of(model: &str) -> Group {
    Group {
        name: format!("post:{model}"),
        filter: EventFilter {
            model: Some(model.to_owned()),
            kinds: vec![EventKind::InstanceCreated, EventKind::InstanceUpdated, EventKind::InstanceDeleted],
            ..EventFilter::default()
        },
    }
}
