//! The part of one model in the document: its paths and its schemas.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use snaphook_driver::ColumnKind;

use super::general::{Described, inner};
use super::render::{self, OfModel, Security, component};
use crate::catalog::{Effort, Model, Unfit};

/// Maximum size of a schema in the document; a larger one is replaced with a note.
const SCHEMA_BYTES_MAX: usize = 256 * 1024;
/// Maximum number of properties shown as filters.
const FILTERED_MAX: usize = 24;
/// Maximum bytes of the name of a property shown as a filter.
const NAME_BYTES_MAX: usize = 100;

/// The parts of one model in a document, as text, without enclosing braces.
pub(super) struct ModelPart {
    pub(super) tag: String,
    pub(super) paths: String,
    pub(super) schemas: String,
}

impl ModelPart {
    pub(super) fn bytes(&self) -> usize {
        self.tag.len() + self.paths.len() + self.schemas.len()
    }

    /// The error: nobody waits for it.
    pub(super) fn of(
        model: &Model,
        table: &[Described],
        security: Security,
        effort: &Effort,
    ) -> Result<ModelPart, Unfit> {
        let id = &*model.record.id;
        let filters = filters(model);
        // A tool that searches for references everywhere would follow one in an example.
        let sample = is_shown(model).then(|| model.schema.sample(&Effort::small())).flatten();
        let sample = sample.filter(|sample| !sample.to_string().contains("\"$ref\""));
        let of_model = OfModel { id, filters: &filters, sample: sample.as_ref() };
        let mut paths: Map<String, Value> = Map::new();
        for row in table {
            let operation = (row.describe)();
            if !operation.of_each_model {
                continue;
            }
            // The general part already has these responses.
            let mut problems = BTreeMap::new();
            let operation = render::operation(&operation, row.needs, security, Some(&of_model), &mut problems);
            let path = paths.entry(row.template.replace("{model}", id)).or_insert_with(|| json!({}));
            path[row.method.to_ascii_lowercase()] = operation;
        }
        let tag = json!({ "name": render::tag_of(id), "description": about(model) });
        let schemas = schemas(model, effort)?;
        Ok(ModelPart {
            tag: tag.to_string(),
            paths: inner(&Value::Object(paths)),
            schemas: inner(&Value::Object(schemas)),
        })
    }
}

fn about(model: &Model) -> String {
    format!("Instances of the model `{}`, version {}.", model.record.id, model.record.version)
}

/// The data, its referenced schemas, and derived schemas.
fn schemas(model: &Model, effort: &Effort) -> Result<Map<String, Value>, Unfit> {
    let id = &*model.record.id;
    let data = component("schemas", &format!("{id}.data"));
    let mut schemas = data_schemas(model, effort)?;
    let mut add = |end: &str, schema: Value| drop(schemas.insert(format!("{id}{end}"), schema));
    add(
        "",
        json!({
            "type": "object",
            "required": ["id", "model", "model_version", "revision", "position", "created_at", "updated_at", "data"],
            "properties": instance(id, &data),
        }),
    );
    add(
        ".page",
        json!({
            "type": "object",
            "required": ["items", "next"],
            "properties": {
                "items": {"type": "array", "items": {
                    "type": "object",
                    "required": ["id", "model", "model_version", "revision", "position", "created_at", "updated_at", "data"],
                    "properties": instance(id, &component("schemas", &format!("{id}.fields"))),
                }},
                "next": {"type": ["string", "null"], "description": "The `cursor` of the next page."},
                "count": {"type": "integer", "minimum": 0, "description": "With `count=true`: how many match."},
            },
        }),
    );
    add(".fields", fields(model));
    add(
        ".new",
        json!({
            "type": "object",
            "required": ["data"],
            "properties": {"id": component("schemas", "InstanceId"), "data": data},
            "additionalProperties": false,
        }),
    );
    add(
        ".replacement",
        json!({"type": "object", "required": ["data"], "properties": {"data": data}, "additionalProperties": false}),
    );
    Ok(schemas)
}

