//! Fetches the issuer's keys: first its description, which names their address, then the keys.

use std::time::Duration;

use serde_json::Value;
use snaphook_driver::json::{self, Limits};
use snaphook_driver_peer::{Method, Peer};
use url::{Host, Url};

use super::jwk::KeySet;

/// How long one response may take.
const TIMEOUT: Duration = Duration::from_secs(5);
const DESCRIPTION: &str = "/.well-known/openid-configuration";
const DESCRIPTION_BYTES_MAX: usize = 64 << 10;
const KEYS_BYTES_MAX: usize = 256 << 10;

/// An issuer and the last known address of its keys.
pub(super) struct Discovery {
    issuer: String,
    base: Peer,
    keys: Option<(String, Peer)>,
}

impl Discovery {
    /// An error is about the setting `issuer`.
    pub(super) fn new(issuer: &str) -> Result<Discovery, String> {
        let url = Url::parse(issuer).map_err(|error| format!("`issuer` is not a valid address: {error}"))?;
        if !is_acceptable(&url, true) {
            return Err(
                "`issuer` must begin with `https://`; `http://` is allowed only on the loopback interface".to_owned()
            );
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err("`issuer` contains `?` or `#`, expected an address without them".to_owned());
        }
        let base = peer(issuer).map_err(|reason| format!("`issuer`: {reason}"))?;
        Ok(Discovery { issuer: issuer.to_owned(), base, keys: None })
    }

    /// Redirects are not followed, and only a complete 200 response within the limits is accepted.
    pub(super) async fn fetch(&mut self) -> Result<KeySet, String> {
        let body = get(&self.base, DESCRIPTION, DESCRIPTION_BYTES_MAX).await;
        let body = body.map_err(|reason| format!("`{DESCRIPTION}`: {reason}"))?;
        let address = self.address_of_keys(&body).map_err(|reason| format!("`{DESCRIPTION}`: {reason}"))?;
        let peer = match self.keys.take() {
            Some((known, peer)) if known == address => peer,
            _ => peer(&address).map_err(|reason| format!("`jwks_uri`: {reason}"))?,
        };
        let (_, peer) = self.keys.insert((address, peer));
        let body = get(peer, "", KEYS_BYTES_MAX).await.map_err(|reason| format!("`jwks_uri`: {reason}"))?;
        KeySet::parse(&body).map_err(|reason| format!("`jwks_uri`: {reason}"))
    }

    fn address_of_keys(&self, body: &[u8]) -> Result<String, String> {
        let text = json::utf8(body).map_err(|error| error.to_string())?;
        let limits = Limits { depth: 16, values: 10_000 };
        let (tree, _) = json::parse_within(text, limits).map_err(|error| error.to_string())?;
        let field = |name: &str| {
            tree.get(name).and_then(Value::as_str).ok_or_else(|| format!("the document has no text `{name}`"))
        };
        let issuer = field("issuer")?;
        if issuer != self.issuer {
            let shown: String = issuer.chars().take(200).collect();
            return Err(format!(
                "the document's `issuer` is `{}`, expected exactly `{}`",
                shown.escape_debug(),
                self.issuer
            ));
        }
        let address = field("jwks_uri")?;
        let is_secure = self.issuer.starts_with("https:");
        match Url::parse(address) {
            Ok(url) if is_acceptable(&url, !is_secure) => Ok(address.to_owned()),
            _ => Err("the document's `jwks_uri` is not an address that begins with `https://`".to_owned()),
        }
    }
}

/// Whether the scheme is `https`, or `http` on the loopback interface if that is allowed.
fn is_acceptable(url: &Url, allows_loopback: bool) -> bool {
    let is_loopback = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => return false,
    };
    match url.scheme() {
        "https" => true,
        "http" => allows_loopback && is_loopback,
        _ => false,
    }
}

fn peer(url: &str) -> Result<Peer, String> {
    Peer::new(url, None, TIMEOUT).map_err(|error| error.message().to_owned())
}

async fn get(peer: &Peer, path: &str, body_max: usize) -> Result<Vec<u8>, String> {
    let response = peer.send(Method::GET, path, None, body_max).await.map_err(|failure| failure.to_string())?;
    if response.status != 200 {
        return Err(format!("the issuer responded with {}, expected 200", response.status));
    }
    match response.is_whole {
        true => Ok(response.body),
        false => Err(format!("the response of the issuer is incomplete, or larger than {body_max} bytes")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn issuers_are_https_or_loopback() {
        for good in [
            "https://id.example.com",
            "https://id.example.com/realms/a/",
            "http://127.0.0.1:3000",
            "http://[::1]:1",
            "http://localhost:9",
        ] {
            assert!(Discovery::new(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "id.example.com",
            "http://id.example.com",
            "http://127.0.0.1.example.com",
            "http://10.0.0.1",
            "file:///etc/passwd",
            "https://a.test/?x",
            "https://a.test/#x",
            "https://u:p@a.test",
        ] {
            assert!(Discovery::new(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn descriptions_are_believed_only_about_themselves() {
        let secure = Discovery::new("https://a.test").unwrap();
        let local = Discovery::new("http://127.0.0.1:3000").unwrap();
        let rows = [
            (&secure, r#"{"issuer":"https://a.test","jwks_uri":"https://keys.test/x?y"}"#, true),
            (&secure, r#"{"issuer":"https://a.test/","jwks_uri":"https://keys.test/"}"#, false),
            (&secure, r#"{"issuer":"https://b.test","jwks_uri":"https://keys.test/"}"#, false),
            (&secure, r#"{"issuer":"https://a.test","jwks_uri":"http://127.0.0.1/"}"#, false),
            (&secure, r#"{"issuer":"https://a.test","jwks_uri":"file:///etc/passwd"}"#, false),
            (&secure, r#"{"issuer":"https://a.test","jwks_uri":7}"#, false),
            (
                &secure,
                r#"{"issuer":"https://b.test","issuer":"https://a.test","jwks_uri":"https://keys.test/"}"#,
                false,
            ),
            (&secure, "<html>", false),
            (&local, r#"{"issuer":"http://127.0.0.1:3000","jwks_uri":"http://127.0.0.1:3000/jwks"}"#, true),
            (&local, r#"{"issuer":"http://127.0.0.1:3000","jwks_uri":"http://169.254.169.254/"}"#, false),
        ];
        for (discovery, body, expected) in rows {
            assert_eq!(discovery.address_of_keys(body.as_bytes()).is_ok(), expected, "{body}");
        }
    }
}
