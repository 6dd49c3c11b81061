//! The messages of faults: where the fault is, what was found and what the schema expects. The library's own messages
//! depend on its version and do not name a missing or unknown property.

use jsonschema::JsonType;
use jsonschema::error::{TypeKind, ValidationErrorKind as Kind};
use jsonschema::{ReferencingError, ValidationError};
use serde_json::Value;

use crate::Fault;
use crate::keywords::escape;
use crate::text::{bounded, bounded_place};

/// Maximum number of alternatives of `anyOf` and `oneOf` that a message quotes.
const ALTERNATIVES_MAX: usize = 3;
/// Maximum number of characters that a message quotes of one alternative.
const ALTERNATIVE_CHARS_MAX: usize = 80;

/// The faults of one error, at most `max`: one for each property that the schema does not allow, otherwise one.
pub(crate) fn faults(error: &ValidationError<'_>, max: usize) -> Vec<Fault> {
    let at = error.instance_path().as_str();
    let below = |name: &str| bounded_place(&format!("{at}/{}", escape(name)));
    match error.kind() {
        Kind::Required { property } => {
            let pointer = property.as_str().map_or_else(|| bounded_place(at), below);
            vec![Fault { pointer, message: "is missing and required".to_owned() }]
        }
        Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
            let message = "is unknown: the schema has no such property and allows no others";
            unexpected
                .iter()
                .take(max)
                .map(|name| Fault { pointer: below(name), message: message.to_owned() })
                .collect()
        }
        Kind::PropertyNames { error } => {
            let pointer = error.instance().as_str().map_or_else(|| bounded_place(at), below);
            let message = bounded(&format_args!("the name of this property is not allowed: {}", one(error)));
            vec![Fault { pointer, message }]
        }
        _ => vec![Fault { pointer: bounded_place(at), message: one(error) }],
    }
}

/// One error as one sentence, without its location.
pub(crate) fn one(error: &ValidationError<'_>) -> String {
    let found: &Value = error.instance();
    match error.kind() {
        Kind::Type { kind } => {
            // The value of a container says less than its type.
            let shown = match found {
                Value::Array(_) | Value::Object(_) | Value::Null => type_of(found).to_owned(),
                scalar => format!("{} {}", type_of(scalar), bounded(scalar)),
            };
            bounded(&format_args!("is {shown}, expected {}", types(kind)))
        }
        Kind::Required { property } => bounded(&format_args!("property {property} is missing and required")),
        Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
            let first = unexpected.first().map_or("", String::as_str);
            bounded(&format_args!("property `{first}` is unknown, and the schema allows no others"))
        }
        Kind::PropertyNames { error } => bounded(&format_args!("the name {} is not allowed", error.instance())),
        Kind::Constant { expected_value } => bounded(&format_args!("is {}, expected {expected_value}", brief(found))),
        Kind::Enum { options } => not_one_of(found, options.as_array().map_or(&[], Vec::as_slice)),
        Kind::ExclusiveMaximum { limit } => bounded(&format_args!("is {}, expected less than {limit}", brief(found))),
        Kind::ExclusiveMinimum { limit } => bounded(&format_args!("is {}, expected more than {limit}", brief(found))),
        Kind::Maximum { limit } => bounded(&format_args!("is {}, expected at most {limit}", brief(found))),
        Kind::Minimum { limit } => bounded(&format_args!("is {}, expected at least {limit}", brief(found))),
        Kind::MultipleOf { multiple_of } => {
            bounded(&format_args!("is {}, expected a multiple of {multiple_of}", brief(found)))
        }
        Kind::MaxLength { limit } => format!("has more than {limit} characters"),
        Kind::MinLength { limit } => format!("has fewer than {limit} characters"),
        Kind::MaxItems { limit } => format!("has more than {limit} items"),
        Kind::MinItems { limit } => format!("has fewer than {limit} items"),
        Kind::AdditionalItems { limit } => format!("has more than {limit} items, and the schema allows no others"),
        Kind::UnevaluatedItems { .. } => "has items that the schema does not allow".to_owned(),
        Kind::UniqueItems => "has an item twice".to_owned(),
        Kind::Contains => "has too few or too many items that fit `contains`".to_owned(),
        Kind::MaxProperties { limit } => format!("has more than {limit} properties"),
        Kind::MinProperties { limit } => format!("has fewer than {limit} properties"),
        Kind::FalseSchema => "is not allowed: the schema allows no value here".to_owned(),
        Kind::Not { .. } => "fits the schema in `not`, which it must not".to_owned(),
        Kind::AnyOf { context } => alternatives("anyOf", context),
        Kind::OneOfNotValid { context } => alternatives("oneOf", context),
        Kind::OneOfMultipleValid { .. } => "fits more than one schema in `oneOf`, expected exactly one".to_owned(),
        Kind::Pattern { pattern } => bounded(&format_args!("is {}, which does not match `{pattern}`", brief(found))),
        Kind::Format { format } => bounded(&format_args!("is {}, expected the format `{format}`", brief(found))),
        Kind::ContentEncoding { content_encoding } => bounded(&format_args!("is not encoded as `{content_encoding}`")),
        Kind::ContentMediaType { content_media_type } => bounded(&format_args!("is not `{content_media_type}`")),
        Kind::FromUtf8 { .. } => "does not decode to UTF-8".to_owned(),
        Kind::BacktrackLimitExceeded { .. } | Kind::RegexEngineFailure { .. } => {
            "cannot be compared with the pattern".to_owned()
        }
        Kind::Referencing(error) => reference(error),
        // An error of our own keywords.
        Kind::Custom { message, .. } => bounded(message),
    }
}

