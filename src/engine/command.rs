//! The engine's commands and results: plain data, no HTTP.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use snaphook_driver::time::Millis;
use snaphook_driver::{Actor, Cause, Event, Instance, Json, Position};

pub use crate::catalog::ModelInput;
use crate::catalog::rules::Right;
use crate::catalog::{HookOrigin, ModelRecord, SourceLanguage};
use crate::config::Phase;
pub use crate::hooks::host::HookInfo;

/// The origin of a command.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    pub actor: Option<Arc<Actor>>,
    pub request_id: Option<String>,
    /// Its place in a trace, as events keep it.
    pub trace: Option<String>,
    /// The event whose post hook issued the command, if one did.
    pub cause: Option<Cause>,
    /// Whether rules apply, and to which caller.
    pub right: Right,
}

/// Longest chain of causes.
pub(super) const DEPTH_MAX: u32 = 8;

/// A point in the past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    Position(Position),
    Time(Millis),
}

/// A change of one instance.
#[derive(Clone, Debug)]
pub enum InstanceChange {
    /// `id`: a UUIDv7 if the caller has none.
    Create {
        id: Option<String>,
        data: Json,
    },
    /// `create`: create the instance if it does not exist (`If-None-Match: *` means that it must not be).
    Replace {
        id: String,
        data: Json,
        create: bool,
    },
    /// RFC 7396.
    Patch {
        id: String,
        patch: Json,
    },
    Delete {
        id: String,
    },
}

/// The caller's expectation about the instance or model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Precondition {
    #[default]
    None,
    /// `If-Match: *`
    Exists,
    /// `If-Match` with entity tags: one of these.
    At(Vec<Seen>),
    /// `If-None-Match: *`
    Absent,
}

/// The state of an instance or a model that a caller has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Position of its last event.
    pub position: Position,
    /// The model's version, or the instance's `model_version`: a new version of the model may carry the data over without
    /// an event of the instance.
    pub version: u64,
}

impl Seen {
    pub fn model(record: &ModelRecord) -> Seen {
        Seen { position: record.position, version: record.version }
    }

    pub fn instance(instance: &Instance) -> Seen {
        Seen { position: instance.position, version: instance.model_version }
    }
}

/// Options of a change.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    pub precondition: Precondition,
    /// Only for creations, batches, lines of an import and new models.
    pub idempotency_key: Option<String>,
    pub dry_run: bool,
    /// Delay the result until the post hooks of the event have ended, at most this long.
    pub wait: Option<Duration>,
}

/// Answer to a change.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "one per change, and moved a few times: a box would cost more")]
pub enum Written {
    Created(Instance),
    Updated(Instance),
    /// The instance as it was.
    Deleted(Instance),
    DryRun(DryRun),
}

/// The effects of a change in a dry run.
#[derive(Clone, Debug, Serialize)]
pub struct DryRun {
    /// With position 0; `None` if a pre hook would stop it.
    pub event: Option<Event>,
    pub hooks: Vec<HookDecision>,
    /// Post hooks that would follow, by name.
    pub post_hooks: Vec<String>,
    /// The changes of instances that refer to deleted ones, by model.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub follows: Vec<Follows>,
    /// Lasting effects of the dry run itself, one sentence each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl DryRun {
    /// For changes without hooks; `None`: nothing would change.
    pub(super) const fn unhooked(event: Option<Event>) -> DryRun {
        DryRun { event, hooks: Vec::new(), post_hooks: Vec::new(), follows: Vec::new(), warnings: Vec::new() }
    }
}

/// How many instances of a model would be deleted, and how many would lose a reference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Follows {
    pub model: String,
    pub deleted: usize,
    pub updated: usize,
}

/// One change of a batch.
#[derive(Clone, Debug)]
pub struct Operation {
    pub model: String,
    pub change: InstanceChange,
    pub precondition: Precondition,
}

