//! One model's JSON Schema, compiled once per version.
//!
//! The work for a client's schema and data is bounded: see the crate `snaphook_schema`, which compiles and validates
//! within limits.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use serde_json::Value;
use snaphook_driver::json::Fault;
use snaphook_driver::{Json, PAYLOAD_BYTES_MAX};
use snaphook_schema::{Compiled, Excess, Limits, Portable, References, Refusal, on_large_stack};

use super::field_error::FieldError;

mod columns;
mod defaults;
mod found;
mod paths;
mod sample;

use defaults::Defaults;
pub(super) use found::Found;

/// Maximum number of reported errors per document.
const ERRORS_MAX: usize = 100;
/// Time limit for a stored schema, which must still compile on a slower or busier machine.
const STORED_TIME: Duration = Duration::from_secs(20);

/// A compiled schema and what is derived from it.
#[derive(Debug)]
pub struct Schema {
    pub text: Json,
    tree: Value,
    references: References,
    compiled: Compiled,
    defaults: Defaults,
}

/// Why a schema is rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaError {
    /// JSON Pointer into the schema.
    pub pointer: String,
    /// One sentence.
    pub message: String,
    /// Nothing is wrong with it, but it takes too much work.
    pub too_complex: bool,
}

/// Why data is rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// The errors, with their places.
    Errors(Vec<FieldError>),
    /// No verdict: validation takes too much work.
    TooComplex(String),
    /// The caller has left, or has waited too long.
    Late,
}

/// The limit of validation work.
#[derive(Clone, Debug)]
pub struct Effort(Limits, bool);

impl Effort {
    /// Less than a millisecond, on any thread. If that is not enough, repeat with [`Effort::whole`].
    pub const fn small() -> Effort {
        Effort(Limits::inline(), false)
    }

    /// The stack that a thread needs for [`Effort::whole`].
    pub const STACK_BYTES: usize = snaphook_schema::STACK_BYTES;

    /// The maximum for a document. Needs a thread with a stack of [`Effort::STACK_BYTES`].
    pub fn whole(until: Option<Instant>, cancelled: Option<Arc<AtomicBool>>) -> Effort {
        Effort(Limits { until, cancelled, ..Limits::document() }, true)
    }

    fn for_schemas(&self) -> Limits {
        Limits { until: self.0.until, cancelled: self.0.cancelled.clone(), ..Limits::schema() }
    }

    /// Maximum bytes of filled-in defaults.
    fn filled_bytes(&self) -> usize {
        if self.1 { PAYLOAD_BYTES_MAX } else { 64 * 1024 }
    }
}

impl SchemaError {
    fn invalid(message: String) -> SchemaError {
        SchemaError { pointer: String::new(), message, too_complex: false }
    }
}

impl std::fmt::Display for SchemaError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<Refusal> for SchemaError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Invalid { pointer, message } => {
                let at = if pointer.is_empty() { String::new() } else { format!(" at `{pointer}`") };
                SchemaError { message: format!("schema cannot be used{at}: {message}"), pointer, too_complex: false }
            }
            Refusal::Foreign(reference) => SchemaError::invalid(format!(
                "schema refers to `{reference}`: references to files or the network are never followed; put the schema \
                 into `$defs` and refer to it with `#/$defs/…`"
            )),
            Refusal::TooComplex(excess) => too_complex(&excess),
        }
    }
}

fn too_complex(excess: &str) -> SchemaError {
    let message = format!("the schema is too complex: {excess}; make it simpler");
    SchemaError { pointer: String::new(), message, too_complex: true }
}

impl Schema {
    /// Compiles a client's schema, and validates its defaults, too.
    pub fn compile(text: &Json, effort: &Effort) -> Result<Schema, SchemaError> {
        let limits = effort.for_schemas();
        let schema = Schema::compile_with(text, &limits)?;
        schema.check_defaults(&limits)?;
        Ok(schema)
    }

