//! Binds a rule to the values of one caller and one moment.
//!
//! A condition on an unknown value is `unknown`, and then matches in the way that makes the rule match least: never, or
//! under an odd number of `not`s always. A value of the caller (`C`) is unknown if it is absent or null, an array where
//! one value is expected, or of another type than the record's value:
//!
//! | condition | `C` absent, null, of a wrong shape | the record's value of another type than `C` | the record's value absent |
//! | --- | --- | --- | --- |
//! | `eq lt lte gt gte C` | nothing | nothing | nothing |
//! | `ne C` | nothing | nothing | nothing |
//! | `in [C, …]`, `in C` | nothing, or only the others of the list | nothing | nothing |
//! | `nin [C, …]`, `nin C` | nothing | nothing | nothing |
//! | `has C` | nothing | nothing | nothing |
//! | `not` of one of these | nothing | nothing | what `not` says, as in every filter |
//! | `not` of `has` a claim | cannot be defined: the types of elements are not known | | |
//! | `C` on the left, any operator | nothing | nothing (another type than the constant) | |
//! | `not` of that | nothing | nothing | |
//!
//! The store checks the type of the record's value: `gte ""` matches only texts, `gte false` only booleans, and a
//! number is below 0 or not. An absent value of the other side of a change (`$before.…`) is unknown too.

use std::collections::BTreeSet;

use serde_json::Value;
use snaphook_driver::compare::{Found, InstanceView, holds};
use snaphook_driver::time::{self, Millis};
use snaphook_driver::{Condition, Filter, Operator, Path};

use super::combine::{all, always, any, not, nothing};
use super::rule::{Class, Comparison, Operand, Rule, Side, Source, Test};
use super::subject::Subject;

/// The record before and after a change, and the time.
pub(super) struct Sides<'a> {
    pub(super) before: Option<&'a InstanceView<'a>>,
    pub(super) after: Option<&'a InstanceView<'a>>,
    pub(super) now: Millis,
}

impl Sides<'_> {
    fn of(&self, side: Side) -> Option<&InstanceView<'_>> {
        match side {
            Side::Before => self.before,
            Side::After => self.after,
            Side::Read => None,
        }
    }
}

/// The sources of values.
struct Known<'a> {
    subject: &'a Subject,
    sides: &'a Sides<'a>,
}

impl Rule {
    /// The rule as a filter for the store.
    pub(super) fn filter(&self, subject: &Subject, now: Millis) -> Filter {
        let sides = Sides { before: None, after: None, now };
        Known { subject, sides: &sides }.filter(self, false)
    }

    /// Whether it allows a change.
    pub(super) fn allows(&self, subject: &Subject, sides: &Sides<'_>) -> bool {
        Known { subject, sides }.allows(self, false)
    }
}

impl Known<'_> {
    /// `negated`: under an odd number of `not`s.
    fn filter(&self, rule: &Rule, negated: bool) -> Filter {
        match rule {
            Rule::All(parts) => all(parts.iter().map(|part| self.filter(part, negated))),
            Rule::Any(parts) => any(parts.iter().map(|part| self.filter(part, negated))),
            Rule::Not(part) => not(self.filter(part, !negated)),
            Rule::Record(_, path, test) => self.condition(path, test, negated),
            Rule::Caller(source, test) => always(self.caller_passes(source, test).unwrap_or(negated)),
        }
    }

    fn allows(&self, rule: &Rule, negated: bool) -> bool {
        match rule {
            Rule::All(parts) => parts.iter().all(|part| self.allows(part, negated)),
            Rule::Any(parts) => parts.iter().any(|part| self.allows(part, negated)),
            Rule::Not(part) => !self.allows(part, !negated),
            Rule::Record(side, path, test) => {
                let filter = self.condition(path, test, negated);
                match self.sides.of(*side) {
                    Some(view) => filter.matches(view),
                    None => matches_nothing_there(&filter),
                }
            }
            Rule::Caller(source, test) => self.caller_passes(source, test).unwrap_or(negated),
        }
    }

    /// One condition on the record, extended so that a caller's value of another type is unknown.
    fn condition(&self, path: &Path, test: &Test, negated: bool) -> Filter {
        let is = |operator| Filter::from(Condition { path: path.clone(), operator });
        let unknown = || always(negated);
        match test {
            Test::One(comparison, operand) => {
                let Some(value) = self.value(operand) else { return unknown() };
                let classes = classes_of_caller(operand, &value);
                guarded(path, is(comparison.operator(value)), &classes, negated)
            }
            Test::Among(among, operands) => {
                let mut values = Vec::with_capacity(operands.len());
                let mut classes = BTreeSet::new();
                for operand in operands {
                    match self.value(operand) {
                        Some(value) => {
                            classes.extend(classes_of_caller(operand, &value));
                            values.push(value);
                        }
                        // An absent value leaves the others of `in`.
                        None if *among && !negated => {}
                        None => return unknown(),
                    }
                }
                guarded(path, is_among(path, *among, values), &classes, negated)
            }
            Test::AmongClaim(among, claim) => {
                let Some(Value::Array(items)) = self.subject.claim(claim) else { return unknown() };
                let classes: Option<BTreeSet<Class>> = items.iter().map(Class::of).collect();
                let Some(classes) = classes else { return unknown() };
                guarded(path, is_among(path, *among, items.clone()), &classes, negated)
            }
            Test::Like { pattern, ignoring_case: false } => is(Operator::Like(pattern.clone())),
            Test::Like { pattern, ignoring_case: true } => is(Operator::Ilike(pattern.clone())),
            Test::Has(operand) => self.value(operand).map_or_else(unknown, |value| is(Operator::Has(value))),
            Test::Exists(exists) => is(Operator::Exists(*exists)),
        }
    }

    /// The current value of an operand; `None` if unknown.
    fn value(&self, operand: &Operand) -> Option<Value> {
        let value = match operand {
            Operand::Constant(value) => return Some(value.clone()),
            Operand::Now { millis: true } => return Some(Value::from(self.sides.now)),
            Operand::Now { millis: false } => return Some(Value::from(time::format(self.sides.now))),
            Operand::Caller(source) => self.of_caller(source)?,
            Operand::Record(side, path) => self.sides.of(*side)?.find(path)?.to_value(),
        };
        Class::of(&value).map(|_| value)
    }

    fn of_caller(&self, source: &Source) -> Option<Value> {
        match source {
            Source::Id => Some(self.subject.id()),
            Source::Kind => Some(self.subject.kind()),
            Source::Claim(path) => self.subject.claim(path).cloned(),
        }
    }

    /// `None`: unknown.
    fn caller_passes(&self, source: &Source, test: &Test) -> Option<bool> {
        let value = self.of_caller(source)?;
        let has_class = |constant: &Value| Class::of(&value).is_some_and(|class| Class::of(constant) == Some(class));
        let operator = match test {
            Test::One(comparison, Operand::Constant(constant)) => {
                has_class(constant).then(|| comparison.operator(constant.clone()))?
            }
            Test::Among(among, operands) => {
                let constants = operands.iter().map(|operand| match operand {
                    Operand::Constant(constant) if has_class(constant) => Some(constant.clone()),
                    _ => None,
                });
                let constants = constants.collect::<Option<Vec<_>>>()?;
                if *among { Operator::In(constants) } else { Operator::Nin(constants) }
            }
            Test::Like { pattern, ignoring_case } => match (&value, ignoring_case) {
                (Value::String(_), false) => Operator::Like(pattern.clone()),
                (Value::String(_), true) => Operator::Ilike(pattern.clone()),
                _ => return None,
            },
            Test::Has(Operand::Constant(constant)) => match &value {
                Value::Array(items) if items.iter().all(|item| Class::of(item) == Class::of(constant)) => {
                    Operator::Has(constant.clone())
                }
                _ => return None,
            },
            _ => return None,
        };
        Some(holds(Some(Found::from(&value)), &operator))
    }
}

