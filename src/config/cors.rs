//! `[server.cors]`: the origins whose pages may use the API in a browser.

use super::document::{Section, Text, strings};

/// `[server.cors]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorsConfig {
    /// Each as a browser sends it in `Origin`: scheme, host and, if it is not the default, port.
    pub origins: Vec<String>,
    /// Whether a page may send credentials that the browser has for this server, such as a client certificate.
    pub credentials: bool,
}

pub(super) fn cors(server: &mut Section<'_>) -> Option<CorsConfig> {
    let mut section = server.section("cors");
    let is_there = section.line.is_some();
    let origins = strings(section.value("origins"), "origins such as 'https://app.example.com'", origin);
    if is_there && !section.was_there("origins") {
        section.missing("origins", "a list of origins such as ['https://app.example.com']");
    }
    let credentials = section.boolean("credentials").unwrap_or(false);
    section.finish();
    (!origins.is_empty()).then_some(CorsConfig { origins, credentials })
}

/// An origin in the form that browsers send: no path, no user, no default port, lowercase.
fn origin(text: Text<'_>) -> Option<String> {
    let parsed = url::Url::parse(&text.value).ok();
    let canonical = parsed.filter(|url| matches!(url.scheme(), "http" | "https")).map(|url| url.origin());
    match canonical {
        Some(origin) if origin.ascii_serialization() == text.value => Some(text.value),
        _ => {
            text.unexpected("an origin such as 'https://app.example.com', without a path; `*` is not one");
            None
        }
    }
}
