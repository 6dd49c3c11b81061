//! `[server.limits] trusted-proxies`: the proxies whose information about clients is trusted.

use std::net::IpAddr;

use super::document::{Section, strings};

/// Stands for every peer on the Unix socket.
const UNIX: &str = "unix";

/// The proxies whose `X-Forwarded-*` headers are trusted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    networks: Vec<Network>,
    /// Whether peers on a Unix socket are trusted.
    unix: bool,
}

/// An address and its prefix length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    bits: u8,
}

impl TrustedProxies {
    /// Parses addresses, networks and `unix`; `None` if one of them is invalid.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Option<TrustedProxies> {
        let mut proxies = TrustedProxies::default();
        for text in texts {
            match text {
                UNIX => proxies.unix = true,
                text => proxies.networks.push(Network::parse(text)?),
            }
        }
        Some(proxies)
    }

    pub fn is_empty(&self) -> bool {
        self.networks.is_empty() && !self.unix
    }

    /// Whether a peer is one of them; `None` stands for a peer without an address.
    pub fn trusts(&self, peer: Option<IpAddr>) -> bool {
        match peer {
            Some(address) => self.networks.iter().any(|network| network.contains(address)),
            None => self.unix,
        }
    }
}

impl Network {
    fn parse(text: &str) -> Option<Network> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let given: IpAddr = address.parse().ok()?;
        let address = given.to_canonical();
        // A network of IPv4 addresses may be written as one of IPv6.
        let mapped = if given.is_ipv6() && address.is_ipv4() { 96 } else { 0 };
        let whole = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            Some(bits) if bits.bytes().all(|byte| byte.is_ascii_digit()) => {
                bits.parse::<u8>().ok()?.checked_sub(mapped)?
            }
            Some(_) => return None,
            None => whole,
        };
        (bits <= whole).then_some(Network { address, bits })
    }

    fn contains(&self, address: IpAddr) -> bool {
        let differs = match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => (own.to_bits() ^ other.to_bits()).leading_zeros(),
            (IpAddr::V6(own), IpAddr::V6(other)) => (own.to_bits() ^ other.to_bits()).leading_zeros(),
            _ => return false,
        };
        differs >= u32::from(self.bits)
    }
}

pub(super) fn trusted_proxies(limits: &mut Section<'_>) -> TrustedProxies {
    let texts = strings(limits.value("trusted-proxies"), "addresses and networks of proxies", |text| {
        let expected = "an IP address, a network such as '10.0.0.0/8', or 'unix'";
        text.parsed(expected, |text| TrustedProxies::parse([text]).map(|_| text.to_owned()))
    });
    TrustedProxies::parse(texts.iter().map(String::as_str)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.1.2", "11.0.0.0"),
            ("127.0.0.1", "127.0.0.1", "127.0.0.2"),
            ("127.0.0.1", "::ffff:127.0.0.1", "::1"),
            ("::ffff:10.0.0.0/104", "10.9.9.9", "11.0.0.0"),
            ("192.168.1.128/25", "192.168.1.200", "192.168.1.1"),
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("fd00::/8", "fdff::1", "fe80::1"),
            ("::1", "::1", "::2"),
        ] {
            let proxies = TrustedProxies::parse([network]).unwrap();
            assert!(proxies.trusts(inside.parse().ok()), "{inside} in {network}");
            assert!(!proxies.trusts(outside.parse().ok()), "{outside} in {network}");
            assert!(!proxies.trusts(None), "a Unix socket in {network}");
        }
        let unix = TrustedProxies::parse([UNIX]).unwrap();
        assert!(unix.trusts(None) && !unix.trusts("127.0.0.1".parse().ok()) && !unix.is_empty());
        assert!(TrustedProxies::default().is_empty() && !TrustedProxies::default().trusts(None));
        for bad in
            ["", "10.0.0.0/33", "::/129", "10.0.0/8", "localhost", "10.0.0.0/", "10.0.0.0/+8", "::ffff:1.2.3.4/95"]
        {
            assert_eq!(TrustedProxies::parse([bad]), None, "{bad}");
        }
    }
}
