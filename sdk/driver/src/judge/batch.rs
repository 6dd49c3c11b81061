//! Judging one batch.
//!
//! Each row is checked against the log and against the changes of earlier rows. A row that conflicts has no effect, so
//! nothing ever has to be undone. The result never depends on the order of hash maps.

use std::collections::{BTreeMap, HashMap};

use super::state::{HolderRef, LogEnd, LogState, Tail};
use crate::append::{Append, Appended, Claim, Conflict, Expected, Quiet};
use crate::error::Result;
use crate::event::{Position, StreamRef};
use crate::time::Millis;

/// The verdict on a batch. The store writes it atomically.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged<'a> {
    /// The result of each append.
    pub answers: Vec<Result<Appended, Conflict>>,
    /// The rows to write, in order.
    pub accepted: Vec<Accepted<'a>>,
    /// If set, the store removes, after the rows, claims that have expired by this time: the
    /// [`REMOVALS_MAX`](super::REMOVALS_MAX) that expired first, ordered by key where times are equal. Then it passes
    /// their number to the end of the log ([`LogEnd::removed`]). No result depends on a removal; it only affects which
    /// claims are visible.
    pub removal: Option<Millis>,
    /// The end of the log after the batch. Its next removal time does not change until [`LogEnd::removed`] is called.
    pub end: LogEnd,
}

impl<'a> Judged<'a> {
    /// The ends of all streams with new events, for stores that write all rows at once.
    pub fn tails(&self) -> BTreeMap<StreamRef<'a>, Tail> {
        let mut tails = BTreeMap::new();
        // In order, so that the last row of a stream determines its tail.
        tails.extend(self.accepted.iter().map(|row| (row.stream(), row.tail())));
        tails
    }

    /// All keys whose holders change, with their holders after all rows; `None` means that nobody holds the key.
    pub fn claims(&self) -> BTreeMap<&'a str, Option<HolderRef<'a>>> {
        let mut claims = BTreeMap::new();
        claims.extend(self.accepted.iter().flat_map(Accepted::keys));
        claims
    }
}

/// A row without a conflict. Its effects follow from the append and its position: first its
/// [releases](Append::releases) are released, then its claims are taken, then its event is written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Accepted<'a> {
    pub append: &'a Append,
    pub appended: Appended,
}

impl<'a> Accepted<'a> {
    /// The stream of the event.
    pub fn stream(&self) -> StreamRef<'a> {
        StreamRef::of(&self.append.event)
    }

    /// The end of that stream from now on.
    pub fn tail(&self) -> Tail {
        Tail { position: self.appended.position, ended: self.append.event.kind.ends_stream() }
    }

    /// The keys that the row changes, in order, with their new holders. If a key occurs twice, its last holder counts.
    fn keys(&self) -> impl Iterator<Item = (&'a str, Option<HolderRef<'a>>)> + use<'a> {
        let released = self.append.releases.iter().map(|key| (key.as_str(), None));
        released.chain(self.claims().map(|(key, holder)| (key, Some(holder))))
    }

    /// The keys that the row takes, in order, with their new holders. If a key occurs twice, its last holder counts.
    pub fn claims(&self) -> impl Iterator<Item = (&'a str, HolderRef<'a>)> + use<'a> {
        let (stream, position) = (self.stream(), self.appended.position);
        self.append.claims.iter().map(move |claim| (claim.key.as_str(), holder(claim, stream, position)))
    }
}

/// Judges a batch of appends to a log that ends at `end`. With `atomic`, nothing is written if any append has a
/// conflict. Returns an error only if the state does.
pub fn judge<'a>(end: LogEnd, batch: &'a [Append], atomic: bool, log: &mut impl LogState) -> Result<Judged<'a>> {
    let tails = HashMap::with_capacity(batch.len());
    let mut judge = Judge { log, end, tails, claims: HashMap::new(), instances: BTreeMap::new() };
    let mut answers = Vec::with_capacity(batch.len());
    let mut accepted = Vec::with_capacity(batch.len());
    for append in batch {
        let answer = judge.row(append)?;
        if atomic && answer.is_err() {
            let failed = answers.len();
            answers.clear();
            answers.resize(batch.len(), Err(Conflict::Batch));
            answers[failed] = answer;
            return Ok(Judged { answers, accepted: Vec::new(), removal: None, end });
        }
        accepted.extend(answer.as_ref().ok().map(|appended| Accepted { append, appended: *appended }));
        answers.push(answer);
    }
    let end = judge.end;
    let is_due = !accepted.is_empty() && end.time >= end.next_removal;
    Ok(Judged { answers, accepted, removal: is_due.then_some(end.time), end })
}

