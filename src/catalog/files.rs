//! Reads a folder of models and hooks, without any other effect.
//!
//! `<folder>/<model>/model.json` contains the body of `POST /models` without the id; next to it are `<phase>.js`, `.ts`
//! or `.wasm`, or `<phase>.toml` for a chain. Folders without a `model.json` are ignored.

use std::collections::BTreeSet;
use std::fmt;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;
use snaphook_driver::json;
use toml::Spanned;

use super::field_error::FieldError;
use super::members::Part;
use super::model::SourceLanguage;
use super::unique_list::UniqueList;
use super::webhook::{WEBHOOK, Webhook};
use crate::config::{Phase, closest, is_model_id, read_regular};

/// Largest file: the size of the largest accepted WebAssembly file.
const FILE_BYTES_MAX: usize = 32 << 20;

/// The members of `model.json`.
const MEMBERS: [&str; 5] = ["schema", "indexes", "unique", "renames", "rules"];

/// One model's folder.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelFiles {
    /// Name of the folder.
    pub id: String,
    /// `{schema, indexes?, unique?, renames?, rules?}`; the contents of these are not checked here.
    pub document: Value,
    /// In the order of the phases; phases without files are omitted.
    pub phases: Vec<(Phase, Vec<BindingFile>)>,
}

/// One hook of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindingFile {
    /// `None`: the server chooses.
    pub name: Option<String>,
    pub engine: String,
    pub code: CodeFile,
    pub shadow: bool,
    /// Whether it reads and writes with the actor's right.
    pub as_actor: bool,
    /// The file that defines it.
    pub path: PathBuf,
}

/// The code of a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CodeFile {
    Inline {
        bytes: Vec<u8>,
        /// Of a source.
        language: Option<SourceLanguage>,
    },
    /// `sha256:…` of code that the server already has.
    Artifact(String),
    /// A native library's file name in the server's folder of hooks.
    Library(String),
    Webhook(Webhook),
}

impl CodeFile {
    /// Of a source.
    pub fn language(&self) -> Option<SourceLanguage> {
        match self {
            CodeFile::Inline { language, .. } => *language,
            CodeFile::Artifact(_) | CodeFile::Library(_) | CodeFile::Webhook(_) => None,
        }
    }
}

/// An error in one file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileError {
    pub path: PathBuf,
    /// 1-based.
    pub line: Option<usize>,
    pub message: String,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}", self.message)
    }
}

/// All models of a folder, by id, or all errors in it. A missing folder contains no models.
pub fn read_directory(directory: &Path) -> Result<Vec<ModelFiles>, Vec<FileError>> {
    match read_what_is_whole(directory) {
        (models, errors) if errors.is_empty() => Ok(models),
        (_, errors) => Err(errors),
    }
}

/// The models of a folder whose files have no errors, and the errors of all others.
pub fn read_what_is_whole(directory: &Path) -> (Vec<ModelFiles>, Vec<FileError>) {
    let mut errors = Vec::new();
    let mut models = Vec::new();
    for name in names(directory, &mut errors) {
        let folder = directory.join(&name);
        if folder.join("model.json").is_file() {
            let before = errors.len();
            let model = read_model(&folder, name, &mut errors);
            models.extend(model.filter(|_| errors.len() == before));
        }
    }
    errors.sort();
    (models, errors)
}

/// The chain of one `<phase>.toml`, or all errors in it.
pub fn read_chain_file(path: &Path, phase: Phase) -> Result<Vec<BindingFile>, Vec<FileError>> {
    let (mut errors, folder) = (Vec::new(), path.parent().unwrap_or(Path::new("")));
    match read_chain(folder, path, phase, &mut BTreeSet::new(), &mut errors) {
        Some(chain) if errors.is_empty() => Ok(chain),
        _ => Err(errors),
    }
}

/// Folders with a file of a phase but without a `model.json`: their author may expect them to be applied.
pub fn without_model(directory: &Path) -> Vec<PathBuf> {
    // The actual read reports files that cannot be read.
    let mut errors = Vec::new();
    let is_of_phase = |name: &String| {
        let of = |phase: Phase| matches!(name.strip_prefix(phase.as_str()), Some(".js" | ".ts" | ".wasm" | ".toml"));
        Phase::ALL.into_iter().any(of)
    };
    names(directory, &mut errors)
        .into_iter()
        .map(|name| directory.join(name))
        .filter(|folder| folder.is_dir() && !folder.join("model.json").is_file())
        .filter(|folder| names(folder, &mut Vec::new()).iter().any(is_of_phase))
        .collect()
}

