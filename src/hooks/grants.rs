//! What the configuration opens to one bound hook, and the words of a refusal.
//!
//! Grants are resolved per hook, not per call: a [`Granted`] stays good until another configuration is in force,
//! which [`Granted::is_current`] tells with one comparison. Whether a request is inside what a grant opens is the
//! business of each capability; how a refusal reads is decided here.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use snaphook_identity::glob;

use super::access::{AccessCode, AccessError};
use super::capabilities::http::url_pattern::UrlPattern;
use super::fair;
use crate::config::{Config, Grant, Limits, Phase, ProcessGrant, format_duration, format_size};

/// Who a hook is, for grants and messages. Displays as `invoice.postCreate/mail`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HookId {
    pub model: String,
    pub phase: Phase,
    pub name: String,
    /// `sha256:…` of the code.
    pub artifact: String,
}

impl fmt::Display for HookId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}/{}", self.model, self.phase, self.name)
    }
}

fn share_key(hook: &HookId) -> fair::Key {
    let mut hasher = DefaultHasher::new();
    (&hook.model, hook.phase, &hook.name).hash(&mut hasher);
    hasher.finish()
}

/// The capabilities that a grant opens; `log` needs none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    Read,
    Write,
    Http,
    Process,
    Secret,
    Amend,
}

impl Capability {
    /// The key in `[[grants]]`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Capability::Read => "read",
            Capability::Write => "write",
            Capability::Http => "http",
            Capability::Process => "process",
            Capability::Secret => "secret",
            Capability::Amend => "amend",
        }
    }

    /// Whether a hook of that phase can have it at all.
    pub const fn fits(self, phase: Phase) -> bool {
        match self {
            Capability::Read | Capability::Secret => true,
            Capability::Write | Capability::Http | Capability::Process => !phase.is_pre(),
            Capability::Amend => phase.may_amend(),
        }
    }

    /// Why a phase that it does not fit never has it.
    const fn reason(self) -> &'static str {
        match self {
            Capability::Amend => "only preCreate and preUpdate have data that is not stored yet",
            _ => "before the event is stored nothing may leave the server, so only post phases have it",
        }
    }
}

/// Everything that one hook may use: what all matching grants open, added up.
#[derive(Debug)]
pub struct Granted {
    config: Arc<Config>,
    hook: Arc<HookId>,
    share_key: fair::Key,
    /// Of the matching grants the largest, else the defaults.
    pub limits: Limits,
    /// The largest `timeout` of the matching grants, if one has it.
    pub timeout: Option<Duration>,
    pub read: Vec<String>,
    pub write: Vec<String>,
    pub http: Vec<UrlPattern>,
    pub process: Vec<ProcessGrant>,
    pub secret: Vec<String>,
    pub amend: bool,
}

impl Granted {
    /// Adds up the grants that match `hook`.
    pub fn resolve(config: &Arc<Config>, hook: &Arc<HookId>) -> Granted {
        let mut granted = Granted {
            config: Arc::clone(config),
            hook: Arc::clone(hook),
            share_key: share_key(hook),
            limits: config.hooks.limits,
            timeout: None,
            read: Vec::new(),
            write: Vec::new(),
            http: Vec::new(),
            process: Vec::new(),
            secret: Vec::new(),
            amend: false,
        };
        let mut memory = None;
        for grant in config.grants.iter().filter(|grant| covers(grant, hook)) {
            extend(&mut granted.read, &grant.read);
            extend(&mut granted.secret, &grant.secret);
            // A phase that a capability does not fit gets nothing of it, whatever the file says.
            if Capability::Write.fits(hook.phase) {
                extend(&mut granted.write, &grant.write);
            }
            if Capability::Http.fits(hook.phase) {
                granted.http.extend(grant.http.iter().filter_map(|text| parse_pattern(text, grant.line)));
            }
            if Capability::Process.fits(hook.phase) {
                granted.process.extend(grant.process.iter().cloned());
            }
            granted.amend |= grant.amend && Capability::Amend.fits(hook.phase);
            granted.timeout = granted.timeout.max(grant.timeout);
            memory = memory.max(grant.memory_bytes);
        }
        granted.limits.timeout = granted.timeout.unwrap_or(granted.limits.timeout);
        granted.limits.memory_bytes = memory.unwrap_or(granted.limits.memory_bytes);
        granted
    }

    /// Under which the hook shares permits with others: its place in the server, whatever code is bound there.
    pub(super) fn share_key(&self) -> fair::Key {
        self.share_key
    }

    /// Whether `config` is the configuration that this was resolved from.
    pub fn is_current(&self, config: &Arc<Config>) -> bool {
        // The Arc is held here, so its address cannot have been given to another configuration.
        Arc::ptr_eq(&self.config, config)
    }

    /// The hook that this is for.
    pub fn hook(&self) -> &Arc<HookId> {
        &self.hook
    }

