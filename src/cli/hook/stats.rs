//! `snaphook hook stats`: how often hooks ran, how that ended and what it cost.

use clap::Args;
use serde_json::{Value, json};

use super::at::at;
use super::shown::text;
use crate::cli::client::path;
use crate::cli::failure::{Failure, Result};
use crate::cli::global::Global;
use crate::cli::output;
use crate::config::{Phase, is_model_id};

/// Print the runs of hooks on this server since they were bound: outcomes, times and memory
///
/// Example: snaphook hook stats order.preCreate
#[derive(Args, Debug)]
pub(in crate::cli) struct Stats {
    /// Only of this model, phase or hook: `order`, `order.preCreate` or `order.preCreate/check`
    #[arg(value_name = "MODEL[.PHASE]")]
    at: Option<String>,
    /// Print one JSON document per hook, with the causes of failures and the limits
    #[arg(long)]
    json: bool,
}

impl Stats {
    pub(in crate::cli) async fn run(&self, global: &Global) -> Result<()> {
        let (model, phase, hook) = match self.at.as_deref() {
            None => (None, None, None),
            Some(model) if is_model_id(model) => (Some(model.to_owned()), None, None),
            Some(text) => {
                let at = at(text).map_err(Failure::new)?;
                (Some(at.model), Some(at.phase), at.hook)
            }
        };
        let client = global.client()?;
        let models = match model {
            Some(model) => vec![model],
            None => client.models().await?.iter().map(|model| text(model, "id")).collect(),
        };
        let mut rows = Vec::new();
        for model in models {
            let bound = client.get(&path(&["models", &model, "hooks"])).await?;
            let phases = Phase::ALL.into_iter().filter(|known| phase.is_none_or(|phase| phase == *known));
            for phase in phases.filter(|phase| bound[phase.as_str()].as_array().is_some_and(|chain| !chain.is_empty()))
            {
                let stats = client.get(&path(&["models", &model, "hooks", phase.as_str(), "stats"])).await?;
                for stats in stats.get("items").and_then(Value::as_array).into_iter().flatten() {
                    if hook.as_ref().is_some_and(|wanted| *wanted != text(stats, "name")) {
                        continue;
                    }
                    if self.json {
                        let mut document = json!({"model": model, "phase": phase});
                        if let (Value::Object(document), Value::Object(stats)) = (&mut document, stats.clone()) {
                            document.extend(stats);
                        }
                        output::line(document)?;
                    } else {
                        rows.push(row(&model, phase, stats));
                    }
                }
            }
        }
        match (self.json, rows.is_empty()) {
            (true, _) => Ok(()),
            (false, true) => output::line("no hooks"),
            (false, false) => output::table(
                &["PHASE", "NAME", "RUNS", "REFUSED", "AMENDED", "FAILED", "P50 MS", "P99 MS", "MEMORY P99"],
                &rows,
            ),
        }
    }
}

fn row(model: &str, phase: Phase, stats: &Value) -> Vec<String> {
    let count = |name: &str| stats.get(name).and_then(Value::as_u64).unwrap_or(0);
    let failures = stats.get("failures").and_then(Value::as_object).into_iter().flatten();
    let failed: u64 = failures.filter_map(|(_, count)| count.as_u64()).sum();
    // Of a hook that never ran there is nothing to measure.
    let cost = |name: &str, quantile: &str| stats.get(name).and_then(|cost| cost.get(quantile)?.as_f64());
    let ms = |quantile| cost("wall_ms", quantile).map_or_else(|| "-".to_owned(), |ms| format!("{ms:.2}"));
    let memory = cost("memory_bytes", "p99");
    vec![
        format!("{model}.{phase}"),
        text(stats, "name"),
        count("runs").to_string(),
        count("refusals").to_string(),
        count("amendments").to_string(),
        failed.to_string(),
        ms("p50"),
        ms("p99"),
        memory.map_or_else(|| "-".to_owned(), |bytes| format!("{:.1} MiB", bytes / f64::from(1 << 20))),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows() {
        let stats = json!({"name": "check", "runs": 7, "refusals": 2, "amendments": 1,
            "failures": {"timeout": 1, "exception": 2}, "wall_ms": {"p50": 0.25, "p99": 1.0}, "memory_bytes": {"p99": 1_572_864}});
        assert_eq!(
            row("order", Phase::PreCreate, &stats),
            ["order.preCreate", "check", "7", "2", "1", "3", "0.25", "1.00", "1.5 MiB"]
        );
        let never = json!({"name": "check", "runs": 0, "wall_ms": null, "memory_bytes": null});
        assert_eq!(row("order", Phase::PreCreate, &never)[5..], ["0", "-", "-", "-"]);
    }
}
