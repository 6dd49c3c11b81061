//! The client of a request that came through proxies.
//!
//! Each proxy appends the address of its peer. Walking back from the connection, the first address that is not a
//! trusted proxy is the client's; everything before it was written by the client. If the connection is not from a
//! trusted proxy, these headers are ignored.

use std::net::{IpAddr, SocketAddr};

use hyper::HeaderMap;
use hyper::header::{FORWARDED, HeaderName};

use crate::config::TrustedProxies;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Maximum number of examined hops; no real chain of proxies is longer.
const HOPS_MAX: usize = 32;

/// The client of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Client<'a> {
    /// `None`: the connection is a Unix socket, or a trusted proxy does not provide it.
    pub(super) address: Option<IpAddr>,
    /// Whether the client uses TLS, to this server or to a trusted proxy.
    pub(super) is_secure: bool,
    /// The host of the request to a trusted proxy.
    pub(super) host: Option<&'a str>,
}

/// `peer`: the address of the connection, `is_secure`: whether that is TLS.
pub(super) fn client<'a>(
    peer: Option<IpAddr>,
    is_secure: bool,
    headers: &'a HeaderMap,
    trusted: &TrustedProxies,
) -> Client<'a> {
    if !trusted.trusts(peer) {
        return Client { address: peer, is_secure, host: None };
    }
    // The last value was set by the proxy connected to this server.
    let said = |name: HeaderName, key: &str| {
        last(headers, &name).or_else(|| parameters(last(headers, &FORWARDED)?, key).next())
    };
    let protocol = said(X_FORWARDED_PROTO, "proto");
    Client {
        address: client_address(peer, headers, trusted),
        is_secure: protocol.map_or(is_secure, |protocol| protocol.eq_ignore_ascii_case("https")),
        host: said(X_FORWARDED_HOST, "host"),
    }
}

/// The address of the client: the rightmost hop that is not a trusted proxy, or the farthest one if all are trusted.
pub(super) fn client_address(peer: Option<IpAddr>, headers: &HeaderMap, trusted: &TrustedProxies) -> Option<IpAddr> {
    if !trusted.trusts(peer) {
        return peer;
    }
    let mut client = peer;
    let has_own = headers.contains_key(&X_FORWARDED_FOR);
    let name = if has_own { &X_FORWARDED_FOR } else { &FORWARDED };
    for hop in elements(headers, name).take(HOPS_MAX) {
        let text = if has_own { Some(hop) } else { parameters(hop, "for").next() };
        // An invalid address hides those before it, since no trusted proxy vouches for them.
        let Some(address) = text.and_then(address) else { return client };
        client = Some(address);
        if !trusted.trusts(client) {
            return client;
        }
    }
    client
}

/// The elements of a list, over all lines of the header, the last one first.
fn elements<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(name).iter().collect::<Vec<_>>().into_iter().rev();
    lines.flat_map(|line| line.to_str().unwrap_or_default().rsplit(',')).map(str::trim)
}

fn last<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    elements(headers, name).next().filter(|value| !value.is_empty())
}

/// The values of a parameter in an element of `Forwarded` (RFC 7239, section 4). Values in quotes hold no `,` or `;` here.
fn parameters<'a>(element: &'a str, key: &str) -> impl Iterator<Item = &'a str> {
    element.split(';').filter_map(move |pair| {
        let (name, value) = pair.split_once('=')?;
        let value = value.trim();
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
        name.trim().eq_ignore_ascii_case(key).then_some(value)
    })
}