fn instance(id: &str, data: &Value) -> Value {
    json!({
        "id": component("schemas", "InstanceId"),
        "model": {"const": id},
        "model_version": {"type": "integer", "minimum": 1},
        "revision": {"type": "integer", "minimum": 1},
        "position": component("schemas", "Position"),
        "created_at": component("schemas", "Time"),
        "updated_at": component("schemas", "Time"),
        "data": data,
        "expand": component("schemas", "Expanded"),
    })
}

fn is_shown(model: &Model) -> bool {
    model.record.schema.len() <= SCHEMA_BYTES_MAX
}

/// The model's own schema, in parts.
fn data_schemas(model: &Model, effort: &Effort) -> Result<Map<String, Value>, Unfit> {
    let name = format!("{}.data", model.record.id);
    let left_out = || {
        let description = format!("Too large for this document: `GET /models/{}` has the schema.", model.record.id);
        Map::from_iter([(name.clone(), json!({ "type": "object", "description": description }))])
    };
    if !is_shown(model) {
        return Ok(left_out());
    }
    let portable = match model.schema.portable(&format!("#/components/schemas/{name}"), effort) {
        Ok(portable) => portable,
        Err(Unfit::Late) => return Err(Unfit::Late),
        Err(_) => return Ok(left_out()),
    };
    let parts = portable.parts.into_iter().map(|(part, schema)| (format!("{name}.{part}"), schema));
    Ok(std::iter::once((name.clone(), portable.root)).chain(parts).collect())
}

/// The data after a selection by `fields`: no property is required.
fn fields(model: &Model) -> Value {
    let kinds = model.schema.columns().into_iter().filter(|column| column.kind != ColumnKind::Any).map(|column| {
        // Nullability is in the schema of the data.
        (column.name, json!({ "type": [type_of(column.kind), "null"] }))
    });
    let kinds: Map<String, Value> = kinds.take(FILTERED_MAX).collect();
    json!({
        "type": "object",
        "properties": kinds,
        "additionalProperties": true,
        "description": "All of the data, or what `fields` chose of it.",
    })
}

fn type_of(kind: ColumnKind) -> &'static str {
    match kind {
        ColumnKind::Text | ColumnKind::Any => "string",
        // A filter on integers accepts any number, such as 1.5, which equals none of them.
        ColumnKind::Integer | ColumnKind::Number => "number",
        ColumnKind::Boolean => "boolean",
    }
}

/// The parameters `filter[property][operator]` for properties with one plain value.
fn filters(model: &Model) -> Vec<Value> {
    let columns = model.schema.columns();
    let plain = |name: &str| {
        !name.is_empty()
            && name.len() <= NAME_BYTES_MAX
            && !name.contains(['[', ']', '$'])
            && !name.contains(char::is_control)
    };
    let mut filters = Vec::new();
    for column in columns.iter().filter(|column| plain(&column.name)).take(FILTERED_MAX) {
        let operators: &[&str] = match column.kind {
            ColumnKind::Text => &["eq", "ne", "in", "gte", "lte", "like", "ilike", "exists"],
            ColumnKind::Integer | ColumnKind::Number => &["eq", "ne", "in", "lt", "lte", "gt", "gte", "exists"],
            ColumnKind::Boolean | ColumnKind::Any => &["eq", "exists"],
        };
        filters.extend(operators.iter().map(|operator| {
            let kind = match *operator {
                "exists" => "boolean",
                "in" | "like" | "ilike" => "string",
                _ => type_of(column.kind),
            };
            filter(&column.name, operator, &json!({ "type": kind }))
        }));
    }
    for name in ["$created_at", "$updated_at"] {
        for operator in ["gte", "lt"] {
            filters.push(filter(name, operator, &component("schemas", "Time")));
        }
    }
    filters
}

fn filter(path: &str, operator: &str, schema: &Value) -> Value {
    json!({ "name": format!("filter[{path}][{operator}]"), "in": "query", "schema": schema })
}
