//! `[[grants]]`: the permissions that the admin gives to hooks, with checks for grants that could never work.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::document::{Section, Text, Value, list, strings};
use super::error::ConfigError;
use super::http_pattern::HttpPattern;
use super::phase::Phase;
use super::settings::{Grant, GrantTarget, ProcessGrant, ServerConfig};
use super::{limits, suggest};

/// Shortest and longest timeout of a granted program. A call may spend 5 minutes in the server, so a longer one could
/// never be used.
const PROCESS_TIMEOUT: (Duration, Duration) = (Duration::from_millis(1), PROCESS_TIMEOUT_MAX);
/// Memory of a granted program, over all its processes.
const PROCESS_MEMORY_BYTES: (usize, usize) = (1 << 20, 64 << 30);
/// How much a granted program may print; a hook gets it as a single value, so it has to fit into the sandbox.
const PROCESS_OUTPUT_BYTES: (usize, usize) = (1 << 10, 1 << 30);

/// Longest timeout of a granted program.
pub const PROCESS_TIMEOUT_MAX: Duration = Duration::from_mins(4);
const PROCESS_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
const PROCESS_MEMORY_BYTES_DEFAULT: usize = 256 << 20;
const PROCESS_OUTPUT_BYTES_DEFAULT: usize = 1 << 20;

/// The keys of a grant that give a permission.
const OPENS: [&str; 8] = ["read", "write", "http", "process", "secret", "amend", "timeout", "memory"];

/// Reads all grants of the file and records their errors.
pub(super) fn grants(root: &mut Section<'_>, server: &ServerConfig) -> Vec<Grant> {
    let Some(value) = root.value("grants") else { return Vec::new() };
    let Some(items) = value.items("a list of tables, each under `[[grants]]`") else { return Vec::new() };
    items.iter().filter_map(|item| item.section()).map(|section| grant(section, server)).collect()
}

fn grant(mut section: Section<'_>, server: &ServerConfig) -> Grant {
    let (target, by_name) = target(&mut section, server);
    let mut grant = Grant {
        line: section.line.unwrap_or(0),
        target,
        read: strings(section.value("read"), "model ids or globs", model_glob),
        write: Vec::new(),
        http: Vec::new(),
        process: Vec::new(),
        secret: strings(section.value("secret"), "names of secrets or globs", glob),
        amend: false,
        timeout: limits::timeout(&mut section),
        memory_bytes: limits::memory(&mut section),
    };
    let phases = match &grant.target {
        GrantTarget::Hooks { phases, .. } => phases.clone(),
        // Only hooks handle data that is not stored yet.
        GrantTarget::Endpoint(_) | GrantTarget::Module(_) => Vec::new(),
    };
    let of_post = |value: &Value<'_>| {
        usable(value, &phases, by_name, |phase| !phase.is_pre(), "only post phases have it");
    };
    let write = section.value("write").inspect(of_post);
    let http = section.value("http").inspect(of_post);
    let process = section.value("process").inspect(of_post);
    let amend = section.value("amend");
    if let Some(amend) = amend.as_ref().filter(|amend| amend.is_true()) {
        let why = "only `preCreate` and `preUpdate` have data to amend";
        match &grant.target {
            GrantTarget::Hooks { .. } => usable(amend, &phases, by_name, Phase::may_amend, why),
            _ => amend.error("is for hooks only: endpoints and modules have no data that is about to be stored"),
        }
    }
    grant.write = strings(write, "model ids or globs", model_glob);
    grant.http = strings(http, "URL patterns", http_pattern);
    grant.process = process.map(processes).unwrap_or_default();
    grant.amend = amend.and_then(|amend| amend.boolean()).unwrap_or(false);
    if !OPENS.iter().any(|key| section.was_there(key)) {
        section.error(&format!("opens nothing, expected at least one of {}", list(&OPENS)));
    }
    section.finish();
    grant
}