    /// Compiles a stored schema, which was checked before.
    pub fn compile_stored(text: &Json) -> Result<Schema, SchemaError> {
        Schema::compile_with(text, &Limits { steps: u64::MAX / 2, time: Some(STORED_TIME), ..Limits::schema() })
    }

    fn compile_with(text: &Json, limits: &Limits) -> Result<Schema, SchemaError> {
        let tree = text.to_value().map_err(|error| match error.fault() {
            Fault::Twice { name } => SchemaError::invalid(format!("schema has `{name}` twice in one object")),
            _ => SchemaError::invalid(format!("schema is not JSON: {error}")),
        })?;
        let Some(object) = tree.as_object() else {
            return Err(SchemaError::invalid("schema must be a JSON object".to_owned()));
        };
        if object.get("type").and_then(Value::as_str) != Some("object") {
            return Err(SchemaError::invalid(
                "schema must have `\"type\": \"object\"`: an instance's data is an object".to_owned(),
            ));
        }
        let (references, compiled, defaults) = on_large_stack(|| {
            let references = References::of(&tree);
            let compiled = Compiled::new(&tree, limits)?;
            let defaults = snaphook_schema::within(limits, || Defaults::of(&tree, &references))
                .unwrap_or_else(|excess| Err(excess.to_string()))
                .map_err(|excess| too_complex(&excess))?;
            Ok::<_, SchemaError>((references, compiled, defaults))
        })?;
        Ok(Schema { text: text.clone(), tree, references, compiled, defaults })
    }

    /// The schema as a part of an OpenAPI document, at `place`.
    pub fn portable(&self, place: &str, effort: &Effort) -> Result<Portable, Unfit> {
        let portable = Portable::of(&self.tree, &self.references, place, &effort.for_schemas());
        portable.map_err(|excess| match excess {
            Excess::Late | Excess::Cancelled => Unfit::Late,
            excess => Unfit::TooComplex(format!("rewriting the schema is too complex: {excess}")),
        })
    }