/// An address, with or without a port.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse::<IpAddr>().ok().or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()));
    address.map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let line = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        let mut headers = HeaderMap::new();
        lines.iter().map(line).for_each(|(name, value)| {
            headers.append(name, value);
        });
        headers
    }

    #[test]
    fn addresses() {
        const FOR: &str = "x-forwarded-for";
        let proxies = TrustedProxies::parse(["10.0.0.0/8", "fd00::/8", "unix"]).unwrap();
        for (peer, lines, expected) in [
            // The headers of direct connections are ignored.
            ("1.2.3.4", &[][..], "1.2.3.4"),
            ("1.2.3.4", &[(FOR, "9.9.9.9")], "1.2.3.4"),
            ("1.2.3.4", &[("forwarded", "for=9.9.9.9")], "1.2.3.4"),
            // One proxy.
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &[(FOR, "1.2.3.4")], "1.2.3.4"),
            ("::ffff:10.0.0.1", &[(FOR, " 1.2.3.4 ")], "1.2.3.4"),
            ("10.0.0.1", &[(FOR, "1.2.3.4:5678")], "1.2.3.4"),
            ("10.0.0.1", &[(FOR, "[2001:db8::1]:443")], "2001:db8::1"),
            ("10.0.0.1", &[(FOR, "[2001:db8::1]")], "2001:db8::1"),
            ("10.0.0.1", &[(FOR, "::ffff:1.2.3.4")], "1.2.3.4"),
            ("unix", &[(FOR, "1.2.3.4")], "1.2.3.4"),
            // Values written by a client come before the proxy's.
            ("10.0.0.1", &[(FOR, "9.9.9.9, 1.2.3.4")], "1.2.3.4"),
            ("10.0.0.1", &[(FOR, "9.9.9.9"), (FOR, "1.2.3.4")], "1.2.3.4"),
            ("10.0.0.1", &[(FOR, "10.9.9.9, 1.2.3.4")], "1.2.3.4"),
            // Several proxies.
            ("10.0.0.1", &[(FOR, "9.9.9.9, 1.2.3.4, 10.0.0.2, fd00::7")], "1.2.3.4"),
            ("10.0.0.1", &[(FOR, "10.0.0.3, 10.0.0.2")], "10.0.0.3"),
            // An invalid address ends the chain.
            ("10.0.0.1", &[(FOR, "unknown")], "10.0.0.1"),
            ("10.0.0.1", &[(FOR, "1.2.3.4, , 10.0.0.2")], "10.0.0.2"),
            ("10.0.0.1", &[(FOR, "1.2.3.4, evil\", 10.0.0.2")], "10.0.0.2"),
            ("10.0.0.1", &[(FOR, "")], "10.0.0.1"),
            // RFC 7239; the older header takes precedence.
            ("10.0.0.1", &[("forwarded", "for=9.9.9.9, For=\"[2001:db8::1]:80\";proto=https")], "2001:db8::1"),
            ("10.0.0.1", &[("forwarded", "proto=http;for=1.2.3.4;by=10.0.0.1")], "1.2.3.4"),
            ("10.0.0.1", &[("forwarded", "for=_hidden")], "10.0.0.1"),
            ("10.0.0.1", &[(FOR, "1.2.3.4"), ("forwarded", "for=9.9.9.9")], "1.2.3.4"),
        ] {
            let found = client_address(peer.parse().ok(), &headers(lines), &proxies);
            assert_eq!(found, expected.parse().ok(), "{peer} {lines:?}");
        }
        let long = vec!["10.0.0.2"; 10_000].join(",");
        let long = headers(&[(FOR, &format!("1.2.3.4,{long}"))]);
        assert_eq!(client_address("10.0.0.1".parse().ok(), &long, &proxies), "10.0.0.2".parse().ok());
        assert_eq!(client_address(None, &headers(&[(FOR, "1.2.3.4")]), &TrustedProxies::default()), None);
    }

    #[test]
    fn hosts_and_protocols() {
        let proxies = TrustedProxies::parse(["10.0.0.1"]).unwrap();
        let of = |peer: &str, is_secure, lines: &[(&'static str, &str)]| {
            let headers = headers(lines);
            let client = client(peer.parse().ok(), is_secure, &headers, &proxies);
            (client.is_secure, client.host.map(str::to_owned))
        };
        let all = [("x-forwarded-proto", "https"), ("x-forwarded-host", "a.example, b.example")];
        assert_eq!(of("10.0.0.1", false, &all), (true, Some("b.example".to_owned())));
        assert_eq!(of("10.0.0.2", false, &all), (false, None));
        assert_eq!(of("10.0.0.2", true, &[("x-forwarded-proto", "http")]), (true, None));
        assert_eq!(of("10.0.0.1", true, &[("x-forwarded-proto", "http")]), (false, None));
        assert_eq!(of("10.0.0.1", true, &[]), (true, None));
        let forwarded = [("forwarded", "proto=https;host=\"a.example:8443\"")];
        assert_eq!(of("10.0.0.1", false, &forwarded), (true, Some("a.example:8443".to_owned())));
    }
}
