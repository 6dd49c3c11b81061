//! Tells which IP addresses belong to the public internet. A hook can only reach others if a grant names them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What kind of non-public address this is; `None` for a public one.
///
/// The ranges are those of the IANA special-purpose registries (RFC 6890 and its updates). An IPv6 address that embeds
/// an IPv4 address is classified by the IPv4 address, because a gateway or the kernel would send packets there.
pub(super) fn special(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => special_v4(address),
        IpAddr::V6(address) => special_v6(address),
    }
}

fn special_v4(address: Ipv4Addr) -> Option<&'static str> {
    let octets = address.octets();
    match octets {
        [0, ..] => Some("an unspecified"),
        [127, ..] => Some("a loopback"),
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Some("a private"),
        [100, 64..=127, ..] => Some("a carrier-grade NAT"),
        [169, 254, 169, 254] | [168, 63, 129, 16] => Some("a cloud metadata"),
        [169, 254, ..] => Some("a link-local"),
        [192, 0, 0 | 2, _] | [192, 88, 99, _] | [198, 18..=19, ..] | [198, 51, 100, _] | [203, 0, 113, _] => {
            Some("a reserved")
        }
        [224..=239, ..] => Some("a multicast"),
        [240..=255, ..] => Some("a reserved"),
        _ => None,
    }
}

fn special_v6(address: Ipv6Addr) -> Option<&'static str> {
    let segments = address.segments();
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        special_v4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        [0, 0, 0, 0, 0, 0, 0, 0] => Some("an unspecified"),
        [0, 0, 0, 0, 0, 0, 0, 1] => Some("a loopback"),
        // IPv4-mapped: the kernel connects to the IPv4 address.
        [0, 0, 0, 0, 0, 0xffff, high, low] => embedded(high, low),
        // NAT64 with the well-known prefix.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        // 6to4.
        [0x2002, high, low, ..] => embedded(high, low),
        // Teredo, ORCHID, benchmarking and the rest of the block for protocols; documentation.
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Some("a reserved"),
        [0xfc00..=0xfdff, ..] => Some("a private"),
        [0xfe80..=0xfebf, ..] => Some("a link-local"),
        [0xff00..=0xffff, ..] => Some("a multicast"),
        // Only this block is global unicast; IPv4-compatible, local NAT64, site-local and all other addresses are not.
        [0x2000..=0x3fff, ..] => None,
        _ => Some("a reserved"),
    }
}

#[cfg(test)]
mod tests {
    use super::special;

    #[test]
    fn every_range() {
        let special_ones = [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.100.100.200",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "168.63.129.16",
            "169.254.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.9",
            "224.0.0.1",
            "239.255.255.250",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "::7f00:1",
            "64:ff9b::127.0.0.1",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2002:a9fe:a9fe::1",
            "2001::1",
            "2001:0:4136:e378::",
            "2001:db8::1",
            "3fff::1",
            "100::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
            "5f00::1",
            "4000::1",
        ];
        for text in special_ones {
            assert!(special(text.parse().unwrap()).is_some(), "{text} must not count as public");
        }
        let public = [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.1",
            "169.253.255.255",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.1",
            "192.167.1.1",
            "198.17.0.1",
            "198.20.0.1",
            "223.255.255.255",
            "2606:4700:4700::1111",
            "2001:4860:4860::8888",
            "2a00::1",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
            "2002:808:808::1",
        ];
        for text in public {
            assert_eq!(special(text.parse().unwrap()), None, "{text} is public");
        }
    }
}
