//! Models, instances and their queries, as messages.

use std::time::Duration;

use serde_json::Value;

use super::events::{each, to_ms};
use super::filters;
use super::message::{Malformed, json, required};
use super::proto;
use crate::budget::{Budget, Limits};
use crate::carry_over::CarryOver;
use crate::model_store::{Column, ColumnKind, Instance, InstancePage, InstanceQuery, ModelShape, SortKey};

const COLUMN_KINDS: [(ColumnKind, proto::ColumnKind); 5] = [
    (ColumnKind::Text, proto::ColumnKind::Text),
    (ColumnKind::Integer, proto::ColumnKind::Integer),
    (ColumnKind::Number, proto::ColumnKind::Number),
    (ColumnKind::Boolean, proto::ColumnKind::Boolean),
    (ColumnKind::Any, proto::ColumnKind::Any),
];

impl From<&ModelShape> for proto::ModelShape {
    fn from(shape: &ModelShape) -> Self {
        let column = |column: &Column| {
            let kind = COLUMN_KINDS.iter().find(|(kind, _)| *kind == column.kind);
            let kind = kind.map_or(proto::ColumnKind::Any, |(_, kind)| *kind);
            proto::Column { name: column.name.clone(), kind: kind.into() }
        };
        proto::ModelShape {
            model: shape.model.clone(),
            version: shape.version,
            columns: shape.columns.iter().map(column).collect(),
            indexes: shape.indexes.iter().map(|keys| proto::SortKeys { keys: sort_keys(keys) }).collect(),
            unique: shape.unique.iter().map(|names| proto::Names { names: names.clone() }).collect(),
            record_json: shape.record.as_str().to_owned(),
        }
    }
}

impl TryFrom<proto::ModelShape> for ModelShape {
    type Error = Malformed;

    fn try_from(shape: proto::ModelShape) -> Result<Self, Malformed> {
        let column = |column: proto::Column| {
            let kind = proto::ColumnKind::try_from(column.kind).ok();
            let kind = COLUMN_KINDS.iter().find(|(_, known)| Some(*known) == kind);
            let kind = kind.ok_or_else(|| Malformed::new(format!("column `{}` has an unknown kind", column.name)))?.0;
            Ok(Column { kind, name: column.name })
        };
        Ok(ModelShape {
            model: shape.model,
            version: shape.version,
            columns: shape.columns.into_iter().map(column).collect::<Result<_, Malformed>>()?,
            indexes: shape.indexes.into_iter().map(|keys| each(keys.keys)).collect::<Result<_, Malformed>>()?,
            unique: shape.unique.into_iter().map(|names| names.names).collect(),
            record: json("record_json", shape.record_json)?,
        })
    }
}

fn sort_keys(keys: &[SortKey]) -> Vec<proto::SortKey> {
    let key = |key: &SortKey| {
        let (path, meta) = filters::path_to_wire(&key.path);
        proto::SortKey { path, descending: key.descending, meta }
    };
    keys.iter().map(key).collect()
}

impl TryFrom<proto::SortKey> for SortKey {
    type Error = Malformed;

    fn try_from(key: proto::SortKey) -> Result<Self, Malformed> {
        Ok(SortKey { path: filters::path_from_wire(key.path, key.meta)?, descending: key.descending })
    }
}

impl From<&CarryOver> for proto::CarryOver {
    fn from(carry: &CarryOver) -> Self {
        let rename = |(from, to): &(String, String)| proto::Rename { from: from.clone(), to: to.clone() };
        let default =
            |(name, value): &(String, Value)| proto::Default { name: name.clone(), value_json: value.to_string() };
        proto::CarryOver {
            renames: carry.renames.iter().map(rename).collect(),
            defaults: carry.defaults.iter().map(default).collect(),
        }
    }
}

impl TryFrom<proto::CarryOver> for CarryOver {
    type Error = Malformed;

    fn try_from(carry: proto::CarryOver) -> Result<Self, Malformed> {
        let default = |default: proto::Default| Ok((default.name, value(&default.value_json)?));
        Ok(CarryOver {
            renames: carry.renames.into_iter().map(|rename| (rename.from, rename.to)).collect(),
            defaults: carry.defaults.into_iter().map(default).collect::<Result<_, Malformed>>()?,
        })
    }
}

fn value(text: &str) -> Result<Value, Malformed> {
    crate::json::parse(text).map_err(|error| Malformed::new(format!("a value is not valid JSON: {error}")))
}

impl From<&Instance> for proto::Instance {
    fn from(instance: &Instance) -> Self {
        proto::Instance {
            id: instance.id.clone(),
            model: instance.model.clone(),
            model_version: instance.model_version,
            revision: instance.revision,
            position: instance.position,
            created_at: instance.created_at,
            updated_at: instance.updated_at,
            data_json: instance.data.as_str().to_owned(),
        }
    }
}

impl TryFrom<proto::Instance> for Instance {
    type Error = Malformed;

    fn try_from(instance: proto::Instance) -> Result<Self, Malformed> {
        Ok(Instance {
            id: instance.id,
            model: instance.model,
            model_version: instance.model_version,
            revision: instance.revision,
            position: instance.position,
            created_at: instance.created_at,
            updated_at: instance.updated_at,
            data: json("data_json", instance.data_json)?,
        })
    }
}

pub(super) fn query_request(model: &str, query: &InstanceQuery, budget: &Budget) -> proto::ModelQueryRequest {
    proto::ModelQueryRequest {
        model: model.to_owned(),
        filter: filters::to_wire(&query.filter),
        sort: sort_keys(&query.sort),
        limit: query.limit,
        cursor: query.cursor.clone(),
        budget: Some(budget.into()),
    }
}

/// The query of a request, with its model and budget.
pub(super) fn query(request: proto::ModelQueryRequest) -> Result<(String, InstanceQuery, Budget), Malformed> {
    let query = InstanceQuery {
        filter: filters::from_wire(request.filter)?,
        sort: each(request.sort)?,
        limit: request.limit,
        cursor: request.cursor,
    };
    Ok((request.model, query, required("budget", request.budget)?.into()))
}

impl TryFrom<proto::ModelQueryResponse> for InstancePage {
    type Error = Malformed;

    fn try_from(page: proto::ModelQueryResponse) -> Result<Self, Malformed> {
        Ok(InstancePage { items: each(page.items)?, next: page.next })
    }
}

impl From<&Budget> for proto::Budget {
    /// The remaining steps and waiting time; time and memory are the limits of one read.
    fn from(budget: &Budget) -> Self {
        let Limits { steps, time, memory, .. } = budget.limits();
        proto::Budget {
            steps: steps.saturating_sub(budget.steps()),
            time_ms: to_ms(time),
            memory,
            wait_ms: to_ms(budget.wait_left()),
        }
    }
}

impl From<proto::Budget> for Budget {
    fn from(budget: proto::Budget) -> Self {
        Budget::new(Limits {
            steps: budget.steps,
            time: Duration::from_millis(budget.time_ms),
            memory: budget.memory,
            wait: Duration::from_millis(budget.wait_ms),
        })
    }
}
