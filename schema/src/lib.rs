//! JSON Schema with bounded work.
//!
//! The work of a JSON Schema validator depends on the schema and the document: a few hundred bytes can keep it busy for
//! years. Here every compilation and every validation runs within [`Limits`] of steps, time, stack and errors, which
//! are checked during the work; beyond them it ends with an [`Excess`]. The validator itself is the crate `jsonschema`,
//! which knows nothing of this: it sees data through a view that counts accesses (`metered`), and the keywords whose
//! work the view cannot count are checked here (`assertions`).

mod assertions;
mod budget;
mod canonical;
mod format;
mod keywords;
mod message;
mod metered;
mod pattern;
mod portable;
mod prepare;
mod references;
mod text;

use std::fmt;
use std::sync::{Arc, OnceLock};

use jsonschema::error::ValidationErrorKind;
use jsonschema::{Draft, PatternOptions, Retrieve, Uri, ValidationError, Validator};
use serde_json::{Value, json};

pub use budget::{Excess, Limits, STACK_BYTES, is_limited, step, within};
pub use format::FORMATS;
pub use keywords::all;
pub use portable::Portable;
pub use prepare::{REFERENCES_DEEP_MAX, SUBSCHEMAS_MAX};
pub use references::References;

use assertions::{ENUM, FORMAT, GUARD, Guard, PATTERN, Row};
use budget::give_up;
use metered::{Metered, Seen};
use pattern::{NAME_BACKTRACKS_MAX, NameCost, charge_names};

/// Why a schema cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The schema is invalid at the location `pointer`.
    Invalid { pointer: String, message: String },
    /// It refers to another document.
    Foreign(String),
    /// It exceeds this limit.
    TooComplex(String),
}

/// What is wrong with a document, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// JSON Pointer.
    pub pointer: String,
    pub message: String,
}

/// A compiled schema.
pub struct Compiled {
    validator: Validator<Metered>,
    names: NameCost,
}

impl fmt::Debug for Compiled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compiled").finish_non_exhaustive()
    }
}

/// Runs `work` on a thread with a stack of [`STACK_BYTES`]. Panics if `work` panics, and, like `std::thread::spawn`, if
/// the system cannot start a thread: then the request fails, and the server continues.
pub fn on_large_stack<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("schema".to_owned()).stack_size(STACK_BYTES);
        let result = thread.spawn_scoped(scope, work).map(std::thread::ScopedJoinHandle::join);
        match result {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            Err(error) => panic!("a thread for schemas cannot be started: {error}"),
        }
    })
}

impl Compiled {
    /// Compiles a schema.
    pub fn new(tree: &Value, limits: &Limits) -> Result<Compiled, Refusal> {
        within(limits, || Self::compile(tree)).unwrap_or_else(|excess| Err(Refusal::TooComplex(excess.to_string())))
    }

    fn compile(tree: &Value) -> Result<Compiled, Refusal> {
        let prepared = prepare::prepare(tree)?;
        charge_names(NameCost::default());
        if let Some(metaschema) = metaschema(prepared.draft)
            && let Err(error) = metaschema.validate(Seen(tree))
        {
            return Err(invalid(&error));
        }
        let table = Arc::new(prepared.assertions);
        let validator = jsonschema::options_for::<Metered>()
            .with_retriever(Never)
            .should_validate_formats(true)
            .with_pattern_options(PatternOptions::fancy_regex().backtrack_limit(NAME_BACKTRACKS_MAX))
            .with_keyword(PATTERN, Row::factory(&table))
            .with_keyword(FORMAT, Row::factory(&table))
            .with_keyword(ENUM, Row::factory(&table))
            .with_keyword(GUARD, Guard::factory)
            .build(&prepared.tree)
            .map_err(|error| invalid(&error))?;
        Ok(Compiled { validator, names: prepared.names })
    }

