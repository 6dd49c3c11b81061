//! Converts a client's schema to the schema that is compiled: with limits, with a guard in each subschema, and with
//! private keywords in place of those whose work is counted here.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jsonschema::Draft;
use serde_json::{Map, Value, json};

use crate::Refusal;
use crate::assertions::{Assertion, ENUM, FORMAT, GUARD, PATTERN, PRIVATE, Values};
use crate::budget::{enter, spend};
use crate::format::Formats;
use crate::keywords::{Shape, escape, shape, subschemas};
use crate::pattern::{BACKTRACKED_NAMES_MAX, NameCost, Pattern};
use crate::references::{ID_BYTES_MAX, PLACE_BYTES_MAX, References, draft_of, ignores_siblings};

/// Maximum number of subschemas of one schema.
pub const SUBSCHEMAS_MAX: usize = 20_000;
/// Maximum number of subschemas and references on the way from the root to any subschema.
pub const REFERENCES_DEEP_MAX: usize = 500;
/// Maximum size in bytes of the JSON Pointers of all keywords.
const PLACES_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Maximum size in bytes of all compiled patterns.
const PATTERNS_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Maximum number of values of an `enum` that the library may compare one by one.
const ENUM_COMPARED_MAX: usize = 16;

/// The schema to compile.
pub(crate) struct PreparedSchema {
    pub(crate) tree: Value,
    pub(crate) draft: Draft,
    pub(crate) assertions: Vec<Assertion>,
    pub(crate) names: NameCost,
}

pub(crate) fn prepare(tree: &Value) -> Result<PreparedSchema, Refusal> {
    let draft = draft_of(tree);
    let references = References::of(tree);
    if references.too_long {
        return Err(Refusal::TooComplex(format!(
            "an identifier in it is longer than {ID_BYTES_MAX} bytes, or the path of a subschema longer than \
             {PLACE_BYTES_MAX}"
        )));
    }
    let mut rewriting = Rewriting {
        subschemas: 0,
        places_bytes: 0,
        patterns: HashMap::new(),
        patterns_bytes: 0,
        formats: Formats::new(draft),
        assertions: Vec::new(),
        names: NameCost::default(),
        seen: HashSet::new(),
        targets: Vec::new(),
        references: &references,
    };
    let mut rewritten = rewriting.schema(tree, "")?;
    // A reference may lead to a part in which no keyword expects a schema.
    while let Some(pointer) = rewriting.targets.pop() {
        let Some(target) = tree.pointer(&pointer) else { continue };
        if !rewriting.seen.contains(&address(target))
            && let Some(place) = rewritten.pointer_mut(&pointer)
        {
            *place = rewriting.schema(target, &pointer)?;
        }
    }
    let Rewriting { assertions, names, .. } = rewriting;
    let mut heights = Heights { tree, references: &references, pure: ignores_siblings(draft), known: HashMap::new() };
    heights.of(tree, 0)?;
    Ok(PreparedSchema { tree: rewritten, draft, assertions, names })
}

fn address(value: &Value) -> usize {
    std::ptr::from_ref(value) as usize
}

struct Rewriting<'a> {
    subschemas: usize,
    places_bytes: usize,
    patterns: HashMap<String, Arc<Pattern>>,
    patterns_bytes: usize,
    formats: Formats,
    assertions: Vec<Assertion>,
    names: NameCost,
    /// Addresses of the subschemas that were rewritten.
    seen: HashSet<usize>,
    /// Pointers that references lead to.
    targets: Vec<String>,
    references: &'a References,
}

