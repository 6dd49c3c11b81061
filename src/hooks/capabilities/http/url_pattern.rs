//! The pattern of an `http` grant, `[METHOD ]URL` with `*`, and the normal form in which URLs are compared with it.
//!
//! A pattern is parsed once and compared part by part, so that a `*` in the host never matches part of the path, a port
//! or a user name. Without a method it allows all methods, without a `?` any query, and without a port only the
//! scheme's default port (`:*` allows all).

use std::borrow::Cow;
use std::fmt;

use percent_encoding::percent_decode_str;
use reqwest::Method;
use snaphook_identity::glob;
use url::{Host, Url};

use crate::config::HttpPattern;
use crate::telemetry::line::shortened;

/// A longer URL is rejected.
const URL_BYTES_MAX: usize = 64 * 1024;

/// How many times a path may be percent-encoded.
const DECODINGS_MAX: usize = 4;

/// One entry of `http` in a grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlPattern {
    text: String,
    method: Option<Method>,
    scheme: String,
    host: String,
    /// `None`: any port.
    port: Option<u16>,
    path: String,
    /// `None`: any query.
    query: Option<String>,
}

impl UrlPattern {
    /// Parses a pattern; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<UrlPattern, String> {
        let HttpPattern { method, scheme, host, port, path, query } = HttpPattern::parse(text)?;
        let method = method.map(|method| parse_method(&method)).transpose()?;
        Ok(UrlPattern { text: text.to_owned(), method, scheme, host, port, path, query })
    }

    /// Whether this pattern allows the request.
    pub(super) fn opens(&self, method: &Method, target: &TargetUrl) -> bool {
        let url = &target.url;
        self.method.as_ref().is_none_or(|own| own == method)
            && self.scheme == url.scheme()
            && self.port.is_none_or(|port| Some(port) == url.port_or_known_default())
            && glob::matches(&self.host, target.host())
            && glob::matches(&self.path, url.path())
            && self.query.as_ref().is_none_or(|query| glob::matches(query, url.query().unwrap_or_default()))
    }

    /// Whether the pattern names the host in full, so that it also allows addresses that are not public.
    pub(super) fn names_host(&self) -> bool {
        !self.host.contains('*')
    }
}

impl fmt::Display for UrlPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A URL that may be compared with patterns: http or https, with a host, without a user name, and without a path that a
/// server could resolve to a different one. Displays without its query.
#[derive(Clone, Debug)]
pub(super) struct TargetUrl {
    url: Url,
}

impl TargetUrl {
    /// Checks and normalises the URL of a guest or of a redirect.
    pub(super) fn parse(text: &str) -> Result<TargetUrl, String> {
        if text.len() > URL_BYTES_MAX {
            return Err(format!("a URL of {} bytes, at most {URL_BYTES_MAX} are allowed", text.len()));
        }
        TargetUrl::new(Url::parse(text).map_err(|error| format!("`{}` is not a valid URL: {error}", shorten(text)))?)
    }

    /// The target of a redirect, which may be relative to this one.
    pub(super) fn join(&self, location: &str) -> Result<TargetUrl, String> {
        if location.len() > URL_BYTES_MAX {
            return Err(format!("a URL of {} bytes, at most {URL_BYTES_MAX} are allowed", location.len()));
        }
        let url =
            self.url.join(location).map_err(|error| format!("`{}` is not a valid URL: {error}", shorten(location)))?;
        TargetUrl::new(url)
    }

    fn new(mut url: Url) -> Result<TargetUrl, String> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!("scheme `{}` is not `http` or `https`", url.scheme()));
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err("the URL has no host".to_owned());
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("the URL contains a user name or password; use an `authorization` header".to_owned());
        }
        if climbs(url.path()) {
            return Err(format!(
                "the path `{}` contains an encoded `.` or `..` segment, or is encoded more than {DECODINGS_MAX} times \
                 over",
                shorten(url.path())
            ));
        }
        url.set_fragment(None);
        Ok(TargetUrl { url })
    }

    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    /// Only the server, with a sign that more follows.
    pub(super) fn server(&self) -> String {
        let rest = if self.url.path() == "/" && self.url.query().is_none() { "/" } else { "/…" };
        format!("{}{rest}", self.url.origin().ascii_serialization())
    }

    /// The host as in the normalised URL: lower case, IPv6 in brackets, IPv4 always in dotted form.
    pub(super) fn host(&self) -> &str {
        self.url.host_str().unwrap_or_default()
    }

    /// The IP address, if the host is one.
    pub(super) fn literal(&self) -> Option<std::net::IpAddr> {
        match self.url.host()? {
            Host::Ipv4(address) => Some(address.into()),
            Host::Ipv6(address) => Some(address.into()),
            Host::Domain(_) => None,
        }
    }
}

