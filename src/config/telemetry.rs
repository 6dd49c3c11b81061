//! `[telemetry]`: the destination of traces, and the format of the log.

use std::collections::BTreeMap;
use std::fmt;

use url::Url;

use super::document::Section;

const SECRET: &str = "secret:";
const OTLP: &str = "the URL of a collector of OTLP over HTTP, such as 'http://127.0.0.1:4318'";
const SERVICE_DEFAULT: &str = "snaphook";

/// Standard environment variables of OpenTelemetry, used for keys that are missing in the file.
const ENDPOINT_VARIABLE: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const HEADERS_VARIABLE: &str = "OTEL_EXPORTER_OTLP_HEADERS";
const SERVICE_VARIABLE: &str = "OTEL_SERVICE_NAME";

/// `[telemetry]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TelemetryConfig {
    /// `None`: tracing is off.
    pub traces: Option<TracesConfig>,
    pub log_format: LogFormat,
}

impl TelemetryConfig {
    /// Whether both are equal, ignoring their lines in the file.
    pub(super) fn is_same(&self, other: &TelemetryConfig) -> bool {
        let unplaced =
            |config: &TelemetryConfig| config.traces.clone().map(|traces| TracesConfig { line: None, ..traces });
        self.log_format == other.log_format && unplaced(self) == unplaced(other)
    }
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// The destination of traces.
#[derive(Clone, PartialEq)]
pub struct TracesConfig {
    /// The collector's URL, without `/v1/traces`.
    pub endpoint: Url,
    /// Headers of each request, by name.
    pub headers: BTreeMap<String, HeaderSource>,
    /// The share of requests that are traced if no trusted client decides.
    pub sample: f64,
    pub trust: Trust,
    pub service_name: String,
    /// The line in the file, if it comes from the file.
    pub line: Option<usize>,
}

/// The clients whose `traceparent` decides whether a request is traced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// Trusted proxies.
    #[default]
    Proxies,
    All,
}

/// The value of a header.
#[derive(Clone, PartialEq, Eq)]
pub enum HeaderSource {
    Value(String),
    /// The name of a secret.
    Secret(String),
}

/// Omits values that may be secrets.
impl fmt::Debug for TracesConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TracesConfig { headers, sample, trust, service_name, line, .. } = self;
        let headers: Vec<_> = headers.keys().collect();
        let mut out = f.debug_struct("TracesConfig");
        out.field("headers", &headers).field("sample", sample).field("trust", trust);
        out.field("service_name", service_name).field("line", line);
        out.finish_non_exhaustive()
    }
}

pub(super) fn telemetry(root: &mut Section<'_>) -> TelemetryConfig {
    let mut section = root.section("telemetry");
    let otlp = section.string("otlp");
    let line = otlp.as_ref().map(|text| text.place.line);
    let is_asked = otlp.is_some();
    let endpoint = match otlp {
        Some(text) => text.parsed(OTLP, endpoint),
        None => variable(&section, ENDPOINT_VARIABLE).and_then(|text| {
            let url = endpoint(&text);
            if url.is_none() {
                // Not shown, because it may contain a password.
                section.environment_error(ENDPOINT_VARIABLE, &format!("is not {OTLP}"));
            }
            url
        }),
    };
    let sample = section.fraction("sample");
    let trust = section.string("trust-traceparent");
    let trust = trust.and_then(|text| text.word(&[("proxies", Trust::Proxies), ("all", Trust::All)]));
    let mut headers = BTreeMap::new();
    for (name, value) in section.value("headers").and_then(|value| value.entries()).unwrap_or_default() {
        if !is_header_name(name) {
            value.error("is not a valid header name, expected letters, digits and `-`");
        } else if let Some(text) = value.secret_text() {
            match header_source(&text.value) {
                Some(source) => drop(headers.insert(name.to_ascii_lowercase(), source)),
                // Not shown, because it may be a password.
                None => text.place.error("is not a valid header value, expected visible ASCII, or 'secret:NAME'"),
            }
        }
    }
    let service_name = section.string("service-name");
    let service_name = service_name.and_then(|text| {
        text.parsed("a name of at most 100 bytes", |text| (1..=100).contains(&text.len()).then(|| text.to_owned()))
    });
    let log_format = section.string("log-format");
    let log_format = log_format.and_then(|text| text.word(&[("text", LogFormat::Text), ("json", LogFormat::Json)]));
    let needs =
        ["sample", "trust-traceparent", "headers", "service-name"].into_iter().find(|key| section.was_there(key));
    if let (Some(key), None, false) = (needs, &endpoint, is_asked) {
        let message = format!("{OTLP}, which `telemetry.{key}` is for");
        section.missing("otlp", &message);
    }
    if headers.is_empty() && endpoint.is_some() {
        headers = variable(&section, HEADERS_VARIABLE)
            .and_then(|text| {
                let listed = listed(&text);
                if listed.is_none() {
                    section.environment_error(HEADERS_VARIABLE, "is not a comma-separated list of `name=value`");
                }
                listed
            })
            .unwrap_or_default();
    }
    let service = service_name.or_else(|| variable(&section, SERVICE_VARIABLE));
    let traces = endpoint.map(|endpoint| TracesConfig {
        endpoint,
        headers,
        sample: sample.unwrap_or(1.0),
        trust: trust.unwrap_or_default(),
        service_name: service.unwrap_or_else(|| SERVICE_DEFAULT.to_owned()),
        line,
    });
    section.finish();
    TelemetryConfig { traces, log_format: log_format.unwrap_or_default() }
}

