//! The general part of the document: the operations of the table, and their shared components.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use snaphook_driver::json as strict;

use super::operation::{Operation, Tag};
use super::render::{self, Security};
use crate::config::{AuthConfig, AuthMode};
use crate::server::needs::Needs;

/// Schemas, parameters and headers used by operations.
const COMPONENTS: &str = include_str!("components.json");

/// One row of the table of routes.
#[derive(Clone, Copy)]
pub(in crate::server) struct Described {
    pub(in crate::server) template: &'static str,
    pub(in crate::server) method: &'static str,
    pub(in crate::server) needs: Needs,
    pub(in crate::server) describe: fn() -> Operation,
}

/// The parts of the document, as text, without the braces around them.
pub(super) struct General {
    /// Up to the tags of models.
    pub(super) head: String,
    pub(super) paths: String,
    pub(super) schemas: String,
    /// The components behind the schemas.
    pub(super) rest: String,
    /// Of all of it.
    pub(super) digest: [u8; 32],
}

impl Security {
    pub(super) fn of(auth: &AuthConfig) -> Security {
        let tokens = auth.mode == AuthMode::Tokens;
        Security { tokens, oidc: tokens && auth.oidc.is_some() }
    }
}

impl General {
    pub(super) fn of(table: &[Described], auth: &AuthConfig, mount_path: &str) -> General {
        let security = Security::of(auth);
        let mut problems = BTreeMap::new();
        let mut paths: Map<String, Value> = Map::new();
        for row in table {
            let operation = render::operation(&(row.describe)(), row.needs, security, None, &mut problems);
            let path = paths.entry(row.template).or_insert_with(|| json!({}));
            path[row.method.to_ascii_lowercase()] = operation;
        }
        let mut components = components();
        let schemas = components.remove("schemas").unwrap_or_default();
        components.insert("responses".to_owned(), json!(problems));
        if security.tokens {
            components.insert("securitySchemes".to_owned(), schemes(auth));
        }
        let head = json!({
            "openapi": "3.1.0",
            "info": {
                "title": "Snaphook",
                "version": env!("CARGO_PKG_VERSION"),
                "description": "Models as a REST API over an event log. Errors are problem documents (RFC 9457); their \
                    `type` says what kind of problem it is.",
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
            "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
            "servers": [{"url": if mount_path.is_empty() { "/" } else { mount_path }}],
        });
        let parts = [head, Value::Object(paths), schemas, Value::Object(components)];
        let [head, paths, schemas, rest] = parts.map(|part| inner(&part));
        let digest = Sha256::digest([&*head, &paths, &schemas, &rest].join("\0")).into();
        General { head, paths, schemas, rest, digest }
    }
}

/// The general tags.
pub(super) fn tags() -> Vec<Value> {
    Tag::ALL.iter().map(|(_, name, about)| json!({ "name": name, "description": about })).collect()
}

/// Our own file, which a test parses.
fn components() -> Map<String, Value> {
    match strict::parse(COMPONENTS) {
        Ok(Value::Object(components)) => components,
        _ => Map::new(),
    }
}

fn schemes(auth: &AuthConfig) -> Value {
    let mut schemes = json!({"token": {"type": "http", "scheme": "bearer", "description": "A token of this server."}});
    if let Some(oidc) = &auth.oidc {
        let url = format!("{}/.well-known/openid-configuration", oidc.issuer.trim_end_matches('/'));
        schemes["oidc"] = json!({"type": "openIdConnect", "openIdConnectUrl": url});
    }
    schemes
}

/// The text of an object without its braces.
pub(super) fn inner(object: &Value) -> String {
    let mut text = object.to_string();
    text.pop();
    text.split_off(1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::server::routes;

    fn whole(mode: AuthMode) -> Value {
        let auth = AuthConfig { mode, oidc: None, admin_token: std::path::PathBuf::new() };
        let General { head, paths, schemas, rest, .. } =
            General::of(&routes::described(&routes::table()), &auth, "/api");
        strict::parse(&format!(r#"{{{head},"paths":{{{paths}}},"components":{{"schemas":{{{schemas}}},{rest}}}}}"#))
            .expect("JSON")
    }

    fn each_reference<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(members) => {
                found.extend(members.get("$ref").and_then(Value::as_str));
                members.values().for_each(|value| each_reference(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| each_reference(value, found)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_component_is_used() {
        let document = whole(AuthMode::Tokens);
        let mut references = Vec::new();
        each_reference(&document, &mut references);
        for reference in &references {
            let pointer = reference.strip_prefix('#').expect("inside of the document");
            assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
        }
        let used: BTreeSet<&str> = references.into_iter().collect();
        for section in ["schemas", "parameters", "headers", "responses"] {
            for name in document["components"][section].as_object().expect("a section").keys() {
                assert!(used.contains(&*format!("#/components/{section}/{name}")), "{section}/{name} is not used");
            }
        }
    }

    #[test]
    fn every_operation_is_described_whole() {
        let document = whole(AuthMode::Tokens);
        let mut ids = BTreeSet::new();
        for row in routes::described(&routes::table()) {
            let Operation { id, summary, parameters, responses, .. } = (row.describe)();
            let what = format!("{} {}", row.method, row.template);
            assert!(ids.insert(id), "{what}: `{id}` names two operations");
            assert!(!summary.is_empty() && !summary.ends_with('.'), "{what}");
            assert!(responses.iter().any(|response| response.status < 300), "{what} has no success");
            let known = |name: &&str| document["components"]["parameters"][*name].clone();
            let parameters: Vec<Value> = parameters.iter().map(known).collect();
            let names: BTreeSet<(&str, &str)> = parameters
                .iter()
                .map(|parameter| (parameter["in"].as_str().expect("in"), parameter["name"].as_str().expect("name")))
                .collect();
            assert_eq!(names.len(), parameters.len(), "{what}: a parameter is there twice");
            let in_path: BTreeSet<&str> =
                names.iter().filter(|(place, _)| *place == "path").map(|(_, name)| *name).collect();
            let in_template: BTreeSet<&str> = row.template.split(['{', '}']).skip(1).step_by(2).collect();
            assert_eq!(in_path, in_template, "{what}");
            assert!(document["paths"][row.template][row.method.to_ascii_lowercase()].is_object(), "{what}");
        }
    }

    #[test]
    fn who_may_call_is_said_as_the_server_asks() {
        let open = whole(AuthMode::Open);
        assert!(open["components"].get("securitySchemes").is_none() && !open.to_string().contains("Needs the role"));
        let tokens = whole(AuthMode::Tokens);
        assert_eq!(tokens["components"]["securitySchemes"]["token"]["scheme"], "bearer");
        assert_eq!(tokens["paths"]["/models"]["get"]["security"], json!([{"token": []}]));
        assert_eq!(tokens["paths"]["/healthz"]["get"]["security"], json!([]));
        assert_eq!(tokens["paths"]["/openapi.json"]["get"]["security"], json!([{}, {"token": []}]));
        assert_eq!(tokens["servers"], json!([{"url": "/api"}]));
    }
}
