//! Protects against pages of other sites in a browser: they may not write, and if no token is needed, they get no
//! access at all.
//!
//! A page of another site cannot read our responses, but it can send simple requests; browsers add their origin, in
//! `Origin` with every request that could write, and most of them in `Sec-Fetch-Site`. A page whose own name resolves
//! to this machine (DNS rebinding) has the same origin for the browser; it is detected by the host name in its
//! requests. Other clients send neither header.

use std::net::{Ipv4Addr, Ipv6Addr};

use hyper::header::{HeaderValue, ORIGIN};

use super::forwarded;
use super::problem::{Problem, ProblemType, Result};
use super::query::shorten;
use super::request::{Call, Verb};
use crate::config::{AuthMode, Config};

/// Rejects requests of pages of other sites, and requests with another host name than this server's.
pub(super) fn refuse_others(call: &Call) -> Result<()> {
    let config = call.app.config.load();
    let origin = call.memory.share().0.origin();
    let client = forwarded::client(origin.address, origin.is_secure, call.headers(), &config.server.trusted_proxies);
    let authority = match call.head.uri.authority() {
        Some(authority) => Some(authority.as_str()),
        None => call.header("host")?,
    };
    // A proxy may use another name than its client did.
    let asked = client.host.or(authority);
    if let Some(asked) = asked
        && !is_served(asked, &config)
    {
        let asked = shorten(asked);
        return Err(forbidden(match config.server.hosts.is_empty() {
            true => format!(
                "the request is for `{asked}`; while no token is required, the server is served as `localhost` and as \
                 IP addresses only, unless `server.limits.hosts` names it"
            ),
            false => format!("the request is for `{asked}`, which `server.limits.hosts` does not name"),
        }));
    }
    if call.verb() == Verb::Get {
        return Ok(());
    }
    let allowed = config.server.cors.iter().flat_map(|cors| &cors.origins);
    let is_allowed = |origin: &HeaderValue| allowed.clone().any(|allowed| origin == allowed.as_str());
    let mut origins = call.headers().get_all(ORIGIN).iter().peekable();
    if origins.peek().is_some() && origins.all(is_allowed) {
        return Ok(());
    }
    let site = call.headers().get("sec-fetch-site");
    let same_site = site.is_none_or(|site| site == "same-origin" || site == "none");
    let is_own = |origin: &HeaderValue| {
        origin.to_str().is_ok_and(|origin| {
            let is_downgraded = client.is_secure && origin.starts_with("http://");
            !is_downgraded && asked.is_some_and(|authority| is_origin_of(origin, authority))
        })
    };
    match same_site && call.headers().get_all(ORIGIN).iter().all(is_own) {
        true => Ok(()),
        false => Err(forbidden("a page of another site may not write here".to_owned())),
    }
}

/// Whether an origin equals the host and port of the request.
fn is_origin_of(origin: &str, authority: &str) -> bool {
    let Some((scheme, own)) = origin.split_once("://") else { return false };
    let default_port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return false,
    };
    let host = |authority: &str| authority.strip_suffix(default_port).unwrap_or(authority).to_ascii_lowercase();
    host(own) == host(authority)
}

fn forbidden(detail: String) -> Problem {
    Problem::new(ProblemType::Forbidden, detail)
}

/// Whether requests may use the host of a `host[:port]`. IP addresses and names under `localhost`, which are never
/// looked up (RFC 6761), cannot be taken over by a page.
fn is_served(authority: &str, config: &Config) -> bool {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    if let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return address.parse::<Ipv6Addr>().is_ok();
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    let last = name.rsplit('.').next().unwrap_or(name);
    if host.parse::<Ipv4Addr>().is_ok() || last.eq_ignore_ascii_case("localhost") {
        return true;
    }
    match config.server.hosts.is_empty() {
        true => config.auth.mode == AuthMode::Tokens,
        false => config.server.hosts.allow(host),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{is_origin_of, is_served};
    use crate::config::Config;

    #[test]
    fn origins() {
        for (origin, authority, expected) in [
            ("http://localhost:1337", "localhost:1337", true),
            ("http://LocalHost:1337", "localhost:1337", true),
            ("http://localhost", "localhost:80", true),
            ("http://localhost:80", "localhost", true),
            ("https://localhost", "localhost:443", true),
            ("http://[::1]:1337", "[::1]:1337", true),
            ("http://localhost:3000", "localhost:1337", false),
            ("http://localhost", "localhost:1337", false),
            ("https://localhost:80", "localhost", false),
            ("http://127.0.0.1:1337", "localhost:1337", false),
            ("http://evil.example", "localhost:1337", false),
            ("http://localhost:1337.evil.example", "localhost:1337", false),
            ("http://localhost:1337/", "localhost:1337", false),
            ("http://user@localhost:1337", "localhost:1337", false),
            ("chrome-extension://localhost:1337", "localhost:1337", false),
            ("file://", "localhost:1337", false),
            ("null", "localhost:1337", false),
            ("", "localhost:1337", false),
        ] {
            assert_eq!(is_origin_of(origin, authority), expected, "{origin} of {authority}");
        }
    }

    #[test]
    fn names_of_this_server() {
        let config = |text: &str| Config::parse(text, "config.toml", Path::new("/"), None, &|_| None).unwrap();
        let open = config("auth.mode = 'open'\nserver.mount-address = '127.0.0.1:0'");
        let tokens = config("auth.mode = 'tokens'");
        let named = ["open", "tokens"].map(|mode| {
            config(&format!(
                "auth.mode = '{mode}'\n[server]\nmount-address = '127.0.0.1:0'\nlimits.hosts = ['api.example.com']"
            ))
        });
        for always in [
            "localhost",
            "LocalHost:1337",
            "localhost.:80",
            "app.localhost:8080",
            "127.0.0.1:1337",
            "10.0.0.1",
            "[::1]:1337",
            "[2001:db8::1]",
            "[::ffff:127.0.0.1]:80",
        ] {
            assert!([&open, &tokens, &named[0], &named[1]].iter().all(|config| is_served(always, config)), "{always}");
        }
        for other in [
            "example.com",
            "localhost.example.com:80",
            "127.0.0.1.nip.io",
            "[::x]",
            "",
            "notlocalhost",
            "api.example.com:x",
        ] {
            assert!(!is_served(other, &open) && is_served(other, &tokens) != other.starts_with('['), "{other}");
            assert!(named.iter().all(|config| !is_served(other, config)), "{other}");
        }
        for own in ["api.example.com", "API.example.com.:8443"] {
            assert!(!is_served(own, &open) && named.iter().all(|config| is_served(own, config)), "{own}");
        }
    }
}
