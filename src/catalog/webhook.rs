//! The binding of a webhook: the URL for the events, and the name of the secret that signs them.
//!
//! Its text is stored in the event store as the hook's code, so a webhook has an artifact, a history and backups like
//! any other hook, and its URL is in no event.

use serde::{Deserialize, Serialize};
use snaphook_driver::json;
use snaphook_driver::limits::{is_reserved_name, is_secret_name};
use url::Url;

use crate::config::Phase;

/// The engine's name in bindings.
pub const WEBHOOK: &str = "webhook";

/// Longest URL, which servers accept in a request line.
const URL_BYTES_MAX: usize = 2048;

/// The destination of events, and the secret that signs them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    pub url: String,
    /// Name of the secret that holds the key, or several keys while they are rotated.
    pub secret: String,
}

impl Webhook {
    /// Its canonical text. It has only names and a URL, so serializing it cannot fail.
    pub fn code(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The server, with `/…` for the rest: many receivers have a key in the path or the query.
    pub fn address(&self) -> String {
        let Ok(url) = Url::parse(&self.url) else { return String::new() };
        let rest = if url.path() == "/" && url.query().is_none() { "/" } else { "/…" };
        format!("{}{rest}", url.origin().ascii_serialization())
    }

    /// The error for a pre phase.
    pub fn too_early(phase: Phase) -> String {
        format!(
            "a webhook is sent after the change, and `{phase}` runs before it: bind it to `postCreate`, `postUpdate` or `postDelete`"
        )
    }

    /// Parses and checks the text of [`Webhook::code`].
    pub fn parse(code: &[u8]) -> Result<Webhook, String> {
        let webhook: Webhook = json::typed_bytes(code)
            .map_err(|_| "engine `webhook` runs no code: name the `url` and the `secret` in a chain".to_owned())?;
        webhook.check()?;
        Ok(webhook)
    }

    /// Checks its values; the error is one sentence.
    pub fn check(&self) -> Result<(), String> {
        let Webhook { url: text, secret } = self;
        if text.len() > URL_BYTES_MAX {
            return Err(format!("`url` has {} bytes, at most {URL_BYTES_MAX} are allowed", text.len()));
        }
        let shown = text.escape_debug();
        let url = Url::parse(text).map_err(|error| format!("`url` is `{shown}`, which is not a valid URL: {error}"))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
            return Err(format!("`url` is `{shown}`, expected `https://` or `http://` and a host"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("`url` has a user name or a password; a webhook's receiver checks the signature".to_owned());
        }
        if url.fragment().is_some() {
            return Err(format!("`url` is `{shown}`, but `#` and what follows never reaches a server; leave it out"));
        }
        if !is_secret_name(secret) || is_reserved_name(secret) {
            return Err(format!(
                "`secret` is `{}`, expected the name of a secret: letters, digits, `.`, `_` and `-`, at most 128",
                secret.chars().take(200).collect::<String>().escape_debug()
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Webhook;

    #[test]
    fn the_text_comes_back() {
        let webhook = Webhook { url: "https://example.com/in?a=b".into(), secret: "orders-key".into() };
        assert_eq!(webhook.code(), br#"{"url":"https://example.com/in?a=b","secret":"orders-key"}"#);
        assert_eq!(Webhook::parse(&webhook.code()), Ok(webhook));
        for code in ["", "export default () => {}", "{}", r#"{"url":"https://a.b/","secret":"s","more":1}"#] {
            assert!(Webhook::parse(code.as_bytes()).unwrap_err().contains("runs no code"), "{code}");
        }
    }

    #[test]
    fn what_is_shown_of_a_url() {
        for (url, shown) in [
            ("https://hooks.example.com", "https://hooks.example.com/"),
            ("https://hooks.example.com/", "https://hooks.example.com/"),
            ("https://hooks.example.com/services/T0/B0/hunter2", "https://hooks.example.com/…"),
            ("http://127.0.0.1:8787/?token=hunter2", "http://127.0.0.1:8787/…"),
            ("https://EXAMPLE.com:443?hunter2", "https://example.com/…"),
        ] {
            assert_eq!(Webhook { url: url.into(), secret: "s".into() }.address(), shown, "{url}");
        }
    }

    #[test]
    fn what_cannot_work() {
        let long = format!("https://example.com/{}", "x".repeat(2048));
        for (url, secret, expected) in [
            ("", "s", "not a valid URL"),
            ("example.com/in", "s", "not a valid URL"),
            ("ftp://example.com/in", "s", "expected `https://`"),
            ("file:///etc/passwd", "s", "expected `https://`"),
            ("https://u:p@example.com/", "s", "user name"),
            ("https://example.com/#part", "s", "`#`"),
            (&long, "s", "at most 2048"),
            ("https://example.com/", "", "name of a secret"),
            ("https://example.com/", "a b", "name of a secret"),
            ("https://example.com/", "snaphook.tokens", "name of a secret"),
            ("https://example.com/", "whsec_AAAA=", "name of a secret"),
        ] {
            let error = Webhook { url: url.to_owned(), secret: secret.to_owned() }.check().unwrap_err();
            assert!(error.contains(expected), "{url} {secret}: {error}");
        }
    }
}
