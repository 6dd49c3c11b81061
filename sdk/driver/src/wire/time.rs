//! Time limits of calls: one table for all callers.

use std::time::Duration;

use super::message::decode;
use super::method::Method;
use super::proto;

/// The time limit of a call whose work does not grow with the store.
pub const CALL_TIME: Duration = Duration::from_secs(30);

/// The time limit of a call that works on everything in the store. No call may take longer.
pub const WHOLE_TIME: Duration = Duration::from_secs(60 * 60);

impl Method {
    /// Whether its work grows with the stored data.
    pub const fn is_whole(self) -> bool {
        matches!(
            self,
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

    /// The time limit of a call with this additional time ([`Method::own_time`]).
    pub fn time(self, own: Duration) -> Duration {
        if self.is_whole() { WHOLE_TIME } else { CALL_TIME.saturating_add(own).min(WHOLE_TIME) }
    }

    /// The additional time that a request asks for: the waiting time of a read, or the budget of a query.
    pub fn own_time(self, request: &[u8]) -> Duration {
        let budget =
            |budget: Option<proto::Budget>| budget.map_or(0, |budget| budget.time_ms.saturating_add(budget.wait_ms));
        let milliseconds = match self {
            Method::EventRead => {
                let request: Option<proto::EventReadRequest> = decode(request).ok();
                request.and_then(|request| request.wait_ms).unwrap_or_default()
            }
            Method::ModelQuery => {
                budget(decode(request).ok().and_then(|request: proto::ModelQueryRequest| request.budget))
            }
            Method::ModelCount => {
                budget(decode(request).ok().and_then(|request: proto::ModelCountRequest| request.budget))
            }
            _ => 0,
        };
        Duration::from_millis(milliseconds)
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    #[test]
    fn waits_and_budgets_come_on_top() {
        let second = Duration::from_secs(1);
        let read = proto::EventReadRequest { wait_ms: Some(5000), ..Default::default() };
        assert_eq!(Method::EventRead.own_time(&read.encode_to_vec()), 5 * second);
        assert_eq!(Method::EventRead.time(5 * second), 35 * second);
        assert_eq!(Method::ModelReset.time(5 * second), WHOLE_TIME);
        let budget = Some(proto::Budget { time_ms: u64::MAX, wait_ms: 1, ..Default::default() });
        let count = proto::ModelCountRequest { budget, ..Default::default() };
        assert_eq!(Method::ModelCount.time(Method::ModelCount.own_time(&count.encode_to_vec())), WHOLE_TIME);
    }
}
