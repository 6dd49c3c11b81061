//! The server's state of each module in the bridge: its settings, its recent faults, and whether it is active.

use std::collections::VecDeque;
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use super::message::{ModuleOrder, Order};
use crate::config::{ModuleConfig, ModuleKind};

/// This many faults within this time deactivate a module.
const STRIKES: usize = 3;
const STRIKES_WITHIN: Duration = Duration::from_mins(1);

/// One module. Its number is its index in the configuration.
pub(super) struct Module {
    /// References to secrets are replaced by their values.
    pub(super) config: ModuleConfig,
    strikes: VecDeque<Instant>,
    /// Consecutive starts that failed because of it.
    failed_starts: usize,
    /// All faults since the start.
    pub(super) failures: u64,
    /// The reason if it is deactivated.
    pub(super) deactivated: Option<String>,
}

impl Module {
    pub(super) fn new(config: ModuleConfig) -> Module {
        Module { config, strikes: VecDeque::new(), failed_starts: 0, failures: 0, deactivated: None }
    }

    /// Counts a fault; `true` if that deactivated the module.
    pub(super) fn strike(&mut self, now: Instant, what: &str) -> bool {
        self.failures += 1;
        let name = &self.config.name;
        tracing::warn!("module `{name}`: {what}");
        self.strikes.push_back(now);
        self.strikes.retain(|strike| now.duration_since(*strike) < STRIKES_WITHIN);
        if self.strikes.len() < STRIKES || self.deactivated.is_some() {
            return false;
        }
        self.deactivate(format!("{STRIKES} faults within a minute, the last: {what}"));
        true
    }

    /// Called when a process did not start because of the module.
    pub(super) fn failed_to_start(&mut self, now: Instant, what: &str) {
        self.failed_starts += 1;
        if !self.strike(now, what) && self.deactivated.is_none() && self.failed_starts >= STRIKES {
            self.deactivate(format!("{STRIKES} starts in a row failed because of it, the last: {what}"));
        }
    }

    /// Called when a process has started, with or without the module.
    pub(super) fn started(&mut self) {
        self.failed_starts = 0;
    }

    pub(super) fn deactivate(&mut self, why: String) {
        let effect = if self.config.optional {
            "requests are served without it"
        } else {
            "requests get 503, because it is not `optional`"
        };
        tracing::error!("module `{}` is deactivated: {why}; {effect}", self.config.name);
        self.deactivated = Some(why);
    }

    /// The order that loads it.
    pub(super) fn order(&self, number: usize) -> Order {
        let library = match &self.config.kind {
            ModuleKind::Zia { library } => library,
            // The bridge reports that the library cannot be read.
            _ => Path::new(""),
        };
        Order::module(&ModuleOrder {
            number,
            name: &self.config.name,
            library: &library.to_string_lossy(),
            is_optional: self.config.optional,
            timeout_ms: self.config.timeout.as_millis(),
            settings: &self.config.settings,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module() -> Module {
        let config = ModuleConfig {
            name: "log".to_owned(),
            kind: ModuleKind::Zia { library: "log.so".into() },
            optional: true,
            timeout: Duration::from_secs(5),
            settings: serde_json::Map::new(),
            line: 1,
        };
        Module::new(config)
    }

    #[test]
    fn three_strikes_within_a_minute() {
        let mut module = module();
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        assert!(!module.strike(after(0), "a"));
        assert!(!module.strike(after(30), "b"));
        assert!(!module.strike(after(61), "c"), "the first is older than a minute");
        assert!(module.strike(after(80), "d"));
        assert!(!module.strike(after(81), "e"), "only once");
        assert_eq!(module.failures, 5);
        assert!(module.deactivated.is_some_and(|why| why.ends_with("the last: d")));
    }

    #[test]
    fn three_starts_in_a_row_however_long_they_take() {
        let mut module = module();
        let start = Instant::now();
        let after = |minutes| start + Duration::from_mins(minutes);
        module.failed_to_start(after(0), "a");
        module.failed_to_start(after(2), "b");
        module.started();
        module.failed_to_start(after(4), "c");
        module.failed_to_start(after(6), "d");
        assert!(module.deactivated.is_none());
        module.failed_to_start(after(8), "e");
        assert!(module.deactivated.is_some_and(|why| why.contains("3 starts in a row") && why.ends_with(": e")));
    }
}
