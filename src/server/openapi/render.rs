//! Renders one operation in OpenAPI: the general one, or that of a model.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::operation::{Content, Operation, OperationBody, Sample, Success};
use crate::server::needs::Needs;
use crate::server::problem::ProblemType;

/// Whether tokens are needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Security {
    /// `false`: anybody may do everything.
    pub(super) tokens: bool,
    pub(super) oidc: bool,
}

/// The differences of an operation for one model.
pub(super) struct OfModel<'a> {
    pub(super) id: &'a str,
    /// The filters of its list.
    pub(super) filters: &'a [Value],
    pub(super) sample: Option<&'a Value>,
}

/// A reference to a component.
pub(super) fn component(section: &str, name: &str) -> Value {
    json!({ "$ref": format!("#/components/{section}/{name}") })
}

/// The operation. The responses that it refers to are put into `problems`.
pub(super) fn operation(
    operation: &Operation,
    needs: Needs,
    security: Security,
    model: Option<&OfModel<'_>>,
    problems: &mut BTreeMap<String, Value>,
) -> Value {
    let mut rendered = Map::new();
    let mut set = |name: &str, value: Value| drop(rendered.insert(name.to_owned(), value));
    set("operationId", model.map_or(json!(operation.id), |model| json!(id_of(operation.id, model.id))));
    set("tags", json!([model.map_or(operation.tag.name().to_owned(), |model| tag_of(model.id))]));
    set("summary", json!(operation.summary));
    let role = needs.role().filter(|_| security.tokens).map(|role| format!("Needs the role `{role}`."));
    let details = [operation.details, role.as_deref().unwrap_or_default()];
    let details: Vec<&str> = details.into_iter().filter(|text| !text.is_empty()).collect();
    if !details.is_empty() {
        set("description", json!(details.join("\n\n")));
    }
    let parameters = parameters(operation, model);
    if !parameters.is_empty() {
        set("parameters", Value::Array(parameters));
    }
    if let Some(body) = &operation.body {
        set("requestBody", request_body(body, model));
    }
    set("responses", responses(operation, needs, security, model, problems));
    if security.tokens {
        set("security", required(needs, security));
    }
    Value::Object(rendered)
}

/// The name of an operation of a model.
pub(super) fn id_of(operation: &str, model: &str) -> String {
    format!("{operation}_{model}")
}

/// The tag of a model's operations; general tags have no space in their names.
pub(super) fn tag_of(model: &str) -> String {
    format!("model {model}")
}

/// Schemas of each model, with the suffixes of their names.
pub(super) const OF_MODEL: [(&str, &str); 4] =
    [("Instance", ""), ("InstancePage", ".page"), ("NewInstance", ".new"), ("Replacement", ".replacement")];

fn schema(name: &str, model: Option<&OfModel<'_>>) -> Value {
    let own = OF_MODEL.iter().find(|(general, _)| *general == name);
    match (model, own) {
        (Some(model), Some((_, end))) => component("schemas", &format!("{}{end}", model.id)),
        _ => component("schemas", name),
    }
}

fn parameters(operation: &Operation, model: Option<&OfModel<'_>>) -> Vec<Value> {
    let names = operation.parameters.iter().filter(|name| model.is_none() || **name != "model");
    let mut parameters: Vec<Value> = names.map(|name| component("parameters", name)).collect();
    if let Some(model) = model
        && operation.parameters.contains(&"sort")
    {
        parameters.extend_from_slice(model.filters);
    }
    parameters
}

fn content(content: &Content, model: Option<&OfModel<'_>>) -> Value {
    match content {
        Content::Opaque => json!({}),
        Content::Schemas([one]) => json!({ "schema": schema(one, model) }),
        Content::Schemas(some) => {
            json!({ "schema": {"anyOf": some.iter().map(|name| schema(name, model)).collect::<Vec<_>>()} })
        }
    }
}

fn request_body(body: &OperationBody, model: Option<&OfModel<'_>>) -> Value {
    let sample = model.and_then(|model| model.sample).zip(body.sample);
    let types = body.content.iter().map(|(media_type, inner)| {
        let mut inner = content(inner, model);
        match sample {
            Some((sample, Sample::Member)) => inner["example"] = json!({ "data": sample }),
            Some((sample, Sample::Whole)) => inner["example"] = sample.clone(),
            None => {}
        }
        ((*media_type).to_owned(), inner)
    });
    let content: Map<String, Value> = types.collect();
    // A body of bytes may be empty: an empty secret, an empty import.
    let required = body.content.iter().any(|(_, content)| matches!(content, Content::Schemas(_)));
    json!({ "required": required, "content": content })
}