fn endpoint(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let is_plain = url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
    (matches!(url.scheme(), "http" | "https") && url.has_host() && is_plain && url.password().is_none()).then_some(url)
}

fn is_header_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn header_source(text: &str) -> Option<HeaderSource> {
    match text.strip_prefix(SECRET) {
        Some(name) => (!name.is_empty()).then(|| HeaderSource::Secret(name.to_owned())),
        None => is_header_value(text).then(|| HeaderSource::Value(text.to_owned())),
    }
}

/// Whether a text is a valid header value.
fn is_header_value(text: &str) -> bool {
    text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

/// An environment variable; an empty one counts as unset, as OpenTelemetry specifies.
fn variable(section: &Section<'_>, name: &str) -> Option<String> {
    section.environment(name).filter(|text| !text.trim().is_empty())
}

/// Comma-separated `key=value` pairs, as OpenTelemetry defines them; `None` if one is invalid.
fn listed(text: &str) -> Option<BTreeMap<String, HeaderSource>> {
    let pairs = text.split(',').filter(|pair| !pair.trim().is_empty());
    let pairs = pairs.map(|pair| {
        let (name, value) = pair.split_once('=')?;
        let decoded = percent_encoding::percent_decode_str(value.trim()).decode_utf8().ok()?;
        let name = name.trim();
        (is_header_name(name) && is_header_value(&decoded))
            .then(|| (name.to_ascii_lowercase(), HeaderSource::Value(decoded.into_owned())))
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    #[test]
    fn keys_and_variables() {
        let head = "[server]\nmount-address = '127.0.0.1:1'\n[auth]\nmode = 'open'\n[telemetry]\n";
        let read = |text: &str, environment: &dyn Fn(&str) -> Option<String>| {
            Config::parse(&format!("{head}{text}"), "config.toml", Path::new("/srv"), None, environment)
        };
        let none = |_: &str| None;
        let config = read(
            "otlp = 'https://c.example/otlp'\nsample = 0\nheaders = { X-Key = 'k', authorization = 'secret:otlp' }\n\
             log-format = 'json'\n",
            &none,
        );
        let telemetry = config.unwrap().telemetry;
        assert_eq!(telemetry.log_format, LogFormat::Json);
        let traces = telemetry.traces.unwrap();
        assert_eq!((traces.endpoint.as_str(), traces.sample, traces.line), ("https://c.example/otlp", 0.0, Some(6)));
        assert!(traces.headers["x-key"] == HeaderSource::Value("k".to_owned()));
        assert!(traces.headers["authorization"] == HeaderSource::Secret("otlp".to_owned()));
        assert!(!format!("{traces:?}").contains("\"k\""), "{traces:?}");

        // What OpenTelemetry calls it, where the file does not say it.
        let environment = |name: &str| match name {
            "OTEL_EXPORTER_OTLP_ENDPOINT" => Some("http://c:4318".to_owned()),
            "OTEL_EXPORTER_OTLP_HEADERS" => Some("a=1, b=x%20y,".to_owned()),
            "OTEL_SERVICE_NAME" => Some("shop".to_owned()),
            _ => None,
        };
        let traces = read("", &environment).unwrap().telemetry.traces.unwrap();
        assert_eq!((traces.endpoint.as_str(), traces.service_name.as_str()), ("http://c:4318/", "shop"));
        assert_eq!(traces.headers.keys().collect::<Vec<_>>(), ["a", "b"]);
        let traces =
            read("otlp = 'http://d'\nservice-name = 'mine'\n", &environment).unwrap().telemetry.traces.unwrap();
        assert_eq!((traces.endpoint.as_str(), traces.service_name.as_str()), ("http://d/", "mine"));

        // Said, whoever set it, unless the file says otherwise; what is empty is not set.
        for (name, value, says) in [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317", "is not the URL of a collector"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://u:hunter2@c", "is not the URL of a collector"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=1,b c=hunter2", "is not a comma-separated list of `name=value`"),
        ] {
            let wrong = |asked: &str| (asked == name).then(|| value.to_owned());
            let file = if name.ends_with("HEADERS") { "otlp = 'http://d'\n" } else { "log-format = 'text'\n" };
            let errors = read(file, &wrong).unwrap_err().to_string();
            let says = format!("the variable {name} of the environment {says}");
            assert!(errors.contains(&says) && !errors.contains("hunter2"), "{errors}");
            assert!(read("otlp = 'http://d'\nheaders = { a = 'b' }\n", &wrong).is_ok(), "{name}");
            assert!(read("", &|asked| (asked == name).then(String::new)).unwrap().telemetry.traces.is_none(), "{name}");
        }
        for (more, trust) in [("", Trust::Proxies), ("trust-traceparent = 'all'", Trust::All)] {
            assert_eq!(
                read(&format!("otlp = 'http://d'\n{more}"), &none).unwrap().telemetry.traces.unwrap().trust,
                trust
            );
        }
        let lines = |text: &str| read(text, &none).map_err(|errors| errors.lines().collect::<Vec<_>>()).unwrap_err();
        let url = "the URL of a collector of OTLP over HTTP, such as 'http://127.0.0.1:4318'";
        assert_eq!(
            lines(
                "otlp = 'collector:4318'\nsample = 1.5\nheaders = { 'a b' = 'x', c = \"hunter2\\n\" }\nlog-format = 'xml'\n\
                 service-name = ''\nendpoint = 1\n"
            ),
            [
                format!("config.toml:6: `telemetry.otlp` is `collector:4318`, expected {url}"),
                "config.toml:7: `telemetry.sample` is out of range, expected a number from 0 to 1".to_owned(),
                "config.toml:8: `telemetry.headers.a b` is not a valid header name, expected letters, digits and `-`"
                    .to_owned(),
                "config.toml:8: `telemetry.headers.c` is not a valid header value, expected visible ASCII, or \
                 'secret:NAME'"
                    .to_owned(),
                "config.toml:9: `telemetry.log-format` is `xml`, expected 'text' or 'json'".to_owned(),
                "config.toml:10: `telemetry.service-name` is ``, expected a name of at most 100 bytes".to_owned(),
                "config.toml:11: unknown key `telemetry.endpoint`, known are `otlp`, `sample`, `trust-traceparent`, \
                 `headers`, `service-name`, `log-format`"
                    .to_owned(),
            ]
        );
        assert_eq!(lines("sample = 0.5\n").len(), 1);
        let lines = lines("sample = 'x'\n");
        assert!(lines[1].contains("is a string, expected a number from 0 to 1"), "{lines:?}");
        for bad in ["http://u:p@c", "ftp://c", "http://c?x", "http://"] {
            assert!(read(&format!("otlp = '{bad}'\n"), &none).is_err(), "{bad}");
        }
    }
}