/// Who a grant is for, and whether it lists phases.
fn target(section: &mut Section<'_>, server: &ServerConfig) -> (GrantTarget, bool) {
    let endpoints: Vec<_> = server.endpoints.iter().map(|endpoint| &*endpoint.name).collect();
    let modules: Vec<_> = server.modules.iter().map(|module| &*module.name).collect();
    let (endpoint, module) = (section.string("endpoint"), section.string("module"));
    let part = match (endpoint, module) {
        (Some(endpoint), None) => {
            Some(GrantTarget::Endpoint(part_glob(endpoint, "endpoint", &endpoints).unwrap_or_default()))
        }
        (None, Some(module)) => Some(GrantTarget::Module(part_glob(module, "module", &modules).unwrap_or_default())),
        (Some(_), Some(_)) => {
            section.error("names an endpoint and a module, expected one of them");
            Some(GrantTarget::Endpoint(String::new()))
        }
        (None, None) => None,
    };
    if let Some(part) = part {
        for key in ["model", "phase", "hook"] {
            if let Some(value) = section.value(key) {
                value.error("is for grants of hooks, and this one is for an endpoint or a module");
            }
        }
        return (part, false);
    }
    let model = section.string("model");
    if model.is_none() && !section.was_there("model") && !section.was_there("endpoint") && !section.was_there("module")
    {
        section.missing("model", "a model id or a glob, such as 'invoice' or '*'");
    }
    let phases = phases(section);
    let hook = section.string("hook").map_or_else(|| Some("*".to_owned()), hook);
    let target = GrantTarget::Hooks {
        model: model.and_then(model_glob).unwrap_or_default(),
        phases: phases.list,
        hook: hook.unwrap_or_default(),
    };
    (target, phases.by_name)
}

/// A glob over the names in `known`, such as endpoints. Without a wildcard it must be one of them.
fn part_glob(text: Text<'_>, what: &str, known: &[&str]) -> Option<String> {
    let name = &*text.value;
    if !name.contains('*') && !known.contains(&name) {
        match suggest::closest(name, known.iter().copied()) {
            Some(closest) => text.unexpected(&format!("one of `[[server.{what}s]]`, did you mean `{closest}`?")),
            None => text.unexpected(&format!("the name of one of `[[server.{what}s]]` or a glob")),
        }
        return None;
    }
    glob(text)
}

/// Records an error for listed phases that could never use the permission in `value`. `'*'` lists none: it means all
/// phases that can use it.
fn usable(value: &Value<'_>, phases: &[Phase], by_name: bool, can: impl Fn(Phase) -> bool, why: &str) {
    let never: Vec<_> = phases.iter().filter(|phase| !can(**phase)).map(|phase| phase.as_str()).collect();
    if by_name && !never.is_empty() {
        value.error(format!("can never be used by {}: {why}", list(&never)));
    }
}

struct Phases {
    list: Vec<Phase>,
    /// Whether the phases are listed, instead of `'*'`.
    by_name: bool,
}

fn phases(section: &mut Section<'_>) -> Phases {
    let expected = "a phase, a list of phases or '*'";
    let Some(value) = section.value("phase") else {
        section.missing("phase", expected);
        return Phases { list: Vec::new(), by_name: true };
    };
    if value.is_string() {
        let Some(text) = value.text(expected) else { return Phases { list: Vec::new(), by_name: true } };
        if text.value == "*" {
            return Phases { list: Phase::ALL.to_vec(), by_name: false };
        }
        return Phases { list: phase(&text).into_iter().collect(), by_name: true };
    }
    let items = value.items(expected).unwrap_or_default();
    if items.is_empty() && value.is_list() {
        value.error("is an empty list, expected at least one phase");
    }
    let mut list: Vec<_> = items.into_iter().filter_map(|item| phase(&item.text("a phase")?)).collect();
    list.sort();
    list.dedup();
    Phases { list, by_name: true }
}

fn phase(text: &Text<'_>) -> Option<Phase> {
    let names = Phase::ALL.map(Phase::as_str);
    let phase = Phase::from_name(&text.value);
    if phase.is_none() {
        let expected = match suggest::closest(&text.value, names) {
            Some(name) => format!("not a phase, did you mean `{name}`?"),
            None => format!("not a phase; phases are {}", list(&names)),
        };
        text.place.error(format!("is {}: {expected}", text.shown()));
    }
    phase
}

/// A name in which `*` stands for any text. Nothing else is special: pattern syntax of other tools is an error here,
/// because it would allow less than its author expects.
fn glob(text: Text<'_>) -> Option<String> {
    if text.value.is_empty() {
        text.place.error("is empty, expected a name or a glob");
        return None;
    }
    if let Some(special) = text.value.chars().find(|character| "?[]{}\\".contains(*character)) {
        text.place
            .error(format!("is {}, not a glob: `{special}` has no meaning, only `*` matches any text", text.shown()));
        return None;
    }
    Some(text.value)
}

/// A glob over model ids. Without wildcards it must be a valid model id.
fn model_glob(text: Text<'_>) -> Option<String> {
    if !text.value.contains(['*', '?', '[', '{', '\\']) && !is_model_id(&text.value) {
        text.unexpected("a model id (a-z, 0-9, `_` and `-`, at most 63, not starting with `_` or `-`) or a glob");
        return None;
    }
    glob(text)
}

