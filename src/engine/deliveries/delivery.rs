//! Runs the post hooks of one event in order, retries them, and gives up after the last attempt.
//!
//! The lease of an event is renewed while its hooks run, so a hook may run for as long as its limits allow. Waiting for
//! a permit or for an unavailable model store does not count as an attempt.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use snaphook_driver::{Delivery, ErrorRecord, Event, Json, Position, time};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::pace::{self, backoff, delay};
use crate::config::Phase;
use crate::engine::carried::carried;
use crate::engine::command::{DEPTH_MAX, phases};
use crate::engine::core::Core;
use crate::engine::error::Result;
use crate::engine::models::LiveModel;
use crate::engine::troubles::Part;
use crate::hooks::context::{Context, EventRef, Failure, FailureCause, Outcome, Retry, Run};
use crate::hooks::host::BoundHook;
use crate::telemetry::line::one_line;
use crate::telemetry::trace::{Scope, begin, scope};

/// How long a delivery belongs to this node before another node may take it, unless the lease is renewed.
pub(super) const LEASE: Duration = Duration::from_millis(if cfg!(test) { 2_400 } else { 12_000 });
/// How often a group is checked without a wake-up: for leases that expired on other nodes, long delays, and leases of
/// an earlier run of this node.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// The state of one event between attempts, on any node, stored with the event in its group. Hooks are identified by
/// name, because the chain may change before the next attempt.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Tries {
    /// Hooks that have ended, successfully or not. New code under one of these names does not run for this event.
    #[serde(default)]
    done: Vec<String>,
    /// The hook that failed last, its code, and how often.
    #[serde(default)]
    failing: Option<(String, String, u32)>,
    /// Whether the last failure was that of a receiver, which may be unavailable for long.
    #[serde(default)]
    patient: bool,
    /// Attempts that ended with a crash of the server: a lower bound for each hook of the chain.
    #[serde(default)]
    earlier: u32,
    /// How often the event had been claimed when this note was written.
    #[serde(default)]
    claims: u32,
}

impl Tries {
    fn of(&self, hook: &BoundHook) -> u32 {
        let id = hook.id();
        match &self.failing {
            Some((name, artifact, failed)) if *name == id.name && *artifact == id.artifact => *failed,
            _ => self.earlier,
        }
    }

    /// Whether this hook failed last, because of a receiver that may be unavailable for long.
    fn is_patient(&self, hook: &BoundHook) -> bool {
        let id = hook.id();
        self.patient
            && self.failing.as_ref().is_some_and(|(name, artifact, _)| *name == id.name && *artifact == id.artifact)
    }

    fn failed(&mut self, hook: &BoundHook, failed: u32) {
        let id = hook.id();
        self.failing = Some((id.name.clone(), id.artifact.clone(), failed));
    }

    fn done(&mut self, hook: &BoundHook) {
        self.done.push(hook.binding().id.name.clone());
        self.failing = None;
        self.patient = false;
    }

    /// It consists of names and numbers, so serializing it cannot fail.
    fn note(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// How a delivery ended.
enum Ended {
    Done,
    Again(Duration),
    /// Another node has the event, or may take it soon.
    Lost,
}

/// Processes one event of a group, claimed at `claimed`; notifies `again` when it is to be delivered again.
pub(super) async fn deliver(
    core: Arc<Core>,
    group: String,
    delivery: Delivery,
    again: Arc<Notify>,
    claimed: Instant,
    stop: watch::Receiver<bool>,
) {
    let scope = scope_of(&delivery.event);
    scope::within(scope, deal_with(core, group, delivery, again, claimed, stop)).await;
}

/// The trace scope for the hooks of an event: that of the request that wrote the event.
fn scope_of(event: &Event) -> Option<Arc<Scope>> {
    begin::resume(event.request_id.as_deref(), event.trace.as_deref())
}

async fn deal_with(
    core: Arc<Core>,
    group: String,
    delivery: Delivery,
    again: Arc<Notify>,
    claimed: Instant,
    stop: watch::Receiver<bool>,
) {
    let Delivery { event, attempt, token, note } = delivery;
    let (position, event) = (event.position, Arc::new(event));
    core.metrics.deliveries.fetch_add(1, Ordering::Relaxed);
    let mut tries = earlier_tries(&core, &event, attempt, note.as_deref());
    let lease = Lease { core: &core, group: &group, position, token };
    let ended = tokio::select! {
        ended = run_chain(&core, &event, &mut tries, &lease) => ended,
        ended = lease.keep(claimed) => ended,
    };
    let stored = match ended {
        Ended::Done => {
            let acknowledged = core.stores.event.ack(&group, &[(position, token)]).await;
            core.waiters.settle(position);
            acknowledged
        }
        Ended::Again(delay) => {
            let note = tries.note();
            let released = core.stores.event.release(&group, position, token, delay, Some(&note)).await;
            // After a longer delay its group is checked anyway. A receiver may delay any number of events for minutes.
            if delay < LOOK_AGAIN {
                tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    again.notify_one();
                });
            }
            released
        }
        Ended::Lost => {
            tracing::warn!(
                position,
                "the lease of a post hook's event ended while it ran, or could not be renewed; it runs again"
            );
            Ok(())
        }
    };
    match stored {
        Ok(()) => core.troubles.works(Part::Groups),
        // The group was removed with the hooks.
        Err(_) if *stop.borrow() => {}
        // The lease expires and the event is delivered again.
        Err(error) => core.troubles.failed(Part::Groups, error),
    }
}