impl fmt::Display for TargetUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = self.url.as_str();
        f.write_str(url.split_once('?').map_or(url, |(path, _)| path))
    }
}

/// Parses a method as fetch does: common methods in any case, others as they are. Methods that open a tunnel are
/// rejected.
pub(super) fn parse_method(text: &str) -> Result<Method, String> {
    let upper = text.to_ascii_uppercase();
    let name = match upper.as_str() {
        "CONNECT" | "TRACE" | "TRACK" => return Err(format!("method `{upper}` is not allowed")),
        "GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS" => upper.as_str(),
        _ => text,
    };
    Method::from_bytes(name.as_bytes()).map_err(|_| format!("`{}` is not an HTTP method", shorten(text)))
}

/// Whether a segment is `.` or `..` for a server that decodes the path, possibly repeatedly, before it splits it into
/// segments. The URL parser has already resolved plain ones. A path that is still encoded after [`DECODINGS_MAX`]
/// rounds could be anything.
fn climbs(path: &str) -> bool {
    // Some servers ignore certain characters around a segment's name.
    let name = |segment: &str| {
        let name = segment.split(';').next().unwrap_or_default();
        matches!(name.trim_matches(|char: char| char.is_control() || char.is_whitespace()), "." | "..")
    };
    let mut text = path.to_owned();
    for _ in 0..=DECODINGS_MAX {
        if text.split(['/', '\\']).any(name) {
            return true;
        }
        let decoded = percent_decode_str(&text).decode_utf8_lossy().into_owned();
        if decoded == text {
            return false;
        }
        text = decoded;
    }
    true
}

/// Shortens a guest's text for a message.
fn shorten(text: &str) -> Cow<'_, str> {
    shortened(text, 200)
}

#[cfg(test)]
mod tests {
    use super::{TargetUrl, UrlPattern, parse_method};

    #[track_caller]
    fn check(pattern: &str, method: &str, url: &str, expected: bool) {
        let pattern = UrlPattern::parse(pattern).unwrap();
        // No pattern allows an invalid target.
        let opens = TargetUrl::parse(url).is_ok_and(|target| pattern.opens(&parse_method(method).unwrap(), &target));
        assert_eq!(opens, expected, "`{pattern}` on {method} {url}");
    }

