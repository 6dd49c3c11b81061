//! Computes the steps that make a server match the files, without carrying them out.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::files::{BindingFile, CodeFile, ModelFiles};
use super::model::{HookOrigin, SourceLanguage};
use crate::config::Phase;

/// A model on the server.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelState {
    pub id: String,
    pub schema: Value,
    pub indexes: Value,
    pub unique: Value,
    /// Null: none.
    pub rules: Value,
    pub hooks: BTreeMap<Phase, Vec<HookState>>,
}

/// A hook on the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookState {
    pub name: String,
    pub engine: String,
    /// SHA-256 in hex, with or without `sha256:`.
    pub artifact: String,
    pub shadow: bool,
    pub as_actor: bool,
    /// File name of a native library.
    pub library: Option<String>,
    pub language: Option<SourceLanguage>,
    pub origin: HookOrigin,
}

/// The steps that make a server match the files.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub steps: Vec<Step>,
    pub kept: Vec<KeptHooks>,
}

/// Hooks that no file names, but that stay because they did not come from files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptHooks {
    pub model: String,
    pub phase: Phase,
    pub names: Vec<String>,
}

impl fmt::Display for KeptHooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let KeptHooks { model, phase, names } = self;
        write!(
            f,
            "hook `{model}.{phase}`: {} was bound over REST and no file names it, so it stays; `snaphook hook remove \
             {model}.{phase}` removes it",
            names.join(", ")
        )
    }
}

/// One step. Steps are in an order in which they can be carried out.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// `document` is the body of `POST /models` without the id.
    CreateModel {
        id: String,
        document: Value,
    },
    /// `document` is the body of `PUT /models/{model}`; `changed` names the members that differ.
    ChangeModel {
        id: String,
        document: Value,
        changed: Vec<&'static str>,
    },
    /// `new`: there was no hook in the phase.
    PutHooks {
        model: String,
        phase: Phase,
        chain: Vec<BindingFile>,
        new: bool,
    },
    RemoveHooks {
        model: String,
        phase: Phase,
        names: Vec<String>,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::CreateModel { id, .. } => write!(f, "create model `{id}`"),
            Step::ChangeModel { id, changed, .. } => write!(f, "change model `{id}`: {}", changed.join(", ")),
            Step::PutHooks { model, phase, chain, new } => {
                let files: Vec<_> = chain
                    .iter()
                    .map(|binding| {
                        let file = binding.path.file_name().unwrap_or_default().to_string_lossy();
                        let shadow = if binding.shadow { ", shadow" } else { "" };
                        match &binding.name {
                            Some(name) => format!("{name} ({}, {file}{shadow})", binding.engine),
                            None => format!("{} ({file}{shadow})", binding.engine),
                        }
                    })
                    .collect();
                let verb = if *new { "create" } else { "change" };
                write!(f, "{verb} hook `{model}.{phase}`: {}", files.join(", "))
            }
            Step::RemoveHooks { model, phase, names } => {
                write!(f, "remove hook `{model}.{phase}`: {}, no file names it", names.join(", "))
            }
        }
    }
}

/// The differences between the files and the server. Models without files are not changed. If a model has files but
/// none for a phase, the phase loses the hooks that came from files.
///
/// A model comes after those that it refers to. All models come before all hooks, so that a hook finds the models that it reads and writes.
pub fn plan(files: &[ModelFiles], server: &[ModelState]) -> Plan {
    let mut steps: Vec<_> =
        by_references(files).into_iter().filter_map(|model| model_step(model, find(server, &model.id))).collect();
    let mut kept = Vec::new();
    for model in files {
        let none = BTreeMap::new();
        let bound = find(server, &model.id).map_or(&none, |state| &state.hooks);
        for phase in Phase::ALL {
            match hook_step(model, phase, bound) {
                Some(Step::RemoveHooks { model, phase, names }) if !came_from_files(&bound[&phase]) => {
                    kept.push(KeptHooks { model, phase, names });
                }
                step => steps.extend(step),
            }
        }
    }
    Plan { steps, kept }
}