/// The right to work on an event.
struct Lease<'a> {
    core: &'a Core,
    group: &'a str,
    position: Position,
    token: u64,
}

impl Lease<'_> {
    /// Renews the lease until it is lost or may be lost: a run that cannot renew its lease ends before another node
    /// begins.
    async fn keep(&self, mut since: Instant) -> Ended {
        let mut due = since + LEASE / 3;
        loop {
            // A claim that took long is renewed immediately.
            tokio::time::sleep_until(due).await;
            let (began, last) = (Instant::now(), since + LEASE - LEASE / 6);
            match tokio::time::timeout_at(last.max(began + LEASE / 6), self.renewed(None)).await {
                Ok(Ok(true)) => (since, due) = (began, began + LEASE / 3),
                // There is time for another attempt.
                Ok(Err(())) if began < last => due = (Instant::now() + LEASE / 3).min(last),
                Ok(_) | Err(_) => return Ended::Lost,
            }
        }
    }

    /// `false` if another node has the event.
    async fn renew(&self, note: Option<&str>) -> bool {
        self.renewed(note).await.unwrap_or(true)
    }

    /// The same; an error, already logged, if that is unknown.
    async fn renewed(&self, note: Option<&str>) -> std::result::Result<bool, ()> {
        let Lease { group, position, token, .. } = *self;
        self.core.stores.event.renew(group, position, token, LEASE, note).await.map_err(|error| {
            tracing::warn!(position, "the lease of a post hook's event was not renewed: {error}");
        })
    }
}

async fn run_chain(core: &Core, event: &Arc<Event>, tries: &mut Tries, lease: &Lease<'_>) -> Ended {
    let Some((_, phase)) = phases(event.kind) else { return Ended::Done };
    // The log has an event a moment before the model store; the hook must see the change that started it.
    core.tail.reached(event.position).await;
    let mut before = None;
    let mut waited = 0;
    let mut is_news = false;
    loop {
        let outages = core.availability.begun();
        if core.until_available(&event.model).await.is_err() {
            return Ended::Again(Duration::ZERO);
        }
        // The current chain: it may change between two attempts.
        let Some(entry) = core.models.get(&event.model) else { return Ended::Done };
        if !entry.reacts_to(event.kind, event.position) {
            return Ended::Done;
        }
        let next = entry.chain(phase).iter().find(|hook| !tries.done.contains(&hook.binding().id.name));
        let Some(hook) = next else { return Ended::Done };
        // If another node takes over, it does not repeat these runs.
        if std::mem::take(&mut is_news) && !lease.renew(Some(&tries.note())).await {
            return Ended::Lost;
        }
        let before = match &before {
            Some(before) => before,
            None => match data_before(core, event).await {
                Ok(found) => before.insert(found),
                Err(error) => {
                    tracing::error!(
                        position = event.position,
                        "an event's past cannot be read, its hooks wait: {error}"
                    );
                    return Ended::Again(backoff(waited + 1));
                }
            },
        };
        let failed = tries.of(hook);
        let attempts_max = pace::attempts_max(&core.config.load().hooks, tries.is_patient(hook));
        if failed > attempts_max {
            // Only runs that ended with a crash of the server reach this number. One crash may have had another cause,
            // so the hook ran once more than usual; a further run would crash the server at each start.
            let message =
                format!("it failed, or the server ended while it ran, {failed} times, so it did not run again");
            let failure = Failure { cause: FailureCause::Internal, message, limit: None };
            let run = Run::unstarted(&hook.id(), failure.clone());
            if let Err(error) = give_up(core, hook, event, &failure, &run, failed).await {
                core.troubles.failed(Part::Errors, error);
                return Ended::Again(backoff(attempts_max));
            }
            core.troubles.works(Part::Errors);
            tries.done(hook);
            is_news = true;
            continue;
        }
        let context = post_context(&entry, phase, event, before.clone(), failed + 1);
        let run = run_judged(core, hook, &context).await;
        let Outcome::Failed(failure) = &run.outcome else {
            tries.done(hook);
            is_news = true;
            continue;
        };
        core.metrics.post_failures.fetch_add(1, Ordering::Relaxed);
        if failure.cause == FailureCause::Overloaded {
            // The hook did not run, so this is not an attempt. The event is not released, because after a restart only
            // claims show the attempts.
            waited += 1;
            if core.pause(backoff(waited)).await.is_err() {
                return Ended::Again(Duration::ZERO);
            }
            continue;
        }
        if core.availability.check_model(&event.model).is_err() || core.availability.begun() != outages {
            // The model store may have been unavailable during the run, which is not the hook's fault.
            continue;
        }
        waited = 0;
        let failed = failed + 1;
        tries.failed(hook, failed);
        tries.patient = matches!(run.retry, Retry::Patient(_));
        let attempts_max = pace::attempts_max(&core.config.load().hooks, tries.patient);
        if failed < attempts_max && failure.cause != FailureCause::Depth && run.retry != Retry::Never {
            return Ended::Again(delay(failed, run.retry));
        }
        if let Err(error) = give_up(core, hook, event, failure, &run, failed).await {
            core.troubles.failed(Part::Errors, error);
            tries.failed(hook, attempts_max.saturating_sub(1));
            return Ended::Again(backoff(attempts_max));
        }
        core.troubles.works(Part::Errors);
        tries.done(hook);
        is_news = true;
    }
}

