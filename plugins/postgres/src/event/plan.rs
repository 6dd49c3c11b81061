//! An event filter as part of a statement: which index serves it, and which conditions remain.

use snaphook_driver::EventFilter;
use tokio_postgres::types::Type;

use crate::session::Parameter;
use crate::text::{escape, instance_id};

/// See the module's documentation.
pub(super) struct Plan {
    /// The position as an expression that selects the index; a column of `e`.
    pub(super) place: &'static str,
    /// The conditions that the index serves, if any. Begins with ` AND`, as does `rest`.
    pub(super) conditions: String,
    /// The conditions that are checked for each event.
    pub(super) rest: String,
    model: Option<String>,
    instance: Option<String>,
    kinds: Vec<i16>,
    /// Whether many events may have to be scanned to find one.
    pub(super) is_sparse: bool,
}

impl Plan {
    /// `None` if nothing can match. The numbers of the parameters follow `first`.
    pub(super) fn new(filter: &EventFilter, first: usize) -> Option<Plan> {
        let no_instances = !filter.kinds.is_empty() && !filter.kinds.iter().any(|kind| kind.is_instance());
        let definitions_only = filter.definitions_only || no_instances;
        if definitions_only && filter.instance.is_some() {
            return None;
        }
        let mut plan = Plan {
            place: "e.position",
            conditions: String::new(),
            rest: String::new(),
            model: filter.model.as_deref().map(|model| escape(model).into_owned()),
            instance: filter.instance.as_deref().map(|id| instance_id(id).into_owned()),
            kinds: filter.kinds.iter().map(|kind| *kind as i16).collect(),
            is_sparse: !filter.kinds.is_empty(),
        };
        let mut number = first;
        let mut next = || {
            number += 1;
            number
        };
        if plan.model.is_some() {
            plan.place = "(e.position + 0)";
            plan.conditions.push_str(&format!(" AND e.model = ${}", next()));
        }
        match (&plan.model, &plan.instance, definitions_only) {
            (Some(_), Some(_), _) => {
                plan.place = "(e.position * 1)";
                plan.conditions.push_str(&format!(" AND e.instance = ${}", next()));
            }
            (None, Some(_), _) => {
                plan.rest.push_str(&format!(" AND e.instance = ${}", next()));
                plan.is_sparse = true;
            }
            (Some(_), None, true) => {
                plan.place = "(e.position * 1)";
                plan.conditions.push_str(" AND e.instance = ''");
            }
            (None, None, true) => {
                plan.place = "(e.position - 0)";
                plan.conditions.push_str(" AND e.instance = ''");
            }
            (_, None, false) => {}
        }
        if !plan.kinds.is_empty() {
            plan.rest.push_str(&format!(" AND e.kind = ANY(${})", next()));
        }
        Some(plan)
    }

    /// Whether the index is the one over the position alone.
    pub(super) fn is_plain(&self) -> bool {
        self.place == "e.position"
    }

    /// The types of the parameters; those of `rest` only if requested.
    pub(super) fn types(&self, with_rest: bool) -> Vec<Type> {
        self.values(with_rest).into_iter().map(|(kind, _)| kind).collect()
    }

    pub(super) fn parameters(&self, with_rest: bool) -> Vec<Parameter<'_>> {
        self.values(with_rest).into_iter().map(|(_, value)| value).collect()
    }

    fn values(&self, with_rest: bool) -> Vec<(Type, Parameter<'_>)> {
        let mut values: Vec<(Type, Parameter<'_>)> = Vec::new();
        values.extend(self.model.as_ref().map(|model| (Type::TEXT, model as Parameter<'_>)));
        let is_served = self.model.is_some();
        values.extend(
            self.instance.as_ref().filter(|_| is_served || with_rest).map(|id| (Type::TEXT, id as Parameter<'_>)),
        );
        if with_rest && !self.kinds.is_empty() {
            values.push((Type::INT2_ARRAY, &self.kinds));
        }
        values
    }
}