/// Whether the hooks of a phase are removed with their files. A chain is bound as a whole.
fn came_from_files(chain: &[HookState]) -> bool {
    chain.iter().all(|hook| hook.origin == HookOrigin::Files)
}

/// Sorts models so that each comes after those that it refers to. Models in a reference cycle keep their order.
fn by_references(files: &[ModelFiles]) -> Vec<&ModelFiles> {
    let mut rest: Vec<(&ModelFiles, Vec<&str>)> = files.iter().map(|model| (model, targets(model))).collect();
    let mut ordered = Vec::with_capacity(files.len());
    while !rest.is_empty() {
        let waits =
            |targets: &[&str], id: &str| rest.iter().any(|(other, _)| other.id != id && targets.contains(&&*other.id));
        let next = rest.iter().position(|(model, targets)| !waits(targets, &model.id)).unwrap_or(0);
        ordered.push(rest.remove(next).0);
    }
    ordered
}

/// The models that one refers to.
fn targets(model: &ModelFiles) -> Vec<&str> {
    let properties =
        model.document.get("schema").and_then(|schema| schema.get("properties")).and_then(Value::as_object);
    let values = properties.into_iter().flat_map(|properties| properties.values());
    values.filter_map(|property| property.get("x-references")?.get("model")?.as_str()).collect()
}

fn find<'a>(server: &'a [ModelState], id: &str) -> Option<&'a ModelState> {
    server.iter().find(|state| state.id == id)
}

fn model_step(model: &ModelFiles, state: Option<&ModelState>) -> Option<Step> {
    let id = model.id.clone();
    let mut document = match &model.document {
        Value::Object(members) => members.clone(),
        _ => Map::new(),
    };
    let renames = document.shift_remove("renames");
    let Some(state) = state else { return Some(Step::CreateModel { id, document: Value::Object(document) }) };
    let empty = Value::Array(Vec::new());
    let wanted = |name| document.get(name).unwrap_or(&empty);
    let differs = |name, found: &Value| wanted(name) != found;
    let mut changed = Vec::new();
    changed.extend(differs("schema", &state.schema).then_some("schema"));
    changed.extend(differs("indexes", &state.indexes).then_some("indexes"));
    changed.extend(differs("unique", &state.unique).then_some("unique"));
    if document.get("rules").unwrap_or(&Value::Null) != &state.rules {
        // Without `rules` they would stay as they are, and the file is the whole definition.
        document.entry("rules").or_insert(Value::Null);
        changed.push("rules");
    }
    if changed.is_empty() {
        return None;
    }
    if let Some(Value::Object(renames)) = renames {
        let open: Map<_, _> = renames.into_iter().filter(|(old, new)| is_open(old, new, &document, state)).collect();
        if !open.is_empty() {
            document.insert("renames".to_owned(), Value::Object(open));
            changed.push("renames");
        }
    }
    Some(Step::ChangeModel { id, document: Value::Object(document), changed })
}

/// Whether a rename in the file is still pending. It stays in the file afterwards, for servers that are behind.
fn is_open(old: &str, new: &Value, document: &Map<String, Value>, state: &ModelState) -> bool {
    let has = |schema: Option<&Value>, name: &str| {
        schema.and_then(|schema| schema.get("properties")).and_then(|properties| properties.get(name)).is_some()
    };
    let wanted = document.get("schema");
    let done = has(Some(&state.schema), new.as_str().unwrap_or_default()) && !has(Some(&state.schema), old);
    !done && (has(Some(&state.schema), old) || !has(wanted, old))
}