    /// Checks data against the schema; pointers start with `prefix`.
    pub fn check(&self, data: &Value, prefix: &str, effort: &Effort) -> Result<(), Unfit> {
        let Effort(limits, whole) = effort;
        match self.compiled.check(data, limits, ERRORS_MAX, *whole) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(faults)) => Err(Unfit::Errors(
                faults
                    .into_iter()
                    .map(|fault| FieldError { pointer: format!("{prefix}{}", fault.pointer), message: fault.message })
                    .collect(),
            )),
            Err(Excess::Late | Excess::Cancelled) => Err(Unfit::Late),
            Err(excess) => {
                Err(Unfit::TooComplex(format!("checking the data against the schema is too complex: {excess}")))
            }
        }
    }

    /// Fills in the defaults of absent properties; returns whether anything changed. May be called again with more
    /// effort.
    pub fn fill_defaults(&self, data: &mut Value, effort: &Effort) -> Result<bool, Unfit> {
        self.defaults.fill(data, effort.filled_bytes()).map_err(Unfit::TooComplex)
    }

    /// Defaults of top-level properties.
    pub fn top_level_defaults(&self) -> Vec<(String, Value)> {
        self.defaults.top_level()
    }

    /// The places of a keyword in the schema and its subschemas, with their pointers.
    pub fn keyword(&self, keyword: &str) -> Vec<(String, &Value)> {
        let all = snaphook_schema::all(&self.tree).into_iter();
        all.filter_map(|(pointer, schema)| Some((pointer, schema.get(keyword)?))).collect()
    }

    /// Whether a top-level property must be there.
    pub fn requires(&self, property: &str) -> bool {
        let required = self.tree.get("required").and_then(Value::as_array);
        required.is_some_and(|names| names.iter().any(|name| name.as_str() == Some(property)))
    }

    /// Whether any property has a default.
    pub fn has_defaults(&self) -> bool {
        !self.defaults.is_empty()
    }

    /// Each default must be valid against its own schema.
    fn check_defaults(&self, limits: &Limits) -> Result<(), SchemaError> {
        let written = defaults::written(&self.tree);
        if written.is_empty() {
            return Ok(());
        }
        on_large_stack(|| {
            let pointers: Vec<String> = written.iter().map(|(pointer, _)| pointer.clone()).collect();
            let compiled = Compiled::parts(&self.tree, &pointers, limits)?;
            let mut values = serde_json::Map::new();
            for (row, (pointer, default)) in written.iter().enumerate() {
                let mut value = (*default).clone();
                if let Some(schema) = self.tree.pointer(pointer) {
                    self.defaults.fill_from(schema, &mut value).map_err(|excess| too_complex(&excess))?;
                }
                values.insert(row.to_string(), value);
            }
            match compiled.check(&Value::Object(values), limits, 1, true) {
                Ok(Ok(())) => Ok(()),
                Ok(Err(faults)) => {
                    let fault = faults.into_iter().next();
                    let (pointer, message) = fault.map(|fault| (fault.pointer, fault.message)).unwrap_or_default();
                    let (row, rest) = pointer
                        .trim_start_matches('/')
                        .split_once('/')
                        .unwrap_or((pointer.trim_start_matches('/'), ""));
                    let at = row.parse::<usize>().ok().and_then(|row| pointers.get(row)).cloned().unwrap_or_default();
                    let rest = if rest.is_empty() { String::new() } else { format!("/{rest}") };
                    let pointer = format!("{at}/default{rest}");
                    let message = format!("the default at `{pointer}` does not fit its own schema: {message}");
                    Err(SchemaError { pointer, message, too_complex: false })
                }
                Err(excess) => Err(too_complex(&format!("checking its defaults: {excess}"))),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    pub(super) fn schema(value: Value) -> Schema {
        Schema::compile(&Json::from_value(&value), &Effort::whole(None, None))
            .unwrap_or_else(|error| panic!("{value:.300}: {error}"))
    }

    fn check(schema: &Schema, data: &Value) -> Result<(), Unfit> {
        on_large_stack(|| schema.check(data, "/data", &Effort::whole(None, None)))
    }

    #[test]
    fn refuses_what_cannot_be_a_model() {
        for (value, message) in [
            (json!([]), "must be a JSON object"),
            (json!({"type": "string"}), "must have `\"type\": \"object\"`"),
            (json!({"type": "object", "properties": {"a": {"$ref": "https://example.com/x.json"}}}), "never followed"),
            (json!({"type": "object", "properties": {"a": {"$ref": "file:///etc/passwd"}}}), "never followed"),
            (json!({"type": "object", "properties": {"a": {"$ref": "other.json"}}}), "never followed"),
            (json!({"type": "object", "properties": {"a": {"type": "text"}}}), "cannot be used at"),
            (
                json!({"type": "object", "properties": {"a": {"pattern": "("}}}),
                "cannot be used at `/properties/a/pattern`",
            ),
        ] {
            let error = Schema::compile(&Json::from_value(&value), &Effort::whole(None, None)).unwrap_err();
            assert!(error.message.contains(message) && !error.too_complex, "{value}: {error}");
        }
        let twice = Json::trusted(r#"{"type":"object","properties":{"a":{},"a":{"type":"string"}}}"#);
        assert_eq!(
            Schema::compile(&twice, &Effort::whole(None, None)).unwrap_err().message,
            "schema has `a` twice in one object"
        );
        let deep: serde_json::Map<String, Value> =
            (0..900).map(|n| (format!("d{n}"), json!({"$ref": format!("#/$defs/d{}", n + 1)}))).collect();
        let deep = json!({"type": "object", "$ref": "#/$defs/d0", "$defs": deep});
        let error = Schema::compile(&Json::from_value(&deep), &Effort::whole(None, None)).unwrap_err();
        assert!(error.too_complex && error.message.contains("more than"), "{error}");
    }

    #[test]
    fn exact_numbers_are_compared_exactly() {
        let schema = schema(json!({"type": "object", "properties": {"n": {"maximum": 9007199254740992u64}}}));
        let fits = |text| check(&schema, &snaphook_driver::json::parse(text).unwrap()).is_ok();
        assert!(fits(r#"{"n":9007199254740992}"#));
        assert!(!fits(r#"{"n":9007199254740993}"#));
    }

    #[test]
    fn errors_are_bounded() {
        let schema = schema(json!({"type": "object", "properties": {"a": {"items": {"type": "string"}}}}));
        let errors = |count: usize| match check(&schema, &json!({"a": vec![1; count]})) {
            Err(Unfit::Errors(errors)) => errors,
            other => panic!("{other:?}"),
        };
        assert_eq!(errors(50).len(), 50);
        assert_eq!(errors(5_000).len(), ERRORS_MAX);
        // The validator would make an error for each before the first is seen.
        let many = errors(20_000);
        assert_eq!((many.len(), many[0].pointer.as_str()), (1, "/data/a/0"));
    }

    #[test]
    fn what_takes_too_much_is_said() {
        let schema = schema(json!({"type": "object", "$ref": "#/$defs/n", "$defs": {"n": {"anyOf": [
            {"type": "object", "properties": {"a": {"$ref": "#/$defs/n"}}, "required": ["b"]},
            {"type": "object", "properties": {"a": {"$ref": "#/$defs/n"}}, "required": ["c"]}]}}}));
        let mut data = json!({});
        for _ in 0..100 {
            data = json!({ "a": data });
        }
        // What the library remembers makes an end of it; without, it would be 2^100 steps.
        assert!(!matches!(check(&schema, &data), Ok(()) | Err(Unfit::Late)));
        let pattern = self::schema(json!({"type": "object", "properties": {"s": {"pattern": "(?=(a*)*$)(a|aa)+$"}}}));
        let data = json!({"s": format!("{}!", "a".repeat(100_000))});
        let small = pattern.check(&data, "", &Effort::small());
        assert!(matches!(small, Err(Unfit::TooComplex(_))), "{small:?}");
        let Err(Unfit::TooComplex(message)) = check(&pattern, &data) else { panic!("it is too complex") };
        assert!(message.contains("it takes more than"), "{message}");
    }

    #[test]
    fn defaults_must_fit_their_own_schema() {
        let node = json!({"type": "object", "properties": {"n": {"type": "integer", "default": 1}}, "required": ["n"]});
        schema(
            json!({"type": "object", "properties": {"a": {"$ref": "#/$defs/node", "default": {}}}, "$defs": {"node": node}}),
        );
        for (value, pointer) in [
            (json!({"type": "object", "properties": {"a": {"type": "string", "default": 1}}}), "/properties/a/default"),
            (
                json!({"type": "object", "properties": {"a/b": {"items": {"type": "string"}, "default": ["x", 1]}}}),
                "/properties/a~1b/default/1",
            ),
            (
                json!({"type": "object", "$id": "https://example.com/x", "properties": {"a": {"$ref": "#/$defs/s", "default": 1}}, "$defs": {"s": {"type": "string"}}}),
                "/properties/a/default",
            ),
            (json!({"type": "object", "$defs": {"s%": {"type": "string", "default": {}}}}), "/$defs/s%/default"),
            (
                json!({"type": "object", "allOf": [{"properties": {"a": {"enum": [1], "default": 2}}}]}),
                "/allOf/0/properties/a/default",
            ),
            (
                json!({"$schema": "http://json-schema.org/draft-07/schema#", "type": "object", "properties": {"a": {"format": "uuid", "default": "x"}}}),
                "/properties/a/default",
            ),
        ] {
            let error = Schema::compile(&Json::from_value(&value), &Effort::whole(None, None)).unwrap_err();
            assert_eq!(error.pointer, pointer, "{error}");
            assert!(error.message.contains("does not fit its own schema"), "{error}");
            // A schema that an older server accepted still compiles.
            assert!(Schema::compile_stored(&Json::from_value(&value)).is_ok());
        }
    }
}