impl Comparison {
    fn operator(self, value: Value) -> Operator {
        match self {
            Comparison::Eq => Operator::Eq(value),
            Comparison::Ne => Operator::Ne(value),
            Comparison::Lt => Operator::Lt(value),
            Comparison::Lte => Operator::Lte(value),
            Comparison::Gt => Operator::Gt(value),
            Comparison::Gte => Operator::Gte(value),
        }
    }
}

fn is_among(path: &Path, among: bool, values: Vec<Value>) -> Filter {
    let operator = match (among, values.is_empty()) {
        (true, true) => return nothing(),
        (false, true) => Operator::Exists(true),
        (true, false) => Operator::In(values),
        (false, false) => Operator::Nin(values),
    };
    Condition { path: path.clone(), operator }.into()
}

/// The required types of the record's value, if the operand is the caller's.
fn classes_of_caller(operand: &Operand, value: &Value) -> BTreeSet<Class> {
    match operand {
        Operand::Caller(_) => Class::of(value).into_iter().collect(),
        _ => BTreeSet::new(),
    }
}

/// A condition that is unknown if the record's value has none of these types.
fn guarded(path: &Path, condition: Filter, classes: &BTreeSet<Class>, negated: bool) -> Filter {
    let is_positive = |operator: &Operator| !matches!(operator, Operator::Ne(_) | Operator::Nin(_));
    let is_one_of_type = matches!(&condition, Filter::Condition(Condition { operator, .. }) if is_positive(operator));
    if classes.is_empty() || (is_one_of_type != negated) {
        // A comparison of different types does not match anyway, while `ne` and `nin` do.
        return condition;
    }
    let has_type = classes.iter().map(|class| is_of(path, *class));
    match negated {
        false => all([condition].into_iter().chain(has_type)),
        true => {
            let exists = Filter::from(Condition { path: path.clone(), operator: Operator::Exists(true) });
            any([condition].into_iter().chain(has_type.map(|has_type| all([exists.clone(), not(has_type)]))))
        }
    }
}

/// Whether the record's value has a type.
fn is_of(path: &Path, class: Class) -> Filter {
    let is = |operator| Filter::from(Condition { path: path.clone(), operator });
    match class {
        Class::Bool => is(Operator::Gte(Value::Bool(false))),
        Class::Text => is(Operator::Gte(Value::from(""))),
        Class::Number => any([is(Operator::Lt(Value::from(0))), is(Operator::Gte(Value::from(0)))]),
    }
}

/// Whether a filter matches a missing record, in which nothing exists.
fn matches_nothing_there(filter: &Filter) -> bool {
    match filter {
        Filter::Condition(Condition { operator, .. }) => holds(None, operator),
        Filter::And(parts) => parts.iter().all(matches_nothing_there),
        Filter::Or(parts) => parts.iter().any(matches_nothing_there),
        Filter::Not(part) => !matches_nothing_there(part),
    }
}