/// The names in a folder, sorted. Names that are not UTF-8 are skipped.
fn names(directory: &Path, errors: &mut Vec<FileError>) -> Vec<String> {
    let mut names: Vec<_> = match std::fs::read_dir(directory) {
        Ok(entries) => entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect(),
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            fault(errors, directory, None, format!("cannot be read: {error}"));
            Vec::new()
        }
    };
    names.sort();
    names
}

fn fault(errors: &mut Vec<FileError>, path: &Path, line: Option<usize>, message: impl Into<String>) {
    errors.push(FileError { path: path.to_owned(), line, message: message.into() });
}

fn read(path: &Path, errors: &mut Vec<FileError>) -> Option<Vec<u8>> {
    read_regular(path, FILE_BYTES_MAX)
        .map_err(|error| fault(errors, path, None, format!("cannot be read: {error}")))
        .ok()
}

fn read_model(folder: &Path, id: String, errors: &mut Vec<FileError>) -> Option<ModelFiles> {
    if !is_model_id(&id) {
        let expected = "expected a-z, 0-9, `_` and `-`, at most 63, not starting with `_` or `-`";
        fault(errors, folder, None, format!("the folder's name is not a model id, {expected}"));
    }
    let document = read_document(&folder.join("model.json"), errors);
    let phases = read_phases(folder, errors);
    Some(ModelFiles { id, document: document?, phases })
}

fn read_document(path: &Path, errors: &mut Vec<FileError>) -> Option<Value> {
    let bytes = read(path, errors)?;
    let mut document = json::parse_bytes(&bytes)
        .map_err(|error| {
            fault(errors, path, Some(error.line()), format!("not valid JSON: {error}"));
        })
        .ok()?;
    let Value::Object(members) = &document else {
        fault(errors, path, None, "expected an object with `schema` and, if wanted, `indexes`, `unique` and `renames`");
        return None;
    };
    for name in members.keys().filter(|name| !MEMBERS.contains(&name.as_str())) {
        let hint = match closest(name, MEMBERS) {
            _ if name == "id" => "the id is the name of the folder".to_owned(),
            Some(known) => format!("did you mean `{known}`?"),
            None => "expected `schema`, `indexes`, `unique`, `renames` or `rules`".to_owned(),
        };
        fault(errors, path, None, format!("unknown member `{name}`: {hint}"));
    }
    if !members.contains_key("schema") {
        fault(errors, path, None, "`schema` is missing, expected a JSON Schema of type object");
    }
    // As the server writes it, so that the two can be compared.
    match members.get("unique").map(|lists| UniqueList::read_all(&Part::whole(&lists.to_string()))) {
        None => {}
        Some(Ok(lists)) => {
            let lists: Vec<_> = lists.into_iter().map(|unique| unique.list).collect();
            document["unique"] = json::to_tree(&lists).unwrap_or_default();
        }
        Some(Err(FieldError { pointer, message })) => {
            fault(errors, path, None, format!("`/unique{pointer}` {message}"));
        }
    }
    Some(document)
}

fn read_phases(folder: &Path, errors: &mut Vec<FileError>) -> Vec<(Phase, Vec<BindingFile>)> {
    let names = names(folder, errors);
    let mut phases: Vec<(Phase, Vec<BindingFile>)> = Vec::new();
    let mut taken: BTreeSet<String> = BTreeSet::from(["model.json".to_owned()]);
    for phase in Phase::ALL {
        let of_phase: Vec<_> = names
            .iter()
            .filter(|name| matches!(name.strip_prefix(phase.as_str()), Some(".js" | ".ts" | ".wasm" | ".toml")))
            .collect();
        if let [first, second, ..] = &of_phase[..] {
            fault(
                errors,
                &folder.join(second),
                None,
                format!("the phase has `{first}` already, expected one file per phase"),
            );
        }
        if let Some(name) = of_phase.first() {
            taken.extend(of_phase.iter().map(|name| (*name).clone()));
            let path = folder.join(name);
            let chain = if name.ends_with(".toml") {
                read_chain(folder, &path, phase, &mut taken, errors)
            } else {
                read_code(&path, errors).map(|(engine, code)| {
                    vec![BindingFile {
                        name: None,
                        engine: engine.to_owned(),
                        code,
                        shadow: false,
                        as_actor: false,
                        path: path.clone(),
                    }]
                })
            };
            phases.extend(chain.map(|chain| (phase, chain)));
        }
    }
    for name in names.iter().filter(|name| !taken.contains(*name)) {
        unknown_file(folder, name, errors);
    }
    phases
}

