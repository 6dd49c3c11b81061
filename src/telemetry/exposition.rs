//! Metrics as text: Prometheus text 0.0.4, or OpenMetrics 1.0 on request. Values and sample names are the same.

use std::fmt::{Display, Write as _};

use super::histogram::Buckets;

/// A format of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    pub const fn content_type(self) -> &'static str {
        match self {
            Format::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Maximum number of series of one family for models, or for phases of models; all others share one.
pub const SERIES_MAX: usize = 600;

/// The `model` label of all others. No model has such an id.
pub const OTHERS: &str = "(others)";

/// Labels of a sample, by name.
pub type Labels<'a> = [(&'a str, &'a str)];

/// The text being written.
pub struct Exposition {
    out: String,
    format: Format,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
    Info,
}

impl Exposition {
    pub fn new(format: Format) -> Exposition {
        Exposition { out: String::with_capacity(16 * 1024), format }
    }

    /// A family of counts that only grow. The samples have the name with `_total`.
    pub fn counter(&mut self, name: &'static str, help: &'static str) -> Family<'_> {
        self.family(name, help, Kind::Counter)
    }

    /// A family of current values.
    pub fn gauge(&mut self, name: &'static str, help: &'static str) -> Family<'_> {
        self.family(name, help, Kind::Gauge)
    }

    /// A family of distributions.
    pub fn histogram(&mut self, name: &'static str, help: &'static str) -> Family<'_> {
        self.family(name, help, Kind::Histogram)
    }

    /// A fact in labels. The sample has the name with `_info`.
    pub fn info(&mut self, name: &'static str, help: &'static str) -> Family<'_> {
        self.family(name, help, Kind::Info)
    }

    /// The whole text.
    pub fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.out.push_str("# EOF\n");
        }
        self.out
    }

    fn family(&mut self, name: &'static str, help: &'static str, kind: Kind) -> Family<'_> {
        Family { exposition: self, name, help, kind, is_begun: false }
    }
}

/// One family. A family without a sample leaves no trace in the text.
pub struct Family<'a> {
    exposition: &'a mut Exposition,
    name: &'static str,
    help: &'static str,
    kind: Kind,
    is_begun: bool,
}

impl Family<'_> {
    /// A sample of a counter, a gauge or a fact. All samples of a family have the same label names with different
    /// values.
    pub fn sample(&mut self, labels: &Labels<'_>, value: impl Display) {
        self.begin();
        let suffix = match self.kind {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            Kind::Gauge | Kind::Histogram => "",
        };
        self.line(suffix, labels, None, value);
    }

    /// A sample of a histogram. Empty ones are omitted.
    pub fn distribution(&mut self, labels: &Labels<'_>, buckets: &Buckets<'_>) {
        if buckets.count() == 0 {
            return;
        }
        self.begin();
        let format = self.exposition.format;
        for (bound, below) in buckets.cumulative() {
            self.line("_bucket", labels, Some(&number(bound, format)), below);
        }
        self.line("_bucket", labels, Some("+Inf"), buckets.count());
        self.line("_sum", labels, None, buckets.sum());
        self.line("_count", labels, None, buckets.count());
    }

    // Writing into a `String` cannot fail, here and in this whole file.
    fn begin(&mut self) {
        if std::mem::replace(&mut self.is_begun, true) {
            return;
        }
        let (name, help) = (self.name, self.help);
        let out = &mut self.exposition.out;
        let kind = match self.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
            Kind::Info => "info",
        };
        match self.exposition.format {
            // In this format a family has the name of its samples, and there are no facts.
            Format::Prometheus => {
                let (suffix, kind) = match self.kind {
                    Kind::Counter => ("_total", kind),
                    Kind::Info => ("_info", "gauge"),
                    Kind::Gauge | Kind::Histogram => ("", kind),
                };
                let _ = writeln!(out, "# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {kind}");
            }
            Format::OpenMetrics => {
                let _ = writeln!(out, "# TYPE {name} {kind}");
                if let Some(unit) = ["seconds", "bytes"].into_iter().find(|unit| has_unit(name, unit)) {
                    let _ = writeln!(out, "# UNIT {name} {unit}");
                }
                let _ = writeln!(out, "# HELP {name} {help}");
            }
        }
    }

    fn line(&mut self, suffix: &str, labels: &Labels<'_>, bound: Option<&str>, value: impl Display) {
        let out = &mut self.exposition.out;
        let _ = write!(out, "{}{suffix}", self.name);
        let mut mark = '{';
        for (name, value) in labels.iter().copied().chain(bound.map(|bound| ("le", bound))) {
            let _ = write!(out, "{mark}{name}=\"");
            escape(out, value);
            out.push('"');
            mark = ',';
        }
        if mark == ',' {
            out.push('}');
        }
        let _ = writeln!(out, " {value}");
    }
}