/// Decides whether a run of a post hook counts as a failure.
fn judge(run: &mut Run, context: &Context) {
    if let Outcome::Reject(rejection) = &run.outcome {
        let message = rejection.message.clone();
        run.outcome = Outcome::Failed(Failure { cause: FailureCause::Exception, message, limit: None });
    }
    // At the maximum depth every write is rejected, and a retry would not help. Writes without a grant are denied
    // before that.
    if let Outcome::Failed(failure) = &mut run.outcome
        && context.depth >= DEPTH_MAX
        && run.asked.iter().any(|asked| asked.capability == "write" && asked.granted)
    {
        failure.cause = FailureCause::Depth;
        failure.limit = Some(format!("depth {DEPTH_MAX}"));
    }
}

/// The state of an event that was claimed for the `attempt`th time. Claims without a note ended with a crash of the
/// server. Those that cannot belong to the other hooks of the chain count for each hook, so an event that crashes the
/// server eventually fails as well.
fn earlier_tries(core: &Core, event: &Event, attempt: u32, note: Option<&str>) -> Tries {
    let mut tries: Tries = note.and_then(|note| snaphook_driver::json::typed(note).ok()).unwrap_or_default();
    let left: Vec<_> = core.models.get(&event.model).map_or_else(Vec::new, |entry| {
        let chain = phases(event.kind).map_or(&[][..], |(_, phase)| entry.chain(phase));
        let ids = chain.iter().map(|hook| hook.id());
        ids.filter(|id| !tries.done.contains(&id.name)).collect()
    });
    let attempts_max = core.config.load().hooks.attempts_max;
    let others = u32::try_from(left.len()).unwrap_or(u32::MAX).saturating_sub(1);
    let lost = attempt.saturating_sub(1).saturating_sub(tries.claims);
    let lost = lost.saturating_sub(attempts_max.saturating_sub(1).saturating_mul(others));
    match &mut tries.failing {
        Some((name, artifact, failed))
            if left.first().is_some_and(|next| next.name == *name && next.artifact == *artifact) =>
        {
            *failed = failed.saturating_add(lost);
        }
        _ => tries.earlier = tries.earlier.saturating_add(lost),
    }
    tries.claims = attempt;
    tries
}

/// The data before an event, in the form of the data after it.
async fn data_before(core: &Core, event: &Event) -> Result<Option<Json>> {
    if event.revision <= 1 {
        return Ok(None);
    }
    let earlier = core.stores.event.last(&event.stream(), event.position - 1).await?;
    let Some(Event { position, model_version, data: Some(data), .. }) = earlier else { return Ok(None) };
    if model_version == event.model_version {
        return Ok(Some(data));
    }
    carried(&*core.stores.event, &event.model, data, position, event.position).await.map(Some)
}

fn post_context(entry: &LiveModel, phase: Phase, event: &Arc<Event>, before: Option<Json>, attempt: u32) -> Context {
    Context {
        phase,
        model: event.model.clone(),
        model_version: entry.model.record.version,
        instance: event.instance.clone().unwrap_or_default(),
        before,
        after: event.data.clone(),
        actor: event.actor.clone(),
        request_id: event.request_id.clone(),
        time: event.time,
        event: Some(EventRef { position: event.position, id: event.id.clone(), record: Some(Arc::clone(event)) }),
        attempt,
        depth: event.cause.as_ref().map_or(0, |cause| cause.depth),
        ahead: None,
    }
}