/// Reports a file that looks as if it were meant for a phase, instead of ignoring it.
fn unknown_file(folder: &Path, name: &str, errors: &mut Vec<FileError>) {
    // Types for editors.
    if name.ends_with(".d.ts") {
        return;
    }
    let Some((stem, "js" | "ts" | "wasm" | "toml")) = name.rsplit_once('.') else { return };
    if let Some(phase) = closest(stem, Phase::ALL.map(Phase::as_str)) {
        fault(errors, &folder.join(name), None, format!("`{stem}` is not a phase, did you mean `{phase}`?"));
    }
}

/// A file of code, by its extension.
fn read_code(path: &Path, errors: &mut Vec<FileError>) -> Option<(&'static str, CodeFile)> {
    let (engine, language) = match path.extension().and_then(|extension| extension.to_str()) {
        Some(extension @ ("js" | "ts")) => ("quickjs", SourceLanguage::of_extension(extension)),
        Some("wasm") => ("component", None),
        _ => {
            fault(errors, path, None, "expected a file that ends in `.js`, `.ts` or `.wasm`");
            return None;
        }
    };
    Some((engine, CodeFile::Inline { bytes: read(path, errors)?, language }))
}

/// `<phase>.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChainFile {
    chain: Vec<Spanned<Link>>,
}

/// One `[[chain]]` table; exactly one of `file`, `artifact`, `library` and `url` must be set.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Link {
    name: Option<String>,
    engine: Option<String>,
    /// A path relative to the file.
    file: Option<String>,
    artifact: Option<String>,
    library: Option<String>,
    /// Of a webhook.
    url: Option<String>,
    secret: Option<String>,
    #[serde(default)]
    mode: Mode,
    #[serde(rename = "as")]
    acts_as: Option<ActsAs>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ActsAs {
    Actor,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    #[default]
    Enforce,
    Shadow,
}

fn read_chain(
    folder: &Path,
    path: &Path,
    phase: Phase,
    taken: &mut BTreeSet<String>,
    errors: &mut Vec<FileError>,
) -> Option<Vec<BindingFile>> {
    let text = String::from_utf8(read(path, errors)?)
        .map_err(|error| fault(errors, path, None, format!("not UTF-8 text: {error}")))
        .ok()?;
    let line_at = |span: Range<usize>| 1 + text[..span.start.min(text.len())].matches('\n').count();
    let file: ChainFile = toml::from_str(&text)
        .map_err(|error| fault(errors, path, error.span().map(line_at), error.message().to_owned()))
        .ok()?;
    if file.chain.is_empty() {
        fault(errors, path, None, "an empty chain, expected at least one `[[chain]]`; for no hook remove the file");
    }
    let before = errors.len();
    let mut chain = Vec::new();
    for link in file.chain {
        let line = line_at(link.span());
        let link = link.into_inner();
        taken.extend(link.file.clone());
        if let Some((engine, code)) = link_code(folder, path, phase, line, &link, errors) {
            let engine = link.engine.unwrap_or_else(|| engine.to_owned());
            chain.push(BindingFile {
                name: link.name,
                engine,
                code,
                shadow: link.mode == Mode::Shadow,
                as_actor: link.acts_as.is_some(),
                path: link.file.map_or_else(|| path.to_owned(), |file| folder.join(file)),
            });
        }
    }
    (errors.len() == before).then_some(chain)
}

fn link_code(
    folder: &Path,
    path: &Path,
    phase: Phase,
    line: usize,
    link: &Link,
    errors: &mut Vec<FileError>,
) -> Option<(&'static str, CodeFile)> {
    if link.url.is_some() || link.secret.is_some() || link.engine.as_deref() == Some(WEBHOOK) {
        let webhook = link_webhook(phase, link).map_err(|message| fault(errors, path, Some(line), message)).ok()?;
        return Some((WEBHOOK, CodeFile::Webhook(webhook)));
    }
    match (&link.file, &link.artifact, &link.library) {
        (Some(file), None, None) => {
            let inside =
                !file.is_empty() && Path::new(file).components().all(|part| matches!(part, Component::Normal(_)));
            if !inside {
                fault(errors, path, Some(line), format!("`file` is `{file}`, expected a file beside this one"));
                return None;
            }
            read_code(&folder.join(file), errors)
        }
        (None, Some(artifact), None) => match &link.engine {
            Some(_) => Some(("", CodeFile::Artifact(artifact.clone()))),
            None => {
                fault(errors, path, Some(line), "`engine` is missing, an artifact needs it: 'component' or 'quickjs'");
                None
            }
        },
        (None, None, Some(library)) => Some(("native", CodeFile::Library(library.clone()))),
        _ => {
            fault(errors, path, Some(line), "expected exactly one of `file`, `artifact`, `library` and `url`");
            None
        }
    }
}

