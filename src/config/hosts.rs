//! `[server.limits] hosts`: the host names by which clients may address the server.

use super::document::{Section, strings};

/// Names in lowercase; a name that begins with `.` stands for every name with this suffix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts {
    names: Vec<String>,
}

impl Hosts {
    /// Parses names such as `api.example.com` and `*.example.com`; `None` if one of them is invalid.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Option<Hosts> {
        let name = |text: &str| {
            let bare = text.strip_prefix("*.").unwrap_or(text);
            let is_label = |label: &str| {
                let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
                (1..=63).contains(&label.len()) && label.bytes().all(is_part)
            };
            let is_name =
                bare.len() <= 253 && bare.split('.').all(is_label) && bare.parse::<std::net::Ipv4Addr>().is_err();
            is_name.then(|| text.strip_prefix('*').unwrap_or(text).to_ascii_lowercase())
        };
        texts.into_iter().map(name).collect::<Option<_>>().map(|names| Hosts { names })
    }

    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Whether `name`, without a port, is one of them. Case and a trailing dot are ignored.
    pub fn allow(&self, name: &str) -> bool {
        let name = name.strip_suffix('.').unwrap_or(name);
        self.names.iter().any(|known| match known.starts_with('.') {
            true => name.len() > known.len() && ends_with(name, known),
            false => name.eq_ignore_ascii_case(known),
        })
    }
}

fn ends_with(name: &str, suffix: &str) -> bool {
    let bytes = name.as_bytes();
    bytes.len() >= suffix.len() && bytes[bytes.len() - suffix.len()..].eq_ignore_ascii_case(suffix.as_bytes())
}

pub(super) fn hosts(limits: &mut Section<'_>) -> Hosts {
    let texts = strings(limits.value("hosts"), "names of hosts", |text| {
        let expected =
            "a name such as 'api.example.com' or '*.example.com', without a port; IP addresses are always allowed";
        text.parsed(expected, |text| Hosts::parse([text]).map(|_| text.to_owned()))
    });
    Hosts::parse(texts.iter().map(String::as_str)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::Hosts;

    #[test]
    fn names() {
        let hosts = Hosts::parse(["API.example.com", "*.shop.example"]).unwrap();
        for name in ["api.example.com", "Api.Example.Com", "api.example.com.", "a.shop.example", "a.b.SHOP.example"] {
            assert!(hosts.allow(name), "{name}");
        }
        for name in [
            "",
            ".",
            "example.com",
            "xapi.example.com",
            "api.example.com.evil.example",
            "api.example.com..",
            "shop.example",
            ".shop.example",
            "xshop.example",
            "é.shop.examplé",
            "*.shop.example.org",
        ] {
            assert!(!hosts.allow(name), "{name}");
        }
        assert!(!Hosts::default().allow("localhost") && Hosts::default().is_empty());
        for bad in [
            "",
            ".",
            "*",
            "*.",
            "a..b",
            "a.example.com:80",
            "http://a.example",
            "10.0.0.1",
            "[::1]",
            "a b",
            "*a.b",
            "ä.example",
        ] {
            assert_eq!(Hosts::parse([bad]), None, "{bad}");
        }
    }
}
