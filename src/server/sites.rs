//! Pages in a browser on this machine that are not ours: while no token is asked for, they must be kept out here.
//!
//! A page of another site cannot read our answers, but it can send simple requests; browsers say where those come
//! from. A page whose own name was made to resolve to this machine (DNS rebinding) counts as ours for the browser; it
//! is known by the name that it asks for. Other clients say neither and are taken at their address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::problem::{Problem, ProblemType, Result};
use super::query::shorten;
use super::request::{Call, Verb};

/// Refuses what a page of another site asks.
pub(super) fn refuse_others(call: &Call) -> Result<()> {
    let authority = match call.head.uri.authority() {
        Some(authority) => Some(authority.as_str()),
        None => call.header("host")?,
    };
    if let Some(authority) = authority
        && !is_this_machine(authority)
    {
        return Err(forbidden(format!(
            "the request is for `{}`; while no token is asked for, only `localhost` and loopback addresses are served",
            shorten(authority)
        )));
    }
    match call.headers().get("sec-fetch-site") {
        Some(site) if call.verb() != Verb::Get && site != "same-origin" && site != "none" => {
            Err(forbidden("a page of another site may not write here".to_owned()))
        }
        _ => Ok(()),
    }
}

fn forbidden(detail: String) -> Problem {
    Problem::new(ProblemType::Forbidden, detail)
}

/// Whether a `host[:port]` can only mean this machine, whatever a name server says.
fn is_this_machine(authority: &str) -> bool {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    if let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return address.parse::<Ipv6Addr>().is_ok_and(|address| IpAddr::V6(address).to_canonical().is_loopback());
    }
    if let Ok(address) = host.parse::<Ipv4Addr>() {
        return address.is_loopback();
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    let last = name.rsplit('.').next().unwrap_or(name);
    // RFC 6761: names under `localhost` are never looked up.
    last.eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
mod tests {
    use super::is_this_machine;

    #[test]
    fn names_of_this_machine() {
        for own in [
            "localhost",
            "LocalHost:1337",
            "localhost.:80",
            "app.localhost:8080",
            "127.0.0.1:1337",
            "127.9.9.9",
            "[::1]:1337",
            "[::1]",
            "[::ffff:127.0.0.1]:80",
        ] {
            assert!(is_this_machine(own), "{own}");
        }
        for other in [
            "example.com",
            "localhost.example.com:80",
            "127.0.0.1.nip.io",
            "10.0.0.1",
            "[::2]",
            "",
            "0.0.0.0:80",
            "notlocalhost",
        ] {
            assert!(!is_this_machine(other), "{other}");
        }
    }
}
