//! Parses rules and checks them against the schema of their model.
//!
//! `{path: {op: value}}`, whose members must all match; `and` and `or` with an array of such filters, `not` with one. A
//! property of such a name, or one called `path`, is `{"path": name, op: value}`. Rules for changes begin each path
//! with `before.` or `after.`. A text that begins with `$` refers to the caller, the time, or, in rules for changes,
//! the record; `$$…` is a text that begins with `$`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use snaphook_driver::{Json, Meta, Path};
use snaphook_schema::{Limits, within};

use super::caller::test_of_caller;
use super::operation::Operation;
use super::rule::{Operand, Rule, Side, Source, Test};
use super::values::{
    Kind, OPERATORS, Result, SCALARS, allows, comparison, constant, error, fault, list, no_scalar, pattern, shown,
    source,
};
use crate::catalog::definition_error::{DefinitionError, escape};
use crate::catalog::document::type_name;
use crate::catalog::path_target::{PathTarget, place};
use crate::catalog::schema::{Found, Schema};

/// Bytes of the rules of a model.
const BYTES_MAX: usize = 32 * 1024;
/// Maximum nesting of `and`, `or` and `not`. A rule is combined with a client's filter, and stores limit the depth of
/// both ([`snaphook_driver::FILTER_DEPTH_MAX`]).
const DEPTH_MAX: usize = 5;
/// Maximum weight of one rule's conditions: together with the 64 conditions of a client's filter, and some of the
/// server's own, at most [`snaphook_driver::FILTER_CONDITIONS_MAX`].
const WEIGHT_MAX: usize = 160;
/// The weight of a condition, of one with a value of the caller, and of one with a list of them: the maximum number of
/// conditions that it expands to.
const WEIGHT: usize = 1;
const WEIGHT_OF_VALUE: usize = 4;
const WEIGHT_OF_LIST: usize = 8;
/// Steps that looking up all paths in the schema may take.
const LOOKUP_STEPS_MAX: u64 = 500_000;

/// Checks the rules of a model.
pub(super) fn rules(schema: &Schema, rules: &Json) -> Result<BTreeMap<Operation, Rule>> {
    if rules.len() > BYTES_MAX {
        return error("/rules", format!("the rules have {} bytes, at most {BYTES_MAX} are allowed", rules.len()));
    }
    let tree = match rules.to_value() {
        Ok(Value::Object(tree)) => tree,
        Ok(other) => {
            return error("/rules", format!("`rules` is {}, expected an object of rules", type_name(&other)));
        }
        Err(fault) => return error("/rules", format!("`rules` cannot be read: {fault}")),
    };
    let all = || {
        let mut found = BTreeMap::new();
        for (name, rule) in &tree {
            let pointer = format!("/rules/{}", escape(name));
            let Some(operation) = Operation::ALL.into_iter().find(|operation| operation.as_str() == name) else {
                let known = Operation::ALL.map(Operation::as_str).join(", ");
                return error(&pointer, format!("`{}` is not a rule, expected one of {known}", shown(name)));
            };
            let mut reader = Reader { schema, operation, weight: 0 };
            found.insert(operation, reader.filter(rule, &pointer, DEPTH_MAX, false)?);
            if reader.weight > WEIGHT_MAX {
                return error(
                    &pointer,
                    format!(
                        "the rule weighs {}, at most {WEIGHT_MAX} are allowed: {WEIGHT} for a condition, {WEIGHT_OF_VALUE} for \
                         one with a value of the caller, {WEIGHT_OF_LIST} for one with a list of them",
                        reader.weight
                    ),
                );
            }
        }
        Ok(found)
    };
    within(&Limits { steps: LOOKUP_STEPS_MAX, ..Limits::inline() }, all).unwrap_or_else(|excess| {
        Err(DefinitionError {
            pointer: "/rules".to_owned(),
            message: format!("the paths of the rules cannot be looked up in the schema: {excess}"),
            too_complex: true,
        })
    })
}

struct Reader<'a> {
    schema: &'a Schema,
    operation: Operation,
    weight: usize,
}

