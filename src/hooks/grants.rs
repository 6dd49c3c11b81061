//! What the configuration opens to one bound hook, endpoint or module, and the words of a refusal.
//!
//! Grants are resolved per grantee, not per call: a [`Granted`] stays good until another configuration is in force,
//! which [`Granted::is_current`] tells with one comparison. Whether a request is inside what a grant opens is the
//! business of each capability; how a refusal reads is decided here.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use snaphook_driver::{Actor, ActorKind};
use snaphook_identity::glob;

use super::access::{AccessCode, AccessError};
use super::capabilities::http::url_pattern::UrlPattern;
use super::fair;
use super::grant_lines::{ELSEWHERE, TO_ALLOW};
use crate::config::{Config, Grant, GrantTarget, Limits, Phase, ProcessGrant, format_duration, format_size};

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

/// Whose code it is that asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grantee {
    Hook(Arc<HookId>),
    /// By its name.
    Endpoint(Arc<str>),
    /// By its name.
    Module(Arc<str>),
}

/// Such as `` hook `invoice.postCreate/mail` ``.
impl fmt::Display for Grantee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Grantee::Hook(hook) => write!(f, "hook `{hook}`"),
            Grantee::Endpoint(name) => write!(f, "endpoint `{name}`"),
            Grantee::Module(name) => write!(f, "module `{name}`"),
        }
    }
}

impl Grantee {
    /// Who writes, as events record it.
    pub fn actor(&self) -> Actor {
        match self {
            Grantee::Hook(hook) => Actor::new(ActorKind::Hook, hook.to_string()),
            Grantee::Endpoint(name) => Actor::new(ActorKind::Endpoint, &**name),
            Grantee::Module(name) => Actor::new(ActorKind::Module, &**name),
        }
    }

    /// The hook, if it is one.
    pub fn hook(&self) -> Option<&Arc<HookId>> {
        match self {
            Grantee::Hook(hook) => Some(hook),
            Grantee::Endpoint(_) | Grantee::Module(_) => None,
        }
    }

    /// Why it can never have a capability.
    fn lacks(&self, capability: Capability) -> Option<String> {
        match self {
            Grantee::Hook(hook) if capability.fits(hook.phase) => None,
            Grantee::Hook(hook) => Some(format!("phase {}: {}", hook.phase, capability.reason())),
            Grantee::Endpoint(_) | Grantee::Module(_) if capability == Capability::Amend => {
                Some("something other than a hook: it has no data that is about to be stored".to_owned())
            }
            Grantee::Endpoint(_) | Grantee::Module(_) => None,
        }
    }

    /// The lines of a grant that say whom it is for.
    fn lines(&self) -> String {
        match self {
            Grantee::Hook(hook) => format!(
                "model = {}\nphase = {}\nhook = {}",
                toml_string(&hook.model),
                toml_string(hook.phase.as_str()),
                toml_string(&hook.name)
            ),
            Grantee::Endpoint(name) => format!("endpoint = {}", toml_string(name)),
            Grantee::Module(name) => format!("module = {}", toml_string(name)),
        }
    }

