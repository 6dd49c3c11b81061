//! A list of `unique`: the properties whose values together no two instances may share, and how strings are compared.
//!
//! It is written in the shortest form: `["email"]`, or `{"properties": ["email"], "collation": "nocase"}`.

use std::ops::Deref;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use snaphook_driver::json;

use super::field_error::FieldError;
use super::members::Part;

/// How many lists, and names in one list, are read; the limits of a model are checked with its schema.
const READ_MAX: usize = 1000;
/// How many names a message includes in a suggested form.
const SUGGESTED_MAX: usize = 4;

/// How the strings of a list are compared. Everything else is compared by value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Collation {
    /// By code point.
    #[default]
    Exact,
    /// Without case, as `ilike` compares: [`snaphook_driver::compare::fold_case`].
    NoCase,
}

/// Names of top-level properties, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct UniqueList {
    pub properties: Vec<String>,
    pub collation: Collation,
}

/// A list as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UniqueInput {
    pub list: UniqueList,
    /// The pointer from the list to its names, which depends on the form: also an object may be without a collation.
    pub names_at: &'static str,
}

impl UniqueList {
    /// Why an instance does not fit a new list, if another one has the same values.
    pub fn clash(&self, other: &str) -> String {
        let case = match self.collation {
            Collation::Exact => "",
            Collation::NoCase => " apart from case",
        };
        format!("has the same value of {} as `{other}`{case}, which `unique` forbids", self.properties.join(", "))
    }

    /// All lists of a definition as it was sent.
    pub fn read_all(part: &Part<'_>) -> Result<Vec<UniqueInput>, FieldError> {
        let expected = "a list of lists of property names";
        let lists = part.items::<READ_MAX>(expected).map_err(|error| FieldError {
            message: format!("{}{}", error.message, part.string().map_or_else(|_| String::new(), |name| form(&[name]))),
            ..error
        })?;
        let names: Vec<String> = lists.iter().map_while(|list| list.string().ok()).collect();
        lists.iter().map(|list| UniqueList::read(list, &names)).collect()
    }

    /// `siblings` are names in places where lists are expected.
    fn read(part: &Part<'_>, siblings: &[String]) -> Result<UniqueInput, FieldError> {
        if part.is_object() {
            let mut members = part.members(&["properties", "collation"])?;
            let properties = members.need("properties", "a list of property names")?.names::<READ_MAX>()?;
            let collation = match members.take("collation") {
                None => Collation::Exact,
                Some(word) => word.word(&[("nocase", Collation::NoCase)])?,
            };
            return Ok(UniqueInput { list: UniqueList { properties, collation }, names_at: "/properties" });
        }
        if siblings.is_empty() {
            return Ok(part.names::<READ_MAX>()?.into());
        }
        Err(part.not(&format!("a list of property names{}", form(siblings))))
    }
}

/// Suggests the correct form for names that are not in a list.
fn form(names: &[String]) -> String {
    if names.len() > SUGGESTED_MAX || names.iter().any(|name| name.len() > 100) {
        return ", such as `[[\"a\"], [\"b\", \"c\"]]`".to_owned();
    }
    let list = |names: &[String]| serde_json::to_string(names).unwrap_or_default();
    let each: Vec<String> = names.iter().map(|name| list(std::slice::from_ref(name))).collect();
    let each = format!("`\"unique\": [{}]`", each.join(","));
    match names {
        [_] => format!(
            ": write {each}, or `\"unique\": [{{\"properties\":{},\"collation\":\"nocase\"}}]` to ignore case",
            list(names)
        ),
        _ => format!(
            ": write {each} if each value is unique, or `\"unique\": [{}]` if the values are unique together",
            list(names)
        ),
    }
}

impl From<Vec<String>> for UniqueList {
    fn from(properties: Vec<String>) -> Self {
        UniqueList { properties, collation: Collation::Exact }
    }
}

impl From<Vec<String>> for UniqueInput {
    fn from(properties: Vec<String>) -> Self {
        UniqueInput { list: properties.into(), names_at: "" }
    }
}

impl Deref for UniqueList {
    type Target = [String];
    fn deref(&self) -> &[String] {
        &self.properties
    }
}

#[derive(Serialize)]
struct WithCollation<'a> {
    properties: &'a [String],
    collation: &'static str,
}

impl Serialize for UniqueList {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.collation {
            Collation::Exact => self.properties.serialize(serializer),
            Collation::NoCase => {
                WithCollation { properties: &self.properties, collation: "nocase" }.serialize(serializer)
            }
        }
    }
}

/// As a record has it.
impl<'de> Deserialize<'de> for UniqueList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = json::Json::deserialize(deserializer)?;
        let read = UniqueList::read(&Part::whole(&raw), &[]);
        read.map(|input| input.list).map_err(|error| serde::de::Error::custom(error.message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<UniqueList>, String> {
        match UniqueList::read_all(&Part::whole(text)) {
            Ok(lists) => Ok(lists.into_iter().map(|input| input.list).collect()),
            Err(error) => Err(format!("{} {}", error.pointer, error.message)),
        }
    }

    #[test]
    fn both_forms_are_read_and_the_shortest_is_written() {
        for (text, written) in [
            (r#"[["a"],["b","c"]]"#, r#"[["a"],["b","c"]]"#),
            (r#"[{"properties":["a"]}]"#, r#"[["a"]]"#),
            (
                r#"[ {"collation": "nocase", "properties": ["a", "b"]}, ["c"]]"#,
                r#"[{"properties":["a","b"],"collation":"nocase"},["c"]]"#,
            ),
        ] {
            let lists = read(text).unwrap();
            assert_eq!(serde_json::to_string(&lists).unwrap(), written);
            assert_eq!(json::typed::<Vec<UniqueList>>(written).unwrap(), lists);
        }
    }

    #[test]
    fn what_is_no_list_is_answered_with_the_form_that_works() {
        for (text, expected) in [
            (
                r#"["email"]"#,
                r#"/0 is a string, expected a list of property names: write `"unique": [["email"]]`, or `"unique": [{"properties":["email"],"collation":"nocase"}]` to ignore case"#,
            ),
            (
                r#""email""#,
                r#" is a string, expected a list of lists of property names: write `"unique": [["email"]]`"#,
            ),
            (
                r#"["a","b"]"#,
                r#"write `"unique": [["a"],["b"]]` if each value is unique, or `"unique": [["a","b"]]` if the values are unique together"#,
            ),
            (r#"{"a":1}"#, " is an object, expected a list of lists"),
            (r#"[["a"],5]"#, "/1 is a number, expected a list of strings"),
            (r#"[[5]]"#, "/0/0 is a number, expected a string"),
            (r#"[{"collation":"nocase"}]"#, "/0/properties is missing, expected a list of property names"),
            (r#"[{"properties":["a"],"collation":"binary"}]"#, "/0/collation is `binary`, expected `nocase`"),
            (r#"[{"properties":["a"],"case":1}]"#, "/0/case is unknown, expected `properties` or `collation`"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
