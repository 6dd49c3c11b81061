//! What the operations of `/events` say of themselves.

use crate::server::openapi::{Operation, Tag};
use crate::server::problem::ProblemType;

pub(in crate::server) fn list() -> Operation {
    Operation::new("listEvents", Tag::Events, "Read the log")
        .details("A page may have no items and a `next`: continue from there.")
        .parameters(&["after", "limit", "eventModel", "eventInstance", "eventTypes"])
        .reads()
        .returns(200, "A page of events.", &["EventPage"])
        .problems(&[ProblemType::NotFound])
}

pub(in crate::server) fn stream() -> Operation {
    Operation::new("followEvents", Tag::Events, "Follow the log")
        .details(
            "Server-sent events: `id` is the place in the log, `event` the type, `data` an `Event`. Without `after` it begins \
             now; a client that lost its connection sends the last id as `Last-Event-ID` and misses nothing.",
        )
        .parameters(&["after", "eventModel", "eventInstance", "eventTypes", "lastEventId"])
        .reads()
        .returns_nothing(200, "One event for each change.")
        .or_type("text/event-stream", &[])
        .problems(&[ProblemType::NotFound])
}

pub(in crate::server) fn get() -> Operation {
    Operation::new("getEvent", Tag::Events, "Read one event")
        .details("With what an admin needs to know where a model is stuck at it.")
        .parameters(&["position"])
        .returns(200, "The event.", &["InspectedEvent"])
        .problems(&[ProblemType::NotFound])
}

pub(in crate::server) fn skip() -> Operation {
    Operation::new("skipEvent", Tag::Events, "Skip an event that cannot be applied")
        .details("Only the event at which a model is stuck; the model store is then rebuilt without it.")
        .parameters(&["position"])
        .takes(&["Skip"])
        .returns(202, "The event is skipped.", &["Skipped"])
        .problems(&[ProblemType::NotFound, ProblemType::Conflict])
}