fn reference(error: &ReferencingError) -> String {
    match error {
        ReferencingError::PointerToNowhere { pointer } => {
            bounded(&format_args!("a reference points to `{pointer}`, which does not exist in the schema"))
        }
        ReferencingError::NoSuchAnchor { anchor } | ReferencingError::InvalidAnchor { anchor } => {
            bounded(&format_args!("a reference points to the anchor `{anchor}`, which does not exist in the schema"))
        }
        ReferencingError::InvalidPercentEncoding { pointer, .. }
        | ReferencingError::InvalidArrayIndex { pointer, .. } => {
            bounded(&format_args!("a reference contains `{pointer}`, which is not a JSON Pointer"))
        }
        ReferencingError::UnknownSpecification { specification } => {
            bounded(&format_args!("`$schema` is `{specification}`, expected a draft of JSON Schema from 4 to 2020-12"))
        }
        _ => "a reference or `$id` is not a usable URI".to_owned(),
    }
}

/// Why each alternative does not match, as far as the message has space.
fn alternatives(keyword: &str, context: &[Vec<ValidationError<'static>>]) -> String {
    let reasons = context.iter().filter_map(|errors| errors.first()).take(ALTERNATIVES_MAX);
    let reasons: Vec<String> = reasons
        .map(|error| {
            // Nested alternatives would make the message as long as the schema.
            let reason = match error.kind() {
                Kind::AnyOf { .. } | Kind::OneOfNotValid { .. } => "does not fit either".to_owned(),
                _ => one(error),
            };
            reason.chars().take(ALTERNATIVE_CHARS_MAX).collect()
        })
        .collect();
    match reasons.is_empty() {
        true => format!("fits no schema in `{keyword}`"),
        false => bounded(&format_args!("fits no schema in `{keyword}`: {}", reasons.join("; or "))),
    }
}

/// The message about a value that is not in an `enum`; it quotes the first values.
pub(crate) fn not_one_of(found: &Value, known: &[Value]) -> String {
    const SHOWN: usize = 3;
    let shown: Vec<String> = known.iter().take(SHOWN).map(bounded).collect();
    let more = match known.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("is {}, expected one of {}{more}", brief(found), shown.join(", "))
}

/// A value as a message quotes it.
pub(crate) fn brief(value: &Value) -> String {
    match value {
        Value::Array(_) | Value::Object(_) => type_of(value).to_owned(),
        scalar => bounded(scalar),
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "the boolean",
        Value::Number(_) => "the number",
        Value::String(_) => "the string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

fn types(kind: &TypeKind) -> String {
    let name = |kind: JsonType| match kind {
        JsonType::Null => "null",
        JsonType::Boolean => "a boolean",
        JsonType::Integer => "an integer",
        JsonType::Number => "a number",
        JsonType::String => "a string",
        JsonType::Array => "an array",
        JsonType::Object => "an object",
    };
    match kind {
        TypeKind::Single(kind) => name(*kind).to_owned(),
        TypeKind::Multiple(kinds) => kinds.into_iter().map(name).collect::<Vec<_>>().join(" or "),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{Compiled, Limits, on_large_stack};

    fn said(schema: &Value, document: &Value) -> Vec<String> {
        on_large_stack(|| {
            let compiled = Compiled::new(schema, &Limits::schema()).unwrap();
            let faults = compiled.check(document, &Limits::document(), 100, true).unwrap().unwrap_err();
            let mut rows: Vec<_> = faults.iter().map(|fault| format!("{} {}", fault.pointer, fault.message)).collect();
            rows.sort();
            rows
        })
    }

    #[test]
    fn a_missing_or_unknown_property_is_pointed_to() {
        let unknown = "is unknown: the schema has no such property and allows no others";
        let closed =
            json!({"required": ["a/b", "c"], "properties": {"a/b": {}, "c": {}}, "additionalProperties": false});
        assert_eq!(
            said(&closed, &json!({"x~y": 1, "z": 2})),
            [
                "/a~1b is missing and required".to_owned(),
                "/c is missing and required".to_owned(),
                format!("/x~0y {unknown}"),
                format!("/z {unknown}"),
            ]
        );
        let nested =
            json!({"properties": {"o": {"properties": {"a": {}}, "required": ["a"], "unevaluatedProperties": false}}});
        assert_eq!(
            said(&nested, &json!({"o": {"b": 1}})),
            ["/o/a is missing and required", &format!("/o/b {unknown}")]
        );
        let dependent = json!({"dependentRequired": {"a": ["b"]}});
        assert_eq!(said(&dependent, &json!({"a": 1})), ["/b is missing and required"]);
        let names = json!({"propertyNames": {"maxLength": 2}});
        assert_eq!(
            said(&names, &json!({"abc": 1})),
            ["/abc the name of this property is not allowed: has more than 2 characters"]
        );
    }

    #[test]
    fn each_keyword_has_its_words() {
        for (keyword, value, found, expected) in [
            ("type", json!("string"), json!(5), "is the number 5, expected a string"),
            ("type", json!(["null", "integer"]), json!(1.5), "is the number 1.5, expected null or an integer"),
            ("type", json!("number"), json!({"a": 1}), "is an object, expected a number"),
            ("type", json!("object"), json!(null), "is null, expected an object"),
            ("const", json!(1), json!(2), "is 2, expected 1"),
            ("maximum", json!(3), json!(4), "is 4, expected at most 3"),
            ("minimum", json!(3), json!(2), "is 2, expected at least 3"),
            ("exclusiveMaximum", json!(3), json!(3), "is 3, expected less than 3"),
            ("exclusiveMinimum", json!(3), json!(3), "is 3, expected more than 3"),
            ("multipleOf", json!(2), json!(3), "is 3, expected a multiple of 2"),
            ("maxLength", json!(1), json!("ab"), "has more than 1 characters"),
            ("minLength", json!(3), json!("ab"), "has fewer than 3 characters"),
            ("maxItems", json!(1), json!([1, 2]), "has more than 1 items"),
            ("minItems", json!(1), json!([]), "has fewer than 1 items"),
            ("uniqueItems", json!(true), json!([1, 1]), "has an item twice"),
            ("contains", json!({"const": 1}), json!([2]), "has too few or too many items that fit `contains`"),
            ("maxProperties", json!(0), json!({"a": 1}), "has more than 0 properties"),
            ("minProperties", json!(1), json!({}), "has fewer than 1 properties"),
            ("not", json!({}), json!(1), "fits the schema in `not`, which it must not"),
            ("pattern", json!("^a"), json!("b"), "is \"b\", which does not match `^a`"),
            ("format", json!("date"), json!("b"), "is \"b\", expected the format `date`"),
            ("enum", json!([1, 2]), json!(3), "is 3, expected one of 1, 2"),
            ("enum", json!([1, 2, 3, 4, 5]), json!(9), "is 9, expected one of 1, 2, 3 and 2 more"),
            (
                "anyOf",
                json!([{"type": "string"}, {"minimum": 7}]),
                json!(5),
                "fits no schema in `anyOf`: is the number 5, expected a string; or is 5, expected at least 7",
            ),
            ("oneOf", json!([{}, {}]), json!(5), "fits more than one schema in `oneOf`, expected exactly one"),
        ] {
            let schema = json!({"properties": {"p": {keyword: value}}});
            assert_eq!(said(&schema, &json!({ "p": found })), [format!("/p {expected}")], "{schema}");
        }
        assert_eq!(
            said(&json!({"properties": {"p": false}}), &json!({"p": 1})),
            ["/p is not allowed: the schema allows no value here"]
        );
    }
}
