//! Rules of a model: which of its records a caller may read, and which changes the caller may make.
//!
//! A rule is a filter whose values may come from the caller ([`Subject`]), from the time, and for changes from the
//! record before and after them. [`read`] checks rules when a model is defined, and [`bind`] inserts the values: a rule
//! for reads becomes a filter for the store, which also decides on single records, so lists and single reads cannot
//! differ.
//!
//! **Invariant:** an unknown value of a caller never widens access: a condition whose value is absent, null or of
//! another type than the compared value has the result that makes the whole rule match less. [`bind`] has the table.

use std::collections::BTreeMap;

use serde_json::Value;
use snaphook_driver::compare::InstanceView;
use snaphook_driver::time::Millis;
use snaphook_driver::{Filter, Instance, Json};

use super::definition_error::DefinitionError;
use super::schema::Schema;

mod bind;
mod caller;
mod combine;
mod operation;
mod read;
mod rename;
mod rule;
mod subject;
mod values;

pub use combine::{both, nothing};
pub use operation::Operation;
pub use rename::renamed;
pub use subject::{Right, Subject};

use bind::Sides;
use rule::Rule;

/// The rules in a client's new version of a model.
#[derive(Clone, Debug, Default)]
pub enum RulesInput {
    /// Absent: the model's rules stay.
    #[default]
    Keep,
    /// Null: the model has none.
    Remove,
    Set(Json),
}

/// The rules of one version of a model. An operation without a rule is denied to everybody.
#[derive(Clone, Debug)]
pub struct Rules(BTreeMap<Operation, Rule>);

impl Rules {
    /// Checks rules against the schema: `{"read", "create", "update", "delete"}`.
    pub fn new(schema: &Schema, rules: &Json) -> Result<Rules, DefinitionError> {
        read::rules(schema, rules).map(Rules)
    }

    /// What a subject may read, as a filter for the store.
    pub fn readable(&self, subject: &Subject, now: Millis) -> Filter {
        self.0.get(&Operation::Read).map_or_else(nothing, |rule| rule.filter(subject, now))
    }

    /// Whether the rule for reads depends on the time.
    pub fn reads_by_time(&self) -> bool {
        self.0.get(&Operation::Read).is_some_and(Rule::has_now)
    }

    /// Whether a subject may read one record; `tree` is its data.
    pub fn may_read(&self, subject: &Subject, now: Millis, instance: &Instance, tree: &Value) -> bool {
        self.readable(subject, now).matches(&InstanceView::new(instance, tree))
    }

    /// Whether the operation is denied to everybody.
    pub fn is_for_nobody(&self, operation: Operation) -> bool {
        !self.0.contains_key(&operation)
    }

    /// Whether a subject may make this change.
    pub fn may_change(
        &self,
        operation: Operation,
        subject: &Subject,
        now: Millis,
        before: Option<&InstanceView<'_>>,
        after: Option<&InstanceView<'_>>,
    ) -> bool {
        self.0.get(&operation).is_some_and(|rule| rule.allows(subject, &Sides { before, after, now }))
    }
}

#[cfg(test)]
mod tests;
