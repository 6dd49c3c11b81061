//! A TOML document read key by key: notes every fault with its line and goes on.
//!
//! The readers here know nothing of what the keys mean. A [`Section`] is a table whose keys are taken one after the
//! other; what nobody took is an unknown key. Strings that start with `env:` are resolved here, so that no reader can
//! forget it; their values are never shown.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Number, Value as Json};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::ConfigError;
use super::suggest;
use super::units::{parse_duration, parse_size};

/// Looks up an environment variable.
pub(super) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The text of a file and what was found wrong in it.
pub(super) struct ConfigDocument<'a> {
    text: &'a str,
    environment: Environment<'a>,
    errors: RefCell<Vec<ConfigError>>,
    /// The paths of all keys that readers asked for.
    #[cfg(test)]
    known: RefCell<std::collections::BTreeSet<String>>,
}

impl<'a> ConfigDocument<'a> {
    pub(super) fn new(text: &'a str, environment: Environment<'a>) -> Self {
        ConfigDocument {
            text,
            environment,
            errors: RefCell::default(),
            #[cfg(test)]
            known: RefCell::default(),
        }
    }

    /// The paths of all keys that readers asked for, whether they were there or not.
    #[cfg(test)]
    pub(super) fn known_keys(&self) -> std::collections::BTreeSet<String> {
        self.known.borrow().clone()
    }

    /// The root table. `None`: the text is not TOML; the faults are noted.
    pub(super) fn parse(&self) -> Option<DeTable<'a>> {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        for error in &errors {
            // The parser's message describes what it expected; it never holds text of the file.
            let line = error.span().map(|span| self.line_at(span.start));
            self.error(line, format!("not valid TOML: {}", error.message()));
        }
        errors.is_empty().then(|| table.into_inner())
    }

    /// Notes a fault.
    pub(super) fn error(&self, line: impl Into<Option<usize>>, message: impl Into<String>) {
        self.errors.borrow_mut().push(ConfigError::new(line, message));
    }

    /// What was noted.
    /// Faults so far.
    pub(super) fn fault_count(&self) -> usize {
        self.errors.borrow().len()
    }

    pub(super) fn into_errors(self) -> Vec<ConfigError> {
        self.errors.into_inner()
    }

    fn line_at(&self, offset: usize) -> usize {
        let end = offset.min(self.text.len());
        1 + self.text.as_bytes()[..end].iter().filter(|byte| **byte == b'\n').count()
    }

    fn environment(&self, name: &str) -> Option<String> {
        (self.environment)(name)
    }
}

/// One table: its keys, taken one by one.
pub(super) struct Section<'a> {
    document: &'a ConfigDocument<'a>,
    /// In front of each key in messages: empty for the root, else such as `server.`.
    prefix: String,
    /// Of the header; `None` if the table is not in the file.
    pub(super) line: Option<usize>,
    entries: BTreeMap<&'a str, ConfigEntry<'a>>,
    known: Vec<&'static str>,
    /// Keys that were in the file and have been taken.
    taken: Vec<&'static str>,
}

struct ConfigEntry<'a> {
    key_line: usize,
    value: &'a Spanned<DeValue<'a>>,
}

impl<'a> Section<'a> {
    pub(super) fn root(document: &'a ConfigDocument<'a>, table: &'a DeTable<'a>) -> Self {
        Section {
            document,
            prefix: String::new(),
            line: None,
            entries: entries(document, table),
            known: Vec::new(),
            taken: Vec::new(),
        }
    }