/// The error is what is wrong with it.
fn link_webhook(phase: Phase, link: &Link) -> Result<Webhook, String> {
    if phase.is_pre() {
        return Err(Webhook::too_early(phase));
    }
    if link.engine.as_deref().is_some_and(|engine| engine != WEBHOOK) {
        return Err("`url` and `secret` are for engine 'webhook'".to_owned());
    }
    if link.file.is_some() || link.artifact.is_some() || link.library.is_some() {
        return Err("a webhook runs no code, expected only `url` and `secret`".to_owned());
    }
    if link.mode == Mode::Shadow {
        return Err("`shadow` is for pre hooks, a webhook is sent after the change".to_owned());
    }
    let (Some(url), Some(secret)) = (&link.url, &link.secret) else {
        return Err("a webhook needs both `url` and `secret`, the name of the secret that signs".to_owned());
    };
    let webhook = Webhook { url: url.clone(), secret: secret.clone() };
    webhook.check()?;
    Ok(webhook)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }

    #[track_caller]
    fn check(files: &[(&str, &str)], expected: &[&str]) {
        let root = folder(files);
        let root_name = format!("{}/", root.path().display());
        let errors = read_directory(root.path()).err().unwrap_or_default();
        let messages: Vec<_> = errors.iter().map(|error| error.to_string().replace(&root_name, "")).collect();
        assert_eq!(messages, expected);
    }

    const MODEL: (&str, &str) = ("a/model.json", r#"{"schema": {"type": "object"}}"#);

    #[test]
    fn models_and_phases() {
        let root = folder(&[
            ("b/model.json", r#"{"schema": {"type": "object", "multipleOf": 1.0}, "indexes": [["x"]]}"#),
            MODEL,
            ("a/preCreate.ts", "export function preCreate() {}"),
            ("a/postCreate.wasm", "\0asm"),
            ("a/README.md", "x"),
            (
                "a/preUpdate.toml",
                "[[chain]]\nname = 'one'\nfile = 'check.js'\nmode = 'shadow'\n[[chain]]\nengine = 'quickjs'\nartifact = 'sha256:00'\n[[chain]]\nlibrary = 'libx.so'\n",
            ),
            ("a/check.js", "1"),
            ("examples/preCreate.js", "no model here"),
            ("README.md", "x"),
        ]);
        let models = read_directory(root.path()).unwrap();
        assert_eq!(models.iter().map(|model| model.id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(
            models[1].document.to_string(),
            r#"{"schema":{"type":"object","multipleOf":1.0},"indexes":[["x"]]}"#
        );
        let [(Phase::PreCreate, create), (Phase::PostCreate, post), (Phase::PreUpdate, update)] = &models[0].phases[..]
        else {
            panic!("{:?}", models[0].phases)
        };
        assert_eq!(create[0].engine, "quickjs");
        assert_eq!(
            create[0].code,
            CodeFile::Inline {
                bytes: b"export function preCreate() {}".to_vec(),
                language: Some(SourceLanguage::TypeScript)
            }
        );
        assert_eq!(post[0].engine, "component");
        assert_eq!((update[0].name.as_deref(), update[0].shadow), (Some("one"), true));
        assert_eq!(
            update[0].code,
            CodeFile::Inline { bytes: b"1".to_vec(), language: Some(SourceLanguage::JavaScript) }
        );
        assert_eq!(update[1].code, CodeFile::Artifact("sha256:00".to_owned()));
        assert_eq!((update[2].engine.as_str(), update[2].shadow), ("native", false));
    }

    #[test]
    fn no_folder_is_no_models() {
        assert_eq!(read_directory(Path::new("/nonexistent/hooks")).unwrap(), []);
    }

    #[test]
    fn faults() {
        check(
            &[
                ("A/model.json", "{\n\"schema\": }"),
                ("b/model.json", r#"{"id": "b", "shema": {}, "x": 1}"#),
                ("c/model.json", "[]"),
            ],
            &[
                "A: the folder's name is not a model id, expected a-z, 0-9, `_` and `-`, at most 63, not starting with \
                 `_` or `-`",
                "A/model.json:2: not valid JSON: expected a value at line 2 column 11",
                "b/model.json: `schema` is missing, expected a JSON Schema of type object",
                "b/model.json: unknown member `id`: the id is the name of the folder",
                "b/model.json: unknown member `shema`: did you mean `schema`?",
                "b/model.json: unknown member `x`: expected `schema`, `indexes`, `unique`, `renames` or `rules`",
                "c/model.json: expected an object with `schema` and, if wanted, `indexes`, `unique` and `renames`",
            ],
        );
        check(
            &[MODEL, ("a/preCreate.js", ""), ("a/preCreate.ts", ""), ("a/postcreate.js", "")],
            &[
                "a/postcreate.js: `postcreate` is not a phase, did you mean `postCreate`?",
                "a/preCreate.ts: the phase has `preCreate.js` already, expected one file per phase",
            ],
        );
        check(
            &[
                MODEL,
                (
                    "a/preCreate.toml",
                    "[[chain]]\nfile = '../x.js'\n\n[[chain]]\nfile = 'gone.js'\n[[chain]]\nname = 'n'\n[[chain]]\nartifact = 'x'\n",
                ),
                ("a/preUpdate.toml", "[[chain]]\nfiel = 'x'\n"),
                ("a/preDelete.toml", "chain = []"),
            ],
            &[
                "a/gone.js: cannot be read: No such file or directory (os error 2)",
                "a/preCreate.toml:1: `file` is `../x.js`, expected a file beside this one",
                "a/preCreate.toml:6: expected exactly one of `file`, `artifact`, `library` and `url`",
                "a/preCreate.toml:8: `engine` is missing, an artifact needs it: 'component' or 'quickjs'",
                "a/preDelete.toml: an empty chain, expected at least one `[[chain]]`; for no hook remove the file",
                "a/preUpdate.toml:2: unknown field `fiel`, expected one of `name`, `engine`, `file`, `artifact`, `library`, `url`, `secret`, `mode`, `as`",
            ],
        );
    }

    #[test]
    fn webhooks() {
        let link = "[[chain]]\nname = 'send'\nengine = 'webhook'\nurl = 'https://a.example/in'\nsecret = 'key'\n";
        let root = folder(&[
            MODEL,
            ("a/postCreate.toml", link),
            ("a/postDelete.toml", &link.replace("engine = 'webhook'\n", "")),
        ]);
        let models = read_directory(root.path()).unwrap();
        let webhook = Webhook { url: "https://a.example/in".to_owned(), secret: "key".to_owned() };
        for (phase, chain) in &models[0].phases {
            assert_eq!((chain[0].engine.as_str(), &chain[0].code), ("webhook", &CodeFile::Webhook(webhook.clone())));
            let file = root.path().join(format!("a/{phase}.toml"));
            assert_eq!(read_chain_file(&file, *phase).as_ref(), Ok(chain));
        }
        let faults = "[[chain]]\nengine = 'webhook'\nurl = 'https://a.example/in'\n\
             [[chain]]\nengine = 'webhook'\nfile = 'check.js'\n\
             [[chain]]\nengine = 'v8'\nurl = 'https://a.example/in'\nsecret = 'key'\n\
             [[chain]]\nurl = 'a.example/in'\nsecret = 'key'\n\
             [[chain]]\nurl = 'https://a.example/in'\nsecret = 'key'\nmode = 'shadow'\n";
        check(
            &[MODEL, ("a/postCreate.toml", faults), ("a/preCreate.toml", link)],
            &[
                "a/postCreate.toml:1: a webhook needs both `url` and `secret`, the name of the secret that signs",
                "a/postCreate.toml:4: a webhook runs no code, expected only `url` and `secret`",
                "a/postCreate.toml:7: `url` and `secret` are for engine 'webhook'",
                "a/postCreate.toml:11: `url` is `a.example/in`, which is not a valid URL: relative URL without a base",
                "a/postCreate.toml:14: `shadow` is for pre hooks, a webhook is sent after the change",
                "a/preCreate.toml:1: a webhook is sent after the change, and `preCreate` runs before it: bind it to `postCreate`, `postUpdate` or `postDelete`",
            ],
        );
    }

    #[test]
    fn folders_without_a_model_are_named() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "{}").unwrap();
        };
        for path in [
            "whole/model.json",
            "whole/preCreate.js",
            "lost/preCreate.ts",
            "chain/postCreate.toml",
            // What is no hook, or lies deeper, is nobody's mistake.
            "project/src/preCreate.js",
            "other/readme.md",
            "types/preCreate.d.ts",
            "preCreate.js",
        ] {
            write(path);
        }
        let found = without_model(root.path());
        assert_eq!(found, [root.path().join("chain"), root.path().join("lost")]);
        assert!(without_model(&root.path().join("nowhere")).is_empty());
    }
}
