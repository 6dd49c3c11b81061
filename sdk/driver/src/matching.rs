//! Matches instances against filters: this code defines the meaning of [`Filter`], with and without a budget.

use crate::budget::{Budget, Exceeded};
use crate::compare::{Found, InstanceView, Pattern, holds};
use crate::filter::{Condition, Filter, Operator};
use crate::path::Path;

impl Filter {
    /// Whether an instance matches.
    pub fn matches(&self, instance: &InstanceView<'_>) -> bool {
        match self {
            Filter::Condition(Condition { path, operator }) => holds(instance.find(path), operator),
            Filter::And(parts) => parts.iter().all(|part| part.matches(instance)),
            Filter::Or(parts) => parts.iter().any(|part| part.matches(instance)),
            Filter::Not(part) => !part.matches(instance),
        }
    }

    /// The same within a budget: conditions, list items and the text read by patterns are counted.
    pub fn matches_within(&self, instance: &InstanceView<'_>, budget: &Budget) -> Result<bool, Exceeded> {
        match self {
            Filter::Condition(condition) => condition.matches_within(instance, budget),
            Filter::And(parts) => {
                for part in parts {
                    if !part.matches_within(instance, budget)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Filter::Or(parts) => {
                for part in parts {
                    if part.matches_within(instance, budget)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Filter::Not(part) => part.matches_within(instance, budget).map(|matches| !matches),
        }
    }
}

impl Condition {
    fn matches_within(&self, instance: &InstanceView<'_>, budget: &Budget) -> Result<bool, Exceeded> {
        let names = match &self.path {
            Path::Data(names) => names.len(),
            Path::Meta(_) => 0,
        };
        budget.charge(1 + names as u64)?;
        let found = instance.find(&self.path);
        match (&self.operator, found) {
            (Operator::Like(pattern), Some(Found::Text(text))) => Pattern::new(pattern).matches_within(text, budget),
            (Operator::Ilike(pattern), Some(Found::Text(text))) => {
                Pattern::ignoring_case(pattern).matches_within(text, budget)
            }
            (Operator::In(operands) | Operator::Nin(operands), Some(_)) => {
                budget.charge(operands.len() as u64)?;
                Ok(holds(found, &self.operator))
            }
            (Operator::Has(operand), Some(Found::Array(items))) => {
                budget.charge(items.len() as u64)?;
                // Comparing an item reads at most the length of the operand.
                budget.charge_text(items.len().saturating_mul(operand.as_str().map_or(0, str::len)))?;
                Ok(holds(found, &self.operator))
            }
            _ => Ok(holds(found, &self.operator)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::Meta;
    use serde_json::json;

    fn condition(path: impl Into<Path>, operator: Operator) -> Filter {
        Condition { path: path.into(), operator }.into()
    }

    fn names(dotted: &str) -> Path {
        dotted.split('.').map(str::to_owned).collect::<Vec<_>>().into()
    }

    fn not(filter: Filter) -> Filter {
        Filter::Not(Box::new(filter))
    }

    #[test]
    fn what_a_filter_says() {
        use Operator::{Eq, Exists, Gt, Has, Ilike, Lt, Lte, Ne};
        let data = json!({"n": 5, "t": "Ab", "none": null, "tags": ["a", 5, null, ["b"], true], "o": {"x": 1.50}});
        let instance =
            InstanceView { id: "i7", created_at: 1000, updated_at: -2000, revision: 3, position: 1 << 60, data: &data };
        let is = |path: &str, operator| condition(names(path), operator);
        for (filter, expected) in [
            (Filter::default(), true),
            (Filter::Or(Vec::new()), false),
            (not(Filter::default()), false),
            (is("n", Eq(json!(5.0))), true),
            (is("o.x", Eq(json!(1.5))), true),
            (is("none", Ne(json!(1))), false),
            (not(is("none", Eq(json!(1)))), true),
            (not(is("absent.below", Ne(json!(1)))), true),
            (not(is("none", Exists(false))), false),
            (is("tags", Has(json!("a"))), true),
            (is("tags", Has(json!(5))), true),
            (is("tags", Has(json!("5"))), false),
            (is("tags", Has(json!(true))), true),
            (is("tags", Has(json!(null))), false),
            (is("tags", Has(json!(["b"]))), false),
            (is("tags", Has(json!("b"))), false),
            (is("t", Has(json!("Ab"))), false),
            (is("t", Ilike("aB".into())), true),
            (is("n", Ilike("%".into())), false),
            (condition(Meta::Id, Eq(json!("i7"))), true),
            (condition(Meta::Id, Ilike("I_".into())), true),
            (condition(Meta::Id, Exists(true)), true),
            (condition(Meta::CreatedAt, Eq(json!(1000))), true),
            (condition(Meta::CreatedAt, Lt(json!(1000.5))), true),
            (condition(Meta::UpdatedAt, Lte(json!(-2000))), true),
            (condition(Meta::UpdatedAt, Eq(json!("-2000"))), false),
            (condition(Meta::Revision, Eq(json!(3.0))), true),
            (condition(Meta::Position, Gt(json!(1e300))), false),
            (condition(Meta::Position, Gt(json!((1_u64 << 60) - 1))), true),
            (Filter::Or(vec![is("n", Eq(json!(1))), is("n", Eq(json!(5)))]), true),
            (Filter::And(vec![is("n", Eq(json!(5))), is("n", Eq(json!(1)))]), false),
            (not(Filter::And(vec![is("n", Eq(json!(5))), is("absent", Eq(json!(1)))])), true),
        ] {
            assert_eq!(filter.matches(&instance), expected, "{filter:?}");
            assert_eq!(filter.matches_within(&instance, &Budget::unlimited()), Ok(expected), "{filter:?}");
        }
    }
}
