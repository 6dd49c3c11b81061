//! Filters of instances: conditions, joined by "and", "or" and "not".
//!
//! A filter matches an instance or does not; there is no third value. A condition on an absent or null value does not
//! match, unless it is `Exists(false)`, and `Not` is the exact opposite: `Not(Eq(1))` matches an instance without the
//! value, `Ne(1)` does not. [`Filter::matches`] defines this in code.

use serde::Serialize;
use serde_json::Value;

use crate::path::Path;

/// Maximum nesting of `And`, `Or` and `Not`, and maximum number of conditions, which every store must accept. The
/// limits for clients and hooks are lower, so that the server can add its own conditions.
pub const FILTER_DEPTH_MAX: usize = 16;
pub const FILTER_CONDITIONS_MAX: usize = 256;

/// How a value is compared. Strings compare by code point, numbers as numbers, `false` before `true`. Values of
/// different types are never equal; arrays and objects differ from everything. An absent or null value matches only
/// `Exists(false)`. [`crate::compare`] defines this in code.
///
/// Numbers compare exactly, however many digits they have; drivers whose database cannot do that store
/// [`crate::compare::number_key`].
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Operator {
    Eq(Value),
    /// True for an existing value that differs.
    Ne(Value),
    Lt(Value),
    Lte(Value),
    Gt(Value),
    Gte(Value),
    In(Vec<Value>),
    /// True for an existing value that equals none of these.
    Nin(Vec<Value>),
    /// `%` matches any text, `_` one character, `\` escapes the next character; case-sensitive; strings only.
    Like(String),
    /// The same of text and pattern after [`crate::compare::fold_case`], so that case does not matter.
    Ilike(String),
    /// True for an array with an element that equals this scalar.
    Has(Value),
    Exists(bool),
}

/// One comparison of a filter.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Condition {
    pub path: Path,
    pub operator: Operator,
}

/// See the head of this file.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Filter {
    Condition(Condition),
    /// All of these match; without any, every instance does.
    And(Vec<Filter>),
    /// At least one of these matches; without any, no instance does.
    Or(Vec<Filter>),
    Not(Box<Filter>),
}

/// How large a filter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilterSize {
    /// The nesting of `And`, `Or` and `Not`; a single condition has depth 0.
    pub depth: usize,
    pub conditions: usize,
    /// Operands of all conditions together.
    pub values: usize,
}

impl Default for Filter {
    /// Every instance.
    fn default() -> Filter {
        Filter::And(Vec::new())
    }
}

impl From<Condition> for Filter {
    fn from(condition: Condition) -> Filter {
        Filter::Condition(condition)
    }
}

impl From<Vec<Condition>> for Filter {
    /// All of them.
    fn from(conditions: Vec<Condition>) -> Filter {
        Filter::And(conditions.into_iter().map(Filter::Condition).collect())
    }
}

impl Filter {
    /// The parts that must all match, none of them an `And`: an index may serve these.
    pub fn conjuncts(&self) -> Vec<&Filter> {
        let mut found = Vec::new();
        self.add_conjuncts(&mut found);
        found
    }

    fn add_conjuncts<'a>(&'a self, found: &mut Vec<&'a Filter>) {
        match self {
            Filter::And(parts) => parts.iter().for_each(|part| part.add_conjuncts(found)),
            Filter::Or(parts) if parts.len() == 1 => parts[0].add_conjuncts(found),
            Filter::Not(part) => match &**part {
                Filter::Not(part) => part.add_conjuncts(found),
                _ => found.push(self),
            },
            Filter::Or(_) | Filter::Condition(_) => found.push(self),
        }
    }

    /// How large it is.
    pub fn size(&self) -> FilterSize {
        let of = |parts: &[Filter]| {
            parts.iter().map(Filter::size).fold(FilterSize { depth: 0, conditions: 0, values: 0 }, FilterSize::join)
        };
        let inner = match self {
            Filter::Condition(condition) => {
                return FilterSize { depth: 0, conditions: 1, values: condition.operator.values() };
            }
            Filter::And(parts) | Filter::Or(parts) => of(parts),
            Filter::Not(part) => part.size(),
        };
        FilterSize { depth: inner.depth + 1, ..inner }
    }

    /// Whether any condition passes the test.
    pub fn any(&self, is_such: &impl Fn(&Condition) -> bool) -> bool {
        match self {
            Filter::Condition(condition) => is_such(condition),
            Filter::And(parts) | Filter::Or(parts) => parts.iter().any(|part| part.any(is_such)),
            Filter::Not(part) => part.any(is_such),
        }
    }
}

impl FilterSize {
    fn join(self, other: FilterSize) -> FilterSize {
        FilterSize {
            depth: self.depth.max(other.depth),
            conditions: self.conditions + other.conditions,
            values: self.values + other.values,
        }
    }
}

impl Operator {
    /// How many operands it has.
    fn values(&self) -> usize {
        match self {
            Operator::In(values) | Operator::Nin(values) => values.len(),
            _ => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn is(name: &str) -> Filter {
        Condition { path: vec![name.to_owned()].into(), operator: Operator::Eq(json!(1)) }.into()
    }

    #[test]
    fn what_must_match_in_any_case() {
        let (a, b, c) = (is("a"), is("b"), is("c"));
        let either = Filter::Or(vec![a.clone(), b.clone()]);
        let not = Filter::Not(Box::new(c.clone()));
        let filter = Filter::And(vec![
            a.clone(),
            Filter::And(vec![either.clone(), Filter::And(vec![])]),
            Filter::Or(vec![Filter::And(vec![b.clone(), c.clone()])]),
            Filter::Not(Box::new(Filter::Not(Box::new(b.clone())))),
            not.clone(),
        ]);
        assert_eq!(filter.conjuncts(), [&a, &either, &b, &c, &b, &not]);
        assert_eq!(a.conjuncts(), [&a]);
        assert_eq!(Filter::default().conjuncts(), Vec::<&Filter>::new());
        let none = Filter::Or(Vec::new());
        assert_eq!(none.conjuncts(), [&none]);
    }

    #[test]
    fn sizes() {
        let list = Condition { path: vec!["a".to_owned()].into(), operator: Operator::In(vec![json!(1); 5]) };
        let filter = Filter::And(vec![is("a"), Filter::Not(Box::new(Filter::Or(vec![is("b"), list.into()])))]);
        assert_eq!(filter.size(), FilterSize { depth: 3, conditions: 3, values: 7 });
        assert_eq!(is("a").size(), FilterSize { depth: 0, conditions: 1, values: 1 });
    }
}
