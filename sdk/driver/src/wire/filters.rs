//! Filters as messages.

use serde_json::Value;

use super::message::{Malformed, required};
use super::proto;
use crate::filter::{Condition, Filter, Operator};
use crate::path::{Meta, Path};

const METAS: [(Meta, proto::Meta); 5] = [
    (Meta::Id, proto::Meta::Id),
    (Meta::CreatedAt, proto::Meta::CreatedAt),
    (Meta::UpdatedAt, proto::Meta::UpdatedAt),
    (Meta::Revision, proto::Meta::Revision),
    (Meta::Position, proto::Meta::Position),
];

/// A filter as a list of conditions that must all match. A filter with only such conditions has the same form as in
/// older versions, and an older peer rejects all others, because they have no path or operator.
pub(super) fn to_wire(filter: &Filter) -> Vec<proto::Condition> {
    match filter {
        Filter::And(parts) => parts.iter().map(proto::Condition::from).collect(),
        other => vec![other.into()],
    }
}

/// The caller has checked the depth.
pub(super) fn from_wire(conditions: Vec<proto::Condition>) -> Result<Filter, Malformed> {
    conditions.into_iter().map(Filter::try_from).collect::<Result<_, _>>().map(Filter::And)
}

pub(super) fn path_to_wire(path: &Path) -> (Vec<String>, Option<i32>) {
    match path {
        Path::Data(names) => (names.clone(), None),
        Path::Meta(meta) => {
            let known = METAS.iter().find(|(known, _)| known == meta);
            (Vec::new(), known.map(|(_, wire)| i32::from(*wire)))
        }
    }
}

pub(super) fn path_from_wire(names: Vec<String>, meta: Option<i32>) -> Result<Path, Malformed> {
    match (names.is_empty(), meta) {
        (false, None) => Ok(Path::Data(names)),
        (true, Some(number)) => {
            let known = METAS.iter().find(|(_, wire)| i32::from(*wire) == number);
            let known = known.ok_or_else(|| Malformed::new(format!("`meta` is {number}, which is unknown")))?;
            Ok(Path::Meta(known.0))
        }
        (true, None) => Err(Malformed::missing("path")),
        (false, Some(_)) => Err(Malformed::new("both `path` and `meta` are set, expected one of them")),
    }
}

impl From<&Filter> for proto::Condition {
    fn from(filter: &Filter) -> Self {
        use proto::condition::Operator as Wire;
        let list = |parts: &[Filter]| proto::Conditions { conditions: parts.iter().map(Self::from).collect() };
        let joined = |operator| proto::Condition { path: Vec::new(), meta: None, operator: Some(operator) };
        match filter {
            Filter::Condition(condition) => condition.into(),
            Filter::And(parts) => joined(Wire::And(list(parts))),
            Filter::Or(parts) => joined(Wire::Or(list(parts))),
            Filter::Not(part) => joined(Wire::Not(Box::new(Self::from(&**part)))),
        }
    }
}

impl From<&Condition> for proto::Condition {
    fn from(condition: &Condition) -> Self {
        use proto::condition::Operator as Wire;
        let values = |values: &[Value]| proto::Values { values: values.iter().map(Value::to_string).collect() };
        let (path, meta) = path_to_wire(&condition.path);
        let operator = match &condition.operator {
            Operator::Eq(value) => Wire::Eq(value.to_string()),
            Operator::Ne(value) => Wire::Ne(value.to_string()),
            Operator::Lt(value) => Wire::Lt(value.to_string()),
            Operator::Lte(value) => Wire::Lte(value.to_string()),
            Operator::Gt(value) => Wire::Gt(value.to_string()),
            Operator::Gte(value) => Wire::Gte(value.to_string()),
            Operator::In(list) => Wire::In(values(list)),
            Operator::Nin(list) => Wire::Nin(values(list)),
            Operator::Like(pattern) => Wire::Like(pattern.clone()),
            Operator::Ilike(pattern) => Wire::Ilike(pattern.clone()),
            Operator::Has(value) => Wire::Has(value.to_string()),
            Operator::Exists(exists) => Wire::Exists(*exists),
        };
        proto::Condition { path, meta, operator: Some(operator) }
    }
}

impl TryFrom<proto::Condition> for Filter {
    type Error = Malformed;

    fn try_from(condition: proto::Condition) -> Result<Self, Malformed> {
        use proto::condition::Operator as Wire;
        let proto::Condition { path, meta, operator } = condition;
        let list = |list: proto::Conditions| {
            list.conditions.into_iter().map(Filter::try_from).collect::<Result<Vec<_>, Malformed>>()
        };
        let values = |list: proto::Values| list.values.iter().map(|text| value(text)).collect::<Result<Vec<_>, _>>();
        let operator = match required("operator", operator)? {
            joined @ (Wire::And(_) | Wire::Or(_) | Wire::Not(_)) if !path.is_empty() || meta.is_some() => {
                let name = match joined {
                    Wire::And(_) => "and",
                    Wire::Or(_) => "or",
                    _ => "not",
                };
                return Err(Malformed::new(format!("`{name}` has a path, expected none")));
            }
            Wire::And(parts) => return list(parts).map(Filter::And),
            Wire::Or(parts) => return list(parts).map(Filter::Or),
            Wire::Not(part) => return Ok(Filter::Not(Box::new(Filter::try_from(*part)?))),
            Wire::Eq(text) => Operator::Eq(value(&text)?),
            Wire::Ne(text) => Operator::Ne(value(&text)?),
            Wire::Lt(text) => Operator::Lt(value(&text)?),
            Wire::Lte(text) => Operator::Lte(value(&text)?),
            Wire::Gt(text) => Operator::Gt(value(&text)?),
            Wire::Gte(text) => Operator::Gte(value(&text)?),
            Wire::In(list) => Operator::In(values(list)?),
            Wire::Nin(list) => Operator::Nin(values(list)?),
            Wire::Like(pattern) => Operator::Like(pattern),
            Wire::Ilike(pattern) => Operator::Ilike(pattern),
            Wire::Has(text) => Operator::Has(value(&text)?),
            Wire::Exists(exists) => Operator::Exists(exists),
        };
        Ok(Condition { path: path_from_wire(path, meta)?, operator }.into())
    }
}

fn value(text: &str) -> Result<Value, Malformed> {
    crate::json::parse(text).map_err(|error| Malformed::new(format!("a value is not valid JSON: {error}")))
}