    /// Takes a key.
    pub(super) fn value(&mut self, key: &'static str) -> Option<Value<'a>> {
        self.known.push(key);
        #[cfg(test)]
        self.document.known.borrow_mut().insert(format!("{}{key}", self.prefix));
        let entry = self.entries.remove(key)?;
        self.taken.push(key);
        Some(Value::new(self.document, format!("{}{key}", self.prefix), entry.value))
    }

    /// An environment variable that defaults depend on.
    pub(super) fn environment(&self, name: &str) -> Option<String> {
        self.document.environment(name)
    }

    /// Notes a fault of such a variable.
    pub(super) fn environment_error(&self, name: &str, what: &str) {
        self.document.error(None::<usize>, format!("the variable {name} of the environment {what}"));
    }

    /// Takes a table; an absent one is empty.
    pub(super) fn section(&mut self, key: &'static str) -> Section<'a> {
        let line = self.entries.get(key).map(|entry| entry.key_line);
        match self.value(key) {
            Some(value) => {
                value.section().map(|section| Section { line, ..section }).unwrap_or_else(|| self.empty(key))
            }
            None => self.empty(key),
        }
    }

    fn empty(&self, key: &str) -> Section<'a> {
        Section {
            document: self.document,
            prefix: format!("{}{key}.", self.prefix),
            line: None,
            entries: BTreeMap::new(),
            known: Vec::new(),
            taken: Vec::new(),
        }
    }

    pub(super) fn string(&mut self, key: &'static str) -> Option<Text<'a>> {
        self.value(key)?.text("a string")
    }

    /// A string that may be a reference to a secret; such a one is left as it stands.
    pub(super) fn secret_string(&mut self, key: &'static str) -> Option<Text<'a>> {
        self.value(key)?.secret_text()
    }

    /// A number from 0 to 1.
    pub(super) fn fraction(&mut self, key: &'static str) -> Option<f64> {
        let value = self.value(key)?;
        let number = match value.value {
            DeValue::Float(float) => float.as_str().replace('_', "").parse().ok(),
            DeValue::Integer(integer) => integer.as_str().parse().ok(),
            _ => {
                value.wrong_type("a number from 0 to 1");
                return None;
            }
        };
        let number = number.filter(|number| (0.0..=1.0).contains(number));
        if number.is_none() {
            value.error("is out of range, expected a number from 0 to 1");
        }
        number
    }

    pub(super) fn boolean(&mut self, key: &'static str) -> Option<bool> {
        self.value(key)?.boolean()
    }

    /// A whole number within a range.
    pub(super) fn integer(&mut self, key: &'static str, range: std::ops::RangeInclusive<u64>) -> Option<u64> {
        let value = self.value(key)?;
        let expected = format!("{} to {}", range.start(), range.end());
        let DeValue::Integer(integer) = value.value else {
            value.wrong_type(&format!("a whole number, {expected}"));
            return None;
        };
        let number = i128::from_str_radix(integer.as_str(), integer.radix()).unwrap_or(i128::MAX);
        match u64::try_from(number) {
            Ok(number) if range.contains(&number) => Some(number),
            _ => {
                value.error(format!("is {}, expected {expected}", integer.as_str()));
                None
            }
        }
    }

    pub(super) fn duration(&mut self, key: &'static str, least: Duration, most: Duration) -> Option<Duration> {
        use super::units::format_duration;
        let expected = format!("{} to {}, such as '500 ms'", format_duration(least), format_duration(most));
        let text = self.value(key)?.text(&format!("a duration, {expected}"))?;
        text.parsed(&expected, |text| parse_duration(text).filter(|value| (least..=most).contains(value)))
    }

    pub(super) fn size(&mut self, key: &'static str, least: usize, most: usize) -> Option<usize> {
        use super::units::format_size;
        let expected = format!("{} to {}, such as '8 MiB'", format_size(least), format_size(most));
        let text = self.value(key)?.text(&format!("a size, {expected}"))?;
        text.parsed(&expected, |text| parse_size(text).filter(|value| (least..=most).contains(value)))
    }

    /// Everything that was not taken, as plain data; for tables whose keys somebody else knows. `secrets`: whether
    /// `secret:` references may stand in it. `hidden` gets the values that came from the environment.
    pub(super) fn rest(&mut self, secrets: bool, hidden: &mut Vec<String>) -> Map<String, Json> {
        let entries = std::mem::take(&mut self.entries);
        entries
            .into_iter()
            .filter_map(|(key, entry)| {
                let value = Value::new(self.document, format!("{}{key}", self.prefix), entry.value);
                Some((key.to_owned(), value.json(secrets, hidden)?))
            })
            .collect()
    }

    /// Where the keys stand that were not taken yet.
    pub(super) fn lines(&self) -> BTreeMap<String, usize> {
        self.entries.iter().map(|(key, entry)| ((*key).to_owned(), entry.key_line)).collect()
    }

    /// Notes a fault of one of the section's keys that is not there.
    pub(super) fn missing(&self, key: &str, expected: &str) {
        self.document.error(self.line, format!("`{}{key}` is missing, expected {expected}", self.prefix));
    }

    /// Whether a key that was taken is in the file, whatever its value.
    pub(super) fn was_there(&self, key: &str) -> bool {
        self.taken.contains(&key)
    }

    /// Notes a fault of the table as a whole.
    pub(super) fn error(&self, what: &str) {
        self.document.error(self.line, format!("`{}` {what}", self.prefix.trim_end_matches('.')));
    }

    /// Every key must have been taken.
    pub(super) fn finish(self) {
        for (key, entry) in &self.entries {
            let hint = match suggest::closest(key, self.known.iter().copied()) {
                Some(known) => format!("did you mean `{}{known}`?", self.prefix),
                None => format!("known are {}", list(&self.known)),
            };
            self.document.error(entry.key_line, format!("unknown key `{}{key}`, {hint}", self.prefix));
        }
    }
}

/// One value and where it stands.
pub(super) struct Value<'a> {
    document: &'a ConfigDocument<'a>,
    path: String,
    pub(super) line: usize,
    value: &'a DeValue<'a>,
}

impl<'a> Value<'a> {
    fn new(document: &'a ConfigDocument<'a>, path: String, value: &'a Spanned<DeValue<'a>>) -> Self {
        Value { document, path, line: document.line_at(value.span().start), value: value.get_ref() }
    }

    /// Notes a fault: the path, then `what`.
    pub(super) fn error(&self, what: impl AsRef<str>) {
        self.document.error(self.line, format!("`{}` {}", self.path, what.as_ref()));
    }

    fn wrong_type(&self, expected: &str) {
        self.error(format!("is {}, expected {expected}", kind(self.value)));
    }

    pub(super) fn is_string(&self) -> bool {
        matches!(self.value, DeValue::String(_))
    }

    pub(super) fn is_list(&self) -> bool {
        matches!(self.value, DeValue::Array(_))
    }

    pub(super) fn is_true(&self) -> bool {
        matches!(self.value, DeValue::Boolean(true))
    }

    pub(super) fn section(&self) -> Option<Section<'a>> {
        match self.value {
            DeValue::Table(table) => Some(Section {
                document: self.document,
                prefix: format!("{}.", self.path),
                line: Some(self.line),
                entries: entries(self.document, table),
                known: Vec::new(),
                taken: Vec::new(),
            }),
            _ => {
                self.wrong_type("a table");
                None
            }
        }
    }

    /// The entries of a table whose keys are free.
    pub(super) fn entries(&self) -> Option<Vec<(&'a str, Value<'a>)>> {
        let DeValue::Table(table) = self.value else {
            self.wrong_type("a table");
            return None;
        };
        let entry = |(key, value): (&'a Spanned<toml::de::DeString<'a>>, _)| {
            let key = key.get_ref().as_ref();
            (key, Value::new(self.document, format!("{}.{key}", self.path), value))
        };
        Some(table.iter().map(entry).collect())
    }

    pub(super) fn items(&self, expected: &str) -> Option<Vec<Value<'a>>> {
        match self.value {
            DeValue::Array(items) => {
                Some(items.iter().map(|item| Value::new(self.document, self.path.clone(), item)).collect())
            }
            _ => {
                self.wrong_type(expected);
                None
            }
        }
    }

