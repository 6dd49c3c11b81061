//! `[[server.endpoints]]`: components that handle requests under their own paths.

use std::path::{Path, PathBuf};

use super::document::{Section, Text};

/// One `[[server.endpoints]]` table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointConfig {
    /// The name in grants, metrics and the log.
    pub name: String,
    /// The path below the mount path; starts with `/` and does not end with `/`.
    pub path: String,
    /// The file; an absolute path.
    pub component: PathBuf,
    pub role: EndpointRole,
    /// The line of the table, for messages.
    pub line: usize,
}

/// The minimum role for calling an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointRole {
    /// No token is required.
    Anyone,
    Reader,
    Writer,
    Admin,
}

const ROLES: [(&str, EndpointRole); 4] = [
    ("anyone", EndpointRole::Anyone),
    ("reader", EndpointRole::Reader),
    ("writer", EndpointRole::Writer),
    ("admin", EndpointRole::Admin),
];

impl EndpointConfig {
    /// Whether the endpoint serves a path below the mount path: its own path or one under it.
    pub fn covers(&self, path: &str) -> bool {
        path.strip_prefix(&*self.path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// A copy for comparison that ignores the line in the file.
    pub fn unplaced(&self) -> EndpointConfig {
        EndpointConfig { line: 0, ..self.clone() }
    }
}

pub(super) fn endpoints(server: &mut Section<'_>, directory: &Path) -> Vec<EndpointConfig> {
    let Some(value) = server.value("endpoints") else { return Vec::new() };
    let Some(items) = value.items("a list of tables, each under `[[server.endpoints]]`") else { return Vec::new() };
    let mut endpoints: Vec<EndpointConfig> = Vec::new();
    for item in items {
        let Some(mut section) = item.section() else { continue };
        let Some(endpoint) = endpoint(&mut section, directory) else {
            section.finish();
            continue;
        };
        for other in &endpoints {
            if other.name == endpoint.name {
                section.error(&format!("is called `{}` like the one at line {}", other.name, other.line));
            } else if other.covers(&endpoint.path) || endpoint.covers(&other.path) {
                section.error(&format!(
                    "has the path `{}`, and the one at line {} has `{}`: neither may be under the other",
                    endpoint.path, other.line, other.path
                ));
            }
        }
        section.finish();
        endpoints.push(endpoint);
    }
    endpoints
}

fn endpoint(section: &mut Section<'_>, directory: &Path) -> Option<EndpointConfig> {
    let name = section.string("name");
    let path = section.string("path");
    let component = section.string("component");
    for (key, expected) in [
        ("name", "a name such as 'quote'"),
        ("path", "a path such as '/quote'"),
        ("component", "the file of a WebAssembly component, such as 'quote.wasm'"),
    ] {
        if !section.was_there(key) {
            section.missing(key, expected);
        }
    }
    let role = section.string("role").and_then(|text| text.word(&ROLES)).unwrap_or(EndpointRole::Reader);
    let name = name.and_then(|text| part_name(&text));
    let path = path.and_then(|text| text.parsed("a path such as '/quote', of letters, digits and `-._~`", own_path));
    let component = component.and_then(|text| {
        text.parsed("the file of a component", |text| (!text.is_empty()).then(|| directory.join(text)))
    });
    Some(EndpointConfig { name: name?, path: path?, component: component?, role, line: section.line.unwrap_or(0) })
}

/// Checks the name of a part of the server that can have grants.
pub(super) fn part_name(text: &Text<'_>) -> Option<String> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    text.parsed("1 to 63 of `a` to `z`, `0` to `9`, `-` and `_`", |text| {
        ((1..=63).contains(&text.len()) && text.bytes().all(plain)).then(|| text.to_owned())
    })
}

/// A path that is not the root.
fn own_path(text: &str) -> Option<String> {
    plain_path(text).filter(|path| path != "/")
}

/// `/`, or a path in normal form that does not end with `/`.
pub(super) fn plain_path(text: &str) -> Option<String> {
    let path = text.strip_prefix('/')?;
    let path = path.strip_suffix('/').filter(|path| !path.is_empty()).unwrap_or(path);
    let plain = |part: &str| {
        !matches!(part, "" | "." | "..")
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
    };
    (path.is_empty() || path.split('/').all(plain)).then(|| format!("/{path}"))
}
