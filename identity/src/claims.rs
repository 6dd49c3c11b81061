//! An issuer's claims about a subject.

use serde::{Serialize, Serializer};
use serde_json::Value;
use snaphook_driver::Json;
use snaphook_driver::json::{JsonError, Limits, parse_within};

/// The claims of a verified token: their text, for events and hooks, and their tree, for rules.
#[derive(Clone, Debug, PartialEq)]
pub struct Claims {
    text: Json,
    tree: Value,
    values: usize,
}

impl Claims {
    /// Maximum number of values, including lists and objects, and maximum nesting.
    const LIMITS: Limits = Limits { depth: 32, values: 512 };

    /// Reads the text of an object.
    pub fn parse(text: &str) -> Result<Claims, JsonError> {
        let (tree, shape) = parse_within(text, Claims::LIMITS)?;
        Ok(Claims { text: Json::trusted(text), tree, values: shape.values })
    }

    /// As the issuer wrote them.
    pub fn text(&self) -> &Json {
        &self.text
    }

    pub fn tree(&self) -> &Value {
        &self.tree
    }

    /// The claim at a dotted path. A claim whose own name contains dots, such as `https://example.com/role`, is found too;
    /// the longest name wins.
    pub fn get(&self, path: &str) -> Option<&Value> {
        find(&self.tree, path)
    }

    /// About how many bytes they take in memory.
    pub(crate) fn memory(&self) -> usize {
        const VALUE_BYTES: usize = 160;
        2 * self.text.as_str().len() + VALUE_BYTES * self.values
    }
}

fn find<'a>(tree: &'a Value, path: &str) -> Option<&'a Value> {
    let object = tree.as_object()?;
    if let Some(value) = object.get(path) {
        return Some(value);
    }
    path.rmatch_indices('.').find_map(|(at, _)| find(object.get(&path[..at])?, &path[at + 1..]))
}

impl Serialize for Claims {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.text.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_claims() {
        let text =
            r#"{"role":"reader","realm":{"roles":["a"],"a.b":{"c":1}},"https://x.test/role":"w","a":{"b":2},"a.b":3}"#;
        let claims = Claims::parse(text).unwrap();
        let rows = [
            ("role", Some(r#""reader""#)),
            ("realm.roles", Some(r#"["a"]"#)),
            ("realm.a.b.c", Some("1")),
            ("https://x.test/role", Some(r#""w""#)),
            ("a.b", Some("3")),
            ("", None),
            (".", None),
            ("role.x", None),
            ("realm.roles.0", None),
            ("nothing", None),
        ];
        for (path, expected) in rows {
            assert_eq!(claims.get(path).map(Value::to_string).as_deref(), expected, "{path}");
        }
        assert_eq!(serde_json::to_string(&claims).unwrap(), text);
    }

    #[test]
    fn hostile_texts_are_rejected() {
        let deep = format!("{}1{}", "[".repeat(33), "]".repeat(33));
        let many = format!("[{}]", vec!["1"; 512].join(","));
        for text in [r#"{"a":1,"a":2}"#, r#"{"a":1,"\u0061":2}"#, "{", "", "{} {}", &deep, &many] {
            assert!(Claims::parse(text).is_err(), "{text}");
        }
    }
}