async fn run_judged(core: &Core, hook: &BoundHook, context: &Context) -> Run {
    core.host.runs.checked(hook, context, |run| judge(run, context)).await
}

/// Runs one hook of one event, outside the group; for retries by hand.
pub(super) async fn run_post_hook(
    core: &Core,
    hook: &BoundHook,
    entry: &LiveModel,
    event: &Event,
    attempt: u32,
) -> Result<Run> {
    let before = data_before(core, event).await?;
    let event = Arc::new(event.clone());
    let context = post_context(entry, hook.binding().id.phase, &event, before, attempt);
    Ok(scope::within(scope_of(&event), run_judged(core, hook, &context)).await)
}

/// Records a failed hook in the error store.
async fn give_up(
    core: &Core,
    hook: &BoundHook,
    event: &Event,
    failure: &Failure,
    run: &Run,
    attempts: u32,
) -> snaphook_driver::Result<()> {
    let record = error_record(hook, event, failure, run, attempts);
    tracing::warn!(
        hook = hook.label(),
        position = event.position,
        attempts,
        error = record.id,
        "a post hook failed for good: {}",
        one_line(&record.message)
    );
    core.stores.error.record(&record).await?;
    core.metrics.given_up.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// The record of a failed run for the error store.
pub(super) fn error_record(
    hook: &BoundHook,
    event: &Event,
    failure: &Failure,
    run: &Run,
    attempts: u32,
) -> ErrorRecord {
    let binding = hook.binding();
    ErrorRecord {
        id: error_id(event, binding.id.phase, &binding.id.name),
        time: time::now(),
        model: binding.id.model.clone(),
        phase: binding.id.phase.as_str().to_owned(),
        hook: binding.id.name.clone(),
        engine: binding.engine.clone(),
        artifact: run.hook.artifact.clone(),
        event: event.clone(),
        attempts,
        cause: failure.cause.as_str().to_owned(),
        message: failure.message.clone(),
        limit: failure.limit.clone(),
        log: run.log.iter().map(|line| format!("{} {}", line.level.as_str(), line.message)).collect(),
    }
}

/// The id of a failure: always the same for the same hook and event, so that a failure repeated by a crash is recorded
/// once. Ids sort in the order of the log; they have the form of a UUIDv7 with the time of the event.
fn error_id(event: &Event, phase: Phase, hook: &str) -> String {
    let digest = Sha256::new().chain_update(&event.id).chain_update([0]).chain_update(phase.as_str());
    let digest = digest.chain_update([0]).chain_update(hook).finalize();
    let which = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]) >> 2;
    let (time, position) = (event.time.max(0) as u128, u128::from(event.position));
    let bits = ((time & 0xffff_ffff_ffff) << 80)
        | (7 << 76)
        | (((position >> 32) & 0xfff) << 64)
        | (0b10 << 62)
        | ((position & 0xffff_ffff) << 30)
        | u128::from(which);
    uuid::Uuid::from_u128(bits).to_string()
}

#[cfg(test)]
mod tests {
    use snaphook_driver::{EventKind, Stream};
    use snaphook_driver_testkit::sample;

    use super::*;

    #[test]
    fn the_id_of_a_failure() {
        let stream = Stream::of_instance("m", "i");
        let first = Event { position: 7, ..sample::event(EventKind::InstanceCreated, &stream, Some("{}")) };
        let id = |event: &Event, hook| error_id(event, Phase::PostCreate, hook);
        assert_eq!(id(&first, "h"), id(&first.clone(), "h"));
        let parsed = uuid::Uuid::try_parse(&id(&first, "h")).unwrap();
        assert_eq!((parsed.get_version_num(), parsed.get_variant()), (7, uuid::Variant::RFC4122));
        assert_ne!(id(&first, "h"), id(&first, "i"));
        assert_ne!(id(&first, "h"), error_id(&first, Phase::PostUpdate, "h"));
        // In the order of the log, also within a millisecond.
        let mut last = id(&first, "h");
        for position in [8, 9, 0xffff_ffff, 0x1_0000_0000, 0xfff_ffff_ffff] {
            let next = id(&Event { position, ..first.clone() }, "h");
            assert!(next > last, "{position}: {next} after {last}");
            last = next;
        }
        assert!(id(&Event { time: first.time + 1, ..first.clone() }, "h") > last);
        id(&Event { time: -1, position: u64::MAX, ..first }, "h");
    }
}
