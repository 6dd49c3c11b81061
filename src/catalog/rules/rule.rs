//! A checked rule.

use serde_json::Value;
use snaphook_driver::Path;

/// A rule, or a part of one.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Rule {
    All(Vec<Rule>),
    Any(Vec<Rule>),
    Not(Box<Rule>),
    /// A comparison of a value of the record.
    Record(Side, Path, Test),
    /// A comparison of a value of the caller with constants in the rule, all of one [`Class`].
    Caller(Source, Test),
}

/// Which record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// The record that is read.
    Read,
    Before,
    After,
}

/// How a value is compared.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Test {
    One(Comparison, Operand),
    /// Among these, or not (`false`).
    Among(bool, Vec<Operand>),
    /// The same of a claim that is a list.
    AmongClaim(bool, String),
    Like {
        pattern: String,
        ignoring_case: bool,
    },
    Has(Operand),
    Exists(bool),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Eq,
    Ne,
    Lt,
    Lte,
    Gt,
    Gte,
}

/// The operand of a comparison.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Operand {
    Constant(Value),
    Caller(Source),
    /// As text, or for the times of an instance in milliseconds.
    Now {
        millis: bool,
    },
    Record(Side, Path),
}

/// A value of a caller.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Source {
    Id,
    Kind,
    Claim(String),
}

/// Values that can be compared with one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    Bool,
    Number,
    Text,
}

impl Class {
    /// `None`: null, an array or an object, which cannot be compared.
    pub(super) fn of(value: &Value) -> Option<Class> {
        match value {
            Value::Bool(_) => Some(Class::Bool),
            Value::Number(_) => Some(Class::Number),
            Value::String(_) => Some(Class::Text),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
    }
}

impl Rule {
    pub(super) fn has_now(&self) -> bool {
        let is_now = |operand: &Operand| matches!(operand, Operand::Now { .. });
        match self {
            Rule::All(parts) | Rule::Any(parts) => parts.iter().any(Rule::has_now),
            Rule::Not(part) => part.has_now(),
            Rule::Record(_, _, test) | Rule::Caller(_, test) => match test {
                Test::One(_, operand) | Test::Has(operand) => is_now(operand),
                Test::Among(_, operands) => operands.iter().any(is_now),
                Test::AmongClaim(..) | Test::Like { .. } | Test::Exists(_) => false,
            },
        }
    }
}