impl Rewriting<'_> {
    fn schema(&mut self, schema: &Value, pointer: &str) -> Result<Value, Refusal> {
        enter();
        self.seen.insert(address(schema));
        let Value::Object(members) = schema else { return Ok(schema.clone()) };
        self.subschemas += 1;
        if self.subschemas > SUBSCHEMAS_MAX {
            return Err(Refusal::TooComplex(format!("it has more than {SUBSCHEMAS_MAX} subschemas")));
        }
        // The library stores the location of each keyword as text.
        self.places_bytes += pointer.len() * (members.len() + 2);
        spend(pointer.len() as u64 * members.len() as u64 / 64);
        if self.places_bytes > PLACES_BYTES_MAX {
            return Err(Refusal::TooComplex("the paths of its subschemas are too long in total".to_owned()));
        }
        let mut rewritten = Map::with_capacity(members.len() + 2);
        rewritten.insert(GUARD.to_owned(), Value::Bool(true));
        if !members.contains_key("type") {
            // The first keyword that is checked, so that no subschema can be entered without a step.
            rewritten.insert(
                "type".to_owned(),
                json!(["null", "boolean", "object", "array", "number", "string", "integer"]),
            );
        }
        for (keyword, value) in members {
            if keyword.starts_with(PRIVATE) {
                continue;
            }
            let (keyword, value) = self.member(schema, keyword, value, pointer)?;
            rewritten.insert(keyword, value);
        }
        Ok(Value::Object(rewritten))
    }

    fn member(
        &mut self,
        schema: &Value,
        keyword: &str,
        value: &Value,
        pointer: &str,
    ) -> Result<(String, Value), Refusal> {
        spend(1);
        let at = || format!("{pointer}/{}", escape(keyword));
        let (keyword, value) = match (keyword, value) {
            ("$ref" | "$dynamicRef" | "$recursiveRef", Value::String(reference)) => {
                self.targets.extend(self.references.pointer(schema, reference));
                (keyword, value.clone())
            }
            ("pattern", Value::String(source)) => {
                let pattern = self.pattern(source, &at())?;
                (PATTERN, self.row(Assertion::Pattern { source: source.clone(), pattern }))
            }
            ("format", Value::String(name)) => match self.formats.get(name) {
                Some(format) => (FORMAT, self.row(Assertion::Format(format))),
                None => (keyword, value.clone()),
            },
            ("enum", Value::Array(values)) if values.len() > ENUM_COMPARED_MAX => {
                (ENUM, self.row(Assertion::Enum(Values::of(values))))
            }
            _ => (keyword, self.subschemas_of(keyword, value, &at())?),
        };
        Ok((keyword.to_owned(), value))
    }

    /// The value of a keyword, with the subschemas in it rewritten.
    fn subschemas_of(&mut self, keyword: &str, value: &Value, pointer: &str) -> Result<Value, Refusal> {
        Ok(match (shape(keyword), value) {
            (Some(Shape::Schemas), Value::Array(items)) => {
                let items = items.iter().enumerate().map(|(row, item)| self.schema(item, &format!("{pointer}/{row}")));
                Value::Array(items.collect::<Result<_, _>>()?)
            }
            (Some(Shape::Schemas), _) => self.schema(value, pointer)?,
            (Some(Shape::Named), Value::Object(members)) => {
                let mut rewritten = Map::with_capacity(members.len());
                for (name, member) in members {
                    let pointer = format!("{pointer}/{}", escape(name));
                    if keyword == "patternProperties" {
                        self.charge_names(name, &pointer)?;
                    }
                    // `dependencies` may contain lists of names, too.
                    let member = if member.is_array() { member.clone() } else { self.schema(member, &pointer)? };
                    rewritten.insert(name.clone(), member);
                }
                Value::Object(rewritten)
            }
            _ => value.clone(),
        })
    }

    fn row(&mut self, assertion: Assertion) -> Value {
        self.assertions.push(assertion);
        Value::from(self.assertions.len() - 1)
    }

    fn pattern(&mut self, source: &str, pointer: &str) -> Result<Arc<Pattern>, Refusal> {
        if let Some(pattern) = self.patterns.get(source) {
            return Ok(Arc::clone(pattern));
        }
        let invalid = |message| Refusal::Invalid { pointer: pointer.to_owned(), message };
        let pattern = Arc::new(Pattern::compile(source).map_err(invalid)?);
        self.patterns_bytes += pattern.memory;
        if self.patterns_bytes > PATTERNS_BYTES_MAX {
            return Err(Refusal::TooComplex(format!(
                "its compiled patterns take more than {} MiB",
                PATTERNS_BYTES_MAX >> 20
            )));
        }
        self.patterns.insert(source.to_owned(), Arc::clone(&pattern));
        Ok(pattern)
    }

    /// The library matches the names of `patternProperties` itself, so their cost is charged by name.
    fn charge_names(&mut self, source: &str, pointer: &str) -> Result<(), Refusal> {
        let pattern = self.pattern(source, pointer)?;
        self.names.states += pattern.states;
        self.names.backtracking += usize::from(pattern.is_backtracking());
        if self.names.backtracking > BACKTRACKED_NAMES_MAX {
            return Err(Refusal::TooComplex(format!(
                "more than {BACKTRACKED_NAMES_MAX} of its `patternProperties` have look-around or back-references"
            )));
        }
        Ok(())
    }
}

/// Calculates how deep subschemas and references are nested.
struct Heights<'a> {
    tree: &'a Value,
    references: &'a References,
    /// Set if keywords beside `$ref` are ignored.
    pure: bool,
    /// Zero while a schema is visited, so that a cycle adds nothing.
    known: HashMap<usize, usize>,
}

impl Heights<'_> {
    fn of(&mut self, schema: &Value, depth: usize) -> Result<usize, Refusal> {
        enter();
        let Value::Object(members) = schema else { return Ok(0) };
        if let Some(height) = self.known.get(&address(schema)) {
            return if depth + height > REFERENCES_DEEP_MAX { Err(Self::too_deep()) } else { Ok(*height) };
        }
        if depth > REFERENCES_DEEP_MAX {
            return Err(Self::too_deep());
        }
        self.known.insert(address(schema), 0);
        let mut height = 0;
        for keyword in ["$ref", "$dynamicRef", "$recursiveRef"] {
            if let Some(reference) = members.get(keyword).and_then(Value::as_str)
                && let Some(target) = self.references.resolve(self.tree, schema, reference)
            {
                height = height.max(1 + self.of(target, depth + 1)?);
            }
        }
        if !self.pure || !members.contains_key("$ref") || depth == 0 {
            for (_, child) in subschemas(members) {
                height = height.max(1 + self.of(child, depth + 1)?);
            }
        }
        self.known.insert(address(schema), height);
        Ok(height)
    }

    fn too_deep() -> Refusal {
        Refusal::TooComplex(format!("its subschemas and references are more than {REFERENCES_DEEP_MAX} deep"))
    }
}
