//! Rejects requests from web pages in a browser on this machine if no token is required. They are recognized by the
//! `Origin` header, which browsers send with every writing request, and by the host name: a name that was made to
//! resolve to this machine (DNS rebinding) is not a name of this machine.

use std::net::IpAddr;

use axum::http::HeaderMap;
use axum::http::header::{HOST, ORIGIN};

/// Whether a request may come from a web page.
pub(super) fn is_from_a_page(headers: &HeaderMap) -> bool {
    let names_another_host = headers.get(HOST).is_some_and(|host| !host.to_str().is_ok_and(is_this_machine));
    headers.contains_key(ORIGIN) || names_another_host
}

/// Whether a `host[:port]` can only mean this machine.
fn is_this_machine(authority: &str) -> bool {
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let host = authority.rsplit_once(':').filter(|(_, port)| is_port(port)).map_or(authority, |(host, _)| host);
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_this_machine() {
        for (host, is_it) in [
            ("localhost:1400", true),
            ("127.0.0.1:1400", true),
            ("127.8.0.1", true),
            ("[::1]:1400", true),
            ("evil.example:1400", false),
            ("localhost.evil.example", false),
            ("10.0.0.1:1400", false),
            ("", false),
        ] {
            assert_eq!(is_this_machine(host), is_it, "{host}");
        }
    }
}
