//! What was bound in a phase before, and the code of it: read from the events of the model's definition.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use snaphook_driver::time::{self, Millis};
use snaphook_driver::{Actor, EventKind, Position, Stream};

use super::Definitions;
use crate::catalog::{HookMode, HookOrigin, HookRecord, SourceLanguage, WEBHOOK};
use crate::config::Phase;
use crate::engine::change::DefinitionChange;
use crate::engine::error::{Error, ErrorKind, Result};

/// Digits of a whole digest, and the fewest that may stand for it.
pub(super) const DIGEST_LENGTH: usize = 64;
const DIGITS_MIN: usize = 4;

/// Events that one request looks at, and how long it may take: each has a whole definition, which may be large.
const SCANNED_MAX: usize = 1000;
const SCAN_TIME_MAX: Duration = Duration::from_secs(2);
/// Digests that an ambiguous beginning is told of.
const NAMED_MAX: usize = 5;

/// A hook of a chain, as it was bound.
#[derive(Debug, Serialize)]
pub struct PastHook {
    pub name: String,
    pub engine: String,
    pub artifact: String,
    pub size: u64,
    pub mode: HookMode,
    pub origin: HookOrigin,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<SourceLanguage>,
    /// `actor`: it reads and writes with the right of the actor.
    #[serde(rename = "as", skip_serializing_if = "Option::is_none")]
    pub acts_as: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub library: Option<String>,
}

impl From<HookRecord> for PastHook {
    fn from(record: HookRecord) -> PastHook {
        PastHook {
            name: record.name,
            engine: record.engine,
            artifact: format!("sha256:{}", record.artifact),
            size: record.size,
            mode: record.mode,
            origin: record.origin,
            language: record.language,
            acts_as: record.as_actor.then_some("actor"),
            library: record.library,
        }
    }
}

/// A phase's chain from one event on.
#[derive(Debug, Serialize)]
pub struct PastChain {
    /// Of the event that bound it.
    pub position: Position,
    #[serde(with = "time")]
    pub time: Millis,
    pub actor: Option<Arc<Actor>>,
    /// Empty: the hooks were removed.
    pub chain: Vec<PastHook>,
}

/// The chains of a phase, newest first.
#[derive(Debug, Serialize)]
pub struct PastChains {
    pub items: Vec<PastChain>,
    /// What to ask for as `before` to go on; then a page may have no items.
    pub next: Option<Position>,
}

/// Digests of what was bound to a model.
pub(super) struct PastArtifacts {
    artifacts: BTreeSet<String>,
    /// Whether all changes were looked at.
    is_all: bool,
}

/// One event of a definition that changed the hooks of a phase.
struct Bound {
    position: Position,
    time: Millis,
    actor: Option<Arc<Actor>>,
    phase: Phase,
    records: Vec<HookRecord>,
}

impl Definitions {
    /// The chains that a phase has had since its model was made, from before a position on.
    pub async fn hook_history(
        &self,
        model: &str,
        phase: Phase,
        before: Option<Position>,
        limit: u32,
    ) -> Result<PastChains> {
        self.core.models.require(model)?;
        let limit = limit as usize;
        let mut items = Vec::new();
        let next = self
            .each_binding(model, before, |bound| {
                if bound.phase == phase {
                    let Bound { position, time, actor, records, .. } = bound;
                    let chain = records.into_iter().map(PastHook::from).collect();
                    items.push(PastChain { position, time, actor, chain });
                }
                items.len() < limit
            })
            .await?;
        Ok(PastChains { items, next })
    }

    /// The code of a hook of a phase: of one that is bound or, by its digest or the first digits of it, was bound before.
    pub async fn hook_source(
        &self,
        model: &str,
        phase: Phase,
        hook: Option<&str>,
        artifact: Option<&str>,
    ) -> Result<(HookRecord, Vec<u8>)> {
        let record = match artifact {
            None => self.bound_hook(model, phase, hook)?,
            Some(artifact) => self.past_hook(model, phase, hook, artifact).await?,
        };
        let name = &record.name;
        if let Some(library) = &record.library {
            return Err(Error::not_found(format!(
                "the hook `{name}` is the library `{library}` in the hooks directory, which this API does not return"
            )));
        }
        if record.engine == WEBHOOK {
            return Err(Error::not_found(format!("the hook `{name}` is a webhook, which has no code")));
        }
        match self.core.stores.event.get_blob(&record.artifact).await? {
            Some(bytes) => Ok((record, bytes)),
            None => Err(Error::new(
                ErrorKind::Storage,
                format!("the event store lost artifact `sha256:{}`", record.artifact),
            )),
        }
    }

    fn bound_hook(&self, model: &str, phase: Phase, hook: Option<&str>) -> Result<HookRecord> {
        let entry = self.core.models.require(model)?;
        let chain = entry.model.chain(phase);
        match (hook, chain) {
            (None, [record]) => Ok(record.clone()),
            (None, []) => Err(Error::not_found(format!("`{model}.{phase}` has no hooks"))),
            (None, several) => {
                let names: Vec<&str> = several.iter().map(|record| record.name.as_str()).collect();
                Err(Error::bad_request(format!(
                    "`{model}.{phase}` has {} hooks, name one with `hook`: {}",
                    several.len(),
                    names.join(", ")
                )))
            }
            (Some(name), chain) => chain
                .iter()
                .find(|record| record.name == name)
                .cloned()
                .ok_or_else(|| Error::not_found(format!("`{model}.{phase}` has no hook `{}`", name.escape_debug()))),
        }
    }