impl Reader<'_> {
    fn filter(&mut self, value: &Value, pointer: &str, depth: usize, negated: bool) -> Result<Rule> {
        let Value::Object(members) = value else {
            return error(pointer, format!("the filter is {}, expected an object of paths", type_name(value)));
        };
        if let Some(Value::String(path)) = members.get("path") {
            let operators = members.iter().filter(|(name, _)| *name != "path");
            return self.conditions(path, operators, pointer, negated);
        }
        let mut parts = Vec::with_capacity(members.len());
        for (name, value) in members {
            let pointer = format!("{pointer}/{}", escape(name));
            let deeper = || {
                depth.checked_sub(1).ok_or(()).or_else(|()| {
                    error(&pointer, format!("rules are nested at most {DEPTH_MAX} levels deep, this one is deeper"))
                })
            };
            parts.push(match (name.as_str(), value) {
                ("and" | "or", Value::Array(items)) => {
                    let depth = deeper()?;
                    let items = items.iter().enumerate();
                    let filters = items.map(|(at, item)| self.filter(item, &format!("{pointer}/{at}"), depth, negated));
                    let filters = filters.collect::<Result<Vec<_>>>()?;
                    if name == "and" { Rule::All(filters) } else { Rule::Any(filters) }
                }
                ("and" | "or", _) => {
                    return error(
                        &pointer,
                        format!(
                            "`{name}` is {}, expected an array of filters; a property of that name is \
                             {{\"path\": \"{name}\", \"eq\": …}}",
                            type_name(value)
                        ),
                    );
                }
                ("not", value) => Rule::Not(Box::new(self.filter(value, &pointer, deeper()?, !negated)?)),
                (_, Value::Object(operators)) => self.conditions(name, operators.iter(), &pointer, negated)?,
                _ => {
                    return error(
                        &pointer,
                        format!("it is {}, expected an object of operators such as {{\"eq\": 1}}", type_name(value)),
                    );
                }
            });
        }
        Ok(one_or_all(parts))
    }

    /// The operators of one path, which must all match.
    fn conditions<'v>(
        &mut self,
        path: &str,
        operators: impl Iterator<Item = (&'v String, &'v Value)>,
        pointer: &str,
        negated: bool,
    ) -> Result<Rule> {
        if let Some(name) = path.strip_prefix("$actor.") {
            let source = source(name, pointer)?;
            let tests = operators.map(|(operator, value)| {
                self.weight += WEIGHT;
                let pointer = format!("{pointer}/{}", escape(operator));
                Ok(Rule::Caller(source.clone(), test_of_caller(operator, value, &pointer)?))
            });
            let tests = tests.collect::<Result<Vec<_>>>()?;
            return if tests.is_empty() { no_operator(pointer) } else { Ok(one_or_all(tests)) };
        }
        let (side, path, kind) = self.place(path, pointer)?;
        let mut parts = Vec::new();
        for (operator, value) in operators {
            let pointer = format!("{pointer}/{}", escape(operator));
            let test = self.test(&kind, operator, value, &pointer, negated)?;
            parts.push(Rule::Record(side, path.clone(), test));
        }
        if parts.is_empty() {
            return no_operator(pointer);
        }
        Ok(one_or_all(parts))
    }

    /// The target of a path.
    fn place(&self, written: &str, pointer: &str) -> Result<(Side, Path, Kind)> {
        let (side, rest) = match self.operation {
            Operation::Read => (Side::Read, written),
            operation => match written.split_once('.') {
                Some(("before", rest)) if operation != Operation::Create => (Side::Before, rest),
                Some(("after", rest)) if operation != Operation::Delete => (Side::After, rest),
                _ => {
                    let sides = match operation {
                        Operation::Create => "`after.`, since nothing exists before a creation",
                        Operation::Delete => "`before.`, since nothing exists after a deletion",
                        _ => "`before.` or `after.`",
                    };
                    return error(
                        pointer,
                        format!(
                            "`{}` is not a valid path in a rule for `{}`: it must begin with {sides}",
                            shown(written),
                            operation.as_str()
                        ),
                    );
                }
            },
        };
        match place("rule", rest).map_err(|message| fault(pointer, message))? {
            PathTarget::Meta(meta) if side == Side::After && meta != Meta::Id => error(
                pointer,
                format!("`{meta}` of the record after the change is not known when the rule decides; only `$id` is"),
            ),
            PathTarget::Meta(meta) => {
                let kind = match meta {
                    Meta::Id => Kind::Types(BTreeSet::from(["string"])),
                    Meta::CreatedAt | Meta::UpdatedAt => Kind::Time,
                    Meta::Revision | Meta::Position => Kind::Types(BTreeSet::from(["integer"])),
                };
                Ok((side, Path::Meta(meta), kind))
            }
            PathTarget::Dotted(dotted) => match self.schema.find(dotted).map_err(|message| fault(pointer, message))? {
                Some(Found { path, types }) => Ok((side, Path::Data(path), Kind::Types(types))),
                None => error(pointer, format!("the schema has no property `{}`", shown(dotted))),
            },
        }
    }

    fn test(&mut self, kind: &Kind, operator: &str, value: &Value, pointer: &str, negated: bool) -> Result<Test> {
        if let Some(comparison) = comparison(operator) {
            let operand = self.operand(kind, value, pointer)?;
            self.weight += weight(std::slice::from_ref(&operand));
            return Ok(Test::One(comparison, operand));
        }
        match operator {
            "in" | "nin" => {
                let among = operator == "in";
                if let Value::String(text) = value
                    && let Some(name) = text.strip_prefix("$actor.")
                {
                    self.weight += WEIGHT_OF_LIST;
                    return match source(name, pointer)? {
                        Source::Claim(claim) => Ok(Test::AmongClaim(among, claim)),
                        _ => error(pointer, format!("`{}` is a single string, expected a list", shown(text))),
                    };
                }
                let operands = list(value, pointer)?
                    .map(|(item, pointer)| self.operand(kind, item, &pointer))
                    .collect::<Result<Vec<_>>>()?;
                self.weight += match weight(&operands) {
                    WEIGHT => WEIGHT,
                    _ => WEIGHT_OF_LIST,
                };
                Ok(Test::Among(among, operands))
            }
            "like" | "ilike" => {
                allows(kind, "string", pointer)?;
                self.weight += WEIGHT;
                pattern(operator, value, pointer)
            }
            "has" => {
                allows(kind, "array", pointer)?;
                let operand = self.operand(&Kind::Types(BTreeSet::new()), value, pointer)?;
                if negated && matches!(operand, Operand::Caller(Source::Claim(_))) {
                    return error(
                        pointer,
                        "`has` with a claim cannot be used under `not`: the claim may have another type than the \
                         elements, and then `not` would allow everything",
                    );
                }
                self.weight += WEIGHT;
                Ok(Test::Has(operand))
            }
            "exists" => match value {
                Value::Bool(exists) => {
                    self.weight += WEIGHT;
                    Ok(Test::Exists(*exists))
                }
                other => error(pointer, format!("it is {}, expected true or false", type_name(other))),
            },
            other => error(pointer, format!("`{}` is not an operator, expected one of {OPERATORS}", shown(other))),
        }
    }

    /// One value to compare with.
    fn operand(&self, kind: &Kind, value: &Value, pointer: &str) -> Result<Operand> {
        if let Value::String(text) = value
            && let Some(name) = text.strip_prefix('$')
        {
            if name.starts_with('$') {
                return constant(kind, &Value::from(name), pointer);
            }
            return self.named(kind, text, name, pointer);
        }
        constant(kind, value, pointer)
    }

    fn named(&self, kind: &Kind, text: &str, name: &str, pointer: &str) -> Result<Operand> {
        if name == "now" {
            if !matches!(kind, Kind::Time) {
                allows(kind, "string", pointer)?;
            }
            return Ok(Operand::Now { millis: matches!(kind, Kind::Time) });
        }
        if let Some(name) = name.strip_prefix("actor.") {
            let source = source(name, pointer)?;
            match (&source, kind) {
                (_, Kind::Time) => return error(pointer, format!("a time cannot be compared with `{}`", shown(text))),
                (Source::Claim(_), Kind::Types(types))
                    if types.is_empty() || SCALARS.iter().any(|name| types.contains(name)) => {}
                (Source::Claim(_), Kind::Types(_)) => return no_scalar(kind, pointer),
                _ => allows(kind, "string", pointer)?,
            }
            return Ok(Operand::Caller(source));
        }
        if self.operation != Operation::Read && (name.starts_with("before.") || name.starts_with("after.")) {
            let (side, path, of) = self.place(name, pointer)?;
            return match (kind, of) {
                (Kind::Time, Kind::Types(_)) | (Kind::Types(_), Kind::Time) => {
                    error(pointer, format!("`{}` is a time on one side but not on the other", shown(text)))
                }
                _ => Ok(Operand::Record(side, path)),
            };
        }
        let places = if self.operation == Operation::Read { "" } else { ", `$before.…`, `$after.…`" };
        error(
            pointer,
            format!(
                "`{}` is not a valid value in a rule, expected `$actor.id`, `$actor.kind`, `$actor.claims.…`, \
                 `$now`{places}; write a string that begins with `$` as `${}`",
                shown(text),
                shown(text)
            ),
        )
    }
}

fn no_operator<T>(pointer: &str) -> Result<T> {
    error(pointer, format!("the operator is missing, expected one of {OPERATORS}"))
}

fn one_or_all(mut parts: Vec<Rule>) -> Rule {
    if parts.len() == 1 { parts.swap_remove(0) } else { Rule::All(parts) }
}

fn weight(operands: &[Operand]) -> usize {
    if operands.iter().any(|operand| matches!(operand, Operand::Caller(_))) { WEIGHT_OF_VALUE } else { WEIGHT }
}