    pub(super) fn boolean(&self) -> Option<bool> {
        match self.value {
            DeValue::Boolean(value) => Some(*value),
            _ => {
                self.wrong_type("true or false");
                None
            }
        }
    }

    /// A string with `env:` resolved. `secret:` is refused: nothing that needs a string here is read after the
    /// secure storage is open.
    pub(super) fn text(self, expected: &str) -> Option<Text<'a>> {
        let DeValue::String(text) = self.value else {
            self.wrong_type(expected);
            return None;
        };
        if text.starts_with("secret:") {
            self.error(
                "is a `secret:` reference, which works only in the settings of the event, model and error storage and in \
                 `server.tls`",
            );
            return None;
        }
        let (value, variable) = self.resolve(text)?;
        Some(Text { value, variable, place: self })
    }

    /// A string that may be a reference to a secret; such a one is left as it stands.
    pub(super) fn secret_text(self) -> Option<Text<'a>> {
        match self.value {
            DeValue::String(text) if text.starts_with("secret:") => self.raw_text(),
            _ => self.text("a string"),
        }
    }

    /// A string as it stands, for a key that gives `env:` its own meaning.
    pub(super) fn raw_text(self) -> Option<Text<'a>> {
        match self.value {
            DeValue::String(text) => Some(Text { value: text.to_string(), variable: None, place: self }),
            _ => {
                self.wrong_type("a string");
                None
            }
        }
    }

    /// The value of `env:NAME` and the name, or the text itself.
    fn resolve(&self, text: &str) -> Option<(String, Option<String>)> {
        let Some(name) = text.strip_prefix("env:") else { return Some((text.to_owned(), None)) };
        match self.document.environment(name) {
            Some(value) => Some((value, Some(name.to_owned()))),
            None => {
                self.error(format!("is `env:{name}`, but the environment variable `{name}` is not set"));
                None
            }
        }
    }

    /// The value as plain data; see [`Section::rest`].
    fn json(&self, secrets: bool, hidden: &mut Vec<String>) -> Option<Json> {
        let mut nested = |path: String, value| Value::new(self.document, path, value).json(secrets, hidden);
        match self.value {
            DeValue::String(text) if text.starts_with("secret:") && !secrets => {
                self.error(
                    "is a `secret:` reference, which cannot work here: the secure storage itself contains the \
                     secrets; use `env:`",
                );
                None
            }
            DeValue::String(text) => {
                let (value, variable) = self.resolve(text)?;
                hidden.extend(variable.map(|_| value.clone()));
                Some(Json::String(value))
            }
            DeValue::Boolean(value) => Some(Json::Bool(*value)),
            DeValue::Datetime(value) => Some(Json::String(value.to_string())),
            DeValue::Integer(integer) => match i64::from_str_radix(integer.as_str(), integer.radix()) {
                Ok(number) => Some(Json::Number(number.into())),
                Err(_) => {
                    self.error("is a whole number that does not fit 64 bits");
                    None
                }
            },
            DeValue::Float(float) => match float.as_str().parse().ok().and_then(Number::from_f64) {
                Some(number) => Some(Json::Number(number)),
                None => {
                    self.error("is not a finite number");
                    None
                }
            },
            DeValue::Array(items) => {
                let items: Vec<_> = items.iter().map(|item| nested(self.path.clone(), item)).collect();
                items.into_iter().collect::<Option<Vec<_>>>().map(Json::Array)
            }
            DeValue::Table(table) => {
                let entries: Vec<_> = table
                    .iter()
                    .map(|(key, value)| {
                        let key = key.get_ref();
                        Some((key.to_string(), nested(format!("{}.{key}", self.path), value)?))
                    })
                    .collect();
                entries.into_iter().collect::<Option<Map<_, _>>>().map(Json::Object)
            }
        }
    }
}

