//! A log in its simplest form: a list of everything that happened. Slow, but easy to verify.
//!
//! Every query scans the whole history. The results of stores are compared with it, and so are those of the SDK's
//! judge, with which it shares no code.

use snaphook_driver::time::Millis;
use snaphook_driver::{Append, Appended, Conflict, Event, Expected, Holder, Position, Stream};

/// A log whose positions have no gaps.
#[derive(Debug, Default)]
pub struct NaiveLog {
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    event: Event,
    /// Keys and their holders from then on.
    keys: Vec<(String, Option<Holder>)>,
}

impl NaiveLog {
    /// See [`snaphook_driver::EventStore::append`].
    pub fn append(&mut self, batch: &[Append], atomic: bool) -> Vec<Result<Appended, Conflict>> {
        let before = self.rows.len();
        let mut answers: Vec<_> = batch.iter().map(|append| self.append_one(append)).collect();
        if atomic && let Some(first) = answers.iter().position(Result::is_err) {
            self.rows.truncate(before);
            for (index, answer) in answers.iter_mut().enumerate() {
                if index != first {
                    *answer = Err(Conflict::Batch);
                }
            }
        }
        answers
    }

    /// Position of the last event.
    pub fn head(&self) -> Position {
        self.rows.len() as Position
    }

    /// Time of the last event.
    pub fn time(&self) -> Option<Millis> {
        self.rows.last().map(|row| row.event.time)
    }

    /// Position of the last event of a stream, and whether that event ended the stream.
    pub fn end_of(&self, stream: &Stream) -> (Position, bool) {
        let last = self.rows.iter().rev().find(|row| row.event.stream() == *stream);
        last.map_or((0, false), |row| (row.event.position, row.event.kind.ends_stream()))
    }

    /// Position of the last event of a model's instances.
    pub fn last_of_instances(&self, model: &str) -> Position {
        let last = self.rows.iter().rev().find(|row| row.event.model == model && row.event.instance.is_some());
        last.map_or(0, |row| row.event.position)
    }

    /// The last holder of a key that has not released it; the claim may have expired.
    pub fn holder(&self, key: &str) -> Option<&Holder> {
        let last = self.rows.iter().flat_map(|row| &row.keys).rev().find(|(changed, _)| changed == key)?;
        last.1.as_ref()
    }

    fn append_one(&mut self, append: &Append) -> Result<Appended, Conflict> {
        let (event, stream) = (&append.event, append.event.stream());
        let after = self.head();
        let (position, time) = (after + 1, self.time().map_or(event.time, |last| last.max(event.time)));
        let (last, ended) = self.end_of(&stream);
        match append.expected {
            Expected::New if last > 0 && !ended => return Err(Conflict::Stream { last, ended }),
            Expected::At(at) if at != last || ended => return Err(Conflict::Stream { last, ended }),
            _ => {}
        }
        for require in &append.requires {
            let (last, _) = self.end_of(&require.stream);
            if last != require.position {
                return Err(Conflict::Required { stream: require.stream.clone(), last });
            }
        }
        if let Some(quiet) = &append.quiet {
            let last = self.last_of_instances(&quiet.model);
            if last > quiet.since {
                return Err(Conflict::NotQuiet { last });
            }
        }
        let mut keys: Vec<(String, Option<Holder>)> = Vec::new();
        for key in &append.releases {
            keys.push((key.clone(), None));
        }
        for claim in &append.claims {
            let stream = claim.holder.clone().unwrap_or(stream.clone());
            let current = match keys.iter().rev().find(|(key, _)| *key == claim.key) {
                Some((_, holder)) => holder.as_ref(),
                None => self.holder(&claim.key),
            };
            if let Some(current) = current {
                let is_over = current.expires.is_some_and(|expires| time >= expires);
                let is_mine = current.stream == stream;
                let is_replaced = claim.replaces == Some(current.position);
                if !is_over && !is_mine && !is_replaced {
                    return Err(Conflict::Claimed { key: claim.key.clone(), holder: current.clone() });
                }
            }
            let holder = Holder { stream, position, expires: claim.expires, value: claim.value.clone() };
            keys.push((claim.key.clone(), Some(holder)));
        }
        self.rows.push(Row { event: Event { position, time, ..event.clone() }, keys });
        Ok(Appended { position, time, after })
    }
}