/// The log, and the changes of the rows so far.
struct Judge<'l, 'a, L> {
    log: &'l mut L,
    end: LogEnd,
    tails: HashMap<StreamRef<'a>, Tail>,
    claims: HashMap<&'a str, Option<HolderRef<'a>>>,
    /// Position of the last event of a model's instances among the rows.
    instances: BTreeMap<&'a str, Position>,
}

impl<'a, L: LogState> Judge<'_, 'a, L> {
    fn row(&mut self, append: &'a Append) -> Result<Result<Appended, Conflict>> {
        let (event, stream) = (&append.event, StreamRef::of(&append.event));
        let after = self.end.position;
        let appended = Appended { position: after + 1, time: event.time.max(self.end.time), after };
        if let Err(conflict) = self.check(append, stream)? {
            return Ok(Err(conflict));
        }
        if !(append.claims.is_empty() && append.releases.is_empty()) {
            match self.claims_of(append, stream, &appended)? {
                Ok(changed) => self.claims.extend(changed),
                Err(conflict) => return Ok(Err(conflict)),
            }
        }
        self.tails.insert(stream, Accepted { append, appended }.tail());
        if event.instance.is_some() {
            self.instances.insert(&event.model, appended.position);
        }
        (self.end.position, self.end.time) = (appended.position, appended.time);
        Ok(Ok(appended))
    }

    /// Checks `expected`, `requires` and `quiet`.
    fn check(&mut self, append: &'a Append, stream: StreamRef<'a>) -> Result<Result<(), Conflict>> {
        if append.expected != Expected::Any {
            let Tail { position: last, ended } = self.tail(stream)?;
            let holds = match append.expected {
                Expected::Any => true,
                Expected::New => last == 0 || ended,
                Expected::At(position) => last == position && !ended,
            };
            if !holds {
                return Ok(Err(Conflict::Stream { last, ended }));
            }
        }
        for require in &append.requires {
            let last = self.tail(StreamRef::from(&require.stream))?.position;
            if last != require.position {
                return Ok(Err(Conflict::Required { stream: require.stream.clone(), last }));
            }
        }
        if let Some(quiet) = &append.quiet {
            let last = self.last_of_instances(quiet)?;
            if last > quiet.since {
                return Ok(Err(Conflict::NotQuiet { last }));
            }
        }
        Ok(Ok(()))
    }

    /// The changes of the keys that a row releases and takes.
    fn claims_of(
        &mut self,
        append: &'a Append,
        stream: StreamRef<'a>,
        appended: &Appended,
    ) -> Result<Result<BTreeMap<&'a str, Option<HolderRef<'a>>>, Conflict>> {
        let mut changed: BTreeMap<&str, Option<HolderRef<'_>>> =
            append.releases.iter().map(|key| (key.as_str(), None)).collect();
        for claim in &append.claims {
            let key = claim.key.as_str();
            let wanted = holder(claim, stream, appended.position);
            let stored;
            let current = match changed.get(key).or_else(|| self.claims.get(key)) {
                Some(current) => *current,
                None => {
                    stored = self.log.holder(key)?;
                    stored.as_ref().map(HolderRef::from)
                }
            };
            if let Some(current) = current {
                let has_expired = current.expires.is_some_and(|expires| expires <= appended.time);
                let gives_way = current.stream == wanted.stream || claim.replaces == Some(current.position);
                if !has_expired && !gives_way {
                    return Ok(Err(Conflict::Claimed { key: key.to_owned(), holder: current.to_holder() }));
                }
            }
            changed.insert(key, Some(wanted));
        }
        Ok(Ok(changed))
    }

    fn tail(&mut self, stream: StreamRef<'_>) -> Result<Tail> {
        match self.tails.get(&stream) {
            Some(tail) => Ok(*tail),
            None => self.log.tail(stream),
        }
    }

    fn last_of_instances(&mut self, quiet: &Quiet) -> Result<Position> {
        match self.instances.get(quiet.model.as_str()) {
            Some(last) => Ok(*last),
            None => self.log.last_of_instances(&quiet.model, quiet.since),
        }
    }
}

fn holder<'a>(claim: &'a Claim, stream: StreamRef<'a>, position: Position) -> HolderRef<'a> {
    let stream = claim.holder.as_ref().map_or(stream, StreamRef::from);
    HolderRef { stream, position, expires: claim.expires, value: claim.value.as_deref() }
}
