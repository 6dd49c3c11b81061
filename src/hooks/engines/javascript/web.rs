//! Web APIs that are not part of the language: URLs, digests, random bytes. They need no grant.

use ring::rand::{SecureRandom, SystemRandom};
use serde_json::json;
use url::{Url, quirks};

/// Maximum number of random bytes per call; the runner requests no more.
const RANDOM_BYTES_MAX: u32 = 64 << 10;

/// `["parse", url, base]`, or the name of a part with the URL and the part's new value. `None`: the URL is invalid.
pub(in crate::hooks::engines) fn url(arguments: &str) -> Option<String> {
    let (operation, text, argument): (String, String, Option<String>) = snaphook_driver::json::typed(arguments).ok()?;
    let mut url = match (operation.as_str(), &argument) {
        ("parse", Some(base)) => Url::parse(base).ok()?.join(&text).ok()?,
        ("parse", None) => Url::parse(&text).ok()?,
        ("href", Some(value)) => Url::parse(value).ok()?,
        _ => Url::parse(&text).ok()?,
    };
    // Like on the web, setters ignore invalid values.
    let value = argument.unwrap_or_default();
    match operation.as_str() {
        "protocol" => drop(quirks::set_protocol(&mut url, &value)),
        "username" => drop(quirks::set_username(&mut url, &value)),
        "password" => drop(quirks::set_password(&mut url, &value)),
        "host" => drop(quirks::set_host(&mut url, &value)),
        "hostname" => drop(quirks::set_hostname(&mut url, &value)),
        "port" => drop(quirks::set_port(&mut url, &value)),
        "pathname" => quirks::set_pathname(&mut url, &value),
        "search" => quirks::set_search(&mut url, &value),
        "hash" => quirks::set_hash(&mut url, &value),
        _ => {}
    }
    let parts = json!({
        "href": quirks::href(&url),
        "origin": quirks::origin(&url),
        "protocol": quirks::protocol(&url),
        "username": quirks::username(&url),
        "password": quirks::password(&url),
        "host": quirks::host(&url),
        "hostname": quirks::hostname(&url),
        "port": quirks::port(&url),
        "pathname": quirks::pathname(&url),
        "search": quirks::search(&url),
        "hash": quirks::hash(&url),
    });
    Some(parts.to_string())
}

/// Empty: unknown algorithm.
pub(in crate::hooks::engines) fn digest(algorithm: &str, data: &[u8]) -> Vec<u8> {
    use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, SHA384, SHA512};
    let algorithm = match algorithm {
        "SHA-1" => &SHA1_FOR_LEGACY_USE_ONLY,
        "SHA-256" => &SHA256,
        "SHA-384" => &SHA384,
        "SHA-512" => &SHA512,
        _ => return Vec::new(),
    };
    ring::digest::digest(algorithm, data).as_ref().to_vec()
}

/// At most 64 KiB. `None`: the system failed.
pub(in crate::hooks::engines) fn random(count: u32) -> Option<Vec<u8>> {
    let mut bytes = vec![0; count.min(RANDOM_BYTES_MAX) as usize];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(bytes)
}

/// Decodes UTF-8; malformed bytes become U+FFFD, or with `fatal` the result is `None`.
pub(in crate::hooks::engines) fn decode(data: Vec<u8>, fatal: bool) -> Option<String> {
    match String::from_utf8(data) {
        Ok(text) => Some(text),
        Err(_) if fatal => None,
        Err(error) => Some(String::from_utf8_lossy(error.as_bytes()).into_owned()),
    }
}
