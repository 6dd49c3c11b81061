//! Two stores in memory that write what the judge decides: one row after the other, or the sum of the rows.

use std::collections::BTreeMap;

use snaphook_driver::judge::{Judged, Known, LogEnd, LogState, Needs, REMOVALS_MAX, Tail};
use snaphook_driver::{Append, Holder, Position, Result, Stream, StreamRef};

/// Queried while the judge runs. Removes expired claims.
pub(crate) struct ByRow {
    pub(crate) end: LogEnd,
    pub(crate) tails: BTreeMap<Stream, Tail>,
    pub(crate) holders: BTreeMap<String, Holder>,
    instances: BTreeMap<String, Position>,
}

impl Default for ByRow {
    fn default() -> Self {
        ByRow { end: LogEnd::EMPTY, tails: BTreeMap::new(), holders: BTreeMap::new(), instances: BTreeMap::new() }
    }
}

impl ByRow {
    pub(crate) fn write(&mut self, judged: &Judged<'_>) {
        self.end = judged.end;
        for row in &judged.accepted {
            row.append.releases.iter().for_each(|key| drop(self.holders.remove(key)));
            for (key, holder) in row.claims() {
                self.holders.insert(key.to_owned(), holder.to_holder());
            }
            self.tails.insert(row.stream().to_stream(), row.tail());
            if row.append.event.instance.is_some() {
                self.instances.insert(row.append.event.model.clone(), row.appended.position);
            }
        }
        if let Some(time) = judged.removal {
            let expired = self.holders.iter().filter(|(_, holder)| holder.has_expired(time));
            let mut expired: Vec<_> = expired.map(|(key, holder)| (holder.expires, key.clone())).collect();
            expired.sort();
            expired.truncate(REMOVALS_MAX);
            expired.iter().for_each(|(_, key)| drop(self.holders.remove(key)));
            self.end.removed(expired.len());
        }
    }
}

impl LogState for ByRow {
    fn tail(&mut self, stream: StreamRef<'_>) -> Result<Tail> {
        Ok(self.tails.get(&stream.to_stream()).copied().unwrap_or(Tail::NONE))
    }

    fn last_of_instances(&mut self, model: &str, since: Position) -> Result<Position> {
        // If the last position is at or before `since`, any position up to `since` may be returned.
        Ok(self.instances.get(model).copied().filter(|last| *last > since).unwrap_or(since))
    }

    fn holder(&mut self, key: &str) -> Result<Option<Holder>> {
        Ok(self.holders.get(key).cloned())
    }
}

/// Loaded before the judge runs, with only what the batch needs. Keeps expired claims.
pub(crate) struct ByNet {
    pub(crate) end: LogEnd,
    pub(crate) tails: BTreeMap<Stream, Tail>,
    pub(crate) holders: BTreeMap<String, Holder>,
}

impl Default for ByNet {
    fn default() -> Self {
        ByNet { end: LogEnd::EMPTY, tails: BTreeMap::new(), holders: BTreeMap::new() }
    }
}

impl ByNet {
    pub(crate) fn known<'a>(&self, batch: &'a [Append]) -> Known<'a> {
        let Needs { streams, keys, quiet } = Needs::of(batch);
        let instances = quiet.into_iter().map(|(model, since)| {
            let of_model = self.tails.iter().filter(|(stream, _)| stream.model == model && stream.instance.is_some());
            let after = of_model.map(|(_, tail)| tail.position).filter(|position| *position > since);
            (model, after.max().unwrap_or(0))
        });
        Known {
            tails: streams
                .into_iter()
                .filter_map(|stream| Some((stream, *self.tails.get(&stream.to_stream())?)))
                .collect(),
            holders: keys.into_iter().filter_map(|key| Some((key, self.holders.get(key)?.clone()))).collect(),
            instances: instances.collect(),
        }
    }

    pub(crate) fn write(&mut self, judged: &Judged<'_>) {
        self.end = judged.end;
        self.tails.extend(judged.tails().into_iter().map(|(stream, tail)| (stream.to_stream(), tail)));
        for (key, holder) in judged.claims() {
            match holder {
                Some(holder) => drop(self.holders.insert(key.to_owned(), holder.to_holder())),
                None => drop(self.holders.remove(key)),
            }
        }
        if judged.removal.is_some() {
            self.end.removed(0);
        }
    }
}
