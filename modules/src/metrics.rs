//! Modules in the metrics: which are active, and what went wrong with them.

use std::fmt::Write as _;

use crate::chain::Chain;

/// Appends Prometheus text; nothing without modules.
pub fn write_metrics(chain: &Chain, out: &mut String) {
    if chain.is_empty() {
        return;
    }
    // Writing into a `String` cannot fail; so in all of this function.
    let name = "snaphook_module_active";
    let _ = writeln!(out, "# HELP {name} Whether a module is called; 0 after it was deactivated.");
    let _ = writeln!(out, "# TYPE {name} gauge");
    for module in chain.modules() {
        let is_active = u8::from(!module.standing.health.is_deactivated());
        let _ = writeln!(out, "{name}{{module=\"{}\"}} {is_active}", module.standing.name);
    }
    let name = "snaphook_module_failures_total";
    let _ = writeln!(out, "# HELP {name} Calls of modules that failed.");
    let _ = writeln!(out, "# TYPE {name} counter");
    for module in chain.modules() {
        for (reason, count) in module.standing.health.counts() {
            let _ = writeln!(out, "{name}{{module=\"{}\",reason=\"{reason}\"}} {count}", module.standing.name);
        }
    }
}
