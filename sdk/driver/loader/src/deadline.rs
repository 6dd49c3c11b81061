//! How long a call may take before it is given up.

use std::time::Duration;

use snaphook_driver::wire::{Method, decode, proto};

/// How long calls of a plugin may take.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// A call. A read that waits for events has the time of its wait on top, a query that of its budget.
    pub call: Duration,
    /// Opening and closing a store, and what touches everything in it: definitions of models, replays, imports, the start of an export.
    pub whole: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Deadlines { call: Duration::from_secs(30), whole: Duration::from_secs(60 * 60) }
    }
}

impl Deadlines {
    /// The time of one call.
    pub(crate) fn of(&self, method: Method, request: &[u8]) -> Duration {
        let extra = match method {
            Method::EventRead => {
                let request: Option<proto::EventReadRequest> = decode(request).ok();
                request.and_then(|request| request.wait_ms).map_or(Duration::ZERO, Duration::from_millis)
            }
            Method::ModelQuery => {
                budget(decode(request).ok().and_then(|request: proto::ModelQueryRequest| request.budget))
            }
            Method::ModelCount => {
                budget(decode(request).ok().and_then(|request: proto::ModelCountRequest| request.budget))
            }
            method if touches_everything(method) => return self.whole,
            _ => Duration::ZERO,
        };
        self.call.saturating_add(extra).min(self.whole.max(self.call))
    }
}

fn budget(budget: Option<proto::Budget>) -> Duration {
    let milliseconds = budget.map_or(0, |budget| budget.time_ms.saturating_add(budget.wait_ms));
    Duration::from_millis(milliseconds)
}

fn touches_everything(method: Method) -> bool {
    matches!(
        method,
        Method::SecureClose
            | Method::EventClose
            | Method::ModelClose
            | Method::ErrorClose
            | Method::EventCreateGroup
            | Method::EventDropGroup
            | Method::EventExport
            | Method::EventImport
            | Method::EventFinishImport
            | Method::ModelDefine
            | Method::ModelPrepare
            | Method::ModelDiscard
            | Method::ModelBeginReplay
            | Method::ModelEndReplay
            | Method::ModelDropModel
            | Method::ModelReset
    )
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    #[test]
    fn waits_and_budgets_come_on_top() {
        let second = Duration::from_secs(1);
        let deadlines = Deadlines { call: second, whole: 60 * second };
        let read = proto::EventReadRequest { wait_ms: Some(5000), ..Default::default() };
        assert_eq!(deadlines.of(Method::EventRead, &read.encode_to_vec()), 6 * second);
        assert_eq!(deadlines.of(Method::EventHead, &[]), second);
        assert_eq!(deadlines.of(Method::ModelReset, &[]), 60 * second);
        let budget = Some(proto::Budget { time_ms: u64::MAX, ..Default::default() });
        let count = proto::ModelCountRequest { budget, ..Default::default() };
        assert_eq!(deadlines.of(Method::ModelCount, &count.encode_to_vec()), 60 * second);
    }
}
