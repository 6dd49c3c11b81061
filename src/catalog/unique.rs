//! The keys in the event store for the values of `unique` lists.
//!
//! Two instances share a key exactly if their values are equal: numbers by value (`1` is `1.0`), strings by code
//! point, or without case where the list says so. An instance that lacks one of the values, or has null there, has no key.
//!
//! A key begins with the id of its list. A list keeps its id for as long as the same values count in it, under whatever
//! names: a rename changes no key, and a list that is defined again starts without the keys of the earlier one.

use serde_json::Value;
use sha2::{Digest, Sha256};
use snaphook_driver::compare::fold_case;

use super::ModelRecord;
use super::unique_list::{Collation, UniqueList};

/// Longer values are replaced by their hash, so that a key stays far below the limits of stores.
const VALUES_BYTES_MAX: usize = 512;

/// The same for the names in the keys of a list without an id.
const NAMES_BYTES_MAX: usize = 512;

/// Prefix of every key of a list with an id.
pub const PREFIX: &str = "list ";

/// One key that data needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UniqueKey {
    /// Index of the list in the definition.
    pub list: usize,
    pub key: String,
}

/// The id of a new list.
pub fn new_id() -> String {
    uuid::Uuid::now_v7().simple().to_string()
}

/// The keys of one instance's data.
pub fn keys(record: &ModelRecord, data: &Value) -> Vec<UniqueKey> {
    (0..record.unique.len())
        .filter_map(|list| {
            values(&record.unique[list], data).map(|values| UniqueKey { list, key: key(record, list, &values) })
        })
        .collect()
}

/// The values of one list, as text that is equal for equal values; `None` if one is absent or null.
pub fn values(list: &UniqueList, data: &Value) -> Option<String> {
    let mut values = String::new();
    for property in &list.properties {
        match data.get(property) {
            None | Some(Value::Null) => return None,
            Some(value) => canonical(value, list.collation, &mut values),
        }
        values.push(',');
    }
    if values.len() > VALUES_BYTES_MAX {
        values = format!("{:x}", Sha256::digest(values.as_bytes()));
    }
    Some(values)
}

fn key(record: &ModelRecord, list: usize, values: &str) -> String {
    match record.unique_ids.get(list) {
        Some(id) if !id.is_empty() => format!("{PREFIX}{id} {values}"),
        _ => format!("{}{values}", prefix(record, list)),
    }
}

/// The prefix of all keys of a list.
pub fn prefix(record: &ModelRecord, list: usize) -> String {
    match record.unique_ids.get(list) {
        Some(id) if !id.is_empty() => format!("{PREFIX}{id} "),
        // A list from before lists had ids.
        _ => {
            let mut names = serde_json::to_string(&record.unique[list].properties).unwrap_or_default();
            if names.len() > NAMES_BYTES_MAX {
                names = format!("{:x}", Sha256::digest(names.as_bytes()));
            }
            format!("unique {} {names} ", record.id)
        }
    }
}

/// The list to which a key of this model belongs.
pub fn list_of<'a>(record: &'a ModelRecord, key: &str) -> Option<&'a UniqueList> {
    let list = (0..record.unique.len()).find(|list| key.starts_with(&prefix(record, *list)))?;
    Some(&record.unique[list])
}

/// For each list of a new definition: the list before it in which the same values counted.
pub fn followed(old: &[UniqueList], new: &[UniqueList], renames: &[(String, String)]) -> Vec<Option<usize>> {
    let renamed = |name: &String| renames.iter().find(|(old, _)| old == name).map_or(name, |(_, new)| new).clone();
    let followed = |list: &UniqueList| UniqueList { properties: list.iter().map(renamed).collect(), ..*list };
    let old: Vec<UniqueList> = old.iter().map(followed).collect();
    new.iter().map(|list| old.iter().position(|old| old == list)).collect()
}

