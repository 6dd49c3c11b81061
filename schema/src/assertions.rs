//! The keywords that are checked here and not by the library, because their work must be counted: `pattern`, `format`,
//! and `enum` with many values. Also the guard, which counts what the library compiles.
//!
//! In their place, the compiled schema contains private keywords; the value of each is the number of a row of a table.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use jsonschema::paths::Location;
use jsonschema::{Keyword, ValidationError};
use serde_json::{Map, Value};

use crate::budget::{enter, spend};
use crate::canonical::{Meaning, equal};
use crate::format::Format;
use crate::message::{brief, not_one_of};
use crate::metered::{Metered, Seen};
use crate::pattern::Pattern;
use crate::text::bounded;

/// The prefix of private keywords. Clients cannot use them: keywords with this prefix are removed.
pub(crate) const PRIVATE: char = '\u{0}';
/// The private keywords, named after the keywords that they replace.
pub(crate) const PATTERN: &str = "\u{0}pattern";
pub(crate) const FORMAT: &str = "\u{0}format";
pub(crate) const ENUM: &str = "\u{0}enum";
/// The guard, which is in every subschema.
pub(crate) const GUARD: &str = "\u{0}guard";

/// Steps per subschema that the library compiles.
const NODE_STEPS: u64 = 400;

/// One row of the table.
pub(crate) enum Assertion {
    Pattern { source: String, pattern: Arc<Pattern> },
    Format(Arc<Format>),
    Enum(Values),
}

/// The values of an `enum`, found by their hash.
pub(crate) struct Values {
    keys: RandomState,
    /// The indexes of the values with a hash.
    rows: HashMap<u64, Vec<usize>>,
    values: Vec<Value>,
}

impl Values {
    pub(crate) fn of(values: &[Value]) -> Values {
        let keys = RandomState::new();
        let mut rows: HashMap<u64, Vec<usize>> = HashMap::with_capacity(values.len());
        for (row, value) in values.iter().enumerate() {
            rows.entry(keys.hash_one(Meaning(value))).or_default().push(row);
        }
        Values { keys, rows, values: values.to_vec() }
    }

    fn contains(&self, value: &Value) -> bool {
        let rows = self.rows.get(&self.keys.hash_one(Meaning(value)));
        rows.is_some_and(|rows| rows.iter().any(|row| equal(&self.values[*row], value)))
    }
}

impl Assertion {
    fn is_valid(&self, value: &Value) -> bool {
        match self {
            Assertion::Pattern { pattern, .. } => match value {
                Value::String(text) => pattern.is_match(text),
                _ => true,
            },
            Assertion::Format(format) => format.is_valid(value),
            Assertion::Enum(values) => values.contains(value),
        }
    }

    fn message(&self, value: &Value) -> String {
        match self {
            Assertion::Pattern { source, .. } => {
                bounded(&format_args!("is {}, which does not match `{source}`", brief(value)))
            }
            Assertion::Format(format) => format!("is {}, expected the format `{}`", brief(value), format.name),
            Assertion::Enum(values) => not_one_of(value, &values.values),
        }
    }
}

/// A row of the table, as a keyword for the library.
pub(crate) struct Row {
    table: Arc<Vec<Assertion>>,
    row: usize,
}

impl Row {
    /// Finds the row that the value of a private keyword specifies.
    #[expect(clippy::type_complexity, reason = "the bound that `with_keyword` asks for, which no alias can name")]
    pub(crate) fn factory(
        table: &Arc<Vec<Assertion>>,
    ) -> impl for<'a> Fn(
        &'a Map<String, Value>,
        &'a Value,
        Location,
    ) -> Result<Box<dyn for<'i> Keyword<'i, Metered>>, ValidationError<'a>>
    + Send
    + Sync
    + 'static {
        let table = Arc::clone(table);
        move |_, value, _| {
            let row = value.as_u64().and_then(|row| usize::try_from(row).ok()).filter(|row| *row < table.len());
            let row = row.ok_or_else(|| ValidationError::custom("a private keyword without its row"))?;
            Ok(Box::new(Row { table: Arc::clone(&table), row }))
        }
    }
}

impl<'i> Keyword<'i, Metered> for Row {
    fn validate(&self, instance: Seen<'i>) -> Result<(), ValidationError<'i>> {
        if Keyword::<Metered>::is_valid(self, instance) {
            return Ok(());
        }
        // The library copies the value.
        spend_copy(instance.0);
        Err(ValidationError::custom(self.table[self.row].message(instance.0)))
    }

    fn is_valid(&self, instance: Seen<'i>) -> bool {
        enter();
        self.table[self.row].is_valid(instance.0)
    }
}

fn spend_copy(value: &Value) {
    enter();
    match value {
        Value::String(text) => spend(text.len() as u64 / 64),
        Value::Array(items) => items.iter().for_each(spend_copy),
        Value::Object(members) => members.values().for_each(spend_copy),
        _ => {}
    }
}

/// A keyword that is always valid. Its factory is called each time that a subschema is compiled.
pub(crate) struct Guard;

impl Guard {
    pub(crate) fn factory<'a>(
        schema: &'a Map<String, Value>,
        _: &'a Value,
        place: Location,
    ) -> Result<Box<dyn for<'i> Keyword<'i, Metered>>, ValidationError<'a>> {
        enter();
        spend(NODE_STEPS + (place.as_str().len() * schema.len()) as u64 / 4);
        Ok(Box::new(Guard))
    }
}

impl<'i> Keyword<'i, Metered> for Guard {
    fn validate(&self, _: Seen<'i>) -> Result<(), ValidationError<'i>> {
        enter();
        Ok(())
    }

    fn is_valid(&self, _: Seen<'i>) -> bool {
        enter();
        true
    }
}
