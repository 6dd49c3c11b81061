//! `[[server.modules]]`: the modules that take part in serving requests, in order.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value as Json};

use super::document::{Section, Text, Value};

/// Longest name of a module.
const NAME_LENGTH_MAX: usize = 63;

/// Minimum and maximum timeout of a module's hook.
const TIMEOUT: (Duration, Duration) = (Duration::from_millis(10), Duration::from_mins(5));
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);

/// One module.
#[derive(Clone, PartialEq)]
pub struct ModuleConfig {
    /// The name in logs, metrics and grants.
    pub name: String,
    pub kind: ModuleKind,
    /// Whether requests are served without it after it was deactivated; otherwise the response is 503.
    pub optional: bool,
    /// How long one of its hooks may run, and how long it may wait in total to be resumed.
    pub timeout: Duration,
    /// `config`: the module's own table. Strings may be references to secrets (`secret:NAME`).
    pub settings: Map<String, Json>,
    /// The line of the table, for messages.
    pub line: usize,
}

/// How a module runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModuleKind {
    /// A library with the C ABI of `sdk/c/snaphook_module.h`, in the server's process. Its path is absolute.
    Native { library: PathBuf },
    /// A component with hooks of `snaphook:module`, in a sandbox for each call. Its path is absolute.
    Sandboxed { component: PathBuf },
    /// A library that was built from ZiaModuleAPISpec, in the bridge's process. Its path is absolute.
    Zia { library: PathBuf },
}

impl ModuleKind {
    pub fn is_zia(&self) -> bool {
        matches!(self, ModuleKind::Zia { .. })
    }
}

impl ModuleConfig {
    /// Whether both are equal, ignoring their lines in the file.
    pub fn is_same(&self, other: &ModuleConfig) -> bool {
        *self == ModuleConfig { line: self.line, ..other.clone() }
    }
}

/// Omits the settings, which may contain passwords.
impl fmt::Debug for ModuleConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("ModuleConfig");
        shown.field("name", &self.name).field("kind", &self.kind).field("optional", &self.optional);
        shown.field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

/// Reads all modules of the file and records their errors.
pub(super) fn modules(server: &mut Section<'_>, directory: &Path) -> Vec<ModuleConfig> {
    let Some(value) = server.value("modules") else { return Vec::new() };
    let Some(items) = value.items("a list of tables, each under `[[server.modules]]`") else { return Vec::new() };
    let mut names = BTreeSet::new();
    items.iter().filter_map(Value::section).filter_map(|section| module(section, directory, &mut names)).collect()
}

fn module(mut section: Section<'_>, directory: &Path, names: &mut BTreeSet<String>) -> Option<ModuleConfig> {
    let line = section.line.unwrap_or(0);
    let name = section.string("name");
    if name.is_none() && !section.was_there("name") {
        section.missing("name", "a name such as 'log'");
    }
    let name = name.and_then(|text| module_name(text, names));
    let kind = kind(&mut section, directory);
    let optional = section.boolean("optional").unwrap_or(false);
    let timeout = section.duration("timeout", TIMEOUT.0, TIMEOUT.1);
    if timeout.is_some() && matches!(kind, Some(ModuleKind::Sandboxed { .. })) {
        section.error(
            "has `timeout`, which is for libraries; a component has that of `[hooks]`, or of a grant with `module`",
        );
    }
    let timeout = timeout.unwrap_or(TIMEOUT_DEFAULT);
    let mut own = section.section("config");
    let settings = own.rest(true, &mut Vec::new());
    section.finish();
    Some(ModuleConfig { name: name?, kind: kind?, optional, timeout, settings, line })
}

fn module_name(text: Text<'_>, names: &mut BTreeSet<String>) -> Option<String> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    let name = text.parsed("1 to 63 of `a` to `z`, `0` to `9`, `-` and `_`", |text| {
        let is_name = (1..=NAME_LENGTH_MAX).contains(&text.len()) && text.bytes().all(plain);
        is_name.then(|| text.to_owned())
    })?;
    if !names.insert(name.clone()) {
        text.place.error(format!("is `{name}`, which is already the name of another module"));
        return None;
    }
    Some(name)
}

fn kind(section: &mut Section<'_>, directory: &Path) -> Option<ModuleKind> {
    #[derive(Clone, Copy)]
    enum Word {
        Native,
        Zia,
    }
    let words = [("native", Word::Native), ("zia", Word::Zia)];
    let (text, library) = (section.string("kind"), section.string("library"));
    if let Some(component) = section.string("component") {
        if text.is_some() || library.is_some() {
            section.error("has `component`, so it can have neither `library` nor `kind`");
        }
        let component = component.parsed("a path", |text| (!text.is_empty()).then(|| directory.join(text)))?;
        return Some(ModuleKind::Sandboxed { component });
    }
    let word = text.as_ref().map_or(Some(Word::Native), |text| text.word(&words));
    if let (Some(Word::Zia), Some(text), false) = (word, &text, cfg!(target_os = "linux")) {
        text.place.error("is `zia`, which needs Linux");
    }
    if library.is_none() && !section.was_there("library") {
        section.missing("library", "the path of a library such as 'libsnaphook_module_log.so', or `component`");
    }
    let library = library?.parsed("a path", |text| (!text.is_empty()).then(|| directory.join(text)))?;
    Some(match word? {
        Word::Native => ModuleKind::Native { library },
        Word::Zia => ModuleKind::Zia { library },
    })
}