/// A string of the file, resolved.
pub(super) struct Text<'a> {
    pub(super) value: String,
    /// The environment variable that it came from.
    variable: Option<String>,
    pub(super) place: Value<'a>,
}

impl Text<'_> {
    /// How the value is named in messages. What came from the environment is not shown: it may be a secret.
    pub(super) fn shown(&self) -> String {
        match &self.variable {
            Some(name) => format!("the value of the environment variable `{name}`"),
            None => format!("`{}`", self.value),
        }
    }

    /// Notes `is …, expected …`.
    pub(super) fn unexpected(&self, expected: &str) {
        self.place.error(format!("is {}, expected {expected}", self.shown()));
    }

    /// What `parse` makes of the value; a fault if nothing.
    pub(super) fn parsed<T>(&self, expected: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let parsed = parse(&self.value);
        if parsed.is_none() {
            self.unexpected(expected);
        }
        parsed
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        let names: Vec<_> = words.iter().map(|(name, _)| *name).collect();
        self.parsed(&choice(&names), |text| words.iter().find(|(name, _)| *name == text).map(|(_, value)| *value))
    }
}

/// A list of texts that pass the check.
pub(super) fn strings(value: Option<Value<'_>>, of: &str, check: impl Fn(Text<'_>) -> Option<String>) -> Vec<String> {
    let expected = format!("a list of {of}");
    let items = value.and_then(|value| value.items(&expected)).unwrap_or_default();
    items.into_iter().filter_map(|item| check(item.text(&expected)?)).collect()
}

/// `` `a`, `b`, `c` ``.
pub(super) fn list(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// `'a', 'b' or 'c'`.
fn choice(names: &[&str]) -> String {
    let quoted: Vec<_> = names.iter().map(|name| format!("'{name}'")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

fn entries<'a>(document: &ConfigDocument<'_>, table: &'a DeTable<'a>) -> BTreeMap<&'a str, ConfigEntry<'a>> {
    table
        .iter()
        .map(|(key, value)| {
            (key.get_ref().as_ref(), ConfigEntry { key_line: document.line_at(key.span().start), value })
        })
        .collect()
}
