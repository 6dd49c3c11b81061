//! The log in memory, without the events' data, for reads and for checking conditions.

use snaphook_driver::judge::{Judged, LogEnd, LogState, Tail};
use snaphook_driver::time::Millis;
use snaphook_driver::{Holder, Position, Result, StreamRef};

use super::claims::Claims;
use super::index::{Index, Span};

/// See the head of this file.
pub(super) struct Log {
    pub(super) index: Index,
    pub(super) claims: Claims,
    /// See [`LogEnd`].
    next_removal: Millis,
}

impl Log {
    pub(super) fn new() -> Log {
        Log { index: Index::new(), claims: Claims::default(), next_removal: LogEnd::EMPTY.next_removal }
    }

    pub(super) fn end(&self) -> LogEnd {
        LogEnd { position: self.index.head(), time: self.index.time, next_removal: self.next_removal }
    }

    /// Makes a written batch visible to reads.
    pub(super) fn commit(&mut self, judged: &Judged<'_>, spans: &[Span]) {
        for (row, span) in judged.accepted.iter().zip(spans) {
            row.append.releases.iter().for_each(|key| self.claims.remove(key));
            row.claims().for_each(|(key, holder)| self.claims.put(key, holder.to_holder()));
            let StreamRef { model, instance } = row.stream();
            self.index.time = row.appended.time;
            self.index.push(row.appended.position, row.append.event.kind, (model, instance), *span);
        }
        if let Some(time) = judged.removal {
            let mut end = judged.end;
            end.removed(self.claims.remove_expired(time));
            self.next_removal = end.next_removal;
        }
    }
}

impl LogState for &Log {
    fn tail(&mut self, stream: StreamRef<'_>) -> Result<Tail> {
        Ok(self.index.tail(stream))
    }

    fn last_of_instances(&mut self, model: &str, _since: Position) -> Result<Position> {
        Ok(self.index.last_of_instances(model))
    }

    fn holder(&mut self, key: &str) -> Result<Option<Holder>> {
        Ok(self.claims.get(key).map(|holder| Holder::clone(holder)))
    }
}