/// Writes a value so that equal values are equal text.
fn canonical(value: &Value, collation: Collation, out: &mut String) {
    match value {
        Value::String(text) if collation == Collation::NoCase => {
            out.push_str(&Value::String(fold_case(text).into_owned()).to_string());
        }
        Value::Number(number) => out.push_str(&canonical_number(&number.to_string())),
        Value::Array(items) => {
            out.push('[');
            for item in items {
                canonical(item, collation, out);
                out.push(',');
            }
            out.push(']');
        }
        Value::Object(map) => {
            let mut names: Vec<&String> = map.keys().collect();
            names.sort_unstable();
            out.push('{');
            for name in names {
                out.push_str(&Value::String(name.clone()).to_string());
                out.push(':');
                canonical(&map[name], collation, out);
                out.push(',');
            }
            out.push('}');
        }
        other => out.push_str(&other.to_string()),
    }
}

/// `[-]digits e exponent` with no zeros at either end: exact, whatever the size.
fn canonical_number(text: &str) -> String {
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text),
    };
    let (mantissa, exponent) = rest.split_once(['e', 'E']).unwrap_or((rest, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let trimmed = digits.trim_start_matches('0');
    let significant = trimmed.trim_end_matches('0');
    if significant.is_empty() {
        return "0".to_owned();
    }
    // The JSON parser rejects exponents that do not fit.
    let exponent = exponent.parse::<i64>().unwrap_or(i64::MAX);
    let exponent = i128::from(exponent) - fraction.len() as i128 + (trimmed.len() - significant.len()) as i128;
    format!("{sign}{significant}e{exponent}")
}

#[cfg(test)]
mod tests {
    use snaphook_driver::compare::Pattern;
    use snaphook_driver::json;

    use super::*;

    fn lists(lists: &[&[&str]]) -> Vec<UniqueList> {
        let names = |list: &&[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        lists.iter().map(|list| names(list).into()).collect()
    }

    fn record(unique: &[&[&str]], ids: &[&str]) -> ModelRecord {
        let text = serde_json::json!({
            "id": "m", "version": 1, "schema": {}, "indexes": [], "unique": unique, "unique_ids": ids,
            "created_at": "2026-01-01T00:00:00.000Z", "updated_at": "2026-01-01T00:00:00.000Z"
        });
        json::typed(&text.to_string()).unwrap()
    }

    #[test]
    fn equal_numbers_share_a_key() {
        let record = record(&[&["n"]], &["x"]);
        let key = |text: &str| keys(&record, &json::parse(text).unwrap())[0].key.clone();
        for same in [r#"{"n":1.0}"#, r#"{"n":10e-1}"#, r#"{"n":0.1E1}"#] {
            assert_eq!(key(same), key(r#"{"n":1}"#));
        }
        assert_ne!(key(r#"{"n":9007199254740993}"#), key(r#"{"n":9007199254740992}"#));
        assert_ne!(key(r#"{"n":"1"}"#), key(r#"{"n":1}"#));
        assert_eq!(key(r#"{"n":0}"#), key(r#"{"n":-0.0}"#));
    }

    #[test]
    fn without_case_keys_are_equal_exactly_where_ilike_matches() {
        let mut record = record(&[&["a"]], &["x"]);
        record.unique[0].collation = Collation::NoCase;
        let key = |text: &str| keys(&record, &serde_json::json!({ "a": text }))[0].key.clone();
        let texts = [
            "a@x", "A@X", "Ä", "ä", "a\u{308}", "ß", "ẞ", "SS", "ss", "Σ", "ς", "σ", "I", "i", "ı", "İ", "K",
            "\u{212a}", "",
        ];
        for one in texts {
            for two in texts {
                let matches = Pattern::ignoring_case(one).matches(two);
                assert_eq!(key(one) == key(two), matches, "`{one}` and `{two}`");
            }
        }
        assert_eq!(key("A@x"), key("a@X"));
        let nested = |value: Value| keys(&record, &serde_json::json!({ "a": value }))[0].key.clone();
        assert_eq!(nested(serde_json::json!(["A", {"N": "B"}])), nested(serde_json::json!(["a", {"N": "b"}])));
        assert_ne!(nested(serde_json::json!({"N": 1})), nested(serde_json::json!({"n": 1})));
    }

    #[test]
    fn what_lacks_a_value_is_not_compared() {
        let record = record(&[&["c"], &["a", "b"]], &["x", "y"]);
        assert!(keys(&record, &serde_json::json!({"a": 1})).is_empty());
        assert!(keys(&record, &serde_json::json!({"a": 1, "b": null})).is_empty());
        let key = &keys(&record, &serde_json::json!({"a": "x,", "b": "y"}))[0];
        assert_eq!(list_of(&record, &key.key).unwrap().properties, ["a", "b"]);
        assert_eq!((key.list, key.key.starts_with("list y ")), (1, true), "{key:?}");
        assert_ne!(key.key, keys(&record, &serde_json::json!({"a": "x", "b": ",y"}))[0].key);
    }

    #[test]
    fn a_list_without_an_id_has_keys_with_its_names() {
        let record = record(&[&["a"], &["b"]], &["", "y"]);
        let found = keys(&record, &serde_json::json!({"a": 1, "b": 2}));
        assert_eq!(found[0].key, "unique m [\"a\"] 1e0,");
        assert_eq!(list_of(&record, &found[0].key).unwrap().properties, ["a"]);
        assert_eq!(found[1].key, "list y 2e0,");
    }

    #[test]
    fn no_key_is_long() {
        let names: Vec<String> = (0..8).map(|n| format!("{n}{}", "x".repeat(60_000))).collect();
        let list: Vec<&str> = names.iter().map(String::as_str).collect();
        let data = |value: &str| {
            Value::Object(names.iter().map(|name| (name.clone(), value.into())).collect::<serde_json::Map<_, _>>())
        };
        for ids in [&[][..], &["x"]] {
            let record = record(&[&list], ids);
            let key = |value: &str| keys(&record, &data(value))[0].key.clone();
            let long = "v".repeat(60_000);
            assert!(key(&long).len() < 2048 && prefix(&record, 0).len() < 1024, "{} bytes", key(&long).len());
            assert_eq!(key("a"), key("a"));
            assert_ne!(key("a"), key("b"));
            assert_eq!(list_of(&record, &key("a")).unwrap().properties, names);
        }
    }

    #[test]
    fn a_list_follows_its_values() {
        let rename = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(old, new)| ((*old).to_owned(), (*new).to_owned())).collect()
        };
        let nocase = |names: &[&[&str]]| -> Vec<UniqueList> {
            lists(names).into_iter().map(|list| UniqueList { collation: Collation::NoCase, ..list }).collect()
        };
        for (old, new, renames, expected) in [
            (lists(&[&["a"], &["b"]]), lists(&[&["b"], &["c"]]), rename(&[]), vec![Some(1), None]),
            (
                lists(&[&["a"], &["b"]]),
                lists(&[&["a"], &["b"]]),
                rename(&[("a", "b"), ("b", "a")]),
                vec![Some(1), Some(0)],
            ),
            (lists(&[&["a"]]), lists(&[&["b"]]), rename(&[("a", "b")]), vec![Some(0)]),
            (lists(&[&["a"]]), lists(&[&["a"]]), rename(&[("a", "b"), ("c", "a")]), vec![None]),
            (lists(&[&["a", "b"]]), lists(&[&["b", "a"]]), rename(&[]), vec![None]),
            (lists(&[&["a"]]), nocase(&[&["a"]]), rename(&[]), vec![None]),
            (nocase(&[&["a"]]), lists(&[&["a"]]), rename(&[]), vec![None]),
            (nocase(&[&["a"]]), nocase(&[&["b"]]), rename(&[("a", "b")]), vec![Some(0)]),
        ] {
            assert_eq!(followed(&old, &new, &renames), expected, "{old:?} {new:?} {renames:?}");
        }
    }
}
