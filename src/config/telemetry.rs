//! `[telemetry]`: where traces go, and how the log is written.

use std::collections::BTreeMap;
use std::fmt;

use url::Url;

use super::document::Section;

const SECRET: &str = "secret:";
const OTLP: &str = "the URL of a collector of OTLP over HTTP, such as 'http://127.0.0.1:4318'";
const SERVICE_DEFAULT: &str = "snaphook";

/// Variables of the environment that OpenTelemetry has names for, where the file has no key.
const ENDPOINT_VARIABLE: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const HEADERS_VARIABLE: &str = "OTEL_EXPORTER_OTLP_HEADERS";
const SERVICE_VARIABLE: &str = "OTEL_SERVICE_NAME";

/// `[telemetry]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TelemetryConfig {
    /// `None`: nothing is traced.
    pub traces: Option<TracesConfig>,
    pub log_format: LogFormat,
}

impl TelemetryConfig {
    /// Whether both say the same, wherever in the file.
    pub(super) fn is_same(&self, other: &TelemetryConfig) -> bool {
        let unplaced =
            |config: &TelemetryConfig| config.traces.clone().map(|traces| TracesConfig { line: None, ..traces });
        self.log_format == other.log_format && unplaced(self) == unplaced(other)
    }
}

/// How lines of the log are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// Where traces go.
#[derive(Clone, PartialEq)]
pub struct TracesConfig {
    /// Of the collector, without `/v1/traces`.
    pub endpoint: Url,
    /// Sent with each request, by name.
    pub headers: BTreeMap<String, HeaderSource>,
    /// The share of requests that are traced, unless the client says so.
    pub sample: f64,
    pub service_name: String,
    /// Its line in the file, if it is from there.
    pub line: Option<usize>,
}

/// The value of a header.
#[derive(Clone, PartialEq, Eq)]
pub enum HeaderSource {
    Value(String),
    /// The name of a secret.
    Secret(String),
}

/// Without values that may be secrets.
impl fmt::Debug for TracesConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TracesConfig { headers, sample, service_name, line, .. } = self;
        let headers: Vec<_> = headers.keys().collect();
        let mut out = f.debug_struct("TracesConfig");
        out.field("headers", &headers).field("sample", sample).field("service_name", service_name).field("line", line);
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
        None => section.environment(ENDPOINT_VARIABLE).and_then(|text| endpoint(&text)),
    };
    let sample = section.fraction("sample");
    let mut headers = BTreeMap::new();
    for (name, value) in section.value("headers").and_then(|value| value.entries()).unwrap_or_default() {
        if !is_header_name(name) {
            value.error("is no name of a header, expected letters, digits and `-`");
        } else if let Some(text) = value.secret_text() {
            match header_source(&text.value) {
                Some(source) => drop(headers.insert(name.to_ascii_lowercase(), source)),
                // Not shown: it may be a password.
                None => text.place.error("is no value of a header, expected visible ASCII, or 'secret:NAME'"),
            }
        }
    }
    let service_name = section.string("service-name");
    let service_name = service_name.and_then(|text| {
        text.parsed("a name of at most 100 bytes", |text| (1..=100).contains(&text.len()).then(|| text.to_owned()))
    });
    let log_format = section.string("log-format");
    let log_format = log_format.and_then(|text| text.word(&[("text", LogFormat::Text), ("json", LogFormat::Json)]));
    let needs = ["sample", "headers", "service-name"].into_iter().find(|key| section.was_there(key));
    if let (Some(key), None, false) = (needs, &endpoint, is_asked) {
        let message = format!("{OTLP}, which `telemetry.{key}` is for");
        section.missing("otlp", &message);
    }
    if headers.is_empty() {
        headers = section.environment(HEADERS_VARIABLE).map(|text| listed(&text)).unwrap_or_default();
    }
    let service = service_name.or_else(|| section.environment(SERVICE_VARIABLE).filter(|name| !name.is_empty()));
    let traces = endpoint.map(|endpoint| TracesConfig {
        endpoint,
        headers,
        sample: sample.unwrap_or(1.0),
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

/// Whether a text may be a header's value.
fn is_header_value(text: &str) -> bool {
    text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

/// `key=value` pairs between commas, as OpenTelemetry writes them; what is none is left out.
fn listed(text: &str) -> BTreeMap<String, HeaderSource> {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    let pairs = pairs.filter_map(|(name, value)| {
        let decoded = percent_encoding::percent_decode_str(value.trim()).decode_utf8().ok()?;
        let name = name.trim();
        (is_header_name(name) && is_header_value(&decoded))
            .then(|| (name.to_ascii_lowercase(), HeaderSource::Value(decoded.into_owned())))
    });
    pairs.collect()
}
