//! The messages between the server and the bridge: a kind, then fields of bytes, each preceded by its length.
//! `bridge/zia/src/message.hpp` is the other side.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::config::ServerConfig;

/// Maximum size of a message: the bridge reads no more.
pub(super) const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// A message to the bridge.
pub(super) struct Order(Vec<u8>);

/// The settings of a module that the bridge needs.
pub(super) struct ModuleOrder<'a> {
    pub(super) number: usize,
    pub(super) name: &'a str,
    pub(super) library: &'a str,
    pub(super) is_optional: bool,
    pub(super) timeout_ms: u128,
    pub(super) settings: &'a Map<String, Value>,
}

impl Order {
    pub(super) fn module(module: &ModuleOrder<'_>) -> Order {
        Order::new(b'M')
            .number(module.number)
            .text(module.name)
            .text(module.library)
            .flag(module.is_optional)
            .number(module.timeout_ms)
            .pairs(module.settings)
    }

    pub(super) fn limits(server: &ServerConfig) -> Order {
        Order::new(b'B').number(server.max_body_bytes).number(server.memory_bytes)
    }

    pub(super) fn activate() -> Order {
        Order::new(b'A').text(env!("CARGO_PKG_VERSION"))
    }

    /// Sent with two descriptors: the client's connection, and one to the API.
    pub(super) fn connection(peer: SocketAddr, is_secure: bool) -> Order {
        Order::new(b'C').text(&peer.ip().to_canonical().to_string()).number(peer.port()).flag(is_secure)
    }

    pub(super) fn config_change(number: usize, settings: &Map<String, Value>) -> Order {
        Order::new(b'N').number(number).pairs(settings)
    }

    pub(super) fn deactivate(number: usize) -> Order {
        Order::new(b'D').number(number)
    }

    /// `time`: how long open connections may continue.
    pub(super) fn stop(time: Duration) -> Order {
        Order::new(b'S').number(time.as_millis())
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn new(kind: u8) -> Order {
        Order(vec![kind])
    }

    fn text(mut self, text: &str) -> Order {
        // `Control::send` rejects messages that are too long.
        self.0.extend(u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
        self.0.extend(text.as_bytes());
        self
    }

    fn number(self, number: impl ToString) -> Order {
        self.text(&number.to_string())
    }

    fn flag(self, flag: bool) -> Order {
        self.number(u8::from(flag))
    }

    fn pairs(self, settings: &Map<String, Value>) -> Order {
        flattened(settings).iter().fold(self, |order, (key, value)| order.text(key).text(value))
    }
}

/// A message of the bridge.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Report {
    Ready,
    /// A module cannot be used.
    Refused {
        module: usize,
        what: String,
    },
    /// A module failed a request; `None`: it is unknown which.
    Failed {
        module: Option<usize>,
        what: String,
    },
    /// The process ends: the module that ran on the thread, if any, and its function.
    Crashed {
        module: Option<usize>,
        what: String,
    },
}

impl Report {
    /// `None`: not a message of this version.
    pub(super) fn parse(bytes: &[u8]) -> Option<Report> {
        let (kind, rest) = bytes.split_first()?;
        let (first, rest) = field(rest).unwrap_or_default();
        let (second, _) = field(rest).unwrap_or_default();
        let module = String::from_utf8_lossy(first).parse().ok();
        let what = String::from_utf8_lossy(second).into_owned();
        match kind {
            b'R' => Some(Report::Ready),
            b'L' => Some(Report::Refused { module: module?, what }),
            b'F' => Some(Report::Failed { module, what }),
            b'X' => Some(Report::Crashed { module, what }),
            _ => None,
        }
    }
}

/// The first field, and the bytes after it.
fn field(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)
}

/// Flattens tables to keys with dots and lists to keys with numbers, because the specification only has texts.
fn flattened(settings: &Map<String, Value>) -> Vec<(String, String)> {
    fn add(pairs: &mut Vec<(String, String)>, key: &str, value: &Value) {
        match value {
            Value::Object(table) => table.iter().for_each(|(name, value)| add(pairs, &format!("{key}.{name}"), value)),
            Value::Array(items) => {
                items.iter().enumerate().for_each(|(index, value)| add(pairs, &format!("{key}.{index}"), value));
            }
            Value::String(text) => pairs.push((key.to_owned(), text.clone())),
            other => pairs.push((key.to_owned(), other.to_string())),
        }
    }
    let mut pairs = Vec::new();
    settings.iter().for_each(|(key, value)| add(&mut pairs, key, value));
    pairs
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn settings_are_flat() {
        let Value::Object(settings) =
            json!({"path": "a", "deep": {"er": {"x": 1.5, "y": true}}, "list": ["a", {"b": -2}]})
        else {
            panic!("a table")
        };
        let pairs = flattened(&settings);
        let pairs: Vec<_> = pairs.iter().map(|(key, value)| (&**key, &**value)).collect();
        assert_eq!(
            pairs,
            [("path", "a"), ("deep.er.x", "1.5"), ("deep.er.y", "true"), ("list.0", "a"), ("list.1.b", "-2")]
        );
    }

    #[test]
    fn messages() {
        let order = Order::connection("[::ffff:10.0.0.1]:80".parse().unwrap(), true);
        assert_eq!(order.bytes(), b"C\x08\0\0\x0010.0.0.1\x02\0\0\x0080\x01\0\0\x001");
        let module = Some(3);
        let what = || "x".to_owned();
        for (bytes, expected) in [
            (&b"R"[..], Some(Report::Ready)),
            (b"L\x01\0\0\x003\x01\0\0\0x", Some(Report::Refused { module: 3, what: what() })),
            (b"F\x01\0\0\x003\x01\0\0\0x", Some(Report::Failed { module, what: what() })),
            (b"X\0\0\0\0\x01\0\0\0x", Some(Report::Crashed { module: None, what: what() })),
            (b"L", None),
            (b"F\xff\xff\xff\xffx", Some(Report::Failed { module: None, what: String::new() })),
            (b"", None),
            (b"?", None),
        ] {
            assert_eq!(Report::parse(bytes), expected, "{bytes:?}");
        }
    }
}