    /// Compiles subschemas, given by their pointers, into the schema of an object whose member `0` must match the first
    /// subschema, `1` the second, and so on. Members may be absent.
    pub fn parts(tree: &Value, pointers: &[String], limits: &Limits) -> Result<Compiled, Refusal> {
        const NAME: &str = "snaphook:schema";
        let draft = references::draft_of(tree);
        let (id, definitions) = match draft {
            Draft::Draft4 => ("id", "definitions"),
            Draft::Draft6 | Draft::Draft7 => ("$id", "definitions"),
            _ => ("$id", "$defs"),
        };
        let mut whole = tree.clone();
        let Value::Object(members) = &mut whole else { return Compiled::new(tree, limits) };
        let own = members.get(id).and_then(Value::as_str).unwrap_or_default();
        // Keep the schema's own id, because references in it may be relative to that.
        let own = own.split('#').next().unwrap_or_default();
        let name = if own.is_empty() { NAME } else { own }.to_owned();
        let dialect = members.get("$schema").cloned();
        members.insert(id.to_owned(), Value::String(name.clone()));
        let reference = |pointer: &String| {
            let fragment = percent_encoding::utf8_percent_encode(pointer, percent_encoding::NON_ALPHANUMERIC);
            json!({ "$ref": format!("{name}#{}", fragment.to_string().replace("%2F", "/")) })
        };
        let parts: serde_json::Map<String, Value> =
            pointers.iter().enumerate().map(|(row, pointer)| (row.to_string(), reference(pointer))).collect();
        let mut wrapper = json!({ definitions: { "whole": whole }, "properties": parts });
        if let (Some(dialect), Value::Object(members)) = (dialect, &mut wrapper) {
            members.insert("$schema".to_owned(), dialect);
        }
        Compiled::new(&wrapper, limits)
    }

    /// Checks a document within the limits. Returns at most `max` faults. If finding them exceeds the limits, returns
    /// the excess or, with `at_last`, fewer faults.
    pub fn check(
        &self,
        document: &Value,
        limits: &Limits,
        max: usize,
        at_last: bool,
    ) -> Result<Result<(), Vec<Fault>>, Excess> {
        if self.run(limits, || self.validator.is_valid(Seen(document)))? {
            return Ok(Ok(()));
        }
        let all = || {
            let errors = self.validator.iter_errors(Seen(document)).take(max);
            errors.flat_map(|error| faults(&error, limits, max)).take(max).collect()
        };
        let faults = match self.run(limits, all) {
            Ok(faults) => faults,
            Err(excess) if !at_last || excess == Excess::Cancelled => return Err(excess),
            Err(_) => {
                let first = || match self.validator.validate(Seen(document)) {
                    Err(error) => faults(&error, limits, 1),
                    Ok(()) => Vec::new(),
                };
                self.run(limits, first).unwrap_or_default()
            }
        };
        if faults.is_empty() {
            let message = "does not fit the schema; finding the place takes too many steps".to_owned();
            return Ok(Err(vec![Fault { pointer: String::new(), message }]));
        }
        Ok(Err(faults))
    }

    fn run<T>(&self, limits: &Limits, work: impl FnOnce() -> T) -> Result<T, Excess> {
        within(limits, || {
            charge_names(self.names);
            work()
        })
    }
}

fn faults(error: &ValidationError<'_>, limits: &Limits, max: usize) -> Vec<Fault> {
    if matches!(error.kind(), ValidationErrorKind::BacktrackLimitExceeded { .. }) {
        give_up(Excess::Steps(limits.steps));
    }
    message::faults(error, max)
}

fn invalid(error: &ValidationError<'_>) -> Refusal {
    if let ValidationErrorKind::Referencing(jsonschema::ReferencingError::Unretrievable { uri, .. }) = error.kind() {
        return Refusal::Foreign(uri.strip_prefix("json-schema:///").unwrap_or(uri).to_owned());
    }
    Refusal::Invalid { pointer: error.instance_path().as_str().to_owned(), message: message::one(error) }
}

/// References to files or the network are never followed.
struct Never;

impl Retrieve for Never {
    fn retrieve(&self, _: &Uri<String>) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
        Err("references to files or the network are never followed".into())
    }
}

/// The validator for schemas of a draft; `None` for an unknown draft.
fn metaschema(draft: Draft) -> Option<&'static Validator<Metered>> {
    static KNOWN: [OnceLock<Option<Validator<Metered>>>; 5] = [const { OnceLock::new() }; 5];
    let (row, uri) = match draft {
        Draft::Draft4 => (0, "http://json-schema.org/draft-04/schema#"),
        Draft::Draft6 => (1, "http://json-schema.org/draft-06/schema#"),
        Draft::Draft7 => (2, "http://json-schema.org/draft-07/schema#"),
        Draft::Draft201909 => (3, "https://json-schema.org/draft/2019-09/schema"),
        Draft::Draft202012 => (4, "https://json-schema.org/draft/2020-12/schema"),
        _ => return None,
    };
    let known = KNOWN[row].get_or_init(|| {
        let options = jsonschema::options_for::<Metered>().with_draft(draft).with_retriever(Never);
        options.build(&json!({ "$ref": uri })).ok()
    });
    known.as_ref()
}

#[cfg(test)]
mod tests;
