//! `fields=total,customer.name`: a part of each instance's data.

use serde_json::{Map, Value};

use super::problem::{Problem, Result};

const FIELDS_MAX: usize = 64;

/// The properties to keep.
#[derive(Debug, Default)]
pub(super) struct Projection {
    /// Names from the outside in.
    paths: Vec<String>,
}

impl Projection {
    pub(super) fn parse(text: &str) -> Result<Self> {
        let paths: Vec<String> = text.split(',').map(str::to_owned).collect();
        if paths.len() > FIELDS_MAX {
            return Err(Problem::bad_request(format!("`fields` has {} names, at most {FIELDS_MAX}", paths.len())));
        }
        if paths.iter().any(String::is_empty) {
            return Err(Problem::bad_request("`fields` has an empty name, expected names with commas between"));
        }
        Ok(Projection { paths })
    }

    /// The selected properties, as dotted paths.
    pub(super) fn paths(&self) -> &[String] {
        &self.paths
    }

    /// The part, as text; digits stay as they are, properties keep their order. `None` if the data is not JSON, which
    /// does not happen.
    pub(super) fn apply(&self, data: &str) -> Option<String> {
        let data = snaphook_driver::json::parse(data).ok()?;
        let paths: Vec<&str> = self.paths.iter().map(String::as_str).collect();
        Some(part(&data, &paths).unwrap_or_else(|| Value::Object(Map::new())).to_string())
    }
}

/// The selected part of `value`; `None` if it is empty.
fn part(value: &Value, paths: &[&str]) -> Option<Value> {
    let Value::Object(members) = value else { return None };
    let mut kept = Map::new();
    for (name, value) in members {
        // A name may contain dots: then the whole name counts.
        if paths.contains(&name.as_str()) {
            kept.insert(name.clone(), value.clone());
            continue;
        }
        let below: Vec<&str> =
            paths.iter().filter_map(|path| path.strip_prefix(name.as_str())?.strip_prefix('.')).collect();
        if !below.is_empty()
            && let Some(part) = part(value, &below)
        {
            kept.insert(name.clone(), part);
        }
    }
    (!kept.is_empty()).then_some(Value::Object(kept))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_is_named() {
        let data = r#"{"b":1.50,"a":{"x":1,"y":{"z":12345678901234567890}},"c.d":2,"US Gross":3,"l":[{"x":1}]}"#;
        let check = |fields: &str, expected: &str| {
            assert_eq!(Projection::parse(fields).expect("valid").apply(data).expect("JSON"), expected, "{fields}");
        };
        check("b", r#"{"b":1.50}"#);
        check("a.y.z,b", r#"{"b":1.50,"a":{"y":{"z":12345678901234567890}}}"#);
        check("a.x,a.y", r#"{"a":{"x":1,"y":{"z":12345678901234567890}}}"#);
        check("a,a.x", r#"{"a":{"x":1,"y":{"z":12345678901234567890}}}"#);
        check("c.d,US Gross", r#"{"c.d":2,"US Gross":3}"#);
        check("nothing,b.x,l.x", "{}");
        assert!(Projection::parse("a,,b").is_err());
        assert!(Projection::parse(&"a,".repeat(100)).is_err());
    }
}
