//! Rows with their goals, and the table of results.

use std::time::Duration;

use super::load::LoadOutcome;
use super::machine::micros;

/// The goal of a row. The unit is [`Row::unit`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Goal {
    AtMost(f64),
    AtLeast(f64),
    /// The value is only reported.
    None,
}

/// One line of the table.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) goal: Goal,
    pub(crate) unit: &'static str,
    pub(crate) measured: f64,
    /// Details such as percentiles.
    pub(crate) detail: String,
    /// Resident memory of the server at the end, in bytes.
    pub(crate) memory: Option<u64>,
}

impl Row {
    /// A rate under load, with its percentiles.
    pub(crate) fn rate(what: impl Into<String>, goal: Goal, outcome: &LoadOutcome, memory: u64) -> Row {
        Row {
            what: what.into(),
            goal,
            unit: "/s",
            measured: outcome.per_second(),
            detail: percentiles(outcome),
            memory: Some(memory),
        }
    }

    /// A time, and its upper bound as the goal.
    pub(crate) fn time(what: impl Into<String>, at_most: Option<Duration>, measured: Duration) -> Row {
        Row {
            what: what.into(),
            goal: at_most.map_or(Goal::None, |bound| Goal::AtMost(bound.as_secs_f64() * 1e6)),
            unit: "µs",
            measured: measured.as_secs_f64() * 1e6,
            detail: String::new(),
            memory: None,
        }
    }

    pub(crate) fn with_detail(mut self, detail: impl Into<String>) -> Row {
        self.detail = detail.into();
        self
    }

    pub(crate) fn with_memory(mut self, memory: u64) -> Row {
        self.memory = Some(memory);
        self
    }

    pub(crate) fn reached(&self) -> Option<bool> {
        match self.goal {
            Goal::AtMost(bound) => Some(self.measured <= bound),
            Goal::AtLeast(bound) => Some(self.measured >= bound),
            Goal::None => None,
        }
    }

    /// One line of plain text.
    pub(crate) fn line(&self) -> String {
        self.cells().into_iter().filter(|cell| !cell.is_empty()).collect::<Vec<_>>().join(" | ")
    }

    fn cells(&self) -> [String; 6] {
        let goal = match self.goal {
            Goal::AtMost(bound) => format!("≤ {}", quantity(bound, self.unit)),
            Goal::AtLeast(bound) => format!("≥ {}", quantity(bound, self.unit)),
            Goal::None => String::new(),
        };
        let reached = self.reached().map_or(String::new(), |reached| if reached { "yes" } else { "no" }.into());
        let memory = self.memory.map_or(String::new(), |bytes| format!("{:.0} MB", bytes as f64 / 1e6));
        [self.what.clone(), goal, quantity(self.measured, self.unit), reached, self.detail.clone(), memory]
    }
}

/// Percentiles as text, such as `p50 1.20 ms, p99 3.10 ms`.
pub(crate) fn percentiles(outcome: &LoadOutcome) -> String {
    format!("p50 {}, p99 {}", micros(outcome.percentile(0.5)), micros(outcome.percentile(0.99)))
}

fn quantity(value: f64, unit: &str) -> String {
    match unit {
        "µs" => micros(Duration::from_secs_f64((value / 1e6).max(0.0))),
        "/s" => format!("{} /s", thousands(value)),
        "" => format!("{value:.2}"),
        unit => format!("{value:.1} {unit}"),
    }
}

fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// All results, and the machine they were measured on.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) rows: Vec<Row>,
    pub(crate) machine: Vec<String>,
    pub(crate) seconds: u64,
}

impl Report {
    /// The rows as a Markdown table with aligned columns.
    pub(crate) fn table(&self) -> String {
        let heads = ["what", "goal", "measured", "reached", "detail", "memory"].map(str::to_owned);
        let mut lines = vec![heads];
        lines.extend(self.rows.iter().map(Row::cells));
        let width = |column: usize| lines.iter().map(|cells| cells[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..6).map(width).collect();
        let mut out = String::new();
        for (index, cells) in lines.iter().enumerate() {
            let padded = cells.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}"));
            out += &format!("| {} |\n", padded.collect::<Vec<_>>().join(" | "));
            if index == 0 {
                let rules = widths.iter().map(|&width| "-".repeat(width));
                out += &format!("| {} |\n", rules.collect::<Vec<_>>().join(" | "));
            }
        }
        out
    }

    /// The page for the repository.
    pub(crate) fn page(&self) -> String {
        let machine: String = self.machine.iter().map(|line| format!("- {line}\n")).collect();
        format!(
            "# Results of the last `cargo xtask bench`\n\n{machine}- each run of load: {} s after a warm-up of a fifth of \
             it, server and load generator on the same cores\n\nMemory is the resident set of the whole server at the end \
             of the row.\n\n{}",
            self.seconds,
            self.table()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(goal: Goal, measured: f64) -> Row {
        Row { what: "x".into(), goal, unit: "/s", measured, detail: String::new(), memory: None }
    }

    #[test]
    fn a_goal_is_reached_from_its_own_side() {
        assert_eq!(row(Goal::AtLeast(10.0), 10.0).reached(), Some(true));
        assert_eq!(row(Goal::AtLeast(10.0), 9.9).reached(), Some(false));
        assert_eq!(row(Goal::AtMost(10.0), 10.1).reached(), Some(false));
        assert_eq!(row(Goal::None, 1.0).reached(), None);
    }

    #[test]
    fn numbers_are_easy_to_read() {
        assert_eq!(row(Goal::AtLeast(40_000.0), 1_234_567.0).line(), "x | ≥ 40,000 /s | 1,234,567 /s | yes");
        assert_eq!(thousands(999.0), "999");
        assert_eq!(quantity(1500.0, "µs"), "1.50 ms");
    }

    #[test]
    fn the_table_is_aligned() {
        let report = Report { rows: vec![row(Goal::None, 1.0)], machine: Vec::new(), seconds: 1 };
        let lengths: Vec<usize> = report.table().lines().map(|line| line.chars().count()).collect();
        assert!(lengths.windows(2).all(|pair| pair[0] == pair[1]), "{lengths:?}");
    }
}