/// Answer to a batch.
#[derive(Clone, Debug)]
pub enum Batched {
    /// One result for each operation (`None`: a deletion), and the position of the last event.
    Done { results: Vec<Option<Instance>>, position: Position },
    /// One for each operation; the last one is the operation that a pre hook would stop.
    DryRun(Vec<DryRun>),
}

/// Answer to a change of a definition: a model or its hooks.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "one per change of a definition: boxing would only cost words")]
pub enum Defined<T> {
    /// The current state.
    Done(T),
    DryRun(DryRun),
}

impl<T> Defined<T> {
    /// For a change without effect.
    pub(super) fn unchanged(options: &WriteOptions, now: T) -> Self {
        if options.dry_run { Defined::DryRun(DryRun::unhooked(None)) } else { Defined::Done(now) }
    }

    pub(super) fn map<U>(self, f: impl FnOnce(T) -> U) -> Defined<U> {
        match self {
            Defined::Done(now) => Defined::Done(f(now)),
            Defined::DryRun(dry_run) => Defined::DryRun(dry_run),
        }
    }

    pub(super) fn warn(self, warnings: Vec<String>) -> Defined<T> {
        match self {
            Defined::DryRun(dry_run) => Defined::DryRun(DryRun { warnings, ..dry_run }),
            done => done,
        }
    }
}

/// The verdict of one pre hook.
#[derive(Clone, Debug, Serialize)]
pub struct HookDecision {
    pub name: String,
    /// For an instance that would be deleted or updated because of a deletion.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    pub engine: String,
    pub artifact: String,
    /// `accept`, `amend`, `reject` or `failed`.
    pub decision: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Whether the hook ran in shadow mode.
    pub shadow: bool,
    pub ms: f64,
}

/// One hook of a chain, in a request.
#[derive(Clone, Debug)]
pub struct BindingInput {
    pub name: Option<String>,
    pub engine: String,
    pub code: BindingCode,
    pub shadow: bool,
    /// The hook reads and writes with the rights of the actor.
    pub as_actor: bool,
    /// The language of a source, if it is specified.
    pub language: Option<SourceLanguage>,
    pub origin: HookOrigin,
}

/// Where the code of a binding is.
#[derive(Clone, Debug)]
pub enum BindingCode {
    /// Source text or component, inline.
    Inline(Vec<u8>),
    /// A sha256 that the server has (with or without `sha256:`; with it, the first digits are enough where they are unique),
    /// or a file name in `hooks/`.
    Artifact(String),
    /// A native library's file name in `hooks/`.
    Library(String),
}

/// Answer to an import.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Imported {
    pub created: u64,
    /// With `upsert`: the number of replaced instances.
    pub updated: u64,
    pub failed: u64,
    /// The first failures, in the order of the lines: at most 1,000, and 1 MiB of text.
    pub errors: Vec<ImportError>,
    /// Whether there were more failures than `errors` lists.
    pub errors_truncated: bool,
}

#[derive(Clone, Debug, Serialize)]
pub struct ImportError {
    /// From 1.
    pub line: u64,
    /// Problem type, such as `invalid`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub detail: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<crate::hooks::context::FieldError>,
}

/// Progress of a rebuild.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RebuildProgress {
    /// `idle`, `running`, `done` or `failed`
    pub state: &'static str,
    pub position: Position,
    pub head: Position,
    pub events: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Names the phases of one kind of change: before and after.
pub(crate) const fn phases(kind: snaphook_driver::EventKind) -> Option<(Phase, Phase)> {
    use snaphook_driver::EventKind as Kind;
    match kind {
        Kind::InstanceCreated => Some((Phase::PreCreate, Phase::PostCreate)),
        Kind::InstanceUpdated => Some((Phase::PreUpdate, Phase::PostUpdate)),
        Kind::InstanceDeleted => Some((Phase::PreDelete, Phase::PostDelete)),
        _ => None,
    }
}