    #[test]
    fn parts_match_on_their_own() {
        let rows = [
            ("https://api.example.com/v1/*", "GET", "https://api.example.com/v1/x", true),
            ("https://api.example.com/v1/*", "POST", "https://API.example.com:443/v1/x?q=1", true),
            ("https://api.example.com/v1/*", "GET", "https://api.example.com/v2/x", false),
            ("https://api.example.com/v1/*", "GET", "http://api.example.com/v1/x", false),
            ("https://api.example.com/v1/*", "GET", "https://api.example.com:8443/v1/x", false),
            ("https://api.example.com/v1/*", "GET", "https://api.example.com.evil.org/v1/x", false),
            ("https://api.example.com/v1/*", "GET", "https://api.example.com@evil.org/v1/x", false),
            ("https://api.example.com/v1/*", "GET", "https://user@api.example.com/v1/x", false),
            ("https://api.example.com/v1/*", "GET", "https://evil.org/https://api.example.com/v1/x", false),
            ("https://api.example.com/v1/*", "GET", "https://evil.org#https://api.example.com/v1/x", false),
            ("https://api.example.com/v1/*", "GET", "https://api.example.com\\@evil.org/v1/x", false),
            ("https://api.example.com/v1/*", "GET", "https://api.example.com/v1/../admin", false),
            ("https://api.example.com/v1/*", "GET", "https://api.example.com/v1/%2e%2e/admin", false),
            ("https://api.example.com/v1/*", "GET", "https://api.example.com/v1/..%2fadmin", false),
            ("https://api.example.com/v1/*", "GET", "https://api.example.com/v1/%2e%2e%2fadmin", false),
            ("https://api.example.com/v1/*", "GET", "https://api.example.com/v1/%252e%252e%252fadmin", false),
            ("https://api.example.com/v1/*", "GET", "https://api.example.com/v1/..%5cadmin", false),
            ("https://api.example.com/v1/*", "GET", "https://api.example.com/v1/..;/admin", false),
            ("https://api.example.com/v1/*", "GET", "https://api.example.com/v1/..%00/admin", false),
            ("https://api.example.com/v1/*", "GET", "https://api.example.com/v1/.%2e%09/admin", false),
            ("https://api.example.com/v1/*", "GET", "https://api.example.com/v1/a..b", true),
            ("https://api.example.com/v1/*", "GET", "https://api.example.com/v1/100%25", true),
            ("https://api.example.com/v1/*", "GET", "https://api.example.com/v1/a%25252fb", true),
            ("https://api.example.com/v1/*", "GET", "https:api.example.com/v1/x", true),
            ("https://*.example.com/*", "GET", "https://a.b.example.com/", true),
            ("https://*.example.com/*", "GET", "https://example.com/", false),
            ("https://*.example.com/*", "GET", "https://evil.org/.example.com/", false),
            ("https://*.example.com/*", "GET", "https://evil.org?.example.com/", false),
            ("https://*/*", "GET", "https://anything.org/x", true),
            ("http://example.com:*/*", "GET", "http://example.com:8080/x", true),
            ("http://example.com:*/*", "GET", "http://example.com/x", true),
            ("http://127.0.0.1:80/*", "GET", "http://0x7f.1/x", true),
            ("http://0x7f000001/*", "GET", "http://127.0.0.1/x", true),
            ("http://[::1]/*", "GET", "http://[0:0::1]/x", true),
            ("POST https://hooks.example.com/*", "POST", "https://hooks.example.com/a", true),
            ("POST https://hooks.example.com/*", "post", "https://hooks.example.com/a", true),
            ("POST https://hooks.example.com/*", "GET", "https://hooks.example.com/a", false),
            ("https://example.com", "GET", "https://example.com/", true),
            ("https://example.com", "GET", "https://example.com/x", false),
            ("https://example.com/s?q=*", "GET", "https://example.com/s?q=1", true),
            ("https://example.com/s?q=*", "GET", "https://example.com/s?r=1", false),
            ("https://example.com/s?q=*", "GET", "https://example.com/s", false),
            ("https://münchen.example/*", "GET", "https://xn--mnchen-3ya.example/x", true),
        ];
        for (pattern, method, url, expected) in rows {
            check(pattern, method, url, expected);
        }
    }

    /// Each character of a climbing path encoded as often as one likes.
    #[test]
    fn no_depth_of_encoding_climbs() {
        let encode = |text: &str| text.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>();
        for climbing in ["..", "../", "..\\", "../../admin", "..;x"] {
            let mut whole = encode(climbing);
            let mut percent_only = whole.clone();
            for depth in 1..=40 {
                for path in [&whole, &percent_only] {
                    let url = format!("https://api.example.com/v1/{path}");
                    check("https://api.example.com/v1/*", "GET", &url, false);
                }
                percent_only = percent_only.replace('%', "%25");
                if depth < 5 {
                    whole = encode(&whole);
                }
            }
        }
        // The longest chain of encodings that fits is found out in a few rounds.
        let deep = format!("https://api.example.com/v1/%{}41", "25".repeat(30_000));
        assert!(TargetUrl::parse(&deep).unwrap_err().contains("more than"), "encoded 30,000 times");
    }

    #[test]
    fn bad_patterns_and_targets() {
        for (text, expected) in [
            ("ftp://example.com/", "starts with `https://`"),
            ("example.com/*", "starts with `https://`"),
            ("https://example.*/x", "end of the host"),
            ("https://example.com*/x", "end of the host"),
            ("https://10.0.0.*/x", "end of the host"),
            ("https://u@example.com/x", "user name"),
            ("https://example.com/#x", "`#`"),
            ("CONNECT https://example.com/", "method"),
            ("GE(T https://example.com/", "method"),
            ("https://", "not a valid URL"),
        ] {
            let error = UrlPattern::parse(text).unwrap_err();
            assert!(error.contains(expected), "`{text}`: {error}");
        }
        for text in ["file:///etc/passwd", "ftp://example.com/", "data:,x", "https://u:p@example.com/", "//x", "x", ""]
        {
            assert!(TargetUrl::parse(text).is_err(), "`{text}`");
        }
        assert_eq!(TargetUrl::parse("https://example.com/a?secret=1").unwrap().to_string(), "https://example.com/a");
    }
}