fn hook_step(model: &ModelFiles, phase: Phase, bound: &BTreeMap<Phase, Vec<HookState>>) -> Option<Step> {
    let bound = bound.get(&phase).map_or(&[][..], Vec::as_slice);
    let wanted = model.phases.iter().find(|(of, _)| *of == phase).map(|(_, chain)| chain);
    match wanted {
        None if bound.is_empty() => None,
        None => Some(Step::RemoveHooks {
            model: model.id.clone(),
            phase,
            names: bound.iter().map(|hook| hook.name.clone()).collect(),
        }),
        Some(chain)
            if chain.len() == bound.len() && chain.iter().zip(bound).all(|(file, hook)| is_bound(file, hook)) =>
        {
            None
        }
        Some(chain) => {
            Some(Step::PutHooks { model: model.id.clone(), phase, chain: chain.clone(), new: bound.is_empty() })
        }
    }
}

fn is_bound(file: &BindingFile, hook: &HookState) -> bool {
    let artifact = hook.artifact.trim_start_matches("sha256:");
    let same_code = match &file.code {
        CodeFile::Inline { bytes, language } => {
            format!("{:x}", Sha256::digest(bytes)) == artifact && *language == hook.language
        }
        // Fewer digits are enough where they are unique, which the server finds out.
        CodeFile::Artifact(wanted) => {
            wanted.strip_prefix("sha256:").map_or(wanted == artifact, |digits| artifact.starts_with(digits))
        }
        // The library is on the server, which follows the file.
        CodeFile::Library(wanted) => hook.library.as_ref() == Some(wanted),
        CodeFile::Webhook(webhook) => format!("{:x}", Sha256::digest(webhook.code())) == artifact,
    };
    same_code
        && file.engine == hook.engine
        && file.shadow == hook.shadow
        && file.as_actor == hook.as_actor
        && file.name.as_ref().is_none_or(|name| *name == hook.name)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use serde_json::json;

    use super::*;

    fn files(document: Value, phases: &[(Phase, &str)]) -> ModelFiles {
        let binding = |code: &str| BindingFile {
            name: None,
            engine: "quickjs".to_owned(),
            code: CodeFile::Inline { bytes: code.as_bytes().to_vec(), language: Some(SourceLanguage::JavaScript) },
            shadow: false,
            as_actor: false,
            path: PathBuf::from("hooks/a/preCreate.js"),
        };
        ModelFiles {
            id: "a".to_owned(),
            document,
            phases: phases.iter().map(|(phase, code)| (*phase, vec![binding(code)])).collect(),
        }
    }

    fn state(schema: Value, hooks: &[(Phase, &str)]) -> ModelState {
        let hook = |code: &str| HookState {
            name: "hook".to_owned(),
            engine: "quickjs".to_owned(),
            artifact: format!("sha256:{:x}", Sha256::digest(code)),
            shadow: false,
            as_actor: false,
            library: None,
            language: Some(SourceLanguage::JavaScript),
            origin: HookOrigin::Files,
        };
        ModelState {
            rules: Value::Null,
            id: "a".to_owned(),
            schema,
            indexes: json!([]),
            unique: json!([]),
            hooks: hooks.iter().map(|(phase, code)| (*phase, vec![hook(code)])).collect(),
        }
    }

    #[track_caller]
    fn check(files: ModelFiles, server: &[ModelState], expected: &[&str]) {
        let steps: Vec<_> = plan(&[files], server).steps.iter().map(Step::to_string).collect();
        assert_eq!(steps, expected);
    }

    #[test]
    fn steps() {
        let schema = json!({"type": "object"});
        let document = json!({"schema": schema});
        let pre = (Phase::PreCreate, "1");
        check(
            files(document.clone(), &[pre]),
            &[],
            &["create model `a`", "create hook `a.preCreate`: quickjs (preCreate.js)"],
        );
        check(files(document.clone(), &[pre]), &[state(schema.clone(), &[pre])], &[]);
        check(
            files(document.clone(), &[pre]),
            &[state(schema.clone(), &[(Phase::PreCreate, "2"), (Phase::PostDelete, "3")])],
            &[
                "change hook `a.preCreate`: quickjs (preCreate.js)",
                "remove hook `a.postDelete`: hook, no file names it",
            ],
        );
        let mut other = state(schema.clone(), &[pre]);
        other.id = "b".to_owned();
        check(files(document.clone(), &[]), &[other, state(schema.clone(), &[])], &[]);
        check(
            files(json!({"schema": {"type": "object", "title": "x"}, "indexes": [["t"]], "unique": []}), &[]),
            &[state(schema, &[])],
            &["change model `a`: schema, indexes"],
        );
    }

    #[test]
    fn what_no_file_brought_stays() {
        let schema = json!({"type": "object"});
        let mut server = state(schema.clone(), &[(Phase::PreCreate, "1"), (Phase::PostDelete, "3")]);
        let chain = server.hooks.get_mut(&Phase::PostDelete).unwrap();
        chain[0].origin = HookOrigin::Rest;
        let Plan { steps, kept } = plan(&[files(json!({"schema": schema}), &[])], &[server]);
        let said: Vec<String> = steps.iter().map(Step::to_string).collect();
        assert_eq!(said, ["remove hook `a.preCreate`: hook, no file names it"]);
        let said: Vec<String> = kept.iter().map(KeptHooks::to_string).collect();
        assert_eq!(said.len(), 1);
        assert!(said[0].starts_with("hook `a.postDelete`: hook was bound over REST"), "{said:?}");
        assert!(said[0].ends_with("`snaphook hook remove a.postDelete` removes it"), "{said:?}");
    }

    #[test]
    fn a_short_digest_is_enough() {
        let schema = json!({"type": "object"});
        let server = state(schema.clone(), &[(Phase::PreCreate, "1")]);
        let whole = server.hooks[&Phase::PreCreate][0].artifact.clone();
        for (artifact, is_same) in [(&whole[..19], true), (&*whole, true), ("sha256:00", false)] {
            let mut wanted = files(json!({"schema": schema}), &[(Phase::PreCreate, "1")]);
            wanted.phases[0].1[0].code = CodeFile::Artifact(artifact.to_owned());
            assert_eq!(plan(&[wanted], std::slice::from_ref(&server)).steps.is_empty(), is_same, "{artifact}");
        }
    }

    #[test]
    fn equal_is_equal_in_any_order() {
        check(
            files(json!({"indexes": [], "schema": {"b": 1, "a": 2}}), &[]),
            &[state(json!({"a": 2, "b": 1}), &[])],
            &[],
        );
    }

    #[test]
    fn names_and_modes_are_compared_if_the_file_says_them() {
        let schema = json!({});
        let mut wanted = files(json!({"schema": schema}), &[(Phase::PreCreate, "1")]);
        wanted.phases[0].1[0].name = Some("other".to_owned());
        wanted.phases[0].1[0].shadow = true;
        check(
            wanted,
            &[state(schema, &[(Phase::PreCreate, "1")])],
            &["change hook `a.preCreate`: other (quickjs, preCreate.js, shadow)"],
        );
    }

    #[test]
    fn renames_that_are_done_are_not_sent_again() {
        fn with(names: &[&str]) -> Value {
            let properties: Map<_, _> = names.iter().map(|name| ((*name).to_owned(), json!({}))).collect();
            json!({ "properties": properties })
        }
        fn document(names: &[&str]) -> Value {
            json!({"schema": with(names), "renames": {"old": "new"}})
        }
        let renames =
            |wanted: &[&str], found: &[&str]| match &plan(&[files(document(wanted), &[])], &[state(with(found), &[])])
                .steps[..]
            {
                [Step::ChangeModel { document, .. }] => document.get("renames").cloned(),
                steps => panic!("{steps:?}"),
            };
        assert_eq!(renames(&["new"], &["old"]), Some(json!({"old": "new"})));
        assert_eq!(renames(&["new", "x"], &["new"]), None);
        // A new model needs none.
        let [Step::CreateModel { document, .. }] = &plan(&[files(document(&["new"]), &[])], &[]).steps[..] else {
            panic!()
        };
        assert_eq!(document.get("renames"), None);
    }
}