fn has_unit(name: &str, unit: &str) -> bool {
    name.strip_suffix(unit).is_some_and(|rest| rest.ends_with('_'))
}

/// A bound of a bucket. In OpenMetrics it always looks like a float.
fn number(bound: f64, format: Format) -> String {
    match format {
        Format::OpenMetrics if bound.fract() == 0.0 => format!("{bound}.0"),
        _ => bound.to_string(),
    }
}

/// Both formats escape the same three characters.
fn escape(out: &mut String, value: &str) {
    for char in value.chars() {
        match char {
            '\\' => out.push_str(r"\\"),
            '"' => out.push_str(r#"\""#),
            '\n' => out.push_str(r"\n"),
            char => out.push(char),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::telemetry::histogram::{Histogram, LATENCY};

    fn text(format: Format) -> String {
        let mut out = Exposition::new(format);
        out.gauge("never", "Has no sample");
        let mut requests = out.counter("requests", "Requests");
        requests.sample(&[("route", "/a"), ("text", "a\"b\\c\nd")], 3);
        requests.sample(&[("route", "/b"), ("text", "")], 4);
        out.info("build", "What this is").sample(&[("version", "1.2.3")], 1);
        out.gauge("held_bytes", "Memory").sample(&[], 0.5);
        let latency = Histogram::new(&LATENCY);
        latency.observe(Duration::from_millis(700));
        out.histogram("wait_seconds", "Waits").distribution(&[("a", "b")], &latency.seconds());
        out.histogram("empty_seconds", "Waits").distribution(&[], &Histogram::new(&LATENCY).seconds());
        out.finish()
    }

    #[test]
    fn prometheus() {
        let text = text(Format::Prometheus);
        let begin = "# HELP requests_total Requests\n# TYPE requests_total counter\n\
            requests_total{route=\"/a\",text=\"a\\\"b\\\\c\\nd\"} 3\nrequests_total{route=\"/b\",text=\"\"} 4\n\
            # HELP build_info What this is\n# TYPE build_info gauge\nbuild_info{version=\"1.2.3\"} 1\n\
            # HELP held_bytes Memory\n# TYPE held_bytes gauge\nheld_bytes 0.5\n\
            # HELP wait_seconds Waits\n# TYPE wait_seconds histogram\n";
        assert!(text.starts_with(begin), "{text}");
        let end = "wait_seconds_bucket{a=\"b\",le=\"0.5\"} 0\nwait_seconds_bucket{a=\"b\",le=\"1\"} 1\n\
            wait_seconds_bucket{a=\"b\",le=\"2.5\"} 1\nwait_seconds_bucket{a=\"b\",le=\"10\"} 1\n\
            wait_seconds_bucket{a=\"b\",le=\"+Inf\"} 1\nwait_seconds_sum{a=\"b\"} 0.7\nwait_seconds_count{a=\"b\"} 1\n";
        assert!(text.ends_with(end), "{text}");
        assert!(!text.contains("never") && !text.contains("empty"), "{text}");
    }

    #[test]
    fn open_metrics() {
        let text = text(Format::OpenMetrics);
        for part in [
            "# TYPE requests counter\n# HELP requests Requests\nrequests_total{route=\"/a\"",
            "# TYPE build info\n# HELP build What this is\nbuild_info{version=\"1.2.3\"} 1\n",
            "# TYPE held_bytes gauge\n# UNIT held_bytes bytes\n# HELP held_bytes Memory\nheld_bytes 0.5\n",
            "wait_seconds_bucket{a=\"b\",le=\"1.0\"} 1\n",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(text.ends_with("wait_seconds_count{a=\"b\"} 1\n# EOF\n"), "{text}");
    }
}
