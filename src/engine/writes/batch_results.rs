//! The result of a batch: its instances as written, the same again for the same idempotency key, or the operation that
//! failed.

use std::collections::HashMap;

use snaphook_driver::time::Millis;
use snaphook_driver::{EventFilter, EventKind, EventQuery, Position};

use super::Writes;
use super::drafts::{is_following, is_own};
use super::steps::{One, Submitted};
use crate::catalog::FieldError;
use crate::engine::command::{Batched, Written};
use crate::engine::committer::Committed;
use crate::engine::error::{Error, ErrorKind, Result};
use crate::engine::idempotency::{IdempotencyKey, first_event};
use crate::engine::revisions;
use crate::memory::{Lease, Share};

/// Events per page of the changes that follow from deletions.
const FOLLOWING: usize = 20;

/// The result of a written batch, with the operation of each append.
pub(super) fn results(submitted: Vec<Submitted>, committed: &[Committed], operations: &[usize]) -> Batched {
    // Creation times of instances of this batch, which were unknown when later operations changed them.
    let mut created: HashMap<(String, String), Millis> = HashMap::new();
    let mut results = Vec::with_capacity(submitted.len());
    for (index, (one, committed)) in submitted.into_iter().zip(committed).enumerate() {
        if !is_own(operations, index) {
            continue;
        }
        results.push(match one.written(*committed) {
            Written::Created(instance) => {
                created.insert((instance.model.clone(), instance.id.clone()), instance.created_at);
                Some(instance)
            }
            Written::Updated(mut instance) => {
                if let Some(time) = created.get(&(instance.model.clone(), instance.id.clone())) {
                    instance.created_at = *time;
                }
                Some(instance)
            }
            Written::Deleted(_) | Written::DryRun(_) => None,
        });
    }
    Batched::Done { results, position: committed.last().map_or(0, |last| last.position) }
}

/// An error of the operation with this index: its pointers begin with it. If there are none, it gets a pointer to the
/// operation.
pub(super) fn at(index: usize, mut error: Error) -> Error {
    if matches!(error.kind, ErrorKind::Storage | ErrorKind::KeyReused) {
        return error;
    }
    for row in &mut error.errors {
        row.pointer.insert_str(0, &format!("/operations/{index}"));
    }
    if error.errors.is_empty() {
        error.errors.push(FieldError { pointer: format!("/operations/{index}"), message: error.detail.clone() });
    }
    error
}

impl Writes {
    /// The result of the first batch with this key. Without one: the position of an expired holder.
    pub(super) async fn first_results(
        &self,
        batch: &[One],
        key: &IdempotencyKey,
        memory: &Lease<&Share>,
    ) -> Result<(Option<Batched>, Option<Position>)> {
        let events = &self.core.stores.event;
        let Some(holder) = events.holder(&key.claim).await? else { return Ok((None, None)) };
        let Some(first) = first_event(&**events, &self.core.tail, &self.core.metrics, key, &holder).await? else {
            return Ok((None, Some(holder.position)));
        };
        let mut query = EventQuery { after: first.position - 1, limit: 0, filter: EventFilter::default() };
        let mut results = Vec::with_capacity(batch.len());
        let mut ones = batch.iter();
        // The same key means the same operations, and the events of a batch are consecutive, each with those that
        // follow from it.
        loop {
            query.limit = u32::try_from(ones.len().max(FOLLOWING)).unwrap_or(u32::MAX);
            let page = events.read(&query, None).await?;
            if page.events.is_empty() {
                break;
            }
            let mut is_end = false;
            for event in page.events {
                if !results.is_empty() && is_following(event.cause.as_ref()) {
                    query.after = event.position;
                    continue;
                }
                let Some(one) = ones.next() else {
                    is_end = true;
                    break;
                };
                let id = event.instance.as_deref();
                if event.model != one.model || one.command.named().is_some_and(|named| id != Some(named)) {
                    return Err(not_found_again(first.position));
                }
                query.after = event.position;
                memory.grow(event.data.as_ref().map_or(0, |data| data.len()))?;
                let is_deletion = event.kind == EventKind::InstanceDeleted;
                let instance = revisions::left_by(&self.core, event).await?;
                if instance.is_none() && !is_deletion {
                    return Err(not_found_again(first.position));
                }
                results.push(instance);
            }
            if is_end {
                break;
            }
        }
        if results.len() < batch.len() {
            return Err(not_found_again(first.position));
        }
        self.core.tail.reached_soon(query.after).await?;
        Ok((Some(Batched::Done { results, position: query.after }), None))
    }
}

fn not_found_again(position: Position) -> Error {
    let detail = format!(
        "a batch with this `Idempotency-Key` was written at position {position}, but the events there are not those of \
         its operations; read the instances"
    );
    Error::new(ErrorKind::Storage, detail)
}
