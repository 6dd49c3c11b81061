//! What the rows of one batch may do, before anything is written.
//!
//! Each row is checked against the log and what the rows before it do. A row that conflicts leaves no trace here, so
//! nothing has to be taken back.

use std::collections::{HashMap, HashSet};

use snaphook_driver::time::Millis;
use snaphook_driver::{Append, Appended, Claim, Conflict, Expected, Holder, Position, Stream};

use super::Log;
use super::index::Tail;
use super::record::{Body, EventOut, Held};

/// A batch while it is checked: the log, and what its rows change.
struct Batch<'l, 'a> {
    log: &'l Log,
    head: Position,
    time: Millis,
    tails: HashMap<Stream, Tail>,
    /// Position of the last event of a model's instances in this batch.
    instances: HashMap<&'a str, Position>,
    claims: HashMap<&'a str, Option<Holder>>,
    rows: Vec<Row<'a>>,
}

/// A row that has no conflict.
pub(super) struct Row<'a> {
    pub(super) append: &'a Append,
    pub(super) appended: Appended,
    pub(super) stream: Stream,
    /// Keys that it takes, with their new holders.
    pub(super) held: Vec<(&'a str, Holder)>,
}

/// Checks all rows of a batch. Returns those that are to be written, and the answer of each; with `atomic`, none is
/// written if one has a conflict.
pub(super) fn check<'a>(
    log: &Log,
    batch: &'a [Append],
    atomic: bool,
) -> (Vec<Row<'a>>, Vec<Result<Appended, Conflict>>) {
    let mut checked = Batch {
        log,
        head: log.index.head(),
        time: log.index.time,
        tails: HashMap::new(),
        instances: HashMap::new(),
        claims: HashMap::new(),
        rows: Vec::with_capacity(batch.len()),
    };
    let mut answers = Vec::with_capacity(batch.len());
    for append in batch {
        let answer = checked.row(append);
        if atomic && answer.is_err() {
            let failed = answers.len();
            answers.clear();
            answers.resize(batch.len(), Err(Conflict::Batch));
            answers[failed] = answer;
            return (Vec::new(), answers);
        }
        answers.push(answer);
    }
    (checked.rows, answers)
}

impl Row<'_> {
    /// What the row's line says.
    pub(super) fn body(&self) -> Body<'_> {
        let claims = self.held.iter().map(|(key, holder)| Held::by_event(key, holder, Some(&self.stream))).collect();
        let event = EventOut::new(&self.append.event, self.appended.position, self.appended.time);
        Body::Event { event, claims, releases: &self.append.releases }
    }
}

impl<'a> Batch<'_, 'a> {
    fn row(&mut self, append: &'a Append) -> Result<Appended, Conflict> {
        let event = &append.event;
        let stream = event.stream();
        let time = event.time.max(self.time);
        self.check_row(append, &stream, time)?;
        let after = self.head;
        let position = after + 1;
        for key in &append.releases {
            self.claims.insert(key, None);
        }
        let mut held = Vec::with_capacity(append.claims.len());
        for Claim { key, holder, expires, value, .. } in &append.claims {
            let holder = Holder {
                stream: holder.clone().unwrap_or_else(|| stream.clone()),
                position,
                expires: *expires,
                value: value.clone(),
            };
            self.claims.insert(key, Some(holder.clone()));
            held.push((key.as_str(), holder));
        }
        self.tails.insert(stream.clone(), Tail { position, ended: event.kind.ends_stream() });
        if event.instance.is_some() {
            self.instances.insert(&event.model, position);
        }
        (self.head, self.time) = (position, time);
        let appended = Appended { position, time, after };
        self.rows.push(Row { append, appended, stream, held });
        Ok(appended)
    }

    fn check_row(&self, append: &Append, stream: &Stream, time: Millis) -> Result<(), Conflict> {
        let Tail { position: last, ended } = self.tail(stream);
        let holds = match append.expected {
            Expected::Any => true,
            Expected::New => last == 0 || ended,
            Expected::At(position) => last == position && !ended,
        };
        if !holds {
            return Err(Conflict::Stream { last, ended });
        }
        for require in &append.requires {
            let last = self.tail(&require.stream).position;
            if last != require.position {
                return Err(Conflict::Required { stream: require.stream.clone(), last });
            }
        }
        if let Some(quiet) = &append.quiet {
            let of_batch = self.instances.get(quiet.model.as_str()).copied();
            let last = of_batch.unwrap_or_else(|| self.log.index.last_of_instances(&quiet.model));
            if last > quiet.since {
                return Err(Conflict::NotQuiet { last });
            }
        }
        self.check_claims(append, stream, time)
    }

    fn check_claims(&self, append: &Append, stream: &Stream, time: Millis) -> Result<(), Conflict> {
        let released: HashSet<&str> = append.releases.iter().map(String::as_str).collect();
        let mut taken: HashMap<&str, &Stream> = HashMap::with_capacity(append.claims.len());
        for Claim { key, holder, replaces, .. } in &append.claims {
            let wanted = holder.as_ref().unwrap_or(stream);
            let current = match taken.insert(key, wanted) {
                Some(earlier) => Some(Holder::new(earlier.clone(), self.head + 1)),
                None if released.contains(key.as_str()) => None,
                None => self.holder(key).filter(|holder| !holder.has_expired(time)).cloned(),
            };
            let gives_way = |current: &Holder| current.stream == *wanted || *replaces == Some(current.position);
            if let Some(holder) = current.filter(|current| !gives_way(current)) {
                return Err(Conflict::Claimed { key: key.clone(), holder });
            }
        }
        Ok(())
    }

    fn tail(&self, stream: &Stream) -> Tail {
        self.tails.get(stream).copied().unwrap_or_else(|| self.log.index.tail(stream))
    }

    fn holder(&self, key: &str) -> Option<&Holder> {
        match self.claims.get(key) {
            Some(changed) => changed.as_ref(),
            None => self.log.claims.get(key).map(|holder| &**holder),
        }
    }
}