    /// The configuration that this was resolved from.
    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// What the grants open, as the REST API shows it; members that open nothing are left out.
    pub fn to_json(&self) -> Value {
        let mut map = Map::new();
        let mut list = |key: &str, items: Vec<Value>| {
            if !items.is_empty() {
                map.insert(key.to_owned(), Value::Array(items));
            }
        };
        let texts = |items: &[String]| items.iter().map(|item| json!(item)).collect::<Vec<_>>();
        list("read", texts(&self.read));
        list("write", texts(&self.write));
        list("http", self.http.iter().map(|pattern| json!(pattern.to_string())).collect());
        let process = |grant: &ProcessGrant| {
            json!({
                "program": grant.program.to_string_lossy(),
                "args": grant.args,
                // Values may be confidential; the names are enough.
                "env": grant.env.keys().collect::<Vec<_>>(),
                "timeout": format_duration(grant.timeout),
                "memory": format_size(grant.memory_bytes),
                "output": format_size(grant.output_bytes),
            })
        };
        list("process", self.process.iter().map(process).collect());
        list("secret", texts(&self.secret));
        if self.amend {
            map.insert("amend".to_owned(), json!(true));
        }
        map.insert("timeout".to_owned(), json!(format_duration(self.limits.timeout)));
        map.insert("memory".to_owned(), json!(format_size(self.limits.memory_bytes)));
        Value::Object(map)
    }

    /// The refusal of a request that no matching grant opens.
    ///
    /// `asked` continues "asked for …"; `value` is the TOML value that would open it; `opens` tells whether another
    /// grant of the file would, if it were for this hook.
    pub fn denial(
        &self,
        capability: Capability,
        asked: &str,
        value: &str,
        opens: impl Fn(&Grant) -> bool,
    ) -> AccessError {
        let Granted { hook, config, .. } = self;
        if !capability.fits(hook.phase) {
            return never(hook, capability, asked);
        }
        let mut message = format!("hook `{hook}` asked for {asked}, which no grant opens");
        if let Some(grant) = config.grants.iter().find(|grant| !covers(grant, hook) && opens(grant)) {
            message.push_str(&format!(
                " to it (the one at {}:{} is {})",
                config.name(),
                grant.line,
                elsewhere(grant, hook)
            ));
        }
        AccessError::new(AccessCode::Denied, message + &self.lines(capability, value))
    }

    /// The end of a refusal: the lines that would open what was asked.
    pub fn lines(&self, capability: Capability, value: &str) -> String {
        let Granted { hook, config, .. } = self;
        format!(
            "; to allow it, add to {}:\n[[grants]]\nmodel = {}\nphase = {}\nhook = {}\n{} = {value}",
            config.name(),
            toml_string(&hook.model),
            toml_string(hook.phase.as_str()),
            toml_string(&hook.name),
            capability.as_str(),
        )
    }
}

/// The refusal of a capability that the hook's phase never has.
fn never(hook: &HookId, capability: Capability, asked: &str) -> AccessError {
    AccessError::new(
        AccessCode::Denied,
        format!(
            "hook `{hook}` asked for {asked}, but no grant can open `{}` to phase {}: {}",
            capability.as_str(),
            hook.phase,
            capability.reason()
        ),
    )
}

/// `text` as a TOML string that stands on one line.
pub fn toml_string(text: &str) -> String {
    if !text.contains('\'') && !text.chars().any(char::is_control) {
        return format!("'{text}'");
    }
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            control if control.is_control() => quoted.push_str(&format!("\\u{:04X}", control as u32)),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

/// Whether a grant is for this hook.
fn covers(grant: &Grant, hook: &HookId) -> bool {
    covers_phase(grant, hook) && glob::matches(&grant.model, &hook.model) && covers_name(grant, hook)
}

fn covers_phase(grant: &Grant, hook: &HookId) -> bool {
    grant.phases.contains(&hook.phase)
}

fn covers_name(grant: &Grant, hook: &HookId) -> bool {
    match grant.hook.starts_with("sha256:") {
        true => grant.hook == hook.artifact,
        false => glob::matches(&grant.hook, &hook.name),
    }
}

/// In which way a grant is not for this hook.
fn elsewhere(grant: &Grant, hook: &HookId) -> String {
    if !glob::matches(&grant.model, &hook.model) {
        return format!("for model `{}`", grant.model);
    }
    if !covers_phase(grant, hook) {
        let phases: Vec<&str> = grant.phases.iter().map(|phase| phase.as_str()).collect();
        return format!("for {} only", phases.join(", "));
    }
    match grant.hook.starts_with("sha256:") {
        true => format!("pinned to the code `{}`, this is `{}`", grant.hook, hook.artifact),
        false => format!("for hook `{}`", grant.hook),
    }
}

fn extend(into: &mut Vec<String>, from: &[String]) {
    for item in from {
        if !into.contains(item) {
            into.push(item.clone());
        }
    }
}

/// The configuration was checked when it was read; what is no pattern all the same opens nothing.
fn parse_pattern(text: &str, line: usize) -> Option<UrlPattern> {
    UrlPattern::parse(text)
        .inspect_err(|error| tracing::warn!("the http grant at line {line} opens nothing: {error}"))
        .ok()
}
