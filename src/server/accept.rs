//! `Accept` (RFC 9110, section 12.5.1), as far as a choice between JSON and one other form needs it.

use hyper::header::HeaderValue;

/// Which of `types` the client asks for by name, rather than JSON. Wildcards mean JSON.
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
}