    fn share_key(&self) -> fair::Key {
        let mut hasher = DefaultHasher::new();
        match self {
            Grantee::Hook(hook) => (&hook.model, hook.phase, &hook.name).hash(&mut hasher),
            Grantee::Endpoint(name) => ("endpoint", name).hash(&mut hasher),
            Grantee::Module(name) => ("module", name).hash(&mut hasher),
        }
        hasher.finish()
    }
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

/// Everything that one grantee may use: what all matching grants open, added up.
#[derive(Debug)]
pub struct Granted {
    config: Arc<Config>,
    grantee: Grantee,
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
    /// Adds up the grants that match.
    pub fn resolve(config: &Arc<Config>, grantee: Grantee) -> Granted {
        let mut granted = Granted {
            config: Arc::clone(config),
            share_key: grantee.share_key(),
            grantee,
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
        let may_have = |capability| granted.grantee.lacks(capability).is_none();
        let [write, http, process, amend] =
            [Capability::Write, Capability::Http, Capability::Process, Capability::Amend].map(may_have);
        for grant in config.grants.iter().filter(|grant| covers(grant, &granted.grantee)) {
            extend(&mut granted.read, &grant.read);
            extend(&mut granted.secret, &grant.secret);
            // A phase that a capability does not fit gets nothing of it, whatever the file says.
            if write {
                extend(&mut granted.write, &grant.write);
            }
            if http {
                granted.http.extend(grant.http.iter().filter_map(|text| parse_pattern(text, grant.line)));
            }
            if process {
                granted.process.extend(grant.process.iter().cloned());
            }
            granted.amend |= grant.amend && amend;
            granted.timeout = granted.timeout.max(grant.timeout);
            memory = memory.max(grant.memory_bytes);
        }
        granted.limits.timeout = granted.timeout.unwrap_or(granted.limits.timeout);
        granted.limits.memory_bytes = memory.unwrap_or(granted.limits.memory_bytes);
        granted
    }

    /// Under which it shares permits with others: its place in the server, whatever code is there.
    pub(super) fn share_key(&self) -> fair::Key {
        self.share_key
    }

    /// Whether `config` is the configuration that this was resolved from.
    pub fn is_current(&self, config: &Arc<Config>) -> bool {
        // The Arc is held here, so its address cannot have been given to another configuration.
        Arc::ptr_eq(&self.config, config)
    }

    /// Whom this is for.
    pub fn grantee(&self) -> &Grantee {
        &self.grantee
    }

    /// The configuration that this was resolved from.
    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// What the grants open, as the REST API shows it; members that open nothing are left out.
    pub fn to_json(&self, limits: Limits) -> Value {
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
        map.insert("timeout".to_owned(), json!(format_duration(limits.timeout)));
        map.insert("memory".to_owned(), json!(format_size(limits.memory_bytes)));
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
        let Granted { grantee, config, .. } = self;
        if let Some(why) = grantee.lacks(capability) {
            let capability = capability.as_str();
            let message = format!("{grantee} asked for {asked}, but no grant can open `{capability}` to {why}");
            return AccessError::new(AccessCode::Denied, message);
        }
        let mut message = format!("{grantee} asked for {asked}, which no grant opens");
        if let Some(grant) = config.grants.iter().find(|grant| !covers(grant, grantee) && opens(grant)) {
            message.push_str(&format!("{ELSEWHERE}{}:{} is {})", config.name(), grant.line, elsewhere(grant, grantee)));
        }
        AccessError::new(AccessCode::Denied, message + &self.lines(capability, value))
    }

    /// The end of a refusal: the lines that would open what was asked.
    pub fn lines(&self, capability: Capability, value: &str) -> String {
        let Granted { grantee, config, .. } = self;
        format!("{TO_ALLOW}{}:\n[[grants]]\n{}\n{} = {value}", config.name(), grantee.lines(), capability.as_str(),)
    }
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

/// Whether a grant is for this one.
fn covers(grant: &Grant, grantee: &Grantee) -> bool {
    match (&grant.target, grantee) {
        (GrantTarget::Hooks { model, phases, hook: name }, Grantee::Hook(hook)) => {
            phases.contains(&hook.phase) && glob::matches(model, &hook.model) && covers_name(name, hook)
        }
        (GrantTarget::Endpoint(names), Grantee::Endpoint(name))
        | (GrantTarget::Module(names), Grantee::Module(name)) => glob::matches(names, name),
        _ => false,
    }
}

/// Whether a grant's `hook` is this one.
fn covers_name(name: &str, hook: &HookId) -> bool {
    match name.starts_with("sha256:") {
        true => name == hook.artifact,
        false => glob::matches(name, &hook.name),
    }
}

/// In which way a grant is not for this one.
fn elsewhere(grant: &Grant, grantee: &Grantee) -> String {
    let (model, phases, name) = match &grant.target {
        GrantTarget::Hooks { model, phases, hook } => (model, phases, hook),
        GrantTarget::Endpoint(glob) => return format!("for endpoint `{glob}`"),
        GrantTarget::Module(glob) => return format!("for module `{glob}`"),
    };
    let Grantee::Hook(hook) = grantee else { return format!("for hooks of model `{model}`") };
    if !glob::matches(model, &hook.model) {
        return format!("for model `{model}`");
    }
    if !phases.contains(&hook.phase) {
        let phases: Vec<&str> = phases.iter().map(|phase| phase.as_str()).collect();
        return format!("for {} only", phases.join(", "));
    }
    match name.starts_with("sha256:") {
        true => format!("pinned to the code `{name}`, this is `{}`", hook.artifact),
        false => format!("for hook `{name}`"),
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