/// Whether this is a valid model id: `^[a-z0-9][a-z0-9_-]{0,62}$`.
pub fn is_model_id(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.len() <= 63
        && text.bytes().next().is_some_and(plain)
        && text.bytes().all(|byte| plain(byte) || byte == b'_' || byte == b'-')
}

fn hook(text: Text<'_>) -> Option<String> {
    let Some(digest) = text.value.strip_prefix("sha256:") else { return glob(text) };
    let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if digest.len() == 64 && digest.bytes().all(hex) {
        return Some(text.value);
    }
    text.unexpected("`sha256:` and 64 lowercase hex digits, as `GET …/hooks/{phase}` shows them");
    None
}

/// `[METHOD ]URL` where `*` stands for any text within the host, the path or the query, and alone for the port.
fn http_pattern(text: Text<'_>) -> Option<String> {
    let expected = "'[METHOD ]URL' such as 'https://api.example.com/v1/*' or 'POST https://hooks.example.com/*'";
    match HttpPattern::parse(&text.value) {
        Ok(_) => Some(text.value),
        // Not shown, because it may contain a password.
        Err(wrong) if text.value.contains('@') => {
            text.place.error(format!("cannot be used, expected {wrong}"));
            None
        }
        Err(wrong) => {
            text.unexpected(&format!("{wrong} ({expected})"));
            None
        }
    }
}

fn processes(value: Value<'_>) -> Vec<ProcessGrant> {
    let items = value.items("a list of tables such as { program = '/usr/bin/pdftotext', args = ['*', '-'] }");
    items.unwrap_or_default().iter().filter_map(|item| process(item.section()?)).collect()
}

fn process(mut section: Section<'_>) -> Option<ProcessGrant> {
    let program = section.string("program");
    if program.is_none() && !section.was_there("program") {
        section.missing("program", "an absolute path");
    }
    let program = program.and_then(|text| {
        text.parsed("an absolute path without `..`, such as '/usr/bin/pdftotext'", |text| {
            let path = PathBuf::from(text);
            let climbs = path.components().any(|part| matches!(part, std::path::Component::ParentDir));
            (path.is_absolute() && !climbs && !text.ends_with('/')).then_some(path)
        })
    });
    let args = strings(section.value("args"), "globs, one per argument", |text| Some(text.value));
    let env = section.value("env").map(environment).unwrap_or_default();
    let timeout = section.duration("timeout", PROCESS_TIMEOUT.0, PROCESS_TIMEOUT.1).unwrap_or(PROCESS_TIMEOUT_DEFAULT);
    let memory = section.size("memory", PROCESS_MEMORY_BYTES.0, PROCESS_MEMORY_BYTES.1);
    let output = section.size("output", PROCESS_OUTPUT_BYTES.0, PROCESS_OUTPUT_BYTES.1);
    section.finish();
    Some(ProcessGrant {
        program: program?,
        args,
        env,
        timeout,
        memory_bytes: memory.unwrap_or(PROCESS_MEMORY_BYTES_DEFAULT),
        output_bytes: output.unwrap_or(PROCESS_OUTPUT_BYTES_DEFAULT),
    })
}

/// Granted programs that are symbolic links, or whose path contains one: the target could be changed.
pub(super) fn links(grants: &[Grant]) -> impl Iterator<Item = ConfigError> + '_ {
    let programs = grants.iter().flat_map(|grant| grant.process.iter().map(|process| (grant.line, &process.program)));
    programs.filter_map(|(line, program)| {
        // `snaphook check` and the call report a program that does not exist yet.
        let real = program.canonicalize().ok().filter(|real| real != program)?;
        let message = format!(
            "`grants.process.program` is `{}`, which is, or is reached through, a symbolic link; expected the real path `{}`",
            program.display(),
            real.display()
        );
        Some(ConfigError::new(line, message))
    })
}

/// `{ LANG = 'C.UTF-8', TITLE = true }`: a fixed value, or `true` for one that the call may set.
fn environment(value: Value<'_>) -> BTreeMap<String, Option<String>> {
    let mut env = BTreeMap::new();
    for (name, value) in value.entries().unwrap_or_default() {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if !name.bytes().all(word) || name.bytes().next().is_none_or(|byte| byte.is_ascii_digit()) {
            value.error("is not a valid name of an environment variable, expected letters, digits and `_`");
        } else if value.is_true() {
            env.insert(name.to_owned(), None);
        } else if let Some(text) = value.text("its value, or true if the call may set it") {
            env.insert(name.to_owned(), Some(text.value));
        }
    }
    env
}