fn responses(
    operation: &Operation,
    needs: Needs,
    security: Security,
    model: Option<&OfModel<'_>>,
    problems: &mut BTreeMap<String, Value>,
) -> Value {
    let mut responses = BTreeMap::new();
    for success in &operation.responses {
        responses.insert(success.status.to_string(), response(success, operation, model));
    }
    let mut by_status: BTreeMap<u16, Vec<ProblemType>> = BTreeMap::new();
    for kind in general(needs, security).into_iter().chain(operation.problems.iter().copied()) {
        let (.., status) = kind.describe();
        let kinds = by_status.entry(status.as_u16()).or_default();
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    for (status, mut kinds) in by_status {
        kinds.sort_by_key(|kind| kind.describe().0);
        let names: Vec<&str> = kinds.iter().map(|kind| kind.describe().0).collect();
        let name = format!("{status}.{}", names.join("."));
        problems.entry(name.clone()).or_insert_with(|| problem(&kinds));
        // `/readyz` has its own document.
        responses.entry(status.to_string()).or_insert_with(|| component("responses", &name));
    }
    json!(responses)
}

/// Possible problems of every operation.
fn general(needs: Needs, security: Security) -> Vec<ProblemType> {
    let mut kinds = vec![ProblemType::BadRequest, ProblemType::Forbidden, ProblemType::Overloaded];
    if needs != Needs::Anyone {
        kinds.extend([ProblemType::RateLimited, ProblemType::Unavailable, ProblemType::Storage]);
        kinds.extend(security.tokens.then_some(ProblemType::Unauthorized));
    }
    kinds
}

fn response(success: &Success, operation: &Operation, model: Option<&OfModel<'_>>) -> Value {
    let mut headers: Vec<&str> = success.headers.clone();
    headers.push("X-Request-Id");
    if operation.parameters.contains(&"minPosition") {
        headers.push("Snaphook-Position");
    }
    let headers: Map<String, Value> =
        headers.into_iter().map(|name| (name.to_owned(), component("headers", name))).collect();
    let mut rendered = json!({ "description": success.description, "headers": headers });
    if !success.content.is_empty() {
        let types = success.content.iter().map(|(media_type, inner)| ((*media_type).to_owned(), content(inner, model)));
        rendered["content"] = Value::Object(types.collect());
    }
    if let Some(model) = model
        && success.status == 201
    {
        let links = [("get", "getInstance"), ("replace", "replaceInstance"), ("delete", "deleteInstance")];
        let links = links.map(|(name, operation)| {
            let link = json!({ "operationId": id_of(operation, model.id), "parameters": {"id": "$response.body#/id"} });
            (name.to_owned(), link)
        });
        rendered["links"] = Value::Object(links.into_iter().collect());
    }
    rendered
}

/// The response for problems of one status.
fn problem(kinds: &[ProblemType]) -> Value {
    let titles: Vec<&str> = kinds.iter().map(|kind| kind.describe().1).collect();
    let types: Vec<String> = kinds.iter().map(|kind| format!("/problems/{}", kind.describe().0)).collect();
    let mut headers = vec!["X-Request-Id"];
    let has = |kind: ProblemType| kinds.contains(&kind);
    if has(ProblemType::RateLimited) || has(ProblemType::Overloaded) || has(ProblemType::Unavailable) {
        headers.push("Retry-After");
    }
    if has(ProblemType::Unauthorized) {
        headers.push("WWW-Authenticate");
    }
    let headers: Map<String, Value> =
        headers.into_iter().map(|name| (name.to_owned(), component("headers", name))).collect();
    json!({
        "description": format!("{}.", titles.join("; ")),
        "headers": headers,
        "content": {"application/problem+json": {"schema": {
            "allOf": [component("schemas", "Problem")],
            "properties": {"type": {"enum": types}},
        }}},
    })
}

/// The required security scheme.
fn required(needs: Needs, security: Security) -> Value {
    let mut ways = vec![json!({"token": []})];
    if security.oidc {
        ways.push(json!({"oidc": []}));
    }
    match needs {
        Needs::Anyone => json!([]),
        Needs::Guest => json!([vec![json!({})], ways].concat()),
        _ => json!(ways),
    }
}
