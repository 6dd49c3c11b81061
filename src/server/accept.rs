//! `Accept` (RFC 9110, section 12.5.1), for the choice between JSON and another format, and between the formats of
//! metrics.

use hyper::header::HeaderValue;

/// Which of `types` the client prefers by name over JSON. Wildcards mean JSON.
pub(super) fn prefers<'a, 'v>(values: impl IntoIterator<Item = &'v HeaderValue>, types: &[&'a str]) -> Option<&'a str> {
    let mut best: Option<(&'a str, f32)> = None;
    let mut json = 0.0_f32;
    let lines = values.into_iter().filter_map(|value| value.to_str().ok());
    for range in lines.flat_map(|line| line.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let quality = parts
            .filter_map(|parameter| parameter.split_once('='))
            .find(|(name, _)| name.trim().eq_ignore_ascii_case("q"))
            .map_or(1.0, |(_, quality)| quality.trim().parse().unwrap_or(0.0));
        if name.eq_ignore_ascii_case("application/json") {
            json = json.max(quality);
        }
        if let Some(known) = types.iter().find(|known| known.eq_ignore_ascii_case(name))
            && quality > best.map_or(0.0, |(_, quality)| quality)
        {
            best = Some((known, quality));
        }
    }
    best.filter(|(_, quality)| *quality > json).map(|(name, _)| name)
}

/// Whether the client names OpenMetrics 1.0, with at least the quality of plain text.
pub(super) fn takes_open_metrics<'v>(values: impl IntoIterator<Item = &'v HeaderValue>) -> bool {
    let (mut open_metrics, mut text) = (0.0_f32, 0.0_f32);
    let lines = values.into_iter().filter_map(|value| value.to_str().ok());
    for range in lines.flat_map(|line| line.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let (mut quality, mut version) = (1.0, None);
        for (name, value) in parts.filter_map(|parameter| parameter.split_once('=')) {
            match name.trim() {
                name if name.eq_ignore_ascii_case("q") => quality = value.trim().parse().unwrap_or(0.0),
                name if name.eq_ignore_ascii_case("version") => version = Some(value.trim().trim_matches('"')),
                _ => {}
            }
        }
        if name.eq_ignore_ascii_case("application/openmetrics-text") && matches!(version, None | Some("1.0.0")) {
            open_metrics = open_metrics.max(quality);
        }
        if name.eq_ignore_ascii_case("text/plain") && matches!(version, None | Some("0.0.4")) {
            text = text.max(quality);
        }
    }
    open_metrics > 0.0 && open_metrics >= text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chooses_what_is_named() {
        let of =
            |line: &'static str| prefers(&[HeaderValue::from_static(line)], &["application/wasm", "text/javascript"]);
        assert_eq!(of("application/wasm"), Some("application/wasm"));
        assert_eq!(of("application/json;q=0.5, Text/JavaScript"), Some("text/javascript"));
        assert_eq!(of("text/javascript;q=0.5, application/wasm; Q=0.6"), Some("application/wasm"));
        for json in [
            "",
            "*/*",
            "text/*",
            "application/json",
            "text/javascript;q=0",
            "text/javascript, application/json",
            "text/javascript;q=x",
        ] {
            assert_eq!(of(json), None, "{json}");
        }
        assert_eq!(prefers(&[], &["application/wasm"]), None);
    }

    #[test]
    fn formats_of_metrics() {
        let of = |line: &'static str| takes_open_metrics(&[HeaderValue::from_static(line)]);
        for open_metrics in [
            // What Prometheus 2 and 3 send.
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
             text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
             text/plain;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            "application/openmetrics-text",
            "Application/OpenMetrics-Text; version=\"1.0.0\"",
        ] {
            assert!(of(open_metrics), "{open_metrics}");
        }
        for text in [
            "",
            "*/*",
            "text/plain",
            "application/*",
            "application/openmetrics-text;version=0.0.1",
            "application/openmetrics-text;version=2.0.0",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;q=0.3, text/plain;q=0.5",
            "application/openmetrics-text;q=x",
            "application/openmetrics-text;q=NaN",
        ] {
            assert!(!of(text), "{text}");
        }
        assert!(!takes_open_metrics(&[]));
    }
}