    async fn past_hook(&self, model: &str, phase: Phase, hook: Option<&str>, artifact: &str) -> Result<HookRecord> {
        let digits = artifact.strip_prefix("sha256:").unwrap_or(artifact);
        check_digits(digits)?;
        let entry = self.core.models.require(model)?;
        let mut found: Vec<HookRecord> = Vec::new();
        let mut look_at = |records: &[HookRecord]| {
            let is_meant = |record: &&HookRecord| {
                record.artifact.starts_with(digits) && hook.is_none_or(|name| record.name == name)
            };
            for record in records.iter().filter(is_meant) {
                if !found.iter().any(|known| known.artifact == record.artifact) {
                    found.push(record.clone());
                }
            }
            // A whole digest has one artifact.
            digits.len() < DIGEST_LENGTH || found.is_empty()
        };
        // What is bound now may be bound for longer than the search goes back.
        let mut left = None;
        if look_at(entry.model.chain(phase)) {
            left = self.each_binding(model, None, |bound| bound.phase != phase || look_at(&bound.records)).await?;
        }
        match found.len() {
            0 => {
                let all = match left {
                    Some(_) => "in the latest changes of the model, and earlier ones are not searched",
                    None => "since the model was created",
                };
                Err(Error::not_found(format!("`{model}.{phase}` had no artifact that begins with `{digits}` {all}")))
            }
            1 => Ok(found.swap_remove(0)),
            _ => Err(ambiguous(digits, found.iter().map(|record| record.artifact.as_str()))),
        }
    }

    /// The digest that begins with these digits: of what is bound anywhere, or was bound to the model. `past`: what was bound,
    /// once it was read.
    pub(super) async fn whole_digest(
        &self,
        model: Option<&str>,
        digits: &str,
        past: &mut Option<PastArtifacts>,
    ) -> Result<String> {
        check_digits(digits)?;
        let entries = self.core.models.all();
        let chains = entries.iter().flat_map(|entry| entry.model.record.hooks.values().flatten());
        let mut found: BTreeSet<String> =
            chains.map(|record| &record.artifact).filter(|artifact| artifact.starts_with(digits)).cloned().collect();
        let past = match past {
            Some(past) => past,
            None => past.insert(self.past_artifacts(model).await?),
        };
        found.extend(past.artifacts.iter().filter(|artifact| artifact.starts_with(digits)).cloned());
        if found.len() > 1 {
            return Err(ambiguous(digits, found.iter().map(String::as_str)));
        }
        found.pop_first().ok_or_else(|| {
            let searched = match past.is_all {
                true => "no hook has or had an artifact",
                false => "no hook has an artifact, or had one in the latest changes of the model,",
            };
            Error::bad_request(format!(
                "{searched} that begins with `sha256:{digits}`; the whole digest names any that the server keeps"
            ))
        })
    }

    async fn past_artifacts(&self, model: Option<&str>) -> Result<PastArtifacts> {
        let mut past = PastArtifacts { artifacts: BTreeSet::new(), is_all: true };
        if let Some(model) = model {
            let left = self.each_binding(model, None, |bound| {
                past.artifacts.extend(bound.records.into_iter().map(|record| record.artifact));
                true
            });
            past.is_all = left.await?.is_none();
        }
        Ok(past)
    }

    /// Hands over every change of the hooks of a model since it was made, newest first, until `on` has enough. Gives the
    /// position to go on before, if that is not all.
    async fn each_binding(
        &self,
        model: &str,
        before: Option<Position>,
        mut on: impl FnMut(Bound) -> bool,
    ) -> Result<Option<Position>> {
        let stream = Stream::of_model(model);
        let mut at_most = before.unwrap_or(Position::MAX);
        if before.is_some() {
            let Some(earlier) = at_most.checked_sub(1) else { return Ok(None) };
            at_most = earlier;
        }
        let started = Instant::now();
        for _ in 0..SCANNED_MAX {
            if started.elapsed() > SCAN_TIME_MAX {
                break;
            }
            let Some(event) = self.core.stores.event.last(&stream, at_most).await? else { return Ok(None) };
            match event.kind {
                EventKind::HookUpdated | EventKind::HookDeleted => {
                    let change = DefinitionChange::from_event(&event)?;
                    if let Some(phase) = change.phase {
                        let records = change.definition.hooks.get(&phase).cloned().unwrap_or_default();
                        let (position, time, actor) = (event.position, event.time, event.actor.clone());
                        if !on(Bound { position, time, actor, phase, records }) {
                            return Ok(Some(position));
                        }
                    }
                }
                // What came before was another model of that name.
                EventKind::ModelCreated | EventKind::ModelDeleted => return Ok(None),
                _ => {}
            }
            let Some(earlier) = event.position.checked_sub(1) else { return Ok(None) };
            at_most = earlier;
        }
        Ok(Some(at_most.saturating_add(1)))
    }
}

pub(super) fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn check_digits(digits: &str) -> Result<()> {
    if (DIGITS_MIN..=DIGEST_LENGTH).contains(&digits.len()) && is_hex(digits) {
        return Ok(());
    }
    let shown: String = digits.chars().take(80).collect();
    Err(Error::bad_request(format!(
        "`{}` is not a digest, expected {DIGITS_MIN} to {DIGEST_LENGTH} of the digits 0-9 and a-f",
        shown.escape_debug()
    )))
}

fn ambiguous<'a>(digits: &str, artifacts: impl Iterator<Item = &'a str>) -> Error {
    let names: Vec<String> = artifacts.take(NAMED_MAX).map(|artifact| format!("sha256:{artifact}")).collect();
    Error::bad_request(format!("several artifacts begin with `{digits}`, add digits: {}", names.join(", ")))
}
