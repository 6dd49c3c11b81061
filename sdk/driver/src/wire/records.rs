//! Secrets, failed runs of hooks, and nodes, as messages.

use super::{Malformed, proto, required};
use crate::error_store::{ErrorQuery, ErrorRecord};
use crate::nodes::Node;
use crate::secure_store::Sealed;

impl From<Sealed> for proto::Sealed {
    fn from(sealed: Sealed) -> Self {
        proto::Sealed { bytes: sealed.bytes, version: sealed.version }
    }
}

impl From<proto::Sealed> for Sealed {
    fn from(sealed: proto::Sealed) -> Self {
        Sealed { bytes: sealed.bytes, version: sealed.version }
    }
}

impl From<&Node> for proto::Node {
    fn from(node: &Node) -> Self {
        let Node { id, address, version, position, head } = node.clone();
        proto::Node { id, address, version, position, head }
    }
}

impl From<proto::Node> for Node {
    fn from(node: proto::Node) -> Self {
        let proto::Node { id, address, version, position, head } = node;
        Node { id, address, version, position, head }
    }
}

impl From<&ErrorRecord> for proto::ErrorRecord {
    fn from(record: &ErrorRecord) -> Self {
        proto::ErrorRecord {
            id: record.id.clone(),
            time: record.time,
            model: record.model.clone(),
            phase: record.phase.clone(),
            hook: record.hook.clone(),
            engine: record.engine.clone(),
            artifact: record.artifact.clone(),
            event: Some((&record.event).into()),
            attempts: record.attempts,
            cause: record.cause.clone(),
            message: record.message.clone(),
            limit: record.limit.clone(),
            log: record.log.clone(),
        }
    }
}

impl TryFrom<proto::ErrorRecord> for ErrorRecord {
    type Error = Malformed;

    fn try_from(record: proto::ErrorRecord) -> Result<Self, Malformed> {
        Ok(ErrorRecord {
            id: record.id,
            time: record.time,
            model: record.model,
            phase: record.phase,
            hook: record.hook,
            engine: record.engine,
            artifact: record.artifact,
            event: required("event", record.event)?.try_into()?,
            attempts: record.attempts,
            cause: record.cause,
            message: record.message,
            limit: record.limit,
            log: record.log,
        })
    }
}

impl From<&ErrorQuery> for proto::ErrorQuery {
    fn from(query: &ErrorQuery) -> Self {
        proto::ErrorQuery {
            model: query.model.clone(),
            hook: query.hook.clone(),
            after: query.after.clone(),
            limit: query.limit,
        }
    }
}

impl From<proto::ErrorQuery> for ErrorQuery {
    fn from(query: proto::ErrorQuery) -> Self {
        ErrorQuery { model: query.model, hook: query.hook, after: query.after, limit: query.limit }
    }
}
